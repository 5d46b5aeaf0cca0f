r"""What an objective does with the candidates of one example: how hard it pulls at each, beside p(z|x,y).

With the candidates' log p(z|x) and log p(y|x,z) at hand, the gradient of the loss L in them says what a step of
training would do: -∂L/∂s_z raises the score s_z of a passage in the prior, and -∂L/∂ log p(y|x,z) is the weight with
which the generator learns to write y from z. For the marginal likelihood (Lewis et al. 2020, arXiv 2005.11401, §2.1)
the first is p(z|x,y) - p(z|x), and the second p(z|x,y), the responsibilities.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from retrograd.evaluation.laboratory.tables import Tables, TabulatedLikelihood, candidate_scores, to_logits
from retrograd.evaluation.laboratory.tabulate import ModelPrompts
from retrograd.models.compute.inference import inference
from retrograd.objectives import Objective
from retrograd.objectives.functional import ABSENT, responsibilities
from retrograd.rag.rag_model import RagModel
from retrograd.rag.search import RetrievalOptions
from retrograd.types import Example, UserError

__all__ = ["CandidateWeight", "weigh_candidates"]


@dataclass(frozen=True)
class CandidateWeight:
    """One candidate: its row in the base (-2: reading nothing), log-probabilities in nats, and weights.

    ``responsibility`` is p(z|x,y) over the candidates. ``prior_pull`` is -∂L/∂ of the prior's score, None where the
    objective does not train the retriever; ``generator_weight`` is that in log p(y|x,z), None where the generator reads
    several candidates at once, so that no weight is one candidate's.
    """

    row: int
    log_prior: float
    log_likelihood: float
    responsibility: float
    log_posterior: float | None
    prior_pull: float | None
    generator_weight: float | None


def weigh_candidates(
    model: RagModel, example: Example, objective: Objective, passages: int, rng: torch.Generator
) -> list[CandidateWeight]:
    """Return the candidates of an example with a target, heaviest under p(z|x,y) first, and what ``objective`` makes of
    them; ``rng`` is for objectives that draw.

    Without gradient in any weight of the model. Raises `UserError` where nothing is retrieved.
    """
    with inference(model), model.autocast():
        candidates = model.retrieve([example], passages, RetrievalOptions(posterior=objective.needs_posterior), rng=rng)
        if bool((candidates.rows == -1).all()):
            raise UserError(f"nothing was retrieved for example {example.id!r}; its objective has nothing to weigh")
        columns = torch.arange(candidates.rows.shape[1]).unsqueeze(0)
        columns = columns.masked_fill(candidates.rows.cpu() == -1, -1)
        tokens = model.likelihood([example], candidates).tokens_at(columns.to(candidates.rows.device))
    scores = candidates.scores
    tables = Tables(
        log_prior=scores.log_prior.double().cpu(),
        log_posterior=None if scores.log_posterior is None else scores.log_posterior.double().cpu(),
        token_log_likelihood=tokens.value.masked_fill(tokens.value == ABSENT, 0.0).double().cpu(),
        present=tokens.present.cpu(),
        whole_base=False,
        joint_prompts=ModelPrompts(model, [example], candidates.rows),
        null=model.null_passage,
        supports=None if model.support is None else model.supports([example], candidates.rows).cpu(),
        temperature=None if scores.temperature is None else scores.temperature.double().cpu(),
    )
    with torch.enable_grad():
        leaves, likelihood = candidate_scores(tables, columns, 1, None), TabulatedLikelihood(tables, columns, 1)
        estimate = objective(leaves, likelihood, rng)
        inputs = [leaves.log_prior, likelihood.tokens]
        trains = estimate.loss.requires_grad
        prior, generator = torch.autograd.grad(estimate.loss, inputs, allow_unused=True) if trains else (None, None)
    weight = responsibilities(tables.log_prior, tables.log_likelihood)[0].tolist()
    pulls = None if prior is None else (-to_logits(prior, tables.log_prior, columns))[0].tolist()
    shares = None
    if generator is not None:
        # The loss weighs all tokens of a target alike, but for mixtures token by token: of those it is the mean.
        present = tables.present.unsqueeze(1)
        shares = (-generator.masked_fill(~present, 0.0).sum(dim=-1) / tables.present.sum())[0].tolist()
    posterior = None if tables.log_posterior is None else tables.log_posterior[0].tolist()
    found = [
        CandidateWeight(
            row,
            float(tables.log_prior[0, k]),
            float(tables.log_likelihood[0, k]),
            weight[k],
            None if posterior is None else posterior[k],
            None if pulls is None else pulls[k],
            None if shares is None else shares[k],
        )
        for k, row in enumerate(candidates.rows[0].tolist())
        if row != -1
    ]
    return sorted(found, key=lambda one: -one.responsibility)
