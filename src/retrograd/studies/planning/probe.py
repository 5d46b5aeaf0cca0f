"""A few real steps of a small experiment, timed: the model itself, its own data, a base of at most 512 passages."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from retrograd.experiments.build import build_model
from retrograd.experiments.data.source import Data
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.run import compute_for
from retrograd.experiments.settings import IndexSettings, MaskingSettings
from retrograd.experiments.stages import build_stages
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.rag.index_source import IndexSource, Passages
from retrograd.rag.rag_model import RagModel
from retrograd.training.gradients import add_gradients
from retrograd.training.optimiser import clip
from retrograd.training.stage import Stage
from retrograd.types import Example, UserError

__all__ = ["MeasuredSeconds", "measure_seconds"]

_PASSAGES = 512
_ANSWERS = 16
_STEPS = 4
_SECONDS = 10.0
_RATE = 1e-6


@dataclass(frozen=True)
class MeasuredSeconds:
    """Seconds of one step of each stage, by its name, of embedding one passage, and of one answer.

    ``is_cached`` says that the cache holds the embeddings that the run begins with.
    """

    step: dict[str, float]
    passage: float
    answer: float
    is_cached: bool = False


def measure_seconds(experiment: Experiment, data: Data) -> MeasuredSeconds:
    """Time at most four steps and ten seconds of each stage, after one that does not count. Nothing is written."""
    compute = compute_for(experiment)
    rows = list(range(0, len(data.base), max(1, len(data.base) // _PASSAGES)))[:_PASSAGES]
    source = IndexSource(experiment.index)
    experiment = replace(experiment, index=IndexSettings(cache=False))  # it is the embedding that is timed
    small = replace(data, base=KnowledgeBase.from_passages(data.base.passages(rows)))
    rng = torch.Generator().manual_seed(experiment.seed)
    state = torch.random.get_rng_state()
    model = build_model(experiment, small, rng, compute.precision).to(compute.device)
    passage, is_cached = 0.0, False
    if model.needs_index:
        with model.autocast():
            is_cached = source.is_embedded_before(Passages(model.passage_side, data.task, data.base))
        passage = _timed(model.refresh_index, compute.device) / len(rows)
    model.train()
    steps = {
        stage.name: _step_seconds(model, stage, list(stage.examples or data.train), rng)
        for stage in _build_stages(experiment, model, rng)
    }
    questions = (data.test or data.train)[:_ANSWERS]
    answer = _timed(lambda: _answer(experiment, model, questions), compute.device) / max(1, len(questions))
    torch.random.set_rng_state(state)
    return MeasuredSeconds(steps, passage, answer, is_cached)


def _build_stages(experiment: Experiment, model: RagModel, rng: torch.Generator) -> list[Stage]:
    """Return the stages over the few passages of the probe, in which masks are found by rules: a file of spans names
    others. Where the rules find nothing, masking is not among them.
    """
    try:
        return build_stages(replace(experiment, masking=replace(experiment.masking, spans="", passages=0)), model, rng)
    except UserError:
        return build_stages(replace(experiment, masking=MaskingSettings()), model, rng)


def _answer(experiment: Experiment, model: RagModel, questions: list[Example]) -> None:
    model.predict(questions, min(experiment.test_passages, len(model.base)), experiment.evaluation.scoring)


def _step_seconds(model: RagModel, stage: Stage, examples: list[Example], rng: torch.Generator) -> float:
    """Return the median of the timed steps. Weights move a millionth, so that the model stays what it was."""
    moved = [weight for weights in model.parts().values() for weight in weights]
    optimiser = torch.optim.AdamW(moved, lr=_RATE, fused=True)
    size = stage.pace.batch_size
    seconds: list[float] = []
    start = time.perf_counter()
    for step in range(_STEPS + 1):
        batch = [examples[(step * size + i) % len(examples)] for i in range(min(size, len(examples)))]
        took = _timed(lambda batch=batch: _step(model, stage, batch, optimiser, rng), model.device)
        seconds += [took] if step > 0 else []
        if seconds and time.perf_counter() - start > _SECONDS:
            break
    return sorted(seconds)[len(seconds) // 2]


def _step(
    model: RagModel, stage: Stage, batch: list[Example], optimiser: torch.optim.Optimizer, rng: torch.Generator
) -> None:
    """Make one step as the loop does (`retrograd.training.loop`), without its log."""
    size = stage.pace.micro_batch or len(batch)
    for start in range(0, len(batch), size):
        part = batch[start : start + size]
        with model.resting(stage.remembered_scores(ranks=1)):
            add_gradients(model, stage, part, len(part) / len(batch), rng)
    clip(optimiser, stage.pace.clip)
    optimiser.step()
    model.zero_grad()


def _timed(work: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
