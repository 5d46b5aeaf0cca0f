"""BM25 in the place of the prior: a frozen retriever that reads words, and no vector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from retrograd.corpus.index import Neighbours
from retrograd.corpus.knowledge_base import KnowledgeBase
from retrograd.corpus.lexical import LexicalIndex
from retrograd.objectives.functional import masked_log_softmax
from retrograd.objectives.objective import CandidateScores
from retrograd.rag.candidates import Candidates
from retrograd.tasks.task import Task
from retrograd.types import Example

__all__ = ["LexicalSearch"]

_BLOCK_ROWS = 4_096


class LexicalSearch:
    """Candidates by BM25 over the task's retriever texts, its ``unsaid`` left out; p(z|x) is their softmax among
    the candidates.

    BM25 has no log Z: what is not retrieved has no probability. A passage that shares no word with the query is no
    candidate. Raises `UserError` without bm25s.
    """

    def __init__(self, task: Task, base: KnowledgeBase) -> None:
        self._task = task
        passages = (passage for block in base.blocks(_BLOCK_ROWS) for passage in block)
        texts = (task.unsaid.left_out(task.passage_text(passage)) for passage in passages)
        self._index = LexicalIndex.build(texts, base.fingerprint)

    def best(self, examples: Sequence[Example], k: int, hidden: Int[Tensor, "B E"]) -> Candidates:
        """The k best rows of each example, none of ``hidden``; on its device."""
        found = self._search(examples, k, hidden)
        scores = CandidateScores(masked_log_softmax(found.logit).to(hidden.device))
        return Candidates(found.row.to(hidden.device), scores)

    def all(self, examples: Sequence[Example], hidden: Int[Tensor, "B E"]) -> Candidates:
        """Every row in its place, -1 where it is hidden or shares no word. Memory O(B·N)."""
        found = self._search(examples, len(self._index), hidden)
        present = found.row >= 0
        where = torch.where(present, found.row, len(self._index))  # one column more, for the padding
        logit = torch.full((len(examples), len(self._index) + 1), -torch.inf).scatter(1, where, found.logit)[:, :-1]
        rows = torch.arange(len(self._index)).expand(len(examples), -1).masked_fill(logit == -torch.inf, -1)
        return Candidates(rows.to(hidden.device), CandidateScores(masked_log_softmax(logit).to(hidden.device)))

    def _search(self, examples: Sequence[Example], k: int, hidden: Int[Tensor, "B E"]) -> Neighbours:
        texts = [self._task.unsaid.left_out(self._task.query_text(example)) for example in examples]
        return self._index.search(texts, k, hidden)
