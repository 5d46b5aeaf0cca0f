"""The same twice: torch refuses what does not compute the same from the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["deterministic"]


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Inside, where ``wanted``, only deterministic algorithms; what was set before is set again at the end.

    An operation that has none raises torch's RuntimeError, which names it. To be entered before CUDA multiplies for the
    first time: cuBLAS reads the size of its workspace then.
    """
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    searching = torch.backends.cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False  # which takes whatever kernel was the fastest this time
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = searching
