"""Confidence, citations and withheld answers of tiny random models, against enumeration of p(z|x) p(y|x,z)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from retrograd.data.squad import NO_ANSWER
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.retriever import Retriever
from retrograd.objectives import RelaxedTopK
from retrograd.rag.answers.answering import Answering
from retrograd.rag.answers.manner import Manner
from retrograd.rag.candidates import NULL_ROW
from retrograd.rag.rag_model import RagModel
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.tasks.relations.verbalisation import Verbalisation, derive_phrases
from retrograd.tasks.task import Task
from retrograd.types import Example, Passage, Prediction

EXACT = 1e-5  # a few dozen roundings of fp32, relative, in sums of log-likelihoods of some ten nats

TEXTS = ["the cup holds tea", "rain caused the flood", "the wheel is part of the car", "the box holds nothing"]
QUESTIONS = [Example("1", "what holds tea ?"), Example("2", "what caused the flood ?")]
SENTENCES = ["the @ cup @ holds # tea # .", "the @ rain @ caused the # flood # .", "the @ box @ inside # car # ."]


def model_of(
    task: Task, passages: list[Passage], encoder: Path, generator: Path, null_passage: bool = False
) -> RagModel:
    tower = Encoder.open(str(encoder))
    model = RagModel(
        Retriever(tower, tower, 1.0),
        Generator.open(str(generator), torch.Generator().manual_seed(0), None, GeneratorOptions(max_target_tokens=3)),
        task,
        KnowledgeBase.from_passages(passages),
        null_passage=null_passage,
    )
    model.refresh_index()
    return model.eval()


@pytest.fixture
def reader(tiny_encoder: Path, tiny_seq2seq: Path) -> RagModel:
    """Return a model that writes answers from four passages."""
    return model_of(
        QuestionAnswering(), [Passage(f"p{i}", "", text) for i, text in enumerate(TEXTS)], tiny_encoder, tiny_seq2seq
    )


@pytest.fixture
def chooser(tiny_encoder: Path, tiny_seq2seq: Path) -> RagModel:
    """Return a model that chooses among the labels of three instances."""
    task = RelationExtraction(Verbalisation(derive_phrases(["part", "cause", "none"])), "none", "micro")
    passages = [Passage(f"p{i}", phrase, SENTENCES[i]) for i, phrase in enumerate(task.choices)]
    return model_of(task, passages, tiny_encoder, tiny_seq2seq)


@torch.no_grad()
def joint_by_enumeration(model: RagModel, example: Example, text: str, k: int) -> dict[int, float]:
    """Return log p(z|x) p(text|x,z) of each of the k best rows, `NULL_ROW` among them, one forward pass for each."""
    candidates = model.retrieve([example], k)
    log_prior = candidates.scores.log_prior[0].log_softmax(-1)
    joint = {}
    for row, log_p in zip(candidates.rows[0].tolist(), log_prior.tolist(), strict=True):
        prompt = model.task.prompt(example, [model.base[row]] if row >= 0 else [])
        joint[row] = log_p + float(model.generator.choice_log_likelihood([prompt], [(text,)])[0, 0])
    return joint


def check_citations(prediction: Prediction, joint: dict[int, float], base: KnowledgeBase) -> None:
    """Compare weights and citations of a prediction with Bayes' rule."""
    total = torch.tensor([*joint.values()]).logsumexp(0)
    expected = {row: float((torch.tensor(one) - total).exp()) for row, one in joint.items()}
    assert {c.passage_id: c.probability for c in prediction.citations} == pytest.approx(
        {base[row].id: share for row, share in expected.items() if row >= 0}, rel=EXACT
    )
    assert [c.probability for c in prediction.citations] == sorted(prediction.weights, reverse=True)
    assert sum(prediction.weights) + expected.get(NULL_ROW, 0.0) == pytest.approx(1.0, rel=EXACT)


@pytest.mark.parametrize("null_passage", [False, True])
def test_written_answers_state_their_probability_and_their_sources(
    null_passage: bool, tiny_encoder: Path, tiny_seq2seq: Path
) -> None:
    passages = [Passage(f"p{i}", "", text) for i, text in enumerate(TEXTS)]
    model = model_of(QuestionAnswering(), passages, tiny_encoder, tiny_seq2seq, null_passage)
    for example, prediction in zip(QUESTIONS, model.predict(QUESTIONS, 3), strict=True):
        joint = joint_by_enumeration(model, example, prediction.answer, 3)
        assert (NULL_ROW in joint) is null_passage
        check_citations(prediction, joint, model.base)
        assert prediction.confidence == pytest.approx(float(torch.tensor([*joint.values()]).exp().sum()), rel=EXACT)
        assert (prediction.confidence_kind, prediction.weight_kind) == ("of the whole text", "p(z|x,y)")
        candidates = model.retrieve([example], 3)
        prior = dict(zip(candidates.rows[0].tolist(), candidates.scores.log_prior[0].softmax(-1).tolist(), strict=True))
        assert list(prediction.prior_weights) == pytest.approx([prior[row] for row in prediction.rows], rel=EXACT)


def test_chosen_answers_state_their_probability_among_the_permitted_ones(chooser: RagModel) -> None:
    example = Example("1", "the @ cup @ inside # box # .")
    prediction = chooser.predict([example], 3)[0]
    total = {
        choice: float(torch.tensor([*joint_by_enumeration(chooser, example, choice, 3).values()]).exp().sum())
        for choice in chooser.task.choices or ()
    }
    assert prediction.confidence == pytest.approx(total[prediction.answer] / sum(total.values()), rel=EXACT)
    assert prediction.confidence == pytest.approx(max(total.values()) / sum(total.values()), rel=EXACT)
    assert (prediction.confidence_kind, prediction.weight_kind) == ("among permitted answers", "p(z|x,y)")
    check_citations(prediction, joint_by_enumeration(chooser, example, prediction.answer, 3), chooser.base)


