"""The prefix tree of one prompt's choices: the prefixes to run, and the tokens to score after them.

Two ways to score choice c, of tokens y_1 … y_T with the end of sequence as the last:

    sequence    Σ_t log p(y_t | y_<t)                                 over the whole vocabulary
    tree        Σ_t log [ p(y_t | y_<t) / Σ_v p(v | y_<t) ]           over the tokens v that the choices allow there

The second is the scoring of SuRE (Lu et al. 2022, arXiv 2205.09837): where only one token may follow, nothing is
decided and nothing is scored; the choices' probabilities sum to 1. The end of sequence is a token that may follow, so a
choice that begins another competes with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from retrograd.models.settings import Scoring

__all__ = ["PrefixTree"]


@dataclass(frozen=True)
class PrefixTree:
    """The distinct prefixes that must be run, numbered from the empty one, 0; a parent comes before its children.

    ``token[n]`` is the last token of prefix n, ``parent[n]`` the prefix without it (-1 for both at 0).
    ``decision_points`` are the prefixes after which a token's probability counts; ``decision_tokens`` lists those
    tokens, as (position in ``decision_points``, token), each once; choice c is the product of the ``decision_tokens``
    numbered in ``terms[c]``. A single choice has no tokens to score in a tree: it is certain.
    """

    token: tuple[int, ...]
    parent: tuple[int, ...]
    decision_points: tuple[int, ...]
    decision_tokens: tuple[tuple[int, int], ...]
    terms: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, choices: Sequence[Sequence[int]], scoring: Scoring) -> PrefixTree:
        """Build the tree of choices, token ids with the end of sequence; equal choices are one and get equal scores."""
        parent, token, following, paths = _grow_prefixes(choices)
        minimum = 2 if scoring == "tree" else 1
        decision_points = [prefix for prefix, after in enumerate(following) if len(after) >= minimum]
        needed: set[int] = set()
        for prefix in decision_points:
            while prefix >= 0 and prefix not in needed:
                needed.add(prefix)
                prefix = parent[prefix]
        number = {old: new for new, old in enumerate(sorted(needed))} | {-1: -1}
        decision_tokens = [(prefix, after) for prefix in decision_points for after in following[prefix]]
        term, place = ({key: i for i, key in enumerate(keys)} for keys in (decision_tokens, decision_points))
        return cls(
            token=tuple(token[old] for old in sorted(needed)),
            parent=tuple(number[parent[old]] for old in sorted(needed)),
            decision_points=tuple(number[prefix] for prefix in decision_points),
            decision_tokens=tuple((place[prefix], after) for prefix, after in decision_tokens),
            terms=tuple(tuple(term[step] for step in path if step in term) for path in paths),
        )

    @property
    def depth(self) -> list[int]:
        """The number of tokens of each prefix."""
        depth: list[int] = []
        for parent in self.parent:
            depth.append(depth[parent] + 1 if parent >= 0 else 0)
        return depth

    def sees(self) -> Bool[Tensor, "S S"]:
        """Return whether prefix i begins with prefix j, so that the last token of i may attend to j."""
        begins_with = torch.eye(len(self.parent), dtype=torch.bool)
        for prefix, parent in enumerate(self.parent[1:], start=1):
            begins_with[prefix] |= begins_with[parent]
        return begins_with

    def rows(self) -> tuple[list[list[int]], list[tuple[int, int]]]:
        """Return the prefixes that no other one continues, as token ids, and the end of each ``decision_points`` prefix
        in them.

        An end is (row, number of tokens).
        """
        sequences: list[list[int]] = []
        place: dict[int, tuple[int, int]] = {}
        continued = set(self.parent)
        for prefix in range(len(self.parent)):
            if prefix in continued:
                continue
            path = [prefix]
            while self.parent[path[-1]] >= 0:
                path.append(self.parent[path[-1]])
            for length, at in enumerate(reversed(path)):
                place.setdefault(at, (len(sequences), length))
            sequences.append([self.token[at] for at in reversed(path[:-1])])
        return sequences, [place[prefix] for prefix in self.decision_points]


def _grow_prefixes(
    choices: Sequence[Sequence[int]],
) -> tuple[list[int], list[int], list[dict[int, int]], list[list[tuple[int, int]]]]:
    """Return all prefixes (parent, last token, the prefix that each next token leads to), and each choice's steps."""
    parent, token, following = [-1], [-1], [{}]
    paths: list[list[tuple[int, int]]] = []
    for ids in choices:
        prefix, path = 0, []
        for after in ids:
            path.append((prefix, after))
            if after not in following[prefix]:
                following[prefix][after] = len(parent)
                parent.append(prefix)
                token.append(after)
                following.append({})
            prefix = following[prefix][after]
        paths.append(path)
    return parent, token, following, paths
