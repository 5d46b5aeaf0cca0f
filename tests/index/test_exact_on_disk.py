"""An exact index survives saving and loading bit for bit, and damage to its folder is noticed."""

import json
import os
from pathlib import Path

import pytest
import torch
from tests.index.test_exact import NAMES, index_of

from retrograd.index.exact import ExactIndex
from retrograd.types import UserError


@pytest.mark.parametrize("on_disk", [False, True])
def test_from_blocks_equals_the_whole(on_disk, tmp_path: Path):
    vectors = torch.randn(10, 4, generator=torch.Generator().manual_seed(9))
    path = tmp_path / "index" if on_disk else None
    index = ExactIndex.from_blocks(iter(vectors.split(3)), 10, **NAMES, dtype=torch.bfloat16, path=path)
    assert index.dtype == torch.bfloat16
    assert torch.equal(index.vectors(torch.arange(10)), vectors.bfloat16().float())
    assert (index.base_fingerprint, index.encoder_fingerprint) == tuple(NAMES.values())


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize(
    ("blocks", "advice"),
    [
        ([torch.ones(2, 3)], "hold 2 rows, expected 4; embed each passage exactly once"),
        ([torch.ones(2, 3), torch.ones(3, 3)], "more than 4 rows"),
        ([torch.ones(2, 3), torch.ones(2, 4)], "from row 2 on has width 4, those before 3"),
        ([torch.ones(3, 3), torch.full((1, 3), torch.inf)], "row 3 is not finite"),
        ([torch.zeros(4, 3)], "all 4 vectors"),
        ([], "hold 0 rows, expected 4"),
    ],
)
def test_from_blocks_refuses(blocks, advice, on_disk, tmp_path: Path):
    path = tmp_path / "index" if on_disk else None
    with pytest.raises(UserError, match=advice):
        ExactIndex.from_blocks(blocks, 4, **NAMES, path=path)
    assert list(tmp_path.iterdir()) == []


def test_from_blocks_needs_a_block_to_know_the_width():
    with pytest.raises(UserError, match=r"no blocks of vectors; embed at least one passage"):
        ExactIndex.from_blocks([], 0, **NAMES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("rows", [1, 37])
def test_save_and_load_keep_every_bit(dtype, rows, tmp_path: Path):
    vectors = torch.randn(rows, 5, generator=torch.Generator().manual_seed(10)).to(dtype)
    index = index_of(vectors, block_rows=8)
    index.save(tmp_path / "index")
    loaded = ExactIndex.load(tmp_path / "index", **NAMES)
    assert len(loaded) == rows
    assert loaded.dtype == dtype
    query = torch.ones(2, 5)
    assert torch.equal(loaded.search(query, 3).row, index.search(query, 3).row)
    assert torch.equal(loaded.vectors(torch.arange(rows)), index.vectors(torch.arange(rows)))
    loaded.save(tmp_path / "index")  # over the very file it is mapped from
    assert torch.equal(loaded.vectors(torch.arange(rows)), index.vectors(torch.arange(rows)))
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


@pytest.mark.parametrize("name", ["current", "notes.txt", "vectors.safetensors"])
def test_save_replaces_nothing_but_an_index(name, tmp_path: Path):
    """A run, a folder of versions or notes and half an index are kept; an empty folder may be replaced."""
    path = tmp_path / "mine"
    path.mkdir()
    index_of(torch.eye(3)).save(path)
    for other in path.iterdir():
        other.unlink()
    (path / name).write_text("mine")
    for save in (
        index_of(torch.eye(2)).save,
        lambda path: ExactIndex.from_blocks([torch.eye(2)], 2, **NAMES, path=path),
    ):
        with pytest.raises(UserError, match=r"mine is not empty, .*choose another folder, or remove this one first"):
            save(path)
        assert [(one.name, one.read_text()) for one in path.iterdir()] == [(name, "mine")]
    with pytest.raises(UserError, match="is a file"):
        index_of(torch.eye(2)).save(path / name)


def test_load_refuses_what_does_not_belong(tmp_path: Path):
    path = tmp_path / "index"
    index_of(torch.eye(3)).save(path)
    with pytest.raises(
        UserError, match=r"from knowledge base basebasebase, but this run uses knowledge base 0123.*rebui"
    ):
        ExactIndex.load(path, base_fingerprint="0123456789abcdef")
    with pytest.raises(UserError, match=r"from encoder encoderencod, but this run uses encoder other; rebuild"):
        ExactIndex.load(path, encoder_fingerprint="other")
    with pytest.raises(UserError, match=r"not an index: it holds no manifest.json"):
        ExactIndex.load(tmp_path)


def unsealed(text: str) -> str:
    """Return a manifest without a checksum, as older versions wrote it, which is trusted."""
    return json.dumps({name: value for name, value in json.loads(text).items() if name != "checksum"})


def test_damage_to_any_byte_of_the_manifest_is_noticed(tmp_path: Path):
    index_of(torch.eye(3)).save(tmp_path)
    manifest = tmp_path / "manifest.json"
    whole = manifest.read_bytes()
    for place in range(len(whole) - 1):  # the last one ends the line
        manifest.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UserError, match=r"damaged|missing or unknown field") as caught:
            ExactIndex.load(tmp_path, base_fingerprint=NAMES["base_fingerprint"])
        assert "this run uses" not in str(caught.value)


