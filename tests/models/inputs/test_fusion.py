"""Fusion-in-decoder against a slow twin: each part encoded alone, hidden states joined by hand, all logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.conftest import EOS, VOCABULARY
from tests.tolerances import TINY_DEPTH, TINY_TERMS, assert_same_gradients
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.inputs.fusion import FusedPrompt
from retrograd.types import UserError

PROMPTS = [
    FusedPrompt(("who is alpha", "what is beta gamma delta ?", "what")),
    FusedPrompt(("is eta ?",)),
    FusedPrompt(("what", "what is beta gamma delta ?")),
]
TARGETS = ["beta", "alpha beta gamma", ""]


def opened(folder: Path, **limits) -> Generator:
    return Generator.open(str(folder), torch.Generator(), None, GeneratorOptions(**limits)).eval()


@pytest.fixture(params=["tiny_seq2seq", "tiny_bart", "tiny_pointer"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def joined(generator: Generator, prompt: FusedPrompt) -> Tensor:
    """[1 L D]"""
    ids = [generator.tokenizer(part, return_tensors="pt")["input_ids"] for part in prompt.parts]
    return torch.cat([generator.model.get_encoder()(one).last_hidden_state for one in ids], dim=1)


def logits(generator: Generator, prompt: FusedPrompt, written: list[int]) -> Tensor:
    """[len(written) + 1, V]"""
    start = generator.model.config.decoder_start_token_id
    outputs = BaseModelOutput(last_hidden_state=joined(generator, prompt))
    return generator.model(encoder_outputs=outputs, decoder_input_ids=torch.tensor([[start, *written]])).logits[0]


def slow(generator: Generator) -> Tensor:
    found = []
    for prompt, target in zip(PROMPTS, TARGETS, strict=True):
        ids = [VOCABULARY.index(word) for word in target.split()]
        log_p = logits(generator, prompt, ids).log_softmax(-1)
        found.append(log_p[torch.arange(len(ids) + 1), torch.tensor([*ids, EOS])].sum())
    return torch.stack(found)


@pytest.mark.parametrize("token_budget", [1, 12, 16_384])
def test_likelihood_and_gradient_are_the_slow_twins_in_batches_of_any_size(folder: Path, token_budget: int) -> None:
    generator, twin = opened(folder, token_budget=token_budget), opened(folder)
    weight = torch.tensor([0.5, -1.0, 2.0])
    found, expected = generator.log_likelihood(PROMPTS, TARGETS), slow(twin)
    torch.testing.assert_close(found, expected)
    (found @ weight).backward()
    (expected @ weight).backward()
    encoder = generator.model.get_encoder()
    assert all(
        one.grad.abs().sum() > 0 for name, one in encoder.named_parameters() if "q_proj" in name or ".q." in name
    )
    gradients, wanted = ([parameter.grad for parameter in model.parameters()] for model in (generator, twin))
    assert_same_gradients(gradients, wanted, TINY_TERMS, TINY_DEPTH)


def test_one_part_is_the_plain_prompt(folder: Path) -> None:
    generator = opened(folder)
    plain = ["who is alpha", "what"]
    fused = [FusedPrompt((one,)) for one in plain]
    torch.testing.assert_close(
        generator.log_likelihood(fused, TARGETS[:2]), generator.log_likelihood(plain, TARGETS[:2])
    )
    assert generator.hypotheses(fused, beams=2) == generator.hypotheses(plain, beams=2)
    mixed = generator.log_likelihood([fused[0], plain[1]], TARGETS[:2])
    torch.testing.assert_close(mixed, generator.log_likelihood(plain, TARGETS[:2]))


def test_the_order_of_the_parts_does_not_matter_and_concatenation_is_something_else(folder: Path) -> None:
    generator = opened(folder)
    found = generator.log_likelihood(PROMPTS, TARGETS)
    turned = [FusedPrompt(prompt.parts[::-1]) for prompt in PROMPTS]
    torch.testing.assert_close(generator.log_likelihood(turned, TARGETS), found)
    together = generator.log_likelihood([" ".join(prompt.parts) for prompt in PROMPTS], TARGETS)
    assert (found - together).abs()[0] > 1e-4


def test_a_fused_prompt_is_continued_as_the_twin_would(folder: Path) -> None:
    generator = opened(folder, max_target_tokens=4)
    expected = []
    for prompt in PROMPTS:
        written: list[int] = []
        while len(written) < 4 - 1 and EOS not in written:  # the fourth token is the end
            written.append(int(logits(generator, prompt, written)[-1].argmax()))
        expected.append(generator.tokenizer.decode(written, skip_special_tokens=True).strip())
    assert generator.generate(PROMPTS) == expected
    beams = generator.hypotheses(PROMPTS, beams=3)
    assert [len(found) for found in beams] == [3, 3, 3]
    assert generator.generate(PROMPTS, beams=3) == [found[0] for found in beams]


def test_choices_are_scored_after_a_fused_prompt(folder: Path) -> None:
    generator = opened(folder)
    choices = ["beta", "alpha beta", "alpha gamma"]
    found = generator.choice_log_likelihood(PROMPTS, [choices] * 3)
    for prompt, own in zip(PROMPTS, found, strict=True):
        torch.testing.assert_close(own, generator.log_likelihood([prompt] * 3, choices))


def test_each_distinct_part_is_encoded_once_and_cut_by_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = opened(folder, max_input_tokens=5)
    encoder = generator.model.get_encoder()
    read: list[int] = []
    real = encoder.forward
    monkeypatch.setattr(
        encoder,
        "forward",
        lambda *args, **named: (read.append(named["attention_mask"].sum(1).tolist()), real(*args, **named))[1],
    )
    generator.log_likelihood(PROMPTS, TARGETS)
    assert sum(map(len, read)) == 4
    assert max(max(one) for one in read) == 5


def test_fusion_is_kept_on_disk(tiny_seq2seq: Path, tmp_path: Path) -> None:
    generator = opened(tiny_seq2seq, fusion=True)
    generator.save(tmp_path / "fused")
    loaded = Generator.load(tmp_path / "fused", "")
    assert loaded.options.fusion
    torch.testing.assert_close(
        loaded.eval().log_likelihood(PROMPTS, TARGETS), generator.log_likelihood(PROMPTS, TARGETS)
    )


def test_a_decoder_only_model_cannot_fuse(tiny_causal: Path) -> None:
    generator = opened(tiny_causal)
    with pytest.raises(UserError, match=r"LlamaForCausalLM is decoder-only.*generator\.fusion = false"):
        opened(tiny_causal, fusion=True)
    with pytest.raises(UserError, match="decoder-only"):
        generator.log_likelihood(PROMPTS, TARGETS)
