"""Search by words: BM25 takes the place of the prior, as a frozen retriever without vectors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch

from retrograd.index.bm25 import LexicalIndex
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.index.protocol import Neighbours
from retrograd.objectives.functional import masked_log_softmax
from retrograd.objectives.objective import CandidateScores
from retrograd.rag.candidates import Candidates
from retrograd.rag.search.search import SearchRequest, SearchSpace
from retrograd.tasks.task import Task
from retrograd.types import Example

__all__ = ["Bm25Search", "index_words", "words_of_query"]

_BLOCK_ROWS = 4_096


class Bm25Search:
    """The search by BM25 over the task's retriever texts, its ``non_words`` left out; p(z|x) is the softmax of the
    scores.

    The softmax is over the candidates, for BM25 has no log Z. A passage that shares no word with the query is not a
    candidate. The base is indexed at the first search, which raises `UserError` without bm25s.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space

    def candidates(self, request: SearchRequest) -> Candidates:
        nearest, device = self._search(request.examples, request.k), self._space.device
        return Candidates(nearest.row.to(device), CandidateScores(masked_log_softmax(nearest.logit).to(device)))

    def whole_base(self, request: SearchRequest) -> Candidates:
        """Return every row in its place, -1 where it is excluded or shares no word. Memory O(B·N)."""
        passages, device = len(self._index), self._space.device
        nearest = self._search(request.examples, passages)
        where = torch.where(nearest.row >= 0, nearest.row, passages)  # one column more, for the padding
        logit = torch.full((len(where), passages + 1), -torch.inf).scatter(1, where, nearest.logit)[:, :-1]
        rows = torch.arange(passages).expand(len(where), -1).masked_fill(logit == -torch.inf, -1)
        return Candidates(rows.to(device), CandidateScores(masked_log_softmax(logit).to(device)))

    def scores(self, examples: Sequence[Example]) -> dict[str, float]:
        return {}

    @cached_property
    def _index(self) -> LexicalIndex:
        return index_words(self._space.task, self._space.base)

    def _search(self, examples: Sequence[Example], k: int) -> Neighbours:
        texts = [words_of_query(self._space.task, example) for example in examples]
        return self._index.search(texts, k, self._space.own_rows(examples))


def index_words(task: Task, base: KnowledgeBase) -> LexicalIndex:
    """Index the words of a base, as the task words its passages. Raises `UserError` without bm25s."""
    passages = (passage for block in base.blocks(_BLOCK_ROWS) for passage in block)
    texts = (task.non_words.remove_from(task.passage_text(passage)) for passage in passages)
    return LexicalIndex.build(texts, base.fingerprint)


def words_of_query(task: Task, example: Example) -> str:
    """Return the words to search for."""
    return task.non_words.remove_from(task.query_text(example))
