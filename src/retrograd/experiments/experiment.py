"""An experiment as a frozen value: what to train, on what, how. Strictly to and from TOML and JSON.

The tree has two levels: sections (`retrograd.experiments.settings`, and the kinds of data), and settings in
them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import get_type_hints

import tomli_w

from retrograd.experiments.data.kinds import kind_names, read_data
from retrograd.experiments.data.relations import RelationData
from retrograd.experiments.data.source import DataKind, absolute_file
from retrograd.experiments.settings import (
    EvaluationSettings,
    GeneratorSettings,
    MaskingSettings,
    RetrieverSettings,
    SecondStageSettings,
    SoftPromptSettings,
    TrainingSettings,
    WarmStartSettings,
)
from retrograd.objectives import (
    OBJECTIVES,
    Distillation,
    FrozenRetriever,
    NoRetrieval,
    Objective,
    RelaxedTopK,
    TopKMarginal,
)
from retrograd.objectives.differentiable_knn import Selection
from retrograd.rag.answers.answering import Manner
from retrograd.types import UserError
from retrograd.util.guards import advice, parse_toml_value, require_at_least
from retrograd.util.records import read_record, read_toml, read_value, record_mapping
from retrograd.util.text_files import read_json

__all__ = [
    "EvaluationSettings",
    "Experiment",
    "GeneratorSettings",
    "MaskingSettings",
    "RelationData",
    "RetrieverSettings",
    "SecondStageSettings",
    "SoftPromptSettings",
    "TrainingSettings",
    "WarmStartSettings",
]


@dataclass(frozen=True)
class Experiment:
    """What to run. ``objective`` is the objective itself, a value with its settings."""

    name: str = "experiment"
    seed: int = 0
    data: DataKind = field(default_factory=RelationData)
    retriever: RetrieverSettings = field(default_factory=RetrieverSettings)
    generator: GeneratorSettings = field(default_factory=GeneratorSettings)
    soft_prompt: SoftPromptSettings = field(default_factory=SoftPromptSettings)
    objective: Objective = field(default_factory=TopKMarginal)
    warm_start: WarmStartSettings = field(default_factory=WarmStartSettings)
    masking: MaskingSettings = field(default_factory=MaskingSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    second_stage: SecondStageSettings = field(default_factory=SecondStageSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)

    def __post_init__(self) -> None:
        if self.objective.needs_posterior and not self.retriever.posterior:
            raise UserError(
                f"{type(self.objective).__name__} needs a posterior retriever; set retriever.posterior = true"
                f", or choose settings of the objective that do without (show prints them)"
            )
        self._check_retrieval()
        self._check_stages()
        self._check_reading()
        if self.evaluation.calibrate and not self.data.has_closed_answers:
            raise UserError(
                f"evaluation.calibrate fits a decision among permitted answers, and {self.data.kind} have none; "
                f"set it to false"
            )
        wants_dev = {
            "training.evaluate_every": self.training.evaluate_every > 0,
            "evaluation.calibrate": self.evaluation.calibrate,
        }
        for setting, wanted in wants_dev.items():
            if wanted and not self.data.has_dev:
                raise UserError(
                    f"{setting} needs development data; set data.dev to a file, or data.dev_from_train to a number of "
                    f"training instances"
                )

    def from_root(self) -> Experiment:
        """With the files that it names from the root, so that it can be read in any folder."""
        masking = replace(self.masking, spans=absolute_file(self.masking.spans))
        return replace(self, data=self.data.from_root(), masking=masking)

    @property
    def stages_on_data(self) -> list[str]:
        """The stages, by the names of their settings, that train on ``data.train``; masked sentences are the base's."""
        stages = {"warm_start": self.warm_start, "training": self.training, "second_stage": self.second_stage}
        return [name for name, stage in stages.items() if stage.epochs > 0]

    def _check_retrieval(self) -> None:
        """What the objective and the search ask of each other."""
        passages = self.training.passages
        require_at_least(0, {"training.passages": passages})
        require_at_least(-1, {"evaluation.passages (-1 is as in training)": self.evaluation.passages})
        if self.retriever.pooling == "roles" and self.training.refresh == "background":
            raise UserError(
                'retriever.pooling = "roles" cannot be refreshed by another process; set training.refresh = "every"'
            )
        if self.retriever.lexical_dimensions > 0 and self.training.refresh == "background":
            raise UserError(
                "retriever.lexical_dimensions is unknown to another process, which cannot refresh the index; set "
                'training.refresh = "every"'
            )
        if (
            self.retriever.posterior
            and self.retriever.posterior_passages == "own"
            and self.training.refresh == "background"
        ):
            raise UserError(
                'retriever.posterior_passages = "own" makes two vectors a passage, and another process makes one; '
                'set training.refresh = "every"'
            )
        if self.retriever.lexical_dimensions > 0 and self.soft_prompt.form != "words":
            raise UserError(
                f'soft_prompt.form = "{self.soft_prompt.form}" maps the vectors of a model, not counts of words; set '
                "retriever.lexical_dimensions = 0"
            )
        if self.training.distraction > 0 and (self.training.passages == 0 or self.objective.needs_posterior):
            raise UserError(
                f"training.distraction misleads the prior's search, which {type(self.objective).__name__} "
                f"{'does not make' if self.training.passages == 0 else 'compares with a posterior that knows better'}; "
                f"set it to 0"
            )
        search = self.retriever.search_kind
        if not search.has_vectors and self._takes_vectors:
            raise UserError(
                f'retriever.search = "{search.name}" has no vectors: set training.pool = false, training.tail = 0, '
                "training.distraction = 0.0, and take an objective that reads passages as text"
            )
        t = self.training
        if not search.takes_other_rows and (t.pool or t.tail > 0 or t.distraction > 0):
            raise UserError(
                f'retriever.search = "{search.name}" gives a query what it finds for it and nothing else: set '
                "training.pool = false, training.explorers = 0, training.tail = 0 and training.distraction = 0.0"
            )
        if self.training.explorers > 0 and not self.training.pool:
            raise UserError("training.explorers join a pool; set training.pool = true, or explorers = 0")
        if passages == 0 and not isinstance(self.objective, NoRetrieval):
            raise UserError(
                f"training.passages is 0, but {type(self.objective).__name__} learns from passages; "
                f"set it to 5, say, or take the objective NoRetrieval"
            )

    def _check_reading(self) -> None:
        """How passages reach the generator."""
        if self.manner.one_prompt and self.selection is not None:
            raise UserError(
                f'evaluation.reading = "{self.manner.reading}" reads passages as text at once, but '
                f'{type(self.objective).__name__} reads them in soft slots; set it to "as trained"'
            )
        leaves_out = getattr(self.objective, "target", "") == "loop_kl_target_prior"  # one prompt for all the others
        if self.generator.fusion and not (self._trains_together or leaves_out):
            raise UserError(
                f"generator.fusion is for objectives that read passages together, and {type(self.objective).__name__} "
                f'as set reads them one by one; set it to false, or objective.form (or reader) to "together"'
            )
        if self.generator.fsdp and leaves_out:
            raise UserError(
                'generator.fsdp needs as many prompts on all processes, and objective.target = "loop_kl_target_prior" '
                "asks as many as a query has candidates; set fsdp = false, or another target"
            )
        if self.soft_prompt.form != "words" and self.selection is None:
            raise UserError(
                f"soft_prompt.form is {self.soft_prompt.form!r}, but {type(self.objective).__name__} fills no soft "
                f'slots; take the objective RelaxedTopK, or set soft_prompt.form = "words"'
            )

    def _check_stages(self) -> None:
        t, kind = self.training, type(self.objective).__name__
        if t.prior_only > 0 and (t.pool or t.generator_learning_rate == 0 or not self.objective.needs_posterior):
            raise UserError(
                "training.prior_only teaches the generator with what the prior alone found; it needs an objective with "
                "a posterior, training.pool = false and a training.generator_learning_rate; set it to 0"
            )
        if self.second_stage.epochs > 0 and (self.selection is not None or t.passages == 0):
            how = "reads no passages" if t.passages == 0 else "reads them in soft slots"
            raise UserError(
                f"second_stage.epochs has the generator read passages as text, but {kind} {how}; set it to 0"
            )

    @property
    def _takes_vectors(self) -> bool:
        """Whether training or answering needs more of a search than the best rows and their scores."""
        t = self.training
        return t.pool or t.tail > 0 or t.distraction > 0 or self.selection is not None

    @property
    def selection(self) -> Selection | None:
        """How the trained model fills soft slots when it answers; None where it reads passages one by one."""
        return self.objective.selection if isinstance(self.objective, RelaxedTopK) else None

    @property
    def manner(self) -> Manner:
        """How the trained model answers."""
        reading = self.evaluation.reading
        if reading == "as trained":
            reading = "singly"
            if self._trains_together:
                reading = "fused" if self.generator.fusion else "together"
        return Manner(self.evaluation.answers, reading, self.evaluation.beams, self.evaluation.marginal)

    @property
    def _trains_together(self) -> bool:
        """Whether the last stage of the generator reads several passages at once."""
        if self.second_stage.epochs > 0:
            return self.second_stage.reading == "together"
        return self._first_together

    @property
    def _first_together(self) -> bool:
        match self.objective:
            case FrozenRetriever(form="together") | Distillation(reader="together"):
                return True
            case _:
                return False

    @property
    def prompt_passages(self) -> int:
        """Passages in the longest prompt of any stage, or of answering: 0 where soft slots hold them, 1 where each is
        read apart."""
        if self.selection is not None:
            return 0
        second, first = self.second_stage, self.training.passages
        apart = min(1, max(first, self.test_passages))
        if self.generator.fusion:
            return apart
        joint = max(self.training.epochs, self.masking.epochs) > 0 and self._first_together
        together = [
            first if joint else 0,
            (second.passages or first) if second.epochs > 0 and second.reading == "together" else 0,
            self.test_passages if self.manner.one_prompt else 0,
        ]
        return max(*together, apart)

    @property
    def test_passages(self) -> int:
        """K at test time; as in training is as in its last stage."""
        if self.evaluation.passages >= 0:
            return self.evaluation.passages
        return (self.second_stage.passages if self.second_stage.epochs > 0 else 0) or self.training.passages

    # ---- text in and out ----------------------------------------------------------------------------------------

    def to_mapping(self) -> dict[str, object]:
        """Plain tables and values; ``objective.kind`` is the class of the objective, ``data.kind`` that of its kind."""
        values: dict[str, object] = {}
        for name, value in vars(self).items():
            if name == "objective":
                values[name] = {"kind": type(value).__name__} | record_mapping(value)
            elif name == "data":
                values[name] = {"kind": self.data.kind} | record_mapping(value)
            else:
                values[name] = value if isinstance(value, (str, int)) else record_mapping(value)
        return values

    def to_toml(self) -> str:
        """The resolved experiment: every setting, defaults included."""
        return tomli_w.dumps(self.to_mapping())

    def to_json(self) -> str:
        """The same as JSON."""
        return json.dumps(self.to_mapping(), indent=2) + "\n"

    @classmethod
    def from_mapping(cls, values: Mapping[str, object], where: str) -> Experiment:
        """The inverse of `to_mapping`; what is left out keeps its default.

        Raises `UserError`, beginning with ``where``, for an unknown key (naming the nearest) or a wrong type.
        """
        hints = get_type_hints(cls)
        parts = {}
        for name, value in values.items():
            if name not in hints:
                raise UserError(f"{where}: unknown key {name!r}; {advice(name, hints)}")
            own = {"objective": _read_objective, "data": read_data}
            read = own.get(name) or partial(read_value, hints[name])
            parts[name] = read(value, f"{where}: {name}")
        try:
            return cls(**parts)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None

    @classmethod
    def load(cls, path: Path) -> Experiment:
        """Read a ``.toml`` or ``.json`` file. Raises `UserError` with file and place for whatever is wrong in it."""
        values = read_json(path) if path.suffix == ".json" else read_toml(path)
        if not isinstance(values, dict):
            raise UserError(f"{path}: expected a table of settings")
        return cls.from_mapping(values, str(path))

    def with_settings(self, assignments: Sequence[str]) -> Experiment:
        """A copy with ``section.setting=value`` assignments applied, values as in TOML (bare words are text).

        Raises `UserError` for an unknown setting, naming the nearest, or a value of another type.
        """
        values = self.to_mapping()
        for assignment in assignments:
            _require_text(assignment)
            key, equals, text = assignment.partition("=")
            if not equals:
                raise UserError(f"--set {assignment}: expected section.setting=value")
            *sections, setting = key.strip().split(".")
            table = values
            for section in sections:
                found = table.get(section)
                if not isinstance(found, dict):
                    raise UserError(f"--set {assignment}: no section {section!r}; {advice(section, table)}")
                table = found
            if setting == "kind" and sections in (["objective"], ["data"]):  # another kind begins with its defaults
                values[sections[0]] = {"kind": text.strip()} | _defaults(text.strip())
                continue
            if setting not in table:
                raise UserError(f"--set {assignment}: unknown key {setting!r}; {advice(setting, table)}")
            table[setting] = parse_toml_value(text.strip())
        return type(self).from_mapping(values, "--set")


def _defaults(kind: str) -> dict[str, object]:
    """Those of an objective or a kind of data; none for a name that is neither, which reading it complains of."""
    if kind in kind_names():
        return dict(record_mapping(read_data({"kind": kind}, "data")))
    kinds: dict[str, Callable[[], object]] = {one.__name__: one for one in OBJECTIVES}
    return dict(record_mapping(kinds[kind]())) if kind in kinds else {}


def _read_objective(values: object, where: str) -> Objective:
    kinds = {kind.__name__: kind for kind in OBJECTIVES}
    if not isinstance(values, Mapping) or "kind" not in values:
        raise UserError(f"{where}: needs 'kind', one of {', '.join(kinds)}")
    kind = values["kind"]
    if not isinstance(kind, str) or kind not in kinds:
        raise UserError(f"{where}: no objective {kind!r}; {advice(str(kind), kinds)}")
    settings = {key: value for key, value in values.items() if key != "kind"}
    return read_record(kinds[kind], settings, f"{where} ({kind})")


def _require_text(assignment: str) -> None:
    try:
        assignment.encode()
    except UnicodeEncodeError:  # bytes of the command line that are no text
        raise UserError(f"--set {assignment!r}: not UTF-8; write it in UTF-8, as experiment files are") from None
