"""Train one model in several processes: who takes which part of a batch, and what is exchanged.

Each rank holds the whole model and takes its share of each batch; gradients are summed, so that all make the same step.
There is no wrapper around the model: a step is not one forward, and what a rank computes is up to objective and
evidence. Only the layers of a large generator may be spread as well (`retrograd.models.compute.fsdp`). What all must
decide alike (order of examples, targets, when to save) comes from the run's ``rng``, which stays equal on all ranks,
or from the first rank; what samplers and dropout draw differs from rank to rank.

A single process exchanges nothing, and computes what it would without this module.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

import torch
from jaxtyping import Int, UInt8
from torch import Tensor, nn
from torch import distributed as dist

from retrograd.index.exchange import Exchange
from retrograd.models.compute.fsdp import is_own_share
from retrograd.types import UserError

__all__ = [
    "PATIENCE",
    "MicroBatch",
    "Ranks",
    "explain_lost_process",
    "is_first_process",
    "is_only_process",
    "join_process_group",
]

PATIENCE = timedelta(minutes=30)
"""Longest time that a rank waits for the others. What ends is noticed at once; this is for one that hangs, or that
writes a checkpoint to a slow disk. Embedding and scoring are done by all together, and so are never waited for."""

_BUCKET_NUMBERS = 2**24
_DONE = 1_000  # beyond the methods of an index
_LOST = ("onnection closed by peer", "onnection reset by peer", "roken pipe", "remote process exited")
_LATE = ("Timed out", "timed out", "timeout")


@dataclass(frozen=True)
class MicroBatch:
    """The queries that one rank holds in memory at once, as positions of examples and of their targets.

    ``weight`` is its share of the queries of the batch. It is 0 for a filler where a rank has no queries left, so that
    all ranks search together.
    """

    positions: Int[Tensor, " b"]
    target: Int[Tensor, " b"]
    weight: float


class Ranks:
    """The processes that train together; without a process group this one is ``rank`` 0 of ``count`` 1."""

    def __init__(self) -> None:
        is_group = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        self._exchange = Exchange() if is_group else None
        self.rank = 0 if self._exchange is None else self._exchange.rank
        self.count = 1 if self._exchange is None else self._exchange.ranks

    @property
    def first(self) -> bool:
        """Return whether this is the rank that writes files and messages."""
        return self.rank == 0

    # ---- a batch ----------------------------------------------------------------------------------------------------

    def micro_batches(self, positions: Int[Tensor, " b"], target: Int[Tensor, " b"], size: int) -> list[MicroBatch]:
        """Split this rank's share of a batch into micro-batches of up to ``size`` queries, as many on each rank."""
        shares = [share.split(size) for share in self._shares(positions)]
        own, targets = shares[self.rank], self._shares(target)[self.rank].split(size)
        filled = [
            MicroBatch(part, part_target, len(part) / len(positions))
            for part, part_target in zip(own, targets, strict=True)
            if len(part)
        ]
        filler = MicroBatch(positions[:1], target[:1], 0.0)
        return filled + [filler] * (len(shares[0]) - len(filled))

    def largest_share(self, queries: int, size: int) -> int:
        """Return how many queries of a batch of so many a rank holds at once, at most ``size``."""
        return min(size, -(-queries // self.count))

    def join_shares(self, own: Int[Tensor, " n"], queries: int) -> Int[Tensor, " b"]:
        """Join one number per query of a batch, each rank giving those of its share."""
        if self._exchange is None:
            return own
        counts = [len(share) for share in self._shares(torch.empty(queries))]
        return self._exchange.gather_lines(own, counts).cpu()

    def share(self, batch: Int[Tensor, " b"]) -> Int[Tensor, " n"]:
        """Return this rank's share of one number per query of a batch."""
        return self._shares(batch)[self.rank]

    def _shares(self, batch: Tensor) -> tuple[Tensor, ...]:
        # The first ranks have more where it does not come out even: the first always has some.
        return batch.tensor_split(self.count)

    # ---- randomness -------------------------------------------------------------------------------------------------

    def sampler(self, rng: torch.Generator) -> torch.Generator:
        """Return the random source of this rank's samplers: ``rng`` for a single process, else one seeded from it."""
        if self._exchange is None:
            return rng
        return torch.Generator().manual_seed(self.seed(rng.get_state()))

    def seed(self, state: UInt8[Tensor, " bytes"]) -> int:
        """Return a seed for this rank alone, derived from a state that all ranks share."""
        material = bytes(state.tolist()) + str(self.rank).encode()
        return int.from_bytes(hashlib.blake2b(material, digest_size=8).digest(), "little") >> 1

    # ---- gradients and weights --------------------------------------------------------------------------------------

    def sum_gradients(self, weights: Sequence[nn.Parameter]) -> None:
        """Replace each weight's gradient by the sum over the ranks, in a few large messages; a rank without one adds 0.

        Those of weights that are spread are sums already.
        """
        if self._exchange is None:
            return
        weights = [weight for weight in weights if not is_own_share(weight)]
        has_gradient = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.int32)
        anywhere = self._exchange.maximum(has_gradient).tolist()
        for bucket in _group_weights([weight for weight, is_moved in zip(weights, anywhere, strict=True) if is_moved]):
            gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in bucket]
            total = self._exchange.sum(torch.cat([gradient.flatten() for gradient in gradients]))
            parts = total.split([weight.numel() for weight in bucket])
            for weight, gradient, part in zip(bucket, gradients, parts, strict=True):
                weight.grad = gradient.copy_(part.view_as(gradient))

    def require_equal(self, weights: Sequence[nn.Parameter]) -> None:
        """Raise `UserError` on all ranks where the sums of the weights' bits differ. One pass over whole weights."""
        if self._exchange is None:
            return
        sums = [int(_bits(weight).sum(dtype=torch.int64)) for weight in weights if not is_own_share(weight)]
        own = int.from_bytes(hashlib.blake2b(repr(sums).encode(), digest_size=7).digest(), "little")
        table = self._exchange.gather_numbers([own])
        differing = [rank for rank, line in enumerate(table) if line != table[0]]
        if differing:
            raise UserError(
                f"the weights of process {differing[0]} are not those of process 0; start all with the same model "
                f"files and seed, on the same kind of device"
            )

    # ---- messages ---------------------------------------------------------------------------------------------------

    def any(self, here: bool) -> bool:
        """Return whether ``here`` is true on any rank."""
        return here if self._exchange is None else any(line[0] for line in self._exchange.gather_numbers([int(here)]))

    def broadcast(self, number: int) -> int:
        """Return the first rank's number."""
        return number if self._exchange is None else self._exchange.gather_numbers([number])[0][0]

    def wait(self) -> None:
        """Wait until all ranks are here."""
        self.broadcast(0)

    def done(self) -> None:
        """Wait until all ranks are here. Raises `GivenUpError` where one calls `give_up` instead."""
        if self._exchange is not None:
            self._exchange.meet(_DONE, [])

    def give_up(self) -> None:
        """Tell the other ranks that this one gives up, in the place of `done` and of any search before it."""
        if self._exchange is not None:
            self._exchange.give_up()

    def largest(self, numbers: Tensor) -> Tensor:
        """Return the maximum over the ranks, element by element."""
        return numbers if self._exchange is None else self._exchange.maximum(numbers)

    def stack_numbers(self, numbers: Tensor) -> Tensor:
        """Stack the numbers of all ranks, equally many on each, one line per rank."""
        line = numbers.unsqueeze(0)
        return line if self._exchange is None else self._exchange.gather_lines(line, [1] * self.count).cpu()

    def means(self, values: Mapping[str, float], weight: float) -> dict[str, float]:
        """Return the weighted mean of each value over the ranks that have it; a rank of weight 0 does not count."""
        if self._exchange is None:
            return dict(values)
        own = torch.frombuffer(bytearray(json.dumps([weight, dict(values)]).encode()), dtype=torch.uint8)
        lengths = [line[0] for line in self._exchange.gather_numbers([len(own)])]
        texts = self._exchange.gather_lines(own, lengths).cpu().split(lengths)
        reports = [cast(tuple[float, dict[str, float]], json.loads(bytes(text.tolist()))) for text in texts]
        means: dict[str, float] = {}
        for name, value in values.items():
            known = [(report[name], w) for w, report in reports if w > 0 and name in report]
            total = math.fsum(w for _, w in known)
            means[name] = math.fsum(number * w for number, w in known) / total if known else value
        return means


