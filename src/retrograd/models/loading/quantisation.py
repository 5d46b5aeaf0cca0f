"""Hold weights under adapters in 4 bits (QLoRA, Dettmers et al. 2023, arXiv 2305.14314), by bitsandbytes.

The weights of linear layers are stored as NF4, four bits each, with a scale per block of 64, and the scales as eight
bits each (double quantisation): about 4.1 bits a weight instead of 32. They are frozen; `lora` trains beside
them.
"""

from __future__ import annotations

import torch
from transformers import BitsAndBytesConfig

from retrograd.models.compute.compute import DEVICE_VARIABLE, choose_device
from retrograd.models.loading.builtin import BUILTIN_GENERATORS
from retrograd.models.settings import Quantisation
from retrograd.types import UserError
from retrograd.util.optional import require_package

__all__ = ["nf4_config", "require_adapters", "require_quantisable"]

_NF4 = 'generator.quantisation = "nf4"'


def require_adapters(quantisation: Quantisation, lora_rank: int) -> None:
    """Raise `UserError` if weights of four bits would have to be trained themselves."""
    if quantisation == "nf4" and lora_rank == 0:
        raise UserError(
            f"{_NF4} trains adapters alone, for 4-bit weights cannot be trained, but generator.lora_rank is 0; "
            f'set generator.lora_rank to 8, say, or generator.quantisation to "none"'
        )


def require_quantisable(name: str) -> None:
    """Raise `UserError` if the model ``name`` cannot be opened in four bits, or not on this machine."""
    if name in BUILTIN_GENERATORS:
        raise UserError(
            f"{_NF4} is for models that do not fit otherwise, and {name} has no 4-bit form; name a model folder or a "
            f'hub name, or set generator.quantisation to "none"'
        )
    if choose_device().type != "cuda":
        raise UserError(
            f"{_NF4} needs a CUDA device, and the device here is {choose_device()}; run where there is one, unset "
            f'{DEVICE_VARIABLE} if that names another, or set it to "none" before training'
        )
    require_package(_NF4, "bitsandbytes", "qlora", instead='set it to "none"')


def nf4_config() -> BitsAndBytesConfig:
    """Return the quantisation for `from_pretrained`. Products are bf16 with or without autocast, as in the paper.

    The output layer, and what a model itself keeps in fp32 (``wo`` of T5), is left as it is: transformers' own choice.
    """
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
