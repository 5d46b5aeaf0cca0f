"""Add low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685), and merge them. Only this file imports peft."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import AutoPeftModelForCausalLM, AutoPeftModelForSeq2SeqLM, LoraConfig, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from safetensors.torch import load_file
from torch import nn
from transformers import EncoderDecoderModel, PreTrainedModel

from retrograd.models.loading.folder_checks import ADAPTER_CONFIG, ADAPTER_WEIGHTS, require_adapters_alone
from retrograd.models.loading.lora_layers import describe_fused_experts, find_layers, is_linear, reads_past_adapters
from retrograd.models.loading.quantisation import nf4_config
from retrograd.models.pointer import add_copy_layers
from retrograd.types import UserError
from retrograd.util.guards import first_line
from retrograd.util.text_files import read_json, write_json

__all__ = ["Lora", "add_lora", "choose_layers", "has_lora", "load_lora", "merge_lora", "open_with_peft", "state_base"]


@dataclass(frozen=True)
class Lora:
    """Frozen settings of adapters: W + (alpha / rank) · B A, with B starting at zero. Rank 0 means full fine-tuning.

    ``modules`` are names of linear layers, or ends of names from a dot on; empty means all linear layers but the output
    layer, and but ``out_proj`` in models of Mamba's kin, which cannot be adapted. Layers that copy
    (`retrograd.models.pointer`) are always among them. Experts that a model holds in one tensor are no linear layers.

    Example::

        lora = rg.Lora(rank=8)
        print(lora.alpha / lora.rank)
    """

    rank: int = 0
    alpha: float = 16.0
    dropout: float = 0.0
    modules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise UserError(f"lora rank is {self.rank}; expected 0 (off) or a positive number, usually 4 to 64")
        if not self.alpha > 0:
            raise UserError(
                f"lora alpha is {self.alpha}; expected a positive number, usually one or two times the rank"
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"lora dropout is {self.dropout}; expected a number in [0, 1)")


def choose_layers(model: PreTrainedModel, lora: Lora) -> set[str]:
    """Return the full names of the linear layers that adapters are put beside; a plan asks as training does.

    Raises `UserError` for a name that no linear layer has, and where peft would adapt other layers than those named:
    it reads some names as parts of experts that are fused into one tensor, and leaves their namesakes out.
    """
    layers = find_layers(model, add_copy_layers(model, lora.modules))
    config = _peft_config(model, lora)
    try:
        convert_peft_config_for_transformers(config, model, None)
    except ValueError as error:
        raise UserError(f"{describe_fused_experts(model, layers)} ({error})") from None
    if config.target_parameters or config.rank_pattern:
        raise UserError(describe_fused_experts(model, layers))
    return layers


def add_lora(model: PreTrainedModel, lora: Lora, rng: torch.Generator) -> None:
    """Freeze ``model`` and put trainable adapters, drawn from ``rng``, into it.

    Raises `UserError` as `choose_layers` does.
    """
    choose_layers(model, lora)
    # peft draws from the global random state, which is left as it was, and adjusts to a Conv1D with a warning.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fan_in_fan_out is set", UserWarning)
        model.add_adapter(_peft_config(model, lora))
    _widen(model)
    for name, weight in _adapters(model):
        if ".lora_A." in name:  # the same distribution as peft's, from our own source of randomness, on its device
            drawn = torch.empty(weight.shape, device=rng.device)
            weight.data.copy_(nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=rng))


def has_lora(model: nn.Module) -> bool:
    """Return whether ``model`` has adapters; then its ``save_pretrained`` writes them alone, as a PEFT directory."""
    return any(isinstance(part, BaseTunerLayer) for part in model.modules())


def state_base(model: PreTrainedModel, folder: Path, base: str = "") -> None:
    """Write into the saved adapters which model they belong to, and for which task: PEFT opens them by both.

    ``base`` is its name, as given; "" stands for the one that the model was opened by.
    """
    path = folder / ADAPTER_CONFIG
    content = read_json(path)
    task = "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"
    named: dict[str, object] = {"base_model_name_or_path": base or model.name_or_path or None, "task_type": task}
    if type(model) is EncoderDecoderModel:  # opened by transformers its encoder has a pooler, which names would match
        named["target_modules"] = [name for name, part in model.named_modules() if isinstance(part, BaseTunerLayer)]
    write_json(path, (content if isinstance(content, dict) else {}) | named)


def merge_lora(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a model with W + (alpha / rank) · B A as its weights, and no adapters.

    Raises `UserError` for a quantised model, whose weights could hold the sum only in four bits.
    """
    if getattr(model, "is_quantized", False):
        raise UserError(
            "the weights under the adapters are in four bits, which cannot hold the sum; open the run with "
            "generator.quantisation = none, or hand the adapters over as they are (peft)"
        )
    merged = copy.deepcopy(model)
    for name, part in list(merged.named_modules()):
        if isinstance(part, BaseTunerLayer):
            part.merge()
            parent, _, own = name.rpartition(".")
            setattr(merged.get_submodule(parent), own, part.get_base_layer())
    merged._hf_peft_config_loaded = False
    del merged.peft_config
    return merged


