"""Count what a pass through a model costs without making it: matrix products, and bytes kept for the backward pass.

The model is one of `retrograd.models.loading.architectures`, within torch's ``FakeTensorMode``: every operation runs
on shapes
alone, under the autocast of training and in the mode that the caller has set, so that what is counted is what the
module does and not what a formula says of its family. Kept bytes are counted once for each storage; weights and their
copies in half precision are counted separately.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from retrograd.models.compute.compute import Compute
from retrograd.models.compute.output_layer import only_at
from retrograd.models.compute.training_layers import training_attention
from retrograd.models.compute.vocabulary import token_log_probability

__all__ = ["Cost", "encoder_cost", "generator_cost"]


@dataclass(frozen=True)
class Cost:
    """The cost of one text: floating-point operations of forward and backward pass, and bytes kept between them.

    ``squares`` of these bytes are attention weights, which fused kernels do not keep. ``copies`` are the bytes
    kept once for each batch, whatever its size: frozen weights, in the precision of the products.
    """

    forward: float
    backward: float
    stored_bytes: float
    squares: float
    copies: float

    def times(self, number: int) -> Cost:
        """Return the cost of ``number`` models of this kind, each of which reads the text."""
        return Cost(
            forward=number * self.forward,
            backward=number * self.backward,
            stored_bytes=number * self.stored_bytes,
            squares=number * self.squares,
            copies=number * self.copies,
        )


def encoder_cost(model: PreTrainedModel, tokens: int, bf16: bool) -> Cost:
    """Return the cost of embedding a text of ``tokens`` tokens."""

    def run(texts: int) -> Tensor:
        ids = torch.zeros(texts, tokens, dtype=torch.long)
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.float()

    return _cost(model, run, tokens, bf16)


def generator_cost(model: PreTrainedModel, tokens: int, target_tokens: int, bf16: bool) -> Cost:
    """Return the cost of a target's likelihood after a prompt; the output layer reads the target's positions alone."""
    seq2seq = bool(model.config.is_encoder_decoder)

    def run(prompts: int) -> Tensor:
        read = tokens if seq2seq else tokens + target_tokens - 1
        ids = torch.zeros(prompts, read, dtype=torch.long)
        arguments = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        first = 0 if seq2seq else tokens - 1
        if seq2seq:
            arguments["decoder_input_ids"] = torch.zeros(prompts, target_tokens, dtype=torch.long)
        row = torch.arange(prompts).repeat_interleave(target_tokens)
        position = first + torch.arange(target_tokens).repeat(prompts)
        with only_at(model, (row, position)):
            logits = model(**arguments, use_cache=False).logits
        return token_log_probability(logits, torch.zeros(prompts * target_tokens, dtype=torch.long))

    return _cost(model, run, tokens if seq2seq else tokens + target_tokens - 1, bf16)


def _cost(model: PreTrainedModel, run: Callable[[int], Tensor], width: int, bf16: bool) -> Cost:
    """Return a text's cost from runs of one and of two texts; what does not grow belongs to the batch."""
    (f1, b1, k1, s1), (f2, b2, k2, s2) = (_count_run(model, lambda n=n: run(n), width, bf16) for n in (1, 2))
    stored_bytes = k2 - k1
    return Cost(f2 - f1, b2 - b1, stored_bytes, s2 - s1, max(0.0, k1 - stored_bytes))


def _count_run(
    model: PreTrainedModel, run: Callable[[], Tensor], width: int, bf16: bool
) -> tuple[float, float, float, float]:
    """Return forward and backward operations, bytes kept, and bytes of attention weights of one run."""
    own = {_storage(weight) for weight in (*model.parameters(), *model.buffers())}
    stored: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in own:
            stored[_storage(tensor)] = tensor
        return tensor

    learns = any(weight.requires_grad for weight in model.parameters())
    compute = Compute(torch.device("cpu"), "bf16" if bf16 else "fp32")
    hooks = saved_tensors_hooks(pack, lambda tensor: tensor)
    with FlopCounterMode(display=False) as forward, training_attention(compute.device), compute.autocast(), hooks:
        out = run()
    with FlopCounterMode(display=False) as backward:
        if learns:
            out.sum().backward()
    for weight in model.parameters():
        weight.grad = None
    sizes = {key: tensor.untyped_storage().nbytes() for key, tensor in stored.items()}
    squares = sum(sizes[key] for key, tensor in stored.items() if tensor.shape[-2:] == (width, width))
    counts = (forward.get_total_flops(), backward.get_total_flops(), sum(sizes.values()), squares)
    return float(counts[0]), float(counts[1]), float(counts[2]), float(counts[3])


def _storage(tensor: Tensor) -> int:
    """Return a number that identifies a tensor's storage."""
    return tensor.untyped_storage()._cdata
