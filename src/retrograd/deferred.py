"""torch, numpy, pyarrow and the names of shapes, imported when they are first used.

Settings are values that are read, checked and printed before anything is computed, and objectives, data and tasks are
settings, too. Modules that settings need take these names from here, so that a misspelt setting is reported without the
seconds that torch takes to import. All other modules import the packages themselves.

Where jaxtyping is imported already, which it is wherever the shapes in signatures are checked, every name is the real
one. Elsewhere the names of shapes mean nothing more than "any object" to whoever evaluates an annotation.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import torch
    from jaxtyping import Bool, Float, Float64, Int, Integer
    from torch import Tensor

__all__ = ["Bool", "Float", "Float64", "Int", "Integer", "Tensor", "np", "pa", "pc", "torch"]


class _Deferred:
    """A module that is imported when one of its names is used."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> object:
        return getattr(import_module(self._module), name)


class _Shape:
    """The name of a shape, where shapes are not checked."""

    def __getitem__(self, item: object) -> type[object]:
        return object


if not TYPE_CHECKING:
    _open = import_module if "jaxtyping" in sys.modules else _Deferred
    np, pa, pc, torch = (_open(name) for name in ("numpy", "pyarrow", "pyarrow.compute", "torch"))
    if "jaxtyping" in sys.modules:
        from jaxtyping import Bool, Float, Float64, Int, Integer

        Tensor = torch.Tensor
    else:
        Bool = Float = Float64 = Int = Integer = _Shape()
        Tensor = object
