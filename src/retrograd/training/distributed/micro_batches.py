"""Split each batch into micro-batches, and halve them each time memory runs out.

A step that found no memory leaves no trace: what it made is freed, gradients are zeroed, random states and chains are
put back to where the step began. So the run is the one that asked for the smaller micro-batch from this step on.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from retrograd.index.exchange import GivenUpError, ran_out_of_memory
from retrograd.models.compute.fsdp import is_spread
from retrograd.models.inputs.prompt_tokens import PromptCounts
from retrograd.rag.rag_model import RagModel
from retrograd.training.distributed.ranks import MicroBatch, Ranks
from retrograd.training.monitoring.health import Visit
from retrograd.training.sampling.chains import Chains
from retrograd.types import UserError
from retrograd.util.progress import say

__all__ = ["BatchVisit", "MicroBatches"]


@dataclass(frozen=True)
class BatchVisit:
    """A batch as this rank has read it: its ``last`` micro-batch, and the candidate ``rows`` of each.

    The batch has so many ``queries`` on all ranks; the generator of this one has read so many ``tokens`` of prompts.
    """

    last: Visit
    rows: tuple[Int[Tensor, "_ _"], ...]
    queries: int
    tokens: int


@dataclass(frozen=True)
class _StateBefore:
    """The state that a step changes before its optimiser does."""

    rows: Int[Tensor, " b"]
    sampler: UInt8[Tensor, " bytes"]
    cpu: UInt8[Tensor, " bytes"]
    cuda: UInt8[Tensor, " bytes"] | None
    prompts: PromptCounts


class MicroBatches:
    """The micro-batches of a stage; ``size`` is how many queries a rank holds at once, at first as many as asked for.

    ``sampler`` is what the objective draws from. All ranks halve together.
    """

    def __init__(self, size: int, model: RagModel, chains: Chains, sampler: torch.Generator, ranks: Ranks) -> None:
        self.size = size
        self._model = model
        self._chains = chains
        self._sampler = sampler
        self._ranks = ranks

    def run(
        self, positions: Int[Tensor, " b"], target: Int[Tensor, " b"], add_gradients: Callable[[MicroBatch], Visit]
    ) -> BatchVisit:
        """Call ``add_gradients`` with each micro-batch of a batch in turn, on all ranks.

        Where one rank runs out of memory, all begin the batch again with half as many queries at once. Raises
        `UserError` where one query is too much.
        """
        state_before = self._state(positions, target)
        while (visit := self._attempt(positions, target, add_gradients, state_before.prompts.tokens)) is None:
            queries_at_once = self._count_held(len(positions))
            self._restore(state_before, positions, target)
            self._halve(queries_at_once)
        self._chains.put(positions, target, self._ranks.join_shares(self._own_rows(positions, target), len(positions)))
        return visit

    def _attempt(
        self,
        positions: Int[Tensor, " b"],
        target: Int[Tensor, " b"],
        add_gradients: Callable[[MicroBatch], Visit],
        tokens_before: int,
    ) -> BatchVisit | None:
        """Return None where this rank or another ran out of memory; the error, and what it held, is then forgotten."""
        rows: list[Int[Tensor, "_ _"]] = []
        visit: Visit | None = None
        try:
            for micro_batch in self._ranks.micro_batches(positions, target, self.size):
                visit = add_gradients(micro_batch)
                rows.append(visit.candidates.rows)
            self._ranks.done()
        except GivenUpError:
            return None
        except RuntimeError as error:
            if not ran_out_of_memory(error):
                raise
            if is_spread(self._model.generator):  # the others wait for a layer, where nobody can tell them
                self._refuse(self._count_held(len(positions)))
            self._ranks.give_up()
            return None
        assert visit is not None  # a batch has an example, and each rank a micro-batch of it
        tokens = self._model.generator.prompt_tokens.tokens - tokens_before
        return BatchVisit(visit, tuple(rows), len(positions), tokens)

    def _count_held(self, queries: int) -> int:
        return self._ranks.largest_share(queries, self.size)

    def _own_rows(self, positions: Int[Tensor, " b"], target: Int[Tensor, " b"]) -> Int[Tensor, " n"]:
        return self._chains.at(self._ranks.share(positions), self._ranks.share(target))

    def _state(self, positions: Int[Tensor, " b"], target: Int[Tensor, " b"]) -> _StateBefore:
        device, prompts = self._model.device, self._model.generator.prompt_tokens
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        rows = self._chains.at(positions, target)
        return _StateBefore(rows, self._sampler.get_state(), torch.get_rng_state(), cuda, prompts.counts)

    def _restore(self, state_before: _StateBefore, positions: Int[Tensor, " b"], target: Int[Tensor, " b"]) -> None:
        self._model.zero_grad()
        torch.clear_autocast_cache()
        gc.collect()  # graphs that hold themselves, as recomputed layers do
        self._chains.put(positions, target, state_before.rows)
        self._sampler.set_state(state_before.sampler)
        torch.set_rng_state(state_before.cpu)
        if state_before.cuda is not None:
            torch.cuda.empty_cache()
            torch.cuda.set_rng_state(state_before.cuda, self._model.device)
        self._model.generator.prompt_tokens.resume_counts(state_before.prompts)

    def _halve(self, queries_at_once: int) -> None:
        _require_two(queries_at_once)
        self.size = queries_at_once // 2
        say(
            f"out of memory with {queries_at_once} queries at once: this step is made again, and the rest, with "
            f"{self.size}; set training.micro_batch = {self.size} next time"
        )

    def _refuse(self, queries_at_once: int) -> NoReturn:
        _require_two(queries_at_once)
        raise UserError(
            f"out of memory with {queries_at_once} queries at once, and with generator.fsdp a run cannot go on with "
            f"fewer; train again with training.micro_batch = {queries_at_once // 2}"
        )


def _require_two(queries_at_once: int) -> None:
    if queries_at_once == 1:
        raise UserError(
            "there is no memory for one query; lower training.passages or generator.max_input_tokens, set "
            "generator.gradient_checkpointing = true, or train adapters alone (generator.lora_rank = 8)"
        )
