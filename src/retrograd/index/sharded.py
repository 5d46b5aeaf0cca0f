r"""The exact index over the ranks of a process group: each holds a contiguous range of rows, all search all.

Every rank brings its own queries (as many as it has) and takes home their results over the whole base. The parts
combine exactly: with :math:`\log Z_r` and :math:`\mu_r` the log-normaliser and softmax mean of the rows of rank r,

.. math::  \log Z = \operatorname{logsumexp}_r \log Z_r, \qquad
           \frac{\partial \log Z}{\partial q} = \sum_r e^{\log Z_r - \log Z} \mu_r;

the K best are the K best of all ranks' K best (equal logits by global row), and the largest of the ranks' largest
perturbed logits :math:`s_n + g_n` stands at an exact sample, the perturbations being independent between ranks.

Memory beyond the vectors, for W ranks with at most B queries each: O(W·B·(D + E + K)). Every method is a collective:
all ranks call the same ones in the same order, also a rank that has no queries or no rows. Where the pass over the rows
of one rank finds no memory, all leave the call with a `GivenUpError`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch import distributed as dist

from retrograd.index.exact import ExactIndex
from retrograd.index.exchange import Exchange, GivenUpError, ran_out_of_memory
from retrograd.index.protocol import LogNormaliser, Neighbours, require_query, require_rows
from retrograd.index.streaming import attach_gradient
from retrograd.types import UserError

__all__ = ["ShardedIndex", "shard_range"]

_NAMES = ("search", "log_normaliser", "sample", "vectors", "replace", "whole", "the end of a pass over the rows")
_SEARCH, _NORMALISER, _SAMPLE, _VECTORS, _REPLACE, _WHOLE, _PASSED = range(len(_NAMES))
_BLOCK_ROWS = 65_536

_Result = TypeVar("_Result")


def shard_range(rows: int, rank: int, ranks: int) -> range:
    """Return the rows of one rank: contiguous, in the order of ranks, of lengths that differ by at most 1."""
    return range(rows * rank // ranks, rows * (rank + 1) // ranks)


@dataclass(frozen=True)
class _Requests:
    """The requests of all ranks, with their queries concatenated in the order of ranks."""

    query: Float[Tensor, "all D"]
    exclude: Int[Tensor, "all E"]
    counts: list[int]
    per_query: int
    with_gradient: bool


class ShardedIndex:
    """An exact index over the ranks of ``group`` (None: all of them), as `ExactIndex` is on one machine.

    ``shard`` holds this rank's rows, those after the rows of all lower ranks; it may be empty. Row numbers are global.
    A gradient of log Z reaches the queries of the rank that asked; stored vectors have none.

    Raises `UserError`, on every rank, if the shards are of different bases, encoders, widths or storage types.
    """

    log_z: LogNormaliser = "exact"
    samples_exactly = True
    moves_rows = True
    keeps_embeddings = True
    is_spread = True
    saves_with_model = False

    def __init__(self, shard: ExactIndex, group: dist.ProcessGroup | None = None) -> None:
        self.base_fingerprint = shard.base_fingerprint
        self.encoder_fingerprint = shard.encoder_fingerprint
        self._shard = shard
        self._exchange = Exchange(group)
        table = self._exchange.gather_numbers(
            [len(shard), shard.dimension, _hash(str(shard.dtype)), *map(_hash, _fingerprints(shard))]
        )
        for column, name in enumerate(("width", "storage type", "knowledge base", "encoder"), start=1):
            different = [rank for rank, line in enumerate(table) if line[column] != table[0][column]]
            if different:
                raise UserError(f"the shard of rank {different[0]} has another {name} than that of rank 0; rebuild it")
        lengths = [line[0] for line in table]
        self._stops = torch.tensor(lengths).cumsum(0)
        self._first_row = sum(lengths[: self._exchange.rank])

    def __len__(self) -> int:
        return int(self._stops[-1])

    @property
    def held_rows(self) -> range:
        """Return all rows of the base."""
        return range(len(self))

    @property
    def dimension(self) -> int:
        """Return D, the width of an embedding."""
        return self._shard.dimension

    @property
    def dtype(self) -> torch.dtype:
        """Return the storage type."""
        return self._shard.dtype

    def search(self, query: Float[Tensor, "B D"], k: int, exclude: Int[Tensor, "B E"] | None = None) -> Neighbours:
        """Return what `ExactIndex.search` returns, over the rows of all ranks; k may differ between ranks.

        Raises what that raises, on the rank whose arguments are wrong, and `UserError` on the others.
        """
        requests = self._gather_requests(_SEARCH, query, exclude, k)
        with torch.set_grad_enabled(requests.with_gradient):
            neighbours = self._run_pass(
                lambda: self._shard.search(requests.query, requests.per_query, self._to_local(requests.exclude))
            )
        row = torch.where(neighbours.row >= 0, neighbours.row + self._first_row, -1)
        log_normaliser = self._combine(query, requests, neighbours.log_normaliser)
        rows, logits = (self._exchange.return_answers(part, requests.counts) for part in (row, neighbours.logit))
        # ranks lie side by side in the order of rows, and each keeps equal logits by row: a stable sort keeps them too
        logit, order = _flatten_ranks(logits).sort(dim=1, descending=True, stable=True)
        row = _flatten_ranks(rows).gather(1, order[:, :k])
        return Neighbours(row.to(query.device), logit[:, :k].to(query.device), log_normaliser)

    def log_normaliser(
        self, query: Float[Tensor, "B D"], exclude: Int[Tensor, "B E"] | None = None
    ) -> Float[Tensor, " B"]:
        """Return log Z alone, with value, gradient and errors as in `search`."""
        requests = self._gather_requests(_NORMALISER, query, exclude, 1)
        with torch.set_grad_enabled(requests.with_gradient):
            local = self._run_pass(lambda: self._shard.log_normaliser(requests.query, self._to_local(requests.exclude)))
        return self._combine(query, requests, local)

    def sample(
        self, query: Float[Tensor, "B D"], draws: int, rng: torch.Generator, exclude: Int[Tensor, "B E"] | None = None
    ) -> Int[Tensor, "B M"]:
        """Draw as `ExactIndex.sample` does: from the same distribution, but with other draws.

        Each rank takes one number from its ``rng``; all these numbers together seed the perturbations, those of each
        rank apart. So ranks may bring equal or different sources, and equal seeds give equal draws.
        """
        own = int(torch.randint(2**62, (1,), generator=rng, device=rng.device))
        requests = self._gather_requests(_SAMPLE, query, exclude, draws)
        seeds = [line[0] for line in self._exchange.gather_numbers([own])]
        source = torch.Generator().manual_seed(_hash(f"{seeds} {self._exchange.rank}"))
        excluded_rows = self._to_local(requests.exclude)
        rows_here, value = self._run_pass(
            lambda: self._shard.gumbel_maxima(requests.query, requests.per_query, source, excluded_rows)
        )
        row = torch.where(rows_here >= 0, rows_here + self._first_row, -1)
        rows, values = (self._exchange.return_answers(part, requests.counts) for part in (row, value))
        winner = values.argmax(dim=0, keepdim=True)
        return rows.gather(0, winner)[0, :, :draws].to(query.device)

    def vectors(self, row: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape D"]:
        """Return what `ExactIndex.vectors` returns, of any rows, each from the rank that holds it.

        Memory O(rows · D).
        """
        self._agree(_VECTORS, lambda: require_rows(row, len(self)), [])
        flat = row.reshape(-1).cpu()
        is_row = flat >= 0
        requested = flat[is_row]
        owner = torch.bucketize(requested, self._stops, right=True)
        order = owner.argsort(stable=True)
        counts = torch.bincount(owner, minlength=self._exchange.ranks).tolist()
        incoming_rows, incoming = self._exchange.send_to_each(requested[order], counts)
        answer, _ = self._exchange.send_to_each(self._shard.vectors(incoming_rows - self._first_row), incoming)
        embeddings = torch.zeros(len(flat), self.dimension, dtype=answer.dtype)
        embeddings[is_row.nonzero()[:, 0][order]] = answer.cpu()
        return embeddings.view(*row.shape, self.dimension).to(row.device)

    def replace(self, row: Int[Tensor, " Z"], vectors: Float[Tensor, "Z D"], encoder_fingerprint: str) -> None:
        """Replace rows as `ExactIndex.replace` does; each rank may pass rows of any rank, distinct over all ranks.

        Raises what that raises on the rank that brings it, and `UserError` on the others.
        """

        def check() -> None:
            require_rows(row, len(self))
            if not bool(vectors.to(self.dtype).isfinite().all()):
                raise UserError(f"an embedding to store in {self.dtype} is not finite; check the encoder")

        counts = [line[0] for line in self._agree(_REPLACE, check, [len(row)])]
        rows = self._exchange.gather_lines(row, counts)
        is_own = (rows >= self._first_row) & (rows < self._first_row + len(self._shard))
        stored = self._exchange.gather_lines(vectors.detach().to(self.dtype), counts)
        self._shard.replace(rows[is_own] - self._first_row, stored[is_own], encoder_fingerprint)
        self.encoder_fingerprint = encoder_fingerprint

    def whole(self) -> ExactIndex | None:
        """Return all rows as one index in the main memory of rank 0 (N·D numbers there), None on all other ranks."""
        self._agree(_WHOLE, lambda: None, [])
        starts = [0, *self._stops.tolist()][:-1]
        lengths = (self._stops - torch.tensor(starts)).tolist()
        first = self._exchange.rank == 0
        vectors = torch.empty(len(self) if first else 0, self.dimension, dtype=self.dtype)
        for begin in range(0, max(lengths), _BLOCK_ROWS):
            own = torch.arange(begin, max(begin, min(begin + _BLOCK_ROWS, len(self._shard))))
            nobody_else = [0] * (self._exchange.ranks - 1)
            block, counts = self._exchange.send_to_each(
                self._shard.vectors(own).to(self.dtype), [len(own), *nobody_else]
            )
            if first:
                for start, part in zip(starts, block.cpu().split(counts), strict=True):
                    vectors[start + begin : start + begin + len(part)] = part
        if not first:
            return None
        return ExactIndex(vectors, base_fingerprint=self.base_fingerprint, encoder_fingerprint=self.encoder_fingerprint)

    def _run_pass(self, search_own_rows: Callable[[], _Result]) -> _Result:
        """Return the result of this rank's own rows; the others wait for it, or raise with it where memory runs out."""
        try:
            result = search_own_rows()
        except RuntimeError as error:
            if not ran_out_of_memory(error):
                raise
            self._exchange.give_up()
            raise GivenUpError(f"no memory to search {len(self._shard)} rows: {error}") from None
        self._exchange.meet(_PASSED, [])
        return result

    def _gather_requests(
        self, method: int, query: Float[Tensor, "B D"], exclude: Int[Tensor, "B E"] | None, per_query: int
    ) -> _Requests:
        """Gather all ranks' queries in the type that the pass computes in, and their exclusions, padded to the
        widest.
        """

        def check() -> None:
            if per_query < 1:
                raise ValueError(f"{'draws' if method == _SAMPLE else 'k'} is {per_query}; expected at least 1")
            require_query(query, exclude, len(self), self.dimension)

        with_gradient = query.requires_grad and torch.is_grad_enabled()
        width = 0 if exclude is None else exclude.shape[1]
        table = self._agree(method, check, [len(query), width, per_query, int(with_gradient)])
        counts, widths, limits, gradients = (list(column) for column in zip(*table, strict=True))
        block = torch.full((len(query), max(widths)), -1, dtype=torch.long)
        if exclude is not None:
            block[:, :width] = exclude
        dtype = torch.promote_types(self._shard.dtype, torch.float32)
        queries = self._exchange.gather_lines(query.detach().to(dtype), counts)
        # one rank that needs a gradient makes all ranks compute the softmax means of all queries
        with_means = any(gradients)
        return _Requests(
            queries.requires_grad_(with_means),
            self._exchange.gather_lines(block, counts),
            counts,
            max(limits),
            with_means,
        )

    def _agree(self, method: int, check: Callable[[], None], values: list[int]) -> list[list[int]]:
        """Return every rank's ``values``; where the arguments of one rank are wrong, raise on all."""
        problem: Exception | None = None
        try:
            check()
        except (UserError, ValueError) as error:
            problem = error
        table = self._exchange.meet(method, [int(problem is not None), *values])
        if problem is not None:
            raise problem
        for rank, line in enumerate(table):
            if line[0] != method:
                raise UserError(
                    f"rank {rank} calls {_method_name(line[0])} while rank {self._exchange.rank} calls "
                    f"{_method_name(method)}; "
                    "every rank must make the same calls in the same order"
                )
            if line[1]:
                raise UserError(f"rank {rank} was given wrong arguments for {_NAMES[method]}; its own error says which")
        return [line[2:] for line in table]

    def _to_local(self, exclude: Int[Tensor, "all E"]) -> Int[Tensor, "all E"]:
        """Return rows as counted from the first of this shard; -1 for rows of other shards."""
        local = exclude - self._first_row
        return torch.where((local >= 0) & (local < len(self._shard)), local, -1)

    def _combine(
        self, query: Float[Tensor, "B D"], requests: _Requests, local: Float[Tensor, " all"] | None
    ) -> Float[Tensor, " B"]:
        """Return log Z of this rank's own queries from every rank's part, with its gradient if the query requires
        one.
        """
        if local is None:
            raise TypeError("a shard must be an exact index")
        parts = self._exchange.return_answers(local.detach(), requests.counts)
        value = parts.logsumexp(dim=0)
        if not requests.with_gradient:
            return value.to(query.device)
        (mean,) = torch.autograd.grad(local.sum(), requests.query)
        means = self._exchange.return_answers(mean, requests.counts)
        share = (parts - value.masked_fill(value == -torch.inf, 0)).exp()
        gradient = (share.unsqueeze(-1) * means).sum(dim=0)
        if not (query.requires_grad and torch.is_grad_enabled()):
            return value.to(query.device)
        return attach_gradient(query, value.to(query.device), gradient.to(query.device))


def _flatten_ranks(parts: Tensor) -> Tensor:
    """Return [B W·K] from [W B K]."""
    return parts.transpose(0, 1).flatten(1)


def _fingerprints(shard: ExactIndex) -> tuple[str, str]:
    return shard.base_fingerprint, shard.encoder_fingerprint


def _method_name(method: int) -> str:
    return _NAMES[method] if method < len(_NAMES) else "something that is not a method of an index"


def _hash(text: str) -> int:
    """Return 63 bits of a text's hash, because ranks compare short numbers, and a seed must fit an int64."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
