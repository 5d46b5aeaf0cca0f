"""Make `Tables` from a model and a batch: every reference passage of every query scored once, without gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrograd.evaluation.laboratory.tables import Tables
from retrograd.objectives.functional import ABSENT
from retrograd.objectives.objective import CandidateScores
from retrograd.rag.candidates import Candidates
from retrograd.rag.rag_model import RagModel
from retrograd.rag.search import RetrievalOptions
from retrograd.types import Example, UserError

__all__ = ["Bench", "ModelPrompts", "tabulate"]

_PAIRS = 2_000_000
"""Above so many (query, passage) pairs the whole base is not even considered as reference."""


@dataclass(frozen=True)
class Bench:
    """A batch with its tables; ``rows`` are the rows of the base behind the tables' columns (-1 is padding)."""

    examples: Sequence[Example]
    rows: Int[Tensor, "B U"]
    tables: Tables
    prompts: int

    def parts(self, micro_batch: int) -> list[range]:
        """Return the positions of the examples, ``micro_batch`` at a time."""
        count = len(self.examples)
        return [range(start, min(start + micro_batch, count)) for start in range(0, count, micro_batch)]


@torch.no_grad()
def tabulate(model: RagModel, examples: Sequence[Example], passages: int, budget: int) -> Bench:
    """Score the batch under the whole base if that takes at most ``budget`` distinct prompts.

    Else under as many of the best passages of prior and posterior together as the budget allows, at least ``passages``
    of each. The model should be in evaluation mode, with an index, and with a posterior retriever. Raises `UserError`
    for an index without exact log Z, which the reference needs.
    """
    if model.needs_index and model.index.log_z != "exact":
        raise UserError(
            f"the laboratory compares with the exact gradient, and a {type(model.index).__name__} does not know log Z "
            f"over the base; give the model an exact index"
        )
    candidates, prompt = None, None
    if len(examples) * len(model.base) <= _PAIRS:
        candidates = model.retrieve_all(examples, with_posterior=True)
        prompt = _numbered_prompts(model, examples, candidates.rows)
    whole_base = prompt is not None and _distinct(prompt) <= budget
    if candidates is None or prompt is None or not whole_base:
        k = max(passages, budget // (2 * len(examples)))
        candidates = model.retrieve(examples, min(k, len(model.base)), RetrievalOptions(posterior=True))
        prompt = _numbered_prompts(model, examples, candidates.rows)
    every = torch.arange(candidates.rows.shape[1], device=candidates.rows.device).expand(len(examples), -1)
    tokens = model.likelihood(examples, candidates).tokens_at(every.masked_fill(candidates.rows == -1, -1))
    value = tokens.value.masked_fill(tokens.value == ABSENT, 0.0)
    scores = candidates.scores
    assert scores.log_posterior is not None
    tables = Tables(
        log_prior=_on_cpu(scores.log_prior),
        log_posterior=_on_cpu(scores.log_posterior),
        token_log_likelihood=_on_cpu(value),
        present=tokens.present.cpu(),
        whole_base=whole_base,
        joint_prompts=ModelPrompts(model, examples, candidates.rows),
        prompt=prompt,
        null=model.null_passage,
        supports=None if model.support is None else model.supports(examples, candidates.rows).cpu(),
        temperature=None if scores.temperature is None else _on_cpu(scores.temperature),
    )
    return Bench(examples, candidates.rows, tables, _distinct(prompt))


def _on_cpu(value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return a value in float64, so that what is measured is the estimators' error and not that of sums."""
    return value.double().cpu()


def _numbered_prompts(model: RagModel, examples: Sequence[Example], rows: Int[Tensor, "B U"]) -> Int[Tensor, "B U"]:
    """Number the distinct prompts of each query from 0: passages worded alike share one. Padding has number 0."""
    distinct = sorted({row for example_rows in rows.tolist() for row in example_rows if row >= 0})
    passage = dict(zip(distinct, model.base.passages(distinct), strict=True))
    numbers = []
    for example, example_rows in zip(examples, rows.tolist(), strict=True):
        number_of_text: dict[str, int] = {}
        texts = [
            model.task.prompt(example, (passage[row],) if row >= 0 else ()) if row != -1 else "" for row in example_rows
        ]
        numbers.append([number_of_text.setdefault(text, len(number_of_text)) if text else 0 for text in texts])
    return torch.tensor(numbers, dtype=torch.long)


def _distinct(prompt: Int[Tensor, "B U"]) -> int:
    return int((prompt.max(dim=-1).values + 1).sum())


class ModelPrompts:
    """`JointPrompts` by the model's own generator. Its weights take no part: gradients reach ``weight`` alone."""

    def __init__(self, model: RagModel, examples: Sequence[Example], rows: Int[Tensor, "B U"]) -> None:
        self._model = model
        self._examples = examples
        self._rows = rows

    def together(self, column: Int[Tensor, "B M"]) -> Float[Tensor, " B"]:
        bound = self._model.likelihood(self._examples, self._candidates_at(column))
        place = torch.arange(column.shape[1]).expand_as(column.cpu()).masked_fill(column.cpu() < 0, -1)
        with torch.no_grad():
            return bound.together(place.to(self._rows.device)).cpu()

    def at_mixture(self, weight: Float[Tensor, "B R K"], column: Int[Tensor, "B K"]) -> Float[Tensor, " B"]:
        bound = self._model.likelihood(self._examples, self._candidates_at(column))
        with _constant(self._model):
            return bound.at_mixture(weight.to(self._rows.device)).cpu()

    def _candidates_at(self, column: Int[Tensor, "B M"]) -> Candidates:
        """Return the candidates of some columns; nobody reads their scores."""
        column = column.to(self._rows.device)
        rows = self._rows.gather(1, column.clamp(min=0)).masked_fill(column < 0, -1)
        return Candidates(rows, CandidateScores(torch.full(rows.shape, ABSENT, device=rows.device)))


@contextmanager
def _constant(model: RagModel) -> Iterator[None]:
    """Keep the generator's weights without gradient for the block."""
    learning = [weight for weight in model.generator.parameters() if weight.requires_grad]
    for weight in learning:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in learning:
            weight.requires_grad_(True)