def test_fingerprints_that_begin_alike_are_shown_whole(tmp_path: Path):
    index_of(torch.eye(3)).save(tmp_path)
    other = NAMES["base_fingerprint"][:-1] + "f"
    with pytest.raises(UserError, match=f"base {NAMES['base_fingerprint']}, but this run uses knowledge base {other};"):
        ExactIndex.load(tmp_path, base_fingerprint=other)


def test_load_refuses_damage(tmp_path: Path):
    path = tmp_path / "index"
    index_of(torch.eye(3)).save(path)
    vectors, manifest = path / "vectors.safetensors", path / "manifest.json"
    whole, text = vectors.read_bytes(), manifest.read_text()
    vectors.write_bytes(whole[:-4])
    with pytest.raises(UserError, match=r"cannot be read.*rebuild"):
        ExactIndex.load(path)
    vectors.unlink()
    with pytest.raises(UserError, match=r"cannot be read.*rebuild"):
        ExactIndex.load(path)
    vectors.write_bytes(whole)
    for old, new, advice in [
        ('"rows": 3', '"rows": 4', r"\(3, 3\) numbers, the manifest says \(4, 3\)"),
        ('"rows": 3', '"rows": "3"', "field 'rows' is '3'"),
        ('"rows"', '"lines"', "missing or unknown field 'lines'"),
        ('"F32"', '"F16"', "the manifest says F16"),
        ('"exact"', '"faiss"', "holds a 'faiss' index, expected 'exact'"),
    ]:
        manifest.write_text(unsealed(text.replace(old, new)))
        with pytest.raises(UserError, match=advice):
            ExactIndex.load(path)


def test_vectors_that_may_not_be_read(tmp_path: Path, monkeypatch):
    index_of(torch.eye(3)).save(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, _: path.suffix != ".safetensors")  # root may read everything
    with pytest.raises(UserError, match=r"vectors.safetensors may not be read .permission denied.; check"):
        ExactIndex.load(tmp_path)


def test_an_index_that_stands_aside_is_read(tmp_path: Path):
    """The writer was killed while it put a newer one in its place (`retrograd.util.files.atomic_directory`)."""
    index_of(torch.eye(3)).save(tmp_path / ".index.old" / "index")
    assert len(ExactIndex.load(tmp_path / "index")) == 3


def test_no_rows_are_neither_built_nor_saved_nor_loaded(tmp_path: Path):
    """A whole index without rows is an error, unlike the part of one rank."""
    with pytest.raises(UserError, match="an index of 0 rows cannot be stored; embed at least one passage"):
        ExactIndex.from_blocks([torch.empty(0, 3)], 0, **NAMES)
    with pytest.raises(UserError, match="an index of 0 rows cannot be stored; embed at least one passage"):
        index_of(torch.empty(0, 3)).save(tmp_path / "index")
    assert list(tmp_path.iterdir()) == []
    index_of(torch.eye(3)).save(tmp_path / "index")
    manifest = tmp_path / "index" / "manifest.json"
    manifest.write_text(unsealed(manifest.read_text().replace('"rows": 3', '"rows": 0')))
    with pytest.raises(UserError, match="index holds 0 rows; build it again"):
        ExactIndex.load(tmp_path / "index")
