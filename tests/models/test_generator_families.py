"""Generators of every family are trained with adapters and without, saved, opened again, and answer the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.models.generator_families import CAUSAL, SEQ2SEQ, build_family
from torch._subclasses.fake_tensor import FakeTensorMode

from retrograd.models.generator import Generator
from retrograd.models.loading.architectures import adapt, build_generator_shape
from retrograd.models.loading.lora import Lora
from retrograd.types import UserError

PROMPTS, TARGETS = ["who is alpha", "what is beta gamma"], ["delta", "eta theta"]

FUSED_EXPERTS = [
    "afmoe",
    "beam",
    "cohere2_moe",
    "ernie4_5_moe",
    "exaone_moe",
    "flex_olmo",
    "glm4_moe",
    "mellum",
    "minimax",
    "minimax_m2",
    "mixtral",
    "olmoe",
    "qwen3_moe",
    "solar_open",
]
"""Families in which peft would adapt fused experts where all linear layers are meant."""

ONE_OF_EACH = ("gpt2", "gpt_oss", "mixtral", "qwen3_moe", "phimoe")
"""One family for each mechanism: Conv1D, experts left alone, experts fused (two ways to name them), routers."""


def _families() -> list[object]:
    every = dict.fromkeys((*CAUSAL, *SEQ2SEQ))
    return [name if name in ONE_OF_EACH else pytest.param(name, marks=pytest.mark.sweep) for name in every]


def _train(folder: Path, lora: Lora) -> Generator:
    """Open a generator and train it by two steps."""
    generator = Generator.open(str(folder), torch.Generator().manual_seed(0), lora).train()
    optimiser = torch.optim.SGD([weight for weight in generator.parameters() if weight.requires_grad], lr=0.01)
    for _ in range(2):
        (-generator.log_likelihood(PROMPTS, TARGETS).sum()).backward()
        optimiser.step()
        optimiser.zero_grad()
    return generator.eval()


def _linear_names(folder: Path) -> tuple[str, ...]:
    """Return the names that the refusal of fused experts gives as its remedy."""
    with pytest.raises(UserError, match="holds its experts in one tensor, and they cannot be adapted here") as refused:
        Generator.open(str(folder), torch.Generator(), Lora(rank=2))
    with FakeTensorMode(), pytest.raises(UserError, match="holds its experts in one tensor"):
        adapt(build_generator_shape(str(folder)), Lora(rank=2))
    names = str(refused.value).partition("generator.lora_modules = [")[2].partition("]")[0]
    return tuple(name.strip(" '") for name in names.split(","))


@pytest.mark.parametrize("family", _families())
def test_a_trained_generator_is_the_same_when_it_is_opened_again(family: str, tmp_path: Path) -> None:
    folder = build_family(tmp_path / "model", family)
    for rank in (0, 2):
        lora = Lora(rank, modules=_linear_names(folder) if rank and family in FUSED_EXPERTS else ())
        trained = _train(folder, lora)
        expected = trained.log_likelihood(PROMPTS, TARGETS)
        assert torch.isfinite(expected).all()
        saved = tmp_path / f"rank {rank}"
        trained.save(saved)
        again = Generator.load(saved, str(folder)).eval()
        assert torch.equal(again.log_likelihood(PROMPTS, TARGETS), expected)
        assert again.generate(PROMPTS, 3) == trained.generate(PROMPTS, 3)
