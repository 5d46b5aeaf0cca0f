"""Functions shared by tasks with answers in free words."""

from __future__ import annotations

from typing import NoReturn

from retrograd.data.masking import MASK
from retrograd.metrics.words import Unsaid
from retrograd.types import Passage, UserError

__all__ = ["refuse_roles", "show_passage", "unsaid_marks"]


def show_passage(passage: Passage, titles: bool) -> str:
    """Return ``title: text``; the text alone without ``titles``, or where there is none."""
    return f"{passage.title}: {passage.text}" if titles and passage.title else passage.text


def unsaid_marks(query_prefix: str, passage_prefix: str, separator: str) -> Unsaid:
    """Return the parts of retriever texts that are not words: prefixes, separator, and the replacement of a masked
    word.
    """
    return Unsaid((query_prefix, passage_prefix), (separator, MASK))


def refuse_roles(task: str) -> NoReturn:
    """Raise `UserError`: texts of the task have no head and tail for a retriever to pool."""
    raise UserError(f"the task {task!r} has no head, tail and context; set the retriever's pooling to mean or cls")