@pytest.mark.parametrize("marginal", ["fast", "best"])
def test_a_bound_is_called_one_and_only_what_wrote_an_answer_is_cited(marginal: str, reader: RagModel) -> None:
    whole = reader.predict(QUESTIONS, 4)
    reader.use_answering(Answering(Manner(marginal=marginal)))  # pyright: ignore[reportArgumentType]
    for part, thorough in zip(reader.predict(QUESTIONS, 4), whole, strict=True):
        assert part.confidence_kind == "of the whole text, at least"
        assert part.weight_kind == "p(z|x,y), of passages that wrote y"
        assert sum(part.weights) == pytest.approx(1.0, rel=EXACT)
        assert all(citation.probability > 0 for citation in part.citations)
        assert 0 < len(part.citations) <= 4
        if part.answer == thorough.answer:
            assert part.confidence <= thorough.confidence * (1 + EXACT)


def test_passages_in_one_prompt_are_not_cited(reader: RagModel) -> None:
    """There is no p(z|x,y): the weights are p(z|x), and are called so."""
    reader.use_answering(Answering(Manner(reading="together")))
    for prediction in reader.predict(QUESTIONS, 3):
        assert prediction.citations == ()
        assert prediction.weight_kind == "p(z|x)"
        assert prediction.weights == pytest.approx(prediction.prior_weights, rel=EXACT)
        assert prediction.confidence_kind == "of the whole text"


def test_soft_slots_and_token_mixtures_say_what_their_weights_are(reader: RagModel) -> None:
    reader.use_answering(Answering(selection=RelaxedTopK(slots=2).selection))
    soft = reader.predict(QUESTIONS, 3)
    assert {(one.weight_kind, one.citations) for one in soft} == {("shares of slots", ())}
    reader.use_answering(Answering(Manner(mixture="tokens")))
    for one in reader.predict(QUESTIONS, 3):
        assert one.weight_kind == "p(z|x,y), mean over tokens"
        assert sum(citation.probability for citation in one.citations) == pytest.approx(1.0, rel=EXACT)


def test_without_a_passage_nothing_is_cited(reader: RagModel) -> None:
    for prediction in reader.predict(QUESTIONS, 0):
        assert prediction.citations == ()
        assert 0 < prediction.confidence < 1


# ---- withheld answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("no_answer", [None, "nobody knows"])
def test_answers_below_the_threshold_are_withheld_and_kept(
    no_answer: str | None, tiny_encoder: Path, tiny_seq2seq: Path
) -> None:
    passages = [Passage(f"p{i}", "", text) for i, text in enumerate(TEXTS)]
    model = model_of(QuestionAnswering(no_answer=no_answer), passages, tiny_encoder, tiny_seq2seq)
    plain = model.predict(QUESTIONS, 3)
    less, more = sorted(plain, key=lambda prediction: prediction.log_probability)
    assert less.log_probability < more.log_probability
    model.use_threshold((less.log_probability + more.log_probability) / 2)
    by_id = {prediction.id: prediction for prediction in model.predict(QUESTIONS, 3)}
    assert by_id[more.id] == more
    assert by_id[less.id] == replace(less, answer=no_answer or NO_ANSWER, withheld=less.answer)
    assert by_id[less.id].own_answer == less.answer
    answered = model.answer(QUESTIONS, 3)
    assert [one.answer for one in answered] == [by_id[one.id].answer for one in plain]
    model.use_threshold(None)
    assert model.predict(QUESTIONS, 3) == plain


def test_a_withheld_label_is_the_negative_one(chooser: RagModel) -> None:
    example = Example("1", "the @ cup @ inside # box # .")
    plain = chooser.predict([example], 3)[0]
    chooser.use_threshold(1.0)
    assert chooser.predict([example], 3) == [replace(plain, answer="none", withheld=plain.answer)]


def test_a_threshold_is_saved_with_the_model(reader: RagModel, tmp_path: Path) -> None:
    def reopened() -> Callable[[], list[Prediction]]:
        reader.save(tmp_path / "model")
        return lambda: RagModel.load(tmp_path / "model", reader.task, reader.base).eval().predict(QUESTIONS, 3)

    plain = reader.predict(QUESTIONS, 3)
    assert reopened()() == plain
    threshold = sum(prediction.log_probability for prediction in plain) / 2
    reader.use_threshold(threshold)
    withheld = reader.predict(QUESTIONS, 3)
    assert withheld != plain
    assert reopened()() == withheld
    loaded = RagModel.load(tmp_path / "model", reader.task, reader.base)
    assert loaded.answering.abstain_below == threshold


def test_a_model_of_an_earlier_version_withholds_nothing(reader: RagModel, tmp_path: Path) -> None:
    reader.save(tmp_path / "model")
    file = tmp_path / "model" / "model.json"
    text = file.read_text(encoding="utf-8")
    assert '"abstain_below": null' in text
    file.write_text(text.replace(',\n  "abstain_below": null', ""), encoding="utf-8")
    assert "abstain_below" not in file.read_text(encoding="utf-8")
    assert RagModel.load(tmp_path / "model", reader.task, reader.base).answering.abstain_below is None
