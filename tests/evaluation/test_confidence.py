"""Scores of confidence and citations, and the threshold fitted on development data, of tiny random models."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from retrograd.data.examples import GroundedExample
from retrograd.evaluation.abstention import ABOVE_ALL, fit_abstention
from retrograd.evaluation.citations import citation_scores, score_citations
from retrograd.evaluation.confidence import measure_confidence
from retrograd.evaluation.evaluate import evaluate
from retrograd.evaluation.records import prediction_record
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.retriever import Retriever
from retrograd.rag.answers.answering import Answering
from retrograd.rag.answers.manner import Manner
from retrograd.rag.rag_model import RagModel
from retrograd.tasks.judging import Judgements
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.types import Example, Passage, Prediction, UserError

TEXTS = ["the cup holds tea", "rain caused the flood", "the wheel is part of the car", "the box holds nothing"]
ASKED = [
    "what holds tea ?",
    "what caused the flood ?",
    "what is part of the car ?",
    "who is alpha ?",
    "what is gamma ?",
]


def predictions_of(log_probability: list[float]) -> list[Prediction]:
    return [Prediction(str(i), "tea", value) for i, value in enumerate(log_probability)]


@pytest.fixture
def model(tiny_encoder: Path, tiny_seq2seq: Path) -> RagModel:
    tower = Encoder.open(str(tiny_encoder))
    generator = Generator.open(str(tiny_seq2seq), torch.Generator(), None, GeneratorOptions(max_target_tokens=2))
    base = KnowledgeBase.from_passages(Passage(f"p{i}", "", text) for i, text in enumerate(TEXTS))
    model = RagModel(Retriever(tower, tower, 1.0), generator, QuestionAnswering(), base)
    model.refresh_index()
    return model.eval()


def examples_of(model: RagModel, right: set[int]) -> list[Example]:
    """Return questions with p0 as gold, of which the model answers the ``right`` ones as their target says."""
    plain = model.predict([Example(str(i), text) for i, text in enumerate(ASKED)], 2)
    return [
        GroundedExample(one.id, ASKED[i], (one.answer if i in right else "never said",), ("p0",))
        for i, one in enumerate(plain)
    ]


# ---- citations -------------------------------------------------------------------------------------------------------


def test_only_answers_with_gold_passages_and_a_source_count() -> None:
    cited = replace(Prediction("0", "tea", -1.0), rows=(3, 5), weights=(0.9, 0.1), prior_weights=(0.4, 0.6))
    other = replace(cited, rows=(5, 3))
    assert citation_scores(score_citations([cited, other], [True] * 2, [(3,), (3,)])) == {
        "citation_precision@1": 50.0,
        "citation_prior_precision@1": 50.0,
        "citation_chance": 50.0,
    }
    assert citation_scores(score_citations([cited], [True], [(3,)]))["citation_prior_precision@1"] == 0.0
    left_out = [
        (cited, True, ()),  # nothing is marked
        (cited, False, (3,)),  # it says that there is no answer
        (replace(cited, withheld="tea"), True, (3,)),
        (replace(cited, weight_kind="p(z|x)"), True, (3,)),  # all passages in one prompt
        (Prediction("1", "tea", -1.0), True, (3,)),  # nothing was read
    ]
    for prediction, is_answer, gold in left_out:
        assert score_citations([prediction], [is_answer], [gold]) is None
        assert score_citations([cited, prediction], [True, is_answer], [(3,), gold]) == score_citations(
            [cited], [True], [(3,)]
        )
    assert citation_scores(None) == {}


def test_an_evaluation_counts_citations_as_its_predictions_have_them(model: RagModel) -> None:
    found = evaluate(model, examples_of(model, {0}), 3)
    first = [prediction.passage_ids[0] == "p0" for prediction in found.predictions]
    prior = [
        prediction.passage_ids[max(range(3), key=lambda k: prediction.prior_weights[k])] == "p0"
        for prediction in found.predictions
    ]
    read = ["p0" in prediction.passage_ids for prediction in found.predictions]
    assert found.citations == pytest.approx(
        {
            "citation_precision@1": 100 * sum(first) / len(first),
            "citation_prior_precision@1": 100 * sum(prior) / len(prior),
            "citation_chance": 100 * sum(read) / (3 * len(read)),
        }
    )
    model.use_answering(Answering(Manner(reading="together")))
    assert evaluate(model, examples_of(model, {0}), 3).citations == {}
    model.use_answering(Answering())
    unmarked = [Example(one.id, one.query, one.targets) for one in examples_of(model, {0})]
    assert evaluate(model, unmarked, 3).citations == {}
    assert evaluate(model, examples_of(model, {0}), 0).citations == {}


# ---- confidence ------------------------------------------------------------------------------------------------------


def test_confidence_by_hand() -> None:
    log_p = [math.log(one) for one in (0.9, 0.6, 0.3, 0.1)]
    predictions = predictions_of(log_p)
    predictions[2] = replace(predictions[2], answer="cannot answer", withheld="tea")
    judged = Judgements("exact_match", [1.0, 0.0, 1.0, 1.0], [True, True, True, False])
    found = measure_confidence(judged, predictions)
    assert found.scores() == pytest.approx(
        {
            # Each answer is a bin of its own.
            "ece": 100 * (0.1 + 0.6 + 0.7 + 0.9) / 4,
            "aurc": 100 * (0 + 1 / 2 + 1 / 3) / 3,
            "coverage": 50.0,
            "risk": 50.0,
        }
    )
    assert [point.confidence for point in found.curve] == pytest.approx([0.9, 0.6, 0.3])
    assert [point.coverage for point in found.curve] == [0.25, 0.5, 0.75]
    assert json.loads(json.dumps(found.record(), allow_nan=False))["reliability"][0]["count"] == 1


def test_what_does_not_exist_has_no_score() -> None:
    found = measure_confidence(Judgements("exact_match", [1.0], [False]), predictions_of([-1.0]))
    assert set(found.scores()) == {"ece", "coverage"}
    assert (found.risk, found.area, found.curve) == (None, None, ())


def test_texts_too_improbable_for_a_number_keep_their_order_and_a_curve_its_ends() -> None:
    log_p = [-1_000.0 - i for i in range(500)]
    judged = Judgements("f1", [1.0] * 250 + [0.0] * 250, [True] * 500)
    found = measure_confidence(judged, predictions_of(log_p))
    assert len(found.curve) == 101
    assert (found.curve[0].coverage, found.curve[-1].coverage) == (1 / 500, 1.0)
    assert found.curve[49].risk == 0.0
    assert found.scores()["aurc"] < found.scores()["risk"]
    assert json.dumps(found.record(), allow_nan=False)


def test_an_evaluation_is_saved_with_its_confidence(model: RagModel, tmp_path: Path) -> None:
    found = evaluate(model, examples_of(model, {0, 1}), 2)
    found.save(tmp_path)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert set(scores) == {"answers", "neighbours", "citations", "confidence", "signatures", "intervals"}
    assert set(scores["confidence"]) == {"ece", "aurc", "coverage", "risk"}
    assert scores["confidence"]["risk"] == pytest.approx(60.0)
    record = json.loads((tmp_path / "confidence.json").read_text())
    assert record["correctness"] == "exact_match"
    assert record["confidence"] == "probability of the whole text"
    assert sum(one["count"] for one in record["reliability"]) == 5
    assert record["risk_coverage"][-1]["coverage"] == 1.0
    line = json.loads((tmp_path / "predictions.jsonl").read_text().splitlines()[0])
    prediction = found.predictions[0]
    assert line == json.loads(json.dumps(prediction_record(prediction, found.examples[0])))
    assert line["confidence"] == pytest.approx(math.exp(line["log_probability"]))
    assert line["citations"][0] == {"passage_id": line["passage_ids"][0], "probability": line["weights"][0]}
    assert "withheld" not in line
    example = found.examples[0]
    assert (line["query"], line["gold"]) == (example.query, list(example.targets))
    assert [candidate["id"] for candidate in line["candidates"]] == line["passage_ids"]
    for name, told in (("row", "rows"), ("prior", "prior_weights"), ("responsibility", "weights")):
        assert [candidate[name] for candidate in line["candidates"]] == line[told]


# ---- the threshold ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("risk", [0.0, 0.25, 0.4, 0.5, 0.9])
@pytest.mark.parametrize("right", [{0, 1}, {2, 3, 4}, {1, 2, 3}])
def test_the_fitted_threshold_answers_most_at_the_permitted_risk(right: set[int], risk: float, model: RagModel) -> None:
    examples = examples_of(model, right)
    fitted = fit_abstention(model, examples, 2, "sequence", risk)
    assert model.answering.abstain_below is None  # it is the caller's to take
    plain = model.predict(examples, 2)
    best = 0
    for threshold in [one.log_probability for one in plain]:
        kept = [i for i, one in enumerate(plain) if one.log_probability >= threshold]
        if sum(i not in right for i in kept) <= risk * len(kept):
            best = max(best, len(kept))
    assert fitted.coverage == pytest.approx(100 * best / 5)
    model.use_threshold(fitted.abstain_below)
    found = evaluate(model, examples, 2)
    assert found.confidence.coverage == pytest.approx(fitted.coverage / 100)
    assert (found.confidence.risk or 0.0) == pytest.approx(fitted.risk / 100)
    assert fitted.risk <= 100 * risk + 1e-9
    assert fitted.withholds_all is (best == 0)
    assert fit_abstention(model, examples, 2, "sequence", risk) == fitted  # whatever the model's own threshold is
    assert json.dumps(fitted.record(), allow_nan=False)


def test_no_threshold_is_needed_or_none_is_enough(model: RagModel) -> None:
    all_right = fit_abstention(model, examples_of(model, {0, 1, 2, 3, 4}), 2, "sequence", 0.0)
    assert (all_right.abstain_below, all_right.probability, all_right.coverage) == (None, 0.0, 100.0)
    none_right = fit_abstention(model, examples_of(model, set()), 2, "sequence", 0.5)
    assert (none_right.abstain_below, none_right.coverage, none_right.risk) == (ABOVE_ALL, 0.0, 0.0)
    assert none_right.withholds_all
    with pytest.raises(UserError, match=r"0 examples.*evaluation\.abstain"):
        fit_abstention(model, [], 2, "sequence", 0.5)


def test_questions_without_an_answer_raise_the_threshold(model: RagModel) -> None:
    """Any answer to them is wrong; where they are right to be refused, withholding scores."""
    examples = examples_of(model, {0, 1, 2, 3, 4})
    order = sorted(model.predict(examples, 2), key=lambda prediction: prediction.log_probability)
    unanswerable = {one.id for one in order[:2]}
    mixed = [replace(e, targets=("cannot answer",)) if e.id in unanswerable else e for e in examples]
    before = evaluate(model, mixed, 2)
    model.use_threshold(fit_abstention(model, mixed, 2, "sequence", 0.0).abstain_below)
    after = evaluate(model, mixed, 2)
    assert (before.answers["exact_match"], after.answers["exact_match"]) == pytest.approx((60.0, 100.0))
    assert {one.id for one in after.predictions if one.withheld is not None} == unanswerable
    assert after.confidence.calibration_error == before.confidence.calibration_error
    assert after.confidence.scores()["aurc"] == before.confidence.scores()["aurc"]
