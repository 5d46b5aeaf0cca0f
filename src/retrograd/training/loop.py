"""Train one stage, in one function that fits on a screen and names no objective; each line is one step.

What happens between a batch and its gradients is in `retrograd.training.gradients`: candidates, likelihood, objective,
backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from retrograd.rag.rag_model import RagModel
from retrograd.training.distributed.micro_batches import MicroBatches
from retrograd.training.distributed.ranks import Ranks
from retrograd.training.gradients import MicroBatchGradients
from retrograd.training.monitoring.alarms import Alarms
from retrograd.training.monitoring.watch import Score, Watch, is_due
from retrograd.training.optimiser import build_optimiser, clip, trained_weights
from retrograd.training.refresh.fresh_index import draw_probe, embed_base, prepare_index
from retrograd.training.refresh.live_index import LiveIndex
from retrograd.training.refresh.policies import Never
from retrograd.training.run.checkpoints import Checkpoints
from retrograd.training.run.run_directory import RunDirectory
from retrograd.training.run.saved_state import StageState
from retrograd.training.sampling.batches import BatchOrder
from retrograd.training.sampling.chains import Chains
from retrograd.training.sampling.targets import Targets
from retrograd.training.stage import Stage
from retrograd.training.tracking.run_log import RunLog
from retrograd.types import Example
from retrograd.util.progress import bar

__all__ = ["train"]


# More than 40 lines, so that the whole algorithm is read in one place: first what a stage needs, then its steps.
def train(
    model: RagModel,
    examples: Sequence[Example],
    stage: Stage,
    run: RunDirectory,
    rng: torch.Generator,
    score: Score | None = None,
    checkpoints: Checkpoints | None = None,
    log: RunLog | None = None,
) -> None:
    """Train the model on one stage. ``rng`` orders the examples, draws their targets and feeds the sampler.

    Where a process group has been started all its ranks call this, with the same arguments and ``rng`` in the same
    state, and train one model: see `retrograd.training.distributed.ranks`.

    ``score`` is what ``evaluate_every`` calls; it must leave the model in training mode. ``checkpoints``, those of the
    whole run, may say that part of the stage is done. ``log`` takes the lines of metrics; by default they go to
    ``metrics.jsonl`` and to people. Where passages have moved, the index is fresh again at the end.
    """
    pace, ranks, saves = stage.pace, Ranks(), checkpoints or Checkpoints(run, model, rng)
    order = BatchOrder(len(examples), pace.batch_size, pace.epochs, rng)
    optimiser, schedule = build_optimiser(model, stage, order.steps)
    targets, alarms = Targets(examples, stage.targets), Alarms(run, stage, order.steps, len(model.base))
    chains, sampler = Chains(targets.choices), ranks.sampler(rng)
    micro_batches = MicroBatches(pace.micro_batch or pace.batch_size, model, chains, sampler, ranks)
    gradients = MicroBatchGradients(model, stage, run, examples, targets, chains, sampler)
    moves, remembered = prepare_index(model, stage, saves.midway), stage.remembered_scores(ranks.count)
    refresh = stage.refresh if moves else Never()
    index = LiveIndex(model, draw_probe(model, examples, stage, saves.stage_start) if moves else None, run.path)
    watch = Watch(model, stage, order.steps, log or RunLog(run), alarms, saves, index if moves else None, score)
    state = StageState(
        name=stage.name,
        examples=examples,
        stage_start=saves.stage_start,
        order=order,
        optimiser=optimiser,
        schedule=schedule,
        targets=targets,
        chains=chains,
        index=index,
        remembered=remembered,
        alarms=alarms,
        sampler=sampler,
        micro_batches=micro_batches,
    )
    model.train()
    with bar(stage.name, order.steps, "steps") as advance, index, model.resting(remembered), saves.stage(state) as done:
        advance(done)
        for step, positions in order.from_step(done):
            refresh.apply(index, step)
            # For each micro-batch candidates → likelihood → objective → backward: `MicroBatchGradients.add`.
            visit = micro_batches.run(positions, targets.draw(positions, rng), partial(gradients.add, step))
            index.record_reads(visit.rows, step)
            ranks.sum_gradients(trained_weights(model))
            norms = watch.gradient_norms(step)
            norm = clip(optimiser, pace.clip)
            run.require_finite(norm, [examples[i] for i in positions.tolist()], stage.name, step)
            optimiser.step()
            schedule.step()
            model.zero_grad()
            advance(1)
            watch.report(step, visit, norm, norms)
            del visit  # or its tensors would be held through the next step
            # At the last step, too: the last embedding may cost more than the stage, and fail.
            saves.after_step(step + 1, is_due(step, stage.save_every, order.steps))
        watch.save_targets(run, examples, targets)
        run.save_chains(stage.name, chains)
    if moves and order.steps > 0:
        embed_base(model)
