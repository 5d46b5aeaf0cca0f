"""Apply a model's output layer only where it is needed: at few positions, or to few words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from retrograd.models.compute.vocabulary import log_partition, projected_log_probability, projected_logit
from retrograd.objectives.functional import in_full_precision
from retrograd.types import UserError

__all__ = ["OutputLayer", "only_at"]

Place = Bool[Tensor, "P S"] | tuple[Int[Tensor, " S"], Int[Tensor, " S"]]
"""Positions of a batch: a mask, or (sequence, position) of each, in the order wanted."""


@contextmanager
def only_at(model: PreTrainedModel, place: Place) -> Iterator[None]:
    """Let the output layer see only the hidden states at ``place``: [P S D] becomes [tokens D].

    Raises `UserError` for a model without an output layer.
    """
    handle = _layer_of(model).register_forward_pre_hook(lambda _, inputs: (inputs[0][place], *inputs[1:]))
    try:
        yield
    finally:
        handle.remove()


class OutputLayer:
    """The output layer of a model: hidden states at chosen positions, and scores of chosen tokens there.

    ``linear`` is true if the model's logits are exactly what one linear layer makes of its last hidden states. Then
    those states are kept and only the tokens asked for are projected. Other models (Gemma 2 caps its logits, Cohere
    scales them, BART can add a bias) give the logits of the whole vocabulary.

    A large state of no token decides, put before the layer while the model reads ``sample``, a small input. A token's
    own state would not do: that of padding may be zero, and what is zero stays so under any cap or scale.
    """

    def __init__(self, model: PreTrainedModel, sample: Mapping[str, Tensor]) -> None:
        self._model = model
        self._layer = _layer_of(model)
        self.linear = type(self._layer) is nn.Linear  # a subclass, or an adapter around one, computes something else
        if self.linear:
            state, logits = self._logits_of_large_state(sample)
            self.linear = torch.equal(logits.float(), self._layer(state).float())  # bit for bit

    def _logits_of_large_state(self, sample: Mapping[str, Tensor]) -> tuple[Float[Tensor, "1 D"], Float[Tensor, "1 V"]]:
        """Return a state between -8 and 8, whose logits are far from zero, and what the model makes of it."""
        states: list[Tensor] = []

        def replace_state(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            wave = 8 * torch.cos(torch.arange(1, inputs[0].shape[-1] + 1, dtype=torch.float32))
            states.append(wave.unsqueeze(0).to(inputs[0]))
            return (states[0], *inputs[1:])

        handle = self._layer.register_forward_pre_hook(replace_state)
        try:
            logits = self._model(**sample, use_cache=False).logits
        finally:
            handle.remove()
        return states[0], logits

    def states(self, arguments: Mapping[str, object], place: Place) -> Float[Tensor, "S W"]:
        """Run one forward pass; return hidden states at ``place`` (W = D), or logits unless ``linear`` (W = V)."""
        arguments = {"use_cache": False, **arguments}
        if not self.linear:
            with only_at(self._model, place):
                return self._model(**arguments).logits
        states: list[Tensor] = []

        def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            states.append(inputs[0][place])
            return (states[0][:0], *inputs[1:])

        handle = self._layer.register_forward_pre_hook(keep)
        try:
            self._model(**arguments)
        finally:
            handle.remove()
        return states[0]

    def log_probability(
        self, states: Float[Tensor, "S W"], row: Int[Tensor, " A"], token: Int[Tensor, " A"]
    ) -> Float[Tensor, " A"]:
        """Return log p(token) after the state ``row``, in nats, over the whole vocabulary."""
        if self.linear:
            return projected_log_probability(states, cast(nn.Linear, self._layer), row, token)
        return in_full_precision(states[row, token]) - log_partition(states)[row]

    def logit(
        self, states: Float[Tensor, "S W"], row: Int[Tensor, " A"], token: Int[Tensor, " A"]
    ) -> Float[Tensor, " A"]:
        """Return the logit of ``token`` after the state ``row``: log p up to a constant per state."""
        if self.linear:
            return projected_logit(states, cast(nn.Linear, self._layer), row, token)
        return in_full_precision(states[row, token])


def _layer_of(model: PreTrainedModel) -> nn.Module:
    """Return the output layer of a model."""
    layer = model.get_output_embeddings()
    if layer is None:
        raise UserError(f"{type(model).__name__} has no output layer over the vocabulary; name a generator")
    return layer
