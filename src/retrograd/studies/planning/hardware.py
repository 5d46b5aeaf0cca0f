"""Machines to plan for: memory and speed, of this machine as measured, of others as published.

Peaks are dense products with fp32 accumulation, from the makers' data sheets; ``utilisation`` is the share of the peak
that training is taken to reach, and is an assumption: 0.3 for large models on data-centre GPUs, where well-tuned
training reports 0.3 to 0.5. Short texts and small models reach less.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from retrograd.models.compute.precision import PrecisionChoice
from retrograd.types import UserError
from retrograd.util.guards import suggest_name
from retrograd.util.machine import free_memory

__all__ = ["HARDWARE", "Hardware", "find_hardware", "measure_machine"]

_PROBE_SECONDS = 2.0
_PROBE_WIDTH = 1_024
_MEASURED_UTILISATION = 0.6
"""Share of the speed of bare products that a step reaches: the rest of a step is norms, activations and copies."""


@dataclass(frozen=True)
class Hardware:
    """A machine to plan for: ``memory`` in bytes; ``peak`` in floating-point operations a second at the precision of
    ``bf16`` or of fp32.

    ``measured`` says whether the peak is this machine's own, timed just now.
    """

    name: str
    memory: int | None
    peak: float
    utilisation: float
    cuda: bool = True
    bf16: bool = True
    measured: bool = False

    @property
    def speed(self) -> float:
        """Return the speed that training is assumed to reach, in floating-point operations a second."""
        return self.peak * self.utilisation


_GB = 10**9
HARDWARE: Mapping[str, Hardware] = {
    one.name: one
    for one in (
        Hardware("h100", 80 * _GB, 989e12, 0.3),  # SXM
        Hardware("h200", 141 * _GB, 989e12, 0.3),
        Hardware("a100-80gb", 80 * _GB, 312e12, 0.35),
        Hardware("a100-40gb", 40 * _GB, 312e12, 0.35),
        Hardware("rtx-4090", 24 * _GB, 165e12, 0.3),
        Hardware("t4", 16 * _GB, 8.1e12, 0.5, bf16=False),  # its tensor cores know fp16, not bf16: fp32 products
        Hardware("cpu-2-cores", 8 * _GB, 192e9, 0.4, cuda=False, bf16=False),  # 3 GHz, 32 fp32 operations a cycle
    )
}


def find_hardware(name: str) -> Hardware:
    """Return the hardware of a name. Raises `UserError` with the nearest name for an unknown one."""
    if name not in HARDWARE:
        raise UserError(f"--hardware {name}: {suggest_name(name, HARDWARE)} Leave it out to plan for this machine")
    return HARDWARE[name]


def measure_machine(device: torch.device, choice: PrecisionChoice) -> Hardware:
    """Return this machine with its free memory and the speed of products in a precision, timed for two seconds."""
    cuda = device.type == "cuda"
    memory = torch.cuda.mem_get_info()[0] if cuda else free_memory()
    bf16 = choice.precision == "bf16"
    name = torch.cuda.get_device_name() if cuda else f"this machine, {torch.get_num_threads()} threads, {choice}"
    return Hardware(name, memory, _products(device, bf16), _MEASURED_UTILISATION, cuda, bf16, measured=True)


def _products(device: torch.device, bf16: bool) -> float:
    """Return the floating-point operations a second of square matrix products."""
    matrix = torch.ones(_PROBE_WIDTH, _PROBE_WIDTH, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)
    _ = matrix @ matrix
    repetitions, start = 0, time.perf_counter()
    while time.perf_counter() - start < _PROBE_SECONDS:
        _ = matrix @ matrix
        repetitions += 1
        if device.type == "cuda" and repetitions % 64 == 0:
            torch.cuda.synchronize(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return repetitions * 2 * _PROBE_WIDTH**3 / (time.perf_counter() - start)
