"""How many queries are held in memory at once: as many as was asked for, and half as many each time that memory ends.

A step that found no memory leaves no trace: what it made is freed, gradients are zeroed, random states and chains are
put back to where the step began. So the run is the one that asked for the smaller micro-batch from this step on.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from retrograd.index.exchange import GivenUpError, ran_out_of_memory
from retrograd.models.compute.fsdp import is_spread
from retrograd.models.inputs.prompt_tokens import PromptCounts
from retrograd.rag.rag_model import RagModel
from retrograd.training.distributed.ranks import Part, Ranks
from retrograd.training.sampling.chains import Chains
from retrograd.types import UserError
from retrograd.util.progress import say

__all__ = ["Fitting"]


@dataclass(frozen=True)
class _Before:
    """What a step changes before its optimiser does."""

    rows: Int[Tensor, " b"]
    sampler: UInt8[Tensor, " bytes"]
    cpu: UInt8[Tensor, " bytes"]
    cuda: UInt8[Tensor, " bytes"] | None
    prompts: PromptCounts


class Fitting:
    """The micro-batches of a stage; ``size`` is how many queries a rank holds at once, at first as many as asked for.

    ``sampler`` is what the objective draws from. All ranks halve together.
    """

    def __init__(self, size: int, model: RagModel, chains: Chains, sampler: torch.Generator, ranks: Ranks) -> None:
        self.size = size
        self._model = model
        self._chains = chains
        self._sampler = sampler
        self._ranks = ranks
        self._failed = False
        self._held = size

    def tries(self, positions: Int[Tensor, " b"], target: Int[Tensor, " b"]) -> Iterator[list[Part]]:
        """A batch in parts; again, in smaller ones, while what is done with them `watched` finds no memory.

        Raises `UserError` where one query is too much.
        """
        before = self._state(positions, target)
        self._failed = True
        while self._failed:
            self._failed = False
            self._held = self._ranks.largest_part(len(positions), self.size)
            yield self._ranks.parts(positions, target, self.size)
            if self._failed:
                self._put_back(before, positions, target)
                self._halve()
        self._chains.put(positions, target, self._ranks.joined(self._own_rows(positions, target), len(positions)))

    @contextmanager
    def watched(self) -> Iterator[None]:
        """What may run out of memory: on all ranks, as soon as it does on one."""
        try:
            yield
            self._ranks.done()
        except GivenUpError:
            self._failed = True
        except RuntimeError as error:
            if not ran_out_of_memory(error):
                raise
            if is_spread(self._model.generator):  # the others wait for a layer, where nobody can tell them
                self._end()
            self._failed = True
            self._ranks.give_up()

    def _own_rows(self, positions: Int[Tensor, " b"], target: Int[Tensor, " b"]) -> Int[Tensor, " n"]:
        return self._chains.at(self._ranks.share(positions), self._ranks.share(target))

    def _state(self, positions: Int[Tensor, " b"], target: Int[Tensor, " b"]) -> _Before:
        device, prompts = self._model.retriever.query_encoder.device, self._model.generator.prompt_tokens
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        counts = prompts.counts
        rows = self._chains.at(positions, target)
        return _Before(rows, self._sampler.get_state(), torch.get_rng_state(), cuda, counts)

    def _put_back(self, before: _Before, positions: Int[Tensor, " b"], target: Int[Tensor, " b"]) -> None:
        self._model.zero_grad()
        torch.clear_autocast_cache()
        gc.collect()  # graphs that hold themselves, as recomputed layers do
        self._chains.put(positions, target, before.rows)
        self._sampler.set_state(before.sampler)
        torch.set_rng_state(before.cpu)
        if before.cuda is not None:
            torch.cuda.empty_cache()
            torch.cuda.set_rng_state(before.cuda, self._model.retriever.query_encoder.device)
        self._model.generator.prompt_tokens.resume_counts(before.prompts)

    def _halve(self) -> None:
        held = self._held
        self._require_two()
        self.size = held // 2
        say(
            f"out of memory with {held} queries at once: this step is made again, and the rest, with {self.size}; set "
            f"training.micro_batch = {self.size} next time"
        )

    def _end(self) -> NoReturn:
        self._require_two()
        raise UserError(
            f"out of memory with {self._held} queries at once, and with generator.fsdp a run cannot go on with fewer; "
            f"train another with training.micro_batch = {self._held // 2}"
        )

    def _require_two(self) -> None:
        if self._held == 1:
            raise UserError(
                "there is no memory for one query; lower training.passages or generator.max_input_tokens, set "
                "generator.gradient_checkpointing = true, or train adapters alone (generator.lora_rank = 8)"
            )
