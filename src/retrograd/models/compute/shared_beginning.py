"""Read what the prompts of a micro-batch begin with once: chat template, instruction, a list of relations, a passage.

The keys and values of the shared tokens are computed in one row, and those of every other token attend to them. Scores
and gradients are the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutput

from retrograd.models.compute.decoder_families import in_window, reads_trees
from retrograd.models.compute.fsdp import is_spread
from retrograd.models.compute.output_layer import only_at

__all__ = ["read_beginning_once"]

_LEAST_TOKENS = 16
"""A shorter beginning costs more, as a forward pass of its own, than it saves."""


def read_beginning_once(
    model: PreTrainedModel, arguments: Mapping[str, Tensor | BaseModelOutput], lengths: Sequence[int]
) -> tuple[dict[str, object], int]:
    """Read what all rows begin with, if it is worth it; return the arguments that are left, and how many tokens it was.

    ``arguments`` are ``input_ids`` [P L], padded on the right, with an ``attention_mask`` of each position [P L] or of
    each pair of them [P 1 L L], and ``position_ids`` [P L] where they are not those of the columns. Row p begins with a
    prompt of ``lengths[p]`` tokens, whose last one is always left.

    All is left where the rows are embeddings, and for models that cannot read in two parts: encoder-decoders, families
    that are not known to allow it (`reads_trees`), layers spread over ranks, which must make equally many passes, and
    in training mode, where dropout is drawn for each row and layers may be computed again.
    """
    tokens, mask = arguments.get("input_ids"), arguments["attention_mask"]
    if not isinstance(tokens, Tensor) or not isinstance(mask, Tensor) or not _reads_in_parts(model, tokens.shape[1]):
        return {**arguments}, 0
    shared = _count_shared(tokens, lengths)
    if shared < _LEAST_TOKENS:
        return {**arguments}, 0
    nowhere = tokens.new_zeros(0)
    with only_at(model, (nowhere, nowhere)):
        beginning: Cache = model(input_ids=tokens[:1, :shared], use_cache=True).past_key_values
    beginning.batch_repeat_interleave(len(tokens))
    columns = {name: value[:, shared:] for name, value in arguments.items() if isinstance(value, Tensor)}
    sees = mask if mask.dim() == 2 else mask[:, :, shared:]
    return {**columns, "attention_mask": sees, "past_key_values": beginning}, shared


def _reads_in_parts(model: PreTrainedModel, width: int) -> bool:
    encoder_decoder = bool(model.config.is_encoder_decoder)
    return (
        not (model.training or encoder_decoder)
        and reads_trees(model)
        and in_window(model, width)
        and not is_spread(model)
    )


def _count_shared(tokens: Int[Tensor, "P L"], lengths: Sequence[int]) -> int:
    """Return how many tokens all of several rows begin with, short of the end of the shortest prompt."""
    if len(tokens) < 2:
        return 0
    prompts = tokens[:, : min(lengths) - 1]
    return int((prompts == prompts[:1]).all(dim=0).cumprod(dim=0).sum())
