"""Soft input from weights over candidates: slot r holds Σ_k w[r, k] · v_k.

What v is, the model decides. Without a soft prompt it is the words of the passage, as the generator embeds them, token
by token. With one it is what the retriever makes of the instance (ETRAG, arXiv 2406.03790): the role vectors of its
key, which were compared with the query, and beside them the vector of its label, which never was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrograd.models.compute.precision import full_precision
from retrograd.models.encoder import ROLES
from retrograd.models.generator import Generator
from retrograd.models.inputs.soft_input import SoftInput
from retrograd.models.inputs.soft_prompt import SoftPrompt
from retrograd.models.retriever import Retriever
from retrograd.rag.candidates import NULL_ROW, Candidates
from retrograd.tasks.task import Task
from retrograd.types import Passage

__all__ = ["InstanceMixture", "MakeMixture", "WordMixture"]

Mixture = Callable[[Float[Tensor, "B R K"]], SoftInput]
MakeMixture = Callable[[Sequence[str], Mapping[int, Passage]], Mixture]
"""From the prompts and the candidate passages by row to what mixes them."""


class WordMixture:
    """Passages mixed token by token. Equal texts are one, with the sum of their weights.

    Padding and the null passage hold no text, whatever their weight.
    """

    def __init__(
        self,
        generator: Generator,
        task: Task,
        rows: Int[Tensor, "B K"],
        prompts: Sequence[str],
        passages: Mapping[int, Passage],
    ) -> None:
        self._generator = generator
        self._prompts = prompts
        self._texts, self._column = _numbered(rows, {row: task.neighbour_text(one) for row, one in passages.items()})

    def __call__(self, weight: Float[Tensor, "B R K"]) -> SoftInput:
        """The slots, in front of or behind the prompts they were bound to."""
        return self._generator.word_slots(self._texts, _gathered(weight, self._column, len(self._texts)), self._prompts)


class InstanceMixture:
    """Role vectors of instances, mixed, through the soft prompt: for each slot head, tail, context and label.

    Role vectors are the candidates' embeddings as they were compared: those just encoded have a gradient, stored ones
    have none. Label vectors are embeddings of the distinct labels, with gradient where passages are trained. The
    prompts do not matter.
    """

    def __init__(
        self,
        soft_prompt: SoftPrompt,
        retriever: Retriever,
        candidates: Candidates,
        prompts: Sequence[str],
        passages: Mapping[int, Passage],
    ) -> None:
        query, vectors = candidates.query, candidates.vectors
        if query is None or vectors is None:
            raise ValueError("these candidates carry no embeddings; take them from RagModel.retrieve")
        if retriever.lexical_weight is not None:
            raise ValueError("a soft prompt maps the vectors of a model, not counts of words; search without words")
        self._soft_prompt = soft_prompt
        self._retriever = retriever
        self._rows = candidates.rows
        self._query = query * retriever.temperature  # with its gradient, which cancels that of the division
        self._vectors = vectors
        self._labels, self._column = _numbered(candidates.rows, {row: one.title for row, one in passages.items()})

    def __call__(self, weight: Float[Tensor, "B R K"]) -> SoftInput:
        """Soft tokens: those of the query, then those of every slot that holds something."""
        settings = self._soft_prompt.options
        with full_precision(weight.device):
            weight = weight.float()
            real = weight.masked_fill((self._rows < 0).unsqueeze(1), 0.0)
            value = _roles(real @ self._vectors.float(), settings.width)
            if settings.value_roles > value.shape[2]:
                label = _gathered(real, self._column, len(self._labels)) @ self._label_vectors()
                value = torch.cat([value, label.unsqueeze(2)], dim=2)
            if self._soft_prompt.null_value is not None:
                share = (weight * (self._rows == NULL_ROW).unsqueeze(1)).sum(dim=-1)
                value = value + share[..., None, None] * self._soft_prompt.null_value
            present = (weight > 0).any(dim=-1)
            return self._soft_prompt(_roles(self._query.float(), settings.width), value, present)

    def _label_vectors(self) -> Float[Tensor, "C F"]:
        learns = self._retriever.trained == "both"
        with nullcontext() if learns else torch.no_grad():
            return self._retriever.passage_encoder.mean_vectors(self._labels).float()


def _roles(vector: Float[Tensor, "*shape D"], width: int) -> Float[Tensor, "*shape r F"]:
    """The role vectors of embeddings, each of length 1 again where it was one instance's (see `Encoder`, "roles")."""
    roles = vector.unflatten(-1, (-1, width))
    return roles * math.sqrt(len(ROLES)) if roles.shape[-2] == len(ROLES) else roles


def _numbered(rows: Int[Tensor, "B K"], texts: Mapping[int, str]) -> tuple[list[str], Int[Tensor, "B K"]]:
    """Distinct texts, and which each row has; one more than the last for padding and the null passage."""
    number: dict[str, int] = {}
    found = [[number.setdefault(texts[row], len(number)) if row >= 0 else -1 for row in one] for one in rows.tolist()]
    column = torch.tensor(found, dtype=torch.long, device=rows.device).view(rows.shape)
    return list(number), column.masked_fill(column < 0, len(number))


def _gathered(weight: Float[Tensor, "B R K"], column: Int[Tensor, "B K"], texts: int) -> Float[Tensor, "B R {texts}"]:
    """Weights by distinct text. What stands in the spare column is cut off and returns no gradient."""
    spread = weight.new_zeros(*weight.shape[:2], texts + 1)
    return spread.scatter_add(2, column.unsqueeze(1).expand_as(weight), weight)[..., :-1]
