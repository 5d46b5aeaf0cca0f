"""One real training step of an estimator: its gradients in the parameters, and the seconds it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from retrograd.evaluation.laboratory.measure import Estimator
from retrograd.evaluation.laboratory.tabulate import Bench
from retrograd.models.compute.training_layers import training_attention
from retrograd.objectives import Estimate
from retrograd.objectives.functional import columns_where, cover, responsibilities, weighted_sum
from retrograd.rag.rag_model import RagModel
from retrograd.rag.search import RetrievalOptions

__all__ = ["Step", "reference_step", "training_step"]

_EARLIER_VISITS = 4
_REFERENCE_MASS = 0.999
"""Share of each query's responsibilities whose passages the reference gradient of the generator is taken at."""


@dataclass(frozen=True)
class Step:
    """Gradients by part of the model, flat (None for a part that is not trained), and wall-clock seconds."""

    gradients: dict[str, Float[Tensor, " parameters"] | None]
    seconds: float

    def cosine(self, other: Step, part: str) -> float | None:
        """Return the cosine between two steps' gradients of one part; None where either has none."""
        own_gradient, other_gradient = self.gradients[part], other.gradients[part]
        if own_gradient is None or other_gradient is None or not own_gradient.any() or not other_gradient.any():
            return None
        return float(torch.dot(own_gradient, other_gradient) / (own_gradient.norm() * other_gradient.norm()))

    def error(self, reference: Step, part: str) -> float | None:
        """Return ‖step - reference‖² / ‖reference‖² of one part; None where there is no gradient."""
        gradient, exact = self.gradients[part], reference.gradients[part]
        if gradient is None or exact is None or not gradient.any() or not exact.any():
            return None
        return float((gradient - exact).square().sum() / exact.square().sum())


def training_step(model: RagModel, bench: Bench, estimator: Estimator, rng: torch.Generator, micro_batch: int) -> Step:
    """Retrieve, score, estimate and go backward, ``micro_batch`` queries at a time; no weight is changed.

    Visited before without gradient, which warms everything up and lets a carried chain forget where it started; then
    done twice, of which the quicker one's seconds count.
    """
    rows: list[Int[Tensor, " b"] | None] = [None] * len(bench.parts(micro_batch))

    def estimate(positions: range) -> Estimate:
        batch = [bench.examples[i] for i in positions]
        objective, part = estimator.objective, positions.start // micro_batch
        if estimator.candidates == "all":
            candidates = model.retrieve_all(batch, objective.needs_posterior)
        else:
            options = RetrievalOptions(
                posterior=objective.needs_posterior,
                tail=estimator.tail,
                tail_posterior_share=estimator.tail_posterior_share,
            )
            candidates = model.retrieve(batch, estimator.passages, options, rows[part], rng)
        result = objective(candidates.scores, model.likelihood(batch, candidates), rng)
        if result.last is not None:
            rows[part] = candidates.rows.gather(1, result.last.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return result

    for visit in range(_EARLIER_VISITS):
        with torch.no_grad():
            carried = [estimate(positions).last is not None for positions in bench.parts(micro_batch)]
        if not any(carried) or visit + 1 == _EARLIER_VISITS:
            break
    steps = [_step(model, bench, lambda positions: estimate(positions).loss, micro_batch) for _ in range(2)]
    return replace(steps[-1], seconds=min(step.seconds for step in steps))


def reference_step(model: RagModel, bench: Bench, micro_batch: int) -> Step:
    """Return the gradient of the exact responsibilities in the parameters.

    It is that of -Σ π [log p(y|x,z) + log p(z|x) + log q].

    The posterior's term is taken apart from the others, so that what it would send to a passage tower that it shares
    with the prior does not count as the prior's. With both towers trained, passages outside the candidates of a query
    are constants here, as they are in training.
    """
    tables = bench.tables
    weight = responsibilities(tables.log_prior, tables.log_likelihood)
    column = columns_where(cover(weight, _REFERENCE_MASS))
    mass = weight.gather(1, column.clamp(min=0)).masked_fill(column < 0, 0.0).float().to(bench.rows.device)
    column = column.to(bench.rows.device)
    rows = bench.rows.gather(1, column.clamp(min=0)).masked_fill(column < 0, -1)

    def prior_and_generator(positions: range) -> Float[Tensor, ""]:
        where = slice(positions.start, positions.stop)
        batch = [bench.examples[i] for i in positions]
        candidates = model.candidates_at(batch, rows[where])
        place = torch.arange(rows.shape[1], device=rows.device).expand_as(rows[where])
        log_likelihood = model.likelihood(batch, candidates).at(place.masked_fill(rows[where] == -1, -1))
        log_joint = weighted_sum(mass[where], log_likelihood) + weighted_sum(mass[where], candidates.scores.log_prior)
        return -log_joint.mean()

    def posterior(positions: range) -> Float[Tensor, ""]:
        where = slice(positions.start, positions.stop)
        batch = [bench.examples[i] for i in positions]
        log_posterior = model.candidates_at(batch, rows[where], with_posterior=True).scores.log_posterior
        assert log_posterior is not None
        return -weighted_sum(mass[where], log_posterior).mean()

    first = _step(model, bench, prior_and_generator, micro_batch)
    second = _step(model, bench, posterior, micro_batch)
    return replace(first, gradients=first.gradients | {"posterior": second.gradients["posterior"]})


def _step(model: RagModel, bench: Bench, loss: Callable[[range], Float[Tensor, ""]], micro_batch: int) -> Step:
    model.zero_grad()
    device = bench.rows.device
    _wait(device)
    start = time.perf_counter()
    for positions in bench.parts(micro_batch):
        with training_attention(device):
            part = loss(positions)
        if part.requires_grad:  # not where everything an objective trains is frozen
            (part * (len(positions) / len(bench.examples))).backward()
    _wait(device)
    seconds = time.perf_counter() - start
    gradients = {name: _flat(weights) for name, weights in model.parts().items()}
    model.zero_grad()
    return Step(gradients, seconds)


def _wait(device: torch.device) -> None:
    """Wait until the device has finished its queue: a clock that is read earlier would time the launches alone."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _flat(weights: list[nn.Parameter]) -> Float[Tensor, " parameters"] | None:
    if not weights:
        return None
    return torch.cat([(torch.zeros_like(w) if w.grad is None else w.grad).flatten().float().cpu() for w in weights])
