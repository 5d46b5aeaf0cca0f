"""The pairs of entity types that training shows in a relation: of others no relation is asked."""

from __future__ import annotations

from dataclasses import dataclass

from retrograd.data.relations.instance import entity_types
from retrograd.experiments.open import OpenRun
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.types import UserError
from retrograd.util.progress import say

__all__ = ["TypePairs", "training_types"]


@dataclass(frozen=True)
class TypePairs:
    """Pairs (head type, tail type) that stand in a relation, the negative one aside; none where nothing has types.

    ``in_any_order`` permits (tail type, head type) as well, where labels say the direction. An empty type is an unknown
    one, and fits every type.
    """

    pairs: frozenset[tuple[str, str]]
    in_any_order: bool = False

    @property
    def types(self) -> tuple[str, ...]:
        """Return the types, sorted."""
        return tuple(sorted({kind for pair in self.pairs for kind in pair if kind}))

    def permits(self, head_type: str, tail_type: str) -> bool:
        """Return whether training shows a relation between entities of these types; True where it has no types."""
        if not self.pairs:
            return True
        orders = [(head_type, tail_type), (tail_type, head_type)][: 1 + self.in_any_order]
        return any(_fits(head, own[0]) and _fits(tail, own[1]) for head, tail in orders for own in self.pairs)


def _fits(kind: str, known: str) -> bool:
    return not kind or not known or kind == known


def training_types(run: OpenRun, task: RelationExtraction) -> TypePairs:
    """Return the pairs of types of a run's training: of its type constraints, else of its training data.

    Where the files of the data are gone, it says so, and there are none.
    """
    if task.constraints is not None:
        relations = task.constraints.relations_by_types.items()
        shown = {pair for pair, labels in relations if labels - {task.negative}}
    else:
        try:
            examples = run.data.train
        except UserError as error:
            say(f"the training data cannot be read, so that all pairs of entities are asked, of any types: {error}")
            examples = []
        shown = {
            types
            for example in examples
            if (types := entity_types(example)) is not None
            and any(types)
            and task.relation_of(example.target, example) != task.negative
        }
    return TypePairs(frozenset(shown), task.has_directed_labels)
