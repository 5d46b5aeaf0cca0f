"""Run a decoder over the prefix trees of several prompts, each of which is read once where the model allows it.

There are three ways, depending on the model:

* *one row a prompt*: every distinct prefix is one position, which attends to the prompt and to the prefixes it begins
  with, and has the position that it has in the text. For model families that use such masks and positions in every
  layer (`reads_trees`). Nothing is run twice, and no part of the prompt is copied;
* *one row a longest prefix, sequence to sequence*: the encoder reads a prompt once and its keys and values, the most
  expensive part of a short decoder, are computed once and copied to the rows;
* *one row a longest prefix, decoder only*: the prompt is read again in each row. Right for every model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from retrograd.models.compute.batching import length_buckets, pad_ids
from retrograd.models.compute.decoder_families import in_window, reads_trees
from retrograd.models.compute.inference import EncoderStates
from retrograd.models.compute.output_layer import OutputLayer, only_at
from retrograd.models.compute.shared_beginning import read_beginning_once
from retrograd.models.constrained.prefix_tree import PrefixTree

__all__ = ["TreeDecoder"]


@dataclass(frozen=True)
class TreeDecoder:
    """A decoder of prefix trees for one model and its prompts.

    ``read`` gives the model's arguments for some prompts, by number: ``input_ids``, ``inputs_embeds`` or, of prompts
    that are encoded already, ``encoded``; and ``attention_mask``, padded on the right. ``start`` is the decoder's first
    token, None for decoder-only models.
    ``budget`` bounds the padded tokens of a forward pass, where one prompt's tree does not exceed it by itself.
    """

    model: PreTrainedModel
    read: Callable[[Sequence[int]], dict[str, Tensor]]
    start: int | None
    budget: int

    def sample(self, token: int) -> dict[str, Tensor]:
        """Return the smallest input of the model."""
        ids = torch.full((1, 1), token, device=self.model.device)
        return {"input_ids": ids} if self.start is None else {"input_ids": ids, "decoder_input_ids": ids}

    def size(self, length: int, tree: PrefixTree) -> int:
        """Return the tokens that a prompt of ``length`` tokens takes with its tree."""
        if reads_trees(self.model):
            return length + len(tree.token)
        sequences, _ = tree.rows()
        return length + len(sequences) * (1 + max(len(ids) for ids in sequences))

    def states(self, prompts: Sequence[int], trees: Sequence[PrefixTree], layer: OutputLayer) -> Float[Tensor, "S W"]:
        """Return `OutputLayer.states` after each prefix in ``decision_points``, tree after tree, without gradient."""
        read = self.read(prompts)
        deepest = max(max(tree.depth) for tree in trees)
        tree = reads_trees(self.model) and in_window(self.model, read["attention_mask"].shape[1] + deepest)
        if self.start is not None:
            return (_decode_as_trees if tree else _decode_as_rows)(self.model, read, self.start, trees, layer)
        if tree:
            return _continue_as_trees(self.model, read, trees, layer)
        return _continue_as_rows(self.model, read, trees, layer, self.budget)


# ---- one row a prompt -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Forest:
    """Prefix trees side by side, padded. Padding attends to itself alone, so that no softmax is over nothing."""

    token: Int[Tensor, "P S"]
    depth: Int[Tensor, "P S"]
    sees: Bool[Tensor, "P S S"]
    decision_points: tuple[Int[Tensor, " A"], Int[Tensor, " A"]]

    @classmethod
    def of(cls, trees: Sequence[PrefixTree], root: int, device: torch.device) -> _Forest:
        width = max(len(tree.token) for tree in trees)
        sees = torch.eye(width, dtype=torch.bool).repeat(len(trees), 1, 1)
        for mask, tree in zip(sees, trees, strict=True):
            mask[: len(tree.token), : len(tree.token)] = tree.sees()
        token = [[root, *tree.token[1:], *[root] * (width - len(tree.token))] for tree in trees]
        depth = [tree.depth + [0] * (width - len(tree.token)) for tree in trees]
        decision_points = [(p, node) for p, tree in enumerate(trees) for node in tree.decision_points]
        prompt, node = torch.tensor(decision_points, device=device).T
        tokens, depths = (torch.tensor(grid, device=device) for grid in (token, depth))
        return cls(tokens, depths, sees.to(device), (prompt, node))


def _decode_as_trees(
    model: PreTrainedModel, read: dict[str, Tensor], start: int, trees: Sequence[PrefixTree], layer: OutputLayer
) -> Float[Tensor, "S W"]:
    forest = _Forest.of(trees, start, model.device)
    arguments: dict[str, object] = {
        "encoder_outputs": EncoderStates(last_hidden_state=_encode(model, read)),
        "attention_mask": read["attention_mask"],
        "decoder_input_ids": forest.token,
        "decoder_attention_mask": _additive_mask(forest.sees, model.dtype),
    }
    if model.config.model_type == "encoder-decoder":
        return layer.states(arguments | {"decoder_position_ids": forest.depth}, forest.decision_points)
    with _give_positions(model, forest.depth):
        return layer.states(arguments, forest.decision_points)


@contextmanager
def _give_positions(model: PreTrainedModel, position: Int[Tensor, "P S"]) -> Iterator[None]:
    """Give T5's decoder the bias of each pair of positions for the block, because it takes no positions."""

    def give(
        attention: nn.Module, inputs: tuple[Tensor, ...], arguments: dict[str, object]
    ) -> tuple[tuple[Tensor, ...], dict[str, object]]:
        width = int(position.max()) + 1
        all_biases = cast(Callable[[int, int], Tensor], attention.compute_bias)(width, width)[0]  # [heads width width]
        bias = all_biases[:, position.unsqueeze(-1), position.unsqueeze(-2)].transpose(0, 1)
        return inputs, arguments | {"position_bias": bias}

    decoder = cast(nn.Module, model.get_decoder())
    counting = [part for part in decoder.modules() if getattr(part, "has_relative_attention_bias", False)]
    handles = [part.register_forward_pre_hook(give, with_kwargs=True) for part in counting]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _continue_as_trees(
    model: PreTrainedModel, read: dict[str, Tensor], trees: Sequence[PrefixTree], layer: OutputLayer
) -> Float[Tensor, "S W"]:
    # The empty prefix is the prompt's last token; all others follow the padded prompt.
    forest = _Forest.of(trees, 0, model.device)
    mask = read["attention_mask"].bool()
    prompts, length = mask.shape
    ends = mask.sum(dim=-1)
    positions = torch.arange(length, device=mask.device)
    prompt_sees = (positions <= positions.unsqueeze(-1)).expand(prompts, -1, -1)
    blind = mask.new_zeros(prompts, length, forest.token.shape[1] - 1)
    sees_prompt = mask.unsqueeze(1).expand(-1, forest.token.shape[1] - 1, -1)
    sees = torch.cat(
        [torch.cat([prompt_sees, blind], dim=2), torch.cat([sees_prompt, forest.sees[:, 1:, 1:]], dim=2)], dim=1
    )
    arguments, skipped = read_beginning_once(
        model,
        {
            **_append_tokens(model, read, forest.token[:, 1:]),
            "attention_mask": _additive_mask(sees, model.dtype),
            "position_ids": torch.cat(
                [positions.expand(prompts, -1), ends.unsqueeze(-1) + forest.depth[:, 1:] - 1], dim=1
            ),
        },
        ends.tolist(),
    )
    prompt, node = forest.decision_points
    place = torch.where(node == 0, ends[prompt] - 1, length + node - 1) - skipped
    return layer.states(arguments, (prompt, place))


