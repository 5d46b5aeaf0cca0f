"""Train, resume and evaluate a run: from an experiment to a trained model on disk."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from retrograd.evaluation.abstention import fit_abstention
from retrograd.evaluation.calibration import calibrate
from retrograd.evaluation.evaluate import Evaluation, evaluate
from retrograd.evaluation.kept_neighbours import find_neighbours, sample_examples
from retrograd.experiments.build import open_first_model
from retrograd.experiments.card import write_run_cards
from retrograd.experiments.data.source import Data
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.precision import choose_precision
from retrograd.experiments.required_data import require_data
from retrograd.experiments.stages import build_stages
from retrograd.experiments.tracking import open_log, require_trackers
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.compute.compute import Compute, choose_device
from retrograd.models.compute.fsdp import spread_layers
from retrograd.models.compute.precision import PrecisionChoice
from retrograd.models.compute.precision_cache import Work
from retrograd.rag.index_source import IndexSource
from retrograd.rag.rag_model import RagModel
from retrograd.training.distributed.ranks import Ranks, is_first_process, join_process_group
from retrograd.training.loop import train
from retrograd.training.refresh.fresh_index import embed_base_if_stale
from retrograd.training.reproducible import require_determinism
from retrograd.training.run.checkpoints import Checkpoints
from retrograd.training.run.interrupts import Interrupts
from retrograd.training.run.run_directory import RunDirectory
from retrograd.training.stage import Stage
from retrograd.training.tracking.run_log import RunLog
from retrograd.training.tracking.tracker import Tracker
from retrograd.types import Example, UserError
from retrograd.util.files import lock_folder
from retrograd.util.guards import JsonObject, JsonValue
from retrograd.util.progress import say, silence_output
from retrograd.util.text_files import read_json, write_json, write_jsonl

__all__ = [
    "ScoredRun",
    "TrainedModel",
    "compute_for",
    "evaluate_experiment",
    "require_enough_passages",
    "require_passages",
    "resume_run",
    "run_experiment",
    "train_and_score",
    "train_experiment",
]


_INDEX_VERSIONS = "index"
"""The folder of the indexes of a run that began with a given one and moves passages; gone at its end."""


def require_passages(base: KnowledgeBase, setting: str, passages: int) -> None:
    """Raise `UserError` where ``passages``, the value of ``setting``, are more than the base has."""
    if passages > len(base):
        raise UserError(
            f"{setting} is {passages}, but the knowledge base holds {len(base)} passages; set it to {len(base)} at most"
        )


def require_enough_passages(experiment: Experiment, base: KnowledgeBase) -> None:
    """Raise `UserError` where any stage of an experiment, or its test, needs more passages than the base has."""
    for name, stage in (
        ("warm_start", experiment.warm_start),
        ("masking", experiment.masking),
        ("second_stage", experiment.second_stage),
    ):
        if stage.epochs > 0:
            require_passages(base, f"{name}.passages", stage.passages)
    require_passages(base, "training.passages", experiment.training.passages)
    require_passages(base, "evaluation.passages", experiment.evaluation.passages)


def run_experiment(
    experiment: Experiment,
    out: Path,
    interrupts: Interrupts | None = None,
    recipe: Experiment | None = None,
    trackers: Mapping[str, Tracker] | None = None,
) -> RunDirectory:
    """Train, save, evaluate. The model's card compares the settings with those of ``recipe``, without one with the
    defaults; ``trackers`` are as in `train_experiment`.

    Raises `UserError` before anything is written if the experiment cannot run, and `Interrupted`, all being saved,
    where ``interrupts`` (entered by the caller) are asked to stop.

    Each of the processes that ``torchrun`` starts calls it, and all train one model; the first one writes.
    """
    if not is_first_process():
        silence_output()
    RunDirectory.require_free(out)
    data = experiment.data.load(experiment.seed)
    return train_and_score(experiment, data, out, interrupts, recipe=recipe, trackers=trackers).run


def resume_run(
    path: Path, interrupts: Interrupts | None = None, trackers: Mapping[str, Tracker] | None = None
) -> RunDirectory:
    """Go on with a run that was stopped, killed included: on a CPU it ends as if it never had been, bit for bit.

    A run that ended is left as it is. Raises `UserError` for a folder that is no run, for one in which another process
    is at work, and where data, experiment or model are no longer those that the run began with.
    """
    if not is_first_process():
        silence_output()
    run = RunDirectory.open(path)
    experiment = Experiment.load(run.experiment)
    data = None if run.has_ended else experiment.data.load(experiment.seed)
    if data is None or (run.has_model and not data.test):
        say(f"{path} has ended; there is nothing to go on with")
        return run
    return train_and_score(experiment, data, path, interrupts, resume=True, trackers=trackers).run


@dataclass(frozen=True)
class ScoredRun:
    """A run that has ended: its folder, its model, the seconds that training took, and the evaluation on its test data,
    which is None where it has none."""

    run: RunDirectory
    model: RagModel
    seconds: float
    evaluation: Evaluation | None

    @property
    def required_evaluation(self) -> Evaluation:
        """Return the evaluation. Raises `UserError` where there are no test data."""
        if self.evaluation is None:
            raise UserError("data.test names no test data, which are to be answered here; give a file")
        return self.evaluation


def train_and_score(
    experiment: Experiment,
    data: Data,
    out: Path,
    interrupts: Interrupts | None = None,
    resume: bool = False,
    model: RagModel | None = None,
    recipe: Experiment | None = None,
    trackers: Mapping[str, Tracker] | None = None,
) -> ScoredRun:
    """Train, save and evaluate on data that have been read; the rest is as in `train_experiment`."""
    result = train_experiment(experiment, data, out, interrupts, resume, model, recipe, trackers)
    scores: dict[str, float] | None = None
    try:
        evaluation = _score_run(experiment, result, data, out) if data.test else None
        scores = evaluation.scores if evaluation else {}
    finally:
        result.log.close(scores)
    return ScoredRun(RunDirectory.open(out), result.model, result.seconds, evaluation)


def _score_run(experiment: Experiment, result: TrainedModel, data: Data, out: Path) -> Evaluation:
    """Evaluate a run on its test data, and write what that gives."""
    with _lock_run(out), result.checkpoints.save_when_interrupted():
        evaluation = evaluate_experiment(experiment, result.model, data.test)
        if Ranks().first:
            run = RunDirectory.open(out)
            with run.writing("answers and scores"):  # the scores at last: with them the run has ended
                write_run_cards(run, experiment, data, run.model, evaluation)
                evaluation.save(out)
    return evaluation


@dataclass(frozen=True)
class TrainedModel:
    """A trained model, the seconds that training took, the checkpoints that a later interruption adds to, and the log,
    which the caller closes."""

    model: RagModel
    seconds: float
    checkpoints: Checkpoints
    log: RunLog


def train_experiment(
    experiment: Experiment,
    data: Data,
    out: Path,
    interrupts: Interrupts | None = None,
    resume: bool = False,
    model: RagModel | None = None,
    recipe: Experiment | None = None,
    trackers: Mapping[str, Tracker] | None = None,
) -> TrainedModel:
    """Run all stages in turn, and save the model in the folder ``out`` with an index built by its passage tower.

    ``model`` is trained where it is given, else the one that the run began with, or a new one. With ``resume`` the
    folder is that of a run of this experiment, and training goes on from its newest checkpoint. ``recipe`` is kept in a
    new run, for the model's card. ``trackers``, by name, take each line of the log besides the experiment's own.
    """
    require_trackers(experiment.track)
    require_data(experiment, data)
    require_enough_passages(experiment, data.base)
    recorded = RunDirectory.open(out).recorded_precision() if resume else None
    device = _join_ranks()
    choice = choose_precision(experiment, device, "training", recorded)
    compute, ranks = Compute(device, choice.precision), Ranks()
    torch.manual_seed(experiment.seed)  # dropout draws from the global source, which belongs to the loop's caller
    rng = torch.Generator().manual_seed(experiment.seed)
    model = model or open_first_model(experiment, data, RunDirectory(out), rng, compute.precision, ranks.count > 1)
    model.use_index_source(IndexSource(experiment.index, out / _INDEX_VERSIONS))
    _move_to_device(model, experiment, compute, ranks, rng)
    plan = build_stages(experiment, model, rng)
    run = RunDirectory(out, is_writer=False)
    if ranks.first:
        run = (
            _reopen_run(experiment, data, out, choice) if resume else _create_run(experiment, data, out, choice, recipe)
        )
    ranks.wait()
    pace = experiment.training
    saves = Checkpoints(run, model, rng, pace.save_minutes, interrupts, pace.keep_checkpoints)
    score = (lambda m: evaluate_experiment(experiment, m, data.dev).answers) if data.dev else None
    start = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(_lock_run(out))
        stack.enter_context(require_determinism(experiment.training.deterministic))
        stack.enter_context(saves.save_when_interrupted())
        if resume:
            saves.restore()
        log = open_log(experiment, run, resume, trackers)
        unless_it_ends_well = stack.enter_context(ExitStack())
        unless_it_ends_well.callback(log.close, None)
        for stage in plan[saves.finished :]:
            if _begins_retrieval(plan, stage, saves):
                _keep_neighbours(model, data.test, run, run.neighbours("before"))
            examples = data.train if stage.examples is None else stage.examples
            train(model, examples, stage, run, rng, score, saves, log)
        seconds = time.perf_counter() - start
        model.eval()
        embed_base_if_stale(model)
        if any(stage.evidence.retrieves for stage in plan):
            _keep_neighbours(model, data.test, run, run.neighbours("after"))
        _fit_decision(experiment, model, data.dev, run)
        run.save_model(model, lambda folder: write_run_cards(run, experiment, data, folder))
        unless_it_ends_well.pop_all()
        if ranks.first:  # the last of them is a part of the model now; what has them mapped reads on
            shutil.rmtree(out / _INDEX_VERSIONS, ignore_errors=True)
    return TrainedModel(model, seconds, saves, log)


def _begins_retrieval(plan: Sequence[Stage], stage: Stage, saves: Checkpoints) -> bool:
    """Return whether no step of a stage that retrieves has been made, so that the retriever is as it came."""
    first = next((one for one in plan if one.evidence.retrieves), None)
    return stage is first and not saves.midway


def _keep_neighbours(model: RagModel, test: Sequence[Example], run: RunDirectory, file: Path) -> None:
    """Write down what the retriever finds for a sample of the test examples, once; training is as without it."""
    if not test or Ranks().broadcast(file.exists()):
        return
    embed_base_if_stale(model)  # the stage that follows finds this index current
    neighbours = find_neighbours(model, sample_examples(test))
    if run.is_writer:
        with run.writing("neighbours of test examples"):
            write_jsonl(file, (one.record(model.base) for one in neighbours))


def _move_to_device(
    model: RagModel, experiment: Experiment, compute: Compute, ranks: Ranks, rng: torch.Generator
) -> None:
    """Move a model to the device of this rank, spread over the ranks where it is, and seed the rank's dropout."""
    if model.sharded and experiment.generator.fsdp:
        ranks.require_equal([*model.parameters()])  # afterwards each has parts of its own
        spread_layers(model.generator.model, compute.device, compute.dtype, experiment.generator.dropout)
    model.to(compute.device)
    if model.sharded:  # all have built the same model; from here on each has dropout of its own
        torch.manual_seed(ranks.seed(rng.get_state()))


