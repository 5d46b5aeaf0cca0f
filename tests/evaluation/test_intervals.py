"""Intervals of scores: each is of the very score, always the same, and as wide as theory has it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrograd.data.examples import DialogueExample
from retrograd.evaluation.confidence import Confidence
from retrograd.evaluation.evaluate import Evaluation
from retrograd.evaluation.intervals import measure_intervals
from retrograd.metrics.relations import SEMEVAL_LABELS
from retrograd.metrics.significance import Ratio, bootstrap_corpus, bootstrap_ratios
from retrograd.tasks.dialogue import GroundedDialogue
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.tasks.resampled_scores import score_ratios, score_statistics
from retrograd.tasks.task import Task
from retrograd.types import Example

WORDS = ["red", "green", "a blue cup", "the cup", "", "not known"]


def check_all_scores(task: Task, examples: list[Example], answers: list[str]) -> None:
    """Check that every score is a function of a selection: of all examples, and of some twice."""
    scores = task.score(examples, answers)
    ratios = score_ratios(task, examples, answers, [*scores])
    statistics = score_statistics(task, examples, answers, [*scores])
    assert ratios.keys() | statistics.keys() == scores.keys()
    for rows in (np.arange(len(examples)), np.array([0, 0, len(examples) - 1])):
        expected = task.score([examples[row] for row in rows], [answers[row] for row in rows])
        for name, ratio in ratios.items():
            selection = Ratio(ratio.parts[rows], ratio.wholes[rows])
            assert selection.score == pytest.approx(expected.get(name, 0.0)), name
        for name, statistic in statistics.items():
            assert statistic(rows) == pytest.approx(expected[name]), name


@settings(deadline=None, max_examples=30)
@given(
    metric=st.sampled_from(["semeval", "macro", "micro"]),
    pairs=st.lists(
        st.tuples(st.sampled_from(SEMEVAL_LABELS), st.sampled_from((*SEMEVAL_LABELS, "nonsense"))),
        min_size=2,
        max_size=12,
    ),
)
def test_scores_of_relations_are_those_of_the_task(metric: str, pairs: list[tuple[str, str]]) -> None:
    task = replace(RelationExtraction.semeval(), metric=metric)
    phrases = {**task.phrases, "nonsense": "nonsense"}
    text = "the <e1>cup</e1> holds <e2>tea</e2> ."
    examples = [Example(str(number), text, (phrases[gold],)) for number, (gold, _) in enumerate(pairs)]
    check_all_scores(task, examples, [phrases[answer] for _, answer in pairs])


@settings(deadline=None, max_examples=20)
@given(pairs=st.lists(st.tuples(st.sampled_from(WORDS[:4]), st.sampled_from(WORDS)), min_size=2, max_size=8))
def test_scores_of_free_answers_are_those_of_the_task(pairs: list[tuple[str, str]]) -> None:
    answers = [answer for _, answer in pairs]
    questions = [Example(str(number), "what ?", (gold, "red cup")) for number, (gold, _) in enumerate(pairs)]
    check_all_scores(QuestionAnswering(no_answer="not known"), questions, answers)
    turns = [
        DialogueExample(str(number), "what ?", (gold,), knowledge=("a red cup",) if number % 2 == 0 else ())
        for number, (gold, _) in enumerate(pairs)
    ]
    check_all_scores(GroundedDialogue(), list(turns), answers)


def test_the_interval_of_a_mean_is_as_wide_as_theory_has_it() -> None:
    items, share = 400, 0.3
    values = np.zeros(items)
    values[: int(share * items)] = 1.0
    one = bootstrap_ratios({"mean": Ratio.of(values)}, np.random.default_rng(1), 4_000)["mean"]
    half = 100 * 1.96 * math.sqrt(share * (1 - share) / items)
    # A percentile of 4,000 draws has a standard error of about 0.043 standard errors of the mean: 0.1 here.
    assert one.score == pytest.approx(100 * share)
    assert (one.low, one.high) == (pytest.approx(30 - half, abs=0.4), pytest.approx(30 + half, abs=0.4))


def test_ratios_are_drawn_as_other_statistics_are_and_what_counts_nothing_has_no_interval() -> None:
    rng = np.random.default_rng(3)
    ratio = Ratio(rng.random(30), rng.random(30))
    nothing = Ratio(np.zeros(30), np.zeros(30))
    both = bootstrap_ratios({"one": ratio, "nothing": nothing}, np.random.default_rng(7), 200)
    slow = bootstrap_corpus(
        lambda rows: Ratio(ratio.parts[rows], ratio.wholes[rows]).score, 30, np.random.default_rng(7), 200
    )
    assert both.keys() == {"one"}
    assert (both["one"].low, both["one"].high) == (pytest.approx(slow.low), pytest.approx(slow.high))
    assert nothing.score == 0.0


def test_intervals_are_the_same_each_time_and_only_of_scores_that_they_are_of() -> None:
    task = QuestionAnswering()
    examples = [Example(str(number), "what ?", ("cup",)) for number in range(20)]
    answers = ["cup", "tea"] * 10
    scores = task.score(examples, answers) | {"ece": 12.0}
    first = measure_intervals(task, examples, answers, scores, {})
    assert first == measure_intervals(task, examples, answers, scores, {})
    assert first.keys() == scores.keys() - {"ece"}
    assert first["exact_match"].low < 50.0 < first["exact_match"].high
    another = measure_intervals(task, examples, answers, scores | {"f1": 51.0}, {})
    assert another.keys() == first.keys() - {"f1"}, "a task of one's own may call something else f1"
    assert measure_intervals(task, examples[:1], answers[:1], scores, {}) == {}


def test_the_negative_answer_is_scored_where_the_task_has_one() -> None:
    examples = [Example(str(number), "what ?", (gold,)) for number, gold in enumerate(("cup", "cannot answer"))]
    confidence = Confidence("exact_match", "of the whole text", 2, 0.0, None, 1.0, None, (), ())
    has_one, has_none = (
        Evaluation(task, examples, [], {}, {}, {}, confidence).trivial
        for task in (QuestionAnswering(no_answer="cannot answer"), QuestionAnswering())
    )
    assert has_one["exact_match"] == 50.0
    assert has_none == {}
