"""Fitting a decision, against an exhaustive search and on a model whose generator knows nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from retrograd.corpus.knowledge_base import KnowledgeBase
from retrograd.evaluation.calibration import VOTE_WEIGHTS, calibrate, fit_decision
from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.retriever import Retriever
from retrograd.rag.decision import ChoiceScores, Decision
from retrograd.rag.rag_model import RagModel
from retrograd.tasks.relation_extraction import RelationExtraction
from retrograd.tasks.verbalisation import Verbalisation, derive_phrases
from retrograd.types import Example, Passage, UserError

CHOICES = ("works for", "born in", "no relation")


def scored(log_p: torch.Tensor, vote: torch.Tensor, negative: int | None = 2) -> list[ChoiceScores]:
    return [ChoiceScores(CHOICES, p.log_softmax(-1), v, negative) for p, v in zip(log_p, vote, strict=True)]


def accuracy(gold: list[str]) -> Callable[[list[str]], float]:
    return lambda answers: 100 * sum(a == g for a, g in zip(answers, gold, strict=True)) / len(gold)


def drawn(seed: int, n: int = 60) -> tuple[list[ChoiceScores], list[str]]:
    """A generator and a vote that are each right more often than not."""
    rng = torch.Generator().manual_seed(seed)
    gold = torch.randint(3, (n,), generator=rng)
    one_hot = torch.nn.functional.one_hot(gold, 3).float()
    log_p = one_hot + torch.randn(n, 3, generator=rng) + torch.tensor([0.0, 0.0, 1.0])
    vote = (2 * one_hot + torch.randn(n, 3, generator=rng)).softmax(-1)
    return scored(log_p, vote), [CHOICES[i] for i in gold.tolist()]


@pytest.mark.parametrize("seed", range(5))
def test_no_decision_on_a_fine_grid_is_better(seed: int) -> None:
    scores, gold = drawn(seed)
    official = accuracy(gold)
    decision, before, after = fit_decision(scores, official)
    answered = [one.choices[decision.chosen(one)] for one in scores]
    assert official(answered) == pytest.approx(after)
    assert before == official([one.choices[Decision().chosen(one)] for one in scores])
    grid = [Decision(weight, bias / 10) for weight in VOTE_WEIGHTS for bias in range(-60, 61)]
    best = max(official([one.choices[decided.chosen(one)] for one in scores]) for decided in grid)
    # Thresholds stand at quantiles of 60 margins, so that one or two examples may lie between two of them.
    assert after >= best - 2 * 100 / len(scores)
    assert after > before


def test_nothing_is_fitted_where_nothing_is_gained() -> None:
    right = torch.eye(3).repeat(4, 1) * 5
    found, before, after = fit_decision(scored(right, right.softmax(-1)), accuracy([*CHOICES] * 4))
    assert (found, before, after) == (Decision(), 100.0, 100.0)


def test_without_votes_or_a_negative_only_what_is_there_is_fitted() -> None:
    scores, gold = drawn(0)
    silent = scored(torch.stack([s.log_probability for s in scores]), torch.zeros(len(scores), 3))
    assert fit_decision(silent, accuracy(gold))[0].vote_weight == 0
    positive = scored(
        torch.stack([s.log_probability for s in scores]), torch.stack([s.vote for s in scores]), negative=None
    )
    assert fit_decision(positive, accuracy(gold))[0].negative_bias == 0


def test_one_permitted_answer_stays() -> None:
    only = [ChoiceScores(("no relation",), torch.zeros(1), torch.zeros(1), 0)]
    scores, gold = drawn(0)
    decision, _, after = fit_decision([*scores, *only], accuracy([*gold, "no relation"]))
    assert decision.chosen(only[0]) == 0
    assert after > 0


def test_a_model_whose_generator_knows_nothing_learns_to_trust_the_vote(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    task = RelationExtraction(
        Verbalisation(derive_phrases(["a(e1,e2)", "b(e1,e2)"])),
        negative=None,
        metric="macro",
        neighbour_style="label only",
    )
    phrases = task.choices or ()
    texts = ["@ x @ red # y #", "@ x @ blue # y #"]
    base = KnowledgeBase.from_passages(
        Passage(f"p{i}", phrases[i % 2], f"{texts[i % 2]} {'so ' * (i // 2)}") for i in range(8)
    )
    tower = Encoder.open(str(tiny_encoder))
    rng = torch.Generator().manual_seed(0)
    model = RagModel(Retriever(tower, tower, 0.01), Generator.open(str(tiny_seq2seq), rng), task, base)
    model.refresh_index()
    examples = [Example(f"q{i}", f"{texts[i % 2]} q{i}", (phrases[i % 2],)) for i in range(6)]
    found = calibrate(model, examples, 4)
    assert model.decision == Decision()  # it is the caller's to take
    assert found.after >= found.before
    model.decision = found.decision
    answers = [prediction.answer for prediction in model.answer(examples, 4)]
    assert task.score(examples, answers)[task.primary_metric] == pytest.approx(found.after)
    assert found.record()["decision"] == {"vote_weight": found.decision.vote_weight, "negative_bias": 0.0}


def test_an_open_set_of_answers_or_no_examples_are_refused(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    task = RelationExtraction(Verbalisation(derive_phrases(["a(e1,e2)"])), negative=None, metric="macro")
    tower = Encoder.open(str(tiny_encoder))
    generator = Generator.open(str(tiny_seq2seq), torch.Generator().manual_seed(0))
    base = KnowledgeBase.from_passages([Passage("p", "a", "@ x @ # y #")])
    with pytest.raises(UserError, match="0 examples"):
        calibrate(RagModel(Retriever(tower, tower, 0.05), generator, task, base), [], 1)
