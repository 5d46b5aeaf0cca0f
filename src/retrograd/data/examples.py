"""Examples with gold passages or dialogue turns, which evaluation reads and training does not.

Training reads query and targets. Gold passages are never a signal to it; they say, afterwards, what retrieval found.
One control reads them on purpose (`retrograd.rag.search.oracle`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from retrograd.types import Example, Passage, UserError

__all__ = [
    "DialogueExample",
    "GroundedExample",
    "TargetChoice",
    "Turn",
    "dialogue_example",
    "gold_passages",
    "has_patterns",
    "with_knowledge",
    "with_target",
]

E = TypeVar("E", bound=Example)
TargetChoice = Literal["first", "sampled"]
"""Which of several acceptable answers a visit of an example trains on (`retrograd.training.sampling.targets`)."""


@dataclass(frozen=True, slots=True)
class GroundedExample(Example):
    """A question with its answers; ``gold_passages`` are ids in the knowledge base, empty where none are marked.

    ``has_patterns`` says that the targets are regular expressions, which scores and evidence match
    (`retrograd.metrics.patterns`).
    """

    gold_passages: tuple[str, ...] = ()
    has_patterns: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """One utterance of a dialogue, with the role of its speaker."""

    role: str
    text: str

    def __str__(self) -> str:
        """Return the turn on one line: ``role: text``."""
        return " ".join(f"{self.role}: {self.text}".split())


@dataclass(frozen=True, slots=True)
class DialogueExample(GroundedExample):
    """A dialogue up to the turn to be answered, which is the last of ``history``; ``query`` has all turns, one a line.

    ``knowledge`` are the texts that the gold answer was written from, where they are known.
    """

    history: tuple[Turn, ...] = ()
    knowledge: tuple[str, ...] = ()


def gold_passages(example: Example) -> tuple[str, ...]:
    """Return the ids of an example's gold passages; empty where none are marked."""
    return example.gold_passages if isinstance(example, GroundedExample) else ()


def has_patterns(example: Example) -> bool:
    """Return whether the targets of an example are regular expressions."""
    return isinstance(example, GroundedExample) and example.has_patterns


def dialogue_example(
    id: str,  # noqa: A002 (the record's field)
    history: Sequence[Turn],
    targets: Sequence[str] = (),
    gold_passages: Sequence[str] = (),
    knowledge: Sequence[str] = (),
) -> DialogueExample:
    """Return the example of a dialogue, given its turns from oldest to newest.

    Raises `UserError` without a turn, and for a blank last one.
    """
    if not history:
        raise UserError(f"dialogue {id!r} has no turn; its history must end with the turn to be answered")
    if not history[-1].text.strip():
        raise UserError(f"the last turn of dialogue {id!r} is blank; its history must end with the turn to be answered")
    query = "\n".join(map(str, history))
    return DialogueExample(
        id, query, tuple(targets), tuple(gold_passages), history=tuple(history), knowledge=tuple(knowledge)
    )


def with_knowledge(examples: Iterable[E], passages: Callable[[str], Iterable[Passage]]) -> Iterator[E]:
    """Yield the examples, giving dialogues without knowledge the texts of their gold passages.

    ``passages`` looks up an id: one, or all that a document was cut into.
    """
    for example in examples:
        if isinstance(example, DialogueExample) and not example.knowledge:
            texts = tuple(passage.text for id_ in example.gold_passages for passage in passages(id_))
            yield replace(example, knowledge=texts)
        else:
            yield example


def with_target(example: E, position: int) -> E:
    """Return the example with one of its targets moved to the front. Raises `UserError` where the example lacks it."""
    if not 0 <= position < len(example.targets):
        raise UserError(
            f"example {example.id!r} has {len(example.targets)} targets and none at position {position}; "
            "positions count from 0"
        )
    first, others = example.targets[position], example.targets[:position] + example.targets[position + 1 :]
    return replace(example, targets=(first, *others))
