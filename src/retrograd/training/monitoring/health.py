"""Summarise a logged step in one line of health, which people read while a run goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from retrograd.objectives.objective import Estimate
from retrograd.rag.candidates import Candidates
from retrograd.rag.rag_model import RagModel
from retrograd.types import Example

__all__ = ["Visit", "format_health", "measure_health"]

# name in the log: (name on the line, format)
_SHOWN = {
    "loss": ("loss", "{:.3f}"),
    "log_marginal": ("log-marginal", "{:.3f} nats"),
    "best_supports": ("best passage supports", "{:.0%}"),
    "candidate_mass": ("mass on candidates", "{:.0%}"),
    "log_z_error": ("error of log Z", "{:.3f} nats"),
    "responsibility_entropy": ("posterior entropy", "{:.2f} nats"),
    "acceptance": ("acceptance", "{:.0%}"),
    "temperature": ("temperature", "{:.3f}"),
    "lexical_weight": ("lexical weight", "{:.2f} nats"),
    "temperature_posterior": ("posterior's temperature", "{:.3f}"),
    "lexical_weight_posterior": ("posterior's lexical weight", "{:.2f} nats"),
    "generator_forwards": ("forwards/query", "{:.1f}"),
    "index_age": ("index age", "{:.0f} steps"),
    "staleness_overlap": ("index overlap", "{:.0%}"),
    "prompts_cut": ("queries cut", "{:.0%}"),
    "gradient_norm": ("gradient", "{:.2f}"),
    "queries_per_second": ("rate", "{:.3g} queries/s"),
}


@dataclass(frozen=True)
class Visit:
    """One micro-batch, with the objective's estimate of it. ``weight`` is its share of the batch's queries."""

    examples: Sequence[Example]
    candidates: Candidates
    estimate: Estimate
    weight: float = 1.0


@torch.no_grad()
def measure_health(model: RagModel, visit: Visit, gradient_norm: float) -> dict[str, float]:
    """Return the objective's diagnostics of a micro-batch, and how often its best passage supports the target.

    Where log Z was estimated, ``log_z_error`` is the root mean square over the queries of its standard error, in nats,
    and ``log_z_bias`` its mean bias; those of the posterior end in ``_posterior``.
    """
    candidates, estimate = visit.candidates, visit.estimate
    values = {"loss": float(estimate.loss), "gradient_norm": gradient_norm}
    values |= {name: float(value) for name, value in estimate.diagnostics.items()}
    prompts = model.generator.prompt_tokens
    if prompts.read > 0:
        values |= {"prompts_shortened": prompts.shortened / prompts.read, "prompts_cut": prompts.cut / prompts.read}
    if model.support is not None and candidates.rows.shape[1] > 0:
        best = candidates.scores.log_prior.argmax(dim=-1, keepdim=True)
        supports = model.supports(visit.examples, candidates.rows.gather(1, best))
        values["best_supports"] = float(supports.float().mean())
    return values | measure_log_z(candidates) | learned_scales(model)


def measure_log_z(candidates: Candidates) -> dict[str, float]:
    """Return error and bias of an estimated log Z in nats; nothing where it is exact."""
    values: dict[str, float] = {}
    for suffix, error in zip(("", "_posterior"), candidates.log_z_errors, strict=False):
        mean_square = float(error.square().mean())
        values |= {f"log_z_error{suffix}": mean_square**0.5, f"log_z_bias{suffix}": -0.5 * mean_square}
    return values


def learned_scales(model: RagModel) -> dict[str, float]:
    """Return the current values of the single numbers that the retrievers learn."""
    scales: dict[str, float] = {}
    for suffix, retriever in (("", model.retriever), ("_posterior", model.posterior)):
        learned = {id(scale) for scale in retriever.trained_scales()} if retriever is not None else set()
        if retriever is not None and id(retriever.log_temperature) in learned:
            scales[f"temperature{suffix}"] = float(retriever.temperature)
        if retriever is not None and retriever.lexical_weight is not None and id(retriever.lexical_weight) in learned:
            scales[f"lexical_weight{suffix}"] = float(retriever.lexical_weight.detach())
    return scales


def format_health(stage: str, step: int, steps: int, values: Mapping[str, int | float]) -> str:
    """Format the values that the objective reports as ``joint 40/100 · loss 1.204 · …``."""
    quiet = {"prompts_cut"} if values.get("prompts_cut") == 0 else set()  # shown only when it happens
    parts = [
        f"{name} {text.format(values[key])}" for key, (name, text) in _SHOWN.items() if key in values.keys() - quiet
    ]
    return " · ".join([f"{stage} {step}/{steps}", *parts])
