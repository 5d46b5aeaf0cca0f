"""RagModel: retriever, index and generator as one model: retrieve, likelihood, answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from retrograd.index.index import Index, MovableIndex, has_movable_rows
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.compute.compute import Autocast, Compute, ComputePrecision, in_own_precision
from retrograd.models.compute.inference import inference
from retrograd.models.constrained.prefix_tree import Scoring
from retrograd.models.generator import Generator
from retrograd.models.retriever import Retriever
from retrograd.rag.answers.answering import (
    DEFAULT_ANSWERING,
    Answering,
    Reading,
    answers,
    choice_scores,
    soft_reading,
    text_reading,
)
from retrograd.rag.answers.decision import ChoiceScores, Decision
from retrograd.rag.candidates import Candidates, Exclusions, no_candidates
from retrograd.rag.embedding import MIXED, build_index, build_shards, embed_rows, own_rows, passage_fingerprint
from retrograd.rag.likelihood import CopyLikelihood, CopySettings, GeneratorLikelihood, supported
from retrograd.rag.mixture import InstanceMixture, MakeMixture, WordMixture
from retrograd.rag.passage_side import PassageSide
from retrograd.rag.search import (
    BEST_PASSAGES,
    DENSE,
    GivenRowsSearch,
    RetrievalOptions,
    Search,
    SearchKind,
    SearchRequest,
    SearchSpace,
)
from retrograd.tasks.task import Support, Task
from retrograd.types import Example, Prediction, UserError

__all__ = ["RagModel"]

_ROWS_AT_ONCE = 2_048


class RagModel(nn.Module):
    """p(y|x) = Σ_z p(z|x) p(y|x,z) with z a passage of ``base``.

    ``posterior``, q(z|x,y), is for objectives that need one; it searches the same index (`PassageSide`). With
    ``null_passage`` reading nothing is one more candidate of every query, scored like a passage and prompted without
    one. ``search`` says how passages are found (`retrograd.rag.search.SEARCHES`), ``answering`` how they are read and
    answers taken. With ``sharded`` each rank holds its rows of the index. All methods compute in ``precision``.

    All this is fixed when the model is made, but for a decision that is fitted later (`use_decision`). Call
    `refresh_index` before the first retrieval, and whenever passage embeddings have moved.
    """

    def __init__(
        self,
        retriever: Retriever,
        generator: Generator,
        task: Task,
        base: KnowledgeBase,
        posterior: Retriever | None = None,
        null_passage: bool = False,
        *,
        search: SearchKind = DENSE,
        answering: Answering = DEFAULT_ANSWERING,
        sharded: bool = False,
        precision: ComputePrecision = "fp32",
    ) -> None:
        super().__init__()
        self.retriever = retriever
        self.generator = generator
        self.posterior = posterior
        exclusions = Exclusions(task, base)
        self._space = SearchSpace(task, base, task.support(base), exclusions, retriever, posterior, null_passage)
        self.search_kind = search
        self.search: Search = search.open(self._space)
        self.answering = answering
        self.sharded = sharded
        self.precision: ComputePrecision = precision
        self._index: Index | None = None

    @property
    def task(self) -> Task:
        """What is asked, and in which words."""
        return self._space.task

    @property
    def base(self) -> KnowledgeBase:
        """The passages."""
        return self._space.base

    @property
    def support(self) -> Support | None:
        """The task's test of which passages support a target; None where it has none."""
        return self._space.support

    @property
    def null_passage(self) -> bool:
        """Whether reading nothing is a candidate of every query."""
        return self._space.null_passage

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.retriever.query_encoder.device

    def autocast(self) -> Autocast:
        """Compute the block in the model's precision: see `retrograd.models.compute.compute`."""
        return Compute(self.device, self.precision).autocast()

    def with_posterior(self, posterior: Retriever) -> RagModel:
        """Return a model of the same parts, index included, with another posterior retriever.

        It must embed passages with the prior's tower, or the index has to be refreshed.
        """
        other = RagModel(
            self.retriever,
            self.generator,
            self.task,
            self.base,
            posterior,
            self.null_passage,
            search=self.search_kind,
            answering=self.answering,
            sharded=self.sharded,
            precision=self.precision,
        )
        other._index = self._index
        return other.train(self.training)

    def use_decision(self, decision: Decision) -> None:
        """Choose among permitted answers by ``decision`` from now on: one that was fitted on development data."""
        self.answering = replace(self.answering, decision=decision)

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """The weights that training moves: ``prior``, ``posterior``, ``generator``; shared ones belong to the prior."""
        prior = self.retriever.trained_parameters()
        taken = {id(weight) for weight in prior}
        posterior = [] if self.posterior is None else self.posterior.trained_parameters()
        return {
            "prior": prior,
            "posterior": [weight for weight in posterior if id(weight) not in taken],
            "generator": [weight for weight in self.generator.parameters() if weight.requires_grad],
        }

    # ---- index --------------------------------------------------------------------------------------------------

    @property
    def index(self) -> Index:
        """The index. Raises `UserError` before there is one."""
        if self._index is None:
            raise UserError("the model has no index yet; call refresh_index() first")
        return self._index

    @property
    def needs_index(self) -> bool:
        """Whether searching takes embeddings of the base."""
        return self.search_kind.needs_index

    @property
    def has_index(self) -> bool:
        """Whether there is an index, of whatever age."""
        return self._index is not None

    def use_index(self, index: Index) -> None:
        """Search ``index`` from now on. Raises `UserError` if it was built from another base."""
        if index.base_fingerprint != self.base.fingerprint:
            raise UserError(
                f"the index belongs to another knowledge base ({index.base_fingerprint[:12]}…, this one is "
                f"{self.base.fingerprint[:12]}…); rebuild it with refresh_index()"
            )
        self._index = index

    def require_movable_index(self) -> MovableIndex:
        """Return the index. Raises `UserError` unless its rows can be replaced, and all of it be built anew, here."""
        index = self.index
        if not has_movable_rows(index):
            raise UserError(
                f"a {type(index).__name__} cannot be refreshed here; build it anew for use_index(), or train the "
                f"query side with separate towers, which moves no passage"
            )
        return index

    @in_own_precision
    def refresh_index(self, progress: Callable[[int], None] | None = None) -> None:
        """Embed the whole base anew with the passage tower as it is now, in the dtype of the present index.

        The old index is given up first, or memory would have to hold both. Raises as `require_movable_index` where
        there is an index.
        """
        dtype = self.require_movable_index().dtype if self.has_index else torch.float32
        self._index, build = None, build_shards if self.sharded else build_index
        self.use_index(build(self.passage_side, self.task, self.base, dtype, progress))

    @in_own_precision
    def refresh_rows(self, rows: Int[Tensor, " Z"]) -> None:
        """Embed some passages anew, in place; the index then counts as mixed: no tower's, and never saved as one's.

        Rows must be distinct. Raises as `require_movable_index`.
        """
        index = self.require_movable_index()
        for part in (own_rows(some) if self.sharded else some for some in rows.split(_ROWS_AT_ONCE)):
            index.replace(part, self.embedded(part), MIXED)

    @in_own_precision
    def embedded(self, rows: Int[Tensor, " Z"]) -> Float[Tensor, "Z D"]:
        """Fresh embeddings of some passages, as an index would store them: no gradient, no dropout."""
        return embed_rows(self.passage_side, self.task, self.base, rows.tolist())

    @property
    def passage_side(self) -> PassageSide:
        """What embeds passages: one tower, or two where the posterior has its own."""
        return self._space.side

    def index_is_current(self) -> bool:
        """Whether the index was built by the passage tower as it is now. Hashes the tower, as `passage_fingerprint`."""
        return self._index is not None and self._index.encoder_fingerprint == self.passage_fingerprint()

    def passage_fingerprint(self) -> str:
        """What an index built now would be marked with. Hashes tower and tokenizer: 0.2 s for 22 M weights."""
        return passage_fingerprint(self.passage_side, self.task, self.base)

    # ---- retrieval ----------------------------------------------------------------------------------------------

    @in_own_precision
    def retrieve(
        self,
        examples: Sequence[Example],
        k: int,
        options: RetrievalOptions = BEST_PASSAGES,
        previous_row: Int[Tensor, " B"] | None = None,
        rng: torch.Generator | None = None,
    ) -> Candidates:
        """Return the k best passages of each query as candidates, with whatever ``options`` add to them.

        The model's search makes them; `retrograd.rag.search.dense` shows each step from query to candidates. No example
        ever gets a passage whose text is its own. ``previous_row`` is where each query's chain stands (-1 is nowhere):
        it is a candidate too. ``rng`` is for options that draw. k = 0 retrieves nothing and needs no index.
        """
        if k == 0:
            return no_candidates(len(examples), self.retriever.query_encoder.device)
        return self.search.candidates(SearchRequest(examples, k, self._index, options, previous_row, rng))

    @in_own_precision
    def candidates_at(
        self, examples: Sequence[Example], rows: Int[Tensor, "B K"], with_posterior: bool = False
    ) -> Candidates:
        """Return given rows (-1 is padding) as candidates, with the log-probabilities that `retrieve` would give them.

        The rows should be distinct and none of an example's own. Raises `UserError` for a search that scores only what
        it finds.
        """
        if not isinstance(self.search, GivenRowsSearch):
            raise UserError(
                f'retriever.search = "{self.search_kind.name}" scores what it finds, not given rows; set it to '
                f'"{DENSE.name}"'
            )
        options = RetrievalOptions(posterior=with_posterior)
        return self.search.candidates_at(SearchRequest(examples, rows.shape[1], self._index, options), rows)

    @in_own_precision
    def retrieve_all(self, examples: Sequence[Example], with_posterior: bool = False) -> Candidates:
        """Return every passage of the base as a candidate, in row order: for likelihoods that cost nothing.

        Memory O(B·N). Passage embeddings are the index's, without gradient: a tower of passages alone does not learn
        from this.
        """
        options = RetrievalOptions(posterior=with_posterior)
        return self.search.whole_base(SearchRequest(examples, len(self.base), self._index, options))

    def own_rows(self, examples: Sequence[Example]) -> Int[Tensor, "B E"]:
        """Rows that an example must not retrieve, because their text is its own; -1 is padding."""
        return self._space.own_rows(examples)

    # ---- likelihood ---------------------------------------------------------------------------------------------

    def likelihood(self, examples: Sequence[Example], candidates: Candidates) -> GeneratorLikelihood:
        """The generator, bound to these examples and candidates."""
        mixture, compute = self._mixture(candidates), Compute(self.device, self.precision)
        return GeneratorLikelihood(
            self.generator, self.task, self.base, examples, candidates.rows, self.support, mixture, compute
        )

    def _mixture(self, candidates: Candidates) -> MakeMixture:
        """What soft slots hold: instances through the soft prompt where there is one, else words."""
        prompt = self.generator.soft_prompt
        if prompt is None:
            return partial(WordMixture, self.generator, self.task, candidates.rows)
        return partial(InstanceMixture, prompt, self.retriever, candidates)

    def copy_likelihood(
        self, examples: Sequence[Example], candidates: Candidates, settings: CopySettings
    ) -> CopyLikelihood:
        """The task's own test of support, as a likelihood."""
        return CopyLikelihood(self.supports(examples, candidates.rows), settings)

    def supports(self, examples: Sequence[Example], rows: Int[Tensor, "B K"]) -> Bool[Tensor, "B K"]:
        """Which rows support each example's target. Raises `UserError` where the task offers no test."""
        if self.support is None:
            raise UserError(f"the task {self.task.name!r} has no cheap test of support; set warm_start.epochs = 0")
        return supported(self.support, examples, rows)

    # ---- answers ------------------------------------------------------------------------------------------------

    @in_own_precision
    def answer(self, examples: Sequence[Example], k: int, scoring: Scoring = "sequence") -> list[Prediction]:
        """The most likely answer of each example from its k best passages, by the decision of ``answering``.

        Passages are read one by one, Σ_z p(z|x) p(y|x,z), at once, or in soft slots, as ``answering`` says.
        k = 0 asks the generator alone, as does an example for which no passage is left.
        `retrograd.rag.answers.answering` says how candidate answers are found; ``scoring`` is for a closed set. The
        model's
        own mode does not matter.
        """
        if not examples:
            return []
        with inference(self):
            reading = self._reading(examples, k)
            return answers(
                self.generator, self.task, self.base, examples, reading, scoring, self.answering.decision, self.support
            )

    @in_own_precision
    def choice_scores(
        self, examples: Sequence[Example], k: int, scoring: Scoring = "sequence"
    ) -> list[ChoiceScores] | None:
        """What speaks for each permitted answer before any decision; None where the set of answers is open, or the
        model writes its answers."""
        if self.answering.manner.answers == "written":
            return None
        with inference(self):
            reading = self._reading(examples, k)
            return choice_scores(self.generator, self.task, self.base, examples, reading, scoring, self.support)

    def _reading(self, examples: Sequence[Example], k: int) -> Reading:
        """As `answer` reads: without a passage the query alone, with certainty."""
        manner, selection = self.answering.manner, self.answering.selection
        none = torch.full((len(examples), 1), -torch.inf)
        reading = Reading(torch.full((len(examples), 1), -1), none.clone(), none, manner=manner)
        if k > 0:
            found = self.retrieve(examples, k)
            if selection is None:
                reading = text_reading(found, manner)
            else:
                slots = self.likelihood(examples, found).soft_slots
                reading = soft_reading(found, selection, slots, manner)
        reading.log_weight[(reading.rows == -1).all(dim=-1), 0] = 0.0
        return reading
