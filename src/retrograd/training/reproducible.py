"""Make torch refuse operations whose result may differ from run to run.

The only file that changes these settings of the whole process, and puts them back.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["require_determinism"]


@contextmanager
def require_determinism(is_on: bool) -> Iterator[None]:
    """Allow only deterministic algorithms inside the block where ``is_on``, and restore the settings at its end.

    An operation that has none raises torch's RuntimeError, which names it. Enter the block before CUDA multiplies for
    the first time: cuBLAS reads the size of its workspace then.
    """
    if not is_on:
        yield
        return
    settings_before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    benchmark = torch.backends.cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False  # which takes whatever kernel was the fastest this time
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(settings_before[0], warn_only=settings_before[1])
        torch.backends.cudnn.benchmark = benchmark
