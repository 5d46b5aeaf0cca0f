"""The card of a finished run's model: data, objective, settings, scores and controls, as its folder records them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from retrograd.evaluation.evaluate import Evaluation
from retrograd.experiments.build import derive_model_settings
from retrograd.experiments.data.source import Data
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.setting_changes import compare_with_recipe
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.rag.model_card import Controls, RunFacts, Scores, update_cards, write_cards
from retrograd.rag.model_folder import read_parts, read_saved_settings
from retrograd.tasks.relations.unseen_labels import describe_unseen
from retrograd.tasks.task import Task
from retrograd.training.run.run_directory import RunDirectory
from retrograd.util.guards import JsonObject, JsonValue, finite_number
from retrograd.util.text_files import read_json, write_json

__all__ = ["record_controls", "write_recorded_cards", "write_run_cards"]

_PARTS = {"train": "training", "dev": "development", "test": "test"}


def write_run_cards(
    run: RunDirectory, experiment: Experiment, data: Data, folder: Path, evaluation: Evaluation | None = None
) -> None:
    """Complete the cards in ``folder``, where the model of a run has been saved, with what the run knows.

    Without an ``evaluation`` the scores on the test data are still to be measured.
    """
    counts = {"train": len(data.train), "dev": len(data.dev), "test": len(data.test)}
    scores = None
    if evaluation is not None:
        values = {name: value for name, value in evaluation.scores.items() if math.isfinite(value)}
        intervals = {name: (one.low, one.high) for name, one in evaluation.intervals.items()}
        scores = Scores(values, intervals, evaluation.trivial)
    update_cards(folder, _facts(run, experiment, counts, len(data.base), scores))


def write_recorded_cards(run: RunDirectory, experiment: Experiment, task: Task, folder: Path) -> None:
    """Write the cards of a finished run's model into ``folder``, from what the run has recorded.

    The networks are opened for it. Raises `UserError` where they cannot be.
    """
    saved, base = read_saved_settings(run.model), KnowledgeBase.open(run.base)
    parts = read_parts(run.model, saved, task, experiment.generator.model)
    facts = _recorded_facts(run, experiment, len(base))
    write_cards(folder, parts, task, base, saved.search, derive_model_settings(experiment), facts)


def record_controls(run: RunDirectory, sentence: str, scores: Mapping[str, Mapping[str, float]]) -> None:
    """Write the ``scores`` of a finished run's controls, by name and in percent, into its folder and into its cards.

    ``sentence`` says what the comparison with them gave. No network is opened.
    """
    systems = {name: dict(own) for name, own in scores.items()}
    write_json(run.controls, {"sentence": sentence, "systems": systems})
    experiment, base = Experiment.load(run.experiment), KnowledgeBase.open(run.base)
    update_cards(run.model, _recorded_facts(run, experiment, len(base)))


def _recorded_facts(run: RunDirectory, experiment: Experiment, passages: int) -> RunFacts:
    values = run.all_scores()
    scores = Scores(values, run.intervals(), run.trivial_scores()) if values else None
    return _facts(run, experiment, _recorded_counts(run), passages, scores)


def _facts(
    run: RunDirectory, experiment: Experiment, counts: Mapping[str, int], passages: int, scores: Scores | None
) -> RunFacts:
    sizes = [f"{counts[part]:,} {name} examples" for part, name in _PARTS.items() if counts.get(part)]
    recipe, changes = compare_with_recipe(run, experiment)
    return RunFacts(
        data=(
            f"data: {experiment.data.kind}; {', '.join(sizes)}",
            f"knowledge base: {passages:,} passages",
            *_unseen_labels(run, counts),
        ),
        objective=type(experiment.objective).__name__,
        scores=scores,
        test_examples=counts.get("test", 0),
        recipe=recipe,
        settings=tuple(f"{change.name} = {json.dumps(change.run, ensure_ascii=False)}" for change in changes),
        controls=_read_controls(run),
    )


def _recorded_counts(run: RunDirectory) -> dict[str, int]:
    """Return how many examples each part of the data had; a part that the run has not recorded is left out."""
    counts = {}
    for part in _PARTS:
        table = _recorded_part(run, part)
        number = table.get("examples") or table.get("instances")
        if isinstance(number, int):
            counts[part] = number
    return counts


def _unseen_labels(run: RunDirectory, counts: Mapping[str, int]) -> Iterator[str]:
    """Yield what is to be said of test examples whose labels training never shows."""
    unseen = _recorded_part(run, "test").get("unseen_labels")
    numbers = {label: n for label, n in unseen.items() if isinstance(n, int)} if isinstance(unseen, dict) else {}
    if numbers:
        yield f"test data: {describe_unseen(numbers, counts.get('test', 0))}"


def _recorded_part(run: RunDirectory, part: str) -> JsonObject:
    """Return what a run has recorded of a part of its data; nothing where it has not."""
    record = read_json(run.data_record) if run.data_record.exists() else {}
    table = record.get(part) if isinstance(record, dict) else None
    return table if isinstance(table, dict) else {}


def _read_controls(run: RunDirectory) -> Controls | None:
    """Return what `record_controls` wrote; None where the run has no controls."""
    record = read_json(run.controls) if run.controls.exists() else None
    match record:
        case {"sentence": str(sentence), "systems": {**systems}} if systems:
            return Controls(sentence, {name: _numbers(table) for name, table in systems.items()})
        case _:
            return None


def _numbers(table: JsonValue) -> dict[str, float]:
    values = {name: finite_number(value) for name, value in table.items()} if isinstance(table, dict) else {}
    return {name: value for name, value in values.items() if value is not None}
