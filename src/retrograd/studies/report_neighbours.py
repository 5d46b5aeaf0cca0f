"""What a page shows of passages: neighbours of a sample of test examples before and after, and which are read most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from retrograd.evaluation.kept_neighbours import KeptNeighbours, read_neighbours
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.tasks.task import Task
from retrograd.training.run.run_directory import RunDirectory
from retrograd.types import Example, Passage
from retrograd.util.text_files import read_jsonl

__all__ = [
    "AnsweredExample",
    "Hub",
    "NeighbourExample",
    "NeighbourLine",
    "NeighbourSample",
    "SupportedShare",
    "list_hubs",
    "read_sample",
]

_SHOWN = 3
_HUBS = 10
_QUERY_CHARACTERS = 400
_TEXT_CHARACTERS = 180


@dataclass(frozen=True)
class AnsweredExample:
    """An answer as a page shows it: its words or its label, and how right it is, in [0, 1]."""

    gold: str
    answer: str
    correctness: float


@dataclass(frozen=True)
class NeighbourLine:
    """A passage that was found, with p(z|x). ``supports`` says whether it supports the target by the task's test."""

    title: str
    text: str
    probability: float
    supports: bool


@dataclass(frozen=True)
class NeighbourExample:
    """A test example with its nearest passages before training and after; ``answered`` is None before the end."""

    id: str
    query: str
    gold: str
    before: tuple[NeighbourLine, ...]
    after: tuple[NeighbourLine, ...]
    answered: AnsweredExample | None = None

    @property
    def is_wrong(self) -> bool:
        """Return whether the answer is more wrong than right."""
        return self.answered is not None and self.answered.correctness < 0.5


@dataclass(frozen=True)
class SupportedShare:
    """How many of ``examples``, in percent, have a nearest passage that supports their target.

    Those without a target, of which nothing can be said, are left out; one for which no passage is found counts as not
    supported.
    """

    percent: float
    examples: int


@dataclass(frozen=True)
class NeighbourSample:
    """A sample of the test examples, those that were answered worst first.

    ``supported_before`` and ``supported_after`` are shares of it; None where nothing was kept, and where the task has
    no test of support.
    """

    examples: tuple[NeighbourExample, ...]
    supported_before: SupportedShare | None
    supported_after: SupportedShare | None


@dataclass(frozen=True)
class Hub:
    """A passage that answers to many test examples were read from: ``times``, a ``share`` of the examples in [0, 1]."""

    title: str
    text: str
    times: int
    share: float


def read_sample(
    run: RunDirectory, task: Task, answered: Mapping[str, AnsweredExample] | None = None
) -> NeighbourSample | None:
    """Return the sample whose neighbours the run has kept; None where it has kept none."""
    before, after = read_neighbours(run.neighbours("before")), read_neighbours(run.neighbours("after"))
    kept = before or after
    if not kept:
        return None
    words = _Words(task, KnowledgeBase.open(run.base))
    first, second = ({one.id: words.lines(one) for one in part} for part in (before, after))
    examples = [
        NeighbourExample(
            id=one.id,
            query=shorten(one.query, _QUERY_CHARACTERS),
            gold=words.gold(one),
            before=first.get(one.id, ())[:_SHOWN],
            after=second.get(one.id, ())[:_SHOWN],
            answered=_shortened((answered or {}).get(one.id)),
        )
        for one in kept
    ]
    if answered is not None:
        examples.sort(key=lambda one: 1.0 if one.answered is None else one.answered.correctness)
    return NeighbourSample(tuple(examples), _share(before), _share(after))


class _Words:
    """Passages and targets as a page shows them: a task with a closed set of answers has the names of its labels."""

    def __init__(self, task: Task, base: KnowledgeBase) -> None:
        self._task = task
        self._base = base

    def lines(self, kept: KeptNeighbours) -> tuple[NeighbourLine, ...]:
        """Return the passages of the rows that the base has."""
        places = [place for place, row in enumerate(kept.rows) if 0 <= row < len(self._base)]
        passages = self._base.passages([kept.rows[place] for place in places])
        return tuple(
            self._line(passage, kept.probabilities[place], bool(kept.supports) and kept.supports[place])
            for place, passage in zip(places, passages, strict=True)
        )

    def hub(self, row: int) -> NeighbourLine:
        """Return the passage of a row."""
        return self._line(self._base[row], 0.0, False)

    def gold(self, kept: KeptNeighbours) -> str:
        """Return the label of the target, or the accepted answers."""
        if self._task.choices is None:
            return shorten(" / ".join(kept.gold), _TEXT_CHARACTERS)
        return self._label(kept.gold[0] if kept.gold else "", kept.query)

    def _line(self, passage: Passage, probability: float, supports: bool) -> NeighbourLine:
        has_labels = self._task.choices is not None
        title = self._label(passage.title, passage.text) if has_labels else shorten(passage.title, _TEXT_CHARACTERS)
        return NeighbourLine(title, shorten(passage.text, _TEXT_CHARACTERS), probability, supports)

    def _label(self, words: str, text: str) -> str:
        """Return the label that an answer about a text names, or the words themselves."""
        label = self._task.label_record(words, Example("", text)).get("relation")
        return label if isinstance(label, str) else words


def list_hubs(run: RunDirectory, task: Task) -> tuple[Hub, ...]:
    """Return the passages that were read for most test examples, of which some was read at least twice."""
    counts: Counter[int] = Counter()
    examples = 0
    for _, record in read_jsonl(run.path / "predictions.jsonl"):
        rows = record.get("rows")
        counts.update({row for row in rows if type(row) is int and row >= 0} if isinstance(rows, list) else set())
        examples += 1
    if not counts:
        return ()
    base = KnowledgeBase.open(run.base)
    words = _Words(task, base)
    hubs: list[Hub] = []
    for row, times in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:_HUBS]:
        if times > 1 and row < len(base):
            line = words.hub(row)
            hubs.append(Hub(line.title, line.text, times, times / examples))
    return tuple(hubs)


def shorten(text: str, characters: int) -> str:
    """Return a text cut to so many characters, with an ellipsis where it was longer."""
    return text if len(text) <= characters else text[: characters - 1].rstrip() + "…"


def _shortened(answered: AnsweredExample | None) -> AnsweredExample | None:
    if answered is None:
        return None
    gold, answer = (shorten(words, _TEXT_CHARACTERS) for words in (answered.gold, answered.answer))
    return replace(answered, gold=gold, answer=answer)


def _share(kept: Sequence[KeptNeighbours]) -> SupportedShare | None:
    if not any(one.supports for one in kept):
        return None
    judged = [one for one in kept if one.supports or (one.gold and not one.rows)]
    return SupportedShare(100.0 * sum(one.supports[:1] == (True,) for one in judged) / len(judged), len(judged))
