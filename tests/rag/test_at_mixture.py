"""Soft slots against a slow twin: one query at a time, embeddings added in loops, no padding, no packing."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tests.conftest import CLS, bert_config, word_tokenizer
from tests.tolerances import TINY_DEPTH, TINY_TERMS, assert_same_gradients
from torch import Tensor, nn
from transformers import BertConfig, BertLMHeadModel, BertModel, EncoderDecoderConfig, EncoderDecoderModel

from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.loading.lora import Lora
from retrograd.objectives import CandidateScores, StochasticTopK
from retrograd.rag.likelihood import CopyLikelihood, CopySettings, GeneratorLikelihood
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.types import Example, Passage

PASSAGES = [
    ("causes the effect", "the @ rain @ caused the # flood # ."),
    ("part of whole", "the @ wheel @ of the # car # ."),
    ("inside a container", "tea in cup"),
    ("causes the effect", "the @ box @ ."),
    ("other relation", "alpha beta gamma delta epsilon zeta eta theta"),
]
EXAMPLES = [
    Example("a", "the @ tea @ is in the # cup # .", ("inside a container",)),
    Example("b", "the @ flood @ came from # rain # .", ("results from cause",)),
    Example("c", "what is alpha ?", ("other relation",)),
]
ROWS = torch.tensor([[0, 1, 2, -1], [4, 0, -1, 3], [2, 4, 1, 0]])
HARD = torch.zeros(3, 2, 4)
HARD[0, 0, 2] = HARD[0, 1, 0] = HARD[1, 0, 3] = HARD[2, 0, 1] = HARD[2, 1, 3] = 1.0  # query 1 fills one slot of two


def soft_weights() -> Tensor:
    """Rows that sum to 1, some with one weight of exactly 0 on a long passage."""
    logits = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(1)).masked_fill(ROWS[:, None] < 0, -math.inf)
    logits[1, 0, 0] = logits[2, 1, 1] = -math.inf
    return logits.softmax(dim=-1)


def tiny_bert_seq2seq() -> Generator:
    """The build of ``builtin:minilm-seq2seq``: token types, positions and a norm on top of the word embeddings."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = BertModel(bert_config(), add_pooling_layer=False)
        settings = bert_config().to_dict() | {"is_decoder": True, "add_cross_attention": True}
        decoder = BertLMHeadModel(BertConfig(**settings))
    config = EncoderDecoderConfig.from_encoder_decoder_configs(encoder.config, decoder.config)
    model = EncoderDecoderModel(config=config, encoder=encoder, decoder=decoder)
    model.config.decoder_start_token_id = CLS
    return Generator(model, word_tokenizer("[CLS] $A [SEP]")).eval()


KINDS = ["tiny_seq2seq", "tiny_bart", "tiny_causal", "bert"]


def opened(kind: str, request: pytest.FixtureRequest, lora: Lora | None = None, **limits: int) -> Generator:
    if kind != "bert":
        folder: Path = request.getfixturevalue(kind)
        return Generator.open(str(folder), torch.Generator().manual_seed(0), lora, GeneratorOptions(**limits)).eval()
    plain = tiny_bert_seq2seq()
    return Generator(plain.model, plain.tokenizer, GeneratorOptions(**limits)).eval()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def bound(generator: Generator, style: str = "labelled", rows: Tensor = ROWS) -> GeneratorLikelihood:
    task = RelationExtraction.semeval("marked", style)
    base = KnowledgeBase.from_passages(Passage(str(i), title, text) for i, (title, text) in enumerate(PASSAGES))
    return GeneratorLikelihood(generator, task, base, EXAMPLES, rows)


def token_ids(generator: Generator, row: int) -> list[int]:
    title, text = PASSAGES[row]
    return generator.tokenizer(f"{title} : {text}", add_special_tokens=False)["input_ids"]


def prompt_ids(generator: Generator, example: Example) -> list[int]:
    ids = generator.tokenizer(example.query)["input_ids"]
    return (
        ids if generator.encoder_decoder else [*ids, *generator.tokenizer("\n", add_special_tokens=False)["input_ids"]]
    )


def target_ids(generator: Generator, example: Example) -> list[int]:
    return [*generator.tokenizer(example.target, add_special_tokens=False)["input_ids"], generator.end]


