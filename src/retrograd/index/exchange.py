"""Collectives of a process group: tables of numbers, and lines of tensors whose number differs between ranks.

A rank that runs out of memory must not leave the others waiting for it. So every rank calls `Exchange.meet` before a
common piece of work, or `Exchange.give_up` in its place; in that case all ranks abandon the work together.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist

from retrograd.types import UserError

__all__ = ["Exchange", "GivenUpError", "ran_out_of_memory"]

_GAVE_UP = -1
_NUMBERS = 6
# What torch says besides `torch.OutOfMemoryError`: on a CPU, and where cuBLAS finds no room for its workspace.
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")


class GivenUpError(UserError):
    """Error of every rank that abandons a collective because one rank ran out of memory."""


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of torch means that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


class Exchange:
    """The collectives of a group of W ranks: every rank calls the same ones in the same order.

    With NCCL tensors are exchanged on the current CUDA device, with any other backend on the CPU.

    Raises `UserError` where torch.distributed was not started.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise UserError("torch.distributed is not started; launch with torchrun and call init_process_group first")
        self._group = group
        self.rank = dist.get_rank(group)
        self.ranks = dist.get_world_size(group)
        on_gpu = "nccl" in dist.get_backend(group)
        self._device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")

    def gather_numbers(self, numbers: list[int]) -> list[list[int]]:
        """Return every rank's numbers (equally many), by rank."""
        own = torch.tensor(numbers, dtype=torch.long, device=self._device)
        lines = [torch.empty_like(own) for _ in range(self.ranks)]
        dist.all_gather(lines, own, group=self._group)
        return [line.tolist() for line in lines]

    def meet(self, what: int, numbers: list[int]) -> list[list[int]]:
        """Return by rank the ``what`` (0 or more) that it is about to do, followed by its numbers (up to five, padded
        with 0).

        Raises `GivenUpError` where another rank has come to say that it cannot.
        """
        table = self.gather_numbers([what, *numbers, *[0] * (_NUMBERS - 1 - len(numbers))])
        given_up = [rank for rank, line in enumerate(table) if line[0] == _GAVE_UP]
        if given_up and what != _GAVE_UP:
            raise GivenUpError(f"process {given_up[0]} of this run has no memory left; its own message says where")
        return table

    def give_up(self) -> None:
        """Take the place of the next `meet`, so that all other ranks raise `GivenUpError` there."""
        self.meet(_GAVE_UP, [])

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over the ranks; in place where the tensor is on the device of the collectives."""
        return self._reduce(tensor, dist.ReduceOp.SUM)

    def maximum(self, tensor: Tensor) -> Tensor:
        """Return the element-wise maximum over the ranks; in place where `sum` is."""
        return self._reduce(tensor, dist.ReduceOp.MAX)

    def _reduce(self, tensor: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
        moved = tensor.to(self._device)
        dist.all_reduce(moved, op=how, group=self._group)
        return moved.to(tensor.device)

    def gather_lines(self, lines: Tensor, counts: list[int]) -> Tensor:
        """Return the lines of all ranks, concatenated in the order of ranks; ``counts`` is the number of each rank's
        lines.
        """
        padded = lines.new_zeros(max(counts), *lines.shape[1:], device=self._device)
        padded[: len(lines)] = lines
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded, group=self._group)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def return_answers(self, lines: Tensor, counts: list[int]) -> Tensor:
        """Return [W B …], each rank's answers to this rank's B lines, from answers laid out as `gather_lines` returns
        lines.
        """
        own = counts[self.rank]
        received = lines.new_empty(self.ranks * own, *lines.shape[1:], device=self._device)
        self._all_to_all(received, lines, [own] * self.ranks, counts)
        return received.view(self.ranks, own, *lines.shape[1:])

    def send_to_each(self, lines: Tensor, counts: list[int]) -> tuple[Tensor, list[int]]:
        """Send ``counts[r]`` consecutive lines to each rank r; return the lines received, and how many each rank
        sent.
        """
        incoming = torch.empty(self.ranks, dtype=torch.long, device=self._device)
        one_each = [1] * self.ranks
        self._all_to_all(incoming, torch.tensor(counts), one_each, one_each)
        splits: list[int] = incoming.tolist()
        received = lines.new_empty(sum(splits), *lines.shape[1:], device=self._device)
        self._all_to_all(received, lines, splits, counts)
        return received, splits

    def _all_to_all(self, received: Tensor, lines: Tensor, incoming: list[int], outgoing: list[int]) -> None:
        sent = lines.to(self._device).contiguous()
        dist.all_to_all_single(received, sent, incoming, outgoing, group=self._group)
