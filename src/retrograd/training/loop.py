"""The loop. One function, one screen; it knows no objective by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from retrograd.models.compute.attention import training_attention
from retrograd.models.compute.fsdp import by_placement, clip_gradients, gradient_norm
from retrograd.objectives.objective import Objective
from retrograd.rag.rag_model import RagModel
from retrograd.rag.staleness import Probe, fault_of
from retrograd.training.distributed.fitting import Fitting
from retrograd.training.distributed.ranks import Part, Ranks
from retrograd.training.monitoring.alarms import Alarms
from retrograd.training.monitoring.health import Visit, health, health_line
from retrograd.training.refresh.live_index import LiveIndex
from retrograd.training.refresh.policies import refreshes, require_one_process
from retrograd.training.run.checkpoints import Checkpoints
from retrograd.training.run.run_directory import RunDirectory
from retrograd.training.run.saved_state import StageState
from retrograd.training.sampling.batches import Order
from retrograd.training.sampling.chains import Chains
from retrograd.training.sampling.targets import Targets
from retrograd.training.schedule import schedule_of
from retrograd.training.stage import Pace, Stage
from retrograd.types import Example, UserError
from retrograd.util.progress import bar, say

__all__ = ["embed_base", "embed_base_if_stale", "train"]

Score = Callable[[RagModel], dict[str, float]]
_PROBE_QUERIES, _PROBE_BEST = 32, 10


def train(
    model: RagModel,
    examples: Sequence[Example],
    stage: Stage,
    run: RunDirectory,
    rng: torch.Generator,
    score: Score | None = None,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Run one stage. ``rng`` orders the examples, draws their targets and feeds the sampler.

    Where a process group has been started all its ranks call this, with the same arguments and ``rng`` in the same
    state, and train one model: see `retrograd.training.distributed.ranks`.

    ``score`` is what ``evaluate_every`` calls; it must leave the model in training mode. ``checkpoints``, those of the
    whole run, may say that part of the stage is done. Where passages have moved, the index is fresh again at the end.
    """
    pace, ranks, saves = stage.pace, Ranks(), checkpoints or Checkpoints(run, model, rng)
    order = Order(len(examples), pace.batch_size, pace.epochs, rng)
    optimiser, schedule = _optimiser(model, stage.objective, pace, order.steps)
    targets, alarms = Targets(examples, stage.targets), Alarms(run, stage, order.steps, len(model.base))
    chains, sampler = Chains(targets.choices), ranks.sampler(rng)
    fitting = Fitting(pace.micro_batch or pace.batch_size, model, chains, sampler, ranks)
    moves = _with_index(model, stage, saves.midway)
    model.train()
    live = LiveIndex(model, _probe(model, examples, stage, saves.began) if moves else None, run.path)
    state = StageState(
        stage.name, examples, saves.began, order, optimiser, schedule, targets, chains, live, alarms, sampler, fitting
    )
    with bar(stage.name, order.steps, "steps") as advance, live, saves.stage(state) as made:
        advance(made)
        for step, positions in order.from_step(made):
            if moves:
                stage.refresh.apply(live, step)
            visit, read, drawn = None, [], targets.draw(positions, rng)
            for parts in fitting.tries(positions, drawn):  # again, in smaller ones, where memory runs out
                read.clear()
                with fitting.watched():
                    for part in parts:
                        batch = targets.first([examples[i] for i in part.positions.tolist()], part.target)
                        with run.guard(batch, stage.name, step):
                            visit = _gradients(model, stage, batch, part, chains, sampler)
                        read.append(visit.candidates.rows)
            live.saw(read, step)
            ranks.sum_gradients(_trained(model))
            logged = _due(step, stage.log_every, order.steps)
            norms = _norms(model) if logged else {}
            norm = _clip(optimiser, pace.clip)
            run.require_finite(norm, [examples[i] for i in positions.tolist()], stage.name, step)
            optimiser.step()
            schedule.step()
            model.zero_grad()
            advance(1)
            if visit is not None and logged:
                ranks.require_equal(_trained(model))
                values = ranks.means(health(model, visit, norm), visit.weight)
                values |= norms | (live.diagnostics(step + 1) if moves else {})
                _tell(run, alarms, stage.name, step + 1, order.steps, values, visit)
            if score is not None and _due(step, stage.evaluate_every):
                run.log(step + 1, stage.name, saves.judged(score(model), stage.name, step + 1))
            # At the last step, too: the last embedding may cost more than the stage, and fail.
            saves.after_step(step + 1, _due(step, stage.save_every, order.steps))
        run.save_targets(stage.name, order.steps, examples, targets)
        run.save_chains(stage.name, chains)
    if moves and order.steps > 0:
        embed_base(model)


def _gradients(
    model: RagModel,
    stage: Stage,
    batch: Sequence[Example],
    part: Part,
    chains: Chains,
    rng: torch.Generator,
) -> Visit:
    """Add what a part of a batch has to say to the gradients, and have its chains go on.

    Weighted by query counts: the gradient is that of the mean over the queries of a step, however it is split.
    """
    objective, evidence = stage.objective, stage.evidence
    previous = chains.rows(part.positions, part.target)
    with model.autocast(), training_attention(model.device):
        candidates = evidence.candidates(model, batch, objective.needs_posterior, previous, rng)
        estimate = objective(candidates.scores, evidence.likelihood(model, batch, candidates), rng)
    (estimate.loss * part.weight).backward()
    chains.remember(part.positions, part.target, candidates, estimate.last)
    return Visit(batch, candidates, estimate, part.weight)


