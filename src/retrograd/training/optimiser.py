"""Build AdamW over the weights that a stage trains, with its schedule, and measure the norms of their gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from retrograd.models.compute.fsdp import clip_gradients, gradient_norm, group_by_placement
from retrograd.rag.rag_model import RagModel
from retrograd.training.schedule import build_schedule
from retrograd.training.stage import Stage
from retrograd.types import UserError

__all__ = ["build_optimiser", "clip", "norms_by_part", "trained_weights"]


def build_optimiser(model: RagModel, stage: Stage, steps: int) -> tuple[torch.optim.AdamW, LambdaLR]:
    """Build AdamW over all weights that are trained, each part at its own rate; all rates rise and fall together.

    Raises `UserError` where nothing is trained, and for a schedule that does not fit into ``steps``.
    """
    # One fused kernel: 0.025 s instead of 0.125 s a step for 39 M weights on two cores.
    optimiser, pace = torch.optim.AdamW(_build_groups(model, stage), fused=True), stage.pace
    return optimiser, LambdaLR(optimiser, build_schedule(pace.schedule, pace.warmup, pace.restarts, steps))


@dataclass(frozen=True)
class _Group:
    """Weights and their learning rate and decay."""

    weights: list[nn.Parameter]
    rate: float
    decay: float


def _build_groups(model: RagModel, stage: Stage) -> list[dict[str, object]]:
    """Return torch's groups: retrievers, generator, and the retrievers' single numbers, which do not decay."""
    learns, pace = stage.learns, stage.pace
    retrievers = [part for part in (model.retriever, model.posterior) if part is not None]
    scales = [scale for part in retrievers for scale in part.trained_scales()]
    # Prior and posterior may share a tower, and each weight belongs to the optimiser once.
    towers = list(dict.fromkeys(weight for part in retrievers for weight in part.trained_weights()))
    generator = [weight for weight in model.generator.parameters() if weight.requires_grad]
    parts = (
        (learns.towers, _Group(towers, pace.retriever_learning_rate, pace.weight_decay)),
        (learns.generator, _Group(generator, pace.generator_learning_rate, pace.weight_decay)),
        (learns.scales, _Group(scales, pace.scale_learning_rate, 0.0)),
    )
    groups: list[dict[str, object]] = [
        {"params": weights, "lr": part.rate, "weight_decay": part.decay}
        for learns_part, part in parts
        if learns_part
        for weights in group_by_placement(part.weights)
    ]
    if not groups:
        raise UserError(
            f"nothing is trained in {stage.name!r}: all learning rates are 0, or they are those of parts that "
            f"{type(stage.objective).__name__} does not train or that are frozen; set one above 0 for another part"
        )
    return groups


def trained_weights(model: RagModel) -> list[nn.Parameter]:
    """Return the weights that have gradients."""
    return [weight for weight in model.parameters() if weight.requires_grad]


def clip(optimiser: torch.optim.Optimizer, bound: float) -> float:
    """Scale the gradients down to norm ``bound`` (0: leave them); return the norm before."""
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    return clip_gradients(weights, bound if bound > 0 else float("inf"))


def norms_by_part(model: RagModel) -> dict[str, float]:
    """Return the norm of the gradient of each part of the model that has one, as ``gradient_norm_<part>``."""
    return {
        f"gradient_norm_{part}": float(gradient_norm(weights))
        for part, weights in model.parts().items()
        if any(weight.grad is not None for weight in weights)
    }
