"""The numbers of a plan that come from data: examples, passages, mean tokens; read, counted, or given by the user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

from retrograd.experiments.data.part_reading import base_bytes
from retrograd.experiments.data.source import Data
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.run import require_enough_passages
from retrograd.experiments.stages import count_masked, require_free_answers
from retrograd.studies.lengths import Ruler, generator_ruler, retriever_ruler, target_ruler
from retrograd.types import UserError
from retrograd.util.text_files import count_lines

__all__ = ["DataFacts", "collect_data_facts"]

_SAMPLE = 512
_TOKENS_PER_WORD = 1.4
_LOADED_BYTES = 500_000_000


@dataclass(frozen=True)
class DataFacts:
    """Counts of ``examples``, ``tests`` and ``passages``, None where they are not known; tokens are means, or the
    limits.

    ``prompt`` is a prompt without passages, ``neighbour`` what one passage adds to it. ``supports`` says whether the
    task can tell which passages support a target. ``masked`` counts the masked sentences of the base, None where they
    are not known or not used. ``data`` is what was read, where it was.
    """

    examples: int | None
    tests: int | None
    passages: int | None
    query: int
    prompt: int
    neighbour: int
    target: int
    passage: int
    supports: bool = True
    masked: int | None = None
    data: Data | None = None
    notes: tuple[str, ...] = ()


def collect_data_facts(experiment: Experiment, examples: int, passages: int) -> DataFacts:
    """Return counts from the data, where they are on this disk and quickly read; ``examples`` and ``passages`` (0: not
    given) replace them.

    Raises `UserError` for an experiment that asks for more passages than were found.
    """
    facts = _read_facts(experiment)
    if facts.data is not None and passages == 0:
        require_enough_passages(experiment, facts.data.base)
    if examples:
        facts = replace(facts, examples=examples)
    if passages:
        facts = replace(facts, passages=passages)
    elif facts.passages is None and experiment.data.train_is_base:
        facts = replace(facts, passages=facts.examples)  # the training sentences are the passages
    if facts.examples is None:
        note = "the number of training examples is not known; say it with --examples"
        facts = replace(facts, notes=(*facts.notes, note))
    return _count_masked(experiment, facts) if experiment.masking.epochs > 0 else facts


def _count_masked(experiment: Experiment, facts: DataFacts) -> DataFacts:
    """Return the facts with the number of masked sentences, where the base was read; else a note that it is missing.

    Raises `UserError` where there is nothing to mask.
    """
    if facts.data is None or facts.passages is None:
        note = "the number of masked sentences is not known without the base: steps and time of masking are left out"
        return replace(facts, notes=(*facts.notes, note))
    require_free_answers(facts.data.task, experiment.masking)
    masked, is_exact = count_masked(facts.data.base, experiment.masking, facts.passages, experiment.seed)
    note = "" if is_exact else "the masked sentences are counted in a part of the base: steps of masking are estimates"
    return replace(facts, masked=masked, notes=(*facts.notes, *filter(None, [note])))


def _read_facts(experiment: Experiment) -> DataFacts:
    base = experiment.data.base_source
    if base_bytes(base) > _LOADED_BYTES:
        size = f"{base} has {base_bytes(base) / 1e9:.1f} GB and is not read"
        lines = count_lines(Path(base))
        how = "passages: about a line each, or say them with" if lines else "say how many passages it has with"
        return _facts_from_settings(experiment, f"{size}; {how} --passages", lines or None)
    try:
        data = experiment.data.load(experiment.seed)
    except UserError as error:
        return _facts_from_settings(experiment, f"the data cannot be read: {str(error).partition(';')[0]}")
    return _measure_facts(experiment, data)


def _facts_from_settings(experiment: Experiment, why: str, passages: int | None = None) -> DataFacts:
    """Return counts from the settings, tokens at their limits: the most there can be."""
    train_count = experiment.data.train_count or None
    g, r = experiment.generator, experiment.retriever
    note = f"{why}; tokens are taken at their limits"
    neighbour = (g.max_input_tokens - 1) // 2
    return DataFacts(
        train_count,
        None,
        passages,
        r.max_tokens,
        g.max_input_tokens,
        neighbour,
        g.max_target_tokens,
        r.max_tokens,
        notes=(note,),
    )


def _measure_facts(experiment: Experiment, data: Data) -> DataFacts:
    task, examples = data.task, data.train[:_SAMPLE]
    rows = range(0, len(data.base), max(1, len(data.base) // _SAMPLE))
    passages = data.base.passages(list(rows)[:_SAMPLE])
    asker, reader = (retriever_ruler(experiment.retriever, queries) for queries in (True, False))
    writer = generator_ruler(experiment.generator)
    targets = target_ruler(experiment.generator)
    passage_cycle = cycle(passages)
    alone = _mean(writer, [task.prompt(item, ()) for item in examples], experiment.generator.max_input_tokens)
    beside = [task.prompt(item, list(islice(passage_cycle, 1))) for item in examples]
    one_passage = _mean(writer, beside, experiment.generator.max_input_tokens)
    notes = (
        ("a tokenizer is not on this disk: tokens are words times 1.4",) if None in (asker.limit, reader.limit) else ()
    )
    return DataFacts(
        len(data.train),
        len(data.test),
        len(data.base),
        _mean(asker, [task.query_text(item) for item in examples], experiment.retriever.max_tokens),
        alone,
        max(1, one_passage - alone),
        _mean(targets, [item.target for item in examples if item.targets], experiment.generator.max_target_tokens),
        _mean(reader, [task.passage_text(item) for item in passages], experiment.retriever.max_tokens),
        task.support(data.base) is not None,
        data=data,
        notes=notes,
    )


def _mean(ruler: Ruler, texts: Sequence[str], limit: int) -> int:
    """Return the mean tokens of texts that are cut at a limit; at least 1."""
    if not texts:
        return limit
    scale = 1.0 if ruler.limit is not None else _TOKENS_PER_WORD
    return max(1, round(sum(min(limit, scale * count) for count in ruler.count(texts)) / len(texts)))
