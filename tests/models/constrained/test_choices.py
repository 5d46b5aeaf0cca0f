"""Scores of choices against slow twins: one pair at a time, no padding, all logits; the tree by plain recursion."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from tests.conftest import CLS, EOS, PAD, VOCABULARY, WORDS, bert_config, word_tokenizer
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertLMHeadModel,
    BertModel,
    BloomConfig,
    BloomForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MT5Config,
    MT5ForConditionalGeneration,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

import retrograd.models.constrained.choices as choices_module
import retrograd.models.constrained.tree_decoding as tree_decoding
from retrograd.models.compute.decoder_families import reads_trees
from retrograd.models.compute.output_layer import OutputLayer
from retrograd.models.constrained.prefix_tree import PrefixTree
from retrograd.models.generator import Generator
from retrograd.models.generator_input import embed_tokens
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.inputs.soft_input import SoftSlots
from retrograd.models.loading.lora import Lora, add_lora
from retrograd.models.pointer import PointerGenerator

PROMPTS = ["who is alpha", "what", "is beta gamma delta epsilon zeta eta theta ?", "what is eta ? who is iota", "what"]
CHOICES = [
    ["alpha", "alpha beta", "delta", "alpha beta gamma", "", "alpha beta"],  # prefixes of others, nothing, one twice
    ["alpha is part of beta", "alpha is part of gamma", "alpha caused beta", "alpha caused delta", "beta is in alpha"],
    ["kappa came from iota"],
    ["tea is in the cup", "tea caused the cup", "tea caused the flood", "tea came from the cup ."],
    ["zeta", "zeta"],
]

SIZES = {"vocab_size": len(VOCABULARY), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA = SIZES | {"intermediate_size": 32, "num_key_value_heads": 1, "initializer_range": 0.3, "pad_token_id": PAD}
GEMMA = LLAMA | {"head_dim": 8}
T5_SIZES = {"vocab_size": len(VOCABULARY), "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
T5_SIZES |= {"pad_token_id": PAD, "eos_token_id": EOS, "decoder_start_token_id": PAD}
GPT = {"vocab_size": len(VOCABULARY), "bos_token_id": CLS, "eos_token_id": EOS, "initializer_range": 0.3}


def bart() -> BartForConditionalGeneration:
    sizes = {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 128}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_layers": 1, "decoder_layers": 2}
    special = {"pad_token_id": PAD, "bos_token_id": CLS, "eos_token_id": EOS, "decoder_start_token_id": EOS}
    config = BartConfig(vocab_size=len(VOCABULARY), init_std=0.3, forced_eos_token_id=None, **sizes, **heads, **special)
    return BartForConditionalGeneration(config)


def bart_with_bias() -> BartForConditionalGeneration:
    model = bart()
    model.final_logits_bias.normal_()
    return model


def bert_to_bert() -> EncoderDecoderModel:
    settings = bert_config().to_dict() | {"is_decoder": True, "add_cross_attention": True}
    encoder, decoder = BertModel(bert_config(), add_pooling_layer=False), BertLMHeadModel(BertConfig(**settings))
    nn.init.normal_(decoder.cls.predictions.bias)
    config = EncoderDecoderConfig.from_encoder_decoder_configs(encoder.config, decoder.config)
    config.decoder_start_token_id, config.pad_token_id = CLS, PAD
    return EncoderDecoderModel(config=config, encoder=encoder, decoder=decoder)


def pointer() -> PointerGenerator:
    return PointerGenerator(bert_to_bert().config)


def gpt_neo() -> GPTNeoForCausalLM:
    layers = {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": 4}
    return GPTNeoForCausalLM(GPTNeoConfig(hidden_size=16, num_heads=2, intermediate_size=32, **layers, **GPT))


def small_window(config: type, model: type) -> Callable[[], PreTrainedModel]:
    return lambda: model(config(**GEMMA, sliding_window=6))


T5_TEMPLATE, BERT_TEMPLATE, CAUSAL_TEMPLATE = "$A </s>", "[CLS] $A [SEP]", "[CLS] $A"
TREES: dict[str, tuple[Callable[[], PreTrainedModel], str]] = {
    "t5": (lambda: T5ForConditionalGeneration(T5Config(**T5_SIZES, tie_word_embeddings=True)), T5_TEMPLATE),
    "flan": (lambda: T5ForConditionalGeneration(T5Config(**T5_SIZES, tie_word_embeddings=False)), T5_TEMPLATE),
    "mt5": (lambda: MT5ForConditionalGeneration(MT5Config(**T5_SIZES)), T5_TEMPLATE),
    "bert": (bert_to_bert, BERT_TEMPLATE),
    "pointer": (pointer, BERT_TEMPLATE),
    "llama": (lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)), CAUSAL_TEMPLATE),
    "mistral": (lambda: MistralForCausalLM(MistralConfig(**LLAMA)), CAUSAL_TEMPLATE),
    "qwen2": (lambda: Qwen2ForCausalLM(Qwen2Config(**LLAMA)), CAUSAL_TEMPLATE),
    "qwen3": (lambda: Qwen3ForCausalLM(Qwen3Config(**GEMMA)), CAUSAL_TEMPLATE),
    "phi3": (lambda: Phi3ForCausalLM(Phi3Config(**LLAMA)), CAUSAL_TEMPLATE),
    "gemma": (lambda: GemmaForCausalLM(GemmaConfig(**GEMMA)), CAUSAL_TEMPLATE),
    "gemma2": (lambda: Gemma2ForCausalLM(Gemma2Config(**GEMMA, final_logit_softcapping=2.0)), CAUSAL_TEMPLATE),
    "gpt2": (lambda: GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, **GPT)), CAUSAL_TEMPLATE),
}
ROWS: dict[str, tuple[Callable[[], PreTrainedModel], str]] = {
    "bart": (bart, "[CLS] $A </s>"),
    "bart with bias": (bart_with_bias, "[CLS] $A </s>"),
    "bloom": (lambda: BloomForCausalLM(BloomConfig(hidden_size=16, n_layer=2, n_head=2, **GPT)), CAUSAL_TEMPLATE),
    "gpt neo": (gpt_neo, CAUSAL_TEMPLATE),
    "cohere": (
        lambda: CohereForCausalLM(CohereConfig(**LLAMA | {"pad_token_id": EOS}, logit_scale=0.25)),
        CAUSAL_TEMPLATE,
    ),
    "mistral, short window": (small_window(MistralConfig, MistralForCausalLM), CAUSAL_TEMPLATE),
    "gemma2, short window": (small_window(Gemma2Config, Gemma2ForCausalLM), CAUSAL_TEMPLATE),
}
LOGITS_CHANGED = ("cohere", "pointer", "gemma2", "gemma2, short window", "bart with bias")


@pytest.fixture(scope="module")
def models() -> dict[str, Generator]:
    made: dict[str, Generator] = {}
    with torch.random.fork_rng(devices=[]):
        for name, (make, template) in (TREES | ROWS).items():
            torch.manual_seed(0)
            made[name] = Generator(make(), word_tokenizer(template), GeneratorOptions(token_budget=80)).eval()
    return made


@pytest.fixture(params=[*TREES, *ROWS])
def name(request) -> str:
    return request.param


@pytest.fixture
def generator(models, name) -> Generator:
    return models[name]


def target_ids(generator: Generator, text: str) -> tuple[int, ...]:
    return (*(VOCABULARY.index(word) for word in text.split()), generator.end)


def logits_after(generator: Generator, prompt: str, written: Sequence[int]):
    """Logits [V] of the token after ``written``: one forward, nothing shared."""
    model, ids = generator.model, generator.tokenizer(prompt)["input_ids"]
    if not model.config.is_encoder_decoder:
        return model(torch.tensor([[*ids, VOCABULARY.index("\n"), *written]])).logits[0, -1]
    decoder = torch.tensor([[model.config.decoder_start_token_id, *written]])
    return model(torch.tensor([ids]), decoder_input_ids=decoder).logits[0, -1]


def by_sequence(generator: Generator, prompt: str, choice: str) -> float:
    ids = target_ids(generator, choice)
    steps = [logits_after(generator, prompt, ids[:t]).log_softmax(-1)[ids[t]] for t in range(len(ids))]
    return float(torch.stack(steps).sum())


def by_recursion(
    generator: Generator, prompt: str, choices: set[tuple[int, ...]], written: tuple[int, ...] = ()
) -> dict[tuple[int, ...], float]:
    """log p of each of the choices among them, all of which begin with ``written``."""
    allowed = sorted({choice[len(written)] for choice in choices if len(choice) > len(written)})
    if not allowed:
        return dict.fromkeys(choices, 0.0)
    share = [0.0]
    if len(allowed) > 1:
        share = logits_after(generator, prompt, written)[torch.tensor(allowed)].log_softmax(-1).tolist()
    found: dict[tuple[int, ...], float] = {}
    for token, log_share in zip(allowed, share, strict=True):
        below = {choice for choice in choices if choice[len(written)] == token}
        deeper = by_recursion(generator, prompt, below, (*written, token))
        found |= {choice: log_share + value for choice, value in deeper.items()}
    return found


@torch.no_grad()
def slow(generator: Generator, prompts: Sequence[str], choices: Sequence[Sequence[str]], scoring: str):
    width = max(map(len, choices))
    rows = []
    for prompt, texts in zip(prompts, choices, strict=True):
        if scoring == "sequence":
            row = [by_sequence(generator, prompt, text) for text in texts]
        else:
            ids = [target_ids(generator, text) for text in texts]
            found = by_recursion(generator, prompt, set(ids))
            row = [found[key] for key in ids]
        rows.append(row + [-math.inf] * (width - len(row)))
    return torch.tensor(rows)


@pytest.mark.parametrize("scoring", ["sequence", "tree"])
class TestEqualBruteForce:
    def test_each_model(self, generator, scoring):
        found = generator.choice_log_likelihood(PROMPTS, CHOICES, scoring)
        torch.testing.assert_close(found, slow(generator, PROMPTS, CHOICES, scoring), rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("kind", ["t5", "bart", "bert", "llama", "bloom"])
    @pytest.mark.parametrize("token_budget", [1, 16_384])
    def test_however_they_are_batched(self, models, kind, scoring, token_budget):
        plain = models[kind]
        generator = Generator(plain.model, plain.tokenizer, GeneratorOptions(token_budget=token_budget))
        expected = plain.choice_log_likelihood(PROMPTS, CHOICES, scoring)
        torch.testing.assert_close(generator.choice_log_likelihood(PROMPTS, CHOICES, scoring), expected)

    def test_few_states_at_a_time(self, models, scoring, monkeypatch):
        expected = models["t5"].choice_log_likelihood(PROMPTS, CHOICES, scoring)
        monkeypatch.setattr(choices_module, "_STATES", 3)
        torch.testing.assert_close(models["t5"].choice_log_likelihood(PROMPTS, CHOICES, scoring), expected)

    @pytest.mark.parametrize("kind", list(TREES))
    def test_as_rows_a_tree_scores_the_same(self, models, kind, scoring, monkeypatch):
        expected = models[kind].choice_log_likelihood(PROMPTS, CHOICES, scoring)
        monkeypatch.setattr(tree_decoding, "reads_trees", lambda _: False)
        found = models[kind].choice_log_likelihood(PROMPTS, CHOICES, scoring)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)

    def test_an_adapter_around_the_output_layer(self, scoring, rng):
        generator = Generator(LlamaForCausalLM(LlamaConfig(**LLAMA)), word_tokenizer(CAUSAL_TEMPLATE)).eval()
        add_lora(generator.model, Lora(rank=2, modules=("lm_head", "q_proj")), rng)
        for weight_name, weight in generator.named_parameters():
            if ".lora_B." in weight_name:
                nn.init.normal_(weight, generator=rng)
        found = generator.choice_log_likelihood(PROMPTS, CHOICES, scoring)
        torch.testing.assert_close(found, slow(generator, PROMPTS, CHOICES, scoring), rtol=1e-5, atol=1e-5)


class TestScores:
    def test_a_sequence_is_the_log_likelihood_of_the_pair(self, generator):
        found = generator.choice_log_likelihood(PROMPTS, CHOICES)
        for prompt, texts, row in zip(PROMPTS, CHOICES, found, strict=True):
            expected = generator.log_likelihood([prompt] * len(texts), texts).detach()
            torch.testing.assert_close(row[: len(texts)], expected, rtol=1e-5, atol=1e-5)

    def test_a_tree_shares_out_one(self, generator):
        choices = [list(dict.fromkeys(texts)) for texts in CHOICES]
        found = generator.choice_log_likelihood(PROMPTS, choices, "tree")
        torch.testing.assert_close(found.exp().sum(-1), torch.ones(len(PROMPTS)))

    def test_a_single_choice_is_certain_and_nothing_is_run(self, models):
        seen = []
        generator = models["t5"]
        handle = generator.model.get_encoder().register_forward_hook(lambda *_: seen.append(1))
        found = generator.choice_log_likelihood(["what", "who"], [["alpha beta"], ["beta"]], "tree")
        handle.remove()
        assert found.tolist() == [[0.0], [0.0]]
        assert len(seen) <= 2  # the sample that tells how the output layer is used

    @pytest.mark.parametrize("scoring", ["sequence", "tree"])
    def test_neither_dropout_nor_gradient(self, scoring, rng):
        generator = Generator(TREES["t5"][0](), word_tokenizer(T5_TEMPLATE)).eval()
        expected = generator.choice_log_likelihood(PROMPTS, CHOICES, scoring)
        for part in generator.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.5
        generator.train()
        found = generator.choice_log_likelihood(PROMPTS, CHOICES, scoring)
        assert torch.equal(found, expected)
        assert not found.requires_grad
        assert generator.model.training

    def test_no_prompts(self, generator):
        assert generator.choice_log_likelihood([], []).shape == (0, 0)

    @pytest.mark.parametrize("choices", [[["alpha"]], [["alpha"], []]])
    def test_every_prompt_has_choices(self, models, choices):
        with pytest.raises(ValueError, match="2 prompts but choices for 1"):
            models["t5"].choice_log_likelihood(["what", "who"], choices)

    @pytest.mark.parametrize("scoring", ["sequence", "tree"])
    def test_under_bf16_autocast_near_fp32(self, generator, scoring):
        expected = generator.choice_log_likelihood(PROMPTS, CHOICES, scoring)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = generator.choice_log_likelihood(PROMPTS, CHOICES, scoring)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0.1, atol=0.6)
        if scoring == "sequence":
            assert bool((found <= 0).all())


class TestWork:
    """What is asked, once; what is not, not at all."""

    @pytest.mark.parametrize("kind", ["t5", "bart", "llama"])
    def test_no_logits_over_the_vocabulary(self, models, kind):
        generator, rows = models[kind], []
        handle = generator.model.get_output_embeddings().register_forward_hook(
            lambda _, inputs, __: rows.append(inputs[0].numel() // 16)
        )
        generator.choice_log_likelihood(PROMPTS, CHOICES, "tree")
        handle.remove()
        assert sum(rows) == 2  # of the sample: the model's own logits and the layer's

    @pytest.mark.parametrize("kind", [*TREES, *ROWS])
    def test_logits_that_the_model_changes_are_noticed(self, models, kind):
        generator = models[kind]
        sample = {"input_ids": torch.tensor([[EOS]])}
        if generator.encoder_decoder:
            sample["decoder_input_ids"] = sample["input_ids"]
        with torch.no_grad():
            assert OutputLayer(generator.model, sample).linear == (kind not in LOGITS_CHANGED)

    @pytest.mark.parametrize("kind", ["t5", "bert"])
    def test_each_prefix_is_decoded_once(self, models, kind):
        generator, tokens = models[kind], []
        decoder = generator.model.get_decoder()
        handle = decoder.register_forward_pre_hook(
            lambda _, __, named: tokens.append(named["input_ids"].numel()), with_kwargs=True
        )
        generator.choice_log_likelihood(["what", "who"], [CHOICES[0]] * 2)
        handle.remove()
        # Nothing, alpha, alpha beta, alpha beta gamma, delta.
        assert sum(tokens[1:]) == 2 * 5

    def test_families(self, models):
        assert all(reads_trees(models[kind].model) for kind in TREES)
        assert not any(reads_trees(models[kind].model) for kind in ("bart", "bloom", "gpt neo"))


class TestPrefixTree:
    CHOICES = ([5, 6, 7, 1], [5, 6, 8, 1], [5, 1], [9, 6, 1])

    def test_of_a_sequence_all_is_asked(self):
        tree = PrefixTree.of(self.CHOICES, "sequence")
        assert len(tree.token) == 1 + 4 + 2  # nothing, 5, 56, 567, 568, 9, 96
        assert len(tree.decision_tokens) == 4 + 2 + 1 + 3
        assert [len(terms) for terms in tree.terms] == [4, 4, 2, 3]

    def test_of_a_tree_only_branches_are(self):
        tree = PrefixTree.of(self.CHOICES, "tree")
        assert tree.token == (-1, 5, 6)
        assert tree.parent == (-1, 0, 1)
        assert sorted(tree.decision_tokens) == [(0, 5), (0, 9), (1, 1), (1, 6), (2, 7), (2, 8)]
        assert [len(terms) for terms in tree.terms] == [3, 3, 2, 1]

    def test_what_leads_to_a_branch_is_run_and_not_asked(self):
        tree = PrefixTree.of(([5, 6, 1], [5, 7, 1]), "tree")
        assert (tree.token, tree.decision_points) == ((-1, 5), (1,))

    def test_rows_hold_every_prefix_that_asks(self):
        for scoring in ("sequence", "tree"):
            tree = PrefixTree.of(self.CHOICES, scoring)
            sequences, places = tree.rows()
            for prefix, (row, tokens) in zip(tree.decision_points, places, strict=True):
                path = []
                while prefix > 0:
                    path.append(tree.token[prefix])
                    prefix = tree.parent[prefix]
                assert sequences[row][:tokens] == path[::-1]

    def test_a_prefix_sees_what_it_begins_with(self):
        tree = PrefixTree.of(self.CHOICES, "sequence")
        assert tree.sees().sum(-1).tolist() == [depth + 1 for depth in tree.depth]


class TestSoftInput:
    """One-hot slots are the passage itself: what its words in front of the prompt would give."""

    @pytest.mark.parametrize("kind", ["t5", "bart", "bert", "llama", "gpt2", "bloom"])
    @pytest.mark.parametrize("scoring", ["sequence", "tree"])
    def test_beside_each_prompt(self, models, kind, scoring, rng):
        generator = models[kind]
        lengths = torch.tensor([3, 1, 4])
        words = torch.randint(VOCABULARY.index(WORDS[0]), len(VOCABULARY), (3, 4), generator=rng)
        weight = torch.eye(3)[torch.tensor([0, 2, 1, 0, 2])].unsqueeze(1)
        with torch.no_grad():
            embedded = embed_tokens(generator.model, words)
            soft = SoftSlots.of(embedded, lengths, weight, torch.full((5,), 9))
            found = generator.choice_log_likelihood(PROMPTS, CHOICES, scoring, soft)
            again = generator.choice_log_likelihood(PROMPTS[::-1], CHOICES[::-1], scoring, soft.at([4, 3, 2, 1, 0]))
        torch.testing.assert_close(found, again.flip(0))
        assert not torch.allclose(found[:2], generator.choice_log_likelihood(PROMPTS, CHOICES, scoring)[:2])
        if scoring == "sequence":
            for p, texts in enumerate(CHOICES):
                rows = soft.at([p] * len(texts))
                pairs = generator.token_log_likelihood([PROMPTS[p]] * len(texts), texts, rows).value.sum(-1)
                torch.testing.assert_close(found[p, : len(texts)], pairs.detach(), rtol=1e-5, atol=1e-5)
