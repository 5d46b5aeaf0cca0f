"""What the ranks of a process group say to each other: tables of numbers, and lines of tensors of unequal number.

A rank that runs out of memory must not leave the others waiting for it. So whoever begins something together meets
first (`Exchange.meet`), and who cannot come says that instead (`Exchange.give_up`): all then leave it together.
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
    """A rank ran out of memory, and all have left what they were doing together."""


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error is torch's way of saying so."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


class Exchange:
    """Collectives of a group of W ranks: every rank calls the same ones in the same order.

    NCCL talks between GPUs, so tensors travel on the current CUDA device there, and on the CPU with any other backend.

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

    def table(self, numbers: list[int]) -> list[list[int]]:
        """Every rank's numbers (equally many), by rank."""
        own = torch.tensor(numbers, dtype=torch.long, device=self._device)
        lines = [torch.empty_like(own) for _ in range(self.ranks)]
        dist.all_gather(lines, own, group=self._group)
        return [line.tolist() for line in lines]

    def meet(self, what: int, numbers: list[int]) -> list[list[int]]:
        """Every rank's numbers (up to five, padded with 0) behind ``what`` it has come to do, at least 0, by rank.

        Raises `GivenUpError` where another rank has come to say that it cannot.
        """
        table = self.table([what, *numbers, *[0] * (_NUMBERS - 1 - len(numbers))])
        given_up = [rank for rank, line in enumerate(table) if line[0] == _GAVE_UP]
        if given_up and what != _GAVE_UP:
            raise GivenUpError(f"process {given_up[0]} of this run has no memory left; its own message says where")
        return table

    def give_up(self) -> None:
        """In the place of the next `meet`: whoever comes there leaves."""
        self.meet(_GAVE_UP, [])

    def add_up(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks, in place where the tensor lies on the device that they talk on."""
        return self._reduced(tensor, dist.ReduceOp.SUM)

    def largest(self, tensor: Tensor) -> Tensor:
        """The maximum over the ranks, element by element, likewise."""
        return self._reduced(tensor, dist.ReduceOp.MAX)

    def _reduced(self, tensor: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
        travelling = tensor.to(self._device)
        dist.all_reduce(travelling, op=how, group=self._group)
        return travelling.to(tensor.device)

    def from_all(self, lines: Tensor, counts: list[int]) -> Tensor:
        """The lines of all ranks one below the other; ``counts`` says how many each rank has. Padded on the way."""
        padded = lines.new_zeros(max(counts), *lines.shape[1:], device=self._device)
        padded[: len(lines)] = lines
        found = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(found, padded, group=self._group)
        return torch.cat([part[:count] for part, count in zip(found, counts, strict=True)])

    def home(self, lines: Tensor, counts: list[int]) -> Tensor:
        """From lines for all ranks (as `from_all` lays them) to [W B …]: each rank's answer to this rank's B lines."""
        own = counts[self.rank]
        received = lines.new_empty(self.ranks * own, *lines.shape[1:], device=self._device)
        self._all_to_all(received, lines, [own] * self.ranks, counts)
        return received.view(self.ranks, own, *lines.shape[1:])

    def to_each(self, lines: Tensor, counts: list[int]) -> tuple[Tensor, list[int]]:
        """Send ``counts[r]`` consecutive lines to each rank r: the lines received, and how many came from each."""
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
