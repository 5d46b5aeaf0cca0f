"""Builds that are killed, damaged, stale or out of disk end in an index that is whole and always the same bytes."""

import errno
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from retrograd.index.disk import build, storage, versions
from retrograd.index.disk.build import (
    IndexSpec,
    build_vectors,
    build_version,
    count_discarded_bytes,
    count_finished_rows,
)
from retrograd.index.disk.claims import Claims
from retrograd.index.disk.versions import write_version
from retrograd.index.exact import ExactIndex
from retrograd.index.shards import split_blocks, take_rows
from retrograd.types import UserError

SPEC = IndexSpec("base" * 16, "encoder" * 9, "mean pooling", rows=11, dimension=4, shard_rows=3)
VECTORS = torch.randn(11, 4, generator=torch.Generator().manual_seed(0))


class Encoder:
    """An encoder that yields blocks of two rows, records which shards it encodes, and stops before ``fail``."""

    def __init__(self, vectors=VECTORS, fail=None):
        self.vectors, self.fail, self.asked = vectors, fail, []

    def __call__(self, first, stop):
        self.asked.append(first)
        for start in range(first, stop, 2):
            if self.fail is not None and start >= self.fail:
                raise InterruptedError
            yield self.vectors[start : min(start + 2, stop)]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def interrupted(target: Path, spec: IndexSpec = SPEC, fail: int = 7) -> Path:
    """Interrupt a build of ``target`` in its third shard, and return its folder."""
    with pytest.raises(InterruptedError):
        build_vectors(target, spec, Encoder(fail=fail))
    return target.with_name(f".{target.name}.build")


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    build_vectors(tmp_path / "whole", SPEC, Encoder())
    return tree(tmp_path / "whole")


@pytest.mark.slow
def test_killed_at_any_line_a_build_goes_on_and_ends_in_the_same_bytes(tmp_path: Path):
    script = Path(__file__).with_name("build_and_die.py")
    words = [sys.executable, str(script), str(tmp_path), "4"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
    expected = tree(tmp_path / "whole")
    assert set(expected) == {"current", "v000002/manifest.json"} | {
        f"v000002/shard-{number:05d}.safetensors" for number in range(5)
    }
    folders = sorted(path for path in tmp_path.iterdir() if path.name not in ("whole", "counted"))
    assert len(folders) == 21
    for folder in folders:
        assert tree(folder) == expected, folder.name
        assert sorted(path.name for path in folder.iterdir()) == ["current", "v000002"]


def test_goes_on_at_the_first_missing_shard(tmp_path: Path, whole, capsys):
    interrupted(tmp_path / "index")
    assert count_finished_rows(tmp_path / "index", SPEC) == 6
    encoder, seen = Encoder(), []
    build_vectors(tmp_path / "index", SPEC, encoder, seen.append)
    assert encoder.asked == [6, 9]
    assert "continuing with 6 of 11 rows" in capsys.readouterr().err
    assert seen == [6, 2, 1, 2]
    assert tree(tmp_path / "index") == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "whole"]


def test_the_manifest_says_what_the_vectors_belong_to(whole):
    manifest = json.loads(whole["manifest.json"])
    assert manifest["base_fingerprint"] == SPEC.base_fingerprint
    assert manifest["encoder_fingerprint"] == SPEC.encoder_fingerprint
    assert (manifest["dtype"], manifest["encoding"], manifest["dimension"]) == ("F32", "mean pooling", 4)
    assert [(shard["first_row"], shard["rows"]) for shard in manifest["shards"]] == [(0, 3), (3, 3), (6, 3), (9, 2)]


def damage_truncate(path: Path):
    path.write_bytes(path.read_bytes()[:-3])


def damage_one_byte(path: Path):
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def damage_zero(path: Path):
    path.write_bytes(bytes(len(path.read_bytes())))


@pytest.mark.parametrize("damage", [damage_truncate, damage_one_byte, damage_zero, Path.unlink])
def test_a_damaged_shard_alone_is_embedded_again(damage, tmp_path: Path, whole, capsys):
    folder = interrupted(tmp_path / "index")
    (folder / ".shard-00002.safetensors.x.tmp").write_bytes(b"half")
    damage(folder / "shard-00000.safetensors")
    encoder = Encoder()
    build_vectors(tmp_path / "index", SPEC, encoder)
    assert encoder.asked == [0, 6, 9]
    assert "its rows are embedded again" in capsys.readouterr().err
    assert tree(tmp_path / "index") == whole


