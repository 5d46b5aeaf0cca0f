"""The retriever p(z|x) ∝ exp(⟨e(x), e(z)⟩ / T): query tower, passage tower, and the temperature T, which lives here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from retrograd.io import read_json, write_json
from retrograd.models.encoder import ROLES, Encoder, Pooling, RoleSpans
from retrograd.records import read_record, record_mapping
from retrograd.types import UserError

__all__ = ["Retriever", "Trained"]

Trained = Literal["both", "query", "none"]


class Retriever(nn.Module):
    """Two towers, which may be one and the same module, and a temperature.

    ``trained`` says which towers receive gradient: ``both``, ``query`` (passage embeddings count as constants at each
    step; with a shared tower they still change, at the next refresh), or ``none``. The posterior retriever q(z|x,y) is
    the same class, reading query and target.
    """

    def __init__(
        self,
        query_encoder: Encoder,
        passage_encoder: Encoder,
        temperature: float = 0.05,
        trained: Trained = "both",
        learn_temperature: bool = False,
    ) -> None:
        super().__init__()
        if not temperature > 0 or not math.isfinite(temperature):
            raise UserError(f"temperature is {temperature}; expected a positive number, usually 0.01 to 0.1")
        if trained not in get_args(Trained):
            raise UserError(f"trained is {trained!r}; expected one of {', '.join(get_args(Trained))}")
        _refuse_unlike(query_encoder, passage_encoder)
        self.query_encoder = query_encoder
        self.passage_encoder = passage_encoder
        self.trained: Trained = trained
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self._learn_temperature = learn_temperature
        self.log_temperature.requires_grad_(learn_temperature)

    @property
    def shared(self) -> bool:
        """Whether both towers are one module."""
        return self.query_encoder is self.passage_encoder

    @property
    def passages_move(self) -> bool:
        """Whether training changes passage embeddings, so that an index grows stale."""
        return self.trained == "both" or (self.trained == "query" and self.shared)

    def trained_parameters(self) -> list[nn.Parameter]:
        """The weights that training moves; all others get no gradient from `queries` and `passages`."""
        if self.trained == "none":
            return []
        towers = [self.query_encoder] + [self.passage_encoder] * (self.trained == "both" and not self.shared)
        temperature = [self.log_temperature] if self._learn_temperature else []
        return [weight for tower in towers for weight in tower.parameters()] + temperature

    @property
    def temperature(self) -> Float[Tensor, ""]:
        return self.log_temperature.exp()

    @property
    def trained_temperature(self) -> Float[Tensor, ""]:
        """The same, with gradient only where the retriever is trained."""
        return self.temperature.detach() if self.trained == "none" else self.temperature

    def queries(self, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        """Query embeddings already divided by T: their inner product with a passage embedding is a logit."""
        if self.trained == "none":  # without dropout as well: a frozen retriever finds in training what it finds later
            return self.query_encoder.embed(texts) / self.temperature.detach()
        return self.query_encoder(texts) / self.temperature

    def passages(self, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        """Passage embeddings, with gradient where ``trained`` is ``both``."""
        return self.passage_encoder(texts) if self.trained == "both" else self.passage_encoder.embed(texts)

    def no_passage(self, text: str) -> Float[Tensor, " D"]:
        """The embedding of the null passage: of ``text``, or of it in the place of every role where there are roles."""
        tower = self.passage_encoder
        if tower.pooling != "roles":
            return self.passages([text]).squeeze(0)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trained == "both"):
            vector = tower.mean_vectors([text]).squeeze(0)
        return vector.repeat(len(ROLES)) / math.sqrt(len(ROLES))

    def save(self, folder: Path) -> None:
        """Write ``query/`` and, unless shared, ``passage/`` as sentence-transformers directories, and the settings."""
        self.query_encoder.save(folder / "query")
        if not self.shared:
            self.passage_encoder.save(folder / "passage")
        settings = RetrieverSettings(
            log_temperature=float(self.log_temperature.detach()),
            trained=self.trained,
            learn_temperature=self._learn_temperature,
            shared=self.shared,
            pooling=self.query_encoder.pooling,
            normalise=self.query_encoder.normalise,
            max_tokens=self.query_encoder.max_tokens,
        )
        write_json(folder / "retriever.json", record_mapping(settings))

    @classmethod
    def load(cls, folder: Path, role_spans: RoleSpans | None = None) -> Retriever:
        """Read what `save` wrote. ``role_spans``, which no folder holds, is what towers with pooling "roles" read by.

        Raises `UserError` for a missing folder or wrongly edited settings.
        """
        path = folder / "retriever.json"
        found = read_json(path)
        settings = read_record(RetrieverSettings, found if isinstance(found, dict) else {}, str(path))
        query = settings.encoder(folder / "query")
        passage = query if settings.shared else settings.encoder(folder / "passage")
        query.role_spans = passage.role_spans = role_spans
        temperature = math.exp(settings.log_temperature)
        retriever = cls(query, passage, temperature, settings.trained, settings.learn_temperature)
        with torch.no_grad():  # exp and log do not cancel to the last bit
            retriever.log_temperature.fill_(settings.log_temperature)
        return retriever


_MOST_LOG_TEMPERATURE = 80.0
"""Beyond it the temperature is no number of single precision."""


def _refuse_unlike(query: Encoder, passage: Encoder) -> None:
    """``retriever.json`` states the settings of both towers once, and an inner product needs one width."""
    ours, theirs = _reading(query), _reading(passage)
    for name, value in ours.items():
        if value != theirs[name]:
            raise UserError(f"the towers differ in {name}: {value!r} for queries, {theirs[name]!r} for passages")


def _reading(encoder: Encoder) -> dict[str, object]:
    return {
        "dimension": encoder.dimension,
        "pooling": encoder.pooling,
        "normalise": encoder.normalise,
        "max_tokens": encoder.max_tokens,
    }


@dataclass(frozen=True)
class RetrieverSettings:
    """``retriever.json``: what the towers' own folders do not say."""

    log_temperature: float
    trained: Trained
    learn_temperature: bool
    shared: bool
    pooling: Pooling
    normalise: bool
    max_tokens: int

    def __post_init__(self) -> None:
        if not abs(self.log_temperature) < _MOST_LOG_TEMPERATURE:
            raise UserError(f"log_temperature is {self.log_temperature:g}; expected a number near 0")

    def encoder(self, folder: Path) -> Encoder:
        return Encoder.open(str(folder), self.pooling, self.normalise, self.max_tokens)
