"""Scores of generated answers, the same for questions and for dialogues, each in percent.

=============  ==========================================================================================
exact_match    SQuAD's: equal after normalisation to any gold answer
regex_match    DrQA's exact match where gold answers are patterns: any of them matches from the beginning on
f1             SQuAD's token F1, best over the gold answers
rouge_1 …      ROUGE-1, ROUGE-2, ROUGE-L (F-measure, no stemming), best over the gold answers
bleu_1 bleu_4  sacreBLEU's corpus BLEU up to unigrams and up to 4-grams, cased; `bleu_signature` belongs to it
=============  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence

from retrograd.data.examples import has_patterns
from retrograd.metrics.answers import (
    corpus_bleu,
    corpus_exact_match,
    corpus_rouge,
    corpus_token_f1,
    normalise_answer,
)
from retrograd.metrics.patterns import regex_match
from retrograd.types import Example, UserError
from retrograd.util.guards import suggest_name

__all__ = ["ANSWER_METRICS", "answer_scores", "bleu_signature", "require_metric"]

ANSWER_METRICS = ("exact_match", "regex_match", "f1", "rouge_1", "rouge_2", "rouge_l", "bleu_1", "bleu_4")
"""What a task may name as its primary metric."""


def answer_scores(
    examples: Sequence[Example], answers: Sequence[str], no_answer: str | None = None
) -> dict[str, float]:
    """Return all of `ANSWER_METRICS`, the rate of empty answers and, with ``no_answer``, the rate of answers that say
    it.

    Of gold answers that are patterns "regex_match" alone, and of texts all but it. Raises `UserError` for unequal
    lengths, for nothing to score, for an example without a target, and for texts and patterns together.
    """
    if len(examples) != len(answers):
        raise UserError(f"{len(answers)} answers to {len(examples)} examples; give one answer per example")
    golds = _golds(examples)
    scores = _pattern_scores(golds, answers) if _have_patterns(examples) else _text_scores(golds, answers)
    scores["empty_rate"] = 100.0 * sum(not answer.strip() for answer in answers) / len(answers)
    if no_answer is not None:
        refusal = normalise_answer(no_answer)
        scores["no_answer_rate"] = 100.0 * sum(normalise_answer(answer) == refusal for answer in answers) / len(answers)
    return scores


def _have_patterns(examples: Sequence[Example]) -> bool:
    kinds = {has_patterns(example) for example in examples}
    if len(kinds) > 1:
        raise UserError(
            "some of the examples have answers that are patterns, others text; score them apart, each by its own metric"
        )
    return kinds == {True}


def _pattern_scores(golds: Sequence[Sequence[str]], answers: Sequence[str]) -> dict[str, float]:
    matches = [regex_match(gold, answer) for gold, answer in zip(golds, answers, strict=True)]
    return {"regex_match": 100.0 * sum(matches) / len(matches)}


def _text_scores(golds: Sequence[Sequence[str]], answers: Sequence[str]) -> dict[str, float]:
    rouge = corpus_rouge(golds, answers)
    return {
        "exact_match": corpus_exact_match(golds, answers),
        "f1": corpus_token_f1(golds, answers),
        "rouge_1": rouge.rouge_1,
        "rouge_2": rouge.rouge_2,
        "rouge_l": rouge.rouge_l,
        "bleu_1": corpus_bleu(golds, answers, order=1).percent,
        "bleu_4": corpus_bleu(golds, answers, order=4).percent,
    }


def bleu_signature(examples: Sequence[Example]) -> str:
    """Return sacreBLEU's signature of the BLEU of `answer_scores` on these examples; two BLEUs compare only if it is
    the same.

    Raises `UserError` for no examples and for one without a target.
    """
    golds = _golds(examples)
    return corpus_bleu(golds, [gold[0] for gold in golds]).signature


def require_metric(metric: str) -> None:
    """Raise `UserError` for a metric that is not one of `ANSWER_METRICS`, with the nearest one."""
    if metric not in ANSWER_METRICS:
        raise UserError(f"unknown metric {metric!r} of answers; {suggest_name(metric, ANSWER_METRICS)}")


def _golds(examples: Sequence[Example]) -> list[tuple[str, ...]]:
    return [(example.target, *example.targets[1:]) for example in examples]
