"""The kinds of data that an experiment can have. A new one is a file and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from retrograd.recipes.grounded_data import DialogueData, QuestionData
from retrograd.recipes.relation_data import RelationData
from retrograd.recipes.source import Source

__all__ = ["KINDS", "kind_of"]

KINDS: Mapping[str, type[Source]] = {"relations": RelationData, "questions": QuestionData, "dialogue": DialogueData}
"""By the value of ``data.kind``."""


def kind_of(source: Source) -> str:
    """The value of ``data.kind`` that stands for these settings."""
    return next(name for name, kind in KINDS.items() if type(source) is kind)
