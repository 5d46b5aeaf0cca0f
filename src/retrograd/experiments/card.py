"""The card of a finished run's model: data, objective, settings and scores, as its folder records them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from retrograd.experiments.data.source import Data
from retrograd.experiments.experiment import Experiment
from retrograd.rag.model_card import RunFacts, write_cards
from retrograd.rag.model_parts import ModelParts
from retrograd.rag.rag_model import RagModel
from retrograd.training.run.run_directory import RunDirectory

__all__ = ["write_run_cards"]

_NOT_SETTINGS = ("name", "data", "objective")
_PATHS = ("model", "query_model", "path", "spans")


def write_run_cards(experiment: Experiment, data: Data, model: RagModel, run: RunDirectory) -> None:
    """Write the cards of a run's model anew, with what the run has measured."""
    counts = {"training": len(data.train), "development": len(data.dev), "test": len(data.test)}
    facts = RunFacts(
        data=(
            f"data: {experiment.data.kind}; " + ", ".join(f"{n:,} {part} examples" for part, n in counts.items() if n),
            f"knowledge base: {len(model.base):,} passages",
        ),
        objective=type(experiment.objective).__name__,
        scores=run.all_scores(),
        test_examples=len(data.test),
        settings=tuple(_changed_settings(experiment)),
    )
    parts = ModelParts(model.retriever, model.generator, model.posterior)
    write_cards(run.model, parts, model.task, model.base, model.search_kind, model.settings, facts)


def _changed_settings(experiment: Experiment) -> Iterator[str]:
    """Yield the settings that differ from the defaults, files by their last name: a card is for everybody."""
    defaults = Experiment().to_mapping()
    for section, values in experiment.to_mapping().items():
        usual = defaults[section]
        if section in _NOT_SETTINGS:
            continue
        if not isinstance(values, Mapping) or not isinstance(usual, Mapping):
            if values != usual:
                yield f"{section} = {json.dumps(values)}"
            continue
        for name, value in values.items():
            if value != usual.get(name):
                shown = (
                    Path(value).name if name in _PATHS and isinstance(value, str) and Path(value).exists() else value
                )
                yield f"{section}.{name} = {json.dumps(shown)}"
