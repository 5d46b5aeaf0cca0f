"""Passages come and go: what is left is a fresh build's index, and only what is new was embedded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from retrograd import __main__ as cli
from retrograd.index.disk.storage import parse_manifest
from retrograd.index.disk.versions import current_version, versions
from retrograd.index.exact import ExactIndex
from retrograd.models.encoder import Encoder
from retrograd.studies.index import check_index, search_index
from retrograd.studies.index_changes import add_to_index, remove_from_index, update_index
from retrograd.types import UserError

THINGS = ("cup", "box", "wheel", "car", "tea", "rain")


def write_passages(path: Path, texts: dict[str, str]) -> Path:
    lines = [json.dumps({"id": key, "title": "", "text": text}) + "\n" for key, text in texts.items()]
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def passages() -> dict[str, str]:
    return {f"p{i}": f"the {thing} holds tea ." for i, thing in enumerate(THINGS)}


@pytest.fixture
def experiment(tmp_path: Path, tiny_encoder: Path, passages: dict[str, str]) -> Path:
    """Untrained, over six passages."""
    file = tmp_path / "tiny.toml"
    base = write_passages(tmp_path / "passages.jsonl", passages)
    file.write_text(
        f'[data]\nkind = "questions"\nbase = "{base}"\n[retriever]\nmodel = "{tiny_encoder}"\n'
        f'[training]\nprecision = "fp32"\n',
        encoding="utf-8",
    )
    return file


def build(experiment: Path, root: Path, dtype: str = "fp32") -> Path:
    words = ["index", "build", experiment, "--out", root, "--dtype", dtype]
    cli.app([str(word) for word in words], standalone_mode=False)
    return root


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that a passage tower embeds."""
    texts: list[str] = []
    embed = Encoder.embed_passages

    def embed_and_list(encoder: Encoder, batch: Sequence[str]) -> Float[Tensor, "B D"]:
        texts.extend(batch)
        return embed(encoder, batch)

    monkeypatch.setattr(Encoder, "embed_passages", embed_and_list)
    return texts


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_after_each_change_the_index_is_a_fresh_builds(
    dtype: str, experiment: Path, passages: dict[str, str], tmp_path: Path, embedded: list[str]
) -> None:
    root = build(experiment, tmp_path / "index", dtype)
    new = {"p9": "rain caused flood", "p7": "inside the box : a cup ."}
    changed = {"p1": "the box holds tea .", "p4": "the wheel is a part of the car ."}  # the first as it was
    removed = ["p0", "p7", "p5"]
    steps = [
        (add_to_index, write_passages(tmp_path / "new.jsonl", new), passages | new, list(new.values())),
        (update_index, write_passages(tmp_path / "changed.jsonl", changed), passages | new | changed, [changed["p4"]]),
    ]
    ids = tmp_path / "ids.txt"
    ids.write_text("\n".join(removed) + "\n\n", encoding="utf-8")
    left = {key: text for key, text in (passages | new | changed).items() if key not in removed}
    steps.append((remove_from_index, ids, left, []))
    for number, (change, file, expected, texts) in enumerate(steps, start=2):
        embedded.clear()
        result = change(root, file, None, tmp_path / f"{number}.jsonl")
        assert sorted(embedded) == sorted(texts)
        assert (result.passages, result.embedded) == (len(expected), len(texts))
        assert result.version == current_version(root) == root / f"v{number:06d}"
        assert len(versions(root)) == 2
        _compare_with_fresh_build(experiment, root, tmp_path / f"{number}.jsonl", dtype)
        assert check_index(root).rows == len(expected)
    (hit,) = search_index(root, "rain caused flood", k=1).hits
    assert hit.passage.id == "p9"
    assert hit.row == list(left).index("p9")
    kept = {path.stem for path in (root / "bases").iterdir()}
    assert kept == {parse_manifest(version).base_fingerprint[:32] for version in versions(root)}