def embed_base(model: RagModel) -> None:
    """Refresh the index, with a bar of its own; of ranks that share it, for the rows of this one."""
    rows = len(model.base) // (Ranks().count if model.sharded else 1)
    with bar("embedding the base", rows, "passages") as advance:
        model.refresh_index(advance)


def embed_base_if_stale(model: RagModel) -> None:
    """Embed the base unless the passage tower as it is now has built the index, and the index holds what it says.

    Nothing is done where searching takes no embeddings. Cost where an index is current: the tower's weights are hashed,
    and 16 passages encoded. Raises `UserError` for an index to be embedded anew that is not exact.
    """
    if not model.needs_index:
        return
    if not model.index_is_current():
        embed_base(model)
        return
    fault = fault_of(model)
    if fault is not None:
        say(f"the index is damaged: {fault}; it must be embedded anew")
        embed_base(model)


def _with_index(model: RagModel, stage: Stage, midway: bool) -> bool:
    """Have an index that a stage may begin with, or the stale one that it goes on with; whether the stage moves it.

    Raises `UserError` for one that cannot be refreshed where it will have to be.
    """
    Ranks().require_equal(_trained(model))  # or each would search with another tower
    moves = _moves_passages(model, stage)
    if moves and Ranks().count > 1:
        require_one_process(stage.refresh)
    if stage.evidence.retrieves and not midway:
        embed_base_if_stale(model)
    if moves:
        model.require_movable_index()  # or the last refresh would refuse, after all steps
    return moves


def _moves_passages(model: RagModel, stage: Stage) -> bool:
    """Whether this stage makes an index stale. Says so where a refresh is wanted and the query side alone learns."""
    learns = stage.objective.trains_retriever and stage.pace.retriever_learning_rate > 0
    if not (stage.evidence.retrieves and learns):
        return False
    moves = model.passage_side.moves
    if model.retriever.trained == "query" and not moves and refreshes(stage.refresh):
        say(f"{stage.name}: only the query tower learns, no passage embedding moves, so the index needs no refresh")
    return moves


def _probe(model: RagModel, examples: Sequence[Example], stage: Stage, began: UInt8[Tensor, " bytes"]) -> Probe | None:
    """Drawn from a copy of the random source as it was when the stage began: that it is measured changes nothing."""
    if stage.probe_passages == 0:
        return None
    copy = torch.Generator()
    copy.set_state(began)
    return Probe.draw(model.index.held_rows, examples, stage.probe_passages, _PROBE_QUERIES, _PROBE_BEST, copy)


def _optimiser(model: RagModel, objective: Objective, pace: Pace, steps: int) -> tuple[torch.optim.AdamW, LambdaLR]:
    """AdamW over whatever is trained, each part at its own rate; all rates rise and fall together, as the pace says."""
    retrievers = [part for part in (model.retriever, model.posterior) if part is not None]
    learning = retrievers if objective.trains_retriever else []
    scales = [scale for part in learning for scale in part.trained_scales()]
    # Prior and posterior may share a tower, and each weight belongs to the optimiser once.
    theirs = list(dict.fromkeys(w for part in learning for w in part.trained_weights()))
    its = [w for w in model.generator.parameters() if w.requires_grad]
    rated = (
        (theirs, pace.retriever_learning_rate, pace.weight_decay),
        (its, pace.generator_learning_rate, pace.weight_decay),
        (scales, pace.scale_learning_rate, 0.0),
    )
    groups = [
        {"params": some, "lr": rate, "weight_decay": decay}
        for weights, rate, decay in rated
        if rate > 0
        for some in by_placement(weights)
    ]
    if not groups:
        raise UserError("nothing is trained: all learning rates are 0, or everything they apply to is frozen")
    # One fused kernel: 0.025 s instead of 0.125 s a step for 39 M weights on two cores.
    optimiser = torch.optim.AdamW(groups, fused=True)
    return optimiser, LambdaLR(optimiser, schedule_of(pace.schedule, pace.warmup, pace.restarts, steps))


def _trained(model: RagModel) -> list[nn.Parameter]:
    return [weight for weight in model.parameters() if weight.requires_grad]


def _clip(optimiser: torch.optim.Optimizer, bound: float) -> float:
    """Scale the gradients down to norm ``bound`` (0: leave them); returns the norm before."""
    weights = [w for group in optimiser.param_groups for w in group["params"]]
    return clip_gradients(weights, bound if bound > 0 else float("inf"))


def _tell(
    run: RunDirectory, alarms: Alarms, stage: str, step: int, steps: int, values: dict[str, float], visit: Visit
) -> None:
    """In the log, in a line for people, and to whatever may sound an alarm."""
    run.log(step, stage, values)
    say(health_line(stage, step, steps, values))
    alarms.hear(step, values, visit)


def _norms(model: RagModel) -> dict[str, float]:
    """The gradient's norm before clipping, by part of the model."""
    return {
        f"gradient_norm_{part}": float(gradient_norm(weights))
        for part, weights in model.parts().items()
        if any(weight.grad is not None for weight in weights)
    }


def _due(step: int, every: int, steps: int | None = None) -> bool:
    """After every ``every`` steps (0: never), and after the last one where ``steps`` is given."""
    return every > 0 and ((step + 1) % every == 0 or step + 1 == steps)
