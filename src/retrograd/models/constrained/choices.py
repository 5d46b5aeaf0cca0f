"""Score log p(choice | prompt) of all choices of a prompt: shared prefixes are run once, and only those that matter.

The prompt is read once, `tree_decoding` runs each distinct prefix that matters, and `output_layer` projects it onto the
vocabulary, or onto the few words that may follow. `prefix_tree` has the two scores' equations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrograd.models.compute.batching import length_buckets
from retrograd.models.compute.output_layer import OutputLayer
from retrograd.models.constrained.prefix_tree import PrefixTree, Scoring
from retrograd.models.constrained.tree_decoding import TreeDecoder

__all__ = ["score_choices"]

_STATES = 2_048
"""The largest number of prefixes whose states are held at once: as logits of 30,522 words in bf16 they take 125 MB."""


def score_choices(
    decoder: TreeDecoder,
    lengths: Sequence[int],
    choices: Sequence[Sequence[Sequence[int]]],
    scoring: Scoring,
) -> Float[Tensor, "P C"]:
    """Return scores in nats, without gradient; ``-inf`` where a prompt has fewer choices than another.

    ``lengths`` are the prompts' tokens, ``choices`` each prompt's choices as token ids with the end of sequence.
    """
    if not choices:
        return torch.zeros(0, 0, device=decoder.model.device)
    layer = OutputLayer(decoder.model, decoder.sample(choices[0][0][-1]))
    tree_by_ids: dict[tuple[tuple[int, ...], ...], PrefixTree] = {}
    trees: list[PrefixTree] = []
    for own in choices:
        key = tuple(map(tuple, own))
        tree_by_ids[key] = tree_by_ids.get(key) or PrefixTree.of(key, scoring)
        trees.append(tree_by_ids[key])
    device = decoder.model.device
    count = torch.tensor([len(own) for own in choices], device=device)
    result = torch.zeros(len(choices), int(count.max()), device=device)
    undecided = [p for p, tree in enumerate(trees) if tree.decision_points]
    group_size = max(1, _STATES // max(1, *(len(tree.decision_points) for tree in trees)))
    sizes = [decoder.size(lengths[p], trees[p]) for p in undecided]
    for group in length_buckets(sizes, decoder.budget, group_size):
        prompts = [undecided[i] for i in group]
        group_trees = [trees[p] for p in prompts]
        states = decoder.states(prompts, group_trees, layer)
        scores = _score_tokens(layer, states, group_trees, scoring)
        result[prompts] = _sum_terms(scores, group_trees, result.shape[1])
    return result.masked_fill(torch.arange(result.shape[1], device=device) >= count.unsqueeze(-1), -torch.inf)


def _score_tokens(
    layer: OutputLayer, states: Float[Tensor, "S W"], trees: Sequence[PrefixTree], scoring: Scoring
) -> Float[Tensor, " A"]:
    """Return the log-probabilities of the tokens to score, tree after tree."""
    row, token = _tokens_to_score(trees, states.device)
    if scoring == "sequence":
        return layer.log_probability(states, row, token)
    logit = layer.logit(states, row, token)
    # log-softmax among the tokens that are scored after the same prefix.
    highest = logit.new_full((len(states),), -torch.inf).scatter_reduce(0, row, logit, "amax")
    above = logit - highest[row]
    return above - logit.new_zeros(len(states)).index_add(0, row, above.exp()).log()[row]


def _tokens_to_score(trees: Sequence[PrefixTree], device: torch.device) -> tuple[Int[Tensor, " A"], Int[Tensor, " A"]]:
    """Return the state that each token to score follows, and the token."""
    pairs: list[tuple[int, int]] = []
    offset = 0
    for tree in trees:
        pairs += [(offset + place, token) for place, token in tree.decision_tokens]
        offset += len(tree.decision_points)
    row, token = torch.tensor(pairs, device=device).T
    return row, token


def _sum_terms(answer: Float[Tensor, " A"], trees: Sequence[PrefixTree], width: int) -> Float[Tensor, "P C"]:
    """Sum each choice's terms; a choice without any, and a column without a choice, is 0."""
    cells: list[int] = []
    terms: list[int] = []
    offset = 0
    for p, tree in enumerate(trees):
        for c, own in enumerate(tree.terms):
            cells += [p * width + c] * len(own)
            terms += [offset + term for term in own]
        offset += len(tree.decision_tokens)
    cell, term = (torch.tensor(index, dtype=torch.long, device=answer.device) for index in (cells, terms))
    return answer.new_zeros(len(trees) * width).index_add(0, cell, answer[term]).view(len(trees), width)
