"""Checks that the settings of a relation extraction task fit its labels and their words."""

from __future__ import annotations

from collections.abc import Mapping

from retrograd.metrics.relations import SEMEVAL_LABELS
from retrograd.tasks.relations.type_constraints import TypeConstraints
from retrograd.tasks.relations.verbalisation import Verbalisation
from retrograd.types import UserError
from retrograd.util.guards import suggest_name

__all__ = ["check_labels"]


def check_labels(
    words: Verbalisation,
    negative: str | None,
    metric: str,
    sentences_are_targets: bool,
    constraints: TypeConstraints | None,
) -> None:
    """Raise `UserError` where metric, negative, constraints or target style do not fit the labels and their words."""
    if negative is not None and negative not in words.phrases:
        raise UserError(f"negative label {negative!r} has no phrase; {suggest_name(negative, words.phrases)}")
    if metric == "semeval":
        _require_semeval(words.phrases, negative)
    if sentences_are_targets and not words.templates:
        raise UserError(
            "sentences as targets need a template for every label; set data.templates to builtin:tacred, "
            "builtin:semeval2010_task8 or a TOML file of your own"
        )
    for pair, relations in constraints.relations_by_types.items() if constraints else ():
        for relation in relations:
            if relation not in words.phrases:
                raise UserError(
                    f"the type constraints of {pair} permit {relation!r}, which is no label; "
                    f"{suggest_name(relation, words.phrases)}"
                )


def _require_semeval(phrases: Mapping[str, str], negative: str | None) -> None:
    """Raise `UserError` unless the official scorer knows every label and the negative is ``Other``."""
    for label in phrases:
        if label not in SEMEVAL_LABELS:
            raise UserError(
                f"metric 'semeval' does not know the label {label!r}; {suggest_name(label, SEMEVAL_LABELS)} "
                "Score other label sets with metric 'macro' or 'micro'"
            )
    if negative != "Other":
        raise UserError(f"metric 'semeval' has the negative label 'Other', not {negative!r}; give negative='Other'")
