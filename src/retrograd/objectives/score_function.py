"""Score-function estimators: draw passages, and reward the retriever for those that did better than could be expected.

    maximise  J = E_{z~r}[ reward(z) ],    ∇J = E_{z~r}[ (reward(z) - b) ∇ log r(z) + ∇ reward(z) ]

The draw itself cannot be differentiated, its probability can. Any b that does not depend on z leaves the expectation
alone, because E[∇ log r(z)] = 0; a good one, such as what the *other* draws got, removes most of the variance.

Williams 1992, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning";
Mnih & Gregor 2014 (arXiv 1402.0030), NVIL; Mnih & Rezende 2016 (arXiv 1602.06725), VIMCO.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from retrograd.deferred import Float, Int, Tensor, torch
from retrograd.objectives.checks import check_choice, check_count, check_share
from retrograd.objectives.functional import (
    ABSENT,
    counts,
    defensive,
    importance_efficiency,
    masked_log_softmax,
    masked_logsumexp,
    propose,
    take,
    weighted_sum,
)
from retrograd.objectives.objective import CandidateScores, Estimate, Goal, Likelihood, Reads
from retrograd.objectives.scoring import (
    cost,
    describe,
    log_likelihood_where,
    mean_over_queries,
    mean_where,
    normalise,
    prior_alone,
    prior_and_posterior,
)
from retrograd.types import UserError

__all__ = ["ScoreFunction", "Vimco"]


@dataclass(frozen=True)
class ScoreFunction:
    """REINFORCE, and with the leave-one-out baseline RLOO: a few independent draws, each paid by what it earned.

    **Equation.** p̃ and q̃ are prior and posterior retriever renormalised over the candidates. J is to be maximised, and
    minus its Monte-Carlo estimate from n = ``draws`` draws is the loss.

    * ``reward="log_likelihood"``: J = E_p̃[log p(y|x,z)], in nats. By Jensen's inequality a lower bound on
      log Σ_k p̃(z_k|x) p(y|x,z_k), and not that: it asks that *every* passage the prior draws explains the target.
    * ``reward="likelihood"``: J = E_p̃[p(y|x,z)] = Σ_k p̃(z_k|x) p(y|x,z_k), the marginal itself, as a probability: the
      chance that a drawn passage and an answer drawn from it give exactly y.
    * ``reward="elbo"``: J = E_q̃[log p(z|x) + log p(y|x,z) - log q̃(z|x,y)], in nats, p(z|x) as given: a lower bound on
      log Σ_k p(z_k|x) p(y|x,z_k), equal to it where q̃ is the true posterior over the candidates.

    **Paper.** Williams 1992 (``baseline="none"``); Kool et al. 2019, "Buy 4 REINFORCE Samples, Get a Baseline for
    Free!", and Ahmadian et al. 2024 (arXiv 2402.14740) (``"leave_one_out"``); ``"elbo"``: Mnih & Gregor 2014
    (arXiv 1402.0030), with that baseline in the place of their learned one.

    **Bias.** None: the expected gradient is that of J, for every number of draws and either baseline. J is what differs
    from log p(y|x): passages outside the candidates are left out, "log_likelihood" and "likelihood" renormalise the
    prior among them (see `TopKMarginal`), and "log_likelihood" and "elbo" are bounds with the gaps above. The price is
    variance; more draws or the baseline reduce it. "likelihood" weighs queries by their probability and is taken as a
    plain number, because a scale that did not depend on the draws would cost more forwards: a target below about
    -87 nats under all drawn passages underflows in fp32 and then teaches nothing. It is for short targets.

    **Gradient.** With r_i the reward of draw i, a constant here, and b_i either 0 or the mean reward of the other n - 1
    draws: the prior logits get 1/n Σ_i (r_i - b_i) ∇ log p̃(z_i|x) (ascent); with "elbo" the posterior logits get
    1/n Σ_i (r_i - b_i) ∇ log q̃(z_i|x,y), and the prior logits 1/n Σ_i ∇ log p(z_i|x), the share of each column among
    the draws less p. The generator gets 1/n Σ_i ∇ r_i, through the drawn passages. E_q̃[∇ log q̃] = 0 is left out.

    **Cost.** Generator forwards: the distinct columns among the draws, all with gradient; none without.

    **Padding.** A candidate is absent if its ``log_prior``, or with "elbo" its ``log_posterior``, is -inf: never drawn
    or scored, no gradient. A query without candidates, or one that drew a reward of -inf, adds 0 to the mean.

    Example::

        print(rg.ScoreFunction().needs_posterior)
    """

    trains_retriever = True
    trains_generator = True
    reads = Reads.SEPARATELY
    selection = None
    leaves_one_out = False
    mixes_tokens = False
    needs_log_normaliser = False

    reward: Literal["log_likelihood", "likelihood", "elbo"] = "log_likelihood"
    baseline: Literal["none", "leave_one_out"] = "leave_one_out"
    draws: int = 8

    def __post_init__(self) -> None:
        check_choice(self, "reward", self.reward, ("log_likelihood", "likelihood", "elbo"))
        check_choice(self, "baseline", self.baseline, ("none", "leave_one_out"))
        check_count(self, "draws", self.draws)
        if self.baseline == "leave_one_out":
            _check_others(self, self.draws, "or set baseline = 'none'")

    @property
    def goal(self) -> Goal:
        """Return J, the expectation of the reward."""
        goals = {"log_likelihood": Goal.EXPECTED_LOG_LIKELIHOOD, "likelihood": Goal.EXPECTED_LIKELIHOOD}
        return goals.get(self.reward, Goal.ELBO)

    @property
    def needs_posterior(self) -> bool:
        """Return whether the draws come from q(z|x,y)."""
        return self.reward == "elbo"

    def __call__(self, scores: CandidateScores, likelihood: Likelihood, rng: torch.Generator) -> Estimate:
        """Return the mean over queries of minus the mean reward, in nats (``reward="likelihood"``: a probability).

        Raises `ValueError` when ``reward="elbo"`` and there is no ``log_posterior``, or when scores are not
        log-probabilities.
        """
        log_prior, log_posterior = _scores(self, scores)
        log_sampler = masked_log_softmax(log_prior if log_posterior is None else log_posterior)
        columns = propose(log_sampler.detach(), self.draws, rng)
        share = _shares(columns, log_sampler)
        log_likelihood = log_likelihood_where(likelihood, share > 0)
        reward = self._reward(log_prior, log_likelihood, log_sampler.detach(), columns)
        usable = (reward > ABSENT).all(dim=-1, keepdim=True)
        reward = reward.masked_fill(~usable, 0.0)
        log_proposed = take(log_sampler, columns).masked_fill(~usable, 0.0)
        advantage = reward.detach() - self._baseline(reward.detach())
        # The second term is zero in value: it only carries the score function's gradient.
        per_query = (reward + advantage * (log_proposed - log_proposed.detach())).mean(dim=-1)
        diagnostics = self._diagnostics(share, log_prior, log_likelihood, log_posterior, columns)
        return Estimate(-mean_over_queries(per_query), diagnostics)

    def _reward(
        self,
        log_prior: Float[Tensor, "B K"],
        log_likelihood: Float[Tensor, "B K"],
        log_sampler: Float[Tensor, "B K"],
        columns: Int[Tensor, "B M"],
    ) -> Float[Tensor, "B M"]:
        """Return the reward of each draw, differentiable where J depends on it directly; ``-inf`` without a draw."""
        earned = take(log_likelihood, columns)
        if self.reward == "likelihood":
            earned = earned.exp()
        if self.reward == "elbo":
            earned = earned + take(log_prior, columns) - take(log_sampler, columns)
        return earned.masked_fill(columns < 0, ABSENT)

    def _baseline(self, reward: Float[Tensor, "B M"]) -> Float[Tensor, "B M"]:
        if self.baseline == "none":
            return torch.zeros_like(reward)
        return (reward.sum(dim=-1, keepdim=True) - reward) / (self.draws - 1)

    def _diagnostics(
        self,
        share: Float[Tensor, "B K"],
        log_prior: Float[Tensor, "B K"],
        log_likelihood: Float[Tensor, "B K"],
        log_posterior: Float[Tensor, "B K"] | None,
        columns: Int[Tensor, "B M"],
    ) -> dict[str, Float[Tensor, ""]]:
        """Return `describe` and `cost`; the log marginal is that of importance sampling from the same draws.

        The generator trains with the shares of the draws, times the likelihood where that is the reward.
        """
        with torch.no_grad():
            log_share = share.log()
            if log_posterior is None:
                log_joint = log_share + log_likelihood
            else:
                ratio = torch.where(share > 0, log_prior - masked_log_softmax(log_posterior), 0.0)
                log_joint = log_share + log_likelihood + ratio
            weight = masked_log_softmax(log_joint).exp() if self.reward == "likelihood" else share
            shared = describe(weight, log_prior, log_likelihood, masked_logsumexp(log_joint), log_posterior)
        return {**shared, **cost(None, share > 0)}


@dataclass(frozen=True)
class Vimco:
    """VIMCO: n draws judged together by a bound that n draws tighten, each against what the others would have given.

    **Equation.** L_n = E log (1/n) Σ_i ω_i over n = ``draws`` independent z_i ~ r, with
    ω_i = p(z_i|x) p(y|x,z_i) / r(z_i|x,y), is maximised. ``proposal="posterior"``: r = αq̃ + (1-α)p̃,
    α = ``proposal_share``, q̃ and p̃ being posterior and prior retriever renormalised over the candidates.
    ``proposal="prior"``: r = p̃, whatever α is, and there is no posterior retriever. ``normaliser`` says which prior
    stands in ω: as given ("full"), or p̃ ("candidates").

    **Paper.** Mnih & Rezende 2016, "Variational Inference for Monte Carlo Objectives" (arXiv 1602.06725), with the
    geometric mean of the others in the place of the draw left out; L_n is the bound of Burda et al. 2015
    (arXiv 1509.00519). ``proposal_share`` < 1 is a defensive mixture, not in the paper.

    **Bias.** None against the gradient of L_n. L_n is a lower bound on log Σ_k p(z_k|x) p(y|x,z_k), by about
    Var(ω) / (2n E[ω]²); it grows with n and tends to that sum; more draws, or a proposal nearer to the true posterior,
    close the gap. Passages outside the candidates are left out; ``normaliser`` as in `TopKMarginal`.

    **Gradient.** With ŵ_i = ω_i / Σ_j ω_j (ascent): the generator gets Σ_i ŵ_i ∇ log p(y|x,z_i), the prior in ω
    Σ_i ŵ_i ∇ log p(z_i|x), and the retrievers in r get Σ_i (L̂ - L̂₋ᵢ - ŵ_i) ∇ log r(z_i). There L̂ = log (1/n) Σ_j ω_j
    and L̂₋ᵢ is the same with ω_i replaced by exp of the mean of the other log ω_j, both constants: the difference is
    the score function's learning signal, and -ŵ_i is the direct dependence of ω_i on r. With α < 1 or
    ``proposal="prior"`` the prior stands in both places and gets both.

    **Cost.** Generator forwards: the distinct columns among the draws, all with gradient (their weights are not known
    before); none without.

    **Padding.** A candidate is absent if its ``log_prior``, or its ``log_posterior`` where one is used, is -inf: never
    drawn or scored, no gradient. A query without candidates adds 0 to the mean.

    Example::

        print(rg.Vimco().needs_posterior)
    """

    trains_retriever = True
    trains_generator = True
    reads = Reads.SEPARATELY
    selection = None
    leaves_one_out = False
    mixes_tokens = False
    goal = Goal.OTHER

    draws: int = 8
    proposal: Literal["posterior", "prior"] = "posterior"
    proposal_share: float = 1.0
    normaliser: Literal["full", "candidates"] = "full"

    def __post_init__(self) -> None:
        check_count(self, "draws", self.draws)
        _check_others(self, self.draws, "there is no VIMCO with one")
        check_choice(self, "proposal", self.proposal, ("posterior", "prior"))
        check_share(self, "proposal_share", self.proposal_share)
        check_choice(self, "normaliser", self.normaliser, ("full", "candidates"))

    @property
    def needs_posterior(self) -> bool:
        """Return whether the draws come from q(z|x,y)."""
        return self.proposal == "posterior"

    @property
    def needs_log_normaliser(self) -> bool:
        """Return whether the prior's mass outside the candidates counts."""
        return self.normaliser == "full"

    def __call__(self, scores: CandidateScores, likelihood: Likelihood, rng: torch.Generator) -> Estimate:
        """Return the mean over queries of -log (1/n) Σ_i ω_i, in nats.

        Raises `ValueError` when ``proposal="posterior"`` and there is no ``log_posterior``, or when scores are not
        log-probabilities.
        """
        log_prior, log_posterior = _scores(self, scores)
        if log_posterior is None:
            log_proposal = masked_log_softmax(log_prior)
        else:
            log_proposal = defensive(log_posterior, log_prior, self.proposal_share)
        columns = propose(log_proposal.detach(), self.draws, rng)
        is_drawn = _shares(columns, log_proposal) > 0
        log_likelihood = log_likelihood_where(likelihood, is_drawn)
        log_target = normalise(log_prior, self.normaliser) + log_likelihood
        log_proposed = take(log_proposal, columns).masked_fill(columns < 0, 0.0)
        log_weight = take(log_target, columns) - log_proposed
        log_mean = masked_logsumexp(log_weight) - math.log(self.draws)
        signal = _leave_one_out_signal(log_weight.detach())
        # The second term is zero in value: it only carries the score function's gradient.
        per_query = log_mean + weighted_sum(signal, log_proposed - log_proposed.detach())
        weight = _per_column(masked_log_softmax(log_weight.detach()).exp(), columns, log_prior.shape[1])
        diagnostics = describe(weight, log_prior, log_likelihood, log_mean, log_posterior)
        efficiency = importance_efficiency(log_weight.detach(), (columns >= 0).to(log_weight.dtype))
        sampling = {"importance_efficiency": mean_where(efficiency, is_drawn.any(dim=-1))}
        return Estimate(-mean_over_queries(per_query), {**diagnostics, **sampling, **cost(None, is_drawn)})


