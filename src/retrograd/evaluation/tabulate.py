"""From a model and a batch to `Tables`: every reference passage of every query scored once, without gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrograd.evaluation.tables import Tables
from retrograd.objectives.functional import ABSENT, columns_where
from retrograd.objectives.objective import CandidateScores
from retrograd.rag.candidates import Candidates
from retrograd.rag.rag_model import RagModel
from retrograd.types import Example

__all__ = ["Bench", "tabulate"]

_PAIRS = 2_000_000
"""Above so many (query, passage) pairs the whole base is not even considered as reference."""


@dataclass(frozen=True)
class Bench:
    """A batch with its tables; ``rows`` are the rows of the base behind the tables' columns (-1 is padding)."""

    examples: Sequence[Example]
    rows: Int[Tensor, "B U"]
    tables: Tables
    prompts: int


@torch.no_grad()
def tabulate(model: RagModel, examples: Sequence[Example], passages: int, budget: int) -> Bench:
    """Score the batch under the whole base if that takes at most ``budget`` distinct prompts.

    Else under as many of the best passages of prior and posterior together as the budget allows, at least ``passages``
    of each. The model should be in evaluation mode, with an index, and with a posterior retriever.
    """
    candidates, prompts = None, 0
    if len(examples) * len(model.base) <= _PAIRS:
        candidates = model.retrieve_all(examples, with_posterior=True)
        prompts = _distinct_prompts(model, examples, candidates.rows)
    whole_base = candidates is not None and prompts <= budget
    if candidates is None or not whole_base:
        k = max(passages, budget // (2 * len(examples)))
        candidates = model.retrieve(examples, min(k, len(model.base)), with_posterior=True)
        prompts = _distinct_prompts(model, examples, candidates.rows)
    every = torch.arange(candidates.rows.shape[1], device=candidates.rows.device).expand(len(examples), -1)
    tokens = model.likelihood(examples, candidates).tokens_at(every.masked_fill(candidates.rows < 0, -1))
    value = tokens.value.masked_fill(tokens.value == ABSENT, 0.0)
    scores = candidates.scores
    assert scores.log_posterior is not None
    tables = Tables(
        log_prior=_on_cpu(scores.log_prior),
        log_posterior=_on_cpu(scores.log_posterior),
        token_log_likelihood=_on_cpu(value),
        present=tokens.present.cpu(),
        whole_base=whole_base,
        joint_prompts=_ModelPrompts(model, examples, candidates.rows),
    )
    return Bench(examples, candidates.rows, tables, prompts)


def _on_cpu(value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """In float64, so that what is measured is the estimators' error and not that of sums."""
    return value.double().cpu()


def _distinct_prompts(model: RagModel, examples: Sequence[Example], rows: Int[Tensor, "B U"]) -> int:
    """How many different prompts the generator would have to read: passages worded alike are one."""
    wanted = sorted({row for found in rows.tolist() for row in found if row >= 0})
    passage = dict(zip(wanted, model.base.passages(wanted), strict=True))
    return sum(
        len({model.task.prompt(example, (passage[row],)) for row in found if row >= 0})
        for example, found in zip(examples, rows.tolist(), strict=True)
    )


class _ModelPrompts:
    """`JointPrompts` by the model's own generator. Its weights take no part: gradients reach ``weight`` alone."""

    def __init__(self, model: RagModel, examples: Sequence[Example], rows: Int[Tensor, "B U"]) -> None:
        self._model = model
        self._examples = examples
        self._rows = rows

    def together(self, column: Int[Tensor, "B M"]) -> Float[Tensor, " B"]:
        bound = self._model.likelihood(self._examples, self._chosen(column))
        place = torch.arange(column.shape[1]).expand_as(column).masked_fill(column < 0, -1)
        with torch.no_grad():
            return bound.together(place.to(self._rows.device)).cpu()

    def at_mixture(self, weight: Float[Tensor, "B R U"]) -> Float[Tensor, " B"]:
        column = columns_where((weight != 0).any(dim=1))
        index = column.clamp(min=0).unsqueeze(1).expand(-1, weight.shape[1], -1)
        narrow = weight.gather(2, index).masked_fill((column < 0).unsqueeze(1), 0.0)
        bound = self._model.likelihood(self._examples, self._chosen(column))
        with _constant(self._model):
            return bound.at_mixture(narrow.to(self._rows.device)).cpu()

    def _chosen(self, column: Int[Tensor, "B M"]) -> Candidates:
        """The candidates of some columns; nobody reads their scores."""
        column = column.to(self._rows.device)
        rows = self._rows.gather(1, column.clamp(min=0)).masked_fill(column < 0, -1)
        return Candidates(rows, CandidateScores(torch.full(rows.shape, ABSENT, device=rows.device)))


@contextmanager
def _constant(model: RagModel) -> Iterator[None]:
    """The generator's weights without gradient, for a while."""
    learning = [weight for weight in model.generator.parameters() if weight.requires_grad]
    for weight in learning:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in learning:
            weight.requires_grad_(True)
