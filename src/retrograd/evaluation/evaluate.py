"""Compute predictions, official scores and retrieval scores of a model on examples with targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int64

from retrograd.evaluation.citations import citation_scores, score_citations
from retrograd.evaluation.confidence import Confidence, confidence_ratios, judge_own_answers, measure_confidence
from retrograd.evaluation.intervals import measure_intervals
from retrograd.evaluation.open_retrieval import best_rows, find_gold_rows, open_retrieval_scores
from retrograd.evaluation.records import prediction_record, ranking_lines
from retrograd.metrics.ranking import Precision, RankingMetric, ranking_ratios, ranking_scores
from retrograd.metrics.significance import Ratio, ScoreInterval
from retrograd.models.compute.inference import inference
from retrograd.models.settings import Scoring
from retrograd.rag.rag_model import RagModel
from retrograd.tasks.answer_scores import bleu_signature
from retrograd.tasks.relations.unseen_labels import count_unseen
from retrograd.tasks.task import Task
from retrograd.types import Example, Prediction
from retrograd.util.guards import JsonObject
from retrograd.util.progress import bar
from retrograd.util.text_files import write_json, write_jsonl, write_lines

__all__ = ["Evaluation", "answering_batches", "evaluate", "neighbour_scores", "predict", "vote"]

_BATCH = 64
_PASSAGES_AT_ONCE = 2**13
NEIGHBOUR_METRICS: tuple[RankingMetric, ...] = (Precision(1), Precision(5))
"""precision@k: the share of the k best passages that support the target."""


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation of ``examples``: one prediction of each, and scores by name, in percent.

    ``citations`` are scores of what the answers cite, where there are gold passages and p(z|x,y)
    (`retrograd.evaluation.citations`); ``confidence`` is what p(y|x) is worth (`retrograd.evaluation.confidence`).

    ``example_counts`` says over how many examples, where some cannot be judged: those with "gold" passages, those with
    an "answer" (`retrograd.evaluation.open_retrieval`), those whose "citations" were judged. ``signatures`` says how
    scores were computed that have more than one definition: "bleu" is sacreBLEU's. ``ratios`` are the scores of what
    is retrieved and of confidence as functions of single examples.
    """

    task: Task = field(repr=False)
    examples: Sequence[Example] = field(repr=False)
    predictions: list[Prediction]
    answers: dict[str, float]
    neighbours: dict[str, float]
    citations: dict[str, float]
    confidence: Confidence
    example_counts: dict[str, int] = field(default_factory=dict)
    signatures: dict[str, str] = field(default_factory=dict)
    ratios: dict[str, Ratio] = field(default_factory=dict, repr=False)

    @cached_property
    def intervals(self) -> dict[str, ScoreInterval]:
        """The 95 % intervals of the scores that single examples add up to, by name (`measure_intervals`)."""
        answers = [prediction.answer for prediction in self.predictions]
        return measure_intervals(self.task, self.examples, answers, self.scores, self.ratios)

    @cached_property
    def trivial(self) -> dict[str, float]:
        """The scores of the negative answer ("no relation", "cannot answer") to every example; none without one."""
        negative = [self.task.negative_for(example) for example in self.examples]
        answers = [answer for answer in negative if answer is not None]
        return self.task.score(self.examples, answers) if len(answers) == len(self.examples) else {}

    @property
    def unseen_labels(self) -> dict[str, int]:
        """The number of examples of each label that training never shows, all of which count as wrong."""
        return count_unseen(self.examples)

    @property
    def scores(self) -> dict[str, float]:
        """All scores by name, in percent."""
        return self.answers | self.neighbours | self.citations | self.confidence.scores()

    def save(self, folder: Path) -> None:
        """Write ``predictions.jsonl``, ``rankings.trec`` where passages were read, ``confidence.json`` (reliability
        table, risk against coverage) and ``scores.json``.
        """
        pairs = zip(self.predictions, self.examples, strict=True)
        write_jsonl(folder / "predictions.jsonl", (prediction_record(own, example) for own, example in pairs))
        if any(prediction.rows for prediction in self.predictions):
            write_lines(folder / "rankings.trec", ranking_lines(self.predictions))
        write_json(folder / "confidence.json", self.confidence.record())
        scores: JsonObject = {"answers": dict(self.answers), "neighbours": dict(self.neighbours)}
        if self.citations:
            scores["citations"] = dict(self.citations)
        scores["confidence"] = dict(self.confidence.scores())
        if self.intervals:
            scores["intervals"] = {name: {"low": one.low, "high": one.high} for name, one in self.intervals.items()}
        if self.trivial:
            scores["trivial"] = dict(self.trivial)
        if self.example_counts:
            scores["judged"] = dict(self.example_counts)
        if self.signatures:
            scores["signatures"] = dict(self.signatures)
        if self.unseen_labels:
            scores["unseen_labels"] = {**self.unseen_labels}
        write_json(folder / "scores.json", scores)


