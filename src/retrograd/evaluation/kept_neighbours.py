"""What a retriever finds for a fixed sample of test examples, kept so that people can compare before and after."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.compute.inference import inference
from retrograd.rag.rag_model import RagModel
from retrograd.types import Example, UserError
from retrograd.util.guards import JsonObject, finite_number
from retrograd.util.text_files import read_jsonl

__all__ = ["KEPT_EXAMPLES", "KeptNeighbours", "find_neighbours", "read_neighbours", "sample_examples"]

KEPT_EXAMPLES = 150
"""The most examples whose neighbours are kept."""

_KEPT_PASSAGES = 5
_BATCH = 64


@dataclass(frozen=True)
class KeptNeighbours:
    """The best passages of one example, best first: rows of the base with p(z|x).

    ``supports`` says which of them support the target by the task's own test; empty where the task has none, and for an
    example without a target.
    """

    id: str
    query: str
    gold: tuple[str, ...]
    rows: tuple[int, ...]
    probabilities: tuple[float, ...]
    supports: tuple[bool, ...]

    def record(self, base: KnowledgeBase) -> JsonObject:
        """Return what `read_neighbours` reads, with the ids of the passages."""
        return {
            "id": self.id,
            "query": self.query,
            "gold": [*self.gold],
            "rows": [*self.rows],
            "passage_ids": [passage.id for passage in base.passages(self.rows)],
            "prior": [*self.probabilities],
            "supports": [*self.supports],
        }


def sample_examples(examples: Sequence[Example]) -> list[Example]:
    """Return at most `KEPT_EXAMPLES` of the examples, in their order: the same ones for every run on the same data."""
    if len(examples) <= KEPT_EXAMPLES:
        return list(examples)
    return [examples[place] for place in sorted(random.Random(0).sample(range(len(examples)), KEPT_EXAMPLES))]


def find_neighbours(model: RagModel, examples: Sequence[Example]) -> list[KeptNeighbours]:
    """Return the five best passages of each example.

    The model searches the index that it has. Nothing is drawn, no gradient is kept, and the model keeps its mode.
    """
    neighbours: list[KeptNeighbours] = []
    with inference(model):
        for start in range(0, len(examples), _BATCH):
            neighbours += _find_batch(model, examples[start : start + _BATCH])
    return neighbours


def _find_batch(model: RagModel, examples: Sequence[Example]) -> Iterator[KeptNeighbours]:
    candidates = model.retrieve(examples, min(_KEPT_PASSAGES, len(model.base)))
    log_prior = candidates.scores.log_prior.masked_fill(candidates.rows < 0, -torch.inf)
    best = log_prior.argsort(dim=-1, descending=True, stable=True)[:, :_KEPT_PASSAGES]
    rows, probabilities = candidates.rows.gather(1, best), log_prior.exp().gather(1, best).tolist()
    judged = [place for place, example in enumerate(examples) if model.support is not None and example.targets]
    supports = dict(zip(judged, _supports(model, [examples[place] for place in judged], rows[judged]), strict=True))
    for place, (example, own_rows, own) in enumerate(zip(examples, rows.tolist(), probabilities, strict=True)):
        kept = [column for column, row in enumerate(own_rows) if row >= 0]
        yield KeptNeighbours(
            example.id,
            example.query,
            example.targets,
            tuple(own_rows[column] for column in kept),
            tuple(own[column] for column in kept),
            tuple(supports[place][column] for column in kept) if place in supports else (),
        )


def _supports(model: RagModel, examples: Sequence[Example], rows: Int[Tensor, "B K"]) -> list[list[bool]]:
    return model.supports(examples, rows).tolist() if examples else []


def read_neighbours(path: Path) -> list[KeptNeighbours]:
    """Read a file of `find_neighbours`; nothing where there is none. Raises `UserError` for a damaged line."""
    if not path.exists():
        return []
    return [_read_line(record, f"{path}, line {number}") for number, record in read_jsonl(path)]


def _read_line(record: JsonObject, where: str) -> KeptNeighbours:
    match record:
        case {
            "id": str(id_),
            "query": str(query),
            "gold": [*gold],
            "rows": [*rows],
            "prior": [*prior],
            "supports": [*supports],
        }:
            numbers = tuple(row for row in rows if type(row) is int)
            probabilities = tuple(value for value in map(finite_number, prior) if value is not None)
            answers = tuple(value for value in supports if isinstance(value, bool))
            is_whole = len(numbers) == len(rows) == len(probabilities) == len(prior)
            if is_whole and len(answers) == len(supports) and len(answers) in (0, len(rows)):
                return KeptNeighbours(id_, query, tuple(map(str, gold)), numbers, probabilities, answers)
    raise UserError(f"{where}: damaged; remove the file, and pages of this run leave out its neighbours")
