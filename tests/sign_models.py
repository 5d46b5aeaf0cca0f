"""Tiny models whose tokens are printable signs, so that any two phrases differ."""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tests.model_copies import SHARED_FOLDERS
from tokenizers import Regex, Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)


@dataclass(frozen=True)
class SignModels:
    """Folders of an encoder and of a sequence-to-sequence generator."""

    encoder: Path
    generator: Path


def of_signs(folder: Path, model: PreTrainedModel, template: str) -> Path:
    """A model and the tokenizer of signs, saved."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "</s>"]
    tokens = {sign: i for i, sign in enumerate([*special, *string.printable[:95]])}
    tokenizer = Tokenizer(WordLevel(tokens, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    places = [(token, tokens[token]) for token in special]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=places)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", **names).save_pretrained(folder)
    model.save_pretrained(folder)
    SHARED_FOLDERS.add(str(folder))
    return folder


@pytest.fixture(scope="session")
def sign_models(tmp_path_factory: pytest.TempPathFactory) -> SignModels:
    bert = BertConfig(
        vocab_size=100,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
        pad_token_id=0,
    )
    t5 = T5Config(
        vocab_size=100,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        pad_token_id=0,
        eos_token_id=4,
        decoder_start_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = of_signs(tmp_path_factory.mktemp("bert"), BertModel(bert), "[CLS] $A [SEP]")
        generator = of_signs(tmp_path_factory.mktemp("t5"), T5ForConditionalGeneration(t5), "$A </s>")
    return SignModels(encoder, generator)


@pytest.fixture(scope="session")
def sign_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder-only generator whose tokens are signs."""
    config = LlamaConfig(
        vocab_size=100,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=4,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return of_signs(tmp_path_factory.mktemp("llama"), LlamaForCausalLM(config), "[CLS] $A")
