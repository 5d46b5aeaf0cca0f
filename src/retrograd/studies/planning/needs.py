"""Records of what an experiment needs: memory by use, the cost of each stage, and the plan that holds them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from retrograd.experiments.stage_description import StageDescription
from retrograd.studies.planning.data import DataFacts
from retrograd.studies.planning.hardware import Hardware
from retrograd.studies.planning.index import IndexFacts
from retrograd.studies.planning.model import ModelFacts
from retrograd.studies.planning.stages import PromptsPerQuery
from retrograd.util.guards import JsonObject

__all__ = ["Memory", "Plan", "StageCost"]


@dataclass(frozen=True)
class Memory:
    """Bytes of a process, by use."""

    weights: float
    gradients: float
    optimiser: float
    copies: float
    activations: float
    index: float
    libraries: float

    @property
    def total(self) -> float:
        return sum(asdict(self).values())


@dataclass(frozen=True)
class StageCost:
    """Cost of a stage: prompts for one query and step, tokens and operations of a step, seconds of all steps; None
    where unknown.
    """

    stage: StageDescription
    prompts: PromptsPerQuery
    prompt_tokens: int
    tokens: float
    operations: float
    memory: Memory
    seconds: float | None


@dataclass(frozen=True)
class Plan:
    """The plan for so many processes, each with hardware of its own.

    ``embedding`` and ``answering`` are seconds beside the stages' own; ``saved`` are those of embedding the base once,
    which an index that is there saves, and a cached one will save later runs. ``probed`` says that steps were timed,
    not computed.
    """

    name: str
    hardware: Hardware
    data: DataFacts
    model: ModelFacts
    index: IndexFacts
    stages: tuple[StageCost, ...]
    embedding: float | None
    answering: float | None
    saved: float | None
    probed: bool
    refusal: str | None
    notes: tuple[str, ...]

    @property
    def processes(self) -> int:
        return self.model.processes

    @property
    def memory(self) -> Memory:
        """Return the memory of the stage that needs most."""
        return max((stage.memory for stage in self.stages), key=lambda memory: memory.total)

    @property
    def index_bytes(self) -> int | None:
        """Return the bytes of the index, on the disk or in memory; None where the passages are not known."""
        passages = self.data.passages
        return None if passages is None else round(passages * self.index.row_bytes(self.model.dimension))

    @property
    def seconds(self) -> float | None:
        """Return the seconds of stages, embedding and answering the test; None where any is unknown."""
        durations = [*(stage.seconds for stage in self.stages), self.embedding, self.answering]
        return None if any(part is None for part in durations) else sum(part for part in durations if part is not None)

    def record(self) -> JsonObject:
        """Return the plan as JSON; bytes, seconds, operations."""
        return {
            "name": self.name,
            "processes": self.processes,
            "hardware": {"name": self.hardware.name, "memory": self.hardware.memory, "speed": self.hardware.speed},
            "parameters": [asdict(part) for part in self.model.weights],
            "memory": {**asdict(self.memory), "total": self.memory.total},
            "index_bytes": self.index_bytes,
            "index_ready": self.index.is_ready,
            "saved_seconds": self.saved,
            "stages": [_stage_record(part) for part in self.stages],
            "embedding_seconds": self.embedding,
            "answering_seconds": self.answering,
            "seconds": self.seconds,
            "probed": self.probed,
            "refusal": self.refusal,
            "notes": list(self.notes),
        }


def _stage_record(cost: StageCost) -> JsonObject:
    return {
        "name": cost.stage.name,
        "steps": cost.stage.steps,
        "prompts_without_gradient": cost.prompts.without_gradient * cost.stage.queries,
        "prompts_with_gradient": cost.prompts.with_gradient * cost.stage.queries,
        "prompt_tokens": cost.prompt_tokens,
        "tokens_per_step": cost.tokens,
        "operations_per_step": cost.operations,
        "seconds": cost.seconds,
    }
