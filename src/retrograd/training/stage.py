"""Records that define a stage of training: its candidates and likelihood, its steps and its pace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from retrograd.data.examples import TargetChoice
from retrograd.index.settings import DEFAULT_ESTIMATION, NormaliserEstimation
from retrograd.models.compute.inference import inference
from retrograd.objectives.objective import Likelihood, Objective
from retrograd.rag.candidates import Candidates, Pool, find_column
from retrograd.rag.likelihood import CopySettings
from retrograd.rag.rag_model import RagModel
from retrograd.rag.remembered_scores import RememberedScores
from retrograd.rag.search import RetrievalOptions
from retrograd.training.refresh.policies import RefreshPolicy
from retrograd.training.schedule import Schedule, require_schedule
from retrograd.types import Example, UserError
from retrograd.util.guards import require_at_least

__all__ = ["CopyEvidence", "GeneratorEvidence", "LearningParts", "Pace", "Stage", "StageEvidence", "learning_parts"]

_WHOLE_BASE_CELLS = 2**26
_OPEN_ANSWERS = 20
"""Size of a closed set of answers that stands for an open one, in what is likely by chance."""


@runtime_checkable
class StageEvidence(Protocol):
    """The source of a stage's candidates, and of the likelihood of the target given each of them.

    ``uses_generator`` says that the generator scores the candidates; otherwise the task's own test of support does.
    """

    uses_generator: ClassVar[bool]

    @property
    def retrieves(self) -> bool:
        """Return whether an index is needed at all."""
        ...

    @property
    def needs_log_normaliser(self) -> bool:
        """Return whether the candidates are a part of the base, so that only the index can know log Z."""
        ...

    @property
    def tail(self) -> int:
        """Return the number of candidates that are drawn to represent the rest of the base."""
        ...

    @property
    def estimation(self) -> NormaliserEstimation:
        """Return how log Z is estimated over an index that does not know it."""
        ...

    def candidates_per_query(self, base_size: int, queries: int, posterior: bool) -> int:
        """Return how many passages a query is given at most, from a base of so many; ``queries`` share a pool."""
        ...

    def candidates(
        self,
        model: RagModel,
        examples: Sequence[Example],
        posterior: bool,
        previous: Int[Tensor, " B"] | None,
        rng: torch.Generator,
    ) -> Candidates: ...

    def likelihood(self, model: RagModel, examples: Sequence[Example], candidates: Candidates) -> Likelihood: ...


@dataclass(frozen=True)
class GeneratorEvidence:
    """Evidence from the generator, which scores the ``passages`` best of the prior (and of the posterior): both learn.

    ``tail`` more are drawn from the prior over the rest of the base and represent it, a ``tail_posterior_share`` of
    the proposal being the posterior's. The batch shares a ``pool``. A
    share of the queries, ``distraction``, reads what was retrieved for another query; another, ``prior_only``, what
    the prior alone retrieves, as at test time, and trains the generator only. ``estimation`` is for log Z over an
    index that does not know it.

    ``as_at_test_time`` has all queries read what the prior alone retrieves, without gradient and without dropout; no
    posterior is used and no chain continued. It excludes ``pool`` and ``prior_only``.
    """

    uses_generator: ClassVar[bool] = True

    passages: int
    tail: int = 0
    pool: Pool | None = None
    distraction: float = 0.0
    prior_only: float = 0.0
    as_at_test_time: bool = False
    estimation: NormaliserEstimation = DEFAULT_ESTIMATION
    tail_posterior_share: float = 0.0

    def __post_init__(self) -> None:
        if self.as_at_test_time and (self.pool is not None or self.prior_only > 0):
            raise UserError(
                "as_at_test_time has all queries read what the prior alone retrieves; leave pool = None and "
                "prior_only = 0"
            )

    @property
    def retrieves(self) -> bool:
        return self.passages > 0

    @property
    def needs_log_normaliser(self) -> bool:
        return self.passages > 0

    def candidates_per_query(self, base_size: int, queries: int, posterior: bool) -> int:
        own = self.passages * (1 + (posterior and not self.as_at_test_time)) + self.tail
        return min(base_size, own if self.pool is None else queries * self.passages + self.pool.explorers)

    def candidates(
        self,
        model: RagModel,
        examples: Sequence[Example],
        posterior: bool,
        previous: Int[Tensor, " B"] | None,
        rng: torch.Generator,
    ) -> Candidates:
        if self.as_at_test_time:
            options = RetrievalOptions(tail=self.tail, distraction=self.distraction)
            with inference(model.retriever):
                return model.retrieve(examples, self.passages, options, rng=rng)
        options = RetrievalOptions(
            posterior,
            self.tail,
            self.pool,
            self.distraction,
            self.prior_only,
            normaliser_draws=self.estimation.draws,
            tail_posterior_share=self.tail_posterior_share,
        )
        return model.retrieve(examples, self.passages, options, previous, rng)

    def likelihood(self, model: RagModel, examples: Sequence[Example], candidates: Candidates) -> Likelihood:
        return model.likelihood(examples, candidates)


@dataclass(frozen=True)
class CopyEvidence:
    """Evidence from the task's test of support, over the whole base (``passages`` = 0) or its best passages.

    The retriever learns from it. ``noise`` is the share of supporting passages that are no evidence (`CopySettings`). A
    query whose best ``passages`` hold none that supports the target teaches nothing: the test cannot distinguish
    them, and what would grow is their share of p(z|x), whatever they are. ``estimation`` as in `GeneratorEvidence`.
    """

    uses_generator: ClassVar[bool] = False

    noise: float = 0.05
    passages: int = 0
    estimation: NormaliserEstimation = DEFAULT_ESTIMATION

    def __post_init__(self) -> None:
        _ = CopySettings(self.noise)  # which checks it

    @property
    def tail(self) -> int:
        return 0

    @property
    def retrieves(self) -> bool:
        return True

    @property
    def needs_log_normaliser(self) -> bool:
        return self.passages > 0

    def candidates_per_query(self, base_size: int, queries: int, posterior: bool) -> int:
        return min(self.passages, base_size) or base_size

    def candidates(
        self,
        model: RagModel,
        examples: Sequence[Example],
        posterior: bool,
        previous: Int[Tensor, " B"] | None,
        rng: torch.Generator,
    ) -> Candidates:
        if self.passages > 0:
            options = RetrievalOptions(posterior=posterior, normaliser_draws=self.estimation.draws)
            best = model.retrieve(examples, self.passages, options, previous, rng)
            return _detach_where_none_supports(model, examples, best)
        cells = len(examples) * len(model.base)
        if cells > _WHOLE_BASE_CELLS:
            raise UserError(
                f"a warm start over the whole base of {len(model.base)} passages would hold {cells / 1e6:.0f} million "
                f"scores a batch; set warm_start.passages to 100, say, to use each query's best passages instead"
            )
        candidates = model.retrieve_all(examples, posterior)
        if previous is None:
            return candidates
        column = find_column(candidates.rows, previous.to(candidates.rows.device))
        return replace(candidates, scores=replace(candidates.scores, previous=column))

    def likelihood(self, model: RagModel, examples: Sequence[Example], candidates: Candidates) -> Likelihood:
        answers = len(model.task.choices) if model.task.choices else _OPEN_ANSWERS
        return model.copy_likelihood(examples, candidates, CopySettings(self.noise, 1 / answers))


def _detach_where_none_supports(model: RagModel, examples: Sequence[Example], candidates: Candidates) -> Candidates:
    """Detach the scores of queries of which no candidate supports the target."""
    supported = model.supports(examples, candidates.rows).any(dim=-1, keepdim=True)
    prior, posterior = candidates.scores.log_prior, candidates.scores.log_posterior
    prior = torch.where(supported, prior, prior.detach())
    posterior = None if posterior is None else torch.where(supported, posterior, posterior.detach())
    return replace(candidates, scores=replace(candidates.scores, log_prior=prior, log_posterior=posterior))


@dataclass(frozen=True)
class Pace:
    """The steps of a stage and their learning rates. A part whose learning rate is 0 is not trained.

    ``micro_batch`` queries are held in memory at once (0: the whole batch); gradients are weighted by query counts, and
    objectives draw query after query, so that it changes memory and rounding alone, beside dropout and what is drawn to
    find candidates (``tail``, ``pool``, ``distraction``, ``prior_only``).
    ``scale_learning_rate`` is that of the retrievers' single numbers. ``warmup`` is the share of steps over which the
    rate rises; how it falls then is the ``schedule``'s, ``restarts`` the number of times that "cosine with restarts"
    begins again. ``clip`` bounds the norm of all gradients together (0: off).
    """

    epochs: int
    batch_size: int
    generator_learning_rate: float
    retriever_learning_rate: float
    weight_decay: float = 0.01
    warmup: float = 0.1
    clip: float = 1.0
    micro_batch: int = 0
    schedule: Schedule = "linear"
    restarts: int = 0
    scale_learning_rate: float = 0.02

    def __post_init__(self) -> None:
        rates = {
            "generator_learning_rate": self.generator_learning_rate,
            "retriever_learning_rate": self.retriever_learning_rate,
            "scale_learning_rate": self.scale_learning_rate,
        }
        counts = {"epochs": self.epochs, "micro_batch": self.micro_batch}
        require_at_least(0, {**counts, **rates, "weight_decay": self.weight_decay, "clip": self.clip})
        require_at_least(1, {"batch_size": self.batch_size})
        if not 0 <= self.warmup < 1:
            raise UserError(f"warmup is {self.warmup}; expected a share in [0, 1)")
        require_schedule(self.schedule, self.restarts)


class LearningParts(NamedTuple):
    """The parts of a model that change in a stage."""

    towers: bool
    """The weights of the retrievers, so that an embedded base goes stale."""
    scales: bool
    """The single numbers of the retrievers: temperature, weight of words."""
    generator: bool

    @property
    def retriever(self) -> bool:
        """Return whether a weight or a single number of the retrievers changes."""
        return self.towers or self.scales


def learning_parts(objective: Objective, pace: Pace, retriever_rests: bool = False) -> LearningParts:
    """Return the parts that ``objective`` has a gradient for and ``pace`` a learning rate.

    ``retriever_rests`` where all weights of the retrievers are frozen, whatever the pace says. All that depends on
    which parts learn asks here: optimiser, refreshes, alarms, controls, the plan.
    """
    moves = objective.trains_retriever and not retriever_rests
    return LearningParts(
        towers=moves and pace.retriever_learning_rate > 0,
        scales=moves and pace.scale_learning_rate > 0,
        generator=objective.trains_generator and pace.generator_learning_rate > 0,
    )


@dataclass(frozen=True)
class Stage:
    """A named part of a training run: an objective, its evidence, a pace, and when things are due (in steps).

    ``targets`` says which of several acceptable answers a visit trains on. ``examples`` are the stage's own, where it
    does not train on the run's.

    Where training moves passages, ``refresh`` keeps the index up, and staleness is logged on a probe of
    ``probe_passages`` (0: not measured), at the cost of encoding them at each logged step.
    """

    name: str
    objective: Objective
    evidence: StageEvidence
    pace: Pace
    refresh: RefreshPolicy
    log_every: int = 10
    evaluate_every: int = 0
    save_every: int = 0
    probe_passages: int = 64
    targets: TargetChoice = "first"
    examples: Sequence[Example] | None = field(default=None, repr=False)

    @property
    def learns(self) -> LearningParts:
        """Return the parts that learn, unless their weights are frozen."""
        return learning_parts(self.objective, self.pace)

    def remembered_scores(self, ranks: int) -> RememberedScores | None:
        """Return an empty memory of likelihoods where the generator rests, None where it learns.

        It remembers nothing in a stage that meets each example once, nor in one of several ``ranks``, which must make
        equally many forward passes.
        """
        if self.learns.generator:
            return None
        return RememberedScores() if ranks == 1 and self.pace.epochs > 1 else RememberedScores(most_pairs=0)
