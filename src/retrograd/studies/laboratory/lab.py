"""The laboratory on a model of the user's own: which estimators, on which batch, measured and saved."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from retrograd.evaluation.laboratory.measure import Estimator, Measurement, measure
from retrograd.evaluation.laboratory.tabulate import Bench, tabulate
from retrograd.evaluation.laboratory.training_step import Step, reference_step, training_step
from retrograd.experiments.build import build_model
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.open import OpenRun, open_run
from retrograd.experiments.run import compute_for, require_enough_passages
from retrograd.models.retriever import Retriever
from retrograd.rag.rag_model import RagModel
from retrograd.recipes.estimators import make_estimators
from retrograd.training.refresh.fresh_index import embed_base
from retrograd.types import Example, UserError
from retrograd.util.guards import JsonValue, suggest_name
from retrograd.util.progress import bar
from retrograd.util.text_files import write_json

__all__ = [
    "EstimatorResult",
    "LabReport",
    "choose_estimators",
    "draw_examples",
    "measure_estimators",
    "measure_model",
    "run_laboratory",
]

_MICRO_BATCH = 16
_BUDGET = 16_384


@dataclass(frozen=True)
class EstimatorResult:
    """One estimator: its errors over redraws at the scores, and one real training step.

    ``cosine`` compares that step's gradient with the reference, in the parameters of each part; None: no gradient.
    ``joint_prompt_error`` is that step's relative squared error in the generator's parameters, where the generator
    learns from prompts of several passages, which the tables do not list; else None.
    """

    measured: Measurement
    seconds: float
    cosine: dict[str, float | None]
    joint_prompt_error: float | None = None

    @property
    def generator_error(self) -> float | None:
        """Return the relative squared error of the generator's gradient; None if it gets none."""
        return self.joint_prompt_error if self.measured.generator is None else self.measured.generator.error

    @property
    def error(self) -> float:
        """Return the mean relative squared error over prior and generator, the parts that every model keeps; 1 for no
        gradient.
        """
        prior = 1.0 if self.measured.prior is None else self.measured.prior.error
        return (prior + (1.0 if self.generator_error is None else self.generator_error)) / 2


@dataclass(frozen=True)
class LabReport:
    """Results of the laboratory, and the conditions of the measurement."""

    name: str
    queries: int
    redraws: int
    base_size: int
    reference: str
    posterior: str
    findings: list[EstimatorResult]

    def save(self, folder: Path) -> None:
        """Write ``lab.json``."""
        write_json(folder / "lab.json", self.record())

    def record(self) -> dict[str, JsonValue]:
        """Return the report as plain values."""
        return {
            "name": self.name,
            "queries": self.queries,
            "redraws": self.redraws,
            "passages": self.base_size,
            "reference": self.reference,
            "posterior": self.posterior,
            "estimators": [_record(finding) for finding in self.findings],
        }


def _record(finding: EstimatorResult) -> JsonValue:
    return {
        **asdict(finding.measured),
        "error": finding.error,
        "seconds": finding.seconds,
        "error_seconds": finding.error * finding.seconds,
        "parameter_cosine": dict(finding.cosine),
        "joint_prompt_error": finding.joint_prompt_error,
    }


def run_laboratory(
    source: Experiment | Path, names: Sequence[str], queries: int, redraws: int, out: Path, seed: int
) -> LabReport:
    """Measure on a finished run, or on an experiment as it is before training; writes ``lab.json`` into ``out``.

    ``names`` choose estimators by a part of their name or by the class of their objective; none is all. Raises
    `UserError` for a name that fits none, and for an experiment without retrieval.
    """
    opened = open_run(source) if isinstance(source, Path) else _untrained(source)
    selected = choose_estimators(opened.experiment, names)
    report = measure_estimators(opened, draw_examples(opened.data.train, queries, seed), selected, redraws, seed)
    report.save(out)
    return report


def choose_estimators(experiment: Experiment, names: Sequence[str]) -> list[Estimator]:
    """Return the estimators that ``names`` choose, the experiment's own among them.

    Raises `UserError` as `run_laboratory` does.
    """
    k = experiment.training.passages
    if k == 0:
        raise UserError(f"{experiment.name} retrieves nothing (training.passages = 0): there is nothing to measure")
    own_objective = experiment.objective
    estimators = make_estimators(k)
    if all(estimator.objective != own_objective for estimator in estimators):
        estimators.append(Estimator("the experiment's own", own_objective, k, tail=experiment.training.tail))
    return _choose_by_name(estimators, names)


def draw_examples(examples: Sequence[Example], queries: int, seed: int) -> list[Example]:
    """Return the batch: so many training examples, the same for a seed."""
    return random.Random(seed).sample(examples, min(queries, len(examples)))


