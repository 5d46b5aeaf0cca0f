"""Reading a model without changing it: no gradient, no dropout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["forget_casts", "inference"]


@contextmanager
def inference(module: nn.Module) -> Iterator[None]:
    """Run ``module`` without gradient and without dropout; each part's own mode is restored afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training
        # Autocast keeps the casts of weights made here, which carry no gradient: a training step must not meet them.
        torch.clear_autocast_cache()


def forget_casts() -> None:
    """Let autocast cast the weights anew: casts made without gradient would cut a later forward from its weights."""
    if not torch.is_grad_enabled():
        torch.clear_autocast_cache()
