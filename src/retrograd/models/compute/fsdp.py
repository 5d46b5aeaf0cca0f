"""Spread layers over the ranks of a process group: fully sharded data parallelism. Only this file uses torch's FSDP.

Zhao et al. 2023 (arXiv 2304.11277), as torch's ``fully_shard``. Each rank keeps its share of the matrices of
each transformer layer, of their gradients and of the optimiser's moments; a layer is gathered when it is read, forward
and backward, and freed afterwards. Every rank has the rest (vectors, embeddings, output layer, soft prompt) whole.

Each forward pass is then a collective, so all ranks must make equally many: in training `count_forwards` ensures it; in
evaluation, where all ranks do the same, their devices must compute alike.
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
    "clip_gradients",
    "count_forwards",
    "find_stacks",
    "gather_moments",
    "gather_weights",
    "gradient_norm",
    "group_by_placement",
    "is_own_share",
    "is_spread",
    "list_spread_weights",
    "put",
    "require_spreadable",
    "spread_layers",
    "spread_like",
]


def spread_layers(
    model: nn.Module, device: torch.device, computed: torch.dtype = torch.float32, dropout: bool = True
) -> None:
    """Spread the layers of ``model`` over the ranks of the process group, each with its share on ``device``.

    Layers are the modules of the outermost `nn.ModuleList` of each stack; of them matrices are spread, and vectors
    (biases, norms) stay whole. All ranks call this with equal weights. Gradients become sums over the ranks. Weights
    are gathered in the type in which they are ``computed``, masters and gradients stay as they are: autocast would keep
    its casts of all layers until a step is made. Layers are moved to ``device`` one after the other, and shared there.

    Raises `UserError` as `require_spreadable`.
    """
    require_spreadable(model, dropout)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    # What goes from layer to layer keeps its type, as under autocast.
    types = MixedPrecisionPolicy(param_dtype=computed, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for stack, layers in list(find_stacks(model)):
        for layer in layers:
            vectors = {weight for weight in layer.parameters() if not _is_matrix(weight)}
            fully_shard(layer, mesh=mesh, mp_policy=types, ignored_params=vectors)
        # The root of the layers has no weights of its own: it gathers the next layer while one computes.
        fully_shard(stack, mesh=mesh, mp_policy=types, ignored_params=set(stack.parameters()))
    for part in model.modules():
        if isinstance(part, FSDPModule):
            part.set_force_sum_reduction_for_comms(True)  # gloo supports no other
            part.set_gradient_divide_factor(1.0)
            part.set_reduce_scatter_unused_params(True)  # an expert that got no token on one rank alone


def require_spreadable(model: nn.Module, dropout: bool) -> None:
    """Raise `UserError` for a model without layers, or with layers that each rank would drop on its own."""
    if not list(find_stacks(model)):
        raise UserError(f"generator.fsdp is true, but {type(model).__name__} has no list of layers; set it to false")
    if dropout and any(getattr(part, "layerdrop", 0.0) for part in model.modules()):
        raise UserError(
            f"generator.fsdp is true, and {type(model).__name__} drops whole layers in training, other ones on each "
            f"process; set generator.dropout = false, or layerdrop, encoder_layerdrop and decoder_layerdrop to 0 in "
            f"its config.json"
        )


def list_spread_weights(model: nn.Module) -> Iterator[nn.Parameter]:
    """Return the weights that `spread_layers` spreads."""
    return (w for _, layers in find_stacks(model) for layer in layers for w in layer.parameters() if _is_matrix(w))


def _is_matrix(weight: Tensor) -> bool:
    return weight.dim() > 1


def find_stacks(module: nn.Module) -> Iterator[tuple[nn.Module, list[nn.Module]]]:
    """Yield the outermost modules with lists of layers, and these layers, which are spread."""
    lists = [child for child in module.children() if isinstance(child, nn.ModuleList)]
    if lists:
        yield module, [layer for layers in lists for layer in layers]
        return
    for child in module.children():
        yield from find_stacks(child)


def is_spread(module: nn.Module) -> bool:
    """Return whether any layer of a module is spread."""
    return any(isinstance(part, FSDPModule) for part in module.modules())


def count_forwards(module: nn.Module, forwards: int) -> int:
    """Return how many forward passes each rank makes of a spread ``module``: as many as the rank with the most."""
    if not is_spread(module):
        return forwards
    forwards_of_ranks = torch.tensor(forwards, device=next(module.parameters()).device)
    dist.all_reduce(forwards_of_ranks, op=dist.ReduceOp.MAX)
    return int(forwards_of_ranks)


# ---- gradients -------------------------------------------------------------------------------------------------------


def is_own_share(weight: Tensor) -> bool:
    """Return whether this rank holds only its share of a weight."""
    return isinstance(weight, DTensor)


def group_by_placement(weights: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Group weights into whole ones and spread ones, in their order; no kernel takes both at once."""
    full = [weight for weight in weights if not is_own_share(weight)]
    spread = [weight for weight in weights if is_own_share(weight)]
    return [group for group in (full, spread) if group]


