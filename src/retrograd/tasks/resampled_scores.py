"""Scores of a task as functions of a selection of the test examples, to be resampled: how sure is a score?

Most are ratios of sums over the examples. Two are not: macro-F1 and corpus BLEU. A task of one's own may have scores
that are neither; they are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from retrograd.data.examples import DialogueExample
from retrograd.metrics.answers import normalise_answer, rouge
from retrograd.metrics.relations import OTHER, WRONG_DIRECTION, official_cell
from retrograd.metrics.resampling import bleu_resampler, item_scores, official_resampler
from retrograd.metrics.significance import Ratio, Statistic
from retrograd.tasks.dialogue import knowledge_f1
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.tasks.relations.refinement import Refined
from retrograd.tasks.relations.relation_scores import find_unseen
from retrograd.tasks.task import Task
from retrograd.types import Example

__all__ = ["label_statistic", "score_ratios", "score_statistics"]

_BLEU_ORDERS = {"bleu_1": 1, "bleu_4": 4}


def score_ratios(
    task: Task, examples: Sequence[Example], answers: Sequence[str], names: Sequence[str]
) -> dict[str, Ratio]:
    """Return those of a task's scores, among ``names``, that are ratios of sums over the examples."""
    if isinstance(task, RelationExtraction):
        ratios = _relation_ratios(task, *_read_labels(task, examples, answers))
    elif task.choices is None:
        ratios = _answer_ratios(task, examples, answers, names)
    else:
        ratios = {}
    return {name: ratio for name, ratio in ratios.items() if name in names}


def score_statistics(
    task: Task, examples: Sequence[Example], answers: Sequence[str], names: Sequence[str]
) -> dict[str, Statistic]:
    """Return those of a task's scores, among ``names``, that are no ratios of sums: macro-F1 and BLEU."""
    if isinstance(task, RelationExtraction):
        gold, readings = _read_labels(task, examples, answers)
        labels = [reading.label for reading in readings]
        metric = "semeval" if task.metric == "semeval" else "macro"
        macro = official_resampler(metric, gold, labels, task.negative, find_unseen(gold, task.phrases))
        return {"macro_f1": macro} if "macro_f1" in names else {}
    if task.choices is not None:
        return {}
    return {
        name: bleu_resampler(_golds(examples), answers, order) for name, order in _BLEU_ORDERS.items() if name in names
    }


def label_statistic(task: RelationExtraction, gold: Sequence[str], labels: Sequence[str | None]) -> Statistic:
    """Return the official score of answers that name ``labels`` as a function of a selection of them."""
    return official_resampler(task.metric, gold, labels, task.negative, find_unseen(gold, task.phrases))


def _read_labels(
    task: RelationExtraction, examples: Sequence[Example], answers: Sequence[str]
) -> tuple[list[str], list[Refined]]:
    """Return the gold labels, and what the answers name."""
    gold = [task.gold_label(example) or example.target for example in examples]
    return gold, [task.read_answer(answer, example) for example, answer in zip(examples, answers, strict=True)]


def _relation_ratios(task: RelationExtraction, gold: Sequence[str], readings: Sequence[Refined]) -> dict[str, Ratio]:
    """Return the scores of `score_relations` but for macro-F1."""
    labels = [reading.label for reading in readings]
    pairs: list[tuple[str | None, str | None]] = [*zip(gold, labels, strict=True)]
    negative, counted = task.negative, set(labels)
    if task.metric == "semeval":  # which counts guesses of the relations in the key alone
        pairs, negative = [official_cell(pair) for pair in zip(gold, labels, strict=True)], OTHER
        counted = {WRONG_DIRECTION, *(answer for answer, _ in pairs)}
    is_guess = [guess not in (None, negative) and guess in counted for _, guess in pairs]
    is_relation = [answer != negative for answer, _ in pairs]
    is_right = [found and answer == guess for found, (answer, guess) in zip(is_relation, pairs, strict=True)]
    return {
        "micro_f1": Ratio.of(
            [2 * one for one in is_right], [a + b for a, b in zip(is_guess, is_relation, strict=True)]
        ),
        "micro_precision": Ratio.of(is_right, is_guess),
        "micro_recall": Ratio.of(is_right, is_relation),
        "accuracy": Ratio.of([label == guess for label, guess in zip(gold, labels, strict=True)]),
        "invalid_rate": Ratio.of([label is None for label in labels]),
        "refined_rate": Ratio.of([one.label is not None and not one.is_exact for one in readings]),
        "negative_rate": Ratio.of([task.negative is not None and label == task.negative for label in labels]),
    }


def _answer_ratios(
    task: Task, examples: Sequence[Example], answers: Sequence[str], names: Sequence[str]
) -> dict[str, Ratio]:
    """Return the scores of `answer_scores` but for BLEU, and knowledge F1."""
    golds = _golds(examples)
    ratios = {"empty_rate": Ratio.of([not answer.strip() for answer in answers])}
    for metric in {"exact_match", "regex_match", "f1"}.intersection(names):
        percent = item_scores(metric, golds, answers)
        assert percent is not None  # BLEU alone has no scores of single answers
        ratios[metric] = Ratio.of(percent / 100.0)
    if "rouge_l" in names:
        each = [rouge(gold, answer) for gold, answer in zip(golds, answers, strict=True)]
        ratios |= {
            "rouge_1": Ratio.of([one.rouge_1 for one in each]),
            "rouge_2": Ratio.of([one.rouge_2 for one in each]),
            "rouge_l": Ratio.of([one.rouge_l for one in each]),
        }
    refusals = [task.negative_for(example) for example in examples]
    ratios["no_answer_rate"] = Ratio.of(
        [
            refusal is not None and normalise_answer(answer) == normalise_answer(refusal)
            for answer, refusal in zip(answers, refusals, strict=True)
        ]
    )
    if "knowledge_f1" in names:
        shares = [
            knowledge_f1(example, answer) if isinstance(example, DialogueExample) and example.knowledge else None
            for example, answer in zip(examples, answers, strict=True)
        ]
        ratios["knowledge_f1"] = Ratio.of([share or 0.0 for share in shares], [share is not None for share in shares])
    return ratios


def _golds(examples: Sequence[Example]) -> list[tuple[str, ...]]:
    return [(example.target, *example.targets[1:]) for example in examples]
