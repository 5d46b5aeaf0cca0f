"""No program in a stranger's folder runs, no file outside it is read, and no number in it fills the memory.

Each test puts one poison into a sound folder. What is refused is a `UserError` that names the file.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from retrograd.data.passages import read_corpus
from retrograd.index.disk.build import IndexSpec, build_version
from retrograd.index.exact import ExactIndex
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.inputs.soft_prompt import SoftPromptOptions
from retrograd.models.loading.loading import open_encoder, open_generator
from retrograd.models.loading.local_files import local_config, local_tokenizer
from retrograd.models.loading.lora import Lora
from retrograd.models.retriever import Retriever
from retrograd.training.run.run_directory import RunDirectory
from retrograd.training.run.seal import find_flaw, seal
from retrograd.types import Passage, UserError
from retrograd.util.fingerprints import fingerprint
from retrograd.util.text_files import read_json


class Program:
    """Unpickling it creates the file ``sign``."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (open, (str(self.sign), "w"))


@pytest.fixture
def sign(tmp_path: Path) -> Path:
    """Return the file that a program writes when it runs."""
    return tmp_path / "ran"


@pytest.fixture(scope="session")
def sound(tiny_encoder: Path, tiny_causal: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a retriever, a whole generator, one with adapters and a soft prompt, and an index of two shards."""
    rng = torch.Generator().manual_seed(0)
    tower = Encoder.open(str(tiny_encoder))
    root = tmp_path_factory.mktemp("sound")
    Retriever(tower, tower, 0.1).save(root / "retriever")
    shutil.copytree(tiny_causal, root / "base")
    Generator.open(str(tiny_causal), rng).save(root / "generator")
    adapted = Generator.open(str(tiny_causal), rng, Lora(2), soft_prompt=SoftPromptOptions(width=16))
    adapted.save(root / "adapters")
    vectors = torch.randn(4, 3, generator=rng)
    spec = IndexSpec("of the base", "of the encoder", "none", rows=4, dimension=3, shard_rows=2)
    build_version(root / "indexes", spec, lambda first, stop: [vectors[first:stop]])
    return root


@pytest.fixture
def parts(sound: Path, tmp_path: Path) -> Path:
    """Return a copy of ``sound`` to damage."""
    return shutil.copytree(sound, tmp_path / "model")


def open_part(path: Path) -> object:
    """Open the part that ``path`` lies in, by its own reader."""
    match path.parent.name:
        case "query":
            return Retriever.load(path.parents[1])
        case "generator" | "adapters":
            return Generator.load(path.parent, str(path.parents[1] / "base"))
        case _:
            return ExactIndex.load(path.parents[1])


WEIGHTS = (
    "retriever/query/model.safetensors",
    "generator/model.safetensors",
    "adapters/adapter_model.safetensors",
    "adapters/soft_prompt.safetensors",
    "indexes/v000001/shard-00000.safetensors",
)


@pytest.mark.parametrize("place", WEIGHTS)
def test_a_pickle_in_the_place_of_weights(place: str, parts: Path, sign: Path) -> None:
    open_part(parts / place)
    (parts / place).write_bytes(pickle.dumps({"weight": Program(sign)}))
    with pytest.raises(UserError):
        open_part(parts / place)
    torch_pickle = io.BytesIO()
    torch.save({"weight": Program(sign)}, torch_pickle)
    (parts / place).write_bytes(torch_pickle.getvalue())
    with pytest.raises(UserError):
        open_part(parts / place)
    assert not sign.exists()


@pytest.mark.parametrize("place", WEIGHTS)
@pytest.mark.parametrize("instead", [True, False], ids=["instead", "beside"])
def test_pickles_under_the_names_that_libraries_look_for(place: str, instead: bool, parts: Path, sign: Path) -> None:
    folder = (parts / place).parent
    for name in ("pytorch_model.bin", "adapter_model.bin", "training_args.bin", "optimizer.pt", "rng_state.pth"):
        torch.save({"weight": Program(sign)}, folder / name)
    if instead:
        (parts / place).unlink()
        with pytest.raises(UserError):
            open_part(parts / place)
    else:
        open_part(parts / place)
    assert not sign.exists()


@pytest.mark.parametrize("place", WEIGHTS)
def test_a_header_that_claims_more_than_there_is(place: str, parts: Path) -> None:
    shape = json.dumps({"vectors": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    for header in (struct.pack("<Q", 1 << 62) + b"{}", struct.pack("<Q", len(shape)) + shape):
        (parts / place).write_bytes(header)
        with pytest.raises(UserError):
            open_part(parts / place)


# ---- programs that a model brings ------------------------------------------------------------------------------------


def with_program(folder: Path, sign: Path, kind: str) -> None:
    """Have the configuration name classes of a module that writes a file when it is imported."""
    (folder / "poison.py").write_text(f"open({str(sign)!r}, 'w').close()\nclass Poison: pass\n")
    names = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForSeq2SeqLM")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = dict.fromkeys(names, "poison.Poison")
    (folder / "config.json").write_text(json.dumps(config | ({"model_type": "poison"} if kind == "unknown" else {})))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer["auto_map"] = {"AutoTokenizer": ["poison.Poison", "poison.Poison"]}
    if kind == "unknown":
        tokenizer["tokenizer_class"] = "Poison"
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))


@pytest.mark.parametrize("kind", ["known", "unknown"])
@pytest.mark.parametrize("of", ["encoder", "generator"])
def test_no_code_of_a_model_is_run_nor_asked_for(
    kind: str, of: str, parts: Path, sign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr("builtins.input", lambda *words: asked.append(words) or "y")  # as a person might say
    folder = parts / ("retriever/query" if of == "encoder" else "generator")
    with_program(folder, sign, kind)
    for read in (open_encoder if of == "encoder" else open_generator, local_config, local_tokenizer):
        try:
            read(str(folder))
        except UserError as error:
            assert kind == "unknown"
            assert str(folder) in str(error)  # noqa: PT017
    assert not sign.exists()
    assert asked == []


@pytest.mark.parametrize("setting", ["megatron_config", "auto_mapping"])
def test_adapters_that_have_modules_imported(setting: str, parts: Path) -> None:
    path = parts / "adapters" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {setting: {"parent_library": "poison"}}))
    with pytest.raises(UserError, match=f"{setting} is set"):
        open_part(path)


def test_adapters_of_another_rank_than_they_say(parts: Path) -> None:
    path = parts / "adapters" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"r": 10**9}))
    with pytest.raises(UserError, match=r"r is 1000000000, but adapter_model.safetensors has rank \[2\]"):
        open_part(path)


@pytest.mark.parametrize("place", ["retriever/query", "generator"])
def test_adapters_that_put_another_model_in_the_place_of_one(place: str, parts: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(parts / "adapters" / name, parts / place / name)
    with pytest.raises(UserError, match="holds adapters"):
        open_part(parts / place / "config.json")


# ---- names that lead elsewhere ---------------------------------------------------------------------------------------

ELSEWHERE = ("../../secret", "/etc/passwd", "..", "", "a/../../b", "a\0b", "x" * 300)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_shards_of_an_index(name: str, parts: Path) -> None:
    path = parts / "indexes" / "v000001" / "manifest.json"
    value = json.loads(path.read_text())
    del value["checksum"]
    value["shards"][0]["file"] = name
    path.write_text(json.dumps(value))
    with pytest.raises(UserError, match="expected a file of this folder"):
        open_part(path)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_shards_of_a_model(name: str, parts: Path) -> None:
    path = parts / "generator" / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": {"lm_head.weight": name}}))
    with pytest.raises(UserError, match="expected a file of this folder"):
        open_part(path)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_files_of_a_checkpoint(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    folder = tmp_path / "a" / "0001-x-step-1"
    folder.mkdir(parents=True)
    (folder / "inner.txt").write_text("y")
    seal(folder)
    value = json.loads((folder / "manifest.json").read_text())
    value["files"] = {name: next(iter(value["files"].values()))}
    (folder / "manifest.json").write_text(json.dumps(value))
    assert find_flaw(folder) is not None
    seal_by_hand(folder, value["files"])
    assert find_flaw(folder) in {f"{name!r} leads out of the folder", f"{name} is missing"}


def seal_by_hand(folder: Path, files: dict[str, dict[str, object]]) -> None:
    """Seal a folder as `seal` does, over files of any name."""
    checksum = fingerprint(f"{name} {known}" for name, known in sorted(files.items()))
    (folder / "manifest.json").write_text(json.dumps({"files": files, "checksum": checksum}))


@pytest.mark.parametrize("name", ["../v000001", "v" + "9" * 300, "/etc", "v000009"])
def test_the_current_version_of_an_index(name: str, parts: Path) -> None:
    (parts / "indexes" / "current").write_text(name)
    with pytest.raises(UserError, match="names no version that is there"):
        ExactIndex.load(parts / "indexes")


def test_links_out_of_a_folder(parts: Path, tmp_path: Path) -> None:
    shard = parts / "indexes" / "v000001" / "shard-00000.safetensors"
    shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="expected a file of this folder"):
        open_part(shard)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "weights").symlink_to(tmp_path / "elsewhere")
    seal(folder)
    assert find_flaw(folder) == "'weights' leads out of the folder"


def test_a_link_and_a_file_that_are_no_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "0001-x-step-1").symlink_to(tmp_path)
    (tmp_path / "checkpoints" / "0002-x-step-2").write_text("")
    assert RunDirectory(tmp_path).checkpoints() == []


# ---- other bases, other encoders -------------------------------------------------------------------------------------


def test_an_index_of_another_base_or_encoder(parts: Path) -> None:
    with pytest.raises(UserError, match="knowledge base"):
        ExactIndex.load(parts / "indexes", base_fingerprint="another")
    with pytest.raises(UserError, match="encoder"):
        ExactIndex.load(parts / "indexes", encoder_fingerprint="another")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    KnowledgeBase.from_passages([Passage("a", "", "some text"), Passage("b", "t", "more")], tmp_path / "base.arrow")
    return tmp_path / "base.arrow"


def test_a_base_with_texts_out_of_order_reads_no_other_memory(base: Path) -> None:
    offsets = struct.pack("<3i", 0, 9, 13)
    assert base.read_bytes().count(offsets) == 1
    base.write_bytes(base.read_bytes().replace(offsets, struct.pack("<3i", 0, -(2**30), 13)))
    with pytest.raises(UserError, match="do not follow each other"):
        KnowledgeBase.open(base)


def test_a_base_whose_texts_are_no_text(base: Path) -> None:
    base.write_bytes(base.read_bytes().replace(b"some text", b"some\xfftext"))
    with pytest.raises(UserError, match="are damaged"):
        list(KnowledgeBase.open(base))


def test_a_base_of_other_columns_or_half_of_one(base: Path) -> None:
    whole = base.read_bytes()
    base.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a complete Arrow file"):
        KnowledgeBase.open(base)
    table = pa.table({"id": ["a"], "code": ["b"]})
    with pa.OSFile(str(base), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(UserError, match="has the columns id"):
        KnowledgeBase.open(base)


# ---- bombs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("byte", "read"),
    [(b"\0", lambda path: list(read_corpus(path, "jsonl"))), (b"\0", read_json), (b"\n", read_json)],
    ids=["one line, read by lines", "one line, read whole", "many lines, read whole"],
)
def test_ten_gigabytes_in_a_small_file(byte: bytes, read: Callable[[Path], object], tmp_path: Path) -> None:
    """A gzip file may have many members, each of which unpacks to 16 MB here."""
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(byte * (1 << 24)) * 640)
    assert path.stat().st_size < 20_000_000
    with pytest.raises(UserError, match="more than 200 times as large"):
        read(path)


def test_text_that_shrinks_well_is_read(tmp_path: Path) -> None:
    path = tmp_path / "base.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "the same again and again"}\n' * 10_000))
    assert len(list(read_corpus(path))) == 10_000
