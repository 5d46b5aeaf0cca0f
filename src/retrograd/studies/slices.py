"""Test items grouped by what is easy or hard about them, with the official score of several systems on each group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from retrograd.data.relations.instance import unmark
from retrograd.metrics.breakdowns import group_by_range
from retrograd.metrics.significance import (
    BootstrapInterval,
    ScoreInterval,
    Statistic,
    bootstrap_corpus,
    paired_bootstrap_corpus,
)
from retrograd.metrics.triggers import Trigger, context_words, learn_triggers, plain_words
from retrograd.studies.compare import LabelledRun
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.tasks.resampled_scores import label_statistic
from retrograd.types import Example, Span

__all__ = ["ItemRows", "Learned", "Slice", "SliceGroup", "SliceScore", "SliceScorer", "slice_groups"]

DISTANCES = (0, 4, 8, 16)
"""Words between the entities, by first of each range."""
LENGTHS = (1, 15, 25, 40)
"""Words of the sentence."""
FREQUENCIES = (0, 1, 5, 20, 100, 500)
"""Training sentences that bear the gold relation."""

ItemRows = Int64[np.ndarray, " rows"]


@dataclass(frozen=True)
class Learned:
    """The knowledge of relations that slices use, all from training data: sentences by label, and trigger words."""

    frequency: dict[str, int]
    triggers: dict[str, tuple[Trigger, ...]]

    @classmethod
    def of(cls, run: LabelledRun) -> Learned:
        """Learn from the run's training examples."""
        task, train = run.task, run.data.train
        relations = [task.relation_of(example.target, example) or example.target for example in train]
        sentences = [_context(example) for example in train]
        return cls(dict(sorted(Counter(relations).items())), dict(learn_triggers(sentences, relations, task.negative)))


@dataclass(frozen=True)
class SliceScore:
    """The official score in percent (None where it says nothing: without a relation to be found) and the accuracy."""

    score: float | None
    accuracy: float


@dataclass(frozen=True)
class Slice:
    """A part of the test items with its scores.

    ``gains`` are the run less each control, by name (None below two items).
    """

    name: str
    items: int
    run: SliceScore
    interval: ScoreInterval | None
    controls: dict[str, SliceScore]
    gains: dict[str, BootstrapInterval | None]


@dataclass(frozen=True)
class SliceGroup:
    """Slices by one property; they hold each item once, but for what ``about`` says is left out."""

    name: str
    about: str
    slices: list[Slice]


def slice_groups(
    run: LabelledRun,
    learned: Learned,
    controls: Mapping[str, Sequence[str | None]],
    rng: np.random.Generator,
    resamples: int,
) -> list[SliceGroup]:
    """Return all groups; ``controls`` are answers by name in the order of the run's test items.

    Test labels choose among what was learned, never add to it.
    """
    task, gold = run.task, list(run.gold.values())
    sentences = [unmark(example.query) for example in run.data.test]
    positive = np.array([row for row, relation in enumerate(gold) if relation != task.negative], dtype=np.int64)
    counts = [learned.frequency.get(gold[row], 0) for row in positive]
    frequent = {name: positive[rows] for name, rows in group_by_range(counts, FREQUENCIES).items()}
    left_out = "" if task.negative is None else f"without the items of {task.negative}; "
    parts = [
        ("gold label", "a relation, or the negative label", _by_sign(task, gold)),
        (
            "words between the entities",
            "0 where one lies inside the other",
            group_by_range(_distances(sentences), DISTANCES),
        ),
        ("words in the sentence", "punctuation is no word", group_by_range(_lengths(sentences), LENGTHS)),
        ("training sentences of the gold relation", f"{left_out}counted in the run's training data", frequent),
        ("trigger of the gold relation", f"{left_out}words learned from training data", _by_trigger(run, learned)),
    ]
    scorer = _relation_scorer(run, controls, rng, resamples)
    return [
        SliceGroup(name, about, [scorer.slice(part, rows) for part, rows in rows_by_part.items()])
        for name, about, rows_by_part in parts
        if rows_by_part
    ]


def _by_sign(task: RelationExtraction, gold: Sequence[str]) -> dict[str, ItemRows]:
    """Return the slices of relations and of negatives; nothing where there is no negative label."""
    if task.negative is None:
        return {}
    negative = np.array([relation == task.negative for relation in gold])
    rows_by_part = {"a relation": np.flatnonzero(~negative), task.negative: np.flatnonzero(negative)}
    return {name: rows for name, rows in rows_by_part.items() if len(rows)}


