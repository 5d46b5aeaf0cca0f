"""Make the task of relation extraction that settings and training data describe: its labels and their words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.tacred import NO_RELATION
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.tasks.relations.type_constraints import TypeConstraints
from retrograd.tasks.relations.verbalisation import Verbalisation, derive_phrases, open_verbalisation
from retrograd.types import UserError

if TYPE_CHECKING:
    from retrograd.experiments.data.relations import RelationData

__all__ = ["NEGATIVE", "TASK_NAMES", "relation_task", "require_two_labels", "task_of"]

NEGATIVE = {"semeval": "Other", "tacred": NO_RELATION, "retacred": NO_RELATION}
"""The negative label of each label set that is known by name."""
_TEMPLATES = {"semeval": "builtin:semeval2010_task8", "tacred": "builtin:tacred", "retacred": "builtin:retacred"}
"""The words of each label set that is known by name."""
TASK_NAMES = {"semeval": "semeval2010_task8", "tacred": "tacred", "retacred": "retacred"}
"""The name of the task of each label set that is known by name."""


def relation_task(
    settings: RelationData, whole: Sequence[RelationInstance], sample: Sequence[RelationInstance]
) -> RelationExtraction:
    """Return the task of settings and training data: labels of all data, type constraints of what was drawn.

    Raises `UserError` where the words of the labels do not fit.
    """
    labels = [instance.relation for instance in whole if instance.relation is not None]
    constraints = TypeConstraints.learn(sample) if settings.type_constraints else None
    return task_of(settings, _read_verbalisation(settings, labels), constraints)


def require_two_labels(task: RelationExtraction, source: str) -> None:
    """Raise `UserError` for a task of one label, which is nothing to learn; ``source`` is where labels come from."""
    labels = [*task.phrases]
    if len(labels) < 2:
        raise UserError(f"{source}: {labels[0]!r} is the only label, which leaves nothing to tell apart; add others")


def _read_verbalisation(settings: RelationData, labels: Sequence[str]) -> Verbalisation:
    """Read the words of labels. Raises `UserError` for a label without words, or one that a fixed set lacks."""
    fixed = settings.labels != "from_train"
    source = settings.templates or _TEMPLATES.get(settings.labels, "")
    if not source:
        return Verbalisation(derive_phrases(labels))
    verbalisation = open_verbalisation(source)
    if fixed and settings.templates:
        verbalisation.require(open_verbalisation(_TEMPLATES[settings.labels]).phrases, source, exactly=True)
    elif not fixed:
        verbalisation.require([*labels, settings.negative] if settings.negative else labels, source)
    return verbalisation


def task_of(
    settings: RelationData, verbalisation: Verbalisation, constraints: TypeConstraints | None
) -> RelationExtraction:
    """Return the task of settings and of the words of its labels."""
    metrics = {"semeval": "semeval", "tacred": "micro", "retacred": "micro"}
    return RelationExtraction(
        verbalisation,
        negative=NEGATIVE.get(settings.labels, settings.negative or None),
        metric=metrics.get(settings.labels, settings.metric),
        query_style=settings.query_style,
        neighbour_style=settings.neighbour_style,
        name=TASK_NAMES.get(settings.labels, "relation extraction"),
        target_style=settings.target_style,
        input_style=settings.input_style,
        key_style=settings.key_style,
        exclude=settings.exclude,
        constraints=constraints,
    )
