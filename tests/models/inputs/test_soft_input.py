"""Soft tokens beside a prompt against a slow twin: one pair at a time, embeddings laid side by side by hand."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import EOS, VOCABULARY
from tests.rag.test_at_mixture import KINDS, opened
from tests.tolerances import TINY_DEPTH, TINY_TERMS, assert_same_gradients
from torch import Tensor, nn

from retrograd.models.generator import Generator
from retrograd.models.inputs.soft_input import SoftInput, SoftSlots, SoftTokens
from retrograd.models.loading.lora import Lora
from retrograd.types import UserError

PROMPTS = ["who is alpha", "what", "is beta gamma delta epsilon zeta eta theta ?"]
TARGETS = ["beta", "alpha beta gamma delta", ""]
HOLDS = torch.tensor([[True, False, True, True], [False, False, False, False], [False, True, False, True]])
POSITIONS = ["before", "after"]


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture(params=POSITIONS)
def position(request) -> str:
    return request.param


def made(kind: str, position: str, request, lora: Lora | None = None, **limits: int) -> Generator:
    generator = opened(kind, request, lora, soft_position=position, **limits)
    if kind == "bert":  # built without saying what its decoder begins with when it generates
        generator.model.generation_config.decoder_start_token_id = generator.model.config.decoder_start_token_id
    return generator


def soft_tokens(holds: Tensor = HOLDS) -> SoftTokens:
    """What does not hold is not a number: it must not be read."""
    embedding = torch.randn(*holds.shape, 16, generator=torch.Generator().manual_seed(3))
    return SoftTokens(embedding.masked_fill(~holds.unsqueeze(-1), torch.nan), holds)


def row_by_hand(generator: Generator, prompt: str, soft: Tensor) -> Tensor:
    """Input embeddings [length, D] of one prompt with its soft tokens."""
    layer = generator.model.get_encoder() if generator.encoder_decoder else generator.model
    ids = generator.tokenizer(prompt)["input_ids"]
    tail = [] if generator.encoder_decoder else generator.tokenizer("\n", add_special_tokens=False)["input_ids"]
    hard, separator = (layer.get_input_embeddings()(torch.tensor(one, dtype=torch.long)) for one in (ids, tail))
    parts = [soft, hard, separator] if generator.options.soft_position == "before" else [hard, soft, separator]
    return torch.cat(parts)


def logits_by_hand(generator: Generator, row: Tensor, written: list[int]) -> Tensor:
    """Logits [len(written) + 1, V]."""
    if generator.encoder_decoder:
        start = generator.model.config.decoder_start_token_id
        return generator.model(inputs_embeds=row[None], decoder_input_ids=torch.tensor([[start, *written]])).logits[0]
    words = generator.model.get_input_embeddings()(torch.tensor(written, dtype=torch.long))
    return generator.model(inputs_embeds=torch.cat([row, words])[None]).logits[0, len(row) - 1 :]


def slow_tokens(generator: Generator, prompt: str, target: str, soft: Tensor) -> Tensor:
    ids = generator.tokenizer(target, add_special_tokens=False)["input_ids"]
    logits = logits_by_hand(generator, row_by_hand(generator, prompt, soft), ids)
    return logits.log_softmax(-1)[torch.arange(len(ids) + 1), torch.tensor([*ids, generator.end])]


@pytest.mark.parametrize("token_budget", [1, 16_384])
def test_value_and_gradients_are_the_slow_twins(kind, position, token_budget, request):
    generator, twin = (made(kind, position, request, token_budget=token_budget) for _ in range(2))
    soft, other = soft_tokens(), soft_tokens()
    soft.embedding.requires_grad_()
    other.embedding.requires_grad_()
    scores = generator.token_log_likelihood(PROMPTS, TARGETS, soft)
    rows = [embedding[holds] for embedding, holds in zip(other.embedding, other.holds, strict=True)]
    expected = [slow_tokens(twin, *one) for one in zip(PROMPTS, TARGETS, rows, strict=True)]
    for value, present, one in zip(scores.value, scores.present, expected, strict=True):
        torch.testing.assert_close(value[present], one)
    upstream = torch.tensor([1.0, -2.0, 0.5])
    (scores.value.sum(-1) @ upstream).backward()
    (torch.stack([one.sum() for one in expected]) @ upstream).backward()
    assert_same_gradients([soft.embedding.grad], [other.embedding.grad], TINY_TERMS, TINY_DEPTH)
    assert not soft.embedding.grad[~HOLDS].any()
    assert soft.embedding.grad[HOLDS].any(dim=-1).all()
    gradients, wanted = ([weight.grad for weight in model.parameters()] for model in (generator, twin))
    assert_same_gradients(gradients, wanted, TINY_TERMS, TINY_DEPTH)


def test_without_soft_tokens_it_is_the_prompt_alone(kind, position, request):
    generator = made(kind, position, request)
    nothing = soft_tokens(torch.zeros(3, 2, dtype=torch.bool))
    found = generator.token_log_likelihood(PROMPTS, TARGETS, nothing).value
    torch.testing.assert_close(found, generator.token_log_likelihood(PROMPTS, TARGETS).value)
    empty = SoftTokens(torch.zeros(3, 0, 16), torch.zeros(3, 0, dtype=torch.bool))
    torch.testing.assert_close(generator.token_log_likelihood(PROMPTS, TARGETS, empty).value, found)
    assert generator.generate(PROMPTS, 4, soft=nothing) == generator.generate(PROMPTS, 4)
    none = SoftTokens(torch.zeros(0, 2, 16), torch.zeros(0, 2, dtype=torch.bool))
    assert generator.token_log_likelihood([], [], none).value.shape == (0, 0)
    assert generator.generate([], soft=none) == []


@pytest.mark.parametrize("token_budget", [1, 16_384])
def test_greedy_equals_argmax_step_by_step(kind, position, token_budget, request):
    generator = made(kind, position, request, token_budget=token_budget)
    soft = soft_tokens()
    expected = []
    for prompt, embedding, holds in zip(PROMPTS, soft.embedding, soft.holds, strict=True):
        row, written = row_by_hand(generator, prompt, embedding[holds]), []
        while len(written) < 5 and written[-1:] != [generator.end]:
            written.append(int(logits_by_hand(generator, row, written)[-1].argmax()))
        expected.append(generator.tokenizer.decode(written, skip_special_tokens=True).strip())
    assert generator.generate(PROMPTS, max_new_tokens=5, soft=soft) == expected
    assert len(set(expected)) > 1


@pytest.mark.parametrize("kind", ["tiny_seq2seq", "tiny_causal"])
def test_with_as_many_beams_as_words_two_tokens_are_searched_exhaustively(kind, position, request):
    generator = made(kind, position, request)
    generator.model.generation_config.length_penalty = 0.0  # compare sums, not means
    soft = soft_tokens()
    expected = []
    for prompt, embedding, holds in zip(PROMPTS, soft.embedding, soft.holds, strict=True):
        row = row_by_hand(generator, prompt, embedding[holds])
        first = logits_by_hand(generator, row, [])[-1].log_softmax(-1)
        value = {(EOS,): first[EOS].item()}
        for word in range(len(VOCABULARY)):
            if word != EOS:
                second = logits_by_hand(generator, row, [word])[-1].log_softmax(-1)
                value |= {(word, nxt): (first[word] + second[nxt]).item() for nxt in range(len(VOCABULARY))}
        best = max(value, key=lambda ids: value[ids])
        expected.append(generator.tokenizer.decode(list(best), skip_special_tokens=True).strip())
    assert generator.generate(PROMPTS, max_new_tokens=2, beams=len(VOCABULARY), soft=soft) == expected


def test_generation_leaves_no_gradient_and_no_dropout(position, request):
    generator = made("tiny_causal", position, request).train()
    soft = soft_tokens()
    soft.embedding.requires_grad_()
    expected = generator.generate(PROMPTS, 4, soft=soft)
    assert generator.generate(PROMPTS, 4, soft=soft) == expected
    assert generator.model.training


def test_word_mixtures_stand_where_the_position_says(kind, request):
    """A hard slot before or after is the passage's words there."""
    passages, weight = ["kappa iota", "theta"], torch.eye(2)[[0, 1, 0]].unsqueeze(1)
    for position in POSITIONS:
        generator = made(kind, position, request)
        found = generator.log_likelihood(PROMPTS, TARGETS, generator.word_slots(passages, weight, PROMPTS))
        layer = generator.model.get_encoder() if generator.encoder_decoder else generator.model
        ids = [generator.tokenizer(passages[i], add_special_tokens=False)["input_ids"] for i in (0, 1, 0)]
        rows = [layer.get_input_embeddings()(torch.tensor(one)) for one in ids]
        expected = [slow_tokens(generator, *one).sum() for one in zip(PROMPTS, TARGETS, rows, strict=True)]
        torch.testing.assert_close(found, torch.stack(expected))


