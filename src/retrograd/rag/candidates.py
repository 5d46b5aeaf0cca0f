"""Make candidates of neighbours: join rows, exclude those that an example must not see, and score the rest.

Between a query and its candidates a search (`retrograd.rag.search`) embeds the query, finds its nearest rows in the
index, and then uses what is here: `union` of the prior's and the posterior's rows, `mask_excluded_rows`, and
`log_probability`, which turns inner products into log p(z|x).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from retrograd.data.masking import excluded_passages
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.index.protocol import Index, Neighbours, require_rows
from retrograd.objectives.functional import log1mexp, masked_log_softmax, masked_logsumexp
from retrograd.objectives.objective import CandidateScores
from retrograd.tasks.task import Task
from retrograd.types import Example, Passage

__all__ = [
    "NULL_ROW",
    "Candidates",
    "Exclusions",
    "Pool",
    "find_column",
    "log_probability",
    "make_empty_candidates",
    "mask_excluded_rows",
    "pad_rows",
    "renew_log_normaliser",
    "union",
    "whole_base",
]

NULL_ROW = -2
"""The row of the null passage: to read nothing is one of the choices (REALM, Guu et al. 2020, arXiv 2002.08909)."""

_BLOCK_ROWS = 4_096
_LOG_GROWN = 2.0  # exp(2) - 2 > 1: one row with that much alone makes Z more than double, whatever the others lose


@dataclass(frozen=True)
class Candidates:
    """K candidate passages of each query: their rows in the base, and the retrievers' scores of them.

    Row -1 is padding; `NULL_ROW`, in the last column where the model has one, is the null passage. ``query``
    (divided by the temperature) and ``vectors`` are the embeddings that were compared, for soft slots to mix; None if a
    search has none. Vectors in the column of padding or of the null passage have no meaning. ``prior_only`` marks the
    queries that have the prior's candidates alone; None where no query was marked. ``log_z_errors`` are the standard
    errors, in nats, of the log Z of the prior and then of the posterior; empty where none was estimated.
    """

    rows: Int[Tensor, "B K"]
    scores: CandidateScores
    query: Float[Tensor, "B D"] | None = None
    vectors: Float[Tensor, "B K D"] | None = None
    prior_only: Bool[Tensor, "B 1"] | None = None
    log_z_errors: tuple[Float[Tensor, " B"], ...] = ()


def make_empty_candidates(queries: int, device: torch.device) -> Candidates:
    """Return candidates with K = 0."""
    rows = torch.empty(queries, 0, dtype=torch.long, device=device)
    return Candidates(rows, CandidateScores(torch.empty(queries, 0, device=device)))


@dataclass(frozen=True)
class Pool:
    """One set of candidates for all queries of a batch: all rows that were retrieved, and ``explorers`` at random.

    With trained passages a step embeds each distinct candidate once, so a pool of B·k + ``explorers`` rows gives every
    query all of them for the price of its own k. Explorers, uniform over the base, let passages be found that no query
    ranks high yet. They are candidates like any other; one that a query must not see is absent for that query.
    """

    explorers: int = 0

    def rows(self, retrieved: Int[Tensor, "B K"], passages: int, rng: torch.Generator | None) -> Int[Tensor, "B P"]:
        """Return the same rows for every query, ascending. Raises `ValueError` for explorers without ``rng``."""
        shared = retrieved[retrieved >= 0]
        if self.explorers > 0:
            if rng is None:
                raise ValueError(f"{self.explorers} explorers are drawn at random; pass rng")
            explored = torch.randint(passages, (self.explorers,), generator=rng, device=rng.device)
            shared = torch.cat([shared, explored.to(shared.device)])
        return shared.unique().expand(len(retrieved), -1)


class Exclusions:
    """The rows of a base that an example must never retrieve.

    They are the rows whose text is, for the task, the example's own, and those whose ids a `SpanExample` names, with
    their copies.

    A training example that is itself a passage is found by its text, and so is every copy of it. Texts are kept as
    64-bit hashes in one sorted array: 16 bytes a row, whatever their length; among 10⁷ rows a chance collision, which
    would exclude an unrelated passage for one example, has probability 10⁻¹². Ids are kept likewise, from the first
    example on that names some.
    """

    def __init__(self, task: Task, base: KnowledgeBase) -> None:
        self._task, self._base = task, base
        self._by_text = _RowsByHash(base, lambda passage: task.identity(passage.text))

    @cached_property
    def _by_id(self) -> _RowsByHash:
        return _RowsByHash(self._base, lambda passage: passage.id)

    def rows(self, examples: Sequence[Example]) -> Int[Tensor, "B E"]:
        """Return the rows to exclude for each example, padded with -1. E is 0 when there are none."""
        own = self._by_text.rows([self._task.identity(example.query) for example in examples])
        for b, example in enumerate(examples):
            if ids := excluded_passages(example):
                own[b] = np.unique(np.concatenate([own[b], *self._rows_with_copies(ids)]))
        return pad_rows(own)

    def _rows_with_copies(self, ids: Sequence[str]) -> list[Int64[np.ndarray, " _"]]:
        """Return the rows of the passages with these ids, and of every passage with an equal text."""
        rows = np.concatenate(self._by_id.rows(ids))
        return self._by_text.rows([self._task.identity(passage.text) for passage in self._base.passages(rows.tolist())])


class _RowsByHash:
    """Sorted 64-bit hashes of one key per passage, and the rows that they belong to."""

    def __init__(self, base: KnowledgeBase, key: Callable[[Passage], str]) -> None:
        hashes = np.fromiter(
            (_hash(key(passage)) for block in base.blocks(_BLOCK_ROWS) for passage in block),
            dtype=np.uint64,
            count=len(base),
        )
        self._rows = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._rows]

    def rows(self, keys: Sequence[str]) -> list[Int64[np.ndarray, " _"]]:
        """Return the rows of each key, ascending."""
        hashes = np.array([_hash(key) for key in keys], dtype=np.uint64)
        first, last = np.searchsorted(self._hashes, hashes, "left"), np.searchsorted(self._hashes, hashes, "right")
        return [self._rows[a:b] for a, b in zip(first, last, strict=True)]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def pad_rows(rows: Sequence[Sequence[int] | np.ndarray]) -> Int[Tensor, "B E"]:
    """Return lists of rows of unequal length as one block, padded with -1."""
    width = max((len(own) for own in rows), default=0)
    block = torch.full((len(rows), width), -1, dtype=torch.long)
    for b, own in enumerate(rows):
        block[b, : len(own)] = torch.as_tensor(np.asarray(own, dtype=np.int64))
    return block


def union(*blocks: Int[Tensor, "B _"]) -> Int[Tensor, "B K"]:
    """Join the distinct rows of several blocks per query, in order of first appearance, padded with -1 at the end."""
    rows = torch.cat(blocks, dim=-1)
    is_repeated = (rows.unsqueeze(-1) == rows.unsqueeze(-2)).tril(diagonal=-1).any(dim=-1)
    keep = (rows >= 0) & ~is_repeated
    order = torch.argsort(~keep, dim=-1, stable=True)
    width = max(int(keep.sum(dim=-1).max()), 1) if len(rows) else 1
    return rows.masked_fill(~keep, -1).gather(-1, order)[:, :width]


def mask_excluded_rows(
    rows: Int[Tensor, "B K"], excluded_rows: Int[Tensor, "B E"], passages: int
) -> Int[Tensor, "B K"]:
    """Replace the rows that an example must not see by -1. ``passages`` is the size of the base."""
    require_rows(rows, passages)
    return rows.masked_fill((rows.unsqueeze(-1) == excluded_rows.unsqueeze(-2)).any(dim=-1), -1)


def find_column(rows: Int[Tensor, "B K"], row: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
    """Return the column of each query's row, or -1 where no column has it or the row is -1."""
    is_row = (rows == row.unsqueeze(-1)) & (row != -1).unsqueeze(-1)
    return torch.where(is_row.any(dim=-1), is_row.int().argmax(dim=-1), -1)