def _additive_mask(sees: Bool[Tensor, "P S S"], dtype: torch.dtype) -> Float[Tensor, "P 1 S S"]:
    """Return the mask that attention adds to its logits; both kernels support it."""
    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)[:, None]


# ---- one row a longest prefix ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rows:
    """The token ids of the longest prefixes, the prompt of each, and the end of each asking prefix: (row, tokens)."""

    ids: list[list[int]]
    prompt: list[int]
    decision_points: list[tuple[int, int]]

    @classmethod
    def of(cls, trees: Sequence[PrefixTree]) -> _Rows:
        ids: list[list[int]] = []
        prompt: list[int] = []
        decision_points: list[tuple[int, int]] = []
        for p, tree in enumerate(trees):
            sequences, places = tree.rows()
            decision_points += [(len(ids) + row, tokens) for row, tokens in places]
            ids += sequences
            prompt += [p] * len(sequences)
        return cls(ids, prompt, decision_points)


def _decode_as_rows(
    model: PreTrainedModel, read: dict[str, Tensor], start: int, trees: Sequence[PrefixTree], layer: OutputLayer
) -> Float[Tensor, "S W"]:
    rows = _Rows.of(trees)
    hidden, mask = _encode(model, read), read["attention_mask"]
    first = {
        "encoder_outputs": EncoderStates(last_hidden_state=hidden),
        "attention_mask": mask,
        "decoder_input_ids": mask.new_full((len(mask), 1), start),
        "use_cache": True,
    }
    nowhere = mask.new_zeros(0)
    with only_at(model, (nowhere, nowhere)):
        cache = cast(EncoderDecoderCache, model(**first).past_key_values)
    prompt = torch.tensor(rows.prompt, device=model.device)
    cache.cross_attention_cache.batch_select_indices(prompt)
    tokens, present = pad_ids([[start, *ids] for ids in rows.ids], start, model.device)
    row, position = torch.tensor(rows.decision_points, device=model.device).T
    arguments = {
        "encoder_outputs": EncoderStates(last_hidden_state=hidden[prompt]),
        "attention_mask": mask[prompt],
        "decoder_input_ids": tokens,
        "decoder_attention_mask": present,
        # The decoder's self-attention starts anew: only the keys and values of the prompt are kept.
        "past_key_values": EncoderDecoderCache(DynamicCache(), cache.cross_attention_cache),
        "use_cache": True,
    }
    return layer.states(arguments, (row, position))


