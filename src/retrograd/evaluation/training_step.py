"""One real training step of an estimator: its gradients in the parameters, and the seconds it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from retrograd.evaluation.laboratory import Estimator
from retrograd.evaluation.tabulate import Bench
from retrograd.models.attention import training_attention
from retrograd.objectives.functional import columns_where, cover, responsibilities, weighted_sum
from retrograd.rag.rag_model import RagModel

__all__ = ["Step", "reference_step", "training_step"]

_REFERENCE_MASS = 0.999
"""Share of each query's responsibilities whose passages the reference gradient of the generator is taken at."""


@dataclass(frozen=True)
class Step:
    """Gradients by part of the model, flat (None for a part that is not trained), and wall-clock seconds."""

    gradients: dict[str, Float[Tensor, " parameters"] | None]
    seconds: float

    def cosine(self, other: Step, part: str) -> float | None:
        """The cosine between two steps' gradients of one part; None where either has none."""
        mine, theirs = self.gradients[part], other.gradients[part]
        if mine is None or theirs is None or not mine.any() or not theirs.any():
            return None
        return float(torch.dot(mine, theirs) / (mine.norm() * theirs.norm()))


def training_step(model: RagModel, bench: Bench, estimator: Estimator, rng: torch.Generator, micro_batch: int) -> Step:
    """Retrieve, score, estimate and go backward, ``micro_batch`` queries at a time; no weight is changed."""

    def loss(positions: range) -> Float[Tensor, ""]:
        batch = [bench.examples[i] for i in positions]
        needs = estimator.objective.needs_posterior
        if estimator.candidates == "all":
            candidates = model.retrieve_all(batch, needs)
        else:
            candidates = model.retrieve(batch, estimator.passages, needs, tail=estimator.tail, rng=rng)
        return estimator.objective(candidates.scores, model.likelihood(batch, candidates), rng).loss

    return _step(model, bench, loss, micro_batch)


def reference_step(model: RagModel, bench: Bench, micro_batch: int) -> Step:
    """The gradient of the exact responsibilities, in the parameters: of -Σ π [log p(y|x,z) + log p(z|x) + log q]."""
    tables = bench.tables
    weight = responsibilities(tables.log_prior, tables.log_likelihood)
    column = columns_where(cover(weight, _REFERENCE_MASS))
    kept = weight.gather(1, column.clamp(min=0)).masked_fill(column < 0, 0.0).float().to(bench.rows.device)
    column = column.to(bench.rows.device)
    rows = bench.rows.gather(1, column.clamp(min=0)).masked_fill(column < 0, -1)

    def loss(positions: range) -> Float[Tensor, ""]:
        where = slice(positions.start, positions.stop)
        batch = [bench.examples[i] for i in positions]
        candidates = model.candidates_at(batch, rows[where], with_posterior=True)
        place = torch.arange(rows.shape[1], device=rows.device).expand_as(rows[where])
        total = weighted_sum(
            kept[where], model.likelihood(batch, candidates).at(place.masked_fill(rows[where] < 0, -1))
        )
        total = total + weighted_sum(kept[where], candidates.scores.log_prior)
        if candidates.scores.log_posterior is not None:
            total = total + weighted_sum(kept[where], candidates.scores.log_posterior)
        return -total.mean()

    return _step(model, bench, loss, micro_batch)


def _step(model: RagModel, bench: Bench, loss: Callable[[range], Float[Tensor, ""]], micro_batch: int) -> Step:
    model.zero_grad()
    began = time.perf_counter()
    for start in range(0, len(bench.examples), micro_batch):
        positions = range(start, min(start + micro_batch, len(bench.examples)))
        with training_attention(bench.rows.device):
            part = loss(positions)
        (part * (len(positions) / len(bench.examples))).backward()
    seconds = time.perf_counter() - began
    gradients = {name: _flat(weights) for name, weights in model.parts().items()}
    model.zero_grad()
    return Step(gradients, seconds)


def _flat(weights: list[nn.Parameter]) -> Float[Tensor, " parameters"] | None:
    if not weights:
        return None
    return torch.cat([(torch.zeros_like(w) if w.grad is None else w.grad).flatten().float().cpu() for w in weights])
