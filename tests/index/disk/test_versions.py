"""Readers see the old or the new version, whole; versions that nobody reads are removed."""

from pathlib import Path

import pytest
import torch

from retrograd.index.disk import versions
from retrograd.index.disk.build import IndexSpec, build_version, count_remaining_rows
from retrograd.index.disk.versions import current_version, has_versions, next_version, prune, read_current, switch_to
from retrograd.index.exact import ExactIndex
from retrograd.types import UserError

ROWS = 6


def spec(name: str) -> IndexSpec:
    return IndexSpec("base" * 16, name * 32, "mean pooling", rows=ROWS, dimension=2, shard_rows=4)


def build(root: Path, name: str, number: float, keep: int = 2) -> Path:
    return build_version(
        root, spec(name), lambda first, stop: [torch.full((stop - first, 2), float(number))], keep=keep
    )


def first_number(index: ExactIndex) -> float:
    return float(index.vectors(torch.tensor([0]))[0, 0])


def test_a_new_version_takes_the_place_of_the_old(tmp_path: Path):
    root = tmp_path / "above" / "index"
    assert not has_versions(root)
    assert next_version(root).name == "v000001"
    for number, name in enumerate("abcd", start=1):
        assert build(root, name, number).name == f"v{number:06d}"
        assert current_version(root).name == f"v{number:06d}"
        assert first_number(ExactIndex.load(root, encoder_fingerprint=name * 32)) == number
    assert sorted(path.name for path in root.iterdir()) == ["current", "v000003", "v000004"]


def test_an_up_to_date_index_is_not_built_again(tmp_path: Path, capsys):
    build(tmp_path, "a", 1)
    assert build(tmp_path, "a", 2).name == "v000001"
    assert "up to date" in capsys.readouterr().err
    assert first_number(ExactIndex.load(tmp_path)) == 1


def test_a_damaged_version_is_built_again(tmp_path: Path, capsys):
    (build(tmp_path, "a", 1) / "shard-00001.safetensors").write_bytes(b"?")
    assert build(tmp_path, "a", 2).name == "v000002"
    assert "has changed since it was written" in capsys.readouterr().err
    assert first_number(ExactIndex.load(tmp_path)) == 2


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_version_finished_and_not_switched_to_is_used_or_removed(name, tmp_path: Path, monkeypatch):
    """The build was killed between its end and the switch; the encoder may have changed since."""
    build(tmp_path, "o", 1)
    with monkeypatch.context() as patch:
        patch.setattr("retrograd.index.disk.build.switch_forward", lambda _: exec("raise InterruptedError"))
        with pytest.raises(InterruptedError):
            build(tmp_path, "a", 2)
    assert first_number(ExactIndex.load(tmp_path)) == 1
    assert build(tmp_path, name, 3).name == "v000002"
    assert first_number(ExactIndex.load(tmp_path)) == (2 if name == "a" else 3)


def test_a_reader_from_before_the_switch_keeps_reading(tmp_path: Path):
    build(tmp_path, "a", 1)
    reader = ExactIndex.load(tmp_path)
    for number, name in enumerate("bcd", start=2):
        build(tmp_path, name, number, keep=1)
    assert not (tmp_path / "v000001").exists()
    assert torch.equal(reader.vectors(torch.arange(ROWS)), torch.ones(ROWS, 2))
    assert reader.search(torch.ones(1, 2), ROWS).logit.tolist() == [[2.0] * ROWS]


def test_a_version_removed_before_it_was_opened_is_followed_to_the_next(tmp_path: Path):
    build(tmp_path, "a", 1)
    tried = []

    def read(folder: Path) -> float:
        tried.append(folder.name)
        if folder.name == "v000001":
            build(tmp_path, "b", 2, keep=1)
        return first_number(ExactIndex.load(folder))

    assert read_current(tmp_path, read) == 2
    assert tried == ["v000001", "v000002"]


def test_a_damaged_current_version_is_an_error_not_a_loop(tmp_path: Path):
    (build(tmp_path, "a", 1) / "manifest.json").unlink()
    with pytest.raises(UserError, match="not an index"):
        ExactIndex.load(tmp_path)


def test_other_fingerprints_are_refused_with_both_sides_and_the_remedy(tmp_path: Path):
    build(tmp_path, "a", 1)
    both = r"from encoder a{12}, but this run uses encoder b{12}; rebuild the index, or use the encoder"
    with pytest.raises(UserError, match=both):
        ExactIndex.load(tmp_path, encoder_fingerprint="b" * 32)
    with pytest.raises(UserError, match=r"from knowledge base (base){3}, but this run uses knowledge base other"):
        ExactIndex.load(tmp_path, base_fingerprint="other")


def test_a_name_that_leads_nowhere_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"holds no finished index; build one with: retrograd index build"):
        current_version(tmp_path)
    for name in (b"v000007", b"../elsewhere", b"", b"\xff\xfe"):
        (tmp_path / "current").write_bytes(name)
        with pytest.raises(UserError, match=r"current is damaged.*repair it with: retrograd index build RUN --out"):
            current_version(tmp_path)


@pytest.mark.parametrize("name", [b"v000009", b"\xff\xfe", b""])
@pytest.mark.parametrize(("encoder", "version", "number"), [("b", "v000002", 2), ("c", "v000003", 3)])
def test_a_build_mends_a_name_that_leads_nowhere(name, encoder, version, number, tmp_path: Path):
    """The newest version is used if it is what is asked for; else it stays, beside the one that is built."""
    build(tmp_path, "a", 1)
    build(tmp_path, "b", 2)
    (tmp_path / "current").write_bytes(name)
    assert count_remaining_rows(tmp_path, spec(encoder)) == (0 if encoder == "b" else ROWS)
    assert build(tmp_path, encoder, 3).name == version
    assert first_number(ExactIndex.load(tmp_path)) == number
    assert (tmp_path / "v000002").exists()


def test_a_build_mends_a_name_without_any_version(tmp_path: Path):
    (tmp_path / "current").write_text("v000009")
    assert build(tmp_path, "a", 1).name == "v000001"


def test_prune_spares_the_current_and_whatever_is_not_a_version(tmp_path: Path):
    for number in (1, 2, 3, 4):
        (tmp_path / f"v{number:06d}").mkdir()
    (tmp_path / "v").mkdir()
    (tmp_path / "notes").write_text("mine")
    switch_to(tmp_path / "v000003")
    with pytest.raises(ValueError, match="keep is 0"):
        prune(tmp_path, 0)
    assert [path.name for path in prune(tmp_path, 2)] == ["v000001"]
    assert [path.name for path in versions.versions(tmp_path)] == ["v000002", "v000003", "v000004"]
    assert [path.name for path in prune(tmp_path, 1)] == ["v000002"]
    assert (tmp_path / "notes").exists()