def _continue_as_rows(
    model: PreTrainedModel, read: dict[str, Tensor], trees: Sequence[PrefixTree], layer: OutputLayer, budget: int
) -> Float[Tensor, "S W"]:
    rows = _Rows.of(trees)
    ends = read["attention_mask"].sum(dim=-1)
    sizes = [len(ids) + int(ends[p]) for p, ids in zip(rows.prompt, rows.ids, strict=True)]
    states: list[Tensor] = []
    order: list[int] = []
    for group in length_buckets(sizes, budget):
        prompt = torch.tensor([rows.prompt[r] for r in group], device=model.device)
        tokens, present = pad_ids([rows.ids[r] for r in group], 0, model.device)
        number = {r: i for i, r in enumerate(group)}
        decision_points = [a for a, (row, _) in enumerate(rows.decision_points) if row in number]
        order += decision_points
        row = torch.tensor(
            [number[rows.decision_points[a][0]] for a in decision_points], dtype=torch.long, device=model.device
        )
        after = torch.tensor(
            [rows.decision_points[a][1] for a in decision_points], dtype=torch.long, device=model.device
        )
        inputs = {name: value[prompt] for name, value in read.items()}
        extended = _append_tokens(model, inputs, tokens)
        mask = torch.cat([inputs["attention_mask"], present], dim=1)
        place = mask.argsort(dim=1, descending=True, stable=True)  # padding to the end: models count positions
        arguments = {name: value[torch.arange(len(group)).unsqueeze(-1), place] for name, value in extended.items()}
        arguments["attention_mask"] = mask.gather(1, place)
        states.append(layer.states(arguments, (row, ends[prompt][row] - 1 + after)))
    return torch.cat(states)[torch.tensor(order, device=model.device).argsort()]


# ---- shared by all three ------------------------------------------------------------------------------------------


def _encode(model: PreTrainedModel, read: dict[str, Tensor]) -> Float[Tensor, "P L D"]:
    if "encoded" in read:
        return read["encoded"]
    return cast(nn.Module, model.get_encoder())(**read, return_dict=True).last_hidden_state


def _append_tokens(model: PreTrainedModel, read: dict[str, Tensor], tokens: Int[Tensor, "P S"]) -> dict[str, Tensor]:
    """Append tokens after the padding of the prompts; as embeddings if the prompts are."""
    if "input_ids" in read:
        return {"input_ids": torch.cat([read["input_ids"], tokens], dim=1)}
    embedded = model.get_input_embeddings()(tokens)
    return {"inputs_embeds": torch.cat([read["inputs_embeds"], embedded], dim=1)}
