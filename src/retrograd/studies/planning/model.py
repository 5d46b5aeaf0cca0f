"""The models of an experiment without weights: their parameters by part, and the cost of a text for each of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedModel

from retrograd.experiments.build import derive_model_settings
from retrograd.experiments.experiment import Experiment
from retrograd.models.compute.costs import Cost, encoder_cost, generator_cost
from retrograd.models.compute.fsdp import find_stacks, list_spread_weights, require_spreadable
from retrograd.models.compute.training_layers import checkpoint_layers
from retrograd.models.encoder import ROLES
from retrograd.models.inputs.soft_prompt import SoftPrompt
from retrograd.models.loading.architectures import adapt, build_encoder_shape, build_generator_shape
from retrograd.models.loading.local_files import local_declaration
from retrograd.models.loading.lora import Lora
from retrograd.models.loading.quantisation import require_adapters
from retrograd.studies.planning.data import DataFacts
from retrograd.types import UserError
from retrograd.util.guards import require_at_least

__all__ = ["ModelFacts", "Spread", "Weights", "collect_model_facts"]

_NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
"""A weight in four bits, the scale of its block of 64 in eight, and the scale of 256 of these in 32."""


@dataclass(frozen=True)
class Weights:
    """A part of the model: parameters, those that training moves, the bytes in which a process holds its share of all,
    and how many of the moved ones that share has."""

    part: str
    parameters: int
    trained: int
    held: float
    moved: float


@dataclass(frozen=True)
class Spread:
    """A generator whose layers are spread over processes: the parameters of the largest, how many moved ones of all of
    them a process has, and which share of the generator stands in no layer."""

    layer: int
    moved: float
    outside: float


@dataclass(frozen=True)
class ModelFacts:
    """Sizes of the models, and the cost of a text for each.

    ``tower`` is the cost of a query, ``passage`` of a passage; ``prompt_tokens`` and ``prompts`` are the mean length
    and the cost of a prompt, by stage. ``dimension`` is D.
    """

    weights: tuple[Weights, ...]
    dimension: int
    tower: Cost
    passage: Cost
    prompt_tokens: dict[str, int]
    prompts: dict[str, Cost]
    spread: Spread | None
    processes: int

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.weights)

    @property
    def trained(self) -> int:
        return sum(part.trained for part in self.weights)


def collect_model_facts(
    experiment: Experiment, facts: DataFacts, passages: dict[str, int], bf16: bool, processes: int = 1
) -> ModelFacts:
    """Return the sizes and costs of the models; ``passages`` is the number of passages in a prompt, by stage.

    Raises `UserError` for shapes that are not known, and for settings that the models would refuse.
    """
    r, g = experiment.retriever, experiment.generator
    Lora(g.lora_rank, g.lora_alpha, g.lora_dropout, g.lora_modules)  # refuses what training would
    require_adapters(g.quantisation, g.lora_rank)
    tokens = {"generator.max_input_tokens": g.max_input_tokens, "generator.max_target_tokens": g.max_target_tokens}
    require_at_least(1, tokens)
    require_at_least(2, {"retriever.max_tokens": r.max_tokens})
    lengths = {stage: _prompt_tokens(experiment, facts, each) for stage, each in passages.items()}
    with FakeTensorMode():
        tower = build_encoder_shape(r.model)
        towers = (build_encoder_shape(r.query_model, "retriever.query_model") if r.query_model else tower, tower)
        width = int(tower.config.hidden_size)
        heads = _heads((r.query_model or r.model, r.model), towers)
        generator = build_generator_shape(g.model)
        if g.gradient_checkpointing:
            checkpoint_layers(generator)
        share = 1 / processes if g.fsdp else 1.0
        counts = [_count(tower.parameters()) + dense for tower, (_, dense) in zip(towers, heads, strict=True)]
        weights = [*_towers(experiment, *counts), *_generator(experiment, generator, width, share)]
        spread = _plan_spread(generator, share, g.dropout) if g.fsdp else None
        generator.train(g.dropout)
        query, passage = (
            encoder_cost(tower.train(r.dropout), tokens, bf16)
            for tower, tokens in zip(towers, (facts.query, facts.passage), strict=True)
        )
        distinct = {tokens: generator_cost(generator, tokens, facts.target, bf16) for tokens in set(lengths.values())}
    dimension = (width * len(ROLES) if r.pooling == "roles" else heads[1][0]) + r.lexical_dimensions
    if r.posterior and r.posterior_passages == "own":
        dimension, passage = 2 * dimension, passage.times(2)
    prompts = {stage: distinct[tokens] for stage, tokens in lengths.items()}
    return ModelFacts(tuple(weights), dimension, query, passage, lengths, prompts, spread, processes)


def _prompt_tokens(experiment: Experiment, facts: DataFacts, passages: int) -> int:
    """Return the tokens of a prompt with so many passages; of one beside soft slots with as many slots."""
    neighbours = experiment.selection.slots if experiment.selection is not None and passages == 0 else passages
    return min(experiment.generator.max_input_tokens, facts.prompt + neighbours * facts.neighbour)


def _heads(names: tuple[str, str], towers: tuple[PreTrainedModel, PreTrainedModel]) -> tuple[tuple[int, int], ...]:
    """Return the width of an embedding and the weights of Dense modules, of queries' and of passages' tower.

    Raises `UserError` where queries and passages have no inner product.
    """
    heads: list[tuple[int, int]] = []
    for name, tower in zip(names, towers, strict=True):
        hidden, declared = int(tower.config.hidden_size), local_declaration(name)
        heads.append((hidden, 0) if declared is None else (declared.width(hidden), declared.dense_weights))
    (query, _), (passage, _) = heads
    if query != passage:
        raise UserError(
            f"retriever.query_model is {query} wide, retriever.model {passage}: they have no inner product; name two "
            f"of one width"
        )
    return tuple(heads)


def _towers(experiment: Experiment, query: int, passage: int) -> list[Weights]:
    """Return the weights of the towers, of so many parameters each. As `Retriever.trained_parameters` has it."""
    r = experiment.retriever
    learns = r.is_trained
    lexical = 1 if r.lexical_dimensions else 0
    scales = 1 + lexical  # the temperature, a number for each retriever, learned or not
    learned = (r.learn_temperature + lexical) * learns
    name = "query tower" if r.separate_towers else "shared tower"
    weights = [_fp32(name, query + scales, query * learns + learned)]
    if r.separate_towers:
        weights.append(_fp32("passage tower", passage, passage * r.trains_passages))
    if r.posterior:
        weights.append(_fp32("posterior tower", query + scales, query * learns + learned))
    if r.posterior and r.posterior_passages == "own" and r.separate_towers:
        weights.append(_fp32("posterior's passage tower", passage, passage * r.trains_passages))
    return weights


def _generator(experiment: Experiment, generator: PreTrainedModel, width: int, share: float) -> list[Weights]:
    """Count the parameters of the generator, and put the adapters in.

    A process has this ``share`` of what stands in layers.
    """
    g = experiment.generator
    whole, inside = _count(generator.parameters()), _count(list_spread_weights(generator))
    weights = [_fp32("generator", whole, 0 if g.lora_rank else whole, whole - inside + share * inside)]
    if g.quantisation == "nf4":
        quantised = _quantised(generator)
        weights = [Weights("generator", whole, 0, (whole - quantised) * 4 + quantised * _NF4_BYTES, 0.0)]
    if g.lora_rank:
        adapt(generator, Lora(g.lora_rank, g.lora_alpha, g.lora_dropout, g.lora_modules))
        adapters = _count(weight for weight in generator.parameters() if weight.requires_grad)
        inside = _count(weight for weight in list_spread_weights(generator) if weight.requires_grad)
        weights.append(_fp32("adapters (LoRA)", adapters, adapters, adapters - inside + share * inside))
    soft = _soft_prompt(experiment, generator, width)
    return [*weights, *([_fp32("soft prompt", soft, soft)] if soft else [])]


def _plan_spread(generator: PreTrainedModel, share: float, dropout: bool) -> Spread | None:
    """Return what each rank holds and moves of a generator whose layers are spread; None where one rank has it all."""
    require_spreadable(generator, dropout)
    if share == 1:
        return None
    layer = max(_count(layer_module.parameters()) for _, layers in find_stacks(generator) for layer_module in layers)
    inside = list(list_spread_weights(generator))
    moved = share * _count(weight for weight in inside if weight.requires_grad)
    return Spread(layer, moved, 1 - _count(inside) / _count(generator.parameters()))


def _quantised(generator: PreTrainedModel) -> int:
    """Return the weights of the layers that transformers quantises: all linear ones but the output layer, and T5's
    ``wo``.
    """
    head = generator.get_output_embeddings()
    layers = [
        (name, layer) for name, layer in generator.named_modules() if isinstance(layer, nn.Linear) and layer is not head
    ]
    return sum(layer.weight.numel() for name, layer in layers if name.rpartition(".")[2] != "wo")


def _soft_prompt(experiment: Experiment, generator: PreTrainedModel, width: int) -> int:
    """Return the parameters of the soft prompt, which is built to count them."""
    settings = derive_model_settings(experiment).soft_prompt_options(width)
    if settings is None:
        return 0
    reader = cast(PreTrainedModel, generator.get_encoder()) if generator.config.is_encoder_decoder else generator
    out = cast(nn.Embedding, reader.get_input_embeddings()).embedding_dim
    return _count(SoftPrompt(settings, torch.ones(1, out), torch.Generator()).parameters())


def _fp32(part: str, parameters: int, trained: int, own_parameters: float | None = None) -> Weights:
    """Return a part in fp32; ``own_parameters`` is how many of the parameters a process has, None for all of them."""
    share = parameters if own_parameters is None else own_parameters
    return Weights(part, parameters, trained, 4.0 * share, float(trained if trained < parameters else share))


def _count(weights: Iterable[nn.Parameter]) -> int:
    return sum(weight.numel() for weight in weights)