def open_with_peft(folder: Path, encoder_decoder: bool, quantised: bool = False) -> PeftModel:
    """Open a folder of adapters as users of PEFT do, with the model that the folder names, its weights as in training:
    fp32 whatever their file holds, or ``quantised`` to four bits.
    """
    kind = AutoPeftModelForSeq2SeqLM if encoder_decoder else AutoPeftModelForCausalLM
    config = nf4_config() if quantised else None
    return kind.from_pretrained(
        str(folder), dtype=torch.float32, use_safetensors=True, trust_remote_code=False, quantization_config=config
    )


def load_lora(model: PreTrainedModel, folder: Path) -> None:
    """Put the trained adapters of ``folder`` into ``model``.

    Raises `UserError` when they are not for this model, and as `require_adapters_alone` does.
    """
    require_adapters_alone(folder)
    own_names = vars(model).get("_weight_conversions")
    with torch.random.fork_rng(devices=[]):  # adapters are drawn before they are read
        try:
            model.load_adapter(str(folder), is_trainable=True)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a wrong value in their settings may end in any error
            raise UserError(
                f"the adapters in {folder} do not fit {type(model).__name__} ({first_line(error)}); "
                "name the model they were trained on"
            ) from error
    # transformers would save the model, once its adapters are merged, under the names that adapters have; and peft
    # would ask the hub about the base that the folder names, whenever they are saved again.
    vars(model)["_weight_conversions"] = own_names
    for config in model.peft_config.values():
        config.base_model_name_or_path = None
    _widen(model)
    _copy_saved(model, folder)


def _copy_saved(model: PreTrainedModel, folder: Path) -> None:
    """Give each adapter the weights that its file has under its name.

    Reading them, transformers may have rounded them, or have looked for some of them under names of older checkpoints,
    as it does for Laguna's shared experts. Raises `UserError` for a file that lacks weights.
    """
    saved = load_file(folder / ADAPTER_WEIGHTS)
    weights = {f"base_model.model.{name.replace('.default.', '.')}": weight for name, weight in _adapters(model)}
    lacking = sorted(weights.keys() - saved.keys())
    if lacking:
        raise UserError(
            f"the adapters in {folder} lack {len(lacking)} weights of {type(model).__name__} ({lacking[0]}); "
            "name the model they were trained on"
        )
    for name, weight in weights.items():
        weight.data.copy_(saved[name])


def _peft_config(model: PreTrainedModel, lora: Lora) -> LoraConfig:
    """Return the settings of adapters as peft has them."""
    targets: list[str] | str = list(add_copy_layers(model, lora.modules)) or "all-linear"
    if not lora.modules and (
        reads_past_adapters(model)
        or any(isinstance(part, nn.Linear) and not is_linear(part) for part in model.modules())
    ):
        targets = sorted(find_layers(model, ()))  # "all-linear" would take routers for linear layers, and Mamba's
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType]  (peft accepts any number)
        lora_dropout=lora.dropout,
        target_modules=targets,
    )


def _adapters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the weights of adapters with their names."""
    return ((name, weight) for name, weight in model.named_parameters() if ".lora_" in name)


def _widen(model: nn.Module) -> None:
    """Make the adapters fp32: on 4-bit layers peft makes them in the type of the products, too coarse for AdamW."""
    for _, weight in _adapters(model):
        weight.data = weight.data.float()
