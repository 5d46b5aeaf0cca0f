"""One finished run whose answers are free text (questions, dialogues) beside its controls: scores, retrieval, slices.

Test answers are used for scoring alone; the trivial line gives every example the most frequent training answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from retrograd.evaluation.confidence import Confidence
from retrograd.experiments.setting_changes import SettingChange, list_changes_for_others
from retrograd.metrics.breakdowns import group_by_range
from retrograd.metrics.resampling import answer_resampler, item_scores
from retrograd.metrics.significance import (
    BootstrapInterval,
    PermutationTest,
    ScoreInterval,
    bootstrap_corpus,
    paired_bootstrap_corpus,
    paired_permutation_corpus,
)
from retrograd.studies.compare import RunAnswers, read_confidence, read_run_answers, require_same_examples
from retrograd.studies.report import Kind, is_told_answers, name_runs
from retrograd.studies.slices import ItemRows, SliceGroup, SliceScorer
from retrograd.tasks.relevance import answer_rows, is_answerable
from retrograd.training.run.run_directory import RunDirectory
from retrograd.types import Example
from retrograd.util.text_files import read_jsonl, write_json

__all__ = ["AnswerReport", "AnswerSystem", "report_answers"]

_WORDS = (0, 1, 2, 4, 8, 16, 32)
"""Words of the first accepted answer, by first of each range."""
_QUESTION_WORDS = ("what", "who", "when", "where", "which", "why", "how")


@dataclass(frozen=True)
class AnswerSystem:
    """One line of the comparison: all scores in percent, by name, and the primary one with its interval.

    ``gain`` and ``test`` are the run less this system, paired by example; None for the run itself, for the trivial
    answer and below two examples. ``is_told`` says whether its passages are chosen by the target at test time.
    """

    name: str
    kind: Kind
    score: float
    scores: dict[str, float]
    interval: ScoreInterval | None = None
    gain: BootstrapInterval | None = None
    test: PermutationTest | None = None
    changes: list[SettingChange] = field(default_factory=list)
    is_told: bool = False


@dataclass(frozen=True)
class AnswerReport:
    """The contents of the page about a run with free answers; scores in percent, by name.

    ``systems`` are the run, its controls and the trivial answer. ``retrieval`` are scores of what is retrieved, and
    ``citations`` of what the answers cite, where they can be judged.
    """

    name: str
    recipe: str
    seed: int
    metric: str
    items: int
    training: int
    passages: int
    resamples: int
    systems: list[AnswerSystem]
    retrieval: dict[str, float]
    citations: dict[str, float]
    slices: list[SliceGroup]
    notes: list[str]
    confidence: Confidence | None = None

    @property
    def run(self) -> AnswerSystem:
        """Return the run's own line."""
        return self.systems[0]

    def save(self, folder: Path) -> None:
        """Write ``report.json``."""
        write_json(folder / "report.json", asdict(self))


def report_answers(run: RunAnswers, controls: Sequence[Path], resamples: int = 1_000, seed: int = 0) -> AnswerReport:
    """Report a finished run beside its ``controls``.

    Opens no model and writes nothing. Raises `UserError` for a control that has no predictions, that answered other
    examples, or that is scored by another metric.
    """
    path, names = run.path, name_runs([run.path, *controls])
    runs_by_control: dict[str, RunAnswers] = {}
    for name, control in zip(names[1:], controls, strict=True):
        runs_by_control[name] = read_run_answers(control)
        require_same_examples(run, runs_by_control[name])
    rivals = {name: [other.answers[item] for item in run.examples] for name, other in runs_by_control.items()}
    rng = np.random.default_rng(seed)
    table = _Table(run, rng, resamples)
    systems = [table.line(names[0], "run", list(run.answers.values()), is_told=is_told_answers(run.experiment))]
    for name, other in runs_by_control.items():
        changes = list_changes_for_others(run.experiment, other.experiment)
        systems.append(table.line(name, "control", rivals[name], changes, is_told_answers(other.experiment)))
    trivial, notes = _trivial_answer(run), []
    if trivial is None:
        notes.append("There are no training answers, so there is no trivial line.")
    else:
        systems.append(table.line(f"always {trivial!r}", "trivial", [trivial] * len(run.examples)))
    saved = RunDirectory(path).scores()
    return AnswerReport(
        name=names[0],
        recipe=run.experiment.name,
        seed=run.experiment.seed,
        metric=run.data.task.primary_metric,
        items=len(run.examples),
        training=len(run.data.train),
        passages=run.experiment.test_passages,
        resamples=resamples,
        systems=systems,
        retrieval=saved["neighbours"],
        citations=saved["citations"],
        slices=_slice_groups(run, rivals, rng, resamples),
        notes=notes,
        confidence=read_confidence(path, run.data),
    )


def _trivial_answer(run: RunAnswers) -> str | None:
    """Return the most frequent first answer of the training data; of equal ones the first."""
    counts = Counter(example.target for example in run.data.train if example.targets)
    return counts.most_common(1)[0][0] if counts else None


