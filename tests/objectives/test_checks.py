"""Every error of an objective names the value and what to do."""

from __future__ import annotations

import math

import pytest
import torch

from retrograd.objectives import CandidateScores, FrozenRetriever, JointStochasticApproximation, TopKMarginal
from retrograd.objectives.checks import check_log_likelihood, check_log_probability
from retrograd.types import UserError


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_true_log_probabilities_pass(dtype: torch.dtype) -> None:
    logits = torch.randn(200, 20, generator=torch.Generator().manual_seed(0))
    value = logits.log_softmax(dim=-1).to(dtype)
    check_log_probability("log_prior", value)
    check_log_probability("log_prior", value[:, :7])
    value[0], value[1, 3:] = -math.inf, -math.inf
    check_log_probability("log_prior", value)
    check_log_probability("log_prior", value[:0])


@pytest.mark.parametrize("wrong", ["probability", "logit", "distance"])
def test_what_is_no_log_probability_is_refused(wrong: str) -> None:
    logits = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    value = {"probability": logits.softmax(dim=-1), "logit": logits, "distance": -logits.sigmoid()}[wrong]
    with pytest.raises(ValueError, match=r"log_prior: a row sums to .*apply log_softmax exactly once"):
        check_log_probability("log_prior", value)


def test_two_percent_too_much_is_refused_in_full_precision() -> None:
    value = torch.full((1, 4), 0.255).log()
    with pytest.raises(ValueError, match=r"sums to 1\.02"):
        check_log_probability("log_prior", value)
    check_log_probability("log_prior", value.bfloat16())


def test_nan_is_named() -> None:
    value = torch.full((2, 3), -2.0)
    value[1, 1] = math.nan
    with pytest.raises(ValueError, match="log_prior contains NaN"):
        check_log_probability("log_prior", value)
    with pytest.raises(ValueError, match="log-likelihood contains NaN"):
        check_log_likelihood(value)


def test_a_loss_handed_as_log_likelihood_is_refused() -> None:
    check_log_likelihood(torch.tensor([[-3.0, 0.0, -math.inf]]))
    with pytest.raises(ValueError, match=r"4 nats.*a loss"):
        check_log_likelihood(torch.tensor([[4.0, 1.0]]))


@pytest.mark.parametrize(
    ("kind", "setting", "value", "advice"),
    [
        (TopKMarginal, "form", "tokens", "TopKMarginal: form is 'tokens'; it must be 'sequence' or 'token'"),
        (TopKMarginal, "normaliser", "k", "normaliser is 'k'; it must be 'full' or 'candidates'"),
        (FrozenRetriever, "form", "concat", "form is 'concat'; it must be 'marginal' or 'together'"),
        (JointStochasticApproximation, "sampler", "mis", "sampler is 'mis'; it must be 'exact' or 'metropolis'"),
        (JointStochasticApproximation, "chain", "warm", "chain is 'warm'; it must be 'cold' or 'carried'"),
        (JointStochasticApproximation, "normaliser", "", "normaliser is ''; it must be 'full' or 'candidates'"),
        (JointStochasticApproximation, "draws", 0, "draws is 0; it must be a whole number of at least 1"),
        (JointStochasticApproximation, "kept_mass", 0.0, "kept_mass is 0.0; it must be above 0 and at most 1"),
        (JointStochasticApproximation, "kept_mass", 1.5, "kept_mass is 1.5; it must be above 0 and at most 1"),
    ],
)
def test_settings_name_the_value_and_what_is_allowed(kind, setting: str, value: str | float, advice: str) -> None:
    """The value is set behind the type checker of the tests, which would refuse it first; users have none."""
    objective = kind()
    object.__setattr__(objective, setting, value)
    with pytest.raises(UserError, match=advice):
        objective.__post_init__()


def test_a_missing_posterior_says_how_to_go_on(world) -> None:
    here = world()
    scores = CandidateScores(here.scores().log_prior)
    with pytest.raises(ValueError, match=r"retrieve with the targets .* or set posterior=False"):
        JointStochasticApproximation()(scores, here.likelihood(), torch.Generator())
    assert JointStochasticApproximation(posterior=False)(scores, here.likelihood(), torch.Generator()).loss.isfinite()
