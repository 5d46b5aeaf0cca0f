"""The copy likelihood against its formula, and the look-up of support."""

from __future__ import annotations

import math

import pytest
import torch

from retrograd.objectives import CandidateScores, JointStochasticApproximation, TopKMarginal
from retrograd.rag.likelihood import CopyLikelihood, CopySettings, find_support
from retrograd.types import Example, UserError

SETTINGS = CopySettings(noise=0.1, background=0.2)
SUPPORTS = torch.tensor([[True, False, False], [False, False, True]])


def test_value_is_the_formula_and_padding_is_minus_infinity() -> None:
    found = CopyLikelihood(SUPPORTS, SETTINGS).at(torch.tensor([[0, 1, -1], [2, 0, 1]]))
    yes, no = math.log(0.9 + 0.1 * 0.2), math.log(0.1 * 0.2)
    torch.testing.assert_close(found, torch.tensor([[yes, no, -math.inf], [yes, no, no]]))


def test_together_is_supported_by_any_passage() -> None:
    found = CopyLikelihood(SUPPORTS, SETTINGS).together(torch.tensor([[1, 0], [0, -1]]))
    torch.testing.assert_close(found.exp(), torch.tensor([0.92, 0.02]))


def test_without_noise_worth_speaking_of_the_marginal_is_the_mass_on_supporting_passages() -> None:
    """-log Σ_z p(z|x)·[z supports y], and its gradient π - p with π the prior restricted to the supporting passages."""
    logits = torch.tensor([[0.3, -1.0, 0.5], [1.0, 0.0, -0.7]], dtype=torch.float64, requires_grad=True)
    likelihood = CopyLikelihood(SUPPORTS, CopySettings(noise=1e-9, background=1e-9))
    estimate = TopKMarginal()(CandidateScores(logits.log_softmax(-1)), likelihood, torch.Generator())
    prior = logits.softmax(-1).detach()
    expected = -(prior * SUPPORTS).sum(-1).log().mean()
    assert estimate.loss.item() == pytest.approx(expected.item(), abs=1e-7)
    estimate.loss.backward()
    responsibility = prior * SUPPORTS / (prior * SUPPORTS).sum(-1, keepdim=True)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, -(responsibility - prior) / 2, rtol=0, atol=1e-6)


def test_the_same_evidence_trains_a_posterior_retriever() -> None:
    prior = torch.zeros(2, 3).log_softmax(-1)
    posterior = torch.zeros(2, 3, requires_grad=True)
    scores = CandidateScores(prior, posterior.log_softmax(-1))
    estimate = JointStochasticApproximation()(scores, CopyLikelihood(SUPPORTS, SETTINGS), torch.Generator())
    estimate.loss.backward()
    assert posterior.grad is not None
    assert ((posterior.grad < 0) == SUPPORTS).all()


def test_supported_compares_rows_of_the_right_query_only() -> None:
    rows = {"a": (0, 5), "b": (), "c": (7,)}
    examples = [Example(name, "", (name,)) for name in rows]
    candidates = torch.tensor([[5, 7, -1], [0, 5, 7], [7, -1, 0]])
    found = find_support(lambda example: rows[example.target], examples, candidates)
    assert found.tolist() == [[True, False, False], [False, False, False], [True, False, False]]


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1])
def test_impossible_noise_is_refused(value: float) -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        CopySettings(noise=value)
