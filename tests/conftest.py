"""Tiny models with random weights, made here and opened from a folder like any other: no test needs a network.

`tiny_encoder`, `tiny_seq2seq`, `tiny_bart`, `tiny_pointer` and `tiny_causal` are folders; open them with
`Encoder.open(str(folder))` or `Generator.open(str(folder), rng)`. Their tokeniser knows the words of `WORDS`, split at
spaces, and the line end.
"""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: a name that is no folder fails at once
# Before torch is imported, here and in the processes that tests start: models this small lose by sharing.
os.environ["OMP_NUM_THREADS"] = "1"

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from tests.model_copies import SHARED_FOLDERS, read_each_model_once
from tests.requirements import pytest_make_collect_report, pytest_runtest_makereport
from tests.sign_models import sign_llama, sign_models
from tokenizers import Regex, Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    EncoderDecoderConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from retrograd.models.compute.precision_cache import PrecisionSeconds
from retrograd.models.pointer import PointerGenerator
from retrograd.util.progress import show_progress

# How long an example takes says something about the machine and what else it does, and nothing about the code.
settings.register_profile("any machine", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("any machine"), max_examples=200)  # `make integrations`
settings.load_profile("any machine")

__all__ = [
    "pytest_make_collect_report",
    "pytest_runtest_makereport",
    "read_each_model_once",
    "sign_llama",
    "sign_models",
]
"""Fixtures and hooks that live in a file of their own."""

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "</s>")
_TEXT = """
alpha beta gamma delta epsilon zeta eta theta iota kappa who what is ?
the cup holds tea . in rain caused flood came from box wheel of car number 0 1 2 3 4 5 6 7 8 9 @ # | : part none causes
results source effect content container some inside a includes component whole cause
"""
WORDS = tuple(_TEXT.split())
PAD, UNK, CLS, SEP, EOS = range(5)
VOCABULARY = (*SPECIAL, "\n", *WORDS)


def word_tokenizer(template: str) -> PreTrainedTokenizerFast:
    """One token a word. ``template`` says where the special tokens go, as in ``[CLS] $A [SEP]``."""
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split(Regex(" +"), "removed")]
    )
    special = [(token, i) for i, token in enumerate(SPECIAL)]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", **names)


def build(folder: Path, make: Callable[[], PreTrainedModel], template: str) -> Path:
    """Save a model with weights drawn from a fixed seed, and its tokeniser; the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        make().save_pretrained(folder)
    word_tokenizer(template).save_pretrained(folder)
    SHARED_FOLDERS.add(str(folder))
    return folder


@pytest.hookimpl(tryfirst=True)  # before the slow tests are left out, so that their files come first in any case
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that hold a slow test first where processes share them: one that ends early has short ones left.

    A process that runs alone takes the files as they were named.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Spare each collection of garbage the objects that the imports have made, which live to the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Models this small lose more by sharing the work than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _shown_progress() -> None:
    """Lines for people are on stderr, as in every command, whichever test ran before."""
    show_progress()


@pytest.fixture(scope="session", autouse=True)
def _one_precision(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """On every machine ``auto`` is fp32 in tests, and nothing is timed or kept in the user's own cache.

    Processes that a test starts measure for themselves: their experiments name a precision.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RETROGRAD_CACHE", str(tmp_path_factory.mktemp("cache")))
        patched.setattr(
            "retrograd.experiments.precision.measure_seconds", lambda work, width: PrecisionSeconds(1.0, 2.0)
        )
        yield


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def bert_config() -> BertConfig:
    return BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
        initializer_range=0.3,
        pad_token_id=PAD,
    )


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers, D = 16."""
    return build(tmp_path_factory.mktemp("bert"), lambda: BertModel(bert_config()), "[CLS] $A [SEP]")


@pytest.fixture(scope="session")
def deep_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a layer more."""
    config = bert_config()
    config.num_hidden_layers = 3
    return build(tmp_path_factory.mktemp("deep"), lambda: BertModel(config), "[CLS] $A [SEP]")


@pytest.fixture(scope="session")
def tiny_seq2seq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 of two layers: relative positions, a scaled and tied output layer."""
    config = T5Config(
        vocab_size=len(VOCABULARY),
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        pad_token_id=PAD,
        eos_token_id=EOS,
        decoder_start_token_id=PAD,
    )
    return build(tmp_path_factory.mktemp("t5"), lambda: T5ForConditionalGeneration(config), "$A </s>")


@pytest.fixture(scope="session")
def tiny_bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BART of one layer: absolute positions, a bias on the logits."""
    config = BartConfig(
        vocab_size=len(VOCABULARY),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=128,
        init_std=0.3,
        pad_token_id=PAD,
        bos_token_id=CLS,
        eos_token_id=EOS,
        decoder_start_token_id=EOS,
        forced_eos_token_id=None,
    )
    return build(tmp_path_factory.mktemp("bart"), lambda: BartForConditionalGeneration(config), "[CLS] $A </s>")


@pytest.fixture(scope="session")
def tiny_pointer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two BERTs of two layers, one of which can copy from what the other read."""

    def make() -> PreTrainedModel:
        written = bert_config().to_dict() | {"is_decoder": True, "add_cross_attention": True}
        config = EncoderDecoderConfig.from_encoder_decoder_configs(bert_config(), BertConfig(**written))
        config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = CLS, PAD, EOS
        return PointerGenerator(config)

    return build(tmp_path_factory.mktemp("pointer"), make, "[CLS] $A </s>")


def llama_config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        initializer_range=0.3,
        pad_token_id=PAD,
        bos_token_id=CLS,
        eos_token_id=EOS,
    )


@pytest.fixture(scope="session")
def tiny_causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers: rotary positions, decoder only."""
    return build(tmp_path_factory.mktemp("llama"), lambda: LlamaForCausalLM(llama_config()), "[CLS] $A")
