"""What ``environment.json`` says of the machine that a run is trained on: device, processor, packages, precision."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version

import torch

from retrograd.models.compute.compute import choose_device
from retrograd.models.compute.precision_cache import PrecisionSeconds, processor_name
from retrograd.util.guards import JsonObject, JsonValue

__all__ = ["FP32_BEFORE", "describe_environment", "update_environment"]

FP32_BEFORE = "no"
"""What ``environment.json`` called fp32 before it had the seconds of both."""

_RECORDED_PACKAGES = ("retrograd", "torch", "transformers", "peft", "numpy")


def describe_environment(precision: str, seconds: PrecisionSeconds | None) -> JsonObject:
    """Return the present environment. ``device`` is the type of the one that is chosen, ``gpu`` its name if it is a
    GPU of CUDA.
    """
    packages: dict[str, JsonValue] = {name: version(name) for name in _RECORDED_PACKAGES}
    device = choose_device()
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "device": device.type,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "precision": precision,
        "precision_seconds": None if seconds is None else {"fp32": seconds.fp32, "bf16": seconds.bf16},
        "packages": packages,
    }


def update_environment(record: JsonObject) -> JsonObject:
    """Return a record as `describe_environment` writes it now; an older one had no device, and fp32 another name."""
    device = record.get("device") or ("cpu" if record.get("gpu") is None else "cuda")
    precision = "fp32" if record.get("precision") == FP32_BEFORE else record.get("precision")
    return {**record, "device": device, "precision": precision}
