"""Running experiments, comparing runs and measuring models from Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from retrograd.evaluation.laboratory.measure import Estimator
from retrograd.evaluation.open_comparison import OpenComparison
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.from_python import Run, open_run
from retrograd.experiments.run import run_experiment
from retrograd.objectives import Objective
from retrograd.rag.rag_model import RagModel
from retrograd.recipes import find_recipe
from retrograd.recipes.estimators import make_estimators
from retrograd.studies import compare as comparing
from retrograd.studies.compare import Comparison
from retrograd.studies.laboratory.lab import LabReport, measure_model
from retrograd.training.refresh.fresh_index import embed_base_if_stale
from retrograd.types import Example, UserError

__all__ = ["compare", "measure", "run"]


def run(experiment: Experiment, out: str | Path) -> Run:
    """Train an experiment into the folder ``out``, evaluate it on its test data, and open it.

    Raises `UserError`, before anything is written, for a folder with something in it and an experiment that cannot run.

    Example::

        joint = rg.run(rg.recipe("semeval-joint").replace(training={"epochs": 1}), out="runs/joint")
        print(joint.scores)
    """
    return open_run(run_experiment(experiment, Path(out), recipe=find_recipe(experiment.name)).path)


def compare(
    baseline: Run | str | Path, system: Run | str | Path, resamples: int = 1_000, seed: int = 0
) -> Comparison | OpenComparison:
    """Compare two runs, or folders of runs, on the same test data: the scores, ``system`` less ``baseline``, with a
    bootstrap interval and a permutation test, paired by test item.

    Raises `UserError` for runs with other test data, without predictions, or scored by another metric.

    Example::

        comparison = rg.compare("runs/first", "runs/second", resamples=200)
        print(comparison.metric, comparison.scores, comparison.interval)
    """
    first, second = (run.path if isinstance(run, Run) else Path(run) for run in (baseline, system))
    return comparing.compare(first, second, resamples, seed)


def measure(
    model: RagModel,
    examples: Sequence[Example],
    objectives: Sequence[Objective] | None = None,
    *,
    passages: int = 5,
    redraws: int = 100,
    seed: int = 0,
) -> LabReport:
    """Measure bias, variance and cost of gradient estimators on a model as it is, for a batch of examples: the
    laboratory, of which ``retrograd lab`` prints the table.

    ``objectives`` are compared at ``passages`` passages of each query; None is all that the laboratory knows. Each is
    redrawn ``redraws`` times. The model is left unchanged. Raises `UserError` without examples.

    Example::

        report = rg.measure(model, examples, [rg.TopKMarginal()], passages=2, redraws=2)
        print([(one.measured.name, one.error) for one in report.findings])
    """
    if not examples:
        raise UserError("measure needs examples with targets; give a batch of training examples, 64 say")
    passages = min(passages, len(model.base))
    estimators_to_measure = make_estimators(passages)
    if objectives is not None:
        estimators_to_measure = [Estimator(type(objective).__name__, objective, passages) for objective in objectives]
    embed_base_if_stale(model)
    return measure_model(model, list(examples), estimators_to_measure, passages, redraws, seed)
