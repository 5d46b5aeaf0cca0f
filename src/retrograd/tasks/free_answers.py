"""Tasks whose answers are free words about passages, such as questions and dialogues, share these members."""

from __future__ import annotations

from typing import NoReturn

from retrograd.data.masking import MASK
from retrograd.metrics.words import NonWords, fold
from retrograd.types import ComposedText, Example, Passage, UserError
from retrograd.util.guards import JsonObject

__all__ = ["FreeAnswers"]


class FreeAnswers:
    """Members of a task whose answers are free words about passages of a corpus.

    A subclass is a frozen record with these fields and its own ``evidence`` (`retrograd.tasks.support`).
    """

    query_prefix: str
    passage_prefix: str
    separator: str
    titles: bool
    no_answer: str | None
    name: str

    def choices_for(self, example: Example) -> None:
        """Return None: answers are free text."""

    def negative_for(self, example: Example) -> str | None:
        """Return the answer that says that nothing can be answered, or None."""
        return self.no_answer

    def label_record(self, answer: str, example: Example) -> JsonObject:
        """Return nothing: answers in free words name no label."""
        return {}

    def role_spans(self, text: str) -> NoReturn:
        """Raise `UserError`: texts of the task have no head and tail for a retriever to pool."""
        raise UserError(
            f"the task {self.name!r} has no head, tail and context; set the retriever's pooling to mean or cls"
        )

    @property
    def non_words(self) -> NonWords:
        """Return both prefixes, the separator, and the words that replace a masked word."""
        return NonWords((self.query_prefix, self.passage_prefix), (self.separator, MASK))

    def passage_text(self, passage: Passage) -> str:
        """Return the prefix, the title and the text."""
        return ComposedText(self.passage_prefix, self.neighbour_text(passage))

    def neighbour_text(self, passage: Passage) -> str:
        """Return ``title: text``; the text alone without ``titles``, or where there is none."""
        return f"{passage.title}: {passage.text}" if self.titles and passage.title else passage.text

    def identity(self, text: str) -> str:
        """Return the text with case and spaces normalised: a passage that is the query itself answers nothing."""
        return fold(text)