def _group_weights(weights: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Group weights of one type and device up to 2²⁴ numbers (64 MB in fp32), more where one weight alone has more."""
    pending: dict[tuple[torch.dtype, torch.device], list[nn.Parameter]] = {}
    for weight in weights:
        bucket = pending.setdefault((weight.dtype, weight.device), [])
        if bucket and sum(member.numel() for member in bucket) + weight.numel() > _BUCKET_NUMBERS:
            yield list(bucket)
            bucket.clear()
        bucket.append(weight)
    yield from (bucket for bucket in pending.values() if bucket)


def _bits(weight: Tensor) -> Tensor:
    return weight.detach().contiguous().view({8: torch.int64, 4: torch.int32, 2: torch.int16}[weight.element_size()])


def is_only_process() -> bool:
    """Return whether no launcher started others beside this process, which it says in WORLD_SIZE."""
    return os.environ.get("WORLD_SIZE", "1") == "1"


def is_first_process() -> bool:
    """Return whether this process is the only one, or the first that a launcher started, which it says in RANK."""
    return os.environ.get("RANK", "0") == "0"


def join_process_group(device: torch.device) -> torch.device:
    """Join the processes that torchrun started together with this one; return the device that this one computes on.

    A process that is alone joins nothing and keeps ``device``. Of several on GPUs each takes the one of its LOCAL_RANK
    and talks over NCCL, on CPUs over gloo. Raises `UserError` where the launcher does not say how to meet.
    """
    if is_only_process():
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing:
            raise UserError(
                f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, so other processes take part, but {missing[0]} is not set; "
                f"start all of them with torchrun, or unset WORLD_SIZE to train in one process"
            )
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    return device


@contextmanager
def explain_lost_process() -> Iterator[None]:
    """Run the block, and end the process group where it ends well.

    Raises `UserError` where another process of a run has gone, instead of what a broken connection says.
    """
    try:
        yield
        if Ranks().count > 1:
            dist.destroy_process_group()
    except RuntimeError as error:
        if Ranks().count == 1:
            raise
        how = str(error).splitlines()[0][:200]
        if any(word in str(error) for word in _LOST):
            raise UserError(
                f"another process of this run has ended, and so does this one ({how}); its last message says why, "
                f"unless the system killed it because memory ran out. Checkpoints are whole: go on with --resume"
            ) from error
        if any(word in str(error) for word in _LATE):
            raise UserError(
                f"another process of this run has not answered for {PATIENCE.seconds // 60} minutes ({how}); "
                f"see what it does. Checkpoints are whole: go on with --resume"
            ) from error
        raise
