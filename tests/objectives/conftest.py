"""The enumerable world has so few passages that every sum can be written out, in float64: the tests' oracle."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from retrograd.objectives import (
    OBJECTIVES,
    CandidateScores,
    Distillation,
    Estimate,
    FrozenRetriever,
    JointStochasticApproximation,
    Objective,
    RelaxedTopK,
    ScoreFunction,
    StochasticTopK,
    TokenLogLikelihood,
    TopKMarginal,
    Variational,
    Vimco,
    WakeSleep,
)

FALSE_ALARM = 1e-6
"""Chance that one statistical test of this room fails although the code is right (its seeds are fixed besides)."""

VARIANTS = (
    TopKMarginal(normaliser="candidates"),
    TopKMarginal(form="token"),
    TopKMarginal(form="token", normaliser="candidates"),
    JointStochasticApproximation(kept_mass=1.0),
    JointStochasticApproximation(normaliser="candidates", kept_mass=0.6),
    JointStochasticApproximation(posterior=False),
    JointStochasticApproximation(sampler="metropolis"),
    JointStochasticApproximation(sampler="metropolis", draws=3, chain="cold", normaliser="candidates"),
    JointStochasticApproximation(sampler="metropolis", draws=5, posterior=False),
    JointStochasticApproximation(sampler="metropolis", proposal_share=0.5),
    Variational(beta=0.5, kept_mass=0.6),
    Variational(form="published"),
    Variational(form="published", passages=2, beta=2.0, kept_mass=1.0),
    WakeSleep(draws=3, normaliser="candidates", kept_mass=0.6),
    WakeSleep(proposal_share=0.5),
    StochasticTopK(noise=0.0, temperature=0.3),
    StochasticTopK(slots=3, relaxation="softsort", draws=3),
    RelaxedTopK(slots=1, operator="n3", vote_weight=0.5),
    RelaxedTopK(slots=2, best=3, operator="n3"),
    RelaxedTopK(slots=3, best=4, perplexity=1.7, vote_weight=2.0),
    RelaxedTopK(slots=2, operator="n3", perplexity=2.5),
    RelaxedTopK(slots=2, operator="hard", vote_weight=1.0),
    RelaxedTopK(slots=3, operator="hard_n3", best=3),
    ScoreFunction(baseline="none"),
    ScoreFunction(reward="likelihood", draws=3),
    ScoreFunction(reward="elbo"),
    Vimco(proposal="prior", draws=3),
    Vimco(proposal_share=0.5, normaliser="candidates"),
    Distillation(target="emdr2", reader="marginal", normaliser="full"),
    Distillation(length_normalised="no", temperature=0.5, normaliser="full", reader="none"),
    Distillation(target="loop_kl_target_prior"),
    Distillation(target="loop_kl_target_prior", reader="marginal", temperature=3.0),
    Distillation(target="loop_kl_target_prior", reader="none", length_normalised="no", normaliser="full"),
    Distillation(target="replug_kl_prior_target", reader="none"),
    Distillation(target="replug_kl_prior_target", length_normalised="yes", reader="marginal"),
    FrozenRetriever(form="together"),
)
"""Settings other than the defaults that the contract is tested with. An objective in `OBJECTIVES` needs no entry."""

OBJECTIVE_VALUES: tuple[Objective, ...] = (*(kind() for kind in OBJECTIVES), *VARIANTS)


@dataclass
class TableLikelihood:
    """Likelihood as a table of token log-likelihoods [B K T], which counts the prompts it was asked for.

    ``calls`` lists how passages were read at each call, in the words of `Objective.reads`, and whether with gradient.
    """

    table: Tensor
    closed_book: Tensor
    present: Tensor
    without_gradient: int = 0
    with_gradient: int = 0
    calls: list[tuple[str, bool]] = field(default_factory=list)

    def _count(self, prompts: int, reads: str) -> None:
        self.calls.append((reads, torch.is_grad_enabled()))
        if torch.is_grad_enabled():
            self.with_gradient += prompts
        else:
            self.without_gradient += prompts

    def _tokens(self, column: Tensor) -> Tensor:
        width = self.table.shape[2]
        picked = self.table.gather(1, column.clamp(min=0).unsqueeze(-1).expand(-1, -1, width))
        return picked.masked_fill(~self.present.unsqueeze(1), 0.0)

    def tokens_at(self, column: Tensor) -> TokenLogLikelihood:
        ordered = column.sort(dim=-1).values
        twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
        assert not twice.any(), "a pair was asked for twice in one call"
        self._count(int((column >= 0).sum()), "separately")
        value = self._tokens(column).masked_fill((column < 0).unsqueeze(-1), -math.inf)
        return TokenLogLikelihood(value, self.present)

    def at(self, column: Tensor) -> Tensor:
        return self.tokens_at(column).value.sum(dim=-1)

    def together(self, column: Tensor) -> Tensor:
        """Score a prompt by its passages and their order: each halves the weight of the next."""
        self._count(len(column), "together" if column.shape[1] else "nothing")
        said = self._tokens(column).sum(dim=-1).masked_fill(column < 0, 0.0)
        return self.closed_book + (said * 0.5 ** torch.arange(1, column.shape[1] + 1)).sum(dim=-1)

    def at_mixture(self, weight: Tensor) -> Tensor:
        """Score slots by their passages, how much of each, and their order: each halves the weight of the next.

        Of a padded column the table is never read, whatever its weight.
        """
        self._count(len(weight), "slots")
        said = self._tokens(torch.arange(weight.shape[2]).expand(len(weight), -1)).sum(dim=-1)
        slot = 0.5 ** torch.arange(1, weight.shape[1] + 1)
        mixed = (weight * torch.where(weight == 0, 0.0, said.unsqueeze(1))).sum(dim=-1)
        return self.closed_book + (mixed * slot).sum(dim=-1)

    def supports_at(self, column: Tensor) -> Tensor:
        """Return whether the first token of candidates is likely; costs no prompt."""
        return (self.table[..., 0].detach() > -0.8).gather(1, column.clamp(min=0)) & (column >= 0)


@dataclass
class Gradients:
    """An estimate and what its loss sends to each of the three leaves."""

    estimate: Estimate
    prior: Tensor
    posterior: Tensor
    table: Tensor
    closed_book: Tensor
    likelihood: TableLikelihood

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        return self.prior, self.posterior, self.table, self.closed_book


@dataclass
class World:
    """B queries, N passages of which the first K are the candidates, T target tokens.

    ``absent`` marks candidates that are padding. All tables are leaves: gradients are taken with respect to logits.
    """

    prior_logits: Tensor
    posterior_logits: Tensor
    table: Tensor
    closed_book: Tensor
    present: Tensor
    absent: Tensor
    previous: Tensor | None = None
    k: int = field(init=False)

    def __post_init__(self) -> None:
        self.k = self.table.shape[1]

    def scores(self) -> CandidateScores:
        def of(logits: Tensor) -> Tensor:
            return logits.log_softmax(dim=-1)[:, : self.k].masked_fill(self.absent, -math.inf)

        return CandidateScores(of(self.prior_logits), of(self.posterior_logits), self.previous)

    def likelihood(self) -> TableLikelihood:
        return TableLikelihood(self.table, self.closed_book, self.present)

    def log_likelihood(self) -> Tensor:
        value = self.table.detach().masked_fill(~self.present.unsqueeze(1), 0.0).sum(dim=-1)
        return value.masked_fill(self.absent, -math.inf)

    def responsibilities(self) -> Tensor:
        """Return π over the candidates, written out."""
        joint = (self.scores().log_prior.detach() + self.log_likelihood()).exp()
        return joint / joint.sum(dim=-1, keepdim=True)

    def differentiate(self, objective: Objective, seed: int = 0, rng: torch.Generator | None = None) -> Gradients:
        likelihood = self.likelihood()
        estimate = objective(self.scores(), likelihood, rng or torch.Generator().manual_seed(seed))
        leaves = (self.prior_logits, self.posterior_logits, self.table, self.closed_book)
        found = torch.autograd.grad(estimate.loss, leaves, allow_unused=True, retain_graph=True)
        filled = [torch.zeros_like(leaf) if one is None else one for leaf, one in zip(leaves, found, strict=True)]
        return Gradients(estimate, *filled, likelihood)

    def of(self, change: Callable[[Tensor], Tensor]) -> World:
        """Return the world with one change made to every table, in fresh leaves; for changes along the batch axis."""
        previous = None if self.previous is None else change(self.previous)
        logits = [
            change(leaf.detach()).clone().requires_grad_(leaf.requires_grad)
            for leaf in (self.prior_logits, self.posterior_logits, self.table, self.closed_book)
        ]
        return World(*logits, change(self.present), change(self.absent), previous)

    def copies(self, count: int) -> World:
        """Return ``count`` copies of the first query along the batch axis: one call gives as many independent runs."""
        return self.of(lambda leaf: leaf[:1].repeat(count, *[1] * (leaf.dim() - 1)))

    def with_absent(self, absent: Tensor) -> World:
        return replace(self, absent=absent)


def make_world(
    seed: int = 0,
    b: int = 2,
    n: int = 6,
    k: int = 6,
    t: int = 3,
    scale: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> World:
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64).mul(scale)

    def leaf(value: Tensor) -> Tensor:
        return value.to(dtype).requires_grad_()

    lengths = torch.randint(1, t + 1, (b, 1), generator=rng)
    lengths[0] = t
    return World(
        prior_logits=leaf(normal(b, n)),
        posterior_logits=leaf(normal(b, n)),
        table=leaf(-normal(b, k, t).abs()),
        closed_book=leaf(-normal(b).abs()),
        present=torch.arange(t) < lengths,
        absent=torch.zeros(b, k, dtype=torch.bool),
    )


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scored(similarity: Tensor, temperature: float | Tensor) -> CandidateScores:
    """Return a retriever's scores at this temperature: log-probabilities of the candidates, and the temperature."""
    t = temperature if isinstance(temperature, Tensor) else similarity.new_tensor(temperature)
    absent = similarity == -math.inf
    logit = (similarity.masked_fill(absent, 0.0) / t).masked_fill(absent, -math.inf)
    log_prior = logit.log_softmax(dim=-1)
    return CandidateScores(log_prior.masked_fill(absent.all(dim=-1, keepdim=True), -math.inf), temperature=t)