class TestRoom:
    WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta")

    def test_a_prompt_is_cut_to_what_soft_tokens_leave_and_no_more(self, kind, position, request):
        whole = made(kind, position, request)
        prompts = [" ".join(self.WORDS), " ".join(self.WORDS[:2])]
        soft = soft_tokens(HOLDS[[0, 2]])  # three and two
        special = 1 if kind == "tiny_seq2seq" else 2
        limit = 3 + special + 4
        cut = made(kind, position, request, max_input_tokens=limit, max_target_tokens=8)
        found = cut.token_log_likelihood(prompts, TARGETS[:2], soft)
        shorter = [" ".join(self.WORDS[:4]), prompts[1]]
        torch.testing.assert_close(found.value, whole.token_log_likelihood(shorter, TARGETS[:2], soft).value)
        assert cut.generate(prompts, 4, soft=soft) == whole.generate(shorter, 4, soft=soft)

    def test_no_room_at_all_is_an_error_with_the_remedy(self, kind, position, request):
        generator = made(kind, position, request, max_input_tokens=6)
        soft = soft_tokens(torch.ones(3, 5, dtype=torch.bool))
        for call in (lambda: generator.generate(PROMPTS, soft=soft), lambda: scores(generator, soft)):
            with pytest.raises(UserError, match=r"5 soft tokens leave a prompt 1 of 6 input .*raise max_input_tokens"):
                call()
        full = made(kind, position, request, max_input_tokens=6)
        with pytest.raises(UserError, match="9 soft tokens leave a prompt 0 of 6 input tokens"):
            scores(full, soft_tokens(torch.ones(3, 9, dtype=torch.bool)))

    def test_micro_batches_count_the_soft_tokens(self, kind, position, request):
        generator = made(kind, position, request, token_budget=60)
        soft = soft_tokens(torch.ones(3, 20, dtype=torch.bool))
        sizes: list[tuple[int, ...]] = []
        reader: nn.Module = generator.model.get_encoder() if generator.encoder_decoder else generator.model
        handle = reader.register_forward_pre_hook(
            lambda _, __, named: sizes.append(tuple(named["attention_mask"].shape)), with_kwargs=True
        )
        scores(generator, soft)
        handle.remove()
        assert sum(rows for rows, _ in sizes) == 3
        assert all(rows == 1 or rows * width <= 60 for rows, width in sizes)


def scores(generator: Generator, soft: SoftInput) -> Tensor:
    return generator.token_log_likelihood(PROMPTS, TARGETS, soft).value.sum(-1)


def test_both_kinds_are_soft_input():
    slots = SoftSlots.of(torch.zeros(1, 2, 16), torch.tensor([2]), torch.ones(3, 1, 1), torch.tensor([2, 1, 0]))
    assert isinstance(slots, SoftInput)
    assert isinstance(soft_tokens(), SoftInput)
    assert slots.at([1, 0]).total.tolist() == [1, 2]
    assert soft_tokens().at([2, 0]).total.tolist() == [2, 3]


def test_finite_under_autocast(kind, position, request):
    generator = made(kind, position, request)
    soft = soft_tokens()
    soft.embedding.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = scores(generator, soft)
    assert found.dtype == torch.float32
    found.sum().backward()
    assert soft.embedding.grad.isfinite().all()
    assert soft.embedding.grad[HOLDS].any()
