"""Make the stages of an experiment ready to run, with masked sentences of the base. Each logs by its name."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from retrograd.data.masking import SpanExample, SpanMasking, read_spans, span_examples
from retrograd.data.sentences import SENTENCES
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.settings import MaskingSettings
from retrograd.experiments.stage_description import describe_stages
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.rag.rag_model import RagModel
from retrograd.tasks.task import Task
from retrograd.training.stage import Stage
from retrograd.types import Passage, UserError
from retrograd.util.progress import say

__all__ = ["build_stages", "count_masked", "count_unknown_spans", "masked_examples", "require_free_answers"]

_BLOCK_ROWS = 4_096
_MOST_COUNTED = 4_096
"""Passages in which a plan counts what can be masked."""


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
    require_free_answers(model.task, experiment.masking)
    return masked_examples(model.base, experiment.masking, rng)


def require_free_answers(task: Task, settings: MaskingSettings) -> None:
    """Raise `UserError` for masking in a task whose answers are a closed set."""
    if task.choices is not None:
        raise UserError(
            f"masking.epochs is {settings.epochs}, but the answers of {task.name!r} are a closed set, and a masked "
            f"word is not in that set; set masking.epochs = 0"
        )


def masked_examples(base: KnowledgeBase, settings: MaskingSettings, rng: torch.Generator) -> list[SpanExample]:
    """Return sentences of the base in which a name, date or number, or what ``spans`` names, is masked: the target.

    Raises `UserError` where there is nothing to mask, and where ``spans`` names no passage of the base.
    """
    masking = _masking(settings)
    examples = list(_mask_passages(base, settings, _draw_passages(base, settings.passages, rng), rng))
    if not examples:
        where = f"a sentence of {masking.least_words} words or more, in {settings.passages or len(base)} passages"
        if settings.spans:
            raise UserError(
                f"masking.spans: {settings.spans} names nothing in {where}; give spans that each lie in one such "
                f"sentence, or leave it empty"
            )
        raise UserError(f"masking found no name, date or number in {where}; set masking.epochs = 0")
    return examples


def count_masked(base: KnowledgeBase, settings: MaskingSettings, passages: int, seed: int) -> tuple[int, bool]:
    """Return how many sentences `masked_examples` gives for a base of so many ``passages``, and whether that is exact.

    Of more than 4,096 passages that many are looked at, drawn by ``seed``, and their mean is taken for all.
    Raises `UserError` as `masked_examples` does, where it is exact.
    """
    rng = torch.Generator().manual_seed(seed)
    is_exact = passages == len(base) <= _MOST_COUNTED and settings.passages in (0, len(base))
    if is_exact:
        return len(masked_examples(base, replace(settings, passages=0), rng)), True
    counted = min(len(base), _MOST_COUNTED)
    found = sum(1 for _ in _mask_passages(base, settings, _draw_passages(base, counted, rng), rng))
    return round(found / max(counted, 1) * min(settings.passages or passages, passages)), False


def count_unknown_spans(base: KnowledgeBase, ids: Iterable[str], file: str) -> tuple[int, str]:
    """Return the number of ``ids``, those of a file of spans, that are in no passage, and the first of them or "".

    Raises `UserError` where no id is in any passage.
    """
    unknown = dict.fromkeys(ids)
    named = len(unknown)
    for block in base.blocks(_BLOCK_ROWS):
        for passage in block:
            unknown.pop(passage.id, None)
    if unknown and len(unknown) == named:
        raise UserError(
            f"masking.spans: {file}: none of its {named:,} ids is in a passage of the base (the first is "
            f"{next(iter(unknown))!r}); its ids must be those of passages, such as {base[0].id!r}"
        )
    return len(unknown), next(iter(unknown), "")


def _masking(settings: MaskingSettings) -> SpanMasking:
    return SpanMasking(
        most_per_passage=settings.per_passage,
        may_see_source=settings.may_see_source,
        split_sentences=SENTENCES[settings.language],
    )


def _mask_passages(
    base: KnowledgeBase, settings: MaskingSettings, passages: Iterable[Passage], rng: torch.Generator
) -> Iterator[SpanExample]:
    """Yield the masked sentences of some passages; say which ids of the file of spans are in no passage."""
    source = random.Random(int(torch.randint(2**31, (), generator=rng)))
    if not settings.spans:
        yield from span_examples(passages, _masking(settings), source)
        return
    spans = read_spans(Path(settings.spans), settings.offsets)
    unknown, first = count_unknown_spans(base, spans.pairs, settings.spans)
    if unknown:
        say(f"masking.spans: {unknown:,} ids of {settings.spans} are in no passage (the first is {first!r})")
    try:
        yield from span_examples(passages, _masking(settings), source, spans)
    except UserError as error:
        raise UserError(f"masking.spans: {settings.spans}: {error}") from None


def _draw_passages(base: KnowledgeBase, count: int, rng: torch.Generator) -> Iterator[Passage]:
    """Draw ``count`` passages without replacement, in the order of the base; 0 is all."""
    if count == 0:
        for block in base.blocks(_BLOCK_ROWS):
            yield from block
        return
    for rows in torch.randperm(len(base), generator=rng)[:count].sort().values.split(_BLOCK_ROWS):
        yield from base.passages(rows.tolist())
