"""Rules between the sections of an experiment. What one section requires of itself, it checks alone.

A rule is a function of the sections that returns a message, or None where it is met. A new rule is a function and an
entry in `RULES`. A message says which settings do not fit, why, and what to set instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from retrograd.experiments.data.source import DataKind
from retrograd.experiments.settings import (
    EvaluationSettings,
    GeneratorSettings,
    IndexSettings,
    RetrieverSettings,
    SecondStageSettings,
    SoftPromptSettings,
    TrainingSettings,
)
from retrograd.index.kinds import find_kind
from retrograd.objectives import OBJECTIVES, Objective, Reads, Selection, closed_book
from retrograd.rag.answers.manner import Manner
from retrograd.types import UserError

__all__ = ["RULES", "Rule", "Sections", "check_rules"]


@runtime_checkable
class Sections(Protocol):
    """The parts of an experiment that rules compare, and what follows from them."""

    @property
    def data(self) -> DataKind: ...

    @property
    def retriever(self) -> RetrieverSettings: ...

    @property
    def index(self) -> IndexSettings: ...

    @property
    def generator(self) -> GeneratorSettings: ...

    @property
    def soft_prompt(self) -> SoftPromptSettings: ...

    @property
    def objective(self) -> Objective: ...

    @property
    def training(self) -> TrainingSettings: ...

    @property
    def second_stage(self) -> SecondStageSettings: ...

    @property
    def evaluation(self) -> EvaluationSettings: ...

    @property
    def selection(self) -> Selection | None:
        """Return how the trained model fills soft slots when it answers, or None where it reads passages as text."""
        ...

    @property
    def manner(self) -> Manner:
        """Return how the trained model answers."""
        ...

    @property
    def ends_together(self) -> bool:
        """Return whether the last stage of the generator reads several passages in one prompt."""
        ...


Rule = Callable[[Sections], str | None]


def check_rules(sections: Sections) -> None:
    """Raise `UserError` with the message of the first rule that is not met."""
    for rule in RULES:
        message = rule(sections)
        if message is not None:
            raise UserError(message)


def _name(objective: Objective) -> str:
    return type(objective).__name__


# ---- the objective and what it learns from ----------------------------------------------------------------------


def _check_posterior(e: Sections) -> str | None:
    if not e.objective.needs_posterior or e.retriever.posterior:
        return None
    return (
        f"{_name(e.objective)} needs a posterior retriever; set retriever.posterior = true, or choose settings of the "
        f"objective that do without (show prints them)"
    )


def _check_passages(e: Sections) -> str | None:
    if e.training.passages > 0 or e.objective.reads == Reads.NOTHING:
        return None
    return (
        f"training.passages is 0, but {_name(e.objective)} learns from passages; set it to 5, say, or take the "
        f"objective {_name(closed_book())}"
    )


def _check_soft_prompt(e: Sections) -> str | None:
    if e.soft_prompt.form == "words" or e.selection is not None:
        return None
    others = " or ".join(kind.__name__ for kind in OBJECTIVES if kind().selection is not None)
    return (
        f'soft_prompt.form is "{e.soft_prompt.form}", but {_name(e.objective)} fills no soft slots; take the objective '
        f'{others}, or set soft_prompt.form = "words"'
    )


def _check_prior_only(e: Sections) -> str | None:
    t = e.training
    if t.prior_only == 0 or not (t.pool or t.generator_learning_rate == 0 or not e.objective.needs_posterior):
        return None
    return (
        "training.prior_only trains the generator on passages that the prior alone retrieves; it needs an objective "
        "with a posterior, training.pool = false and a training.generator_learning_rate above 0; set it to 0"
    )


def _check_second_stage(e: Sections) -> str | None:
    reads_nothing = e.training.passages == 0
    if e.second_stage.epochs == 0 or not (reads_nothing or e.selection is not None):
        return None
    how = "reads no passages" if reads_nothing else "reads them in soft slots"
    return f"second_stage.epochs has the generator read passages as text, but {_name(e.objective)} {how}; set it to 0"


# ---- retrieval --------------------------------------------------------------------------------------------------


def _check_roles_in_background(e: Sections) -> str | None:
    if not e.training.refresh_policy.needs_worker or e.retriever.pooling != "roles":
        return None
    return 'retriever.pooling = "roles" cannot be refreshed by another process; set training.refresh = "every"'


def _check_words_in_background(e: Sections) -> str | None:
    if not e.training.refresh_policy.needs_worker or e.retriever.lexical_dimensions == 0:
        return None
    return (
        "retriever.lexical_dimensions is unknown to another process, which cannot refresh the index; set "
        'training.refresh = "every"'
    )


def _check_own_passages_in_background(e: Sections) -> str | None:
    r = e.retriever
    if not e.training.refresh_policy.needs_worker or not r.posterior or r.posterior_passages != "own":
        return None
    return (
        'retriever.posterior_passages = "own" makes two vectors a passage, and another process makes one; set '
        'training.refresh = "every"'
    )


def _check_engine_follows(e: Sections) -> str | None:
    t, engine = e.training, find_kind(e.index.kind)
    if engine.rows_move or not e.retriever.passages_move or t.refresh in ("every", "never"):
        return None
    return (
        f'training.refresh = "{t.refresh}" embeds single rows anew or compares them with fresh ones, and an index of '
        f'kind "{engine.name}" is built as a whole from what it approximates; set training.refresh = "every", or '
        f'index.kind = "exact"'
    )


def _check_words_in_soft_prompt(e: Sections) -> str | None:
    if e.retriever.lexical_dimensions == 0 or e.soft_prompt.form == "words":
        return None
    return (
        f'soft_prompt.form = "{e.soft_prompt.form}" maps the vectors of a model, not counts of words; set '
        f"retriever.lexical_dimensions = 0"
    )


def _check_distraction(e: Sections) -> str | None:
    t = e.training
    if t.distraction == 0 or not (t.passages == 0 or e.objective.needs_posterior):
        return None
    why = "does not make" if t.passages == 0 else "compares with a posterior that knows better"
    return f"training.distraction misleads the prior's search, which {_name(e.objective)} {why}; set it to 0"


def _check_tail(e: Sections) -> str | None:
    t = e.training
    if t.tail_posterior_share == 0 or (t.tail > 0 and e.objective.needs_posterior):
        return None
    if t.tail == 0:
        return "training.tail_posterior_share aims the draws of a tail; set training.tail = 5, say, or the share to 0"
    return (
        f"training.tail_posterior_share draws a tail from a posterior, which {_name(e.objective)} does not have; set "
        f"it to 0, or take an objective with a posterior, such as JointStochasticApproximation"
    )


def _check_vectors(e: Sections) -> str | None:
    t, search = e.training, e.retriever.search_kind
    # Soft weights depend on the scale of the scores, hard ones on their order alone.
    slots_take_vectors = e.selection is not None and (e.soft_prompt.form != "words" or not e.selection.is_hard)
    takes_vectors = t.pool or t.tail > 0 or t.distraction > 0 or slots_take_vectors
    if search.has_vectors or not takes_vectors:
        return None
    return (
        f'retriever.search = "{search.name}" has no vectors: set training.pool = false, training.tail = 0, '
        f"training.distraction = 0.0, and take an objective that reads passages as text"
    )


def _check_other_rows(e: Sections) -> str | None:
    t, search = e.training, e.retriever.search_kind
    if search.takes_other_rows or not (t.pool or t.tail > 0 or t.distraction > 0):
        return None
    return (
        f'retriever.search = "{search.name}" gives a query only the passages that it retrieves for it: set '
        f"training.pool = false, training.explorers = 0, training.tail = 0 and training.distraction = 0.0"
    )


def _check_explorers(e: Sections) -> str | None:
    if e.training.explorers <= 0 or e.training.pool:
        return None
    return "training.explorers join a pool; set training.pool = true, or training.explorers = 0"


# ---- how passages reach the generator ---------------------------------------------------------------------------


def _check_reading(e: Sections) -> str | None:
    if not e.manner.one_prompt or e.selection is None:
        return None
    return (
        f'evaluation.reading = "{e.manner.reading}" reads passages as text at once, but {_name(e.objective)} reads '
        f'them in soft slots; set it to "as trained"'
    )


def _check_fusion(e: Sections) -> str | None:
    if not e.generator.fusion or e.ends_together or e.objective.leaves_one_out:
        return None
    return (
        f"generator.fusion is for objectives that read passages together, and {_name(e.objective)} as set reads them "
        f'one by one; set it to false, or objective.form (or reader) to "together"'
    )


def _check_fsdp(e: Sections) -> str | None:
    if not e.generator.fsdp or not e.objective.leaves_one_out:
        return None
    return (
        f"generator.fsdp needs as many prompts on all processes, and {_name(e.objective)} as set takes as many as a "
        f"query has candidates; set generator.fsdp = false, or another objective.target"
    )


# ---- data -------------------------------------------------------------------------------------------------------


def _check_calibrate(e: Sections) -> str | None:
    if not e.evaluation.calibrate or e.data.has_closed_answers:
        return None
    return f"evaluation.calibrate fits a decision among permitted answers, and {e.data.kind} have none; set it to false"


def _check_dev(e: Sections) -> str | None:
    wants = {
        "training.evaluate_every": e.training.evaluate_every > 0,
        "evaluation.calibrate": e.evaluation.calibrate,
        "evaluation.abstain": e.evaluation.abstain != "never",
    }
    setting = next((name for name, is_needed in wants.items() if is_needed), None)
    if setting is None or e.data.has_dev:
        return None
    return (
        f"{setting} needs development data; set data.dev to a file, or data.dev_from_train to a number of training "
        f"instances"
    )


RULES: tuple[Rule, ...] = (
    _check_posterior,
    _check_roles_in_background,
    _check_words_in_background,
    _check_own_passages_in_background,
    _check_engine_follows,
    _check_words_in_soft_prompt,
    _check_distraction,
    _check_tail,
    _check_vectors,
    _check_other_rows,
    _check_explorers,
    _check_passages,
    _check_prior_only,
    _check_second_stage,
    _check_reading,
    _check_fusion,
    _check_fsdp,
    _check_soft_prompt,
    _check_calibrate,
    _check_dev,
)
"""All rules, in the order in which they are checked; the first that is not met is reported."""
