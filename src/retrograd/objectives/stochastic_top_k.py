"""Stochastic RAG: sample the passages that are read together, and differentiate through a relaxation of the choice.

    maximise  E[ log p(y | x, z_1 … z_R) ],   z_1 … z_R drawn without replacement from the prior

Zamani & Bendersky 2024, "Stochastic RAG: End-to-End Retrieval-Augmented Generation through Expected Utility
Maximization" (arXiv 2405.02816); Kool et al. 2019, "Stochastic Beams and Where to Find Them" (arXiv 1903.06059).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from retrograd.deferred import Bool, Float, Tensor, torch
from retrograd.objectives.checks import check_choice, check_count, check_log_likelihood, check_positive
from retrograd.objectives.differentiable_knn import Selection
from retrograd.objectives.functional import ABSENT, in_full_precision
from retrograd.objectives.objective import CandidateScores, Estimate, Goal, Likelihood, Reads
from retrograd.objectives.relaxed import Operator, describe_slots, gumbel, hard_top_k, slot_weights, straight_through
from retrograd.objectives.scoring import mean_over_queries, prior_alone
from retrograd.types import UserError

__all__ = ["StochasticTopK"]


@dataclass(frozen=True)
class StochasticTopK:
    """Stochastic RAG: sample R passages without replacement, read them together, differentiate through a relaxation.

    **Equation.** -1/M Σ_m log p(y|x, z_1 … z_R), (z_1 … z_R) the R = ``slots`` candidates with the largest
    log p(z|x) + ``noise``·g, best first, g standard Gumbel noise, anew in each of the M = ``draws``. With ``noise`` = 1
    they are a sample without replacement in the order of its draws (Plackett-Luce); with 0 simply the R best. The
    likelihood is that of soft slots (`Likelihood.at_mixture`) with straight-through weights hard + soft - sg[soft]:
    hard are one-hot rows, soft the ``relaxation`` of the same perturbed scores at ``temperature``.

    **Paper.** Zamani & Bendersky 2024, "Stochastic RAG" (arXiv 2405.02816). The law of the top R: Kool et al. 2019
    (arXiv 1903.06059). ``"successive_softmax"``: Plötz & Roth 2018 (arXiv 1810.12575), for sampled sets Xie & Ermon
    2019 (arXiv 1901.10517). ``"softsort"``: Prillo & Eisenschlos 2020 (arXiv 2006.16038).

    **Bias.** The value, and the generator's gradient, are unbiased for J = E[log p(y|x, z_1 … z_R)] under Plackett-Luce
    over the candidates (``noise`` = 1), a lower bound on the log of the mean likelihood. The prior's gradient is that
    of the soft rows at the hard point. Where log p is linear in the weights its mean is the gradient of the same J with
    the mean soft rows in place of the probabilities; a lower ``temperature`` removes that at the price of variance.
    What log p curves between a soft and a hard slot is not removed by anything. Only the prior renormalised over the
    candidates matters: the mass outside them gets no gradient.

    **Gradient.** Prior logits get the relaxation's, through the soft rows alone: from chosen candidates, and from the
    others as far as `at_mixture` knows what a little of them would change. The generator gets ∇ log p of the one prompt
    with the chosen passages. There is no posterior.

    **Cost.** Generator forwards with gradient: ``draws``, each with R passages in its prompt; none without gradient.

    **Padding.** An absent candidate (``-inf``) gets no noise, is never chosen and has weight 0 and gradient 0. With
    fewer candidates than slots the last slots are empty; a query without any is answered from the prompt without
    passages.

    Example::

        print(rg.StochasticTopK().trains_retriever)
    """

    trains_retriever = True
    trains_generator = True
    needs_posterior = False
    reads = Reads.SLOTS
    leaves_one_out = False
    mixes_tokens = False
    goal = Goal.OTHER
    needs_log_normaliser = False

    slots: int = 2
    temperature: float = 1.0
    noise: float = 1.0
    relaxation: Literal["successive_softmax", "softsort"] = "successive_softmax"
    draws: int = 1

    def __post_init__(self) -> None:
        check_count(self, "slots", self.slots)
        check_count(self, "draws", self.draws)
        check_choice(self, "relaxation", self.relaxation, ("successive_softmax", "softsort"))
        check_positive(self, "temperature", self.temperature)
        if not 0.0 <= self.noise < math.inf:
            raise UserError(f"StochasticTopK: noise is {self.noise!r}; it must be at least 0 and finite")
        if self.noise == 0 and self.draws > 1:
            raise UserError(f"StochasticTopK: without noise all {self.draws} draws are the same; set draws = 1")

    @property
    def selection(self) -> Selection:
        """Return how the trained model answers: from soft slots with the R best, as without noise."""
        return Selection(self.slots, operator="hard" if self.relaxation == "softsort" else "hard_n3")

    def __call__(self, scores: CandidateScores, likelihood: Likelihood, rng: torch.Generator) -> Estimate:
        """Return the mean over queries and draws of the negative log-likelihood in nats. ``rng`` draws any noise."""
        log_prior = prior_alone(self, scores)
        softs, values = [], []
        for noise in self._noise(log_prior, rng):
            perturbed = log_prior + noise
            soft = slot_weights(perturbed, self.slots, self.temperature, self._operator)
            value = in_full_precision(likelihood.at_mixture(straight_through(hard_top_k(perturbed, self.slots), soft)))
            check_log_likelihood(value)
            softs.append(soft.detach())
            values.append(value)
        log_likelihood = torch.stack(values).mean(dim=0)
        diagnostics = describe_slots(log_prior.detach(), torch.stack(softs), log_likelihood.detach())
        return Estimate(-mean_over_queries(log_likelihood), diagnostics)

    def _noise(self, log_prior: Float[Tensor, "B K"], rng: torch.Generator) -> Float[Tensor, "M B K"]:
        if self.noise == 0:
            return torch.zeros_like(log_prior).unsqueeze(0)
        return self.noise * _gumbel_where(log_prior > ABSENT, self.draws, rng, log_prior)

    @property
    def _operator(self) -> Operator:
        return "softsort" if self.relaxation == "softsort" else "n3"


def _gumbel_where(
    present: Bool[Tensor, "B K"], draws: int, rng: torch.Generator, like: Tensor
) -> Float[Tensor, "{draws} B K"]:
    """Draw noise for the candidates present, 0 elsewhere.

    Numbers are drawn for present candidates alone, row after row, so that neither padding nor the batch changes what
    the others get.
    """
    noise = gumbel((draws * int(present.sum()),), rng, like)
    everywhere = present.unsqueeze(1).expand(-1, draws, -1)
    scattered = torch.zeros(everywhere.shape, dtype=like.dtype, device=like.device).masked_scatter(everywhere, noise)
    return scattered.transpose(0, 1)
