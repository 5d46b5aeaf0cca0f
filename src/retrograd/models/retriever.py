"""The retriever p(z|x) ∝ exp(⟨e(x), e(z)⟩ / T): a query tower, a passage tower, and the temperature T.

With a lexical projection h, p(z|x) ∝ exp(⟨e(x), e(z)⟩ / T + v ⟨h(x), h(z)⟩): hybrid search, where ⟨h(x), h(z)⟩ is
nearly BM25 (`retrograd.models.inputs.lexical_projection`). The weight v is learned from the one loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from retrograd.models.compute.sentence_head import Side
from retrograd.models.encoder import ROLES, Encoder, FindRoleSpans
from retrograd.models.inputs.lexical_projection import LexicalProjection
from retrograd.models.settings import LearningTowers, Pooling, TrainedTowers
from retrograd.types import UserError
from retrograd.util.records import read_record, record_mapping
from retrograd.util.text_files import read_json, write_json

__all__ = ["Retriever"]


class Retriever(nn.Module, LearningTowers):
    """A retriever: two towers, which may be one module, and a temperature.

    ``trained`` says which towers receive gradient: ``both``, ``query`` (passage embeddings count as constants at each
    step; with a shared tower they still change, at the next refresh), or ``none``. The posterior retriever q(z|x,y) is
    the same class, reading query and target. ``lexical_weight`` is v, in nats for a point of BM25, where the towers
    have a lexical projection; it is learned unless ``trained`` is ``none``.

    Example::

        tower = rg.Encoder.open("builtin:minilm")
        retriever = rg.Retriever(tower, tower, temperature=0.05)
        print(retriever.queries(["what holds tea ?"]).shape)
    """

    def __init__(
        self,
        query_encoder: Encoder,
        passage_encoder: Encoder,
        temperature: float = 0.05,
        trained: TrainedTowers = "both",
        learn_temperature: bool = False,
        lexical_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not temperature > 0 or not math.isfinite(temperature):
            raise UserError(f"temperature is {temperature}; expected a positive number, usually 0.01 to 0.1")
        if trained not in get_args(TrainedTowers):
            raise UserError(f"trained is {trained!r}; expected one of {', '.join(get_args(TrainedTowers))}")
        _require_equal_options(query_encoder, passage_encoder)
        self.query_encoder = query_encoder
        self.passage_encoder = passage_encoder
        self.trained: TrainedTowers = trained
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self._learn_temperature = learn_temperature
        self.log_temperature.requires_grad_(learn_temperature)
        self.lexical_weight: nn.Parameter | None = None
        if query_encoder.lexical is not None:
            if not math.isfinite(lexical_weight):
                raise UserError(f"lexical_weight is {lexical_weight}; expected a number, usually 0 to 3")
            self.lexical_weight = nn.Parameter(torch.tensor(float(lexical_weight)))
        self._known_queries: dict[str, Float[Tensor, " D"]] | None = None

    @property
    def shares_tower(self) -> bool:
        """True if both towers are one module."""
        return self.query_encoder is self.passage_encoder

    @property
    def sides_of_towers(self) -> Mapping[Side, tuple[Side, ...]]:
        """Return the sides that each tower reads, by the name of its folder; a shared tower, ``query``, reads both."""
        return {"query": ("query", "passage")} if self.shares_tower else {"query": ("query",), "passage": ("passage",)}

    def trained_parameters(self) -> list[nn.Parameter]:
        """Return the weights that training changes; all others get no gradient from `queries` and `passages`."""
        return [*self.trained_weights(), *self.trained_scales()]

    def trained_weights(self) -> list[nn.Parameter]:
        """Return the trained weights of the towers."""
        if not self.is_trained:
            return []
        towers = [self.query_encoder] + [self.passage_encoder] * (self.trains_passages and not self.shares_tower)
        return [weight for tower in towers for weight in tower.parameters()]

    def trained_scales(self) -> list[nn.Parameter]:
        """Return the learned numbers that scale all logits, of T and v; they have learning rates of their own."""
        if not self.is_trained:
            return []
        weight = [] if self.lexical_weight is None else [self.lexical_weight]
        return [self.log_temperature] * self._learn_temperature + weight

    @property
    def temperature(self) -> Float[Tensor, ""]:
        """T, a positive number."""
        return self.log_temperature.exp()

    @property
    def trained_temperature(self) -> Float[Tensor, ""]:
        """T, with gradient only if the retriever is trained."""
        return self.temperature if self.is_trained else self.temperature.detach()

    def queries(self, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        """Return e(x)/T; its inner product with a passage embedding is an unnormalised log-probability in nats."""
        if self._known_queries is None or not texts or self.training or torch.is_grad_enabled():
            return self._embed_queries(texts)
        known = self._known_queries
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, self._embed_queries(new), strict=True))
        return torch.stack([known[text] for text in texts])

    @contextmanager
    def remembering_queries(self) -> Iterator[None]:
        """Embed each query once within the block, however often it is asked for; for blocks in which nothing learns.

        What is embedded with gradient or in training mode is neither remembered nor taken from memory.
        """
        before, self._known_queries = self._known_queries, {}
        try:
            yield
        finally:
            self._known_queries = before

    def _embed_queries(self, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        if not self.is_trained:  # without dropout: a frozen retriever ranks in training as it does later
            return self.as_queries(self.query_encoder.embed(texts, "query")).detach()
        return self.as_queries(self.query_encoder(texts, "query"))

    def as_queries(self, vectors: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """Scale embeddings so that inner products with passages are in nats: e / T, followed by v · h."""
        if self.lexical_weight is None:
            return vectors / self.temperature
        semantic = self.query_encoder.semantic_dimension
        return torch.cat([vectors[:, :semantic] / self.temperature, vectors[:, semantic:] * self.lexical_weight], dim=1)

    def passages(self, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        """Return passage embeddings, with gradient if ``trained`` is ``both``."""
        tower = self.passage_encoder
        return tower(texts, "passage") if self.trains_passages else tower.embed_passages(texts)

    def no_passage(self, text: str) -> Float[Tensor, " D"]:
        """Embed the null passage: ``text``, taken for every role where there are roles.

        Its numbers for words are 0, so that v favours every passage that shares a word with the query.
        """
        tower = self.passage_encoder
        if tower.pooling != "roles":
            vector = self.passages([text]).squeeze(0)[: tower.semantic_dimension]
        else:
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.trains_passages):
                vector = tower.mean_vectors([text]).squeeze(0)
            vector = vector.repeat(len(ROLES)) / math.sqrt(len(ROLES))
        return nn.functional.pad(vector, (0, tower.dimension - tower.semantic_dimension))

    def save(self, folder: Path, prefixes: Mapping[Side, str] | None = None) -> None:
        """Write ``query/`` and, unless shared, ``passage/`` as sentence-transformers directories, and the settings.

        ``prefixes`` are what the task puts before the texts of each side (`Encoder.save`).
        """
        for tower, sides in self.sides_of_towers.items():
            own: Mapping[Side, str] | None = None
            if prefixes is not None:
                own = {side: prefixes[side] for side in sides if side in prefixes}
            (self.query_encoder if tower == "query" else self.passage_encoder).save(folder / tower, own)
        settings = SavedRetriever(
            log_temperature=float(self.log_temperature.detach()),
            trained=self.trained,
            learn_temperature=self._learn_temperature,
            shared=self.shares_tower,
            pooling=self.query_encoder.pooling,
            normalise=self.query_encoder.normalise,
            max_tokens=self.query_encoder.max_tokens,
            token_budget=self.query_encoder.token_budget,
            dropout=self.query_encoder.dropout,
            lexical=self.lexical_weight is not None,
            lexical_weight=0.0 if self.lexical_weight is None else float(self.lexical_weight.detach()),
        )
        if self.query_encoder.lexical is not None:
            self.query_encoder.lexical.save(folder / _LEXICAL)
        write_json(folder / "retriever.json", record_mapping(settings))

    @classmethod
    def load(
        cls, folder: Path, role_spans: FindRoleSpans | None = None, passage_encoder: Encoder | None = None
    ) -> Retriever:
        """Read what `save` wrote. Towers with pooling "roles" need ``role_spans``, which no folder holds.

        A ``passage_encoder`` replaces the folder's own: that of another retriever, which shares it.
        Raises `UserError` for a missing folder or wrongly edited settings.
        """
        path = folder / "retriever.json"
        content = read_json(path)
        settings = read_record(SavedRetriever, content if isinstance(content, dict) else {}, str(path))
        lexical = LexicalProjection.load(folder / _LEXICAL) if settings.lexical else None
        query = settings.encoder(folder / "query", role_spans, lexical)
        passage = passage_encoder
        if passage is None:
            passage = query if settings.shared else settings.encoder(folder / "passage", role_spans, lexical)
        temperature, weight = math.exp(settings.log_temperature), settings.lexical_weight
        retriever = cls(query, passage, temperature, settings.trained, settings.learn_temperature, weight)
        with torch.no_grad():  # exp and log do not cancel to the last bit
            retriever.log_temperature.fill_(settings.log_temperature)
        return retriever


_LEXICAL = "lexical.json"
_MOST_LOG_TEMPERATURE = 80.0
"""Beyond it the temperature is out of range in single precision."""


def _require_equal_options(query: Encoder, passage: Encoder) -> None:
    """Raise `UserError` unless both towers embed alike: ``retriever.json`` states their settings once."""
    query_options, passage_options = _embedding_options(query), _embedding_options(passage)
    for name, value in query_options.items():
        if value != passage_options[name]:
            raise UserError(
                f"the towers differ in {name}: {value!r} for queries, {passage_options[name]!r} for passages; "
                f"open both with one value"
            )


def _embedding_options(encoder: Encoder) -> dict[str, object]:
    """Return the options of an encoder that both towers must share."""
    return {
        "dimension": encoder.dimension,
        "pooling": encoder.pooling,
        "normalise": encoder.normalise,
        "max_tokens": encoder.max_tokens,
        "token_budget": encoder.token_budget,
        "dropout": encoder.dropout,
        "lexical": None if encoder.lexical is None else encoder.lexical.fingerprint[:12],
    }


@dataclass(frozen=True)
class SavedRetriever:
    """The content of ``retriever.json``: the settings that the towers' own folders do not hold."""

    log_temperature: float
    trained: TrainedTowers
    learn_temperature: bool
    shared: bool
    pooling: Pooling
    normalise: bool
    max_tokens: int
    lexical: bool = False
    lexical_weight: float = 0.0
    token_budget: int = 0
    dropout: bool = True

    def __post_init__(self) -> None:
        if not abs(self.log_temperature) < _MOST_LOG_TEMPERATURE:
            raise UserError(f"log_temperature is {self.log_temperature:g}; expected a number near 0")

    def encoder(self, folder: Path, role_spans: FindRoleSpans | None, lexical: LexicalProjection | None) -> Encoder:
        """Open a tower of this retriever."""
        return Encoder.open(
            str(folder),
            self.pooling,
            self.normalise,
            self.max_tokens,
            self.token_budget,
            dropout=self.dropout,
            role_spans=role_spans,
            lexical=lexical,
            with_task_prompts=False,
        )