def log_p(generator: Generator, read: dict[str, Tensor], written: list[int]) -> Tensor:
    """log p of the target tokens; a decoder-only model must have been given all but the last of them."""
    if generator.encoder_decoder:
        start = generator.model.config.decoder_start_token_id
        logits = generator.model(**read, decoder_input_ids=torch.tensor([[start, *written[:-1]]])).logits[0]
    else:
        logits = generator.model(**read).logits[0, -len(written) :]
    return logits.float().log_softmax(-1)[torch.arange(len(written)), torch.tensor(written)].sum()


def as_text(generator: Generator, example: Example, rows: list[int]) -> Tensor:
    """The token ids of the passages, then those of the prompt, run as ``input_ids``."""
    written = target_ids(generator, example)
    ids = [token for row in rows for token in token_ids(generator, row)] + prompt_ids(generator, example)
    ids = ids if generator.encoder_decoder else ids + written[:-1]
    return log_p(generator, {"input_ids": torch.tensor([ids])}, written)


def slow_mixture(generator: Generator, example: Example, rows: list[int], weight: Tensor) -> Tensor:
    """Position by position: the embeddings of the passages that have a token there, times their weights."""
    layer = generator.model.get_encoder() if generator.encoder_decoder else generator.model
    embed = layer.get_input_embeddings()
    positions = []
    for slot in weight:
        ids = {k: token_ids(generator, row) for k, row in enumerate(rows) if row >= 0}
        length = max((len(ids[k]) for k in ids if slot[k] != 0), default=0)
        for s in range(length):
            there = [slot[k] * embed(torch.tensor(ids[k][s])) for k in ids if s < len(ids[k])]
            positions.append(torch.stack(there).sum(dim=0))
    written = target_ids(generator, example)
    hard = prompt_ids(generator, example) + ([] if generator.encoder_decoder else written[:-1])
    positions += [embed(torch.tensor(token)) for token in hard]
    return log_p(generator, {"inputs_embeds": torch.stack(positions)[None]}, written)


@pytest.mark.parametrize("token_budget", [1, 60, 16_384])
def test_hard_rows_are_the_passages_text(kind: str, token_budget: int, request) -> None:
    generator = opened(kind, request, token_budget=token_budget)
    found = bound(generator).at_mixture(HARD)
    chosen = [[2, 0], [3], [4, 0]]
    expected = torch.stack([as_text(generator, *pair) for pair in zip(EXAMPLES, chosen, strict=True)])
    torch.testing.assert_close(found, expected)
    assert found.std() > 0


@pytest.mark.parametrize("slots", [1, 2])
def test_empty_slots_are_the_prompt_without_passages(kind: str, slots: int, request) -> None:
    generator = opened(kind, request)
    closed = bound(generator).together(torch.empty(3, 0, dtype=torch.long))
    torch.testing.assert_close(bound(generator).at_mixture(torch.zeros(3, slots, 4)), closed)
    nothing = bound(generator, rows=torch.full((3, 2), -1)).at_mixture(torch.zeros(3, slots, 2))
    torch.testing.assert_close(nothing, closed)
    none = bound(generator, rows=torch.empty(3, 0, dtype=torch.long)).at_mixture(torch.zeros(3, slots, 0))
    torch.testing.assert_close(none, closed)


@pytest.mark.parametrize("token_budget", [1, 16_384])
@pytest.mark.parametrize("hard", [True, False])
def test_value_and_both_gradients_are_the_slow_twins(kind: str, token_budget: int, hard: bool, request) -> None:
    """At hard weights as well: a weight of 0 has the derivative of the passage it keeps out."""
    generator, twin = opened(kind, request, token_budget=token_budget), opened(kind, request)
    upstream = torch.tensor([1.0, -2.0, 0.5])
    ours, theirs = ((HARD if hard else soft_weights()).clone().requires_grad_() for _ in range(2))
    found = bound(generator).at_mixture(ours)
    triples = zip(EXAMPLES, ROWS.tolist(), theirs, strict=True)
    expected = torch.stack([slow_mixture(twin, example, rows, weight) for example, rows, weight in triples])
    torch.testing.assert_close(found, expected)
    (found @ upstream).backward()
    (expected @ upstream).backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert_same_gradients([ours.grad], [theirs.grad], TINY_TERMS, TINY_DEPTH)
    assert not ours.grad[(ROWS < 0).unsqueeze(1).expand_as(ours)].any()
    assert ours.grad[0, 0, [0, 1, 2]].all()  # of 0, too
    gradients, wanted = ([weight.grad for weight in model.parameters()] for model in (generator, twin))
    assert_same_gradients(gradients, wanted, TINY_TERMS, TINY_DEPTH)


