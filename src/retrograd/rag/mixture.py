"""Make soft input from weights over candidates: slot r holds Σ_k w[r, k] · v_k.

Without a soft prompt v is the words of the passage, as the generator embeds them, token by token. With one v is the
retriever's embedding of the instance (ETRAG, arXiv 2406.03790): the role vectors of its key, which were compared with
the query, and the vector of its label, which was not.
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
"""Makes the function that mixes the candidate passages, given by row, beside the prompts."""


class WordMixture:
    """A mixture of passages token by token. Equal texts are one, with the sum of their weights.

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
        self._texts, self._column = _number_texts(
            rows, {row: task.neighbour_text(passage) for row, passage in passages.items()}
        )

    def __call__(self, weight: Float[Tensor, "B R K"]) -> SoftInput:
        """Return the slots, to be read before or after the prompts they were made for."""
        return self._generator.word_slots(
            self._texts, _sum_by_text(weight, self._column, len(self._texts)), self._prompts
        )


class InstanceMixture:
    """A mixture of instances' role vectors, through the soft prompt: for each slot head, tail, context and label.

    Role vectors are the candidates' embeddings as they were compared: those just encoded have a gradient, stored ones
    do not. Label vectors are embeddings of the distinct labels, with gradient where passages are trained. The
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
            raise ValueError(
                "a soft prompt maps an encoder's vectors, not counts of words; open the retriever without ``lexical``"
            )
        self._soft_prompt = soft_prompt
        self._retriever = retriever
        self._rows = candidates.rows
        self._query = query * retriever.temperature  # with its gradient, which cancels that of the division
        self._vectors = vectors
        self._labels, self._column = _number_texts(
            candidates.rows, {row: passage.title for row, passage in passages.items()}
        )

    def __call__(self, weight: Float[Tensor, "B R K"]) -> SoftInput:
        """Return soft tokens: those of the query, then those of every slot that is not empty."""
        settings = self._soft_prompt.options
        with full_precision(weight.device):
            weight = weight.float()
            real = weight.masked_fill((self._rows < 0).unsqueeze(1), 0.0)
            value = _split_roles(real @ self._vectors.float(), settings.width)
            if settings.value_roles > value.shape[2]:
                label = _sum_by_text(real, self._column, len(self._labels)) @ self._label_vectors()
                value = torch.cat([value, label.unsqueeze(2)], dim=2)
            if self._soft_prompt.null_value is not None:
                share = (weight * (self._rows == NULL_ROW).unsqueeze(1)).sum(dim=-1)
                value = value + share[..., None, None] * self._soft_prompt.null_value
            present = (weight > 0).any(dim=-1)
            return self._soft_prompt(_split_roles(self._query.float(), settings.width), value, present)

    def _label_vectors(self) -> Float[Tensor, "C F"]:
        with nullcontext() if self._retriever.trains_passages else torch.no_grad():
            return self._retriever.passage_encoder.mean_vectors(self._labels).float()


def _split_roles(vector: Float[Tensor, "*shape D"], width: int) -> Float[Tensor, "*shape r F"]:
    """Split embeddings into role vectors, each of length 1 if it is one instance's (see `Encoder`, "roles")."""
    roles = vector.unflatten(-1, (-1, width))
    return roles * math.sqrt(len(ROLES)) if roles.shape[-2] == len(ROLES) else roles


def _number_texts(rows: Int[Tensor, "B K"], texts: Mapping[int, str]) -> tuple[list[str], Int[Tensor, "B K"]]:
    """Return distinct texts, and the number of each row's; padding and the null passage get one more than the last."""
    number: dict[str, int] = {}
    numbers = [[number.setdefault(texts[row], len(number)) if row >= 0 else -1 for row in own] for own in rows.tolist()]
    column = torch.tensor(numbers, dtype=torch.long, device=rows.device).view(rows.shape)
    return list(number), column.masked_fill(column < 0, len(number))


def _sum_by_text(
    weight: Float[Tensor, "B R K"], column: Int[Tensor, "B K"], texts: int
) -> Float[Tensor, "B R {texts}"]:
    """Sum weights by distinct text. The spare column is cut off and returns no gradient."""
    total = weight.new_zeros(*weight.shape[:2], texts + 1)
    return total.scatter_add(2, column.unsqueeze(1).expand_as(weight), weight)[..., :-1]
