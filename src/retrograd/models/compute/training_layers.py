"""Run layers in training: with the fastest attention kernel, and computed again in the backward pass to save memory.

A checkpointed layer keeps its inputs alone: less memory, one more forward pass. Chen et al. 2016 (arXiv 1604.06174),
for a transformer layer by layer.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from retrograd.types import UserError

__all__ = ["checkpoint_layers", "training_attention"]


@contextmanager
def training_attention(device: torch.device) -> Iterator[None]:
    """Write attention out on a CPU; elsewhere let torch choose the kernel.

    For texts of some 50 tokens the fused CPU kernel's backward pass takes several times as long: a whole training step
    of the demonstration took 1.42 s with it and 1.18 s without. Micro-batches bound the memory of the written-out form.
    """
    if device.type != "cpu":
        yield
        return
    with sdpa_kernel(SDPBackend.MATH):
        yield


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Compute the layers of ``model`` again in the backward pass, from now on, wherever it is in training mode.

    Gradients are the same up to rounding; dropout draws the same again. Raises `UserError` for a model whose layers
    transformers cannot compute again.
    """

    # The backward pass runs outside the loop's choice of a kernel; another kernel there would save other tensors.
    def attention() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return training_attention(model.device), training_attention(model.device)

    with warnings.catch_warnings():
        # Newer transformers warn that this name will go; it is the one that all supported versions have.
        warnings.simplefilter("ignore", FutureWarning)
        try:
            # Not reentrant: the reentrant form loses the gradient of adapters where the layer's input needs none.
            model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": attention})
        except ValueError as error:
            raise UserError(
                f"generator.gradient_checkpointing is true, but {type(model).__name__} cannot compute its layers again "
                f"({str(error).splitlines()[0]}); set it to false"
            ) from None