def test_a_weight_of_zero_is_absence_for_its_passage(request) -> None:
    """Passage 4 alone has these words; with weight 0 their embeddings get no gradient."""
    generator = opened("tiny_causal", request)
    weight = HARD.clone()
    weight[2, 0] = HARD[2, 1]
    bound(generator).at_mixture(weight.requires_grad_()).sum().backward()
    gradient = generator.model.get_input_embeddings().weight.grad
    words = generator.tokenizer("beta gamma delta epsilon zeta eta theta", add_special_tokens=False)["input_ids"]
    assert not gradient[words].any()
    assert gradient[token_ids(generator, 0)].any()


def test_passages_of_equal_text_are_one(request) -> None:
    """With label only, passages 0 and 3 read alike: half of each is the whole of one."""
    generator = opened("tiny_bart", request)
    rows = torch.tensor([[0, 3, 1]] * 3)
    split, whole = (torch.tensor(row).expand(3, 1, 3) for row in ([0.5, 0.5, 0.0], [1.0, 0.0, 0.0]))
    likelihood = bound(generator, "label only", rows)
    torch.testing.assert_close(likelihood.at_mixture(split), likelihood.at_mixture(whole))


def test_each_distinct_passage_is_looked_up_once(request) -> None:
    generator = opened("tiny_bart", request, token_budget=1)
    sizes: list[tuple[int, ...]] = []
    layer = generator.model.get_encoder().get_input_embeddings()
    handle = layer.register_forward_hook(lambda _, inputs, __: sizes.append(tuple(inputs[0].shape)))
    bound(generator).at_mixture(soft_weights())
    handle.remove()
    assert sizes[0] == (5, max(len(token_ids(generator, row)) for row in range(5)))
    assert [rows for rows, _ in sizes[1:]] == [1, 1, 1]  # the prompts, one micro-batch each


def test_slots_share_what_the_prompt_leaves_and_the_prompt_is_never_cut(kind: str, request) -> None:
    prompts = [len(prompt_ids(opened(kind, request), example)) for example in EXAMPLES]
    room = max(prompts) + 7  # each of two slots: 3 tokens beside the longest prompt
    generator = opened(kind, request, max_input_tokens=room)
    seen: list[Tensor] = []
    reader: nn.Module = generator.model.get_encoder() if generator.encoder_decoder else generator.model
    handle = reader.register_forward_pre_hook(
        lambda _, __, named: seen.append(named["attention_mask"]), with_kwargs=True
    )
    found = bound(generator).at_mixture(HARD)
    handle.remove()
    written = [0 if generator.encoder_decoder else len(target_ids(generator, one)) - 1 for one in EXAMPLES]
    for b, (example, chosen) in enumerate(zip(EXAMPLES, [[2, 0], [3], [4, 0]], strict=True)):
        share = (room - prompts[b]) // 2
        ids = [token for row in chosen for token in token_ids(generator, row)[:share]] + prompt_ids(generator, example)
        assert len(ids) <= room
        assert len(ids) + written[b] in torch.cat([mask.sum(-1) for mask in seen]).tolist()
        answer = target_ids(generator, example)
        read = ids if generator.encoder_decoder else ids + answer[:-1]
        torch.testing.assert_close(found[b], log_p(generator, {"input_ids": torch.tensor([read])}, answer))
    full = opened(kind, request, max_input_tokens=max(prompts))  # no room beside the longest prompt
    longest = prompts.index(max(prompts))
    alone = bound(full).together(torch.empty(3, 0, dtype=torch.long))
    torch.testing.assert_close(bound(full).at_mixture(HARD)[longest], alone[longest])


def test_micro_batches_count_the_slots(kind: str, request) -> None:
    """Of the prompts alone, all three would fit into 60 tokens."""
    generator = opened(kind, request, token_budget=60)
    sizes: list[tuple[int, ...]] = []
    reader: nn.Module = generator.model.get_encoder() if generator.encoder_decoder else generator.model
    handle = reader.register_forward_pre_hook(
        lambda _, __, named: sizes.append(tuple(named["attention_mask"].shape)), with_kwargs=True
    )
    bound(generator).at_mixture(HARD)
    handle.remove()
    assert sum(rows for rows, _ in sizes) == 3
    assert all(rows == 1 or rows * width <= 60 for rows, width in sizes)