def test_a_shard_of_zeros_is_not_kept_though_its_checksum_be_right(tmp_path: Path, whole):
    folder = interrupted(tmp_path / "index")
    path = folder / "shard-00001.safetensors"
    before = storage.sha256_of(path)
    path.write_bytes(path.read_bytes()[: -3 * 4 * 4] + bytes(3 * 4 * 4))
    manifest = folder / "manifest.json"
    text = json.dumps(storage.read_sealed(manifest)).replace(before, storage.sha256_of(path))
    storage.write_sealed(manifest, json.loads(text))
    encoder = Encoder()
    build_vectors(tmp_path / "index", SPEC, encoder)
    assert encoder.asked == [3, 6, 9]
    assert tree(tmp_path / "index") == whole


@pytest.mark.parametrize("content", ["", "{", "[]", '{"kind": "exact"}'])
def test_a_damaged_manifest_costs_the_build_and_nothing_else(content, tmp_path: Path, whole):
    (interrupted(tmp_path / "index") / "manifest.json").write_text(content)
    build_vectors(tmp_path / "index", SPEC, Encoder())
    assert tree(tmp_path / "index") == whole


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"base_fingerprint": "other"}, "base fingerprint"),
        ({"encoder_fingerprint": "other"}, "encoder fingerprint"),
        ({"dtype": torch.bfloat16}, "dtype"),
        ({"encoding": "cls pooling"}, "encoding"),
    ],
)
def test_a_build_of_something_else_is_discarded_and_said_so(change, named, tmp_path: Path, whole, capsys):
    interrupted(tmp_path / "index", replace(SPEC, **change))
    assert count_finished_rows(tmp_path / "index", SPEC) == 0
    encoder = Encoder()
    build_vectors(tmp_path / "index", SPEC, encoder)
    assert encoder.asked == [0, 3, 6, 9]
    said = capsys.readouterr().err
    assert f"had another {named}" in said
    assert "it is discarded" in said
    assert tree(tmp_path / "index") == whole


def test_shards_of_another_length_are_not_mixed(tmp_path: Path, whole):
    interrupted(tmp_path / "index", replace(SPEC, shard_rows=2))
    build_vectors(tmp_path / "index", SPEC, Encoder())
    assert tree(tmp_path / "index") == whole


def bad_rows(row, value):
    vectors = VECTORS.clone()
    vectors[row] = value
    return vectors


@pytest.mark.parametrize(
    ("vectors", "advice"),
    [
        (bad_rows(7, torch.nan), r"row 7 is not finite.*check the encoder on that passage"),
        (bad_rows(slice(6, 9), 0.0), r"all 3 vectors, from row 6 on, are zero; check the encoder"),
        (VECTORS[:8], r"the blocks hold 2 rows, expected 3"),
        (VECTORS[:, :3], r"width 3, expected 4"),
    ],
)
def test_bad_vectors_are_refused_and_what_is_finished_stays(vectors, advice, tmp_path: Path, whole):
    with pytest.raises(UserError, match=advice):
        build_vectors(tmp_path / "index", SPEC, Encoder(vectors))
    assert not (tmp_path / "index").exists()
    build_vectors(tmp_path / "index", SPEC, Encoder())
    assert tree(tmp_path / "index") == whole


