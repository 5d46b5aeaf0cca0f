"""The cache of embeddings: nothing is computed twice, nothing false is returned, and it stays as small as it should."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from retrograd.index.disk.build import IndexSpec
from retrograd.index.disk.cache import VectorCache, parse_bytes
from retrograd.types import UserError
from retrograd.util.files import lock_folder

SPEC = IndexSpec("texts", "encoder", "float32 in batches", rows=11, dimension=4, shard_rows=4)
VECTORS = torch.randn(11, 4, generator=torch.Generator().manual_seed(0))
ENTRY_BYTES = 11 * 4 * 4
PROCESS = """
import os, sys, time
from pathlib import Path
from tests.index.disk.test_cache import SPEC, VECTORS
from retrograd.index.disk.cache import VectorCache

def encode(first, stop):
    with open(sys.argv[2], "a") as calls:
        calls.write(f"{first}\\n")
    if sys.argv[3] == "dies" and first == 4:
        yield VECTORS[first : first + 1]
        os.kill(os.getpid(), 9)
    time.sleep(0.2)
    yield VECTORS[first:stop]

index = VectorCache(Path(sys.argv[1]), 10**9).fetch(SPEC, encode)
print(index.vectors(__import__("torch").arange(11)).equal(VECTORS))
"""


class Encoder:
    """An encoder that counts the rows that it was asked for."""

    def __init__(self, vectors: Float[Tensor, "N D"] = VECTORS) -> None:
        self.vectors, self.rows = vectors, 0

    def __call__(self, first: int, stop: int) -> Iterator[Float[Tensor, "n D"]]:
        self.rows += stop - first
        yield self.vectors[first:stop]


def stored(cache: VectorCache, spec: IndexSpec, encoder: Encoder) -> Float[Tensor, "N D"]:
    index = cache.fetch(spec, encoder)
    assert index is not None
    return index.vectors(torch.arange(spec.rows))


def test_what_was_computed_once_is_returned_and_not_computed_again(tmp_path: Path) -> None:
    cache, encoder = VectorCache(tmp_path, 10**6), Encoder()
    assert not cache.holds(SPEC)
    first, again = stored(cache, SPEC, encoder), stored(VectorCache(tmp_path, 10**6), SPEC, encoder)
    assert encoder.rows == 11
    assert first.equal(VECTORS)
    assert again.equal(VECTORS)
    assert cache.holds(SPEC)


@pytest.mark.parametrize(
    "changed",
    [
        {"base_fingerprint": "other texts"},
        {"encoder_fingerprint": "other encoder"},
        {"encoding": "bfloat16 in batches"},
        {"dtype": torch.bfloat16},
    ],
)
def test_whatever_decides_the_bytes_makes_another_entry(changed: dict[str, object], tmp_path: Path) -> None:
    cache, encoder = VectorCache(tmp_path, 10**6), Encoder()
    stored(cache, SPEC, encoder)
    other = replace(SPEC, **changed)
    assert not cache.holds(other)
    expected = (VECTORS * 2).to(other.dtype).float()
    assert stored(cache, other, Encoder(VECTORS * 2)).equal(expected)
    assert stored(cache, SPEC, encoder).equal(VECTORS)
    assert encoder.rows == 11
    assert len(cache.entries()) == 2


def test_a_damaged_entry_is_computed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache, encoder = VectorCache(tmp_path, 10**6), Encoder()
    stored(cache, SPEC, encoder)
    (file, *_) = sorted(cache.entries()[0].folder.glob("*.safetensors"))
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    assert stored(cache, SPEC, encoder).equal(VECTORS)
    assert encoder.rows == 22
    assert "has changed since it was written" in capsys.readouterr().err


def test_the_entry_goes_whose_last_use_is_longest_ago(tmp_path: Path) -> None:
    roomy = VectorCache(tmp_path, 10**6)
    specs = [replace(SPEC, base_fingerprint=name) for name in ("a", "b", "c")]
    for spec in specs[:2]:
        stored(roomy, spec, Encoder())
    folders = {spec.base_fingerprint: entry.folder for spec, entry in zip(specs, roomy.entries(), strict=False)}
    for age, name in enumerate(("b", "a")):
        os.utime(folders[name] / "manifest.json", (1_000_000 - age, 1_000_000 - age))
    stored(roomy, specs[0], Encoder())  # the older of both is used once more
    size = max(entry.bytes for entry in roomy.entries())
    small = VectorCache(tmp_path, 2 * size)
    stored(small, specs[2], Encoder())
    assert [roomy.holds(spec) for spec in specs] == [True, False, True]
    assert sum(entry.bytes for entry in small.entries()) <= small.limit


def test_what_exceeds_the_limit_is_not_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = Encoder()
    assert VectorCache(tmp_path / "small", ENTRY_BYTES - 1).fetch(SPEC, encoder) is None
    assert "not kept for later runs: the cache is limited to 175 bytes" in capsys.readouterr().err
    assert VectorCache(tmp_path / "none", 0).fetch(SPEC, encoder) is None
    assert capsys.readouterr().err == ""
    assert encoder.rows == 0
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    assert VectorCache(tmp_path / "file" / "cache", 10**6).fetch(SPEC, Encoder()) is None
    assert "cannot be used" in capsys.readouterr().err


def test_a_fault_of_the_encoder_is_raised_and_leaves_no_entry(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path, 10**6)
    with pytest.raises(UserError, match="the vector of row 2 is not finite"):
        cache.fetch(SPEC, Encoder(VECTORS.index_fill(0, torch.tensor([2]), torch.nan)))
    assert not cache.holds(SPEC)
    assert stored(cache, SPEC, Encoder()).equal(VECTORS)


def process(root: Path, calls: Path, how: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", PROCESS, str(root), str(calls), how]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_of_several_processes_one_computes_and_the_others_wait(tmp_path: Path) -> None:
    started = [process(tmp_path / "cache", tmp_path / "calls", "lives") for _ in range(3)]
    assert [one.communicate()[0] for one in started] == ["True\n"] * 3
    assert (tmp_path / "calls").read_text(encoding="utf-8").split() == ["0", "4", "8"]


@pytest.mark.slow
def test_killed_while_it_writes_the_next_process_goes_on(tmp_path: Path) -> None:
    killed = process(tmp_path / "cache", tmp_path / "calls", "dies")
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    cache = VectorCache(tmp_path / "cache", 10**6)
    assert not cache.holds(SPEC)
    (left,) = cache.entries()
    assert left.folder.name.endswith(".build")
    encoder = Encoder()
    assert stored(cache, SPEC, encoder).equal(VECTORS)
    assert encoder.rows == 7  # four were finished
    assert [entry.folder.name.endswith(".build") for entry in cache.entries()] == [False]


def test_pruning_spares_what_another_process_holds_and_takes_what_a_killed_one_left(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path, 10**6)
    stored(cache, SPEC, Encoder())
    (entry,) = cache.entries()
    left = tmp_path / f".{'0' * 32}.build"
    left.mkdir()
    (left / "shard-00000.safetensors").write_bytes(bytes(100))
    claims = left.with_name(f"{left.name}.claims")
    claims.mkdir()
    with lock_folder(entry.folder, tmp_path / f".{entry.folder.name}.lock"):
        assert [removed.folder for removed in cache.prune(0)] == [left]
    assert not claims.exists()
    assert [removed.folder for removed in cache.prune(0)] == [entry.folder]
    assert cache.entries() == []


def test_the_size_of_the_users_cache_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETROGRAD_CACHE", str(tmp_path))
    assert VectorCache.of_user().root == tmp_path / "embeddings"
    assert VectorCache.of_user().limit == 20 * 10**9
    for text, count in (("0", 0), ("500MB", 5 * 10**8), ("1.5 TB", 15 * 10**11), ("7k", 7_000)):
        monkeypatch.setenv("RETROGRAD_CACHE_SIZE", text)
        assert VectorCache.of_user().limit == count
    for text in ("", "many", "-1", "5 GiB"):
        with pytest.raises(UserError, match=r"--to is '.*'; expected a size such as 500MB"):
            parse_bytes(text, "--to")
