"""The stages of an experiment, in their order: warm start, masking, training, second stage; each logs under its name.

The retriever is warmed first, because a generator learns nothing from useless passages and teaches nothing while it
ignores them. Then both learn from masked sentences of the base, and after these from the data themselves, so that what
the model ends with is what it is asked for: the order of REALM (Guu et al. 2020, arXiv 2002.08909), which warms the
retriever, pre-trains on masked sentences, and fine-tunes. In the second stage the retriever rests.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from retrograd.data.masking import SpanExample, SpanMasking, read_spans, span_examples
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.settings import NOTHING_TRAINED, MaskingSettings
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.objectives import FrozenRetriever, TopKMarginal
from retrograd.rag.candidates import Pool
from retrograd.rag.likelihood import CopySettings
from retrograd.rag.rag_model import RagModel
from retrograd.training.refresh.policies import EverySteps, Never
from retrograd.training.stage import FromCopying, FromGenerator, FromPrior, Pace, Stage
from retrograd.types import Passage, UserError

__all__ = ["masked_examples", "stages"]

_BLOCK_ROWS = 4_096


def stages(experiment: Experiment, model: RagModel, rng: torch.Generator) -> list[Stage]:
    """Those that have anything to do. ``rng`` draws what is masked, and is not used where nothing is.

    Raises `UserError` where nothing is trained, and for masking in a task that cannot use it.
    """
    t = experiment.training
    learns = _retriever_learns(experiment, model) and max(t.retriever_learning_rate, _scale_rate(experiment)) > 0
    if t.generator_learning_rate == 0 and not learns:
        raise UserError(NOTHING_TRAINED)
    main = _training(experiment)
    planned = [
        _warm_start(experiment, model),
        _masking(experiment, main, model, rng),
        main if t.epochs > 0 else None,
        _second_stage(experiment, main),
    ]
    return [stage for stage in planned if stage is not None]


def _retriever_learns(experiment: Experiment, model: RagModel) -> bool:
    return experiment.objective.trains_retriever and model.retriever.trained != "none"


def _scale_rate(experiment: Experiment) -> float:
    return experiment.training.scale_learning_rate * experiment.retriever.learns_scales


def _training(experiment: Experiment) -> Stage:
    t = experiment.training
    pool = Pool(t.explorers) if t.pool else None
    return Stage(
        name="training",
        objective=experiment.objective,
        evidence=FromGenerator(t.passages, t.tail, pool, t.distraction, t.prior_only),
        pace=Pace(
            epochs=t.epochs,
            batch_size=t.batch_size,
            generator_learning_rate=t.generator_learning_rate,
            retriever_learning_rate=t.retriever_learning_rate,
            weight_decay=t.weight_decay,
            warmup=t.warmup,
            clip=t.clip,
            micro_batch=t.micro_batch,
            schedule=t.schedule,
            restarts=t.restarts,
            scale_learning_rate=_scale_rate(experiment),
        ),
        refresh=t.refresh_policy,
        log_every=t.log_every,
        evaluate_every=t.evaluate_every,
        save_every=t.save_every,
        probe_passages=t.probe_passages,
        targets=t.targets,
    )


def _warm_start(experiment: Experiment, model: RagModel) -> Stage | None:
    """Where there is something to warm and a test to do it by."""
    w, t = experiment.warm_start, experiment.training
    if w.epochs == 0 or model.support is None or not _retriever_learns(experiment, model):
        return None
    return Stage(
        name="warm start",
        # Soft slots would leave all but the best candidates without a gradient; copying needs no prompt to mix in.
        objective=experiment.objective if experiment.selection is None else TopKMarginal(),
        evidence=FromCopying(CopySettings(w.noise, 1 / len(model.task.choices or " " * 20)), w.passages),
        pace=Pace(
            w.epochs,
            w.batch_size,
            0.0,
            w.learning_rate,
            t.weight_decay,
            t.warmup,
            t.clip,
            scale_learning_rate=_scale_rate(experiment),
        ),
        refresh=EverySteps(w.refresh_every),
        log_every=t.log_every,
        probe_passages=t.probe_passages,
        targets=t.targets,
    )


def _masking(experiment: Experiment, main: Stage, model: RagModel, rng: torch.Generator) -> Stage | None:
    """The main stage on other examples, at its own rates."""
    m = experiment.masking
    if m.epochs == 0:
        return None
    if model.task.choices is not None:
        raise UserError(
            f"masking.epochs is {m.epochs}, but the answers of {model.task.name!r} are a closed set, and what stands "
            f"masked in a sentence is none of them; set masking.epochs = 0"
        )
    rates = {
        "generator_learning_rate": m.generator_learning_rate,
        "retriever_learning_rate": m.retriever_learning_rate,
    }
    return replace(
        main,
        name="masking",
        pace=replace(main.pace, epochs=m.epochs, **rates),
        targets="first",
        examples=masked_examples(model.base, m, rng),
    )


def _second_stage(experiment: Experiment, main: Stage) -> Stage | None:
    """The generator alone, on what it will read at test time."""
    s, t = experiment.second_stage, experiment.training
    if s.epochs == 0:
        return None
    together = s.reading == "together"
    batch_size = s.batch_size or t.batch_size
    return replace(
        main,
        name="second stage",
        objective=FrozenRetriever("together" if together else "marginal"),
        # One prompt has no place for candidates that stand for others, nor for those that other queries found.
        evidence=FromPrior(s.passages or t.passages, 0 if together else t.tail, t.distraction),
        pace=replace(
            main.pace,
            epochs=s.epochs,
            batch_size=batch_size,
            generator_learning_rate=s.learning_rate,
            retriever_learning_rate=0.0,
            scale_learning_rate=0.0,
        ),
        refresh=Never(),
    )


def masked_examples(base: KnowledgeBase, settings: MaskingSettings, rng: torch.Generator) -> list[SpanExample]:
    """Sentences of the base, each with a name, date or number, or what ``spans`` names, masked, which is its target.

    Raises `UserError` where there is nothing to mask.
    """
    source = random.Random(int(torch.randint(2**31, (), generator=rng)))
    masking = SpanMasking(most_per_passage=settings.per_passage, may_see_source=settings.may_see_source)
    spans = read_spans(Path(settings.spans)) if settings.spans else None
    try:
        found = list(span_examples(_some(base, settings.passages, rng), masking, source, spans))
    except UserError as error:
        raise UserError(f"masking.spans: {settings.spans}: {error}") from None
    if not found:
        where = f"a sentence of {masking.least_words} words or more, in {settings.passages or len(base)} passages"
        if settings.spans:
            raise UserError(
                f"masking.spans: {settings.spans} names nothing in {where}; its ids must be those of passages, such as "
                f"{base[0].id!r}, or leave it empty"
            )
        raise UserError(f"masking found no name, date or number in {where}; set masking.epochs = 0")
    return found


def _some(base: KnowledgeBase, count: int, rng: torch.Generator) -> Iterator[Passage]:
    """``count`` passages drawn without replacement, in the order of the base; 0 is all."""
    if count == 0:
        for block in base.blocks(_BLOCK_ROWS):
            yield from block
        return
    for rows in torch.randperm(len(base), generator=rng)[:count].sort().values.split(_BLOCK_ROWS):
        yield from base.passages(rows.tolist())