def test_nothing_is_refused():
    with pytest.raises(UserError, match="is empty; embed at least one passage"):
        replace(SPEC, rows=0)
    with pytest.raises(UserError, match=r"expected torch.float32, torch.bfloat16"):
        replace(SPEC, dtype=torch.int8)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_clear_error_and_loses_nothing(code, tmp_path: Path, monkeypatch):
    root = tmp_path / "index"
    build_version(root, replace(SPEC, encoder_fingerprint="old"), Encoder(-VECTORS))
    before = tree(root)
    append, left = storage._append, [5]

    def until_full(file, digest, raw):
        left[0] -= 1
        if left[0] < 0:
            file.write(raw[: len(raw) // 2])
            raise OSError(code, "no room")
        append(file, digest, raw)

    monkeypatch.setattr(storage, "_append", until_full)
    monkeypatch.setattr(build, "free_disk", lambda _: 100)
    with pytest.raises(UserError, match=r"is full.*: 128 more bytes .* 100 are free; the 3 .*: free some space"):
        build_version(root, SPEC, Encoder())
    monkeypatch.setattr(build, "free_disk", lambda _: 1000)
    left[0] = 0
    with pytest.raises(UserError, match=r"1000 are .*: there is enough space, so inodes .* are used up"):
        build_version(root, SPEC, Encoder())
    assert {name: raw for name, raw in tree(root).items() if "build" not in name} == before
    assert torch.equal(ExactIndex.load(root).vectors(torch.arange(11)), -VECTORS)
    monkeypatch.undo()
    encoder = Encoder()
    build_version(root, SPEC, encoder)
    assert encoder.asked == [3, 6, 9]
    assert torch.equal(ExactIndex.load(root).vectors(torch.arange(11)), VECTORS)


def test_a_disk_that_fills_up_at_the_switch_is_the_same_error(tmp_path: Path, monkeypatch):
    root = tmp_path / "index"

    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(versions, "atomic_file", full)
    with pytest.raises(
        UserError, match=r"is full.*: all 11 rows are finished and kept, .* quota .* and repeat the command"
    ):
        build_version(root, SPEC, Encoder())
    monkeypatch.undo()
    encoder = Encoder()
    build_version(root, SPEC, encoder)
    assert encoder.asked == []
    assert torch.equal(ExactIndex.load(root).vectors(torch.arange(11)), VECTORS)


def test_a_version_that_was_finished_and_not_switched_to_is_read_once(tmp_path: Path, monkeypatch):
    build_vectors(tmp_path / "index" / "v000001", SPEC, Encoder())
    read = []
    verify = build.verify_shard
    monkeypatch.setattr(build, "verify_shard", lambda folder, shard: (read.append(shard.file), verify(folder, shard)))
    encoder = Encoder()
    build_version(tmp_path / "index", SPEC, encoder)
    assert encoder.asked == []
    assert len(read) == len(set(read)) == 4


def test_what_a_build_will_discard_is_known_before(tmp_path: Path):
    root = tmp_path / "index"
    other = replace(SPEC, dtype=torch.bfloat16)
    assert count_discarded_bytes(root, SPEC) == 0
    folder = interrupted(root / "v000001", other)
    (folder / ".shard-00002.safetensors.x.tmp").write_bytes(b"half")
    assert count_discarded_bytes(root, other) == 4
    assert count_discarded_bytes(root, SPEC) == sum(path.stat().st_size for path in folder.iterdir())
    build_vectors(root / "v000001", other, Encoder())  # finished, and nobody made it current
    assert count_discarded_bytes(root, other) == 0
    whole = sum(path.stat().st_size for path in (root / "v000001").iterdir())
    assert count_discarded_bytes(root, SPEC) == whole
    build_version(root, SPEC, Encoder())
    assert count_discarded_bytes(root, other) == 0  # the current version is read until the next one is whole


def test_other_errors_of_the_system_pass(tmp_path: Path, monkeypatch):
    def forbidden(*_):
        raise PermissionError(errno.EACCES, "forbidden")

    monkeypatch.setattr(storage, "_append", forbidden)
    with pytest.raises(PermissionError):
        build_vectors(tmp_path / "index", SPEC, Encoder())


def test_a_finished_target_is_left_alone_and_a_foreign_one_refused(tmp_path: Path, whole):
    encoder = Encoder()
    build_vectors(tmp_path / "whole", SPEC, encoder)
    assert encoder.asked == []
    assert count_finished_rows(tmp_path / "whole", SPEC) == 11
    with pytest.raises(UserError, match="exists and is not this index; remove it, or choose another folder"):
        build_vectors(tmp_path / "whole", replace(SPEC, encoder_fingerprint="other"), encoder)
    assert tree(tmp_path / "whole") == whole


class TestWorkers:
    """Several processes build one version together; `worker.py` is one of them."""

    def start(self, root: Path, *seconds: float) -> list[subprocess.Popen[str]]:
        """Start workers, each of which takes so many seconds for a block, when all of them are ready."""
        workers = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.index.disk.worker", str(root), str(one)],
                cwd=Path(__file__).parents[3],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for one in seconds
        ]
        for worker in workers:
            assert self.line(worker) == "ready"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        return workers

    @staticmethod
    def line(worker: subprocess.Popen[str]) -> str:
        assert worker.stdout is not None
        return worker.stdout.readline().strip()

    @staticmethod
    def encoded(worker: subprocess.Popen[str]) -> list[int]:
        """The first rows of the shards that a worker has encoded since it was last read."""
        out, _ = worker.communicate(timeout=300)
        assert worker.returncode == 0
        return [int(word) for word in out.split()]

    @pytest.mark.slow
    def test_each_shard_is_encoded_once_and_the_bytes_are_those_of_one(self, tmp_path: Path, whole):
        found = [self.encoded(worker) for worker in self.start(tmp_path / "index", 0.5, 0.5, 0.5)]
        assert sum(bool(rows) for rows in found) > 1
        assert sorted(first for rows in found for first in rows) == [0, 3, 6, 9]
        assert tree(tmp_path / "index" / "v000001") == whole
        assert sorted(path.name for path in (tmp_path / "index").iterdir()) == ["current", "v000001"]

    @pytest.mark.slow
    def test_what_killed_workers_had_claimed_is_taken_over(self, tmp_path: Path, whole):
        """Two of three are killed, one after the other, each in the middle of a shard."""
        root = tmp_path / "index"
        doomed, also_doomed = self.start(root, 1_000.0, 1_000.0)
        claimed = [int(self.line(worker)) for worker in (doomed, also_doomed)]
        (other,) = self.start(root, 0.01)  # only now, or it might leave too few shards for both
        for worker in (doomed, also_doomed):
            assert not (root / "current").exists()
            worker.kill()
            worker.communicate()
        assert set(claimed) <= set(self.encoded(other))
        assert tree(root / "v000001") == whole
        assert sorted(path.name for path in root.iterdir()) == ["current", "v000001"]

    def test_a_claim_keeps_others_out_until_it_is_given_up(self, tmp_path: Path):
        folder = interrupted(tmp_path / "index")
        claims = Claims(folder)
        claim = claims.take("shard-00002.safetensors")
        assert claim is not None
        assert claims.any_held()
        assert claims.take("shard-00002.safetensors") is None
        with pytest.raises(UserError, match=r"building something else there \(another dtype\)"):
            build_vectors(tmp_path / "index", replace(SPEC, dtype=torch.bfloat16), Encoder())
        claim.close()
        assert not claims.any_held()
        build_vectors(tmp_path / "index", SPEC, Encoder())
        assert not list(tmp_path.glob(".*"))

    def test_what_others_are_writing_is_left_alone(self, tmp_path: Path):
        """One joins while another is at its third shard, and builds the fourth."""
        folder = interrupted(tmp_path / "index")
        half = folder / ".shard-00002.safetensors.x.tmp"
        half.write_bytes(b"half")
        claim = Claims(folder).take("shard-00002.safetensors")
        assert claim is not None
        asked: list[int] = []

        def encode(first: int, stop: int):
            asked.append(first)
            assert half.exists()
            if first == 9:
                claim.close()  # as if its process had died
            yield VECTORS[first:stop]
            if first == 9:
                half.touch()

        build_vectors(tmp_path / "index", SPEC, encode)
        assert asked == [9, 6]
        assert not half.exists()

    def test_no_other_version_is_written_meanwhile(self, tmp_path: Path):
        root = tmp_path / "index"
        build_version(root, SPEC, Encoder())
        folder = interrupted(root / "v000002", replace(SPEC, encoding="other"))
        claim = Claims(folder).take("shard-00003.safetensors")
        assert claim is not None
        with pytest.raises(UserError, match="another process is building an index in"):
            write_version(root, lambda path: path.mkdir())
        claim.close()

    def test_who_is_late_does_not_turn_back(self, tmp_path: Path):
        root = tmp_path / "index"
        build_version(root, SPEC, Encoder())
        build_version(root, replace(SPEC, encoding="other"), Encoder())
        versions.switch_forward(root / "v000001")
        assert versions.current_version(root).name == "v000002"


class TestShardedIndex:
    """An index in many files computes what an index in one tensor does."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
    @pytest.mark.parametrize("block_rows", [2, 5, 100])
    def test_equals_the_whole(self, dtype, block_rows, tmp_path: Path):
        build_vectors(tmp_path / "index", replace(SPEC, dtype=dtype), Encoder())
        one = ExactIndex(VECTORS, base_fingerprint="b", encoder_fingerprint="e", dtype=dtype, block_rows=block_rows)
        many = ExactIndex.load(tmp_path / "index", block_rows=block_rows)
        assert (len(many), many.dimension, many.dtype) == (11, 4, dtype)
        rng = torch.Generator().manual_seed(1)
        query = torch.randn(3, 4, generator=rng, requires_grad=True)
        exclude = torch.tensor([[0, 10], [3, -1], [-1, -1]])
        found = [index.search(query, 6, exclude) for index in (one, many)]
        assert torch.equal(found[0].row, found[1].row)
        torch.testing.assert_close(found[0].logit, found[1].logit)
        torch.testing.assert_close(found[0].log_normaliser, found[1].log_normaliser)
        gradients = [torch.autograd.grad(one.log_normaliser.sum(), query)[0] for one in found]
        torch.testing.assert_close(*gradients)
        rows = torch.tensor([[10, 0, -1], [4, 4, 7]])
        assert torch.equal(one.vectors(rows), many.vectors(rows))

    def test_computes_the_same_bits_where_blocks_do_not_cross_shards(self, tmp_path: Path):
        build_vectors(tmp_path / "index", SPEC, Encoder())
        one = ExactIndex(VECTORS, base_fingerprint="b", encoder_fingerprint="e", block_rows=3)
        many = ExactIndex.load(tmp_path / "index", block_rows=3)
        query = torch.ones(2, 4)
        assert torch.equal(one.log_normaliser(query), many.log_normaliser(query))
        draws = [index.sample(query, 50, torch.Generator().manual_seed(2)) for index in (one, many)]
        assert torch.equal(*draws)

    def test_saves_as_one_file(self, tmp_path: Path):
        build_vectors(tmp_path / "index", SPEC, Encoder())
        ExactIndex.load(tmp_path / "index", block_rows=2).save(tmp_path / "again")
        again = ExactIndex.load(tmp_path / "again", base_fingerprint=SPEC.base_fingerprint)
        assert torch.equal(again.vectors(torch.arange(11)), VECTORS)
        assert len(list((tmp_path / "again").glob("*.safetensors"))) == 1

    def test_refuses_what_is_missing_zero_or_unfinished(self, tmp_path: Path):
        folder = interrupted(tmp_path / "index")
        with pytest.raises(UserError, match=r"hold rows 0 … 5, expected 11 rows; the index is incomplete"):
            ExactIndex.load(folder)
        build_vectors(tmp_path / "index", SPEC, Encoder())
        path = tmp_path / "index" / "shard-00001.safetensors"
        raw = path.read_bytes()
        path.write_bytes(raw[: -3 * 4 * 4] + bytes(3 * 4 * 4))
        with pytest.raises(UserError, match=r"shard-00001\.safetensors: all 3 vectors are zero; rebuild"):
            ExactIndex.load(tmp_path / "index")
        path.unlink()
        with pytest.raises(UserError, match=r"shard-00001\.safetensors cannot be read.*rebuild"):
            ExactIndex.load(tmp_path / "index")
        manifest = tmp_path / "index" / "manifest.json"
        text = json.dumps(storage.read_sealed(manifest)).replace("shard-00002", "../shard-00002")
        storage.write_sealed(manifest, json.loads(text))
        with pytest.raises(UserError, match="expected a file of this folder"):
            ExactIndex.load(tmp_path / "index")


def test_rows_are_taken_across_shards_in_any_order():
    shards = (VECTORS[:3], VECTORS[3:3], VECTORS[3:4], VECTORS[4:])
    row = torch.tensor([10, 0, 3, 3, 2, 4, 9, 0])
    assert torch.equal(take_rows(shards, row), VECTORS[row])
    assert take_rows(shards, row[:0]).shape == (0, 4)
    blocks = list(split_blocks(shards, 2))
    assert [(first, len(block)) for first, block in blocks] == [(0, 2), (2, 1), (3, 1), (4, 2), (6, 2), (8, 2), (10, 1)]
