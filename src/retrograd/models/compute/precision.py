"""Choose the precision of a model: weights are fp32, matrix products fp32 or bf16, selection fp32.

A CPU's flags do not tell whether bf16 pays: a joint step under bf16 autocast takes about half the time of fp32 on one
processor with AVX-512 BF16, and 1.5 times as long on another with the same flag. So ``auto`` is decided by timing both,
once for each machine and kind of work (`retrograd.models.compute.precision_cache` keeps the seconds).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from retrograd.models.compute.precision_cache import MeasureSeconds, PrecisionSeconds, Work, seconds_on_this_machine
from retrograd.models.settings import PrecisionSetting

__all__ = ["PrecisionChoice", "full_precision", "resolve_precision"]


@dataclass(frozen=True)
class PrecisionChoice:
    """The precision of matrix products, and the seconds it was chosen by; None where nothing had to be timed."""

    precision: Literal["bf16", "fp32"]
    seconds: PrecisionSeconds | None = None

    def __str__(self) -> str:
        """Return the choice in words."""
        if self.seconds is None:
            return self.precision
        return f"{self.precision} ({self.seconds})"


def resolve_precision(
    setting: PrecisionSetting, device: torch.device, work: Work, width: int, measure: MeasureSeconds
) -> PrecisionChoice:
    """Return the precision of a setting on this machine, for a kind of work with a model of ``width``.

    ``fp32`` and ``bf16`` are taken as they are. On a CPU ``auto`` is the faster: ``measure`` times both where the
    user's cache folder has no seconds of this processor, thread count, version of torch, work and width. On a GPU
    ``auto`` is bf16 where the GPU multiplies in it, without timing: such GPUs (Ampere and later) have matrix units for
    it that fp32 products do not use, and it halves the memory of activations. On any other device ``auto`` is fp32.
    """
    if setting != "auto":
        return PrecisionChoice(setting)
    if device.type == "cuda":
        return PrecisionChoice("bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32")
    if device.type != "cpu":
        return PrecisionChoice("fp32")
    seconds = seconds_on_this_machine(work, width, measure)
    return PrecisionChoice("bf16" if seconds.bf16 < seconds.fp32 else "fp32", seconds)


def full_precision(device: torch.device) -> torch.autocast:
    """Suspend autocast: inner products that are logits, and everything after them, stay in fp32."""
    return torch.autocast(device.type, enabled=False)