def _lock_run(out: Path) -> AbstractContextManager[None]:
    """Lock a folder against other runs; of several ranks only the first does so."""
    return lock_folder(out) if Ranks().first else nullcontext()


def _create_run(
    experiment: Experiment, data: Data, out: Path, choice: PrecisionChoice, recipe: Experiment | None
) -> RunDirectory:
    run = RunDirectory.create(out, experiment.from_root().to_toml(), choice.precision, choice.seconds)
    if recipe is not None:
        run.recipe.write_text(recipe.from_root().to_toml(), encoding="utf-8")
    _keep_data(experiment, data, run)
    return run


def _reopen_run(experiment: Experiment, data: Data, out: Path, choice: PrecisionChoice) -> RunDirectory:
    """Raise `UserError` where the data differ from what the run has written down."""
    run = RunDirectory.open(out)
    records = {run.labels: experiment.data.task_record(data.task), run.data_record: data.draw_record}
    changed = [path for path, value in records.items() if path.exists() and read_json(path) != _as_json(value)]
    if run.base.exists() and KnowledgeBase.open(run.base).fingerprint != data.base.fingerprint:
        changed.append(run.base)
    if changed:
        raise UserError(
            f"{changed[0]} is not what the data give now: they have changed since the run began; put them back as they "
            f"were, or train another run"
        )
    if differences := run.changed_environment(choice.precision, choice.seconds):
        say(f"not the machine that the run began on, so not bit for bit what it would have been: {differences[0]}")
    _keep_data(experiment, data, run)
    return run


