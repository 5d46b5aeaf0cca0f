"""The card of a finished run's model: data, objective, settings and scores, as its folder records them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from retrograd.experiments.build import derive_model_settings
from retrograd.experiments.data.source import Data
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.public_settings import settings_for_others
from retrograd.experiments.text import flatten_settings
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.rag.model_card import RunFacts, write_cards
from retrograd.rag.model_folder import read_parts, read_saved_settings
from retrograd.rag.model_parts import ModelParts
from retrograd.rag.rag_model import RagModel
from retrograd.tasks.task import Task
from retrograd.training.run.run_directory import RunDirectory
from retrograd.util.text_files import read_json

__all__ = ["write_recorded_cards", "write_run_cards"]

_PARTS = {"train": "training", "dev": "development", "test": "test"}

_NOT_SETTINGS = ("name", "data", "objective")


def write_run_cards(
    experiment: Experiment, data: Data, model: RagModel, folder: Path, scores: Mapping[str, float] | None
) -> None:
    """Write the cards of a run's model, which is saved in ``folder``, with the ``scores`` on its test data in percent;
    None where they are still to be measured.
    """
    counts = {"train": len(data.train), "dev": len(data.dev), "test": len(data.test)}
    facts = _facts(experiment, counts, len(model.base), scores)
    parts = ModelParts(model.retriever, model.generator, model.posterior)
    write_cards(folder, parts, model.task, model.base, model.search_kind, model.settings, facts)


def write_recorded_cards(run: RunDirectory, experiment: Experiment, task: Task, folder: Path) -> None:
    """Write the cards of a finished run's model into ``folder``, from what the run has recorded.

    The networks are opened for it. Raises `UserError` where they cannot be.
    """
    saved, base = read_saved_settings(run.model), KnowledgeBase.open(run.base)
    parts = read_parts(run.model, saved, task, experiment.generator.model)
    facts = _facts(experiment, _recorded_counts(run), len(base), run.all_scores() or None)
    write_cards(folder, parts, task, base, saved.search, derive_model_settings(experiment), facts)


def _facts(
    experiment: Experiment, counts: Mapping[str, int], passages: int, scores: Mapping[str, float] | None
) -> RunFacts:
    sizes = [f"{counts[part]:,} {name} examples" for part, name in _PARTS.items() if counts.get(part)]
    return RunFacts(
        data=(f"data: {experiment.data.kind}; {', '.join(sizes)}", f"knowledge base: {passages:,} passages"),
        objective=type(experiment.objective).__name__,
        scores=scores,
        test_examples=counts.get("test", 0),
        settings=tuple(_changed_settings(experiment)),
    )


def _recorded_counts(run: RunDirectory) -> dict[str, int]:
    """Return how many examples each part of the data had; a part that the run has not recorded is left out."""
    record = read_json(run.data_record) if run.data_record.exists() else {}
    parts = record if isinstance(record, dict) else {}
    counts = {}
    for part in _PARTS:
        table = parts.get(part)
        number = (table.get("examples") or table.get("instances")) if isinstance(table, dict) else None
        if isinstance(number, int):
            counts[part] = number
    return counts


def _changed_settings(experiment: Experiment) -> Iterator[str]:
    """Yield the settings that differ from the defaults, as others may read them."""
    settings, usual = flatten_settings(experiment.to_mapping()), flatten_settings(Experiment().to_mapping())
    for name, shown in settings_for_others(experiment).items():
        if name.partition(".")[0] not in _NOT_SETTINGS and settings[name] != usual.get(name):
            yield f"{name} = {json.dumps(shown)}"