def test_under_autocast_a_hard_choice_is_still_its_text_and_gradients_flow(kind: str, request) -> None:
    """Exactly, alone in its micro-batch: the mixture is taken in fp32, so no embedding is rounded."""
    generator = opened(kind, request, token_budget=1)
    weight = HARD.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = bound(generator).at_mixture(weight)
        texts = [as_text(generator, *pair) for pair in zip(EXAMPLES, [[2, 0], [3], [4, 0]], strict=True)]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.stack(texts), rtol=1e-5, atol=1e-5)
    found.sum().backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()
    assert weight.grad.any()


def test_without_gradient_it_is_a_forward_only(request) -> None:
    with torch.no_grad():
        found = bound(opened("tiny_seq2seq", request)).at_mixture(soft_weights().requires_grad_())
    assert not found.requires_grad


@pytest.mark.parametrize("kind", ["tiny_seq2seq", "tiny_causal"])
def test_adapters_learn_and_the_frozen_embeddings_do_not(kind: str, request) -> None:
    generator = opened(kind, request, Lora(rank=2))
    weight = soft_weights().requires_grad_()
    bound(generator).at_mixture(weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.any()
    moved = {name for name, one in generator.named_parameters() if one.grad is not None and one.grad.any()}
    assert moved
    assert all(".lora_" in name for name in moved)


def test_stochastic_top_k_trains_the_prior_through_the_generators_input(kind: str, request) -> None:
    """Every candidate present gets a gradient, chosen or not; padding gets none; the generator learns beside it."""
    generator = opened(kind, request)
    likelihood = bound(generator)
    logits = torch.zeros(3, 4, requires_grad=True)
    log_prior = logits.masked_fill(ROWS < 0, -math.inf).log_softmax(dim=-1)
    estimate = StochasticTopK()(CandidateScores(log_prior), likelihood, torch.Generator().manual_seed(0))
    estimate.loss.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[ROWS >= 0].all()
    assert not logits.grad[ROWS < 0].any()
    assert any(one.grad is not None and one.grad.any() for one in generator.parameters())
    assert all(one.grad is None or one.grad.isfinite().all() for one in generator.parameters())


# The copy likelihood

SUPPORTS = torch.tensor([[True, False, False], [False, True, True]])
SETTINGS = CopySettings(noise=0.1, background=0.2)
YES, NO = 0.92, 0.02


def test_the_copy_likelihood_is_the_mean_of_the_slots_mixtures() -> None:
    weight = torch.tensor([[[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]], [[0.0, 0.3, 0.7], [0.0, 0.0, 0.0]]])
    found = CopyLikelihood(SUPPORTS, SETTINGS).at_mixture(weight)
    first = (0.5 * YES + 0.5 * NO + NO) / 2
    torch.testing.assert_close(found.exp(), torch.tensor([first, YES]))  # an empty slot is no slot


def test_the_copy_likelihood_of_one_passage_is_at_and_of_nothing_is_together() -> None:
    likelihood = CopyLikelihood(SUPPORTS, SETTINGS)
    for k in range(3):
        one = torch.nn.functional.one_hot(torch.full((2, 1), k), 3).float()
        torch.testing.assert_close(likelihood.at_mixture(one), likelihood.at(torch.full((2, 1), k)).squeeze(-1))
    weight = torch.zeros(2, 2, 3, requires_grad=True)
    nothing = likelihood.at_mixture(weight)
    torch.testing.assert_close(nothing, likelihood.together(torch.empty(2, 0, dtype=torch.long)))
    nothing.sum().backward()
    assert weight.grad is not None
    assert not weight.grad.any()


def test_the_copy_likelihoods_gradient_is_there_at_hard_weights_too() -> None:
    likelihood = CopyLikelihood(SUPPORTS, CopySettings(noise=1e-4, background=1e-4))
    soft = torch.rand(2, 2, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(likelihood.at_mixture, soft)
    hard = torch.tensor([[[0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0]]], dtype=torch.float64, requires_grad=True)
    likelihood.at_mixture(hard).sum().backward()
    assert hard.grad is not None
    # d log p / d w_k = p_k / p: what supports the target pulls, though it was not chosen.
    ratio = (1 - 1e-4 + 1e-8) / 1e-8
    expected = torch.where(SUPPORTS.unsqueeze(1), ratio, 1.0).double()
    torch.testing.assert_close(hard.grad, expected)