def _choose_by_name(estimators: list[Estimator], names: Sequence[str]) -> list[Estimator]:
    if not names:
        return estimators
    for name in names:
        if not any(_fits(estimator, name) for estimator in estimators):
            all_names = sorted(
                {estimator.name.split(",")[0] for estimator in estimators}
                | {type(estimator.objective).__name__ for estimator in estimators}
            )
            raise UserError(f"--objectives {name}: no such estimator; {suggest_name(name, all_names)}")
    return [estimator for estimator in estimators if any(_fits(estimator, name) for name in names)]


def _fits(estimator: Estimator, name: str) -> bool:
    return name.lower() in estimator.name.lower() or name.lower() == type(estimator.objective).__name__.lower()


def _untrained(experiment: Experiment) -> OpenRun:
    """Return an experiment's model before its first step, with a fresh index."""
    data = experiment.data.load(experiment.seed)
    require_enough_passages(experiment, data.base)
    compute, rng = compute_for(experiment), torch.Generator().manual_seed(experiment.seed)
    model = build_model(experiment, data, rng, compute.precision).to(compute.device)
    embed_base(model.eval())
    return OpenRun(experiment, model, data.task)


def measure_estimators(
    opened: OpenRun, examples: list[Example], selected: list[Estimator], redraws: int, seed: int
) -> LabReport:
    """Measure estimators on the model of a run as it is now, as `measure_model`."""
    name, passages = opened.experiment.name, opened.experiment.training.passages
    return measure_model(opened.model, examples, selected, passages, redraws, seed, name)


def measure_model(
    model: RagModel,
    examples: list[Example],
    selected: list[Estimator],
    passages: int,
    redraws: int,
    seed: int,
    name: str = "model",
) -> LabReport:
    """Measure estimators on a model as it is now, at its precision, where each query reads ``passages`` passages.

    The model is left unchanged. ``name`` is what the report calls it.
    """
    model, posterior = _with_posterior(model.eval())
    with model.autocast():
        bench = tabulate(model, examples, passages, _BUDGET)
        if not bench.tables.whole_base:  # "whole base" would be a promise the tables do not keep
            selected = [estimator for estimator in selected if estimator.candidates == "best"]
        reference = reference_step(model, bench, _MICRO_BATCH)
        with bar("estimators", len(selected), "estimators") as advance:
            findings = []
            for estimator in selected:
                findings.append(_finding(model, bench, estimator, reference, redraws, seed))
                advance(1)
    return LabReport(name, len(examples), redraws, len(model.base), _describe(bench), posterior, findings)


def _with_posterior(model: RagModel) -> tuple[RagModel, str]:
    """Return the model, with the prior's own encoder as posterior retriever where it has none; and a description of the
    posterior.
    """
    if model.posterior is not None:
        return model, "the model's own"
    prior = model.retriever
    tower = copy.deepcopy(prior.query_encoder)
    weight = 1.0 if prior.lexical_weight is None else float(prior.lexical_weight.detach())
    temperature = float(prior.temperature.detach())
    posterior = Retriever(tower, prior.passage_encoder, temperature, prior.trained, lexical_weight=weight)
    words = "none in this model: a copy of the prior's encoder, reading query and target, stands in"
    return model.with_posterior(posterior), words


def _describe(bench: Bench) -> str:
    columns = bench.tables.log_prior.shape[1]
    if bench.tables.whole_base:
        return f"exact, over all {columns} passages ({bench.prompts} distinct prompts)"
    mass = float(bench.tables.log_prior.exp().sum(dim=-1).mean())
    return (
        f"exact over the union of the best passages, up to {columns} a query, with the full normaliser; they hold "
        f"{mass:.1%} of the prior ({bench.prompts} distinct prompts)"
    )


def _finding(
    model: RagModel, bench: Bench, estimator: Estimator, reference: Step, redraws: int, seed: int
) -> EstimatorResult:
    measured = measure(estimator, bench.tables, redraws, torch.Generator().manual_seed(seed))
    step = training_step(model, bench, estimator, torch.Generator().manual_seed(seed), _MICRO_BATCH)
    cosine = {part: step.cosine(reference, part) for part in step.gradients}
    if estimator.candidates == "all" and model.retriever.trains_passages:
        cosine["prior"] = None  # the whole base is looked at without gradient for its passages
        if model.passage_side.own_posterior is not None:
            cosine["posterior"] = None
    joint = step.error(reference, "generator") if measured.generator is None else None
    return EstimatorResult(measured, step.seconds, cosine, joint)