def gradient_norm(weights: Sequence[nn.Parameter]) -> Tensor:
    """Return the norm of all gradients, which is the same on all ranks; 0 if there is none."""
    norms = []
    for group in group_by_placement([weight for weight in weights if weight.grad is not None]):
        norm = nn.utils.get_total_norm([weight.grad for weight in group if weight.grad is not None])
        norms.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    return norms[0] if len(norms) == 1 else torch.stack([norm.float() for norm in norms] or [torch.zeros(())]).norm()


def clip_gradients(weights: Sequence[nn.Parameter], bound: float) -> float:
    """Scale the gradients down to norm ``bound``; return the norm before."""
    norm = gradient_norm(weights)
    for group in group_by_placement(weights):
        nn.utils.clip_grads_with_norm_(group, bound, norm)
    return float(norm)


# ---- whole, to be written and read -----------------------------------------------------------------------------------


@contextmanager
def gather_weights(module: nn.Module, trained_alone: bool = False) -> Iterator[None]:
    """Gather spread weights, or the trained ones, in rank 0's main memory for the block; all ranks enter together."""
    places = [
        (part, name, weight)
        for part in module.modules()
        for name, weight in part.named_parameters(recurse=False)
        if is_own_share(weight) and (weight.requires_grad or not trained_alone)
    ]
    for part, name, weight in places:
        full = _gather_on_first_rank(weight)
        if full is not None:
            part._parameters[name] = nn.Parameter(full, weight.requires_grad)
    try:
        yield
    finally:
        for part, name, weight in places:
            part._parameters[name] = weight


@contextmanager
def gather_moments(optimiser: torch.optim.Optimizer) -> Iterator[None]:
    """Gather an optimiser's state in rank 0's main memory for the block; all ranks enter together."""
    places = [
        (state, name, value)
        for state in optimiser.state.values()
        for name, value in state.items()
        if is_own_share(value)
    ]
    for state, name, value in places:
        full = _gather_on_first_rank(value)
        if full is not None:
            state[name] = full
    try:
        yield
    finally:
        for state, name, value in places:
            state[name] = value


def _gather_on_first_rank(value: Tensor) -> Tensor | None:
    """Return a spread tensor whole on rank 0, and None on all others; all ranks call it."""
    full = cast(DTensor, value.detach()).full_tensor()
    return full.cpu() if dist.get_rank() == 0 else None


def put(value: Tensor, place: Tensor) -> None:
    """Copy a whole tensor into ``place``, of which this rank may hold only its share."""
    if isinstance(place, DTensor):
        place.to_local().copy_(spread_like(value, place).to_local())
    else:
        place.copy_(value)


def spread_like(value: Tensor, model: Tensor) -> DTensor:
    """Return this rank's share of a tensor that all ranks have, laid out as ``model`` is; nothing is sent."""
    like = cast(DTensor, model)
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
