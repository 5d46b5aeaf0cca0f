"""Build models without weights: every shape is known, from a configuration on this disk or from published facts.

Everything here is built within torch's ``FakeTensorMode``: a 7 B model takes a second and no memory, its parameters are
counted rather than computed, and a pass through it says what it would cost (`retrograd.models.compute.costs`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import Tensor, nn
from transformers import (
    AutoModel,
    BertConfig,
    DPRConfig,
    EncoderDecoderConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    RobertaConfig,
    T5Config,
)
from transformers.pytorch_utils import Conv1D

from retrograd.models.loading.builtin import BUILTIN_GENERATORS, BUILTIN_POINTER, minilm_seq2seq_from
from retrograd.models.loading.dpr import bert_config, dpr_class
from retrograd.models.loading.encoder_classes import make_encoder
from retrograd.models.loading.generator_checks import require_family
from retrograd.models.loading.local_files import local_config, weight_names
from retrograd.models.loading.lora import Lora, choose_layers
from retrograd.models.loading.transformers_io import quiet_transformers
from retrograd.models.pointer import PointerGenerator, generator_class
from retrograd.types import UserError
from retrograd.util.guards import suggest_name

__all__ = ["KNOWN", "Adapted", "adapt", "build_encoder_shape", "build_generator_shape", "is_on_disk"]


@dataclass(frozen=True)
class Architecture:
    """A configuration as published on the hub.

    ``pooler`` is true if its checkpoint has one, ``untied`` if its output layer is not that of the word embeddings.
    """

    config: Callable[[], PretrainedConfig]
    pooler: bool = False
    untied: bool = False


def _t5(d_ff: int, activation: str) -> T5Config:
    """Return the configuration of a T5 of size "large"."""
    return T5Config(
        vocab_size=32_128, d_model=1_024, d_kv=64, d_ff=d_ff, num_layers=24, num_heads=16, feed_forward_proj=activation
    )


KNOWN: Mapping[str, Architecture] = {
    "roberta-base": Architecture(
        lambda: RobertaConfig(vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1)
    ),
    "BAAI/bge-large-en-v1.5": Architecture(
        lambda: BertConfig(
            hidden_size=1_024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4_096, vocab_size=30_522
        ),
        pooler=True,
    ),
    "google-bert/bert-base-uncased": Architecture(BertConfig, pooler=True),
    "facebook/dpr-ctx_encoder-single-nq-base": Architecture(BertConfig),
    "facebook/dpr-question_encoder-single-nq-base": Architecture(BertConfig),
    "google-t5/t5-large": Architecture(lambda: _t5(4_096, "relu")),
    "google/flan-t5-large": Architecture(lambda: _t5(2_816, "gated-gelu"), untied=True),
    "meta-llama/Llama-2-7b-chat-hf": Architecture(
        lambda: LlamaConfig(vocab_size=32_000, hidden_size=4_096, intermediate_size=11_008, num_hidden_layers=32)
    ),
    "mistralai/Mistral-7B-Instruct-v0.2": Architecture(
        lambda: MistralConfig(vocab_size=32_000, sliding_window=None, max_position_embeddings=32_768)
    ),
    "Qwen/Qwen3-4B-Instruct-2507": Architecture(
        lambda: Qwen3Config(
            vocab_size=151_936,
            hidden_size=2_560,
            intermediate_size=9_728,
            num_hidden_layers=36,
            num_attention_heads=32,
            num_key_value_heads=8,
            head_dim=128,
            max_position_embeddings=262_144,
            tie_word_embeddings=True,
        )
    ),
}
"""The models that recipes name, from their ``config.json`` on the hub. A folder or cache on this disk comes first."""


def is_on_disk(name: str) -> bool:
    """Return whether a model's weights can be read now, without a network."""
    return bool(weight_names(name))


def build_encoder_shape(name: str, setting: str = "retriever.model") -> PreTrainedModel:
    """Return the encoder that `open_encoder` would open, without weights.

    ``setting`` is the setting that names it. Raises `UserError` if its shape is not known here.
    """
    config, architecture = _config(name, setting)
    if dpr_class(config) is not None:
        config = bert_config(cast(DPRConfig, config))
    with quiet_transformers():
        model = make_encoder(config)
    pooler = architecture.pooler if architecture else any("pooler." in weight for weight in weight_names(name))
    if not pooler and getattr(model, "pooler", None) is not None:
        model.register_module("pooler", None)  # as `open_encoder` does
    return model


def build_generator_shape(name: str) -> PreTrainedModel:
    """Return the generator that `open_generator` would open, without weights. Raises as `build_encoder_shape`."""
    config, architecture = _config(name, "generator.model")
    require_family(config)
    with quiet_transformers():
        if name in BUILTIN_GENERATORS:
            model = minilm_seq2seq_from(AutoModel.from_config(config, add_pooling_layer=False))
            return PointerGenerator.copy_from(model) if name == BUILTIN_POINTER else model
        kind = generator_class(config)
        if issubclass(kind, PointerGenerator):
            return kind(cast(EncoderDecoderConfig, config))
        model = kind.from_config(config)
    saved = weight_names(name)
    untied = architecture.untied if architecture else {"lm_head.weight", "shared.weight"} <= saved
    layer = model.get_output_embeddings()
    if untied and isinstance(layer, nn.Linear):
        model.set_output_embeddings(nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None))
    return model


def _config(name: str, setting: str) -> tuple[PretrainedConfig, Architecture | None]:
    """Return the configuration of a model, and what is published of it if there is none on this disk."""
    config = local_config(name)
    if config is not None:
        return config, None
    if name in KNOWN:
        return KNOWN[name].config(), KNOWN[name]
    what = "is a folder without config.json" if Path(name).is_dir() else "is not on this disk"
    part, _, own = setting.partition(".")
    how = f"--like {part}=NAME" if own == "model" else f"--set {setting}=NAME"
    raise UserError(
        f"{setting} = {name!r} {what}, and its shape is unknown here; parameters, memory and time cannot be estimated. "
        f"Name a model of the same shape, or a folder with its config.json alone: {how}; {suggest_name(name, KNOWN)}"
    )


class Adapted(nn.Module):
    """A linear layer beside a low-rank adapter: W x + s B A x, as `retrograd.models.loading.lora` adds it."""

    def __init__(self, base: nn.Linear | Conv1D, rank: int) -> None:
        super().__init__()
        self.base = base
        # Conv1D, a linear layer of GPT-2 and its kin, holds its weight transposed.
        width, height = base.weight.shape if isinstance(base, Conv1D) else base.weight.shape[::-1]
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, height, bias=False)

    @property
    def weight(self) -> Tensor:
        """The layer's own weight, which some models read."""
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        """Return W x + s B A x, with s = 1."""
        return self.base(x) + self.up(self.down(x))


def adapt(model: PreTrainedModel, lora: Lora) -> None:
    """Freeze the model and put adapters beside the linear layers that `add_lora` would choose. Raises as it does."""
    for weight in model.parameters():
        weight.requires_grad_(False)
    for name in choose_layers(model, lora):
        parent, _, own = name.rpartition(".")
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear | Conv1D)
        setattr(model.get_submodule(parent), own, Adapted(layer, lora.rank))
