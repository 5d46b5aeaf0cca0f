"""Layers computed again in the backward pass: the same gradients, with adapters and dropout and without."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tolerances import assert_equal_but_rounding
from torch import nn

from retrograd.models.compute.training_layers import checkpoint_layers, training_attention
from retrograd.models.generator import Generator
from retrograd.models.loading.lora import Lora
from retrograd.types import UserError

PROMPTS, TARGETS = ["who is alpha", "what is beta gamma"], ["delta", "eta theta"]


def gradients(generator: Generator) -> dict[str, torch.Tensor]:
    """As in the loop: the forward pass with the kernel for training, the backward pass outside."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with training_attention(generator.device):
            loss = -generator.log_likelihood(PROMPTS, TARGETS).sum()
    loss.backward()
    return {name: weight.grad for name, weight in generator.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("kind", ["tiny_seq2seq", "tiny_bart", "tiny_pointer", "tiny_causal"])
def test_gradients_are_the_same(kind: str, rank: int, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(kind)
    lora = Lora(rank=rank, dropout=0.1 if rank else 0.0)
    plain, again = (
        Generator.open(str(folder), torch.Generator().manual_seed(0), lora).train() for _ in ("plain", "again")
    )
    for generator in (plain, again):
        for name, weight in generator.named_parameters():
            if "lora_B" in name:
                nn.init.constant_(weight, 0.1)  # at zero, A would have no gradient
    checkpoint_layers(again.model)
    expected, found = gradients(plain), gradients(again)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-6, msg=name)


def test_layers_are_computed_twice_and_what_lies_between_is_not_kept(tiny_causal: Path) -> None:
    passes, kept = [], []
    for checkpointed in (False, True):
        generator = Generator.open(str(tiny_causal), torch.Generator()).train()
        if checkpointed:
            checkpoint_layers(generator.model)
        seen: list[str] = []
        layer = generator.model.get_submodule("model.layers.0.mlp")
        layer.register_forward_pre_hook(lambda *_, seen=seen: seen.append("mlp"))
        sizes: list[int] = []

        def keep(value: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(value.nbytes)
            return value

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            loss = -generator.log_likelihood(PROMPTS, TARGETS).sum()
        kept.append(sum(sizes))
        loss.backward()
        passes.append(len(seen))
    assert passes == [1, 2]
    assert kept[1] < kept[0] / 2


def test_answers_are_the_same_after_training_mode(tiny_causal: Path) -> None:
    plain, again = (Generator.open(str(tiny_causal), torch.Generator()).train() for _ in range(2))
    checkpoint_layers(again.model)
    assert again.generate(PROMPTS, 4) == plain.generate(PROMPTS, 4)
    choices = [TARGETS] * len(PROMPTS)
    assert_equal_but_rounding(
        again.choice_log_likelihood(PROMPTS, choices), plain.choice_log_likelihood(PROMPTS, choices)
    )


def test_a_model_that_cannot_is_refused(tiny_causal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = Generator.open(str(tiny_causal), torch.Generator())
    monkeypatch.setattr(type(generator.model), "supports_gradient_checkpointing", False)
    with pytest.raises(UserError, match=r"LlamaForCausalLM cannot compute its layers again.*set it to false"):
        checkpoint_layers(generator.model)
