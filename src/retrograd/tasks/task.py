"""A task turns examples and passages into text, and answers into scores. Text only: no tensors, no models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

from retrograd.metrics.words import Unsaid
from retrograd.types import Example, Passage
from retrograd.util.guards import JsonObject

__all__ = ["Support", "Task"]

Support = Callable[[Example], Sequence[int]]
"""Rows of the knowledge base that support an example's target, by the task's own cheap test."""


@runtime_checkable
class Task(Protocol):
    """What a data set asks, in words.

    ``choices`` are all permitted answers where the task has a closed set, else None: answers are then generated.
    ``choices_for`` are those of one example, which may be fewer, or other words for the same.
    ``primary_metric`` names the entry of `score` that sums the others up.
    """

    @property
    def name(self) -> str:
        """What reports and run directories call the task."""
        ...

    @property
    def choices(self) -> tuple[str, ...] | None:
        """All permitted answers, or None."""
        ...

    @property
    def primary_metric(self) -> str:
        """A key of what `score` returns."""
        ...

    def choices_for(self, example: Example) -> tuple[str, ...] | None:
        """The answers permitted for this example, as `score` understands them, its target among them where the example
        is one to train on; None where `choices` is None."""
        ...

    def negative_for(self, example: Example) -> str | None:
        """The permitted answer that says there is nothing to be found ("no relation", "cannot answer"), or None."""
        ...

    def label_record(self, answer: str, example: Example) -> JsonObject:
        """Return what a prediction's record says of the label that an answer names; nothing where there are none."""
        ...

    def role_spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Where in a retriever's text head, tail and context stand: characters [start, end).

        Raises `UserError` in a task whose texts have no such roles.
        """
        ...

    @property
    def unsaid(self) -> Unsaid:
        """What the retrievers read below that is no word: instructions to an encoder, separators, masks."""
        ...

    def query_text(self, example: Example) -> str:
        """What the prior retriever reads. It never contains the target."""
        ...

    def posterior_text(self, example: Example, target: str) -> str:
        """What the posterior retriever reads: the query and the target."""
        ...

    def passage_text(self, passage: Passage) -> str:
        """What the passage tower reads."""
        ...

    def prompt(self, example: Example, passages: Sequence[Passage]) -> str:
        """The generator's input; no passages is the closed-book prompt."""
        ...

    def neighbour_text(self, passage: Passage) -> str:
        """What `prompt` shows of one passage, by itself: the words that a soft slot mixes."""
        ...

    def identity(self, text: str) -> str:
        """A key under which two texts count as equal, so that an example is never retrieved for itself.

        Applied to ``Example.query`` and to ``Passage.text``.
        """
        ...

    def support(self, passages: Iterable[Passage]) -> Support | None:
        """A test of which passages support a target, or None where the task has no cheap one.

        Never a relevance label: only what the pair (example, target) and the passages themselves say.
        """
        ...

    def score(self, examples: Sequence[Example], answers: Sequence[str]) -> dict[str, float]:
        """Official scores of the answers, in percent, by name."""
        ...
