"""Adapters: what is frozen, what learns, where their randomness comes from, and what lands on disk."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tests.tolerances import assert_equal_but_rounding
from transformers import AutoModelForCausalLM, AutoTokenizer

from retrograd.models.generator import Generator
from retrograd.models.loading.lora import Lora, has_lora, merge_lora, open_with_peft
from retrograd.models.pointer import COPY_LAYERS
from retrograd.types import UserError

PROMPTS, TARGETS = ["who is alpha", "what is beta gamma"], ["delta", "eta theta"]
MODULES = {"tiny_seq2seq": ("q", "v"), "tiny_pointer": ("query", *COPY_LAYERS), "tiny_causal": ("q_proj", "v_proj")}


@pytest.fixture(params=MODULES)
def kind(request) -> str:
    return request.param


@pytest.fixture
def folder(kind, request) -> Path:
    return request.getfixturevalue(kind)


def adapted(folder: Path, seed: int = 0, lora: Lora | None = None) -> Generator:
    return Generator.open(str(folder), torch.Generator().manual_seed(seed), lora or Lora(rank=2)).eval()


def adapters(generator: Generator) -> dict[str, torch.Tensor]:
    return {name: weight for name, weight in generator.named_parameters() if "lora_" in name}


def trained_a_little(generator: Generator) -> Generator:
    optimiser = torch.optim.SGD([w for w in generator.parameters() if w.requires_grad], lr=0.02)
    for _ in range(2):  # the first step moves B alone, which starts at zero; the second moves A as well
        (-generator.log_likelihood(PROMPTS, TARGETS).sum()).backward()
        optimiser.step()
        optimiser.zero_grad()
    return generator


def test_starts_as_the_model_it_adapts(folder):
    base = Generator.open(str(folder), torch.Generator()).eval()
    generator = adapted(folder)
    assert has_lora(generator.model)
    assert not has_lora(base.model)
    torch.testing.assert_close(generator.log_likelihood(PROMPTS, TARGETS), base.log_likelihood(PROMPTS, TARGETS))
    assert generator.generate(PROMPTS, 4) == base.generate(PROMPTS, 4)
    choices = [TARGETS] * len(PROMPTS)
    torch.testing.assert_close(
        generator.choice_log_likelihood(PROMPTS, choices), base.choice_log_likelihood(PROMPTS, choices)
    )


def test_rank_zero_is_full_fine_tuning(folder):
    generator = adapted(folder, lora=Lora())
    assert not has_lora(generator.model)
    assert all(weight.requires_grad for weight in generator.parameters())


def test_only_adapters_move(folder):
    generator = adapted(folder)
    before = {name: weight.clone() for name, weight in generator.named_parameters()}
    expected = generator.log_likelihood(PROMPTS, TARGETS)
    trained_a_little(generator)
    moved = {name for name, weight in generator.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == set(adapters(generator))
    assert generator.log_likelihood(PROMPTS, TARGETS).sum() > expected.sum()


def test_computes_w_plus_alpha_over_rank_b_a(folder, kind):
    name = MODULES[kind][0]
    generator = adapted(folder, lora=Lora(rank=2, alpha=3.0, modules=(name,)))
    with torch.no_grad():
        for weight_name, weight in adapters(generator).items():
            if "lora_B" in weight_name:
                weight.normal_(generator=torch.Generator().manual_seed(1))
    base = Generator.open(str(folder), torch.Generator()).eval()
    found = {key.removeprefix("model."): weight for key, weight in adapters(generator).items()}
    with torch.no_grad():
        for key, weight in base.model.named_parameters():
            stem = key.removesuffix(".weight")
            if f"{stem}.lora_A.default.weight" in found:
                a, b = (found[f"{stem}.lora_{letter}.default.weight"] for letter in "AB")
                weight += 3.0 / 2 * b @ a
    torch.testing.assert_close(
        generator.log_likelihood(PROMPTS, TARGETS), base.log_likelihood(PROMPTS, TARGETS), rtol=1e-4, atol=1e-4
    )


def test_the_output_layer_is_left_alone_and_named_modules_are_the_only_ones(folder, kind):
    everywhere = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in adapters(adapted(folder))}
    assert set(MODULES[kind]) < everywhere
    assert "lm_head" not in everywhere
    named = adapters(adapted(folder, lora=Lora(rank=2, modules=MODULES[kind])))
    assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in named} == set(MODULES[kind])


def test_one_seed_one_set_of_adapters_and_nothing_else_is_drawn(folder):
    torch.random.set_rng_state(before := torch.get_rng_state())
    first, same, other = adapters(adapted(folder, 0)), adapters(adapted(folder, 0)), adapters(adapted(folder, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], same[name]) for name in first)
    for name, weight in first.items():
        if "lora_A" in name:
            assert not torch.equal(weight, other[name])
            # Kaiming uniform with a = √5 spans ± 1 / √(input width), as in the paper's code.
            assert 0.5 < weight.abs().max() * math.sqrt(weight.shape[1]) <= 1
        else:
            assert not weight.any()


def test_saves_adapters_alone_and_loads_them_back(folder, tmp_path):
    first = trained_a_little(adapted(folder))
    first.save(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert len(saved) == len(adapters(first))
    assert all("lora_" in name for name in saved)
    assert not (tmp_path / "model.safetensors").exists()
    assert not list(tmp_path.rglob("*.bin"))
    assert len({path.stat().st_mode for path in tmp_path.iterdir() if path.is_file()}) == 1
    before = torch.get_rng_state()
    again = Generator.load(tmp_path, str(folder)).eval()
    assert torch.equal(torch.get_rng_state(), before)
    assert_equal_but_rounding(again.log_likelihood(PROMPTS, TARGETS), first.log_likelihood(PROMPTS, TARGETS))
    assert {name for name, weight in again.named_parameters() if weight.requires_grad} == set(adapters(again))


def test_peft_reads_what_we_write(folder, tmp_path):
    first = trained_a_little(adapted(folder))
    first.save(tmp_path)
    base = Generator.open(str(folder), torch.Generator()).eval()
    PeftModel.from_pretrained(base.model, str(tmp_path))
    torch.testing.assert_close(base.log_likelihood(PROMPTS, TARGETS), first.log_likelihood(PROMPTS, TARGETS))


def test_a_language_model_trained_here_is_the_same_in_plain_peft_and_when_it_comes_back(tiny_causal, tmp_path):
    first = adapted(tiny_causal, lora=Lora(rank=4, alpha=8.0, dropout=0.1)).train()
    untrained = first.eval().log_likelihood(PROMPTS, TARGETS).sum()
    optimiser = torch.optim.AdamW([w for w in first.train().parameters() if w.requires_grad], lr=1e-2)
    for _ in range(5):
        (-first.log_likelihood(PROMPTS, TARGETS).sum()).backward()
        optimiser.step()
        optimiser.zero_grad()
    likelihood = first.eval().log_likelihood(PROMPTS, TARGETS)
    assert likelihood.sum() > untrained + 1
    first.save(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(tiny_causal)
    plain = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    tokens = torch.arange(5, 25).view(2, 10)
    with torch.no_grad():
        assert_equal_but_rounding(plain(tokens).logits, first.model(tokens).logits)
    again = Generator.load(tmp_path, str(tiny_causal)).eval()
    assert_equal_but_rounding(again.log_likelihood(PROMPTS, TARGETS), likelihood)
    assert again.generate(PROMPTS, 4) == first.generate(PROMPTS, 4)
    assert again.generate(PROMPTS, 4, beams=3) == first.generate(PROMPTS, 4, beams=3)


def test_the_wrong_base_is_refused(tiny_seq2seq, tiny_causal, tmp_path):
    adapted(tiny_causal).save(tmp_path)
    with pytest.raises(UserError, match=r"the adapters in .* do not fit T5For.*name the model they were trained on"):
        Generator.load(tmp_path, str(tiny_seq2seq))


NEARLY = {"tiny_seq2seq": ("wo_", "wo"), "tiny_pointer": ("quary", "query"), "tiny_causal": ("v_prj", "v_proj")}


def test_a_name_that_no_layer_has_is_refused_with_the_nearest_one_whatever_is_named_beside_it(folder, kind):
    name, nearest = NEARLY[kind]
    expected = rf"lora_modules names '{name}', which no layer of \w+ has; did you mean '{nearest}'\?"
    for modules in ((name,), (*MODULES[kind], name)):
        with pytest.raises(UserError, match=expected):
            adapted(folder, lora=Lora(rank=2, modules=modules))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("self_attn", "LlamaAttention"),
        ("embed_tokens", "Embedding"),
        ("norm", "LlamaRMSNorm"),
    ],
)
def test_the_name_of_something_else_than_a_linear_layer_is_refused(tiny_causal, name, what):
    with pytest.raises(UserError, match=rf"names '{name}', but .*{name} of .* is no linear layer \({what}\); adapters"):
        adapted(tiny_causal, lora=Lora(rank=2, modules=("q_proj", name)))


def test_the_end_of_a_longer_name_reaches_those_layers_alone(tiny_causal):
    named = adapters(
        adapted(tiny_causal, lora=Lora(rank=2, modules=("self_attn.q_proj", "model.layers.0.mlp.up_proj")))
    )
    layers = {name.split(".lora_")[0].removeprefix("model.model.") for name in named}
    assert layers == {"layers.0.self_attn.q_proj", "layers.1.self_attn.q_proj", "layers.0.mlp.up_proj"}


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"rank": -1}, "rank is -1; expected 0"),
        ({"dropout": 1.0}, r"dropout is 1.0; expected a number in \[0, 1\)"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"alpha": 0.0}, "alpha is 0.0; expected a positive number"),
    ],
)
def test_bad_settings(settings, advice):
    with pytest.raises(UserError, match=advice):
        Lora(**settings)


def logits_of(model: torch.nn.Module, generator: Generator) -> torch.Tensor:
    """Return the logits of a model of transformers or PEFT for the first prompt, read as its users would."""
    read = generator.tokenizer(PROMPTS[0], return_tensors="pt")
    more = {"decoder_input_ids": read["input_ids"][:, :2]} if generator.encoder_decoder else {}
    with torch.no_grad():
        return model.eval()(input_ids=read["input_ids"], attention_mask=read["attention_mask"], **more).logits


@pytest.mark.parametrize("given", [True, False], ids=["name given", "name of the opened model"])
@pytest.mark.parametrize(("kind", "auto"), [("tiny_seq2seq", "Seq2SeqLM"), ("tiny_causal", "CausalLM")])
def test_peft_opens_the_folder_by_the_base_that_it_names(kind, auto, given, request, tmp_path):
    import peft

    base = request.getfixturevalue(kind)
    generator = trained_a_little(adapted(base))
    generator.save(tmp_path / "adapters", str(base) if given else "")
    theirs = getattr(peft, f"AutoPeftModelFor{auto}").from_pretrained(str(tmp_path / "adapters"))
    torch.testing.assert_close(logits_of(theirs, generator), logits_of(generator.model, generator))
    again = Generator.load(tmp_path / "adapters", str(base)).eval()
    assert again.log_likelihood(PROMPTS, TARGETS).tolist() == generator.log_likelihood(PROMPTS, TARGETS).tolist()


def test_peft_opens_a_base_that_is_stored_in_half_precision_as_it_was_trained(tiny_causal, tmp_path):
    base = tmp_path / "base"
    AutoTokenizer.from_pretrained(tiny_causal).save_pretrained(base)
    AutoModelForCausalLM.from_pretrained(tiny_causal, dtype=torch.bfloat16).save_pretrained(base)
    generator = trained_a_little(adapted(base))
    generator.save(tmp_path / "adapters", str(base))
    theirs = open_with_peft(tmp_path / "adapters", encoder_decoder=False)
    assert {weight.dtype for weight in theirs.parameters()} == {torch.float32}
    torch.testing.assert_close(logits_of(theirs, generator), logits_of(generator.model, generator))


def test_merged_weights_are_the_model_without_adapters(folder, kind, tmp_path):
    generator = trained_a_little(adapted(folder))
    before = generator.log_likelihood(PROMPTS, TARGETS)
    merged = merge_lora(generator.model)
    assert not has_lora(merged)
    assert has_lora(generator.model)
    assert torch.equal(generator.log_likelihood(PROMPTS, TARGETS), before)
    plain = Generator(merged, generator.tokenizer, generator.options).eval()
    torch.testing.assert_close(plain.log_likelihood(PROMPTS, TARGETS), before)
    plain.save(tmp_path / "merged")
    again = Generator.load(tmp_path / "merged", "").eval()
    torch.testing.assert_close(again.log_likelihood(PROMPTS, TARGETS), before)
    if kind == "tiny_causal":
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
        torch.testing.assert_close(logits_of(theirs, generator), logits_of(generator.model, generator))
