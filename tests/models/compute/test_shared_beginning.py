"""What prompts begin with is read once, and changes neither scores nor gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.conftest import EOS, PAD, VOCABULARY, word_tokenizer
from tests.tolerances import TINY_DEPTH, TINY_TERMS, assert_same_gradients
from torch import nn
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

from retrograd.models.compute import shared_beginning
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.loading.lora import Lora, add_lora

BEGINNING = "alpha beta gamma delta epsilon zeta eta theta iota kappa alpha beta gamma delta epsilon zeta eta"
PROMPTS = [f"{BEGINNING} {end}" for end in ("who is alpha", "what", "who is beta gamma delta ?", "who")]
TARGETS = ["beta", "alpha beta gamma delta", "", "kappa kappa"]
CHOICES = [["alpha", "alpha beta", "delta", ""], ["tea", "tea cup"], ["alpha is part of beta"], ["zeta", "kappa tea"]]
ONCE = 1 + len(BEGINNING.split())
"""Tokens that all prompts begin with: a mark, and these words."""

SIZES = {"vocab_size": len(VOCABULARY), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.3, "pad_token_id": PAD}
SMALL = {"vocab_size": len(VOCABULARY), "n_layer": 2, "n_head": 2, "eos_token_id": EOS, "initializer_range": 0.3}
IN_TWO_PARTS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=8)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(n_embd=16, **SMALL)),
}
WHOLE: dict[str, Callable[[], PreTrainedModel]] = {
    "bloom": lambda: BloomForCausalLM(BloomConfig(hidden_size=16, **SMALL)),
    "mistral, short window": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=6)),
}


def make(family: str, **options) -> Generator:
    torch.manual_seed(0)
    model = (IN_TWO_PARTS | WHOLE)[family]()
    return Generator(model, word_tokenizer("[CLS] $A"), GeneratorOptions(token_budget=200, **options)).eval()


def tokens_read(generator: Generator, run: Callable[[], object]) -> int:
    """How many tokens the model embeds, padding included."""
    counts: list[int] = []
    embeddings = generator.model.get_input_embeddings()
    handle = embeddings.register_forward_hook(lambda _, inputs, __: counts.append(inputs[0].numel()))
    run()
    handle.remove()
    return sum(counts)


@pytest.fixture
def separately(monkeypatch):
    """Returns what a call returns where every prompt is read whole."""

    def run(call):
        with monkeypatch.context() as patched:
            patched.setattr(shared_beginning, "_LEAST_TOKENS", 1_000)
            return call()

    return run


@pytest.mark.parametrize("family", [*IN_TWO_PARTS, *WHOLE])
class TestNothingChanges:
    def test_scores(self, family, separately):
        generator = make(family)
        expected = separately(lambda: generator.log_likelihood(PROMPTS, TARGETS))
        torch.testing.assert_close(generator.log_likelihood(PROMPTS, TARGETS), expected)

    def test_gradients(self, family, separately):
        weight = torch.tensor([0.5, -1.0, 2.0, 1.5])

        def gradients():
            generator = make(family)
            (generator.log_likelihood(PROMPTS, TARGETS) @ weight).backward()
            return [part.grad for part in generator.parameters()]

        assert_same_gradients(gradients(), separately(gradients), TINY_TERMS, TINY_DEPTH)

    @pytest.mark.parametrize("scoring", ["sequence", "tree"])
    def test_choices(self, family, scoring, separately):
        generator = make(family)

        def score():
            return generator.choice_log_likelihood(PROMPTS, CHOICES, scoring)

        torch.testing.assert_close(score(), separately(score), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", list(IN_TWO_PARTS))
@pytest.mark.parametrize("call", ["scores", "choices"])
def test_the_beginning_is_read_in_one_row(family, call, separately):
    generator = make(family)

    def run():
        if call == "scores":
            return generator.log_likelihood(PROMPTS, TARGETS)
        return generator.choice_log_likelihood(PROMPTS, CHOICES)

    saved = separately(lambda: tokens_read(generator, run)) - tokens_read(generator, run)
    assert saved == ONCE * (len(PROMPTS) - 1)


def test_the_last_token_of_every_prompt_is_left():
    generator = make("llama")
    same = [PROMPTS[0]] * 3
    scores = generator.log_likelihood(same, ["beta", "beta", "beta"])
    torch.testing.assert_close(scores, generator.log_likelihood(same[:1], ["beta"]).expand(3))


@pytest.mark.parametrize("family", list(WHOLE))
def test_families_that_may_not_be_read_in_two_parts(family, separately):
    generator = make(family)

    def run():
        return generator.log_likelihood(PROMPTS, TARGETS)

    assert tokens_read(generator, run) == separately(lambda: tokens_read(generator, run))


def test_with_dropout_each_row_draws_its_own(separately):
    generator = make("llama")

    def run():
        return generator.log_likelihood(PROMPTS, TARGETS)

    whole = separately(lambda: tokens_read(generator, run))
    assert tokens_read(generator.train(), run) == whole
    assert tokens_read(make("llama", dropout=False).train(), run) < whole


def test_adapters_learn_from_what_is_read_once(separately):
    def gradients():
        generator = make("llama")
        add_lora(generator.model, Lora(rank=2), torch.Generator().manual_seed(0))
        for name, weight in generator.named_parameters():
            if ".lora_B." in name:
                nn.init.normal_(weight, generator=torch.Generator().manual_seed(1))
        generator.log_likelihood(PROMPTS, TARGETS).sum().backward()
        return [weight.grad for weight in generator.parameters() if weight.requires_grad]

    assert_same_gradients(gradients(), separately(gradients), TINY_TERMS, TINY_DEPTH)
