"""From an experiment to a trained model on disk: data, model, warm start, training, evaluation."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from retrograd.corpus.knowledge_base import KnowledgeBase
from retrograd.evaluation.evaluate import Evaluation, evaluate
from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.lora import Lora
from retrograd.models.precision import resolve_precision
from retrograd.models.retriever import Retriever
from retrograd.rag.likelihood import CopySettings
from retrograd.rag.rag_model import RagModel
from retrograd.recipes.experiment import DataSettings, Experiment
from retrograd.tasks.relation_extraction import RelationExtraction
from retrograd.tasks.relation_formats import read_relations
from retrograd.tasks.relation_instance import RelationInstance
from retrograd.tasks.sampling import sample_instances
from retrograd.tasks.semeval import load_semeval
from retrograd.training.loop import embed_base, train
from retrograd.training.refresh import RefreshEvery
from retrograd.training.run_directory import RunDirectory
from retrograd.training.stage import FromCopying, FromGenerator, Pace, Stage
from retrograd.types import Example, UserError

__all__ = [
    "Data",
    "OpenRun",
    "accelerator_for",
    "build_model",
    "evaluated",
    "load_data",
    "open_run",
    "run_experiment",
    "stages",
    "train_stages",
]

_BUILTIN_DATA = "builtin:semeval2010_task8"


@dataclass(frozen=True)
class Data:
    """A task, its knowledge base, and its examples."""

    task: RelationExtraction
    base: KnowledgeBase
    train: list[Example]
    dev: list[Example]
    test: list[Example]


def load_data(settings: DataSettings, seed: int) -> Data:
    """Read, draw and verbalise. Raises `UserError` with file and line for what is wrong in the files."""
    train = _instances(settings.train, "train", settings, settings.train_count, seed)
    dev = _instances(settings.dev, "test", settings, 0, seed)
    test = _instances(settings.test, "test", settings, settings.test_count, seed)
    task = _task(settings, [instance.relation for instance in train if instance.relation is not None])
    base = KnowledgeBase.from_passages(task.passage(instance) for instance in train)
    return Data(task, base, *([task.example(i) for i in part] for part in (train, dev, test)))


def _instances(source: str, split: str, settings: DataSettings, count: int, seed: int) -> list[RelationInstance]:
    if not source:
        return []
    if source == _BUILTIN_DATA:
        found = load_semeval(split)
    elif source.startswith("builtin:"):
        raise UserError(f"no built-in data set {source!r}; there is {_BUILTIN_DATA}")
    else:
        found = list(read_relations(Path(source), settings.format))
    return sample_instances(found, count, random.Random(seed)) if count else found


def _task(settings: DataSettings, labels: list[str]) -> RelationExtraction:
    if settings.labels == "semeval":
        return RelationExtraction.semeval(settings.query_style, settings.neighbour_style)
    return RelationExtraction.from_labels(
        labels, settings.negative or None, settings.metric, settings.query_style, settings.neighbour_style
    )


def build_model(experiment: Experiment, data: Data, rng: torch.Generator) -> RagModel:
    """An untrained model: encoders and generator as named, new weights drawn from ``rng``."""
    s = experiment.retriever
    query = Encoder.open(s.model, s.pooling, s.normalise, s.max_tokens)
    passage = Encoder.open(s.model, s.pooling, s.normalise, s.max_tokens) if s.separate_towers else query
    retriever = Retriever(query, passage, s.temperature, s.trained, s.learn_temperature)
    posterior = None
    if s.posterior:
        tower = Encoder.open(s.model, s.pooling, s.normalise, s.max_tokens)
        posterior = Retriever(tower, passage, s.temperature, s.trained, s.learn_temperature)
    g = experiment.generator
    lora = Lora(g.lora_rank, g.lora_alpha, g.lora_dropout, g.lora_modules)
    generator = Generator.open(g.model, rng, lora, g.max_input_tokens, g.max_target_tokens, g.token_budget)
    return RagModel(retriever, generator, data.task, data.base, posterior)


def stages(experiment: Experiment, warm: bool) -> list[Stage]:
    """The warm start, where it applies, and the main stage."""
    w, t = experiment.warm_start, experiment.training
    main = Stage(
        name="training",
        objective=experiment.objective,
        evidence=FromGenerator(t.passages),
        pace=Pace(
            epochs=t.epochs,
            batch_size=t.batch_size,
            generator_learning_rate=t.generator_learning_rate,
            retriever_learning_rate=t.retriever_learning_rate,
            weight_decay=t.weight_decay,
            warmup=t.warmup,
            clip=t.clip,
            micro_batch=t.micro_batch,
        ),
        refresh=RefreshEvery(t.refresh_every),
        log_every=t.log_every,
        evaluate_every=t.evaluate_every,
        save_every=t.save_every,
    )
    if not warm:
        return [main]
    first = Stage(
        name="warm start",
        objective=experiment.objective,
        evidence=FromCopying(CopySettings(noise=w.noise), w.passages),
        pace=Pace(w.epochs, w.batch_size, 0.0, w.learning_rate, t.weight_decay, t.warmup, t.clip),
        refresh=RefreshEvery(w.refresh_every),
        log_every=t.log_every,
    )
    return [first, main]


def run_experiment(experiment: Experiment, out: Path) -> RunDirectory:
    """Train, save, evaluate. Raises `UserError` before anything is written if the experiment cannot run."""
    data = load_data(experiment.data, experiment.seed)
    if not data.train:
        raise UserError("data.train names no training data; give a file, or builtin:semeval2010_task8")
    accelerator = accelerator_for(experiment)
    torch.manual_seed(experiment.seed)  # dropout draws from the global source, which belongs to the loop's caller
    rng = torch.Generator().manual_seed(experiment.seed)
    model = build_model(experiment, data, rng).to(accelerator.device)
    run = RunDirectory.create(out, experiment.to_toml(), str(accelerator.mixed_precision))
    train_stages(experiment, model, data, run, rng, accelerator)
    run.save_model(model)
    if data.test:
        evaluated(experiment, model, data.test, accelerator).save(run.path)
    return run


def train_stages(
    experiment: Experiment,
    model: RagModel,
    data: Data,
    run: RunDirectory,
    rng: torch.Generator,
    accelerator: Accelerator,
) -> float:
    """All stages in turn, then one last look of the passage tower at the base. Returns the seconds of training."""
    learns = model.retriever.trained != "none" and experiment.training.passages > 0
    warm = experiment.warm_start.epochs > 0 and learns and model.support is not None
    began = time.perf_counter()
    for stage in stages(experiment, warm):
        if stage.pace.epochs > 0:
            train(
                model,
                data.train,
                stage,
                run,
                rng,
                accelerator,
                (lambda m: evaluated(experiment, m, data.dev, accelerator).answers) if data.dev else None,
            )
    seconds = time.perf_counter() - began
    model.eval()
    embed_base(model, accelerator)
    return seconds


def evaluated(
    experiment: Experiment, model: RagModel, examples: Sequence[Example], accelerator: Accelerator
) -> Evaluation:
    """`evaluate` at the experiment's K and precision."""
    with accelerator.autocast():
        return evaluate(model, examples, experiment.test_passages)


def accelerator_for(experiment: Experiment) -> Accelerator:
    """The device there is, at the experiment's precision."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = resolve_precision(experiment.training.precision, device)
    return Accelerator(cpu=device.type == "cpu", mixed_precision="bf16" if precision == "bf16" else "no")


@dataclass(frozen=True)
class OpenRun:
    """A finished run, ready to answer."""

    experiment: Experiment
    data: Data
    model: RagModel
    accelerator: Accelerator


def open_run(path: Path) -> OpenRun:
    """Open what `run_experiment` wrote. Raises `UserError` for a folder that is none, or whose parts do not fit."""
    run = RunDirectory.open(path)
    experiment = Experiment.load(run.experiment)
    data = load_data(experiment.data, experiment.seed)
    rng = torch.Generator().manual_seed(experiment.seed)
    model = RagModel.load(run.model, data.task, data.base, experiment.generator.model, rng)
    accelerator = accelerator_for(experiment)
    return OpenRun(experiment, data, model.to(accelerator.device).eval(), accelerator)
