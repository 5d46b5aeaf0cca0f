"""An experiment as a frozen value: what to train, on what, how. Strictly to and from TOML and JSON.

Every setting has one place and a default. The tree has two levels: sections, and settings in them.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, get_type_hints

import tomli_w

from retrograd.io import read_json, read_lines
from retrograd.models.encoder import Pooling
from retrograd.models.precision import Precision
from retrograd.models.prefix_tree import Scoring
from retrograd.models.quantisation import Quantisation
from retrograd.models.retriever import Trained
from retrograd.models.soft_input import SoftPosition
from retrograd.objectives import OBJECTIVES, NoRetrieval, Objective, RelaxedTopK, TopKMarginal
from retrograd.objectives.differentiable_knn import Selection
from retrograd.recipes.data import DataSettings
from retrograd.records import read_record, read_value, record_mapping
from retrograd.suggestions import advice
from retrograd.training.refresh import (
    EverySteps,
    InBackground,
    Never,
    RefreshPolicy,
    RetrievedLately,
    Rolling,
    WhenDrifted,
)
from retrograd.training.schedule import Schedule, require_schedule
from retrograd.types import UserError

__all__ = [
    "DataSettings",
    "EvaluationSettings",
    "Experiment",
    "GeneratorSettings",
    "RetrieverSettings",
    "SoftPromptSettings",
    "TrainingSettings",
    "WarmStartSettings",
]


Refresh = Literal["every", "drift", "rolling", "retrieved", "background", "never"]
_BELONGS_TO = {
    "refresh_drift": ("drift", "0.02"),
    "refresh_share": ("rolling", "0.02"),
    "refresh_window": ("retrieved", "50"),
}
"""Numbers that one policy alone reads, and a value to begin with; 0 is not set."""


@dataclass(frozen=True)
class RetrieverSettings:
    """``model`` is a hub name, a folder or ``builtin:minilm``. ``separate_towers`` gives passages their own encoder.

    ``posterior`` adds q(z|x,y), which shares the passage embeddings. ``null_passage`` makes reading nothing one of the
    candidates. ``trained``: both towers, the query side, or none. ``dropout`` false leaves the model's dropout out of
    training: a quarter of the time of a small encoder on a CPU. ``search`` "random" is a control: neighbours of some
    passage that has nothing to do with the query.
    """

    model: str = "builtin:minilm"
    pooling: Pooling = "mean"
    normalise: bool = True
    max_tokens: int = 128
    temperature: float = 0.05
    learn_temperature: bool = False
    trained: Trained = "query"
    separate_towers: bool = False
    posterior: bool = False
    null_passage: bool = False
    dropout: bool = True
    search: Literal["nearest", "random"] = "nearest"

    def __post_init__(self) -> None:
        if self.search == "random" and (self.trained != "none" or self.posterior):
            raise UserError(
                'retriever.search = "random" is a control in which nothing is learned of the query; set '
                'retriever.trained = "none" and posterior = false'
            )


@dataclass(frozen=True)
class GeneratorSettings:
    """``model`` is a hub name, a folder or ``builtin:minilm-seq2seq``. ``lora_rank`` 0 trains all weights.

    ``token_budget`` bounds the padded tokens of one forward pass; 0 is what suits the device. ``dropout`` false leaves
    the model's dropout out of training. ``chat`` puts the prompt of a decoder-only model into the tokenizer's chat
    template, where it has one. ``quantisation`` "nf4" holds the linear layers under adapters in four bits (QLoRA), on a
    CUDA device. ``gradient_checkpointing`` computes layers again in the backward pass, which saves memory.
    """

    model: str = "builtin:minilm-seq2seq"
    max_input_tokens: int = 256
    max_target_tokens: int = 16
    token_budget: int = 0
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0
    lora_modules: tuple[str, ...] = ()
    dropout: bool = True
    chat: bool = True
    quantisation: Quantisation = "none"
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.gradient_checkpointing and not self.dropout:
            raise UserError("gradient_checkpointing works where dropout does; set dropout = true, or it to false")


@dataclass(frozen=True)
class SoftPromptSettings:
    """What the soft slots of `RelaxedTopK` hold: the ``words`` of passages, mixed token by token, or the retriever's
    vectors of instances through a learned map, ``improved`` or as ``published`` (`retrograd.models.soft_prompt`).

    ``position`` is where they stand, ``gain`` where the improved form's learned gain starts. With retriever.pooling
    "roles" an instance has a vector for head, tail and context, else one for all; the label's is added to them, except
    with data.key_style "published".
    """

    form: Literal["words", "improved", "published"] = "words"
    position: SoftPosition = "before"
    gain: float = 0.1


@dataclass(frozen=True)
class WarmStartSettings:
    """The retriever alone, on the copy likelihood, before the generator joins. ``epochs`` 0 turns it off.

    ``passages`` 0 means the whole base. ``noise`` is the share of supporting passages that are no evidence.
    """

    epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 1e-4
    refresh_every: int = 10
    passages: int = 0
    noise: float = 0.05


@dataclass(frozen=True)
class TrainingSettings:
    """The main stage. ``passages`` is K per retriever; intervals are in optimiser steps, 0 is never.

    ``tail`` passages more are drawn from the prior outside the best and stand for the rest of the base. With ``pool``
    the queries of a batch share all their passages as candidates, with ``explorers`` more drawn at random. A share of
    the queries, ``distraction``, reads what was found for an unrelated passage: where training queries retrieve far
    better than new ones, a generator that never saw a wrong neighbour learns to copy, and forgets to read.

    ``refresh`` says how the index is kept up where training moves passages (`retrograd.training.refresh`): all rows
    ``every`` so many steps; on ``drift``, when the probe's mean 1 - cosine passes ``refresh_drift``; ``rolling``, the
    ``refresh_share`` of the rows at each step; those ``retrieved`` in the last ``refresh_window`` steps; in the
    ``background``, by another process; or ``never``. ``refresh_every`` is how often that is done or looked at.
    ``probe_passages`` of the base are encoded at each logged step to measure staleness.

    Learning rates rise over the share ``warmup`` of the steps and then follow the ``schedule``
    (`retrograd.training.schedule`); "cosine with restarts" begins ``restarts`` times again.
    """

    epochs: int = 4
    batch_size: int = 16
    micro_batch: int = 0
    passages: int = 5
    tail: int = 0
    pool: bool = False
    explorers: int = 0
    distraction: float = 0.0
    generator_learning_rate: float = 2e-4
    retriever_learning_rate: float = 2e-5
    weight_decay: float = 0.01
    warmup: float = 0.1
    schedule: Schedule = "linear"
    restarts: int = 0
    clip: float = 1.0
    refresh: Refresh = "every"
    refresh_every: int = 20
    refresh_drift: float = 0.0
    refresh_share: float = 0.0
    refresh_window: int = 0
    probe_passages: int = 64
    log_every: int = 10
    evaluate_every: int = 0
    save_every: int = 0
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if not 0 <= self.distraction < 1:
            raise UserError(f"distraction is {self.distraction:g}; expected a share of the queries, from 0 to below 1")
        if self.probe_passages < 0:
            raise UserError(f"probe_passages is {self.probe_passages}; expected 0 (no measurement) or more")
        for setting, (policy, example) in _BELONGS_TO.items():
            value = vars(self)[setting]
            if self.refresh == policy and value == 0:
                raise UserError(f'refresh = "{policy}" needs {setting}; set it to {example}, say')
            if self.refresh != policy and value != 0:
                raise UserError(
                    f'{setting} belongs to refresh = "{policy}", but refresh is "{self.refresh}"; set it to 0'
                )
        if self.refresh == "drift" and self.probe_passages == 0:
            raise UserError('refresh = "drift" needs a probe; set probe_passages to 64, say')
        require_schedule(self.schedule, self.restarts)
        _ = self.refresh_policy  # which checks its own numbers

    @property
    def refresh_policy(self) -> RefreshPolicy:
        """The policy as a value."""
        policies: dict[Refresh, Callable[[], RefreshPolicy]] = {
            "every": lambda: EverySteps(self.refresh_every),
            "drift": lambda: WhenDrifted(self.refresh_drift, self.refresh_every),
            "rolling": lambda: Rolling(self.refresh_share),
            "retrieved": lambda: RetrievedLately(self.refresh_every, self.refresh_window),
            "background": lambda: InBackground(self.refresh_every),
            "never": Never,
        }
        return policies[self.refresh]()


@dataclass(frozen=True)
class EvaluationSettings:
    """``passages`` is K at test time; -1 means as in training. ``scoring`` compares the answers of a closed set by the
    likelihood of the whole answer ("sequence") or by the steps at which the permitted answers part ("tree", as SuRE).
    ``calibrate`` fits, after training, how much the neighbours' vote weighs beside the generator and how much better
    than "no relation" a relation must be, on the development data (`retrograd.evaluation.calibration`).
    """

    passages: int = -1
    scoring: Scoring = "sequence"
    calibrate: bool = False


@dataclass(frozen=True)
class Experiment:
    """What to run. ``objective`` is the objective itself, a value with its settings."""

    name: str = "experiment"
    seed: int = 0
    data: DataSettings = field(default_factory=DataSettings)
    retriever: RetrieverSettings = field(default_factory=RetrieverSettings)
    generator: GeneratorSettings = field(default_factory=GeneratorSettings)
    soft_prompt: SoftPromptSettings = field(default_factory=SoftPromptSettings)
    objective: Objective = field(default_factory=TopKMarginal)
    warm_start: WarmStartSettings = field(default_factory=WarmStartSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)

    def __post_init__(self) -> None:
        if self.objective.needs_posterior and not self.retriever.posterior:
            raise UserError(
                f"{type(self.objective).__name__} needs a posterior retriever; set retriever.posterior = true"
                f", or choose settings of the objective that do without (show prints them)"
            )
        passages = self.training.passages
        if passages < 0 or self.evaluation.passages < -1:
            raise UserError("training.passages must be at least 0, evaluation.passages at least -1 (as in training)")
        if self.retriever.pooling == "roles" and self.training.refresh == "background":
            raise UserError(
                'retriever.pooling = "roles" cannot be refreshed by another process; set training.refresh = "every"'
            )
        if self.training.distraction > 0 and (self.training.passages == 0 or self.objective.needs_posterior):
            raise UserError(
                f"training.distraction misleads the prior's search, which {type(self.objective).__name__} "
                f"{'does not make' if self.training.passages == 0 else 'compares with a posterior that knows better'}; "
                f"set it to 0"
            )
        if self.training.explorers > 0 and not self.training.pool:
            raise UserError("training.explorers join a pool; set training.pool = true, or explorers = 0")
        if self.soft_prompt.form != "words" and self.selection is None:
            raise UserError(
                f"soft_prompt.form is {self.soft_prompt.form!r}, but {type(self.objective).__name__} fills no soft "
                f'slots; take the objective RelaxedTopK, or set soft_prompt.form = "words"'
            )
        if passages == 0 and not isinstance(self.objective, NoRetrieval):
            raise UserError(
                f"training.passages is 0, but {type(self.objective).__name__} learns from passages; "
                f"set it to 5, say, or take the objective NoRetrieval"
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

    @property
    def selection(self) -> Selection | None:
        """How the trained model fills soft slots when it answers; None where it reads passages one by one."""
        return self.objective.selection if isinstance(self.objective, RelaxedTopK) else None

    @property
    def test_passages(self) -> int:
        """K at test time."""
        return self.training.passages if self.evaluation.passages < 0 else self.evaluation.passages

    # ---- text in and out ----------------------------------------------------------------------------------------

    def to_mapping(self) -> dict[str, object]:
        """Plain tables and values; ``objective.kind`` is the class of the objective."""
        values: dict[str, object] = {}
        for name, value in vars(self).items():
            if name == "objective":
                values[name] = {"kind": type(value).__name__} | record_mapping(value)
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
            read = _read_objective if name == "objective" else partial(read_value, hints[name])
            parts[name] = read(value, f"{where}: {name}")
        try:
            return cls(**parts)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None

    @classmethod
    def load(cls, path: Path) -> Experiment:
        """Read a ``.toml`` or ``.json`` file. Raises `UserError` with file and place for whatever is wrong in it."""
        if path.suffix == ".json":
            values = read_json(path)
        else:
            text = "\n".join(line for _, line in read_lines(path))
            try:
                values = tomllib.loads(text)
            except tomllib.TOMLDecodeError as error:
                raise UserError(f"{path}: not valid TOML: {error}") from None
        if not isinstance(values, dict):
            raise UserError(f"{path}: expected a table of settings")
        return cls.from_mapping(values, str(path))

    def with_settings(self, assignments: Sequence[str]) -> Experiment:
        """A copy with ``section.setting=value`` assignments applied, values as in TOML (bare words are text).

        Raises `UserError` for an unknown setting, naming the nearest, or a value of another type.
        """
        values = self.to_mapping()
        for assignment in assignments:
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
            if key.strip() == "objective.kind":  # another objective has other settings: begin with its defaults
                values["objective"] = {"kind": text.strip()} | _defaults(text.strip())
                continue
            if setting not in table:
                raise UserError(f"--set {assignment}: unknown key {setting!r}; {advice(setting, table)}")
            table[setting] = _parsed(text.strip())
        return type(self).from_mapping(values, "--set")


def _defaults(kind: str) -> dict[str, object]:
    """An objective's own settings; none for a name that is no objective, which `_read_objective` complains of."""
    return dict(next((record_mapping(one()) for one in OBJECTIVES if one.__name__ == kind), {}))


def _read_objective(values: object, where: str) -> Objective:
    kinds = {kind.__name__: kind for kind in OBJECTIVES}
    if not isinstance(values, Mapping) or "kind" not in values:
        raise UserError(f"{where}: needs 'kind', one of {', '.join(kinds)}")
    kind = values["kind"]
    if not isinstance(kind, str) or kind not in kinds:
        raise UserError(f"{where}: no objective {kind!r}; {advice(str(kind), kinds)}")
    settings = {key: value for key, value in values.items() if key != "kind"}
    return read_record(kinds[kind], settings, f"{where} ({kind})")


def _parsed(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
