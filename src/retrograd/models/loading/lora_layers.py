"""Find the linear layers that adapters are put beside, and refuse names that reach none of them, or not all."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from retrograd.types import UserError
from retrograd.util.guards import suggest_name

__all__ = ["describe_fused_experts", "find_layers", "is_linear", "reads_past_adapters"]

_EXPERT_NAMES = frozenset({"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"})
"""Names that peft reads as parts of fused experts, in the models whose experts transformers has fused."""
_NAMES_SHOWN = 12
_MAMBA = frozenset({"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"})
_READ_BY_KERNELS = "out_proj"
"""Mamba's kernels read the weight of this layer themselves, past any adapter; peft refuses to put one there."""


def find_layers(model: PreTrainedModel, modules: Sequence[str]) -> set[str]:
    """Return the full names of the linear layers that ``modules`` name; of all but the output layer if it is empty.

    A name is that of a layer in full, or its end from a dot on. Raises `UserError` for a name that no layer has, with
    the nearest one; for the name of something else; for one that names linear layers and something else; and for layers
    that cannot be adapted, which are left out of all.
    """
    linear = {name: part for name, part in model.named_modules() if is_linear(part)}
    if not modules:
        output = model.get_output_embeddings()
        passed = (name for name in linear if reads_past_adapters(model) and _ends_in(name, _READ_BY_KERNELS))
        return {name for name, part in linear.items() if part is not output} - set(passed)
    parts = _other_parts(model, linear)
    chosen: set[str] = set()
    for name in modules:
        reached = {full for full in linear if _ends_in(full, name)}
        others = [full for full in parts if _ends_in(full, name)]
        if others:
            raise UserError(_describe_part(model, name, sorted(reached), others[0], parts[others[0]]))
        if not reached:
            known = dict.fromkeys(full.rpartition(".")[2] for full in linear)
            what = f"lora_modules names {name!r}, which no layer of {type(model).__name__} has"
            raise UserError(f"{what}; {suggest_name(name, known)}")
        chosen |= reached
    passed = sorted(name for name in chosen if reads_past_adapters(model) and _ends_in(name, _READ_BY_KERNELS))
    if passed:
        what = (
            f"lora_modules names {passed[0]} of {type(model).__name__}, whose kernels read its weight past any adapter"
        )
        raise UserError(f"{what}; name other linear layers, or none for all that can be adapted")
    return chosen


def reads_past_adapters(model: PreTrainedModel) -> bool:
    """Return whether the model has linear layers whose weights are read past an adapter."""
    return model.config.model_type in _MAMBA


def is_linear(part: nn.Module) -> bool:
    """Return whether a module is a linear layer, and not a router of experts made of one, which returns more."""
    if type(part).__name__ == "FalconLinear":  # it computes the same, in two steps
        return True
    own_forward = type(part).__module__.startswith("transformers.models.") and "forward" in vars(type(part))
    return isinstance(part, nn.Linear | Conv1D) and not own_forward


def describe_fused_experts(model: PreTrainedModel, layers: Collection[str]) -> str:
    """Return the sentence that refuses adapters of ``layers``, for peft would adapt fused experts in their place."""
    beside = sorted({name.rpartition(".")[2] for name in layers} - _EXPERT_NAMES)[:_NAMES_SHOWN]
    remedy = f"name layers beside them: generator.lora_modules = {beside}" if beside else "name other layers"
    return f"{type(model).__name__} holds its experts in one tensor, and they cannot be adapted here; {remedy}"


def _other_parts(model: nn.Module, linear: Collection[str]) -> dict[str, str]:
    """Return what else has a name in the model, and what it is: other modules, and tensors that no layer holds."""
    others = {name: type(part).__name__ for name, part in model.named_modules() if name not in linear}
    tensors = (name for name, _ in model.named_parameters() if name.rpartition(".")[0] not in linear)
    return {**others, **dict.fromkeys(tensors, "a tensor")}


def _describe_part(model: nn.Module, name: str, reached: Sequence[str], other: str, kind: str) -> str:
    """Return the sentence that refuses a name which reaches no linear layer, or not all that it names."""
    what = f"lora_modules names {name!r}, but {other} of {type(model).__name__} is no linear layer ({kind})"
    if not reached:
        return f"{what}; adapters are for linear layers, so name some of them"
    return f"{what}, as {reached[0]} is; name the linear layers by longer ends of their names"


def _ends_in(full: str, name: str) -> bool:
    return full == name or full.endswith(f".{name}")
