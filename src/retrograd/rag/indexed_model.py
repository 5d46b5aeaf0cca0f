"""IndexedModel holds the parts of a model, builds and refreshes its index, and retrieves candidates with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.index.protocol import Index, MovableIndex, has_movable_rows, is_spread_over_ranks
from retrograd.index.restricted import restrict
from retrograd.models.compute.compute import Autocast, Compute, in_own_precision
from retrograd.models.compute.fsdp import gather_weights
from retrograd.models.generator import Generator
from retrograd.models.loading.lora import has_lora
from retrograd.models.retriever import Retriever
from retrograd.models.settings import ComputePrecision
from retrograd.rag.answers.answering import DEFAULT_ANSWERING, Answering
from retrograd.rag.answers.decision import Decision
from retrograd.rag.candidates import Candidates, Exclusions, make_empty_candidates
from retrograd.rag.embedding import MIXED, embed_rows, own_rows
from retrograd.rag.index_source import IndexSource, Passages
from retrograd.rag.model_settings import ModelSettings
from retrograd.rag.passage_side import PassageSide
from retrograd.rag.remembered_scores import RememberedScores
from retrograd.rag.search import (
    BEST_PASSAGES,
    GivenRowsSearch,
    RetrievalOptions,
    Search,
    SearchRequest,
    SearchSpace,
    require_index,
)
from retrograd.rag.search_kinds import DENSE, SearchKind
from retrograd.tasks.task import Support, Task
from retrograd.types import Example, UserError

__all__ = ["IndexedModel", "gather_model"]

_ROWS_AT_ONCE = 2_048
_IN_MEMORY = IndexSource()


class IndexedModel(nn.Module):
    """Retriever, generator, task and base with an index of the base's passages, and retrieval from it.

    `retrograd.rag.rag_model.RagModel` adds likelihoods, answers and the model on disk.
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
        settings: ModelSettings | None = None,
        index_source: IndexSource = _IN_MEMORY,
    ) -> None:
        super().__init__()
        self.retriever = retriever
        self.generator = generator
        self.posterior = posterior
        exclusions = Exclusions(task, base)
        self._space = SearchSpace(task, base, task.support(base), exclusions, retriever, posterior, null_passage)
        self.search_kind = search
        self.retrieval: Search = search.open(self._space)
        self.settings = settings
        self.answering = answering
        self.sharded = sharded
        self.precision: ComputePrecision = precision
        self.index_source = index_source
        self._index: Index | None = None
        self._remembered: RememberedScores | None = None
        self._given_encoder: str | None = None  # the fingerprint of the given index, once it was opened
        self._is_own = False  # whether the model built its index, and so can build it again

    @property
    def task(self) -> Task:
        """Return the task: what is asked, and in which words."""
        return self._space.task

    @property
    def base(self) -> KnowledgeBase:
        """Return the knowledge base, whose passages are retrieved."""
        return self._space.base

    @property
    def support(self) -> Support | None:
        """Return the task's test of which passages support a target; None where it has none."""
        return self._space.support

    @property
    def null_passage(self) -> bool:
        """Return whether reading nothing is a candidate of every query."""
        return self._space.null_passage

    @property
    def device(self) -> torch.device:
        """Return the device on which the model computes."""
        return self.retriever.query_encoder.device

    def autocast(self) -> Autocast:
        """Compute the block in the model's precision: see `retrograd.models.compute.compute`."""
        return Compute(self.device, self.precision).autocast()

    def use_answering(self, answering: Answering) -> None:
        """Answer as ``answering`` says from now on: as the model has been trained to read."""
        self.answering = answering

    def use_decision(self, decision: Decision) -> None:
        """Choose among permitted answers by ``decision`` from now on: one that was fitted on development data."""
        self.use_answering(replace(self.answering, decision=decision))

    def use_threshold(self, abstain_below: float | None) -> None:
        """Withhold answers whose log p(y|x) is less than ``abstain_below`` nats from now on; None withholds none."""
        self.use_answering(replace(self.answering, abstain_below=abstain_below))

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Return the weights that training moves: ``prior``, ``posterior``, ``generator``; shared ones belong to the
        prior.
        """
        prior = self.retriever.trained_parameters()
        prior_weights = {id(weight) for weight in prior}
        posterior = [] if self.posterior is None else self.posterior.trained_parameters()
        return {
            "prior": prior,
            "posterior": [weight for weight in posterior if id(weight) not in prior_weights],
            "generator": [weight for weight in self.generator.parameters() if weight.requires_grad],
        }

    # ---- index --------------------------------------------------------------------------------------------------

    @property
    def index(self) -> Index:
        """The index. Raises `UserError` before there is one."""
        return require_index(self._index)

    @property
    def needs_index(self) -> bool:
        """Return whether searching takes embeddings of the base."""
        return self.search_kind.needs_index

    @property
    def has_index(self) -> bool:
        """Return whether there is an index, of whatever age."""
        return self._index is not None

    def use_index(self, index: Index) -> None:
        """Search ``index`` from now on. Raises `UserError` if it was built from another base."""
        if index.base_fingerprint != self.base.fingerprint:
            raise UserError(
                f"the index belongs to another knowledge base ({index.base_fingerprint[:12]}…, this one is "
                f"{self.base.fingerprint[:12]}…); rebuild it with refresh_index()"
            )
        self._index, self._is_own = index, False

    def use_index_source(self, source: IndexSource) -> None:
        """Take the indexes to come from ``source``; the present one stays."""
        self.index_source = source

    @property
    def reopens_index(self) -> bool:
        """Return whether the index is the given one as it was opened, so that it need not be saved with the model."""
        return self._index is not None and self._index.encoder_fingerprint == self._given_encoder

    def require_movable_index(self) -> MovableIndex:
        """Return the index. Raises `UserError` unless its rows can be replaced, and all of it be built anew, here."""
        index = self.index
        if not has_movable_rows(index):
            raise UserError(
                f"a {type(index).__name__} cannot be refreshed here; build it anew for use_index(), or train the "
                f"query side with separate towers, which moves no passage"
            )
        return index

    def require_index_that_follows(self) -> None:
        """Raise `UserError` unless the index can follow passages that move: row by row, or built again as a whole."""
        if not self._is_own:
            self.require_movable_index()

    @in_own_precision
    def refresh_index(self, progress: Callable[[int], None] | None = None) -> None:
        """Index the whole base with the passage tower as it is now; at first, open the given index where there is one.

        What is embedded anew is stored in the dtype of the present index, which is given up first, or memory would have
        to hold both. Raises `UserError` as `IndexSource` does, and for an index from elsewhere that cannot be built
        anew.
        """
        passages, source = Passages(self.passage_side, self.task, self.base, self.sharded), self.index_source
        if self._index is None:
            index = source.build_first(passages, progress)
            self._given_encoder = index.encoder_fingerprint if source.is_given else None
        else:
            self.require_index_that_follows()
            dtype = self._index.dtype if has_movable_rows(self._index) else source.settings.dtype
            self._index = None
            index = source.build_next(passages, dtype, progress)
        self.use_index(index)
        self._is_own = True

    @in_own_precision
    def refresh_rows(self, rows: Int[Tensor, " Z"]) -> None:
        """Embed some passages anew, in place; the index then counts as mixed: no tower's, and never saved as one's.

        Rows must be distinct. Raises as `require_movable_index`.
        """
        index = self.require_movable_index()
        for part in (own_rows(block) if self.sharded else block for block in rows.split(_ROWS_AT_ONCE)):
            index.replace(part, self.embed_rows(part), MIXED)

    @in_own_precision
    def embed_rows(self, rows: Int[Tensor, " Z"]) -> Float[Tensor, "Z D"]:
        """Return fresh embeddings of some passages, as an index would store them: no gradient, no dropout."""
        return embed_rows(self.passage_side, self.task, self.base, rows.tolist())

    @property
    def passage_side(self) -> PassageSide:
        """Return what embeds passages: one tower, or two where the posterior has its own."""
        return self._space.side

    def index_is_current(self) -> bool:
        """Return whether the index was built by the passage tower as it is now.

        Hashes the tower, as `passage_fingerprint`.
        """
        return self._index is not None and self._index.encoder_fingerprint == self.passage_fingerprint()

    def passage_fingerprint(self) -> str:
        """Return the fingerprint of an index built now. Hashes tower and tokenizer: 0.2 s for 22 M weights."""
        return Passages(self.passage_side, self.task, self.base).encoder_fingerprint()

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
            return make_empty_candidates(len(examples), self.retriever.query_encoder.device)
        return self.retrieval.candidates(SearchRequest(examples, k, self._index, options, previous_row, rng))

    @in_own_precision
    def candidates_at(
        self, examples: Sequence[Example], rows: Int[Tensor, "B K"], with_posterior: bool = False
    ) -> Candidates:
        """Return given rows (-1 is padding) as candidates, with the log-probabilities that `retrieve` would give them.

        The rows should be distinct and none of an example's own. Raises `UserError` for a search that scores only what
        it finds.
        """
        if not isinstance(self.retrieval, GivenRowsSearch):
            raise UserError(
                f'retriever.search = "{self.search_kind.name}" scores what it finds, not given rows; set it to '
                f'"{DENSE.name}"'
            )
        options = RetrievalOptions(posterior=with_posterior)
        return self.retrieval.candidates_at(SearchRequest(examples, rows.shape[1], self._index, options), rows)

    @in_own_precision
    def retrieve_all(self, examples: Sequence[Example], with_posterior: bool = False) -> Candidates:
        """Return every passage of the base as a candidate, in row order: for likelihoods that cost nothing.

        Memory O(B·N). Passage embeddings are the index's, without gradient: a tower of passages alone does not learn
        from this.
        """
        options = RetrievalOptions(posterior=with_posterior)
        return self.retrieval.whole_base(SearchRequest(examples, len(self.base), self._index, options))

    def own_rows(self, examples: Sequence[Example]) -> Int[Tensor, "B E"]:
        """Return the rows that an example must not retrieve, because their text is its own; -1 is padding."""
        return self._space.own_rows(examples)

    @contextmanager
    def resting(self, scores: RememberedScores | None) -> Iterator[None]:
        """Let the generator rest for the block: no gradient, no dropout, and no pair scored again that is among
        ``scores``. None changes nothing.
        """
        learning = self.generator.training
        self._remembered = scores
        if scores is not None:
            self.generator.eval()
        try:
            yield
        finally:
            self._remembered = None
            self.generator.train(learning)

    @contextmanager
    def among(self, rows: Sequence[int] | None) -> Iterator[None]:
        """Retrieve from some rows of the base alone within the block. None changes nothing.

        p(z|x) is over these rows, or, as ever over an approximate index, over those of them that are retrieved.

        Raises `UserError` for no rows at all, and for a search without embeddings.

        Example::

            with model.among(model.base.rows_where(title="Cups*")):
                print(model.answer("what holds tea ?").text)
        """
        if rows is None:
            yield
            return
        if not self.needs_index:
            raise UserError("a filter is for searches by embeddings, and this one has none; leave it out")
        if not self.has_index:
            self.refresh_index()
        whole = self.index
        self._index = restrict(whole, torch.tensor(rows, dtype=torch.long))
        try:
            yield
        finally:
            self._index = whole


@contextmanager
def gather_model(model: IndexedModel) -> Iterator[None]:
    """Give the model of rank 0, inside the block, all that is spread over ranks: the index, and the weights of the
    generator that are saved, in main memory. All ranks enter together.

    Nothing changes for the other ranks, nor for what is not spread.
    """
    index = model.index if model.has_index else None
    whole = index.whole() if index is not None and is_spread_over_ranks(index) else None
    with gather_weights(model.generator, trained_alone=has_lora(model.generator)):
        if index is None or whole is None:
            yield
            return
        model.use_index(whole)
        try:
            yield
        finally:
            model.use_index(index)
