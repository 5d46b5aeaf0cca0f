"""Generators of every family are trained with adapters and without, saved, opened again, and answer the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.models.generator_families import CAUSAL, SEQ2SEQ, WITH_OTHER_MEDIA, Side, build_family
from tests.tolerances import assert_equal_but_rounding, assert_same_weights
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from retrograd.models.compute.positions import position_limit
from retrograd.models.constrained.token_mixture import PromptMixture
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.loading.architectures import adapt, build_generator_shape
from retrograd.models.loading.folder_checks import ADAPTER_WEIGHTS
from retrograd.models.loading.lora import Lora
from retrograd.types import UserError

PROMPTS = ["who is alpha", "what is beta gamma delta the cup holds tea . in rain caused flood came", "tea"]
TARGETS = ["delta", "eta theta iota", "the cup"]
CHOICES = ["delta", "delta theta", "tea"]
LONG = "alpha beta gamma delta " * 60

_FUSED_EXPERTS = """
afmoe beam cohere2_moe deepseek_v2 deepseek_v3 deepseek_v32 dots1 ernie4_5_moe exaone_moe flex_olmo
glm4_moe glm4_moe_lite glm_moe_dsa hunyuan_v1_moe longcat_flash mellum minimax minimax_m2 mixtral olmoe qwen3_moe
qwen3_next solar_open
"""
FUSED_EXPERTS = _FUSED_EXPERTS.split()
"""Families in which peft would adapt fused experts where all linear layers are meant."""

IN_BOTH_DIRECTIONS = "in both directions, so that a token's score depends on the tokens after it; name a language model"
ONE_STATE = "does not see one hidden state a token"
REFUSED = {
    ("seq2seq", "fsmt"): ONE_STATE,
    ("seq2seq", "nllb-moe"): "not supported as generators: its experts are full after some tokens",
    ("seq2seq", "prophetnet"): ONE_STATE,
    ("causal", "cpmant"): "not supported as generators: it reads a whole text in both directions",
    ("causal", "prophetnet"): ONE_STATE,
    ("causal", "reformer"): "not supported as generators: it has no mask for padding",
    ("causal", "rwkv"): "not supported as generators: it has no mask for padding",
    ("causal", "xlnet"): IN_BOTH_DIRECTIONS,
    ("causal", "xlstm"): "not supported as generators: it has no mask for padding",
}
"""Families that cannot serve, each with what the refusal says."""

REFUSED_BY_NAME = {"blt", "gemma4_assistant", "gemma4_unified_assistant"}
"""Families refused by their configuration, and too intricate to be built small: bytes in patches, two drafters."""

PADDING_SET_TO_ZERO = ("youtu",)
"""Families of which transformers sets the vector of the padding token to zero on opening, whatever the file holds.