def _check_others(owner: object, draws: int, otherwise: str) -> None:
    if draws < 2:
        raise UserError(
            f"{type(owner).__name__}: draws is {draws!r}; it is compared with other draws, so at least 2 are needed; "
            f"raise draws, {otherwise}"
        )


def _scores(
    owner: ScoreFunction | Vimco, scores: CandidateScores
) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"] | None]:
    """Return checked scores in full precision, absent together; the posterior's are None where none is used."""
    if owner.needs_posterior:
        return prior_and_posterior(owner, scores)
    return prior_alone(owner, scores), None


def _per_column(value: Float[Tensor, "B M"], columns: Int[Tensor, "B M"], width: int) -> Float[Tensor, "B width"]:
    """Sum the values of the draws that fell on each column; a draw of -1 falls on none."""
    spare = columns.masked_fill(columns < 0, width)
    return value.new_zeros((len(value), width + 1)).scatter_add(1, spare, value)[:, :width]


def _shares(columns: Int[Tensor, "B M"], like: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """Return the share of the draws that fell on each column; more than 0 marks the distinct ones."""
    return counts(columns, like) / columns.shape[1]


def _leave_one_out_signal(log_weight: Float[Tensor, "B M"]) -> Float[Tensor, "B M"]:
    """Return L̂ - L̂₋ᵢ for each draw i: how far it raises the log-mean weight above that of the other draws.

    Where all others weigh nothing L̂₋ᵢ would be ``-inf``; 0 takes its place, a baseline as good as any other since it
    depends on them alone. A query where no draw weighs anything has no signal.
    """
    draws = log_weight.shape[1]
    own = torch.eye(draws, dtype=torch.bool, device=log_weight.device)
    each = log_weight.unsqueeze(1).expand(-1, draws, -1)
    of_others = each.masked_fill(own, 0.0).sum(dim=-1) / (draws - 1)
    baseline = masked_logsumexp(torch.where(own, of_others.unsqueeze(-1), each)) - math.log(draws)
    together = masked_logsumexp(log_weight).unsqueeze(-1) - math.log(draws)
    signal = together - baseline.masked_fill(baseline == ABSENT, 0.0)
    return signal.masked_fill(together == ABSENT, 0.0)