def check_mean(samples: Tensor, expected: Tensor) -> None:
    """Check that the mean of independent ``samples`` [S ...] equals ``expected`` [...] within its standard error."""
    allowed = -torch.special.ndtri(torch.tensor(FALSE_ALARM / (2 * expected.numel()), dtype=torch.float64))
    error = samples.std(dim=0) / math.sqrt(len(samples))
    # An entry that never varies must be met exactly; 1e-12 leaves room for the rounding of the sum.
    distance = (samples.mean(dim=0) - expected).abs()
    assert (distance <= allowed * error + 1e-12).all(), f"off by {(distance / error).max():.1f} standard errors"


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: tensors of six numbers gain nothing from more, and lose much on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def world() -> Callable[..., World]:
    return make_world


@pytest.fixture(scope="session")
def mean_equals() -> Callable[[Tensor, Tensor], None]:
    return check_mean


def samples(objective: Objective) -> bool:
    """Return whether the estimate depends on the seed, found by trying it."""
    here = make_world(17, b=8)
    first, second = (here.differentiate(objective, seed=seed) for seed in (1, 2))
    return any(not torch.equal(one, other) for one, other in zip(first.leaves, second.leaves, strict=True))


@pytest.fixture(params=[one for one in OBJECTIVE_VALUES if not samples(one)], ids=repr, scope="session")
def exact_objective(request: pytest.FixtureRequest) -> Objective:
    return request.param


@pytest.fixture(params=OBJECTIVE_VALUES, ids=repr, scope="session")
def objective(request: pytest.FixtureRequest) -> Objective:
    return request.param
