"""The task that data settings make, and the same task from the folder of a run alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from retrograd.data.relations.formats import read_relations
from retrograd.experiments.data.relations import RelationData
from retrograd.tasks.relations.verbalisation import open_verbalisation
from retrograd.types import UserError

MINE = """
["none"]
phrase = "unrelated"
template = "{subject} has nothing to do with {object}"
["per:age"]
phrase = "aged"
template = "{subject} counts {object} years"
["per:title"]
phrase = "bears"
template = "{subject} bears {object}"
"""


def record(number: int, relation: str, tail_type: str) -> str:
    entities = {"head": [0, 3], "tail": [8, 10], "head_type": "PERSON", "tail_type": tail_type}
    return json.dumps({"text": f"Ann has 4{number} here", "relation": relation, **entities}) + "\n"


@pytest.fixture
def settings(tmp_path: Path) -> RelationData:
    (tmp_path / "mine.toml").write_text(MINE, encoding="utf-8")
    lines = [record(1, "per:age", "NUMBER"), record(2, "none", "NUMBER"), record(3, "none", "TITLE")]
    (tmp_path / "train.jsonl").write_text("".join(lines), encoding="utf-8")
    return RelationData(
        train=str(tmp_path / "train.jsonl"),
        test="",
        labels="from_train",
        negative="none",
        templates=str(tmp_path / "mine.toml"),
        target_style="sentence",
        input_style="described",
        type_constraints=True,
        key_style="published",
        exclude="pair",
    )


def test_a_task_is_made_and_comes_back_without_the_files(settings: RelationData, tmp_path: Path) -> None:
    data = settings.load(0)
    assert data.train[0].target == "Ann counts 41 years"
    assert data.task.choices == ("unrelated", "aged", "bears")  # the labels of the file, also those not in train
    assert data.task.choices_for(data.train[2]) == ("Ann has nothing to do with 43",)
    assert data.task.passage_text(data.base[0]).endswith(" | aged")
    written = json.loads(json.dumps(RelationData().task_record(data.task)))
    (tmp_path / "mine.toml").unlink()
    task = settings.task_from_record(written, "labels.json")
    assert task == data.task
    assert settings.load(0, task).train == data.train
    # Unlabelled instances keep their types, and so their constraints.
    asked = tmp_path / "asked.jsonl"
    asked.write_text(record(4, "", "NUMBER").replace('"relation": "", ', ""), encoding="utf-8")
    example = task.example(next(read_relations(asked)))
    assert example.targets == ()
    assert task.choices_for(example) == ("Ann has nothing to do with 44", "Ann counts 44 years")


@pytest.mark.parametrize(
    ("labels", "negative", "count"),
    [("semeval", "Other", 19), ("tacred", "no_relation", 42), ("retacred", "no_relation", 40)],
)
def test_known_label_sets_have_words_of_their_own(tmp_path: Path, labels: str, negative: str, count: int) -> None:
    (tmp_path / "train.jsonl").write_text(record(1, negative, "NUMBER"), encoding="utf-8")
    settings = replace(RelationData(), train=str(tmp_path / "train.jsonl"), test="", labels=labels)
    data = replace(settings, target_style="sentence").load(0)
    assert len(data.task.choices) == count
    assert data.task.negative == negative
    assert data.train[0].target in data.task.choices_for(data.train[0])


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"labels": "tacred", "negative": ""}, r"mine.toml: the label 'no_relation' is missing.*Add a table"),
        ({"negative": "nothing"}, r"mine.toml: the label 'nothing' is missing"),
        ({"templates": ""}, r"need a template for every label; set data\.templates"),
        ({"templates": "builtin:tacret"}, r"did you mean 'builtin:tacred'"),
        ({"templates": "builtin:tacred"}, r"builtin:tacred: the label 'none' is missing"),
    ],
)
def test_words_that_do_not_fit_are_refused(settings: RelationData, change: dict, advice: str) -> None:
    with pytest.raises(UserError, match=advice):
        replace(settings, **change).load(0)


def test_a_label_too_many_of_a_known_set_is_refused(settings: RelationData, tmp_path: Path) -> None:
    known = open_verbalisation("builtin:tacred")
    text = "".join(
        f'["{label}"]\nphrase = "{phrase}"\ntemplate = "{known.templates[label]}"\n'
        for label, phrase in known.phrases.items()
    )
    one_more = '["none"]\nphrase = "nothing at all"\ntemplate = "{subject} is far from {object}"\n'
    (tmp_path / "mine.toml").write_text(text + one_more, encoding="utf-8")
    with pytest.raises(UserError, match=r"mine.toml: unknown label 'none'"):
        replace(settings, labels="tacred", negative="").load(0)


@pytest.mark.parametrize("found", [["a", "b"], {"relations": {}}, None])
def test_another_record_is_refused(settings: RelationData, found: object) -> None:
    with pytest.raises(UserError, match=r"labels.json: expected the relations and type constraints.*train it again"):
        settings.task_from_record(found, "labels.json")


@pytest.mark.parametrize("offsets", ["characters", "utf-16"])
@pytest.mark.parametrize("is_pair", [True, False])
def test_pairs_to_extract_are_read_as_offsets_count(
    settings: RelationData, tmp_path: Path, capsys: pytest.CaptureFixture[str], offsets: str, is_pair: bool
) -> None:
    """In UTF-16 code units, as a browser counts them: read as characters, what they cut out of words is told."""
    task = settings.load(0).task
    text = "😀 Ann has 44 here"
    pair = {"head": [3, 6], "tail": [11, 13], "head_type": "PERSON", "tail_type": "NUMBER"}
    entities = [{"start": 3, "end": 6, "type": "PERSON"}, {"start": 11, "end": 13, "type": "NUMBER"}]
    record = {"text": text} | (pair if is_pair else {"entities": entities})
    (path := tmp_path / "pages.jsonl").write_text(json.dumps(record), encoding="utf-8")
    pairs = replace(settings, offsets=offsets).read_pairs(path, task)
    told = " ".join(capsys.readouterr().err.split())
    if offsets == "utf-16":
        assert {(one.head.of(text), one.tail.of(text)) for one, _ in pairs} >= {("Ann", "44")}
        assert not told
    else:
        assert "so do 1 more of 2 spans" in told
        assert 'set data.offsets = "utf-16" (2 of 2 are whole words then)' in told
