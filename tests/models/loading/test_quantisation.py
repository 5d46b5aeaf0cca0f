"""4-bit weights: what is refused, what is asked of transformers, what is written down.

The last tests need bitsandbytes, and call what is below the refusal: its 4-bit layers compute on a CPU as well.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from tests.conftest import build, llama_config
from tests.tolerances import assert_equal_but_rounding
from transformers import AutoModelForCausalLM, LlamaForCausalLM
from transformers.utils.quantization_config import QuantizationMethod

from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions, read_settings
from retrograd.models.loading.loading import open_generator
from retrograd.models.loading.lora import Lora, add_lora, load_lora
from retrograd.models.loading.quantisation import nf4_config, require_quantisable
from retrograd.types import UserError

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


def opened(name: object, rank: int = 2) -> Generator:
    return Generator.open(str(name), torch.Generator(), Lora(rank=rank), GeneratorOptions(quantisation="nf4"))


def test_where_the_device_is_none_of_cuda_the_remedy_is_named(
    tiny_causal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("RETROGRAD_DEVICE", "cpu")
    with pytest.raises(UserError, match=r'generator\.quantisation = "nf4" needs a CUDA device.*set it to "none"'):
        opened(tiny_causal)


def test_without_bitsandbytes_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RETROGRAD_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match=r"bitsandbytes, which is not installed: pip install 'retrograd\[qlora\]'"):
        require_quantisable("some/model")


def test_without_adapters_nothing_could_learn(tiny_causal: Path) -> None:
    for lora in (None, Lora(rank=0)):
        with pytest.raises(UserError, match=r"4-bit weights cannot be trained.*set generator\.lora_rank to 8"):
            Generator.open(str(tiny_causal), torch.Generator(), lora, GeneratorOptions(quantisation="nf4"))


def test_a_builtin_model_has_no_4_bit_form() -> None:
    with pytest.raises(UserError, match=r"builtin:minilm-seq2seq has no 4-bit form; name a model folder"):
        opened("builtin:minilm-seq2seq")


def test_transformers_is_asked_for_double_quantised_nf4_with_bf16_products() -> None:
    config = nf4_config()
    assert config.quant_method == QuantizationMethod.BITS_AND_BYTES
    assert config.quantization_method() == "nf4"
    assert config.load_in_4bit
    assert config.bnb_4bit_use_double_quant
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    assert config.llm_int8_skip_modules is None  # transformers leaves the output layer out


def test_the_folder_says_how_the_model_under_the_adapters_was_held(tiny_causal: Path, tmp_path: Path) -> None:
    plain = Generator.open(str(tiny_causal), torch.Generator(), Lora(rank=2))
    plain.save(tmp_path / "plain")
    Generator(plain.model, plain.tokenizer, GeneratorOptions(quantisation="nf4")).save(tmp_path / "nf4")
    assert [read_settings(tmp_path / name).options.quantisation for name in ("plain", "nf4")] == ["none", "nf4"]
    path = tmp_path / "plain" / "generator.json"
    settings = json.loads(path.read_text())
    del settings["quantisation"]  # as older versions wrote it
    path.write_text(json.dumps(settings))
    assert Generator.load(tmp_path / "plain", str(tiny_causal)).options.quantisation == "none"


@without_gpu
def test_a_quantised_generator_is_not_opened_otherwise(tiny_causal: Path, tmp_path: Path) -> None:
    plain = Generator.open(str(tiny_causal), torch.Generator(), Lora(rank=2))
    Generator(plain.model, plain.tokenizer, GeneratorOptions(quantisation="nf4")).save(tmp_path)
    with pytest.raises(UserError, match="needs a CUDA device"):
        Generator.load(tmp_path, str(tiny_causal))


# ---- with bitsandbytes ------------------------------------------------------------------------------------------

needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
PROMPTS, TARGETS = ["who is alpha", "what is beta gamma"], ["delta", "eta theta"]


@pytest.fixture
def wide_causal(tmp_path: Path) -> Path:
    """Its layers are multiples of 32 wide, as bitsandbytes wants them on a CPU."""
    config = llama_config()
    config.hidden_size = config.intermediate_size = 64
    config.head_dim, config.num_key_value_heads = 32, 2
    return build(tmp_path / "wide", lambda: LlamaForCausalLM(config), "[CLS] $A")


@pytest.fixture
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrograd.models.loading.loading.require_quantisable", lambda _: None)


@needs_bitsandbytes
@pytest.mark.usefixtures("_allowed")
def test_linear_layers_are_4_bit_and_all_else_is_fp32(wide_causal: Path) -> None:
    model, _ = open_generator(str(wide_causal), "nf4")
    add_lora(model, Lora(rank=2), torch.Generator())
    kinds = {name: (type(weight).__name__, weight.dtype) for name, weight in model.named_parameters()}
    held = {name for name, kind in kinds.items() if kind == ("Params4bit", torch.uint8)}
    assert len(held) == 2 * 7
    assert all(kind == ("Parameter", torch.float32) for name, kind in kinds.items() if name not in held)
    assert {name for name, weight in model.named_parameters() if weight.requires_grad} == {
        name for name in kinds if ".lora_" in name
    }


@needs_bitsandbytes
@pytest.mark.usefixtures("_allowed")
def test_it_is_near_the_model_it_quantises_learns_and_comes_back_bit_for_bit(wide_causal: Path, tmp_path: Path) -> None:
    generator = opened(wide_causal).to("cpu").train()
    plain = Generator.open(str(wide_causal), torch.Generator())
    near = generator.log_likelihood(PROMPTS, TARGETS)
    assert not torch.equal(near, plain.log_likelihood(PROMPTS, TARGETS))
    torch.testing.assert_close(near, plain.log_likelihood(PROMPTS, TARGETS), rtol=0.2, atol=0.5)
    optimiser = torch.optim.AdamW([weight for weight in generator.parameters() if weight.requires_grad], lr=1e-2)
    for _ in range(5):
        (-generator.log_likelihood(PROMPTS, TARGETS).sum()).backward()
        optimiser.step()
        optimiser.zero_grad()
    assert generator.log_likelihood(PROMPTS, TARGETS).sum() > near.sum() + 1
    generator.save(tmp_path / "out")
    again = Generator.load(tmp_path / "out", str(wide_causal)).to(torch.device("cpu"))
    adapters = {name: weight for name, weight in generator.named_parameters() if ".lora_" in name}
    assert all(torch.equal(adapters[name], w) for name, w in again.named_parameters() if name in adapters)
    both = (generator.eval(), again.eval())
    first, second = (one.log_likelihood(PROMPTS, TARGETS) for one in both)
    assert_equal_but_rounding(first, second)
    assert both[0].generate(PROMPTS, 4) == both[1].generate(PROMPTS, 4)


@needs_bitsandbytes
def test_adapters_of_a_4_bit_model_fit_the_plain_one(wide_causal: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(wide_causal, quantization_config=nf4_config())
    add_lora(model, Lora(rank=2), torch.Generator().manual_seed(1))
    model.save_pretrained(tmp_path / "out")
    plain, _ = open_generator(str(wide_causal))
    load_lora(plain, tmp_path / "out")
    found, expected = (
        {name: weight for name, weight in one.named_parameters() if ".lora_" in name} for one in (plain, model)
    )
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
