"""A task turns examples and passages into text, and answers into scores. Text only: no tensors, no models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

from retrograd.data.examples import Turn
from retrograd.metrics.words import NonWords
from retrograd.types import Example, Passage
from retrograd.util.guards import JsonObject

__all__ = ["Support", "Task", "TurnTask"]

Support = Callable[[Example], Sequence[int]]
"""Rows of the knowledge base that support an example's target, by the task's own cheap test."""


@runtime_checkable
class Task(Protocol):
    """The question of a data set, as text.

    ``choices`` are all permitted answers where the task has a closed set, else None: answers are then generated.
    ``choices_for`` are those of one example, which may be fewer, or other words for the same.
    ``primary_metric`` names the entry of `score` that sums the others up.
    """

    @property
    def name(self) -> str:
        """Return the name of the task in reports and run directories."""
        ...

    @property
    def choices(self) -> tuple[str, ...] | None:
        """Return all permitted answers, or None."""
        ...

    @property
    def primary_metric(self) -> str:
        """Return the main score, a key of the result of `score`."""
        ...

    def parse_query(self, text: str) -> Example:
        """Return a typed-in text as an example without a target. Raises `UserError` for a text that is no query."""
        ...

    def choices_for(self, example: Example) -> tuple[str, ...] | None:
        """Return the answers permitted for this example, as `score` understands them, its target among them where the
        example is one to train on; None where `choices` is None.
        """
        ...

    def negative_for(self, example: Example) -> str | None:
        """Return the permitted answer that nothing can be found ("no relation", "cannot answer"), or None."""
        ...

    def label_record(self, answer: str, example: Example) -> JsonObject:
        """Return the fields of a prediction's record about the label that an answer names; nothing where there are no
        labels.
        """
        ...

    def role_spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Return the places of head, tail and context in a retriever's text: characters [start, end).

        Raises `UserError` in a task whose texts have no such roles.
        """
        ...

    @property
    def non_words(self) -> NonWords:
        """Return the parts of retriever texts that are not words: instructions to an encoder, separators, masks."""
        ...

    def query_text(self, example: Example) -> str:
        """Return the text for the prior retriever, which never contains the target."""
        ...

    def posterior_text(self, example: Example, target: str) -> str:
        """Return the text for the posterior retriever: the query and the target.

        Of a `Prompt` the tower cuts the query where both have no room; of a plain string it cuts the end, the target.
        A separator that names a control token, as " [SEP] " does, is that token in a `ComposedText` alone.
        """
        ...

    def passage_text(self, passage: Passage) -> str:
        """Return the text for the passage tower."""
        ...

    def prompt(self, example: Example, passages: Sequence[Passage]) -> str:
        """Return the generator's input; without passages it is the closed-book prompt."""
        ...

    def neighbour_text(self, passage: Passage) -> str:
        """Return the part of `prompt` about one passage, by itself: the words that a soft slot mixes."""
        ...

    def identity(self, text: str) -> str:
        """Return a key under which two texts count as equal, so that an example is never retrieved for itself.

        Applied to ``Example.query`` and to ``Passage.text``.
        """
        ...

    def support(self, passages: Iterable[Passage]) -> Support | None:
        """Return a test of which passages support a target, or None where the task has no cheap one.

        Never a relevance label: only what the pair (example, target) and the passages themselves say.
        """
        ...

    def score(self, examples: Sequence[Example], answers: Sequence[str]) -> dict[str, float]:
        """Return official scores of the answers, in percent, by name."""
        ...


@runtime_checkable
class TurnTask(Protocol):
    """A task whose queries are dialogues, which may be given turn by turn."""

    def parse_turns(self, turns: Sequence[Turn]) -> Example:
        """Return a dialogue, from its oldest turn to the one to be answered, as an example without a target.

        Raises `UserError` without a turn, and for a blank last one.
        """
        ...
