"""Prompts as tokens: what a long prompt loses, and in what order; chat templates."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import CLS, EOS, WORDS, word_tokenizer

from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.inputs.prompt_tokens import PromptTokens
from retrograd.types import Prompt

SEQ2SEQ = word_tokenizer("$A </s>")
CAUSAL = word_tokenizer("[CLS] $A")
CHAT = word_tokenizer("$A")
CHAT.chat_template = (
    "alpha {% for m in messages %}{{ m.content }} {% endfor %}{% if add_generation_prompt %}omega beta gamma{% endif %}"
)
texts = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)


def reader(kind: str) -> PromptTokens:
    tokenizer = {"seq2seq": SEQ2SEQ, "causal": CAUSAL, "chat": CHAT}[kind]
    return PromptTokens(tokenizer, kind == "seq2seq", "\n", EOS, chat=True)


def words(text: str) -> list[int]:
    return CHAT(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("kind", ["seq2seq", "causal", "chat"])
@given(texts, texts, texts, st.integers(8, 40))
def test_the_spare_part_goes_first_and_never_more_than_must(
    kind: str, before: str, spare: str, after: str, most: int
) -> None:
    prompt = Prompt(before + " ", spare + " ", after)
    tokens = reader(kind)
    (ids,) = tokens.ids([prompt], [most])
    (whole,) = reader(kind).ids([prompt], [1_000])
    frame = len(whole) - len(words(before + " " + spare + " " + after))
    assert len(ids) <= most
    kept = frame + len(words(before + " " + after))
    if len(whole) <= most:
        assert (ids, tokens.shortened, tokens.cut) == (whole, 0, 0)
    elif kept <= most:
        assert tokens.cut == 0
        assert len(ids) == most  # one token a word: all of the room is used
        behind = tokens.tail + (kind == "seq2seq")
        left = words(before) + words(spare)[: most - kept] + words(after)
        assert ids == [*whole[: frame - behind], *left, *whole[len(whole) - behind :]]
    else:
        assert tokens.cut == 1
        assert ids[len(ids) - tokens.tail :] == whole[len(whole) - tokens.tail :]


def test_a_plain_string_loses_its_end_and_keeps_the_separator() -> None:
    tokens = reader("causal")
    (ids,) = tokens.ids(["the cup holds tea ."], [5])
    assert ids == [CLS, *words("the cup holds"), *words("\n")]
    assert (tokens.read, tokens.shortened, tokens.cut) == (1, 0, 1)


def test_a_turn_stands_in_the_template_and_the_answer_behind_it() -> None:
    tokens = reader("chat")
    (ids,) = tokens.ids(["the cup"], [100])
    assert ids == words("alpha the cup omega beta gamma")
    assert tokens.tail == 3
    (short,) = tokens.ids(["the cup holds tea in the rain"], [7])
    assert short == words("alpha the cup holds omega beta gamma")
    assert not PromptTokens(CHAT, False, "\n", EOS, chat=False).chat
    assert not PromptTokens(CHAT, True, "\n", EOS, chat=True).chat  # of a decoder-only model alone


@pytest.mark.parametrize(
    "template",
    [
        "alpha {% for m in messages %}{{ m.content }} {% endfor %}omega beta",  # asks for the answer in every turn
        "alpha {% for m in messages %}{{ m.content | trim }} omega {% endfor %}"
        "{% if add_generation_prompt %}beta{% endif %}",
    ],
)
def test_the_tail_is_all_that_stands_behind_a_turn(template: str) -> None:
    tokenizer = word_tokenizer("$A")
    tokenizer.chat_template = template
    tokens = PromptTokens(tokenizer, False, "\n", EOS, chat=True)
    (ids,) = tokens.ids(["the cup"], [100])
    assert ids == words("alpha the cup omega beta")
    assert tokens.tail == 2


def test_a_prompt_is_its_text_and_remembers_what_it_can_spare() -> None:
    prompt = Prompt("a ", "b c ", "d")
    assert prompt == "a b c d"
    assert hash(prompt) == hash("a b c d")
    assert "a b c d" in {prompt}
    assert prompt[slice(*prompt.spare)] == "b c "
    assert [prompt.shorten(n) for n in (9, 2, 0, -1)] == ["a b c d", "a b d", "a d", "a d"]
    assert prompt.shorten(2).shorten(1) == "a d"  # half a word would join what follows
    assert Prompt("a ", "b c ").shorten(3) == "a b c"


def test_the_loss_is_of_the_answer_alone_behind_the_template(tiny_causal: Path) -> None:
    generator = Generator.open(str(tiny_causal), torch.Generator().manual_seed(0)).eval()
    plain = generator.log_likelihood(["the cup"], ["tea"])
    generator.tokenizer.chat_template = CHAT.chat_template
    chat = Generator(generator.model, generator.tokenizer).eval()
    prompt, target = words("alpha the cup omega beta gamma"), [*words("tea"), EOS]
    with torch.no_grad():
        logits = generator.model(input_ids=torch.tensor([prompt + target])).logits[0].log_softmax(-1)
        expected = sum(logits[len(prompt) - 1 + i, token] for i, token in enumerate(target))
        found = chat.log_likelihood(["the cup"], ["tea"])
    torch.testing.assert_close(found[0], expected)
    assert not torch.allclose(found, plain)
    never = Generator(generator.model, generator.tokenizer, GeneratorOptions(chat=False)).eval()
    torch.testing.assert_close(never.log_likelihood(["the cup"], ["tea"]), plain)


def test_whether_to_chat_is_kept_on_disk(tiny_causal: Path, tmp_path: Path) -> None:
    generator = Generator.open(str(tiny_causal), torch.Generator().manual_seed(0))
    generator.tokenizer.chat_template = CHAT.chat_template
    for chat in (True, False):
        Generator(generator.model, generator.tokenizer, GeneratorOptions(chat=chat)).save(tmp_path / str(chat))
        assert Generator.load(tmp_path / str(chat), "").prompt_tokens.chat == chat


@pytest.mark.parametrize("kind", ["seq2seq", "causal", "chat"])
def test_nobody_is_warned_of_a_long_prompt_that_is_cut(
    kind: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    tokens = reader(kind)
    monkeypatch.setattr(tokens._tokenizer, "model_max_length", 12)
    spare = " ".join(WORDS * 4)
    (ids,) = tokens.ids([Prompt("alpha ", spare, " beta")], [12])
    assert len(ids) == 12
    assert not caplog.records