Where it is the head's as well, training moves it by less than 1e-5: the head scores a token that no target has.
"""

ONE_OF_EACH = {
    *(
        ("causal", name)
        for name in ("gpt2", "gpt_oss", "mixtral", "qwen3_moe", "phimoe", "laguna", "mamba", "bert", "bart")
    ),
    *(("seq2seq", name) for name in ("t5", "bart")),
}
"""One family for each mechanism: Conv1D, experts left alone, experts fused (two ways to name them), routers, names that
transformers changes on reading, a recurrent state, an encoder as decoder, positions that padding moves, relative
positions, absolute ones."""


def _families() -> list[object]:
    every: list[tuple[Side, str]] = [*(("causal", name) for name in CAUSAL), *(("seq2seq", name) for name in SEQ2SEQ)]
    return [
        pytest.param(*each, id="-".join(each), marks=() if each in ONE_OF_EACH else pytest.mark.sweep) for each in every
    ]


def test_every_family_of_transformers_is_tried_or_named_with_a_reason() -> None:
    named = {("causal", name) for name in (*CAUSAL, *WITH_OTHER_MEDIA, *REFUSED_BY_NAME)}
    named |= {("seq2seq", name) for name in (*SEQ2SEQ, *WITH_OTHER_MEDIA)} | {*REFUSED}
    every = {("causal", name) for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES}
    every |= {("seq2seq", name) for name in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES}
    assert not every - named


@pytest.mark.parametrize(("side", "family"), _families())
def test_a_family_serves(side: Side, family: str, tmp_path: Path) -> None:
    folder = build_family(tmp_path / "model", family, side)
    generator = Generator.open(str(folder), torch.Generator(), options=GeneratorOptions(200, 63)).eval()
    assert generator.encoder_decoder == (side == "seq2seq")
    with torch.no_grad():
        _require_texts_apart(generator)
        _require_limit(generator)
    for rank in (0, 2):
        lora = Lora(rank, modules=_linear_names(folder) if rank and family in FUSED_EXPERTS else ())
        trained = _train(folder, lora)
        if family in PADDING_SET_TO_ZERO:
            trained.model.get_input_embeddings().weight.data[0] = 0
        expected = trained.log_likelihood(PROMPTS, TARGETS)
        assert torch.isfinite(expected).all()
        saved = tmp_path / f"rank {rank}"
        trained.save(saved)
        again = Generator.load(saved, str(folder)).eval()
        assert_same_weights(again, trained)
        assert_equal_but_rounding(again.log_likelihood(PROMPTS, TARGETS), expected)
        for beams in (1, 2):
            assert again.hypotheses(PROMPTS, beams, 3) == trained.hypotheses(PROMPTS, beams, 3)


def _require_texts_apart(generator: Generator) -> None:
    """A prompt has the scores and answers in a batch that it has alone; choices have the scores of targets."""
    together = generator.log_likelihood(PROMPTS, TARGETS)
    alone = torch.cat([generator.log_likelihood([p], [t]) for p, t in zip(PROMPTS, TARGETS, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    for beams in (1, 2):
        each = [generator.hypotheses([prompt], beams, 4)[0] for prompt in PROMPTS]
        assert generator.hypotheses(PROMPTS, beams, 4) == each
    scores = generator.choice_log_likelihood(PROMPTS, [CHOICES] * len(PROMPTS)).flatten()
    pairs = [(prompt, choice) for prompt in PROMPTS for choice in CHOICES]
    torch.testing.assert_close(
        scores, generator.log_likelihood(*map(list, zip(*pairs, strict=True))), rtol=1e-4, atol=1e-4
    )


def _require_limit(generator: Generator) -> None:
    """A prompt and a target longer than the positions are cut to the limit, and read."""
    limit = position_limit(generator.model.config)
    assert generator.options.max_input_tokens <= (limit or 200)
    scores = generator.token_log_likelihood([LONG, "tea"], [LONG, LONG])
    assert torch.isfinite(scores.value).all()
    assert scores.present.sum(-1).tolist() == [generator.options.max_target_tokens] * 2
    generator.generate([LONG], 2)


def _train(folder: Path, lora: Lora) -> Generator:
    """Open a generator and train it by two steps."""
    generator = Generator.open(str(folder), torch.Generator().manual_seed(0), lora).train()
    weights = [weight for weight in generator.parameters() if weight.requires_grad]
    optimiser = torch.optim.SGD(weights, lr=0.01)
    before = [weight.detach().clone() for weight in weights]
    for _ in range(2):
        (-generator.log_likelihood(PROMPTS, TARGETS).sum()).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad()
    assert any(not torch.equal(old, new) for old, new in zip(before, weights, strict=True))
    return generator.eval()


def _linear_names(folder: Path) -> tuple[str, ...]:
    """Return the names that the refusal of fused experts gives as its remedy."""
    with pytest.raises(UserError, match="holds its experts in one tensor, and they cannot be adapted here") as refused:
        Generator.open(str(folder), torch.Generator(), Lora(rank=2))
    with FakeTensorMode(), pytest.raises(UserError, match="holds its experts in one tensor"):
        adapt(build_generator_shape(str(folder)), Lora(rank=2))
    names = str(refused.value).partition("generator.lora_modules = [")[2].partition("]")[0]
    return tuple(name.strip(" '") for name in names.split(","))


@pytest.mark.parametrize(("side", "family"), [pytest.param(*each, id="-".join(each)) for each in REFUSED])
def test_a_family_that_cannot_serve_is_refused_in_one_sentence(side: Side, family: str, tmp_path: Path) -> None:
    folder = build_family(tmp_path, family, side)
    with pytest.raises(UserError, match=REFUSED[side, family]) as caught:
        Generator.open(str(folder), torch.Generator())
    assert f"family {family}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "name a language model" in str(caught.value)


@pytest.mark.parametrize(
    ("family", "switch"),
    [("bert", "is_decoder"), ("roberta", "is_decoder"), ("xlm", "causal"), ("electra", "is_decoder")],
)
def test_a_model_that_reads_in_both_directions_is_refused(family: str, switch: str, tmp_path: Path) -> None:
    """It would score each token of a target by that token itself."""
    folder = build_family(tmp_path, family, "causal", **{switch: False})
    with pytest.raises(UserError, match=f'{IN_BOTH_DIRECTIONS}.*"{switch}": true'):
        Generator.open(str(folder), torch.Generator())


def test_layers_that_kernels_read_past_adapters_are_refused_by_name(tmp_path: Path) -> None:
    folder = build_family(tmp_path, "mamba", "causal")
    with pytest.raises(UserError, match="out_proj of MambaForCausalLM, whose kernels read its weight past any adapter"):
        Generator.open(str(folder), torch.Generator(), Lora(2, modules=("out_proj",)))


def test_adapters_that_lack_weights_are_refused(tmp_path: Path) -> None:
    """transformers gives what it does not find the weights that untrained adapters have."""
    folder = build_family(tmp_path / "model", "gpt2", "causal")
    _train(folder, Lora(2)).save(tmp_path / "saved")
    path = tmp_path / "saved" / ADAPTER_WEIGHTS
    weights = load_file(path)
    del weights[next(iter(weights))]
    save_file(weights, path)
    with pytest.raises(UserError, match=r"lack 1 weights of GPT2LMHeadModel .*; name the model they were trained on"):
        Generator.load(tmp_path / "saved", str(folder))


def test_a_mixture_of_prompts_is_refused_where_padding_moves_positions(tmp_path: Path) -> None:
    generator = Generator.open(str(build_family(tmp_path, "bart", "causal")), torch.Generator())
    mixture = PromptMixture((0, 1), (-0.7, -0.7))
    assert len(generator.mixture_hypotheses(["who is alpha"] * 2, [mixture], 2)) == 1
    with pytest.raises(UserError, match="BartForCausalLM cannot read prompts of different lengths side by side"):
        generator.mixture_hypotheses(PROMPTS[:2], [mixture], 2)