def _keep_data(experiment: Experiment, data: Data, run: RunDirectory) -> None:
    data.base.save(run.base)
    write_json(run.labels, experiment.data.task_record(data.task))
    write_json(run.data_record, data.draw_record)


def _as_json(value: JsonObject) -> JsonValue:
    return json.loads(json.dumps(value))


def _fit_decision(experiment: Experiment, model: RagModel, dev: Sequence[Example], run: RunDirectory) -> None:
    """Fit on development data what the experiment asks for: the decision, and the threshold of "cannot answer"."""
    if experiment.evaluation.calibrate:
        _calibrate(experiment, model, dev, run)
    if experiment.evaluation.abstain != "never":
        _fit_abstention(experiment, model, dev, experiment.evaluation.abstain, run)


def _calibrate(experiment: Experiment, model: RagModel, dev: Sequence[Example], run: RunDirectory) -> None:
    """Fit the model's decision on development data, and write down what that gave."""
    calibration = calibrate(model, dev, experiment.test_passages, experiment.evaluation.scoring)
    decision = calibration.decision
    model.use_decision(decision)
    if run.is_writer:
        with run.writing("the decision"):
            write_json(run.calibration, calibration.record())
    say(
        f"decision fitted on {calibration.examples} development examples: vote weight {decision.vote_weight:g}, "
        f"bias of the negative {decision.negative_bias:.2f} nats; {calibration.metric} {calibration.before:.1f} "
        f"before, {calibration.after:.1f} with it"
    )


