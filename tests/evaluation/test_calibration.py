"""Compare a fitted decision with an exhaustive search, also for a model whose generator knows nothing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from retrograd.evaluation.calibration import VOTE_WEIGHTS, Official, calibrate, fit_decision
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.retriever import Retriever
from retrograd.rag.answers.decision import ChoiceScores, Decision
from retrograd.rag.rag_model import RagModel
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.tasks.relations.verbalisation import Verbalisation, derive_phrases
from retrograd.types import Example, Passage, UserError

SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.sweep) for seed in range(1, 5))]

CHOICES = ("works for", "born in", "no relation")


def choice_scores(log_p: torch.Tensor, vote: torch.Tensor, negative: int | None = 2) -> list[ChoiceScores]:
    return [ChoiceScores(CHOICES, p.log_softmax(-1), v, negative) for p, v in zip(log_p, vote, strict=True)]


def accuracy(gold: list[str]) -> Official:
    return lambda rows, answers: 100 * sum(a == gold[row] for row, a in zip(rows, answers, strict=True)) / len(rows)


def draw_scores(seed: int, n: int = 60) -> tuple[list[ChoiceScores], list[str]]:
    """Draw the scores of a generator and a vote that are each right more often than not."""
    rng = torch.Generator().manual_seed(seed)
    gold = torch.randint(3, (n,), generator=rng)
    one_hot = torch.nn.functional.one_hot(gold, 3).float()
    log_p = one_hot + torch.randn(n, 3, generator=rng) + torch.tensor([0.0, 0.0, 1.0])
    vote = (2 * one_hot + torch.randn(n, 3, generator=rng)).softmax(-1)
    return choice_scores(log_p, vote), [CHOICES[i] for i in gold.tolist()]


def answers_by(scores: list[ChoiceScores], decision: Decision) -> list[str]:
    return [score.choices[decision.choose(score)] for score in scores]


def answers_of_a_fine_grid(scores: list[ChoiceScores]) -> Iterator[list[str]]:
    """Yield the answers by every weight of the vote and biases of the negative in steps of 0.2."""
    for weight in VOTE_WEIGHTS:
        unbiased = torch.stack([Decision(weight)(score) for score in scores])
        for bias in range(-60, 61, 2):
            best = (unbiased + torch.tensor([0.0, 0.0, bias / 10])).argmax(dim=-1)
            yield [CHOICES[choice] for choice in best.tolist()]


@pytest.mark.parametrize("seed", SEEDS)
def test_what_helps_is_found_and_nearly_as_good_as_the_best_of_a_fine_grid(seed: int) -> None:
    scores, gold = draw_scores(seed, 300)
    official = partial(accuracy(gold), range(len(scores)))
    decision, before, after = fit_decision(scores, accuracy(gold))
    assert official(answers_by(scores, decision)) == pytest.approx(after)
    assert before == official(answers_by(scores, Decision()))
    best = max(official(answers) for answers in answers_of_a_fine_grid(scores))
    assert decision.vote_weight > 0  # the vote is better than the generator here
    assert decision.negative_bias < 0  # which says the negative too often
    # One standard error of a difference of two accuracies on 300 examples is at most √(2 · 0.25 / 300) = 4 points.
    assert best - 4 <= after <= best + 1
    assert after > before + 4


@pytest.mark.parametrize("seed", SEEDS)
def test_a_vote_that_is_noise_gets_no_weight_to_speak_of(seed: int) -> None:
    scores, gold = draw_scores(seed, 200)
    rng = torch.Generator().manual_seed(100 + seed)
    noise = choice_scores(
        torch.stack([s.log_probability for s in scores]), torch.rand(200, 3, generator=rng).softmax(-1)
    )
    assert fit_decision(noise, accuracy(gold))[0].vote_weight <= 0.125


def test_nothing_is_fitted_where_nothing_is_gained() -> None:
    right = torch.eye(3).repeat(4, 1) * 5
    decision, before, after = fit_decision(choice_scores(right, right.softmax(-1)), accuracy([*CHOICES] * 4))
    assert (decision, before, after) == (Decision(), 100.0, 100.0)


def test_without_votes_or_a_negative_only_what_is_there_is_fitted() -> None:
    scores, gold = draw_scores(0)
    without_votes = choice_scores(torch.stack([s.log_probability for s in scores]), torch.zeros(len(scores), 3))
    assert fit_decision(without_votes, accuracy(gold))[0].vote_weight == 0
    positive = choice_scores(
        torch.stack([s.log_probability for s in scores]), torch.stack([s.vote for s in scores]), negative=None
    )
    assert fit_decision(positive, accuracy(gold))[0].negative_bias == 0


def test_one_permitted_answer_stays() -> None:
    only = [ChoiceScores(("no relation",), torch.zeros(1), torch.zeros(1), 0)]
    scores, gold = draw_scores(0)
    with_it = fit_decision([*scores, *only], accuracy([*gold, "no relation"]))
    without = fit_decision(scores, accuracy(gold))
    assert with_it[0] == without[0]  # no threshold changes it, so it does not move the thresholds either


def test_a_model_whose_generator_knows_nothing_learns_to_trust_the_vote(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    task = RelationExtraction(
        Verbalisation(derive_phrases(["a(e1,e2)", "b(e1,e2)"])),
        negative=None,
        metric="macro",
        neighbour_style="label only",
    )
    phrases = task.choices or ()
    texts = ["the @ cup @ holds # tea # .", "the @ rain @ caused the # flood # ."]
    base = KnowledgeBase.from_passages(
        Passage(f"p{i}", phrases[i % 2], f"{texts[i % 2]} {'. ' * (i // 2)}") for i in range(8)
    )
    tower = Encoder.open(str(tiny_encoder))
    rng = torch.Generator().manual_seed(0)
    model = RagModel(Retriever(tower, tower, 0.01), Generator.open(str(tiny_seq2seq), rng), task, base)
    model.refresh_index()
    examples = [Example(f"q{i}", f"{texts[i % 2]} {'the ' * (1 + i // 2)}", (phrases[i % 2],)) for i in range(20)]
    calibration = calibrate(model, examples, 4)
    assert model.answering.decision == Decision()  # it is the caller's to take
    assert calibration.after > calibration.before + 30
    assert calibration.decision.vote_weight > 0
    assert (calibration.passages, calibration.scoring) == (4, "sequence")
    model.use_decision(calibration.decision)
    answers = [prediction.answer for prediction in model.predict(examples, 4)]
    assert task.score(examples, answers)[task.primary_metric] == pytest.approx(calibration.after)
    assert calibration.record()["decision"] == {"vote_weight": calibration.decision.vote_weight, "negative_bias": 0.0}


def test_an_open_set_of_answers_or_no_examples_are_refused(
    tiny_encoder: Path, tiny_seq2seq: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = RelationExtraction(Verbalisation(derive_phrases(["a(e1,e2)"])), negative=None, metric="macro")
    tower = Encoder.open(str(tiny_encoder))
    generator = Generator.open(str(tiny_seq2seq), torch.Generator().manual_seed(0))
    base = KnowledgeBase.from_passages([Passage("p", "a", "@ x @ # y #")])
    model = RagModel(Retriever(tower, tower, 0.05), generator, task, base)
    with pytest.raises(UserError, match="0 examples"):
        calibrate(model, [], 1)
    monkeypatch.setattr(RelationExtraction, "choices", None)
    with pytest.raises(UserError, match="closed set"):
        calibrate(model, [Example("q", "@ x @ # y #", ("a",))], 1)