def evaluate(model: RagModel, examples: Sequence[Example], k: int, scoring: Scoring = "sequence") -> Evaluation:
    """Answer every example from its k best passages (0: from none) and score answers, neighbours, citations and
    confidence.

    Where the task has no closed set of answers, those of neighbours are the scores of `open_retrieval_scores`, which
    looks at more passages than the k. Where passages are read, the model's search adds its own scores.
    """
    with model.retriever.remembering_queries():
        predictions = predict(model, examples, k, scoring)
        answers = model.task.score(examples, [prediction.answer for prediction in predictions])
        signatures = {"bleu": bleu_signature(examples)} if "bleu_4" in answers else {}
        judged = judge_own_answers(model.task, examples, predictions)
        neighbours: dict[str, float] = {}
        example_counts: dict[str, int] = {}
        ratios: dict[str, Ratio] = {}
        cited = None
        if k > 0:
            gold = find_gold_rows(model.base, examples)
            cited = score_citations(predictions, judged.is_answer, gold)
            if model.task.choices is None:
                retrieval = open_retrieval_scores(model, examples, gold)
                neighbours, example_counts, ratios = retrieval.scores, retrieval.example_counts, retrieval.ratios
            elif model.support is not None:
                relevant, total = _judge_neighbours(model, examples)
                neighbours = ranking_scores(NEIGHBOUR_METRICS, relevant, total)
                ratios = ranking_ratios(NEIGHBOUR_METRICS, relevant, total, range(len(examples)), len(examples))
            neighbours = neighbours | model.retrieval.scores(examples)
    if cited is not None:
        example_counts = example_counts | {"citations": cited.examples}
    return Evaluation(
        model.task,
        examples,
        predictions,
        answers,
        neighbours,
        citation_scores(cited),
        measure_confidence(judged, predictions),
        {kind: count for kind, count in example_counts.items() if count < len(examples)},
        signatures,
        ratios | confidence_ratios(judged, predictions),
    )


def predict(model: RagModel, examples: Sequence[Example], k: int, scoring: Scoring = "sequence") -> list[Prediction]:
    """Return answers with their passages, in the order of the examples; the model keeps its mode."""
    predictions: list[Prediction] = []
    with bar("answering", len(examples), "examples") as advance:
        for batch in answering_batches(examples, k):
            predictions += model.predict(batch, k, scoring)
            advance(len(batch))
    return predictions


def answering_batches(examples: Sequence[Example], k: int) -> Iterator[Sequence[Example]]:
    """Split the examples, in order, into batches small enough that ``k`` passages for each fit in memory."""
    size = max(1, min(_BATCH, _PASSAGES_AT_ONCE // max(k, 1)))
    for start in range(0, len(examples), size):
        yield examples[start : start + size]


def neighbour_scores(model: RagModel, examples: Sequence[Example]) -> dict[str, float]:
    """Return precision@1 and precision@5 in percent: how often what the prior retrieves supports the target."""
    return ranking_scores(NEIGHBOUR_METRICS, *_judge_neighbours(model, examples))


def _judge_neighbours(
    model: RagModel, examples: Sequence[Example]
) -> tuple[Bool[np.ndarray, "B 5"], Int64[np.ndarray, " B"]]:
    """Return which of the five best passages support each target, and how many passages of the base do."""
    relevant = []
    with inference(model):
        for start in range(0, len(examples), _BATCH):
            batch = examples[start : start + _BATCH]
            supported = model.supports(batch, best_rows(model, batch, 5)).cpu().numpy()
            relevant.append(np.pad(supported, ((0, 0), (0, 5 - supported.shape[1]))))
    total = np.array([len(model.support(example)) for example in examples]) if model.support else np.zeros(0, int)
    return np.concatenate(relevant), total


def vote(model: RagModel, examples: Sequence[Example]) -> list[str]:
    """Answer by the plain nearest-neighbour vote: the choice with the largest share of p(z|x) over the whole base.

    No generator takes part. Only for tasks with a closed set of choices and a test of support.
    """
    choices, support = model.task.choices, model.support
    if choices is None or support is None:
        raise ValueError(f"the task {model.task.name!r} has no closed set of answers to vote on")
    label = torch.full((len(model.base),), len(choices))
    for number, choice in enumerate(choices):
        label[torch.as_tensor(support(Example("", "", (choice,))), dtype=torch.long)] = number
    answers: list[str] = []
    with inference(model):
        for start in range(0, len(examples), _BATCH):
            log_prior = model.retrieve_all(examples[start : start + _BATCH]).scores.log_prior
            share = log_prior[:, : len(model.base)].exp().cpu()
            votes = torch.zeros(len(share), len(choices) + 1).index_add(1, label, share)[:, :-1]
            answers += [choices[best] for best in votes.argmax(dim=-1).tolist()]
    return answers