def _compare_with_fresh_build(experiment: Path, root: Path, passages: Path, dtype: str) -> None:
    """Compare with an index that an experiment over the changed passages builds, all but the name of its source."""
    other = passages.with_suffix(".toml")
    text = experiment.read_text(encoding="utf-8").replace("passages.jsonl", passages.name)
    other.write_text(text, encoding="utf-8")
    fresh = build(other, passages.with_suffix(""), dtype)
    ours, theirs = (parse_manifest(current_version(one)) for one in (root, fresh))
    for name in ("base_fingerprint", "encoder_fingerprint", "encoding", "dtype", "rows", "dimension"):
        assert getattr(ours, name) == getattr(theirs, name)
    mine, its = (ExactIndex.load(one).vectors(torch.arange(ours.rows)) for one in (root, fresh))
    # What else is in a batch moves the sums of a vector by rounding, of some hundred terms of at most 1.
    torch.testing.assert_close(mine, its, rtol=0, atol=(2**-8 if dtype == "bf16" else 256 * 2**-23))


def test_a_change_that_does_not_fit_leaves_the_index_as_it_is(experiment: Path, tmp_path: Path) -> None:
    root = build(experiment, tmp_path / "index")
    known = write_passages(tmp_path / "known.jsonl", {"p3": "the cup"})
    unknown = write_passages(tmp_path / "unknown.jsonl", {"q1": "the cup"})
    ids, every, none = (tmp_path / name for name in ("ids.txt", "every.txt", "none.txt"))
    ids.write_text("p1\nq1\n", encoding="utf-8")
    every.write_text("\n".join(f"p{i}" for i in range(6)), encoding="utf-8")
    none.write_text("\n", encoding="utf-8")
    refused = [
        (add_to_index, known, r"known\.jsonl: the id 'p3' is in the base already; .*index update"),
        (update_index, unknown, r"unknown\.jsonl: no passage of the base has the id 'q1'; .*index add"),
        (remove_from_index, ids, r"ids\.txt: no passage of the base has the id 'q1'"),
        (remove_from_index, every, r"every\.txt: these are all 6 passages"),
        (remove_from_index, none, r"none\.txt: there is nothing in it"),
    ]
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    for change, file, message in refused:
        with pytest.raises(UserError, match=message):
            change(root, file)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_a_hybrid_index_is_not_changed_in_part(experiment: Path, tmp_path: Path) -> None:
    text = experiment.read_text(encoding="utf-8")
    experiment.write_text(text.replace("[retriever]", "[retriever]\nlexical_dimensions = 64"), encoding="utf-8")
    root = build(experiment, tmp_path / "index")
    with pytest.raises(UserError, match="is hybrid: what a word weighs depends on all passages"):
        add_to_index(root, write_passages(tmp_path / "new.jsonl", {"p9": "the cup"}))


def test_an_index_of_another_encoder_is_not_mixed_with_this_one(experiment: Path, tmp_path: Path) -> None:
    root = build(experiment, tmp_path / "index")
    text = experiment.read_text(encoding="utf-8")
    experiment.write_text(text.replace("[retriever]", '[retriever]\npooling = "cls"'), encoding="utf-8")
    with pytest.raises(UserError, match="was built from encoder"):
        add_to_index(root, write_passages(tmp_path / "new.jsonl", {"p9": "the cup"}))


def test_the_commands_say_what_was_embedded(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = build(experiment, tmp_path / "index")
    capsys.readouterr()
    new = write_passages(tmp_path / "new.jsonl", {"p9": "the cup"})
    cli.app(["index", "add", str(root), str(new)], standalone_mode=False)
    said = f"7 passages are in {root / 'v000002'}; 1 of them were embedded"
    assert capsys.readouterr().out.strip() == said
    with pytest.raises(UserError, match=r"new\.jsonl exists; choose another file"):
        cli.app(["index", "update", str(root), str(new), "--passages", str(new)], standalone_mode=False)