def _fit_abstention(
    experiment: Experiment, model: RagModel, dev: Sequence[Example], largest_risk: float, run: RunDirectory
) -> None:
    """Fit the model's threshold of "cannot answer" on development data, and write down what that gave."""
    fitted = fit_abstention(model, dev, experiment.test_passages, experiment.evaluation.scoring, largest_risk)
    model.use_threshold(fitted.abstain_below)
    if run.is_writer:
        with run.writing("the threshold"):
            write_json(run.abstention, fitted.record())
    before = "" if fitted.risk_before is None else f" (without one {fitted.risk_before:.1f} % are)"
    if fitted.withholds_all:
        say(
            f"no answer will be given: whatever the threshold, more than {largest_risk:.0%} of the answers to the "
            f"{fitted.examples} development examples are wrong{before}; train longer, or set evaluation.abstain higher"
        )
        return
    say(
        f"threshold fitted on {fitted.examples} development examples: answers of a probability below "
        f"{fitted.probability:.6g} are withheld; {fitted.coverage:.1f} % are answered, {fitted.risk:.1f} % of these "
        f"answers are wrong{before}"
    )


def evaluate_experiment(experiment: Experiment, model: RagModel, examples: Sequence[Example]) -> Evaluation:
    """Evaluate a model at the experiment's K."""
    with require_determinism(experiment.training.deterministic):
        return evaluate(model, examples, experiment.test_passages, experiment.evaluation.scoring)


def compute_for(experiment: Experiment, work: Work = "training", run: RunDirectory | None = None) -> Compute:
    """Return the device there is, with the experiment's precision for this work. Of a ``run`` it is the one that the
    run has recorded, where it ran on the same kind of device."""
    device = _join_ranks()
    recorded = None if run is None else run.recorded_precision(device)
    return Compute(device, choose_precision(experiment, device, work, recorded).precision)


def _join_ranks() -> torch.device:
    """Return this process's device. Joins the process group, where a launcher started several processes."""
    return join_process_group(choose_device())
