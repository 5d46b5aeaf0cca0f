"""RagModel: retriever, index and generator as one model: retrieve, likelihood, answer, save, load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from retrograd.corpus.exact_index import ExactIndex
from retrograd.corpus.index import Index, Neighbours
from retrograd.corpus.knowledge_base import KnowledgeBase
from retrograd.corpus.sharded_index import ShardedIndex
from retrograd.models.generator import Generator
from retrograd.models.inference import inference
from retrograd.models.precision import full_precision
from retrograd.models.prefix_tree import Scoring
from retrograd.models.retriever import Retriever
from retrograd.objectives.differentiable_knn import Selection
from retrograd.objectives.functional import log_multiplicity
from retrograd.objectives.objective import CandidateScores
from retrograd.rag.answering import Manner, Reading, answers, choice_scores, soft_reading, text_reading
from retrograd.rag.candidates import (
    NULL_ROW,
    Candidates,
    Exclusions,
    Pool,
    admitted,
    column_of,
    log_probability,
    no_candidates,
    union,
    whole_base,
)
from retrograd.rag.decision import ChoiceScores, Decision
from retrograd.rag.distraction import Asked, distractors, drawn_share, stand_ins
from retrograd.rag.indexing import MIXED, build_index, build_shards, embed_rows, own_rows, passage_fingerprint
from retrograd.rag.lexical_search import LexicalSearch
from retrograd.rag.likelihood import CopyLikelihood, CopySettings, GeneratorLikelihood, supported
from retrograd.rag.mixture import InstanceMixture, MakeMixture, WordMixture
from retrograd.rag.oracle import Oracle, best_accepted, not_accepted
from retrograd.rag.passage_side import PassageSide
from retrograd.tasks.task import Task
from retrograd.types import Example, Prediction, UserError

__all__ = ["RagModel", "Search"]

Search = Literal["nearest", "random", "bm25", "oracle"]

_NULL_TEXT = "(no passage)"
_ROWS_AT_ONCE = 2_048


class RagModel(nn.Module):
    """p(y|x) = Σ_z p(z|x) p(y|x,z) with z a passage of ``base``.

    ``posterior``, q(z|x,y), is for objectives that need one; it searches the same index (`PassageSide`). With
    ``null_passage`` reading nothing is one more candidate of every query, scored like a passage and prompted without
    one. Call `refresh_index` before the first retrieval, and whenever passage embeddings have moved.

    ``search`` (an attribute) says who finds passages: the retriever; "bm25" in its place; as controls the retriever for
    an unrelated passage ("random"), or among passages that support the target ("oracle", which alone is told it).
    ``manner`` is how answers are read and given. ``sharded``: each rank holds its rows of the index.
    """

    def __init__(
        self,
        retriever: Retriever,
        generator: Generator,
        task: Task,
        base: KnowledgeBase,
        posterior: Retriever | None = None,
        null_passage: bool = False,
    ) -> None:
        super().__init__()
        self.retriever = retriever
        self.generator = generator
        self.posterior = posterior
        self.null_passage = null_passage
        self.task = task
        self.base = base
        self.support = task.support(base)
        self.selection: Selection | None = None
        self.decision = Decision()
        self.manner = Manner()
        self.search: Search = "nearest"
        self.sharded = False
        self._exclusions = Exclusions(task, base)
        self._index: Index | None = None

    @property
    def index(self) -> Index:
        """The index. Raises `UserError` before there is one."""
        if self._index is None:
            raise UserError("the model has no index yet; call refresh_index() first")
        return self._index

    def use_index(self, index: Index) -> None:
        """Search ``index`` from now on. Raises `UserError` if it was built from another base."""
        if index.base_fingerprint != self.base.fingerprint:
            raise UserError(
                f"the index belongs to another knowledge base ({index.base_fingerprint[:12]}…, this one is "
                f"{self.base.fingerprint[:12]}…); rebuild it with refresh_index()"
            )
        self._index = index

    def require_exact_index(self) -> ExactIndex | ShardedIndex:
        """The index, of a kind that can be refreshed here.

        Raises `UserError` for any other: what restricts or approximates must be built again by whoever chose it.
        """
        if not isinstance(self.index, ExactIndex | ShardedIndex):
            raise UserError(
                f"a {type(self.index).__name__} cannot be refreshed here; build it anew for use_index(), or "
                f"train the query side with separate towers, which moves no passage"
            )
        return self.index

    def refresh_index(self, progress: Callable[[int], None] | None = None) -> None:
        """Embed the whole base anew with the passage tower as it is now, in the dtype of the present index.

        The old index is given up first, or memory would have to hold both. Raises as `require_exact_index` where there
        is an index.
        """
        dtype = self.require_exact_index().dtype if self.has_index else torch.float32
        self._index, build = None, build_shards if self.sharded else build_index
        self.use_index(build(self.passage_side, self.task, self.base, dtype, progress))

    def refresh_rows(self, rows: Int[Tensor, " Z"]) -> None:
        """Embed some passages anew, in place; the index then counts as mixed: no tower's, and never saved as one's.

        Rows must be distinct. Raises as `require_exact_index`.
        """
        index = self.require_exact_index()
        for part in (own_rows(some) if self.sharded else some for some in rows.split(_ROWS_AT_ONCE)):
            index.replace(part, self.embedded(part), MIXED)

    def embedded(self, rows: Int[Tensor, " Z"]) -> Float[Tensor, "Z D"]:
        """Fresh embeddings of some passages, as an index would store them: no gradient, no dropout."""
        return embed_rows(self.passage_side, self.task, self.base, rows.tolist())

    @property
    def passage_side(self) -> PassageSide:
        """What embeds passages: one tower, or two where the posterior has its own."""
        return PassageSide.of(self.retriever, self.posterior)

    @property
    def needs_index(self) -> bool:
        """Whether searching takes embeddings of the base."""
        return self.search != "bm25"

    @property
    def has_index(self) -> bool:
        """Whether there is an index, of whatever age."""
        return self._index is not None

    def index_is_current(self) -> bool:
        """Whether the index was built by the passage tower as it is now. Hashes the tower, as `passage_fingerprint`."""
        return self._index is not None and self._index.encoder_fingerprint == self.passage_fingerprint()

    def passage_fingerprint(self) -> str:
        """What an index built now would be marked with. Hashes tower and tokenizer: 0.2 s for 22 M weights."""
        return passage_fingerprint(self.passage_side, self.task, self.base)

    def own_rows(self, examples: Sequence[Example]) -> Int[Tensor, "B E"]:
        """Rows that an example must not retrieve, because their text is its own; -1 is padding."""
        return self._exclusions.rows(examples)

    # ---- retrieval ----------------------------------------------------------------------------------------------

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

    def retrieve(
        self,
        examples: Sequence[Example],
        k: int,
        with_posterior: bool = False,
        previous_row: Int[Tensor, " B"] | None = None,
        tail: int = 0,
        rng: torch.Generator | None = None,
        extra_rows: Int[Tensor, "B _"] | None = None,
        pool: Pool | None = None,
        distraction: float = 0.0,
        prior_only: float = 0.0,
    ) -> Candidates:
        """The prior's k best passages per query, with the posterior's k best and the chain's row if asked for.

        No example ever gets a passage whose text is its own. Log-probabilities are over the whole base where the index
        is exact, with gradient for whatever the retrievers train. k = 0 retrieves nothing and needs no index.
        ``extra_rows`` (-1 is padding) join them, but for an example's own: candidates that another index found, such as
        `LexicalIndex`.

        With ``tail`` so many passages are drawn besides (by ``rng``, with replacement) from the prior over all others,
        as the index holds it. They stand for the tail: see `CandidateScores.log_multiplicity`. That takes a second pass
        over the index, which must be exact. With a ``pool`` all queries share their candidates: see `Pool`. With
        ``distraction`` a share of the queries, drawn by ``rng``, finds what an unrelated passage would: see `Asked`.
        With ``prior_only`` a share of them has the prior's candidates alone, and scores without gradient. Of all this
        a ``search`` by "bm25" knows k alone.
        """
        if k == 0:
            return no_candidates(len(examples), self.retriever.query_encoder.device)
        if self.search == "bm25":
            return self._by_words.best(examples, k, self.own_rows(examples).to(self.retriever.query_encoder.device))
        asked = self._asked(examples, with_posterior, distraction, rng)
        if prior_only > 0:
            asked = replace(asked, alone=drawn_share(len(examples), prior_only, rng).to(asked.query.device))
        found = self._searched(asked, k)
        blocks = [found[0].row, *(asked.joining(neighbours.row) for neighbours in found[1:])]
        if previous_row is not None:
            previous_row = asked.resumed(previous_row.to(asked.query.device))
            blocks.append(previous_row.unsqueeze(-1))
        if extra_rows is not None:
            blocks.append(admitted(extra_rows.to(asked.query.device), asked.hidden, len(self.base)))
        rows = union(*blocks)
        if pool is not None:
            rows = admitted(pool.rows(rows, len(self.base), rng), asked.hidden, len(self.base))
        drawn = self._tail(asked, rows, tail, rng)
        rows = self._with_null(union(rows, drawn))
        found = self._scored(asked, found, rows)
        scores = found.scores
        if tail:
            times = (rows.unsqueeze(-1) == drawn.unsqueeze(1)).sum(dim=-1).masked_fill(rows < 0, 0)
            scores = replace(scores, log_multiplicity=log_multiplicity(scores.log_prior, times.float()))
        previous = None if previous_row is None else column_of(rows, previous_row)
        return replace(found, scores=replace(scores, previous=previous))

    @cached_property
    def _by_words(self) -> LexicalSearch:
        return LexicalSearch(self.task, self.base)

    @cached_property
    def oracle(self) -> Oracle:
        """What "oracle" asks. Raises `UserError` where the task has no test of support."""
        return Oracle(self.task, self.base, self.support)

    def candidates_at(
        self, examples: Sequence[Example], rows: Int[Tensor, "B K"], with_posterior: bool = False
    ) -> Candidates:
        """Given rows (-1 is padding) as candidates, with the same log-probabilities as `retrieve` would give them.

        The rows should be distinct and none of an example's own. Raises `UserError` where BM25 searches.
        """
        if self.search == "bm25":
            raise UserError('BM25 scores what it finds, not given rows; set retriever.search = "nearest"')
        asked = self._asked(examples, with_posterior)
        return self._scored(asked, self._searched(asked, 1), rows)

    def _asked(
        self,
        examples: Sequence[Example],
        with_posterior: bool,
        distraction: float = 0.0,
        rng: torch.Generator | None = None,
    ) -> Asked:
        texts = [self.task.query_text(example) for example in examples]
        query = self.passage_side.placed(self.retriever.queries(texts), "prior")
        search = (query, self._posterior_query(examples)) if with_posterior else (query,)
        asked = Asked(query, search, self._exclusions.rows(examples).to(query.device))
        if self.search == "oracle":
            return replace(asked, accepted=self.oracle.rows(examples, asked.hidden))
        if self.search == "random":
            rows = stand_ins(examples, asked.hidden, len(self.base))
            return self._misled(asked, torch.ones(len(rows), 1, dtype=torch.bool, device=rows.device), rows)
        if distraction > 0:
            return self._misled(asked, *distractors(asked.hidden, len(self.base), distraction, rng))
        return asked

    def _misled(self, asked: Asked, misled: Bool[Tensor, "B 1"], rows: Int[Tensor, " B"]) -> Asked:
        """Some of the queries search with passages of the base in their place."""
        own = self._exclusions.rows([Example("", passage.text, ("",)) for passage in self.base.passages(rows.tolist())])
        side = self.passage_side
        vectors = self.retriever.as_queries(side.part(self.index.vectors(rows).float(), "prior")).detach()
        return asked.instead(side.placed(vectors, "prior"), own, misled)

    def _searched(self, asked: Asked, k: int) -> list[Neighbours]:
        with full_precision(asked.query.device):
            found = [self.index.search(one, k, asked.hidden) for one in asked.search]
            return found if asked.accepted is None else best_accepted(asked, self.index, k, found)

    def _tail(
        self, asked: Asked, rows: Int[Tensor, "B K"], draws: int, rng: torch.Generator | None
    ) -> Int[Tensor, "B M"]:
        """Rows drawn from the prior over everything that is neither retrieved already nor an example's own."""
        if draws == 0:
            return rows.new_empty(len(rows), 0)
        if not isinstance(self.index, ExactIndex | ShardedIndex) or rng is None:
            raise UserError("training.tail needs an exact index and a source of randomness; set training.tail = 0")
        with full_precision(rows.device):
            return self.index.sample(asked.search[0], draws, rng, torch.cat([asked.hidden, rows], dim=-1))

    def _scored(self, asked: Asked, found: list[Neighbours], rows: Int[Tensor, "B K"]) -> Candidates:
        posterior = len(asked.search) > 1
        (vectors, fresh), null = self._vectors(rows, posterior), self._null_vector(posterior)
        with full_precision(rows.device):
            log_prior, *rest = [
                asked.settled(log_probability(one, vectors, rows, neighbours, self.index, fresh, null))
                for one, neighbours in zip(asked.search, found, strict=True)
            ]
        scores = CandidateScores(log_prior, rest[0] if rest else None, temperature=self.retriever.trained_temperature)
        query, vectors = (self.passage_side.part(one, "prior") for one in (asked.query, asked.settled(vectors)))
        return Candidates(rows, scores, query, vectors, asked.alone)

    def retrieve_all(self, examples: Sequence[Example], with_posterior: bool = False) -> Candidates:
        """Every passage of the base as a candidate, in row order: for likelihoods that cost nothing. Memory O(B·N).

        Passage embeddings are the index's, without gradient: a tower of passages alone does not learn from this.
        """
        if self.search == "bm25":
            return self._by_words.all(examples, self.own_rows(examples).to(self.retriever.query_encoder.device))
        asked = self._asked(examples, with_posterior)
        with full_precision(asked.query.device):
            vectors = self.index.vectors(torch.arange(len(self.base), device=asked.query.device))
            hidden = not_accepted(asked, len(self.base))
            rows, (log_prior, *rest) = whole_base(asked.search, hidden, vectors, self._null_vector(with_posterior))
        scores = CandidateScores(log_prior, rest[0] if rest else None, temperature=self.retriever.trained_temperature)
        return Candidates(rows, scores)

    def _with_null(self, rows: Int[Tensor, "B K"]) -> Int[Tensor, "B _"]:
        return nn.functional.pad(rows, (0, 1), value=NULL_ROW) if self.null_passage else rows

    def _null_vector(self, posterior: bool) -> Float[Tensor, " D"] | None:
        """Embedded anew at each retrieval, so that it is never stale."""
        return self.passage_side.no_passage(_NULL_TEXT, posterior) if self.null_passage else None

    def _posterior_query(self, examples: Sequence[Example]) -> Float[Tensor, "B D"]:
        if self.posterior is None:
            raise UserError("this objective needs a posterior retriever; set retriever.posterior = true")
        texts = [self.task.posterior_text(example, example.target) for example in examples]
        return self.passage_side.placed(self.posterior.queries(texts), "posterior")

    def _vectors(self, rows: Int[Tensor, "B K"], posterior: bool) -> tuple[Float[Tensor, "B K D"], bool]:
        """Candidate embeddings, and whether they were just encoded with gradient: each distinct passage once."""
        if not self.passage_side.learns or not torch.is_grad_enabled():
            return self.index.vectors(rows.clamp(min=-1)), False
        distinct, where = rows.clamp(min=0).unique(return_inverse=True)
        texts = [self.task.passage_text(passage) for passage in self.base.passages(distinct.tolist())]
        return self.passage_side.passages(texts, posterior)[where], True

    # ---- likelihood ---------------------------------------------------------------------------------------------

    def likelihood(self, examples: Sequence[Example], candidates: Candidates) -> GeneratorLikelihood:
        """The generator, bound to these examples and candidates."""
        return GeneratorLikelihood(
            self.generator, self.task, self.base, examples, candidates.rows, self.support, self._mixture(candidates)
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

    def answer(self, examples: Sequence[Example], k: int, scoring: Scoring = "sequence") -> list[Prediction]:
        """The most likely answer of each example from its k best passages, by the model's ``decision``.

        Passages are read one by one, Σ_z p(z|x) p(y|x,z), at once (``manner``), or in the soft slots of ``selection``.
        k = 0 asks the generator alone, as does an example for which no passage is left.
        `retrograd.rag.answering` says how candidate answers are found; ``scoring`` is for a closed set. The model's
        own mode does not matter.
        """
        if not examples:
            return []
        with inference(self):
            reading = self._reading(examples, k)
            return answers(
                self.generator, self.task, self.base, examples, reading, scoring, self.decision, self.support
            )

    def choice_scores(
        self, examples: Sequence[Example], k: int, scoring: Scoring = "sequence"
    ) -> list[ChoiceScores] | None:
        """What speaks for each permitted answer before any decision; None where the set of answers is open, or the
        model writes its answers."""
        if self.manner.answers == "written":
            return None
        with inference(self):
            reading = self._reading(examples, k)
            return choice_scores(self.generator, self.task, self.base, examples, reading, scoring, self.support)

    def _reading(self, examples: Sequence[Example], k: int) -> Reading:
        """As `answer` reads: without a passage the query alone, with certainty."""
        none = torch.full((len(examples), 1), -torch.inf)
        reading = Reading(torch.full((len(examples), 1), -1), none.clone(), none, manner=self.manner)
        if k > 0:
            found = self.retrieve(examples, k)
            if self.selection is None:
                reading = text_reading(found, self.manner)
            else:
                slots = self.likelihood(examples, found).soft_slots
                reading = soft_reading(found, self.selection, slots, self.manner)
        reading.log_weight[(reading.rows == -1).all(dim=-1), 0] = 0.0
        return reading
