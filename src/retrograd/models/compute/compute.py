"""Compute on a device in a precision. Only this file enters autocast.

Weights are fp32. In bf16, autocast casts them for matrix products as they are needed; what must stay in fp32 suspends
it with `retrograd.models.compute.precision.full_precision`.

**The rule.** A `retrograd.rag.rag_model.RagModel` is built with its precision, and each of its public methods that runs
a network computes in it, by itself: `in_own_precision`. A caller enters ``model.autocast()`` only around a step that
takes gradients through several of these methods, or runs a network of the model directly; inside, weights are cast
once. Entering it twice changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar, runtime_checkable

import torch

from retrograd.models.settings import ComputePrecision
from retrograd.types import UserError

__all__ = ["DEVICE_VARIABLE", "Autocast", "Compute", "choose_device", "computed_type", "in_own_precision"]

DEVICE_VARIABLE = "RETROGRAD_DEVICE"
"""The environment variable that names the device."""

Autocast = torch.autocast | nullcontext[None]
"""A block that computes in one precision; it swallows no error."""


@dataclass(frozen=True)
class Compute:
    """A device and the precision of matrix products on it."""

    device: torch.device
    precision: ComputePrecision = "fp32"

    @property
    def dtype(self) -> torch.dtype:
        """The type in which matrix products are computed."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    def autocast(self) -> Autocast:
        """Compute the block in this precision. In fp32 nothing is entered."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


@runtime_checkable
class Autocasting(Protocol):
    """An object that knows the precision it computes in."""

    def autocast(self) -> Autocast: ...


Autocaster = TypeVar("Autocaster", bound=Autocasting)
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def in_own_precision(
    method: Callable[Concatenate[Autocaster, Arguments], Result],
) -> Callable[Concatenate[Autocaster, Arguments], Result]:
    """Run a method in the precision of its object."""

    @wraps(method)
    def autocasted(owner: Autocaster, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with owner.autocast():
            return method(owner, *args, **kwargs)

    return autocasted


def choose_device() -> torch.device:
    """Return the device that ``RETROGRAD_DEVICE`` names, else a GPU of CUDA if there is one, else the CPU.

    Apple's ``mps`` is taken only where it is named: nothing here was ever tried on it. Raises `UserError` for a name
    that torch does not know, and for a device that this machine does not have.
    """
    name = os.environ.get(DEVICE_VARIABLE, "").strip()
    if not name:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    advice = f"expected cpu, cuda, cuda:NUMBER or mps; unset {DEVICE_VARIABLE} to take what there is"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"{DEVICE_VARIABLE}={name}: torch knows no such device; {advice}") from None
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= count.get(device.type, 0):
        raise UserError(
            f"{DEVICE_VARIABLE}={name}: this machine has no such device, or its torch cannot use it; {advice}"
        )
    return device


def computed_type(device: str) -> str:
    """Return the type of matrix products on a type of device as the caller's autocast has it, such as ``bfloat16``."""
    is_half = torch.is_autocast_enabled(device)
    return str(torch.get_autocast_dtype(device)).removeprefix("torch.") if is_half else "float32"
