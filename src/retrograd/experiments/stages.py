"""Make the stages of an experiment ready to run, with masked sentences of the base. Each logs by its name."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import torch

from retrograd.data.masking import SpanExample, SpanMasking, read_spans, span_examples
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.settings import MaskingSettings
from retrograd.experiments.stage_description import describe_stages
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.rag.rag_model import RagModel
from retrograd.training.stage import Stage
from retrograd.types import Passage, UserError

__all__ = ["build_stages", "masked_examples"]

_BLOCK_ROWS = 4_096


def build_stages(experiment: Experiment, model: RagModel, rng: torch.Generator) -> list[Stage]:
    """Return the stages of ``experiment`` that have work to do, in order, ready to run.

    ``rng`` draws what is masked, and is not used where nothing is. Raises `UserError` where nothing is trained, and for
    masking in a task that cannot use it.
    """
    t = experiment.training
    return [
        Stage(
            name=stage.name,
            objective=stage.objective,
            evidence=stage.evidence,
            pace=stage.pace,
            refresh=stage.refresh,
            log_every=t.log_every,
            # A warm start is short, and its model does not answer yet.
            evaluate_every=0 if stage.is_copying else t.evaluate_every,
            save_every=0 if stage.is_copying else t.save_every,
            probe_passages=t.probe_passages,
            targets=stage.targets,
            examples=_masked_sentences(experiment, model, rng) if stage.is_masking else None,
        )
        for stage in describe_stages(experiment, supports=model.support is not None)
    ]


def _masked_sentences(experiment: Experiment, model: RagModel, rng: torch.Generator) -> list[SpanExample]:
    """Return the masked sentences of the base, for a task whose answers are not a closed set."""
    if model.task.choices is not None:
        raise UserError(
            f"masking.epochs is {experiment.masking.epochs}, but the answers of {model.task.name!r} are a closed set, "
            f"and a masked word is not in that set; set masking.epochs = 0"
        )
    return masked_examples(model.base, experiment.masking, rng)


def masked_examples(base: KnowledgeBase, settings: MaskingSettings, rng: torch.Generator) -> list[SpanExample]:
    """Return sentences of the base in which a name, date or number, or what ``spans`` names, is masked: the target.

    Raises `UserError` where there is nothing to mask.
    """
    source = random.Random(int(torch.randint(2**31, (), generator=rng)))
    masking = SpanMasking(most_per_passage=settings.per_passage, may_see_source=settings.may_see_source)
    spans = read_spans(Path(settings.spans)) if settings.spans else None
    try:
        examples = list(span_examples(_draw_passages(base, settings.passages, rng), masking, source, spans))
    except UserError as error:
        raise UserError(f"masking.spans: {settings.spans}: {error}") from None
    if not examples:
        where = f"a sentence of {masking.least_words} words or more, in {settings.passages or len(base)} passages"
        if settings.spans:
            raise UserError(
                f"masking.spans: {settings.spans} names nothing in {where}; its ids must be those of passages, such as "
                f"{base[0].id!r}, or leave it empty"
            )
        raise UserError(f"masking found no name, date or number in {where}; set masking.epochs = 0")
    return examples


def _draw_passages(base: KnowledgeBase, count: int, rng: torch.Generator) -> Iterator[Passage]:
    """Draw ``count`` passages without replacement, in the order of the base; 0 is all."""
    if count == 0:
        for block in base.blocks(_BLOCK_ROWS):
            yield from block
        return
    for rows in torch.randperm(len(base), generator=rng)[:count].sort().values.split(_BLOCK_ROWS):
        yield from base.passages(rows.tolist())
