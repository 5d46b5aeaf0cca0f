"""The networks of a model, built from its settings: new weights are drawn from one random source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.compute.sentence_head import Side
from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.inputs.fusion import require_encoder
from retrograd.models.inputs.lexical_projection import LexicalProjection, WordStatistics
from retrograd.models.retriever import Retriever
from retrograd.rag.embedding import passage_texts
from retrograd.rag.model_settings import ModelSettings
from retrograd.rag.settings import RetrieverSettings
from retrograd.tasks.task import Task
from retrograd.types import UserError
from retrograd.util.progress import bar

__all__ = ["ModelParts", "build_parts", "build_retriever"]


@dataclass(frozen=True)
class ModelParts:
    """The networks of a model. ``posterior`` is None where nothing proposes passages from query and target."""

    retriever: Retriever
    generator: Generator
    posterior: Retriever | None = None


def build_parts(settings: ModelSettings, task: Task, base: KnowledgeBase, rng: torch.Generator) -> ModelParts:
    """Build untrained networks; ``rng`` draws the adapters, then the soft prompt. Raises `UserError` as they do."""
    retriever = build_retriever(settings.retriever, task, base)
    posterior = None
    if settings.retriever.posterior:
        posterior = _posterior(settings.retriever, task, retriever.passage_encoder)
    generator = Generator.open(
        settings.generator.model,
        rng,
        settings.lora,
        settings.generator_options,
        settings.soft_prompt_options(retriever.query_encoder.width),
    )
    if settings.answering.manner.reading == "fused":
        require_encoder(generator.model)
    return ModelParts(retriever, generator, posterior)


def build_retriever(settings: RetrieverSettings, task: Task, base: KnowledgeBase) -> Retriever:
    """Build an untrained retriever; where search is hybrid, count the words of the base for it."""
    lexical = _lexical_projection(settings, task, base) if settings.lexical_dimensions else None
    query = _query_tower(settings, task, lexical)
    return _retriever(settings, query, _passage_tower(settings, task, query))


def _posterior(s: RetrieverSettings, task: Task, shared: Encoder) -> Retriever:
    """Build the posterior retriever; ``shared`` is the prior's passage tower."""
    query = _query_tower(s, task, shared.lexical)
    return _retriever(s, query, _passage_tower(s, task, query) if s.posterior_passages == "own" else shared)


def _retriever(s: RetrieverSettings, query: Encoder, passage: Encoder) -> Retriever:
    return Retriever(query, passage, s.temperature, s.trained, s.learn_temperature, s.lexical_weight)


def _query_tower(s: RetrieverSettings, task: Task, lexical: LexicalProjection | None) -> Encoder:
    return _tower(s.query_model or s.model, s, task, lexical)


def _passage_tower(s: RetrieverSettings, task: Task, query: Encoder) -> Encoder:
    return _tower(s.model, s, task, query.lexical) if s.separate_towers else query


def _tower(name: str, s: RetrieverSettings, task: Task, lexical: LexicalProjection | None) -> Encoder:
    tower = Encoder.open(
        name,
        s.pooling,
        s.normalise,
        s.max_tokens,
        dropout=s.dropout,
        role_spans=task.role_spans,
        lexical=lexical,
        # In a tower that another run trained they are that task's prefixes: this task's stand in their place.
        with_task_prompts=not any(task.non_words.prefixes),
    )
    _require_one_prompt(name, tower, task)
    return tower


def _require_one_prompt(name: str, tower: Encoder, task: Task) -> None:
    """Raise `UserError` where both the model and the task put something before texts."""
    sides: tuple[Side, ...] = ("query", "passage")
    prompts = {side: tower.head.prompts.before(side) for side in sides}
    prefix = next(filter(None, task.non_words.prefixes), "")
    own = next(((side, prompt) for side, prompt in prompts.items() if prompt), None)
    if prefix and own is not None:
        raise UserError(
            f"data.query_prefix or data.passage_prefix is {prefix!r}, and the folder of {name!r} has prompts of its "
            f"own (config_sentence_transformers.json; for a {own[0]}: {own[1]!r}), which stand before texts already; "
            f"leave the prefixes out"
        )


def _lexical_projection(settings: RetrieverSettings, task: Task, base: KnowledgeBase) -> LexicalProjection:
    """Count the words of the base, and make the projection that scores by them."""
    with bar("counting words", len(base), "passages") as advance:

        def texts() -> Iterator[str]:
            for block in passage_texts(task, base):
                yield from map(task.non_words.remove_from, block)
                advance(len(block))

        statistics = WordStatistics.of(texts())
    return LexicalProjection(statistics, settings.lexical_dimensions, task.non_words)
