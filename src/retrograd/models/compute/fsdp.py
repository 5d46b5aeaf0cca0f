"""Layers spread over the ranks of a process group: fully sharded data parallelism. The only file that knows it.

Zhao et al. 2023 (arXiv 2304.11277), as torch's ``fully_shard``. Of the matrices of each transformer layer a rank keeps
its share, and so of their gradients and of the optimiser's moments; a layer is gathered when it is read, forward and
backward, and given up behind it. The rest (vectors, embeddings, output layer, soft prompt) every rank has whole.

Each forward pass is then a collective, so that ranks must make as many, one as the other: in training `in_step` sees to
it, in evaluation, where all do the same, it takes devices that compute alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from retrograd.types import UserError

__all__ = [
    "by_placement",
    "clip_gradients",
    "gradient_norm",
    "in_layers",
    "in_step",
    "is_spread",
    "own_share",
    "put",
    "require_spreadable",
    "spread_layers",
    "spread_like",
    "stacks_of",
    "whole_moments",
    "whole_weights",
]


def spread_layers(
    model: nn.Module, device: torch.device, computed: torch.dtype = torch.float32, dropout: bool = True
) -> None:
    """Spread the layers of ``model`` over the ranks of the process group, each with its share on ``device``.

    Layers are the modules of the outermost `nn.ModuleList` of each stack; of them matrices are spread, and vectors
    (biases, norms) stay whole. All ranks call this with equal weights. Gradients become sums over the ranks. Weights
    are gathered in the type in which they are ``computed``, masters and gradients stay as they are: autocast would keep
    its casts of all layers until a step is made. One layer after the other goes to ``device``, and its share stays.

    Raises `UserError` as `require_spreadable`.
    """
    require_spreadable(model, dropout)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    # What goes from layer to layer keeps its type, as under autocast.
    types = MixedPrecisionPolicy(param_dtype=computed, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for stack, layers in list(stacks_of(model)):
        for layer in layers:
            vectors = {weight for weight in layer.parameters() if not _is_matrix(weight)}
            fully_shard(layer, mesh=mesh, mp_policy=types, ignored_params=vectors)
        # The root of its layers, with nothing of its own: it has the next one gathered while one computes.
        fully_shard(stack, mesh=mesh, mp_policy=types, ignored_params=set(stack.parameters()))
    for part in model.modules():
        if isinstance(part, FSDPModule):
            part.set_force_sum_reduction_for_comms(True)  # gloo knows no other
            part.set_gradient_divide_factor(1.0)
            part.set_reduce_scatter_unused_params(True)  # an expert that was asked nothing on one rank alone


def require_spreadable(model: nn.Module, dropout: bool) -> None:
    """Raises `UserError` for a model without layers, or with layers that each rank would drop on its own."""
    if not list(stacks_of(model)):
        raise UserError(f"generator.fsdp is true, but {type(model).__name__} has no list of layers; set it to false")
    if dropout and any(getattr(part, "layerdrop", 0.0) for part in model.modules()):
        raise UserError(
            f"generator.fsdp is true, and {type(model).__name__} drops whole layers in training, other ones on each "
            f"process; set generator.dropout = false, or layerdrop, encoder_layerdrop and decoder_layerdrop to 0 in "
            f"its config.json"
        )


def in_layers(model: nn.Module) -> Iterator[nn.Parameter]:
    """The weights that `spread_layers` spreads."""
    return (w for _, layers in stacks_of(model) for layer in layers for w in layer.parameters() if _is_matrix(w))


def _is_matrix(weight: Tensor) -> bool:
    return weight.dim() > 1


def stacks_of(module: nn.Module) -> Iterator[tuple[nn.Module, list[nn.Module]]]:
    """Modules with lists of layers, outermost ones, and these layers: what is spread."""
    lists = [child for child in module.children() if isinstance(child, nn.ModuleList)]
    if lists:
        yield module, [layer for found in lists for layer in found]
        return
    for child in module.children():
        yield from stacks_of(child)


def is_spread(module: nn.Module) -> bool:
    """Whether any layer of it is."""
    return any(isinstance(part, FSDPModule) for part in module.modules())


def in_step(module: nn.Module, forwards: int) -> int:
    """How many forward passes all ranks make of a spread ``module``: as many as the one with the most."""
    if not is_spread(module):
        return forwards
    most = torch.tensor(forwards, device=next(module.parameters()).device)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return int(most)


# ---- gradients -------------------------------------------------------------------------------------------------------


def own_share(weight: Tensor) -> bool:
    """Whether this rank holds no more than its share of it."""
    return isinstance(weight, DTensor)


def by_placement(weights: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Weights that each rank has whole, and those that are spread, in their order; no kernel takes both at once."""
    whole = [weight for weight in weights if not own_share(weight)]
    spread = [weight for weight in weights if own_share(weight)]
    return [group for group in (whole, spread) if group]


def gradient_norm(weights: Sequence[nn.Parameter]) -> Tensor:
    """The norm of all gradients, which is the same on all ranks; 0 where there is none."""
    norms = []
    for group in by_placement([weight for weight in weights if weight.grad is not None]):
        norm = nn.utils.get_total_norm([weight.grad for weight in group if weight.grad is not None])
        norms.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    return norms[0] if len(norms) == 1 else torch.stack([norm.float() for norm in norms] or [torch.zeros(())]).norm()


def clip_gradients(weights: Sequence[nn.Parameter], bound: float) -> float:
    """Scale the gradients down to norm ``bound``; returns the norm before."""
    norm = gradient_norm(weights)
    for group in by_placement(weights):
        nn.utils.clip_grads_with_norm_(group, bound, norm)
    return float(norm)


# ---- whole, to be written and read -----------------------------------------------------------------------------------


@contextmanager
def whole_weights(module: nn.Module, trained_alone: bool = False) -> Iterator[None]:
    """Inside, rank 0 has the spread weights whole, in main memory, to be written: all, or those that are trained. All
    ranks enter together."""
    places = [
        (part, name, weight)
        for part in module.modules()
        for name, weight in part.named_parameters(recurse=False)
        if own_share(weight) and (weight.requires_grad or not trained_alone)
    ]
    for part, name, weight in places:
        whole = _gathered(weight)
        if whole is not None:
            part._parameters[name] = nn.Parameter(whole, weight.requires_grad)
    try:
        yield
    finally:
        for part, name, weight in places:
            part._parameters[name] = weight


@contextmanager
def whole_moments(optimiser: torch.optim.Optimizer) -> Iterator[None]:
    """The same for an optimiser's state."""
    places = [
        (state, name, value) for state in optimiser.state.values() for name, value in state.items() if own_share(value)
    ]
    for state, name, value in places:
        whole = _gathered(value)
        if whole is not None:
            state[name] = whole
    try:
        yield
    finally:
        for state, name, value in places:
            state[name] = value


def _gathered(value: Tensor) -> Tensor | None:
    """A spread tensor, whole; None but on rank 0."""
    whole = cast(DTensor, value.detach()).full_tensor()
    return whole.cpu() if dist.get_rank() == 0 else None


def put(value: Tensor, place: Tensor) -> None:
    """Write a whole tensor to where it belongs, of which this rank may hold its share."""
    if isinstance(place, DTensor):
        place.to_local().copy_(spread_like(value, place).to_local())
    else:
        place.copy_(value)


def spread_like(value: Tensor, model: Tensor) -> DTensor:
    """This rank's share of a whole tensor that all have, laid out as that of ``model``; nothing is sent."""
    like = cast(DTensor, model)
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
