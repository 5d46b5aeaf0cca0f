"""The card of a finished run's model: data, objective, settings and scores, as its folder records them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from retrograd.experiments.data.source import Data
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.public_settings import settings_for_others
from retrograd.experiments.text import flatten_settings
from retrograd.rag.model_card import RunFacts, write_cards
from retrograd.rag.model_parts import ModelParts
from retrograd.rag.rag_model import RagModel

__all__ = ["write_run_cards"]

_NOT_SETTINGS = ("name", "data", "objective")


def write_run_cards(
    experiment: Experiment, data: Data, model: RagModel, folder: Path, scores: Mapping[str, float] | None
) -> None:
    """Write the cards of a run's model, which is saved in ``folder``, with the ``scores`` on its test data in percent;
    None where they are still to be measured.
    """
    counts = {"training": len(data.train), "development": len(data.dev), "test": len(data.test)}
    facts = RunFacts(
        data=(
            f"data: {experiment.data.kind}; " + ", ".join(f"{n:,} {part} examples" for part, n in counts.items() if n),
            f"knowledge base: {len(model.base):,} passages",
        ),
        objective=type(experiment.objective).__name__,
        scores=scores,
        test_examples=len(data.test),
        settings=tuple(_changed_settings(experiment)),
    )
    parts = ModelParts(model.retriever, model.generator, model.posterior)
    write_cards(folder, parts, model.task, model.base, model.search_kind, model.settings, facts)


def _changed_settings(experiment: Experiment) -> Iterator[str]:
    """Yield the settings that differ from the defaults, as others may read them."""
    settings, usual = flatten_settings(experiment.to_mapping()), flatten_settings(Experiment().to_mapping())
    for name, shown in settings_for_others(experiment).items():
        if name.partition(".")[0] not in _NOT_SETTINGS and settings[name] != usual.get(name):
            yield f"{name} = {json.dumps(shown)}"
