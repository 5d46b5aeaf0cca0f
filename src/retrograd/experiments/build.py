"""From an experiment to an untrained model: encoders and generator as named, new weights drawn from one source."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from retrograd.experiments.data.source import Data
from retrograd.experiments.experiment import Experiment, RetrieverSettings
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.compute.compute import ComputePrecision
from retrograd.models.encoder import ROLES, Encoder
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.inputs.fusion import require_encoder
from retrograd.models.inputs.lexical_projection import LexicalProjection, WordStatistics
from retrograd.models.inputs.soft_prompt import SoftPromptOptions
from retrograd.models.loading.lora import Lora
from retrograd.models.retriever import Retriever
from retrograd.rag.answers.answering import Answering
from retrograd.rag.embedding import passage_texts
from retrograd.rag.rag_model import RagModel
from retrograd.tasks.task import Task
from retrograd.util.progress import bar

__all__ = ["build_model", "build_retriever", "soft_prompt_options"]


def build_model(
    experiment: Experiment,
    data: Data,
    rng: torch.Generator,
    precision: ComputePrecision = "fp32",
    sharded: bool = False,
) -> RagModel:
    """Build an untrained model; ``rng`` draws the adapters, then the soft prompt. Raises `UserError` as they do.

    It computes in ``precision``. With ``sharded`` each rank holds its rows of the index.
    """
    s = experiment.retriever
    retriever = build_retriever(experiment, data.task, data.base)
    posterior = _posterior(s, data.task, retriever.passage_encoder) if s.posterior else None
    generator = _generator(experiment, retriever.query_encoder.width, rng)
    if experiment.manner.reading == "fused":
        require_encoder(generator.model)
    return RagModel(
        retriever,
        generator,
        data.task,
        data.base,
        posterior,
        s.null_passage,
        search=s.search_kind,
        answering=Answering(experiment.manner, experiment.selection),
        sharded=sharded,
        precision=precision,
    )


def _generator(experiment: Experiment, width: int, rng: torch.Generator) -> Generator:
    """Open the generator; ``width`` is that of the hidden states its soft prompt reads."""
    g = experiment.generator
    lora = Lora(g.lora_rank, g.lora_alpha, g.lora_dropout, g.lora_modules)
    options = GeneratorOptions(
        max_input_tokens=g.max_input_tokens,
        max_target_tokens=g.max_target_tokens,
        token_budget=g.token_budget,
        soft_position=experiment.soft_prompt.position,
        chat=g.chat,
        quantisation=g.quantisation,
        fusion=g.fusion,
        dropout=g.dropout,
        gradient_checkpointing=g.gradient_checkpointing,
    )
    return Generator.open(g.model, rng, lora, options, soft_prompt_options(experiment, width))


def soft_prompt_options(experiment: Experiment, width: int) -> SoftPromptOptions | None:
    """Return the options of a soft prompt over a tower of so wide hidden states; None where it has no soft prompt."""
    s, selection, data = experiment.soft_prompt, experiment.selection, experiment.data
    if s.form == "words" or selection is None:
        return None
    roles = len(ROLES) if experiment.retriever.pooling == "roles" else 1
    label = 0 if data.embeds_labels else 1
    null = experiment.retriever.null_passage
    return SoftPromptOptions(width, selection.slots, roles, roles + label, s.form, s.gain, null)


def build_retriever(experiment: Experiment, task: Task, base: KnowledgeBase) -> Retriever:
    """Build an untrained retriever; where search is hybrid, count the words of the base for it."""
    s = experiment.retriever
    lexical = _lexical_projection(experiment, task, base) if s.lexical_dimensions else None
    query = _query_tower(s, task, lexical)
    return _retriever(s, query, _passage_tower(s, task, query))


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
    return Encoder.open(
        name,
        s.pooling,
        s.normalise,
        s.max_tokens,
        dropout=s.dropout,
        role_spans=task.role_spans,
        lexical=lexical,
    )


def _lexical_projection(experiment: Experiment, task: Task, base: KnowledgeBase) -> LexicalProjection:
    """Count the words of the base, and make the projection that scores by them."""
    with bar("counting words", len(base), "passages") as advance:

        def texts() -> Iterator[str]:
            for block in passage_texts(task, base):
                yield from map(task.unsaid.left_out, block)
                advance(len(block))

        statistics = WordStatistics.of(texts())
    return LexicalProjection(statistics, experiment.retriever.lexical_dimensions, task.unsaid)
