"""Score log p(choice | prompt) of all choices of a prompt: shared prefixes are run once, and only those that matter.

The prompt is read once, `tree_decoding` runs each distinct prefix that matters, and `output_layer` projects it onto the
vocabulary, or onto the few words that may follow. `prefix_tree` has the two scores' equations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrograd.models.compute.batching import length_buckets
from retrograd.models.compute.output_layer import OutputLayer
from retrograd.models.constrained.prefix_tree import PrefixTree
from retrograd.models.constrained.tree_decoding import TreeDecoder
from retrograd.models.settings import Scoring

__all__ = ["MixtureScores", "score_choices", "score_token_mixtures"]

_STATES = 2_048
"""The largest number of prefixes whose states are held at once: as logits of 30,522 words in bf16 they take 125 MB."""


@dataclass(frozen=True)
class MixtureScores:
    """The scores of one query's C choices, Σ_t log Σ_k p̃(z_k|x) p(y_t|x,z_k,y_<t), in nats.

    ``log_share`` is the log of each of the K passages' share in them: the mean of its responsibilities over the tokens
    that are scored. The shares of a choice sum to 1.
    """

    value: Float[Tensor, " C"]
    log_share: Float[Tensor, "K C"]


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
    trees = _grow_trees(choices, scoring)
    device = decoder.model.device
    count = torch.tensor([len(own) for own in choices], device=device)
    dtype = torch.promote_types(decoder.model.dtype, torch.float32)
    result = torch.zeros(len(choices), int(count.max()), dtype=dtype, device=device)
    for prompts, scores in _score_groups(decoder, lengths, trees, choices[0][0][-1], scoring == "tree"):
        result[prompts] = _sum_terms(scores, [trees[p] for p in prompts], result.shape[1]).to(result)
    return result.masked_fill(torch.arange(result.shape[1], device=device) >= count.unsqueeze(-1), -torch.inf)


def score_token_mixtures(
    decoder: TreeDecoder,
    lengths: Sequence[int],
    choices: Sequence[Sequence[Sequence[int]]],
    where: Int[Tensor, "B K"],
    log_weight: Float[Tensor, "B K"],
    scoring: Scoring,
) -> list[MixtureScores]:
    """Return the scores of each query's choices where the prompts of a query are mixed token by token.

    Query b mixes the prompts ``where[b]``, which have the same choices, by ``log_weight[b]``, log p̃(z|x). Elsewhere as
    `score_choices`; the tree's probabilities are those of the mixture.
    """
    if not choices:
        return []
    trees = _grow_trees(choices, scoring)
    tokens: dict[int, Tensor] = {}
    for prompts, scores in _score_groups(decoder, lengths, trees, choices[0][0][-1], False):
        tokens.update(zip(prompts, scores.split([len(trees[p].decision_tokens) for p in prompts]), strict=True))
    return [
        _mix_tokens(trees[own[0]], [tokens.get(p) for p in own], weight.to(decoder.model.device), scoring)
        for own, weight in zip(where.tolist(), log_weight, strict=True)
    ]


def _grow_trees(choices: Sequence[Sequence[Sequence[int]]], scoring: Scoring) -> list[PrefixTree]:
    """Return each prompt's tree of choices; equal ones are one object."""
    tree_by_ids: dict[tuple[tuple[int, ...], ...], PrefixTree] = {}
    trees: list[PrefixTree] = []
    for own in choices:
        key = tuple(map(tuple, own))
        tree_by_ids[key] = tree_by_ids.get(key) or PrefixTree.of(key, scoring)
        trees.append(tree_by_ids[key])
    return trees


def _score_groups(
    decoder: TreeDecoder, lengths: Sequence[int], trees: Sequence[PrefixTree], end: int, among_siblings: bool
) -> Iterator[tuple[list[int], Float[Tensor, " A"]]]:
    """Yield prompts that were run together, and the log-probabilities of their trees' decision tokens, in that order.

    A prompt with nothing to decide is left out.
    """
    layer = OutputLayer(decoder.model, decoder.sample(end))
    undecided = [p for p, tree in enumerate(trees) if tree.decision_points]
    group_size = max(1, _STATES // max(1, *(len(tree.decision_points) for tree in trees)))
    sizes = [decoder.size(lengths[p], trees[p]) for p in undecided]
    for group in length_buckets(sizes, decoder.budget, group_size):
        prompts = [undecided[i] for i in group]
        group_trees = [trees[p] for p in prompts]
        states = decoder.states(prompts, group_trees, layer)
        yield prompts, _score_tokens(layer, states, group_trees, among_siblings)


def _mix_tokens(
    tree: PrefixTree, tokens: Sequence[Float[Tensor, " A"] | None], log_weight: Float[Tensor, " K"], scoring: Scoring
) -> MixtureScores:
    """Mix the log-probabilities that K prompts give the decision tokens of one tree; None where it decides nothing."""
    decided = [own for own in tokens if own is not None]
    if not decided:
        choices = len(tree.terms)
        return MixtureScores(log_weight.new_zeros(choices), log_weight.unsqueeze(-1).expand(-1, choices))
    log_joint = log_weight.unsqueeze(-1) + torch.stack(decided)  # [K A]
    log_mixture = log_joint.logsumexp(dim=0)
    log_share = log_joint - log_mixture
    if scoring == "tree":
        row, _ = _tokens_to_score([tree], log_mixture.device)
        log_mixture = _normalise_siblings(log_mixture, row, len(tree.decision_points))
    values, shares = [], []
    for own in tree.terms:
        values.append(log_mixture[list(own)].sum())
        shares.append(log_share[:, list(own)].logsumexp(dim=-1) - math.log(len(own)) if own else log_weight)
    return MixtureScores(torch.stack(values), torch.stack(shares, dim=-1))


def _score_tokens(
    layer: OutputLayer, states: Float[Tensor, "S W"], trees: Sequence[PrefixTree], among_siblings: bool
) -> Float[Tensor, " A"]:
    """Return the log-probabilities of the tokens to score, tree after tree: among their siblings, or among all."""
    row, token = _tokens_to_score(trees, states.device)
    if not among_siblings:
        return layer.log_probability(states, row, token)
    return _normalise_siblings(layer.logit(states, row, token), row, len(states))


def _normalise_siblings(logit: Float[Tensor, " A"], row: Int[Tensor, " A"], rows: int) -> Float[Tensor, " A"]:
    """Return the log-softmax of logits among those of the same row."""
    highest = logit.new_full((rows,), -torch.inf).scatter_reduce(0, row, logit, "amax")
    above = logit - highest[row]
    return above - logit.new_zeros(rows).index_add(0, row, above.exp()).log()[row]


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