class _Table:
    """The lines of the systems that answered one run's test examples."""

    def __init__(self, run: RunAnswers, rng: np.random.Generator, resamples: int) -> None:
        self._task = run.data.task
        self._examples = list(run.examples.values())
        self._golds = _golds(self._examples)
        self._run_answers = list(run.answers.values())
        self._rng = rng
        self._resamples = resamples

    def line(
        self,
        name: str,
        kind: Kind,
        answers: Sequence[str],
        changes: Sequence[SettingChange] = (),
        is_told: bool = False,
    ) -> AnswerSystem:
        """Return the scores of a system, and for a control its difference from the run."""
        metric, items = self._task.primary_metric, len(self._examples)
        scores = self._task.score(self._examples, answers)
        interval, gain, test = None, None, None
        if kind != "trivial" and items > 1:
            statistic = answer_resampler(metric, self._golds, answers)
            interval = bootstrap_corpus(statistic, items, self._rng, self._resamples)
        if kind == "control" and items > 1:
            both = answer_resampler(metric, [*self._golds, *self._golds], [*answers, *self._run_answers])
            gain = paired_bootstrap_corpus(both, items, self._rng, self._resamples)
            test = paired_permutation_corpus(both, items, self._rng, self._resamples)
        return AnswerSystem(name, kind, scores[metric], dict(scores), interval, gain, test, list(changes), is_told)


def _golds(examples: Sequence[Example]) -> list[tuple[str, ...]]:
    return [(example.target, *example.targets[1:]) for example in examples]


# ---- slices -------------------------------------------------------------------------------------------------------


def _slice_groups(
    run: RunAnswers, rivals: Mapping[str, Sequence[str]], rng: np.random.Generator, resamples: int
) -> list[SliceGroup]:
    """Return the test examples by what was read, by the words of the answer and by the question's first word."""
    examples = list(run.examples.values())
    metric, golds, answers = run.data.task.primary_metric, _golds(examples), list(run.answers.values())
    exact = "regex_match" if metric == "regex_match" else "exact_match"

    def right(own: Sequence[str]) -> Float64[np.ndarray, " items"]:
        scores = item_scores(exact, golds, own)
        assert scores is not None  # BLEU alone has no scores of single answers
        return scores / 100.0

    scorer = SliceScorer(
        score=answer_resampler(metric, golds, answers),
        pairs={name: answer_resampler(metric, [*golds, *golds], [*other, *answers]) for name, other in rivals.items()},
        right=right(answers),
        rights={name: right(other) for name, other in rivals.items()},
        scored=np.ones(len(examples), dtype=bool),
        rng=rng,
        resamples=resamples,
    )
    words = [len(example.target.split()) for example in examples]
    seen = {example.target.casefold() for example in run.data.train if example.targets}
    groups = [
        ("passages that were read", "an answer, word for word", _by_passages(run, examples)),
        ("words of the answer", "of the first accepted one", group_by_range(words, _WORDS)),
        (
            "the answer in training",
            "as the first answer of a training example",
            _group(["seen" if example.target.casefold() in seen else "not seen" for example in examples]),
        ),
        ("question word", "the first of these words", _group([_question_word(example.query) for example in examples])),
    ]
    return [
        SliceGroup(name, about, [scorer.slice(part, rows) for part, rows in by_part.items()])
        for name, about, by_part in groups
        if len(by_part) > 1
    ]


def _by_passages(run: RunAnswers, examples: Sequence[Example]) -> dict[str, ItemRows]:
    """Return the examples by whether any passage that was read for them holds an answer."""
    base, names = run.data.base, []
    rows_read = {
        str(record.get("id")): [row for row in rows if type(row) is int and 0 <= row < len(base)]
        for _, record in read_jsonl(run.path / "predictions.jsonl")
        if isinstance(rows := record.get("rows"), list)
    }
    if not any(rows_read.values()):
        return {}
    distinct = sorted({row for rows in rows_read.values() for row in rows})
    texts = [passage.text for passage in base.passages(distinct)]
    holding = answer_rows(examples, texts)
    for example, places in zip(examples, holding, strict=True):
        own = set(rows_read.get(example.id, ()))
        if not is_answerable(run.data.task, example):
            names.append("there is no answer")
        else:
            names.append("hold an answer" if own & {distinct[place] for place in places} else "hold none")
    return _group(names)


def _question_word(query: str) -> str:
    """Return the first question word of the last line of a query, which in a dialogue is the last turn."""
    last_line = query.strip().splitlines()[-1] if query.strip() else ""
    return next((word for word in re.findall(r"\w+", last_line.casefold()) if word in _QUESTION_WORDS), "none of them")


def _group(names: Sequence[str]) -> dict[str, ItemRows]:
    """Return the positions of each name, the most frequent first."""
    positions = {name: [] for name, _ in Counter(names).most_common()}
    for place, name in enumerate(names):
        positions[name].append(place)
    return {name: np.array(places, dtype=np.int64) for name, places in positions.items()}