def log_probability(
    query: Float[Tensor, "B D"],
    vectors: Float[Tensor, "B K D"],
    rows: Int[Tensor, "B K"],
    neighbours: Neighbours,
    index: Index,
    fresh: bool,
    null: Float[Tensor, " D"] | None = None,
) -> Float[Tensor, "B K"]:
    """Return log p(z|x) of the candidates: over the whole base where log Z is given, else over the candidates.

    With ``fresh`` vectors (re-encoded with gradient) the index's log Z, which is of the stored, older ones, is renewed.
    ``null`` is the embedding of the null passage, which then competes with all others.
    """
    logit = (query.unsqueeze(1) * vectors).sum(dim=-1).masked_fill(rows < 0, -torch.inf)
    total = masked_logsumexp(logit) if neighbours.log_normaliser is None else neighbours.log_normaliser
    # A query without any admissible row has log Z = -inf; its candidates are absent, not NaN.
    empty = total == -torch.inf
    if fresh and neighbours.log_normaliser is not None:
        stored = (query.unsqueeze(1) * index.vectors(rows.clamp(min=-1))).sum(dim=-1).masked_fill(rows < 0, -torch.inf)
        total = renew_log_normaliser(stored, logit, total.masked_fill(empty, 0.0)).masked_fill(empty, -torch.inf)
    if null is not None:
        null_logit = query @ null
        logit = torch.where(rows == NULL_ROW, null_logit.unsqueeze(-1), logit)
        total = torch.logaddexp(total, null_logit)
        empty = torch.zeros_like(empty)
    absent = rows < 0 if null is None else rows == -1
    log_share = (logit - total.masked_fill(empty, 0.0).unsqueeze(-1)).masked_fill(absent, -torch.inf)
    return log_share - _rounding_above_one(log_share, query, vectors).unsqueeze(-1)


