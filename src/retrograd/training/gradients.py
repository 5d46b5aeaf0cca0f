"""Compute the gradients of one micro-batch: candidates, likelihood, objective, backward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from retrograd.models.compute.training_layers import training_attention
from retrograd.objectives.objective import Estimate
from retrograd.rag.candidates import Candidates
from retrograd.rag.rag_model import RagModel
from retrograd.training.distributed.ranks import MicroBatch
from retrograd.training.monitoring.health import Visit
from retrograd.training.run.run_directory import RunDirectory
from retrograd.training.sampling.chains import Chains
from retrograd.training.sampling.targets import Targets
from retrograd.training.stage import Stage
from retrograd.types import Example

__all__ = ["MicroBatchGradients", "add_gradients"]


@dataclass(frozen=True)
class MicroBatchGradients:
    """The parts of a stage that the gradients of a micro-batch need; the objective draws from ``sampler``."""

    model: RagModel
    stage: Stage
    run: RunDirectory
    examples: Sequence[Example]
    targets: Targets
    chains: Chains
    sampler: torch.Generator

    def add(self, step: int, micro_batch: MicroBatch) -> Visit:
        """Add the gradients of a micro-batch of ``step`` to those that the weights hold, and move its chains on.

        Weighted by query counts: the sum over a batch is the gradient of the mean over its queries, however it is
        split.
        """
        positions, target = micro_batch.positions, micro_batch.target
        batch = self.targets.first([self.examples[i] for i in positions.tolist()], target)
        previous = self.chains.rows(positions, target)
        with self.run.guard(batch, self.stage.name, step):
            candidates, estimate = add_gradients(
                self.model, self.stage, batch, micro_batch.weight, self.sampler, previous
            )
            self.chains.remember(positions, target, candidates, estimate.last)
        return Visit(batch, candidates, estimate, micro_batch.weight)


def add_gradients(
    model: RagModel,
    stage: Stage,
    batch: Sequence[Example],
    weight: float,
    rng: torch.Generator,
    previous: Int[Tensor, " B"] | None = None,
) -> tuple[Candidates, Estimate]:
    """Add the gradients of a batch's loss, ``weight`` times, to those that the weights hold; return what made it.

    ``previous`` are the rows of the queries' chains, and ``rng`` is what the objective draws from.

    A loss without gradient adds nothing: that of queries for which no candidate was found, under a prior that does not
    learn. They weigh nothing, as they do beside other queries.
    """
    objective, evidence = stage.objective, stage.evidence
    with model.autocast(), training_attention(model.device):
        candidates = evidence.candidates(model, batch, objective.needs_posterior, previous, rng)
        estimate = objective(candidates.scores, evidence.likelihood(model, batch, candidates), rng)
    if estimate.loss.requires_grad:
        (estimate.loss * weight).backward()
    return candidates, estimate
