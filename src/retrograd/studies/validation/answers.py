"""Check whether answers stand in passages at all: where none does, no passage is evidence and every recall is 0."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from retrograd.experiments.data.findings import Findings
from retrograd.studies.validation.checks import PartContents
from retrograd.tasks.relevance import answer_rows, is_answerable
from retrograd.tasks.task import Task
from retrograd.types import Example, Passage

__all__ = ["AnswerSearch"]

_MOST_EXAMPLES = 1_000
_PASSAGES_AT_ONCE = 8_192


class AnswerSearch:
    """Look for the answers of at most 1,000 examples of each part in all passages, a few thousand at a time.

    A part is done with its first answer that is found: the question is whether the passages hold any.
    """

    def __init__(self, parts: Sequence[tuple[PartContents, Sequence[Example]]], task: Task) -> None:
        self._missing: list[tuple[PartContents, list[Example]]] = []
        for part, examples in parts:
            answerable = [example for example in examples if is_answerable(task, example)]
            if answerable:
                self._missing.append((part, answerable[:_MOST_EXAMPLES]))

    def check(self, passages: Iterable[Passage]) -> Iterator[Passage]:
        """Pass the passages through, and look for answers in their texts."""
        texts: list[str] = []
        for passage in passages:
            if self._missing:
                texts.append(passage.text)
            if len(texts) == _PASSAGES_AT_ONCE:
                self._look_in(texts)
                texts = []
            yield passage
        if texts:
            self._look_in(texts)

    def _look_in(self, texts: Sequence[str]) -> None:
        self._missing = [(part, examples) for part, examples in self._missing if not any(answer_rows(examples, texts))]

    def report(self, passages: int, findings: Findings) -> None:
        """Warn of each part of which no answer stands in any passage, where there are passages."""
        for part, examples in self._missing if passages else ():
            message = f"no answer of {len(examples):,} examples stands in any of the {passages:,} passages"
            remedy = "check that the base is the one that answers them: without evidence there is no warm start"
            findings.warning("answers", part.name, part.source, message, remedy)
