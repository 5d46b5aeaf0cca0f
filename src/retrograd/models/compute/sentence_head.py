"""What makes an embedding of hidden states, as a folder of sentence-transformers declares it: e = f_n(… f_1(pool(h))).

Pooling modes give one vector each, side by side; the layers f are linear ones with an activation, and scaling to
length 1. Prompts stand before the texts of queries or of passages.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from retrograd.models.compute.pooling import pool
from retrograd.models.settings import PoolingMode

__all__ = ["ACTIVATIONS", "DenseLayer", "DenseShape", "EncoderPrompts", "SentenceHead", "Side", "UnitLength"]

Side = Literal["query", "passage"]

_PASSAGE_NAMES = ("document", "passage", "corpus")
_WRITTEN_NAMES: Mapping[Side, tuple[str, ...]] = {"query": ("query",), "passage": ("document", "passage")}
"""The names under which the prompt of a side is written: those that sentence-transformers and its users ask for."""

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "torch.nn.modules.linear.Identity": nn.Identity,
    **{
        f"torch.nn.modules.activation.{kind.__name__}": kind
        for kind in (nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.ELU, nn.LeakyReLU, nn.Mish, nn.Softsign)
    },
}
"""The activations of a Dense module by the names under which sentence-transformers writes them."""


@dataclass(frozen=True)
class EncoderPrompts:
    """The prompts of a folder by name, and the name of the one that stands before texts of no side."""

    texts: tuple[tuple[str, str], ...] = ()
    default: str = ""

    def before(self, side: Side | None) -> str:
        """Return what stands before the texts of a side; before any text for None."""
        texts = dict(self.texts)
        names = {"query": ("query",), "passage": _PASSAGE_NAMES, None: (self.default,)}[side]
        return next((texts[name] for name in names if texts.get(name)), "")

    def followed_by(self, prefixes: Mapping[Side, str]) -> EncoderPrompts:
        """Return these prompts with a task's prefix behind that of each of its sides, under all names of the side."""
        own = {name: self.before(side) + prefix for side, prefix in prefixes.items() for name in _WRITTEN_NAMES[side]}
        return EncoderPrompts(tuple((dict(self.texts) | own).items()), self.default)


@dataclass(frozen=True)
class DenseShape:
    """The settings of a Dense module; ``activation`` is one of `ACTIVATIONS`."""

    inputs: int
    outputs: int
    bias: bool = True
    activation: str = "torch.nn.modules.activation.Tanh"
    residual: bool = False

    @property
    def weights(self) -> int:
        """The number of weights."""
        own = self.inputs * self.outputs + self.bias * self.outputs
        return own + (self.residual and self.inputs != self.outputs) * self.inputs * self.outputs


class DenseLayer(nn.Module):
    """Return φ(W x + b), plus x or its projection where the shape says "residual"."""

    def __init__(self, shape: DenseShape) -> None:
        super().__init__()
        self.shape = shape
        self.linear = nn.Linear(shape.inputs, shape.outputs, bias=shape.bias)
        self.activation = ACTIVATIONS[shape.activation]()
        self.residual: nn.Linear | None = None
        if shape.residual and shape.inputs != shape.outputs:
            self.residual = nn.Linear(shape.inputs, shape.outputs, bias=False)

    def forward(self, x: Float[Tensor, "b inputs"]) -> Float[Tensor, "b outputs"]:
        """Return the layer's output."""
        out = self.activation(self.linear(x))
        if not self.shape.residual:
            return out
        return out + (x if self.residual is None else self.residual(x))


class UnitLength(nn.Module):
    """Scale vectors to length 1, between other layers."""

    def forward(self, x: Float[Tensor, "b D"]) -> Float[Tensor, "b D"]:
        """Return x / ‖x‖."""
        return F.normalize(x, dim=-1)


class SentenceHead(nn.Module):
    """Pooling modes, layers and prompts; the scaling to length 1 that may end it is the encoder's.

    Without ``pools_prompt`` the tokens of a prompt are read and not pooled.
    """

    def __init__(
        self,
        modes: Sequence[PoolingMode] = ("mean",),
        layers: Sequence[DenseLayer | UnitLength] = (),
        prompts: EncoderPrompts | None = None,
        pools_prompt: bool = True,
    ) -> None:
        super().__init__()
        self.modes = tuple(modes)
        self.layers = nn.ModuleList(layers)
        self.prompts = prompts or EncoderPrompts()
        self.pools_prompt = pools_prompt

    @property
    def dense_layers(self) -> list[DenseLayer]:
        """The layers that have weights."""
        return [layer for layer in self.layers if isinstance(layer, DenseLayer)]

    def width(self, hidden: int) -> int:
        """Return the width of an embedding made of hidden states of width ``hidden``."""
        dense = self.dense_layers
        return dense[-1].shape.outputs if dense else hidden * len(self.modes)

    def forward(
        self, hidden: Float[Tensor, "b L width"], mask: Int[Tensor, "b L"], skipped: int = 0
    ) -> Float[Tensor, "b D"]:
        """Return the vectors of texts; the first ``skipped`` tokens are not pooled where there are others."""
        if skipped:
            other = mask * (torch.arange(mask.shape[1], device=mask.device) >= skipped)
            mask = torch.where(other.any(dim=1, keepdim=True), other, mask)
        x = torch.cat([pool(hidden, mask, mode) for mode in self.modes], dim=-1)
        for layer in self.layers:
            x = layer(x)
        return x

    def describe(self) -> str:
        """Return all that decides a vector but weights and a single pooling mode; "" where that is nothing."""
        layers = [repr(layer.shape) if isinstance(layer, DenseLayer) else "unit length" for layer in self.layers]
        several = list(self.modes) if len(self.modes) > 1 else []
        texts = [] if self.pools_prompt else ["prompt not pooled"]
        prompts = [[side, self.prompts.before(side)] for side in ("query", "passage", None)]
        spoken = [prompt for prompt in prompts if prompt[1]]
        parts = [layers, several, texts if spoken else [], spoken]
        return json.dumps(parts) if any(parts) else ""