def _distances(sentences: Sequence[tuple[str, Span, Span]]) -> list[int]:
    """Return the words strictly between the two entities."""
    distances: list[int] = []
    for text, head, tail in sentences:
        first, second = sorted((head, tail), key=lambda span: (span.start, span.end))
        distances.append(len(plain_words(text[first.end : second.start])))
    return distances


def _lengths(sentences: Sequence[tuple[str, Span, Span]]) -> list[int]:
    """Return the number of words of each sentence; one of signs alone counts as 1."""
    return [max(1, len(plain_words(text))) for text, _, _ in sentences]


def _by_trigger(run: LabelledRun, learned: Learned) -> dict[str, ItemRows]:
    """Return positive items by whether a trigger of their gold relation is outside the entities; separately, those of a
    relation without any.
    """
    names = ("explicit", "implicit", "no trigger known")
    rows: dict[str, list[int]] = {name: [] for name in names}
    trigger_words = {
        relation: {trigger.word for trigger in triggers} for relation, triggers in learned.triggers.items()
    }
    for row, (example, relation) in enumerate(zip(run.data.test, run.gold.values(), strict=True)):
        if relation == run.task.negative:
            continue
        triggers = trigger_words.get(relation, set())
        explicit = not triggers.isdisjoint(_context(example))
        rows[names[2] if not triggers else names[0] if explicit else names[1]].append(row)
    return {name: np.array(items, dtype=np.int64) for name, items in rows.items() if items}


def _context(example: Example) -> frozenset[str]:
    text, head, tail = unmark(example.query)
    return context_words(text, (head.start, head.end), (tail.start, tail.end))


@dataclass(frozen=True)
class SliceScorer:
    """The scores of one run and its rivals on any of the test items.

    ``score`` is the run's, ``pairs`` are the scores of each rival's answers and then the run's, laid end to end,
    ``right`` and ``rights`` how right each answer is, in [0, 1]. Items that are not ``scored`` have no part in any
    score.
    """

    score: Statistic
    pairs: Mapping[str, Statistic]
    right: Float64[np.ndarray, " items"]
    rights: Mapping[str, Float64[np.ndarray, " items"]]
    scored: Bool[np.ndarray, " items"]
    rng: np.random.Generator
    resamples: int

    def slice(self, name: str, rows: ItemRows) -> Slice:
        """Return the scores on ``rows``, of which there is at least one."""
        has_score = bool(self.scored[rows].any())
        resampled = has_score and len(rows) > 1
        return Slice(
            name=name,
            items=len(rows),
            run=SliceScore(self.score(rows) if has_score else None, 100.0 * float(self.right[rows].mean())),
            interval=self._interval(rows) if resampled else None,
            controls={
                control: SliceScore(pair(rows) if has_score else None, 100.0 * float(self.rights[control][rows].mean()))
                for control, pair in self.pairs.items()
            },
            gains={control: self._gain(pair, rows) if resampled else None for control, pair in self.pairs.items()},
        )

    def _interval(self, rows: ItemRows) -> ScoreInterval:
        return bootstrap_corpus(lambda selection: self.score(rows[selection]), len(rows), self.rng, self.resamples)

    def _gain(self, pair: Statistic, rows: ItemRows) -> BootstrapInterval:
        both = np.concatenate([rows, rows + len(self.right)])
        return paired_bootstrap_corpus(lambda selection: pair(both[selection]), len(rows), self.rng, self.resamples)


def _relation_scorer(
    run: LabelledRun, controls: Mapping[str, Sequence[str | None]], rng: np.random.Generator, resamples: int
) -> SliceScorer:
    """Return the official score of relations; a slice of negatives alone has none."""
    task, gold, run_answers = run.task, list(run.gold.values()), list(run.answers.values())

    def right(answers: Sequence[str | None]) -> Float64[np.ndarray, " items"]:
        return np.array([float(a == g) for a, g in zip(answers, gold, strict=True)])

    return SliceScorer(
        score=label_statistic(task, gold, run_answers),
        pairs={
            name: label_statistic(task, [*gold, *gold], [*answers, *run_answers]) for name, answers in controls.items()
        },
        right=right(run_answers),
        rights={name: right(answers) for name, answers in controls.items()},
        scored=np.array([relation != task.negative for relation in gold]),
        rng=rng,
        resamples=resamples,
    )
