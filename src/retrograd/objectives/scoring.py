"""Functions that all objectives share: scoring a set of candidates, averaging over queries, and diagnostics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from retrograd.deferred import Bool, Float, Tensor, torch
from retrograd.objectives.checks import check_log_likelihood, check_log_probability
from retrograd.objectives.functional import (
    ABSENT,
    columns_where,
    cover,
    effective_sample_size,
    entropy,
    in_full_precision,
    kl_p_q,
    masked_log_softmax,
    masked_logsumexp,
    put_back,
    weighted_sum,
)
from retrograd.objectives.objective import CandidateScores, Likelihood

__all__ = [
    "cost",
    "describe",
    "log_likelihood_where",
    "log_represented_mass",
    "mean_over_queries",
    "mean_where",
    "normalise",
    "prior_alone",
    "prior_and_posterior",
    "pruned_sum",
]


def prior_alone(owner: object, scores: CandidateScores) -> Float[Tensor, "B K"]:
    """Return log p(z|x), checked, in full precision, for an objective whose candidates represent only themselves.

    Raises `ValueError` for scores that are no log-probabilities, and for candidates sampled from the tail.
    """
    if scores.log_multiplicity is not None:
        raise ValueError(
            f"{type(owner).__name__} cannot use candidates sampled from the tail; set training.tail = 0, or take "
            f"TopKMarginal or JointStochasticApproximation with exact weights"
        )
    check_log_probability("log_prior", scores.log_prior)
    return in_full_precision(scores.log_prior)


def log_represented_mass(scores: CandidateScores) -> Float[Tensor, "B K"]:
    """Return log of the prior mass that each candidate represents: log p(z|x), plus log multiplicity if sampled.

    Checked and in full precision; the gradient is that of log p(z|x).
    """
    check_log_probability("log_prior", scores.log_prior)
    log_prior = in_full_precision(scores.log_prior)
    if scores.log_multiplicity is None:
        return log_prior
    return log_prior + in_full_precision(scores.log_multiplicity.detach())


def normalise(log_probability: Float[Tensor, "B K"], normaliser: Literal["full", "candidates"]) -> Float[Tensor, "B K"]:
    """Return log-probabilities over the base as they are ("full"), or renormalised over the candidates."""
    return log_probability if normaliser == "full" else masked_log_softmax(log_probability)


def prior_and_posterior(owner: object, scores: CandidateScores) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]]:
    """Return log p(z|x) and log q(z|x,y), checked, in full precision; absent from one is absent from both.

    Raises `ValueError`, naming the objective ``owner``, when there is no posterior or when scores are no
    log-probabilities.
    """
    if scores.log_posterior is None:
        raise ValueError(
            f"{type(owner).__name__} needs log_posterior and the scores have none; retrieve with the targets and a "
            f"posterior retriever (retriever.posterior = true), or set posterior=False where the objective allows it"
        )
    log_prior = prior_alone(owner, scores)
    check_log_probability("log_posterior", scores.log_posterior)
    log_posterior = in_full_precision(scores.log_posterior)
    absent = (log_prior == ABSENT) | (log_posterior == ABSENT)
    return log_prior.masked_fill(absent, ABSENT), log_posterior.masked_fill(absent, ABSENT)


def pruned_sum(
    likelihood: Likelihood,
    weight: Float[Tensor, "B K"],
    log_likelihood: Float[Tensor, "B K"],
    kept_mass: float,
) -> tuple[Float[Tensor, " B"], Bool[Tensor, "B K"]]:
    """Return Σ_k w_k log p(y|x,z_k), with gradient for the heaviest that hold ``kept_mass`` of w, and these.

    ``weight`` is constant and ``log_likelihood`` was scored without gradient; the kept candidates are scored once more.
    The others keep their part of the value, as a constant, so that the loss does not depend on ``kept_mass``.
    """
    heaviest = cover(weight, kept_mass)
    learned = weighted_sum(weight.masked_fill(~heaviest, 0.0), log_likelihood_where(likelihood, heaviest))
    return learned + weighted_sum(weight.masked_fill(heaviest, 0.0), log_likelihood), heaviest


def log_likelihood_where(likelihood: Likelihood, mask: Bool[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """Return log p(y|x,z) of the wanted candidates in nats, ``-inf`` for all others: one forward per wanted pair.

    Raises `ValueError` when the likelihood answers with something that no log-likelihood of text can be.
    """
    column = columns_where(mask)
    value = in_full_precision(likelihood.at(column))
    check_log_likelihood(value)
    return put_back(value, column, mask.shape[1])


def mean_over_queries(value: Float[Tensor, " B"]) -> Float[Tensor, ""]:
    """Return the mean over all B queries, where a query of ``-inf`` (it has no usable candidate) adds zero.

    It stays in the denominator, so that batches may be split and weighted by their query counts alone.
    """
    return value.masked_fill(value == ABSENT, 0.0).sum() / max(len(value), 1)


def mean_where(value: Float[Tensor, " B"], present: Bool[Tensor, " B"]) -> Float[Tensor, ""]:
    """Return the mean over the queries that are present, as diagnostics show it. Zero when there is none."""
    return value.detach().masked_fill(~present, 0.0).sum() / present.sum().clamp(min=1)


def cost(forwards: Bool[Tensor, "B K"] | None, backwards: Bool[Tensor, "B K"]) -> dict[str, Float[Tensor, ""]]:
    """Count generator forwards and backwards per query, from the candidates scored without gradient and with it.

    Where candidates were scored without gradient first, also the share of them whose backward pass was saved.
    """
    with_gradient = backwards.sum(dim=-1).double()
    if forwards is None:
        return {"generator_forwards": with_gradient.mean(), "generator_backwards": with_gradient.mean()}
    without_gradient = forwards.sum(dim=-1).double()
    return {
        "generator_forwards": (without_gradient + with_gradient).mean(),
        "generator_backwards": with_gradient.mean(),
        "backward_saving": (1.0 - with_gradient / without_gradient.clamp(min=1.0))
        .masked_fill(without_gradient == 0, 0.0)
        .mean(),
    }


def describe(
    weight: Float[Tensor, "B K"],
    log_prior: Float[Tensor, "B K"],
    log_likelihood: Float[Tensor, "B K"],
    log_marginal: Float[Tensor, " B"],
    log_posterior: Float[Tensor, "B K"] | None = None,
) -> Mapping[str, Float[Tensor, ""]]:
    """Return the diagnostics of `Estimate` about the candidates; means over the queries that have any weight.

    ``weight`` are the responsibilities that the objective trains with (estimated where it samples); the scores are as
    the retrievers gave them and are renormalised here wherever a distribution over the candidates is needed.
    """
    with torch.no_grad():
        present = weight.sum(dim=-1) > 0
        log_weight = torch.where(weight > 0, weight, 1.0).log().masked_fill(weight == 0, ABSENT)
        log_prior_here = masked_log_softmax(log_prior)
        values = {
            "log_marginal": log_marginal,
            "log_likelihood": weighted_sum(weight, log_likelihood),
            "candidate_mass": masked_logsumexp(log_prior).exp(),
            "prior_entropy": entropy(log_prior_here),
            "responsibility_entropy": entropy(log_weight),
            "effective_sample_size": effective_sample_size(weight),
            "kl_responsibilities_prior": kl_p_q(log_weight, log_prior_here),
        }
        if log_posterior is not None:
            log_posterior_here = masked_log_softmax(log_posterior)
            values["posterior_entropy"] = entropy(log_posterior_here)
            values["kl_responsibilities_posterior"] = kl_p_q(log_weight, log_posterior_here)
        means = {name: mean_where(value, present) for name, value in values.items()}
        return means | {"empty_share": 1.0 - present.to(weight.dtype).mean()}
