"""An experiment is a frozen value: what to train, on which data, and how.

It has two levels: sections (`retrograd.experiments.settings`, and the kinds of data), and settings in them. What the
sections require of each other is in `retrograd.experiments.rules`, how they are read and written in
`retrograd.experiments.text`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import tomli_w

from retrograd.experiments.data.relations import RelationData
from retrograd.experiments.data.source import DataKind, absolute_file
from retrograd.experiments.rules import check_rules
from retrograd.experiments.settings import (
    EvaluationSettings,
    GeneratorSettings,
    IndexSettings,
    MaskingSettings,
    RetrieverSettings,
    SecondStageSettings,
    SoftPromptSettings,
    TrainingSettings,
    WarmStartSettings,
)
from retrograd.experiments.text import assign, read_experiment, read_file, update, write_data, write_objective
from retrograd.objectives import Objective, Reads, Selection, default_objective
from retrograd.rag.answers.manner import Manner
from retrograd.training.tracking.settings import TrackSettings
from retrograd.util.records import record_mapping

__all__ = [
    "EvaluationSettings",
    "Experiment",
    "GeneratorSettings",
    "IndexSettings",
    "MaskingSettings",
    "RelationData",
    "RetrieverSettings",
    "SecondStageSettings",
    "SoftPromptSettings",
    "TrackSettings",
    "TrainingSettings",
    "WarmStartSettings",
]


Changes = Mapping[str, object]
"""Settings of one section, by name."""


@dataclass(frozen=True)
class Experiment:
    """Frozen settings of all that a run does. ``objective`` is the objective itself, a value with its settings.

    ``name`` is what runs are called in what is printed. ``seed`` orders the examples, feeds the sampler and draws new
    weights, and the data where ``data.seed`` is -1. Experiments that differ in ``track`` alone are equal: they compute
    the same.

    Example::

        experiment = rg.Experiment(seed=1, objective=rg.TopKMarginal())
        print(experiment.to_toml())
    """

    name: str = "experiment"
    seed: int = 0
    data: DataKind = field(default_factory=RelationData)
    retriever: RetrieverSettings = field(default_factory=RetrieverSettings)
    index: IndexSettings = field(default_factory=IndexSettings)
    generator: GeneratorSettings = field(default_factory=GeneratorSettings)
    soft_prompt: SoftPromptSettings = field(default_factory=SoftPromptSettings)
    objective: Objective = field(default_factory=default_objective)
    warm_start: WarmStartSettings = field(default_factory=WarmStartSettings)
    masking: MaskingSettings = field(default_factory=MaskingSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    second_stage: SecondStageSettings = field(default_factory=SecondStageSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    track: TrackSettings = field(default_factory=TrackSettings, compare=False)

    def __post_init__(self) -> None:
        check_rules(self)

    def from_root(self) -> Experiment:
        """Return the experiment with absolute names of files, so that it can be read in any folder."""
        masking = replace(self.masking, spans=absolute_file(self.masking.spans))
        index = replace(self.index, path=absolute_file(self.index.path))
        track = replace(self.track, folder=absolute_file(self.track.folder))
        return replace(self, data=self.data.from_root(), masking=masking, index=index, track=track)

    @property
    def stages_on_data(self) -> list[str]:
        """Return the sections whose stages train on ``data.train``; masked sentences come from the base."""
        stages = {"warm_start": self.warm_start, "training": self.training, "second_stage": self.second_stage}
        return [name for name, stage in stages.items() if stage.epochs > 0]

    @property
    def selection(self) -> Selection | None:
        """Return how the trained model fills soft slots when it answers; None where it reads passages as text.

        A model that was trained on one passage a slot reads them as text where a second stage or ``reading`` says so.
        """
        selection = self.objective.selection
        as_text = self.second_stage.epochs > 0 or self.evaluation.reading != "as trained"
        return None if selection is not None and selection.is_hard and as_text else selection

    @property
    def manner(self) -> Manner:
        """Return how the trained model answers."""
        reading = self.evaluation.reading
        if reading == "as trained":
            reading = "singly"
            if self.ends_together:
                reading = "fused" if self.generator.fusion else "together"
        # A second stage trains the generator on the likelihood of whole targets.
        mixes_tokens = self.objective.mixes_tokens and self.second_stage.epochs == 0
        mixture = "tokens" if mixes_tokens else "answers"
        return Manner(self.evaluation.answers, reading, self.evaluation.beams, self.evaluation.marginal, mixture)

    @property
    def ends_together(self) -> bool:
        """Return whether the last stage of the generator reads several passages in one prompt."""
        if self.second_stage.epochs > 0:
            return self.second_stage.reading == "together"
        return self.objective.reads == Reads.TOGETHER

    @property
    def prompt_passages(self) -> int:
        """Return the passages in the longest prompt of any stage, or of answering: 0 where soft slots hold them.

        Where each passage is read in a prompt of its own it is 1.
        """
        if self.selection is not None:
            return 0
        second, first = self.second_stage, self.training.passages
        apart = min(1, max(first, self.test_passages))
        if self.generator.fusion:
            return apart
        joint = max(self.training.epochs, self.masking.epochs) > 0 and self.objective.reads == Reads.TOGETHER
        together = [
            first if joint else 0,
            (second.passages or first) if second.epochs > 0 and second.reading == "together" else 0,
            self.test_passages if self.manner.one_prompt else 0,
        ]
        return max(*together, apart)

    @property
    def test_passages(self) -> int:
        """Return K at test time; -1 in the settings means that of the last stage of training."""
        if self.evaluation.passages >= 0:
            return self.evaluation.passages
        return (self.second_stage.passages if self.second_stage.epochs > 0 else 0) or self.training.passages

    # ---- text in and out ----------------------------------------------------------------------------------------

    def to_mapping(self) -> dict[str, object]:
        """Return plain tables and values; ``objective.kind`` is a class, ``data.kind`` the name of a kind of data."""
        plain = record_mapping(self)
        return {**plain, "objective": write_objective(self.objective), "data": write_data(self.data)}

    def to_toml(self) -> str:
        """Return the resolved experiment as TOML: every setting, defaults included."""
        return tomli_w.dumps(self.to_mapping())

    def to_json(self) -> str:
        """Return the resolved experiment as JSON."""
        return json.dumps(self.to_mapping(), indent=2) + "\n"

    @classmethod
    def from_mapping(cls, values: Mapping[str, object], where: str) -> Experiment:
        """Return the experiment that `to_mapping` wrote; what is left out keeps its default.

        Raises `UserError`, beginning with ``where``, for an unknown key (naming the nearest), a wrong type, and
        settings that do not fit each other.
        """
        return read_experiment(cls, values, where)

    @classmethod
    def load(cls, path: Path) -> Experiment:
        """Read a ``.toml`` or ``.json`` file. Raises `UserError` with file and place for whatever is wrong in it."""
        return cls.from_mapping(read_file(path), str(path))

    def with_settings(self, assignments: Sequence[str]) -> Experiment:
        """Return a copy with ``section.setting=value`` assignments applied, values as in TOML (bare words are text).

        Raises `UserError` for an unknown setting, naming the nearest, or a value of another type.
        """
        return self.from_mapping(assign(self.to_mapping(), assignments), "--set")

    def replace(
        self,
        *,
        name: str | None = None,
        seed: int | None = None,
        data: Changes | None = None,
        retriever: Changes | None = None,
        index: Changes | None = None,
        generator: Changes | None = None,
        soft_prompt: Changes | None = None,
        objective: Changes | Objective | None = None,
        warm_start: Changes | None = None,
        masking: Changes | None = None,
        training: Changes | None = None,
        second_stage: Changes | None = None,
        evaluation: Changes | None = None,
        track: Changes | None = None,
    ) -> Experiment:
        """Return a copy with some settings changed; a section names those that change, and keeps the others.

        Raises `UserError` for an unknown setting, naming the nearest, or a value of another type.

        Example::

            longer = rg.recipe("semeval-joint").replace(training={"epochs": 2}, seed=1)
            print(longer.training.epochs, longer.seed)
        """
        changes: dict[str, object | None] = {
            "name": name,
            "seed": seed,
            "data": data,
            "retriever": retriever,
            "index": index,
            "generator": generator,
            "soft_prompt": soft_prompt,
            "objective": write_objective(objective) if isinstance(objective, Objective) else objective,
            "warm_start": warm_start,
            "masking": masking,
            "training": training,
            "second_stage": second_stage,
            "evaluation": evaluation,
            "track": track,
        }
        present_changes = {key: value for key, value in changes.items() if value is not None}
        return self.from_mapping(update(self.to_mapping(), present_changes, "replace"), "replace")
