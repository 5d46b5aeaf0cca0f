"""Data sets of the hub by name; a folder of files stands for one, as the package ``datasets`` takes either."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.requirements import skip_without_tracker

import retrograd as rg
from retrograd.data.hub import data_path
from retrograd.types import UserError


@pytest.mark.parametrize("name", ["hf:squad", "hf:", "hf::train", "hf:a:b:c:d"])
def test_a_name_without_a_split_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="names no split; write hf:NAME:SPLIT"):
        data_path(name)


def test_other_names_are_files() -> None:
    assert data_path("folder/train.jsonl") == Path("folder/train.jsonl")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrograd.util.optional.find_spec", lambda module: None)
    with pytest.raises(UserError, match=r"hf:squad:train needs datasets.*pip install 'retrograd\[hub\]'"):
        data_path("hf:squad:train")


@pytest.mark.integration
def test_a_data_set_is_fetched_once_and_again_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without_tracker("datasets")
    monkeypatch.setenv("RETROGRAD_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "source"
    source.mkdir()
    record = {"question": "what does the cup hold ?", "answers": ["tea"]}

    def publish(count: int) -> None:
        (source / "train.jsonl").write_text((json.dumps(record) + "\n") * count, encoding="utf-8")

    publish(2)
    name = f"hf:{source}:train"
    folder = data_path(name)
    assert folder == data_path(name)
    assert [one.targets for one in rg.read_questions(name)] == [("tea",)] * 2
    publish(3)
    assert len(rg.read_questions(name)) == 3
    with pytest.raises(UserError, match=r"test could not be fetched"):
        data_path(f"hf:{source}:test")


@pytest.mark.integration
def test_objects_and_frames_are_read_with_the_names_of_their_classes() -> None:
    skip_without_tracker("datasets")
    from datasets import ClassLabel, Dataset  # pyright: ignore[reportMissingImports]

    columns = {"text": ["the <e1>cup</e1> holds <e2>tea</e2>"] * 2, "label": ["part-of", "holds"]}
    dataset = Dataset.from_dict(columns).cast_column("label", ClassLabel(names=["holds", "part-of"]))
    assert dataset[0]["label"] == 1
    for source in (dataset, dataset.to_pandas().replace({"label": {0: "holds", 1: "part-of"}}), dataset.data.table):
        assert [one.relation for one in rg.read_relations(source)] == ["part-of", "holds"]


def test_numbers_of_classes_are_read_as_their_names() -> None:
    class Rows(list[dict[str, object]]):
        features = {"text": SimpleNamespace(dtype="string"), "label": SimpleNamespace(names=["holds", "part-of"])}  # noqa: RUF012

    rows = Rows({"text": "the <e1>cup</e1> holds <e2>tea</e2>", "label": label} for label in (1, 0))
    assert [one.relation for one in rg.read_relations(rows)] == ["part-of", "holds"]
