"""Settings of an experiment, section by section; each has one place and a default."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from retrograd.data.examples import TargetChoice
from retrograd.data.offsets import Offsets
from retrograd.data.sentences import Language
from retrograd.index.settings import IndexSettings, NormaliserEstimation
from retrograd.models.settings import PrecisionSetting, Scoring
from retrograd.rag.answers.manner import Marginal, require_beams
from retrograd.rag.settings import GeneratorSettings, RetrieverSettings, SoftPromptSettings
from retrograd.training.refresh.policies import (
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
from retrograd.util.guards import require_at_least

__all__ = [
    "NOTHING_TRAINED",
    "EvaluationSettings",
    "GeneratorSettings",
    "IndexSettings",
    "MaskingSettings",
    "RetrieverSettings",
    "SecondStageSettings",
    "SoftPromptSettings",
    "TrainingSettings",
    "WarmStartSettings",
]

Refresh = Literal["every", "drift", "rolling", "retrieved", "background", "never"]
NOTHING_TRAINED = (
    "nothing is trained: set training.generator_learning_rate or training.retriever_learning_rate, or, where the "
    "retriever learns its temperature or a lexical weight, training.scale_learning_rate"
)
_BELONGS_TO = {
    "refresh_drift": ("drift", "0.02"),
    "refresh_share": ("rolling", "0.02"),
    "refresh_window": ("retrieved", "50"),
}
"""Numbers that one policy alone reads, and a value to begin with; 0 is not set."""


@dataclass(frozen=True)
class WarmStartSettings:
    """Settings of the retriever's warm start, on the copy likelihood, before the main stage. ``epochs`` 0 turns it off.

    Steps have ``batch_size`` queries at ``learning_rate``; every ``refresh_every`` steps the index is embedded anew,
    where passages move. ``passages`` 0 means the whole base. ``noise`` is the share of supporting passages that are no
    evidence.
    """

    epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 1e-4
    refresh_every: int = 10
    passages: int = 0
    noise: float = 0.05


@dataclass(frozen=True)
class MaskingSettings:
    """Settings of training on masked sentences of the base (REALM), before the main stage and by its objective.

    ``epochs`` 0 is off; ``generator_learning_rate`` and ``retriever_learning_rate`` are those of this stage.
    ``passages`` of the base, drawn at random (0: all), give at most ``per_passage`` sentences each
    (`retrograd.data.masking`). A sentence is not answered from the passage that it is in, unless ``may_see_source``.
    ``spans`` is a file of what may be masked, by a tagger for example (`read_spans`), in the place of names, dates and
    numbers found by rules for English; ``offsets`` is what those of the file count. ``language`` is that of the
    sentences, "en" or "any"; "any" needs ``spans``. What is not set here is as in training.
    """

    epochs: int = 0
    per_passage: int = 1
    passages: int = 0
    may_see_source: bool = False
    generator_learning_rate: float = 2e-4
    retriever_learning_rate: float = 2e-5
    spans: str = ""
    offsets: Offsets = "characters"
    language: Language = "en"

    def __post_init__(self) -> None:
        if self.language != "en" and not self.spans:
            raise UserError(
                f"masking.language is {self.language!r}, and the rules that find names, dates and numbers are for "
                f"English; name a file of what may be masked as masking.spans"
            )
        require_at_least(0, {"masking.epochs": self.epochs, "masking.passages": self.passages})
        require_at_least(1, {"masking.per_passage": self.per_passage})


@dataclass(frozen=True)
class SecondStageSettings:
    """Settings of training the generator alone, after the main stage, on the passages that the finished prior finds.

    It reads these at test time, where joint training also gave it what the posterior found. ``epochs`` 0 is off.
    ``learning_rate`` is the generator's.
    ``passages`` and ``batch_size`` 0 are as in training. ``reading`` "together" puts the passages into one prompt
    (JSA-RAG's passage concatenation), "singly" sums over them (VRAG's second stage). Answers are then read alike.
    """

    epochs: int = 0
    passages: int = 0
    reading: Literal["together", "singly"] = "together"
    learning_rate: float = 2e-4
    batch_size: int = 0

    def __post_init__(self) -> None:
        require_at_least(0, {"second_stage.epochs": self.epochs, "second_stage.passages": self.passages})
        require_at_least(0, {"second_stage.batch_size": self.batch_size})
        if self.epochs > 0 and self.learning_rate <= 0:
            raise UserError(
                f"second_stage.learning_rate is {self.learning_rate:g}, and nothing else learns; set it to 2e-4, say, "
                f"or epochs = 0"
            )


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of the main stage. Intervals are in optimiser steps, 0 is never.

    ``epochs`` visits of every example are made in steps of ``batch_size`` queries, ``micro_batch`` of them in memory at
    once (0: all). ``passages`` is K per retriever.

    What ``tail``, ``distraction``, ``prior_only`` and ``explorers`` draw is drawn for a micro-batch at once, by one
    source: a batch of two draws other passages than two batches of one, though each query's chances are the same. A
    ``pool`` depends on the micro-batch itself.

    ``tail`` passages more are drawn from the prior outside the best and stand for the rest of the base; with a
    ``tail_posterior_share`` α they are drawn from (1 - α) p + α q, which knows the target. With ``pool``
    the queries of a batch share all their passages as candidates, with ``explorers`` more drawn at random. A share of
    the queries, ``distraction``, reads what was found for an unrelated passage: where training queries retrieve far
    better than new ones, a generator that never saw a wrong neighbour learns to copy, and forgets to read. With a
    posterior, another share, ``prior_only``, reads what the prior alone found, as at test time; only the generator
    learns from it. ``targets`` says which of several acceptable answers a visit trains on: the "first", or one
    "sampled" of them, drawn anew each time.

    Over an index that does not know log Z, such as faiss, an objective with the normaliser of the whole base estimates
    it from ``normaliser_draws`` rows of each query drawn uniformly, and as many of the best; the standard error is
    logged. An index whose measured recall is below ``normaliser_recall`` is refused for that: neither the estimate nor
    its error knows of a heavy row that the search missed.

    ``refresh`` says how the index is kept up where training moves passages (`retrograd.training.refresh.policies`):
    all rows
    ``every`` so many steps; on ``drift``, when the probe's mean 1 - cosine passes ``refresh_drift``; ``rolling``, the
    ``refresh_share`` of the rows at each step; those ``retrieved`` in the last ``refresh_window`` steps; in the
    ``background``, by another process; or ``never``. ``refresh_every`` is how often that is done or looked at.
    ``probe_passages`` of the base are encoded at each logged step to measure staleness.

    A line of metrics is logged every ``log_every`` steps, and the development data are scored every ``evaluate_every``.
    ``precision`` "auto" is the faster of the other two, timed once on each machine.

    A checkpoint is written every ``save_every`` steps, and where there has been none for ``save_minutes`` (0: however
    long); the newest ``keep_checkpoints`` are kept (0: all). ``deterministic`` has torch refuse whatever does not give
    the same twice; where one seed must repeat a run on a GPU, at the cost of slower kernels.

    ``generator_learning_rate`` and ``retriever_learning_rate`` are AdamW's; 0 leaves the part where it is.
    ``weight_decay`` is AdamW's, too. ``clip`` is the largest norm of the gradient of a step (0: any).
    ``scale_learning_rate`` is that of the numbers that scale all logits, in all stages but the second: the temperature,
    where it is learned, and ``retriever.lexical_weight``. At a tower's rate they would hardly move. Set it to 0, too,
    where nothing of the retriever is to learn.

    Learning rates rise over the share ``warmup`` of the steps and then follow the ``schedule``
    (`retrograd.training.schedule`); "cosine with restarts" begins ``restarts`` times again.
    """

    epochs: int = 4
    batch_size: int = 16
    micro_batch: int = 0
    passages: int = 5
    tail: int = 0
    tail_posterior_share: float = 0.0
    pool: bool = False
    explorers: int = 0
    distraction: float = 0.0
    prior_only: float = 0.0
    targets: TargetChoice = "first"
    generator_learning_rate: float = 2e-4
    retriever_learning_rate: float = 2e-5
    scale_learning_rate: float = 0.02
    weight_decay: float = 0.01
    warmup: float = 0.1
    schedule: Schedule = "linear"
    restarts: int = 0
    clip: float = 1.0
    normaliser_draws: int = 512
    normaliser_recall: float = 0.95
    refresh: Refresh = "every"
    refresh_every: int = 20
    refresh_drift: float = 0.0
    refresh_share: float = 0.0
    refresh_window: int = 0
    probe_passages: int = 64
    log_every: int = 10
    evaluate_every: int = 0
    save_every: int = 0
    save_minutes: float = 15.0
    keep_checkpoints: int = 2
    precision: PrecisionSetting = "auto"
    deterministic: bool = False

    def __post_init__(self) -> None:
        require_at_least(0, {"passages": self.passages})
        if not 0 <= self.distraction < 1:
            raise UserError(f"distraction is {self.distraction:g}; expected a share of the queries, from 0 to below 1")
        if not 0 <= self.prior_only < 1:
            raise UserError(f"prior_only is {self.prior_only:g}; expected a share of the queries, from 0 to below 1")
        if not 0 <= self.tail_posterior_share < 1:
            raise UserError(
                f"tail_posterior_share is {self.tail_posterior_share:g}; expected a share of the proposal, from 0 to "
                f"below 1"
            )
        if self.probe_passages < 0:
            raise UserError(f"probe_passages is {self.probe_passages}; expected 0 (no measurement) or more")
        if self.keep_checkpoints < 0:
            raise UserError(f"keep_checkpoints is {self.keep_checkpoints}; expected 0 (all) or more")
        if not 0 <= self.save_minutes < math.inf:
            raise UserError(f"save_minutes is {self.save_minutes}; expected 0 (never by the clock) or minutes")
        if self.deterministic and self.refresh == "background":
            raise UserError(
                'deterministic = true, but with refresh = "background" the clock says when an index is taken over; set '
                'refresh = "every"'
            )
        numbers = {
            "refresh_drift": self.refresh_drift,
            "refresh_share": self.refresh_share,
            "refresh_window": self.refresh_window,
        }
        for setting, value in numbers.items():
            policy, example = _BELONGS_TO[setting]
            if self.refresh == policy and value == 0:
                raise UserError(f'refresh = "{policy}" needs {setting}; set it to {example}, say')
            if self.refresh != policy and value != 0:
                raise UserError(
                    f'{setting} belongs to refresh = "{policy}", but refresh is "{self.refresh}"; set it to 0'
                )
        if self.refresh == "drift" and self.probe_passages == 0:
            raise UserError('refresh = "drift" needs a probe; set probe_passages to 64, say')
        require_schedule(self.schedule, self.restarts)
        _ = self.refresh_policy, self.estimation  # which check their own numbers

    @property
    def estimation(self) -> NormaliserEstimation:
        """Return how log Z is estimated over an index that does not know it."""
        return NormaliserEstimation(self.normaliser_draws, self.normaliser_recall)

    @property
    def refresh_policy(self) -> RefreshPolicy:
        """Return the refresh policy as a value."""
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
    """Settings of the test and of answering.

    ``passages`` is K at test time; -1 means as in training. ``scoring`` compares the answers of a closed set by the
    likelihood of the whole answer ("sequence") or by the steps at which the permitted answers part ("tree", as SuRE).
    ``answers`` "written" generates them instead, and ``scoring`` and ``calibrate`` do not matter: what names no label
    by the task's rules is invalid. ``reading`` says whether passages are read one by
    one, "singly", in one prompt, "together", or by fusion-in-decoder, "fused"; "as trained" follows the objective and
    ``generator.fusion``.

    Where answers are written, ``beams`` is the width of the search, 1 the greedy one; and ``marginal`` decides among
    the answers that were written singly: by Σ_z p(z|x) p(y|x,z) over all passages ("thorough") or over those that y was
    written from ("fast"), or by the one passage with the largest p(z|x) times the mean likelihood of its answer's
    tokens ("best", as the released JSA-RAG). `retrograd.rag.answers.written` has the costs.

    ``calibrate`` fits, after training, how much the neighbours' vote weighs beside the generator and how much better
    than "no relation" a relation must be, on the development data (`retrograd.evaluation.calibration`).

    ``abstain``, a share of wrong answers such as 0.2, fits after training the threshold of p(y|x) below which an answer
    is withheld, and "cannot answer" given in its place: the one by which most development examples are answered, with
    at most this share of the given answers wrong (`retrograd.evaluation.abstention`). "never" withholds nothing.
    """

    passages: int = -1
    scoring: Scoring = "sequence"
    calibrate: bool = False
    answers: Literal["chosen", "written"] = "chosen"
    reading: Literal["as trained", "singly", "together", "fused"] = "as trained"
    beams: int = 1
    marginal: Marginal = "thorough"
    abstain: Literal["never"] | float = "never"

    def __post_init__(self) -> None:
        if self.abstain != "never" and not 0 <= self.abstain < 1:
            raise UserError(
                f'evaluation.abstain is {self.abstain}; expected "never", or the largest share of wrong answers among '
                f"those given, from 0 to below 1"
            )
        require_at_least(-1, {"passages (-1 is as in training)": self.passages})
        require_beams(self.beams)
        if self.calibrate and self.answers == "written":
            raise UserError(
                'evaluation.calibrate fits a decision among permitted answers, and evaluation.answers is "written"; '
                'set one of them to false, or to "chosen"'
            )
