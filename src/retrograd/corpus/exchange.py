"""What the ranks of a process group say to each other: tables of numbers, and lines of tensors of unequal number."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist

from retrograd.types import UserError

__all__ = ["Exchange"]


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