@torch.no_grad()
def _rounding_above_one(
    log_share: Float[Tensor, "B K"], query: Float[Tensor, "B D"], vectors: Float[Tensor, "B K D"]
) -> Float[Tensor, " B"]:
    """Return by how many nats the shares of a row sum to more than 1, where rounding explains it, else 0.

    An inner product of D terms is known to D · eps · |query| · |vector| (Higham 2002, §3.1). The index and the
    candidates add in different orders, so that log Z and a logit in the thousands differ by that much.
    """
    excess = masked_logsumexp(log_share).clamp(min=0.0)
    largest = query.norm(dim=-1) * vectors.norm(dim=-1).amax(dim=-1)
    bound = 2 * query.shape[-1] * torch.finfo(query.dtype).eps * largest
    return torch.where(excess <= bound, excess, 0.0)


def whole_base(
    query_embeddings: Sequence[Float[Tensor, "B D"]],
    excluded_rows: Int[Tensor, "B E"],
    vectors: Float[Tensor, "N D"],
    null: Float[Tensor, " D"] | None = None,
) -> tuple[Int[Tensor, "B _"], list[Float[Tensor, "B _"]]]:
    """Return all rows in their order, and log p(z|x) for each block of ``query_embeddings``; excluded rows are padding.

    The null passage, where there is one, is the last column.
    """
    passages = len(vectors)
    absent = torch.zeros(len(excluded_rows), passages + 1, dtype=torch.bool, device=excluded_rows.device)
    # Column N takes the padding (-1) of the exclusions and is cut off again.
    absent = absent.scatter_(1, excluded_rows % (passages + 1), True)[:, :-1]
    rows = torch.arange(passages, device=absent.device).expand(len(absent), -1).masked_fill(absent, -1)
    logits = [(query @ vectors.T).masked_fill(absent, -torch.inf) for query in query_embeddings]
    if null is not None:
        rows = torch.nn.functional.pad(rows, (0, 1), value=NULL_ROW)
        null_logits = [(query @ null).unsqueeze(-1) for query in query_embeddings]
        logits = [torch.cat(pair, dim=-1) for pair in zip(logits, null_logits, strict=True)]
    return rows, [masked_log_softmax(logit) for logit in logits]


def renew_log_normaliser(
    stored: Float[Tensor, "B K"], fresh: Float[Tensor, "B K"], log_normaliser: Float[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """Return log Z after the logits s of K rows were exchanged for s', with gradient through all three arguments.

    log Z' = log Z + log1p(Σ_k p_k (exp(s'_k - s_k) - 1)), p_k = exp(s_k - log Z): exact to rounding while the logits
    move little. Where Z loses more than half that sum cancels, and where it more than doubles the sum may overflow;
    there log Z' is the log-sum of the other rows' share, log Z + log(1 - Σ p_k), and of the fresh logits. Absent rows
    are -inf in both.
    """
    present = stored > -torch.inf
    log_share = (stored - log_normaliser.unsqueeze(-1)).masked_fill(~present, -torch.inf)
    growth = torch.where(present, fresh, 0.0) - torch.where(present, stored, 0.0)
    grows = growth > 1.0  # p_k may underflow where exp(s'_k - s_k) overflows, so they are not multiplied
    log_grown = torch.where(grows, fresh - log_normaliser.unsqueeze(-1), -torch.inf)
    share = log_share.exp()
    change = torch.where(
        grows,
        log_grown.clamp(max=_LOG_GROWN).exp() - share,
        share * torch.expm1(growth.masked_fill(grows, 0.0)),
    )
    moved = change.sum(dim=-1)
    near = log_normaliser + torch.log1p(moved.clamp(min=-0.5))
    others = log_normaliser + log1mexp(masked_logsumexp(log_share))
    return torch.where((moved > -0.5) & (moved <= 1.0), near, torch.logaddexp(others, masked_logsumexp(fresh)))
