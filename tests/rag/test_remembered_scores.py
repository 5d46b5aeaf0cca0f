"""A generator at rest scores each pair once, and what it remembers is what it would score."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from retrograd.models.generator import Generator
from retrograd.models.inputs.fusion import FusedPrompt
from retrograd.rag.remembered_scores import RememberedScores

PROMPTS = ["who is alpha", "what is beta", "who is alpha", "is kappa"]
TARGETS = ["beta gamma", "alpha", "beta gamma", ""]


@pytest.fixture(params=["tiny_seq2seq", "tiny_causal"])
def generator(request) -> Generator:
    return Generator.open(str(request.getfixturevalue(request.param)), torch.Generator().manual_seed(0)).eval()


@pytest.fixture
def scored(monkeypatch) -> list[tuple[str, str]]:
    """The pairs that any generator has scored."""
    pairs: list[tuple[str, str]] = []
    score = Generator.token_log_likelihood

    def spy(self, prompts, targets, soft=None):
        pairs.extend(zip(prompts, targets, strict=True))
        return score(self, prompts, targets, soft)

    monkeypatch.setattr(Generator, "token_log_likelihood", spy)
    return pairs


def assert_same(found, expected) -> None:
    assert torch.equal(found.present, expected.present)
    torch.testing.assert_close(found.value, expected.value.detach())


def test_each_pair_is_scored_once(generator, scored) -> None:
    remembered = RememberedScores()
    first = remembered.score(generator, PROMPTS[:3], TARGETS[:3])
    assert scored == [("who is alpha", "beta gamma"), ("what is beta", "alpha")]
    second = remembered.score(generator, PROMPTS[::-1], TARGETS[::-1])
    assert scored[2:] == [("is kappa", "")]
    assert_same(first, generator.token_log_likelihood(PROMPTS[:3], TARGETS[:3]))
    assert_same(second, generator.token_log_likelihood(PROMPTS[::-1], TARGETS[::-1]))


def test_no_gradient(generator) -> None:
    assert not RememberedScores().score(generator, PROMPTS, TARGETS).value.requires_grad


def test_another_target_or_prompt_is_another_pair(generator) -> None:
    remembered = RememberedScores()
    remembered.score(generator, ["who is alpha"], ["beta"])
    for prompt, target in (("who is alpha", "gamma"), ("who is", "alpha beta"), ("who is alphabeta", "")):
        assert_same(remembered.score(generator, [prompt], [target]), generator.token_log_likelihood([prompt], [target]))


def test_parts_of_a_fused_prompt_are_told_apart(tiny_seq2seq: Path) -> None:
    generator, remembered = Generator.open(str(tiny_seq2seq), torch.Generator()).eval(), RememberedScores()
    for parts in (("who is", "alpha beta"), ("who is alpha", "beta"), ("who is alpha beta",)):
        prompts = [FusedPrompt(parts)]
        assert_same(remembered.score(generator, prompts, ["kappa"]), generator.token_log_likelihood(prompts, ["kappa"]))
    assert len(remembered) == 3


def test_nothing_is_remembered_of_dropout(generator, scored) -> None:
    remembered = RememberedScores()
    generator.train()
    for _ in range(2):
        remembered.score(generator, PROMPTS, TARGETS)
    assert len(remembered) == 0
    assert len(scored) == 2 * len(PROMPTS)


@pytest.mark.parametrize("most", [0, 2])
def test_no_more_than_there_is_room_for(generator, most) -> None:
    remembered = RememberedScores(most)
    for _ in range(2):
        found = remembered.score(generator, PROMPTS, TARGETS)
        assert_same(found, generator.token_log_likelihood(PROMPTS, TARGETS))
    assert len(remembered) == most


def test_what_a_checkpoint_keeps(generator, scored) -> None:
    remembered, resumed = RememberedScores(), RememberedScores()
    assert remembered.state() == {}
    first = remembered.score(generator, PROMPTS, TARGETS)
    resumed.load(remembered.state())
    scored.clear()
    assert torch.equal(resumed.score(generator, PROMPTS, TARGETS).value, first.value)
    assert scored == []
    resumed.load({})
    assert len(resumed) == 0


def test_no_pairs(generator) -> None:
    assert RememberedScores().score(generator, [], []).value.shape == (0, 0)
