"""TACRED's format and the two patches: what the files say comes out, refusals name file, line and record."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from retrograd.data.relations.formats import detect_format, read_relations
from retrograd.data.relations.readers.tacred import read_tacred
from retrograd.data.relations.tacred import RETACRED_LABELS, TACRED_LABELS, read_patch
from retrograd.types import UserError

EXAMPLES = Path(__file__).parents[3] / "examples" / "tacred_like"
PILOT = {
    "id": "a1",
    "relation": "per:title",
    "token": ["Ines", "Moravec", "-LRB-", "a", "pilot", "-RRB-"],
    "subj_start": 0,
    "subj_end": 1,
    "obj_start": 4,
    "obj_end": 4,
    "subj_type": "PERSON",
    "obj_type": "TITLE",
}


def written(folder: Path, value: object, name: str = "data.json") -> Path:
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


# Records


def test_a_record_has_both_entities_with_types_and_plain_brackets(tmp_path: Path) -> None:
    path = written(tmp_path, [PILOT | {"docid": "d", "stanford_pos": ["NNP"]}, {**PILOT, "id": 7, "relation": None}])
    first, second = read_tacred(path)
    assert (first.id, first.relation, first.text) == ("a1", "per:title", "Ines Moravec ( a pilot )")
    assert (first.head.of(first.text), first.tail.of(first.text)) == ("Ines Moravec", "pilot")
    assert (first.head_type, first.tail_type) == ("PERSON", "TITLE")
    assert (second.id, second.relation) == ("7", None)


def test_every_written_out_sign_is_turned_back_and_spans_move_with_it(tmp_path: Path) -> None:
    signs = ["-LRB-", "-rrb-", "-LSB-", "-RSB-", "-LCB-", "-RCB-", "``", "''", "-", "LRB"]
    record = PILOT | {"token": [*signs, "x", "y"], "subj_start": 10, "subj_end": 10, "obj_start": 11, "obj_end": 11}
    (instance,) = read_tacred(written(tmp_path, [record]))
    assert instance.text == '( ) [ ] { } " " - LRB x y'
    assert (instance.head.of(instance.text), instance.tail.of(instance.text)) == ("x", "y")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"obj_end": 6}, r"obj_start 4 and obj_end 6 are no span of 6 tokens; .* the end is the last token itself"),
        ({"subj_start": -1}, "subj_start -1 and subj_end 1 are no span of 6 tokens"),
        ({"subj_start": 2}, "subj_start 2 and subj_end 1 are no span"),
        ({"subj_end": True}, "'subj_end' is a boolean; expected a whole number"),
        ({"subj_end": "1"}, "'subj_end' is a string; expected a whole number"),
        ({"obj_start": 1, "obj_end": 2}, "overlap in part"),
        ({"obj_start": 0, "obj_end": 1}, "two different entities"),
        ({"token": "Ines Moravec"}, "'token' is a string; expected a list of strings"),
        ({"token": ["Ines", None]}, "token 1 is null; expected a non-empty string"),
        ({"relation": 3}, "'relation' is a number; expected a string"),
        ({"subj_type": None}, "'subj_type' is null; expected a string"),
        ({"id": None}, "'id' is null; expected a string or a whole number"),
        ({"id": "a1"}, "id 'a1' is already used at record 1"),
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_a_malformed_record_is_named_by_file_line_and_record(
    change: dict[str, object], message: str, indent: int | None, tmp_path: Path
) -> None:
    path = written(tmp_path, json.dumps([PILOT, PILOT | {"id": "a2"} | change], indent=indent))
    line = 1 if indent is None else 2 + json.dumps(PILOT, indent=indent).count("\n") + 1
    with pytest.raises(UserError, match=rf"data\.json, line {line}, record 2: .*{message}"):
        list(read_tacred(path))


@pytest.mark.parametrize("field", [name for name in PILOT if name != "relation"])
def test_a_missing_field_is_named(field: str, tmp_path: Path) -> None:
    path = written(tmp_path, [{name: value for name, value in PILOT.items() if name != field}])
    with pytest.raises(UserError, match=rf"data\.json, line 1, record 1: no field '{field}'; the record has "):
        list(read_tacred(path))


def test_a_patch_is_no_data(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no format of relations has records with id, relation; say where"):
        list(read_relations(written(tmp_path, [{"id": "a1", "relation": "per:title"}])))


# The examples


@pytest.mark.parametrize(("part", "count"), [("train", 37), ("dev", 15), ("test", 15)])
def test_the_examples_are_detected_and_hold_known_labels(part: str, count: int) -> None:
    path = EXAMPLES / f"{part}.json"
    assert detect_format(path) == "tacred"
    instances = list(read_relations(path))
    assert instances == list(read_relations(path, "tacred"))
    assert len(instances) == count
    labels = Counter(instance.relation for instance in instances)
    assert set(labels) <= set(TACRED_LABELS)
    assert 0.4 < labels["no_relation"] / count < 0.6
    for instance in instances:
        assert instance.head_type == {"per": "PERSON", "org": "ORGANIZATION"}.get(
            (instance.relation or "")[:3], instance.head_type
        )


@pytest.mark.parametrize("content", ["[{", "[\n  {", "\n [ ", "[]"])
def test_a_damaged_list_is_named_by_its_place(content: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.json(, line \d, record 1: | is an empty list)"):
        detect_format(written(tmp_path, content))


def test_marked_prose_is_not_taken_for_tacred(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nor records, and no format of relations is recognised; name the format"):
        detect_format(written(tmp_path, "[[ owl ]] saw << fox >>"))


def test_the_label_sets_have_their_published_sizes() -> None:
    assert len(set(TACRED_LABELS)) == len(TACRED_LABELS) == 42
    assert len(set(RETACRED_LABELS)) == len(RETACRED_LABELS) == 40


# Patches


def test_tacrev_replaces_labels_and_keeps_the_rest() -> None:
    instances = list(read_tacred(EXAMPLES / "test.json"))
    patched = read_patch(EXAMPLES / "tacrev_test.json").apply(instances, "test.json")
    changed = {new.id: new.relation for old, new in zip(instances, patched, strict=True) if old != new}
    assert changed == {"test-08": "no_relation", "test-14": "org:top_members/employees"}


@pytest.mark.parametrize("part", ["train", "dev", "test"])
def test_retacred_replaces_labels_and_drops_what_it_does_not_name(part: str) -> None:
    instances = list(read_tacred(EXAMPLES / f"{part}.json"))
    path = EXAMPLES / f"retacred_{part}.json"
    patched = read_patch(path).apply(instances, "a file")
    expected = json.loads(path.read_text(encoding="utf-8"))
    assert {instance.id: instance.relation for instance in patched} == expected
    assert [i.id for i in patched] == [i.id for i in instances if i.id in expected]
    assert len(patched) < len(instances)
    assert {instance.relation for instance in patched} <= set(RETACRED_LABELS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"id": "a", "relation": "x"}, {"id": "a", "relation": "y"}], "record 2: id 'a' is already used at record 1"),
        ([{"id": "a", "relation": 3}], "line 1, record 1: 'relation' is a number; expected a string"),
        ([{"id": "a"}], "record 1: no field 'relation'; the record has id"),
        ([["a", "x"]], "record 1: expected a JSON object, found list"),
        ([], "is an empty list"),
        ({"a": None}, "the relation of id 'a' is null; expected a string"),
        ({"train": {"a": "x"}}, "the relation of id 'train' is an object; expected a string"),
        ({}, "is an empty object, and would drop every instance"),
        ('{"a": "x", "a": "y"}', "the key 'a' occurs twice in one object; keep one"),
        ('"a"', "is a string; expected a patch: a list of id and relation, or an object"),
        ('[{"id": "a", "relation": "x"}', "record 1: expected ',' or ']' after it, found the end of the file"),
        ('{"a": "x"', "line 1, column .*: not valid JSON"),
    ],
)
def test_a_malformed_patch_is_refused(content: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"patch\.json.*{message}"):
        read_patch(written(tmp_path, content, "patch.json"))


def test_a_missing_patch_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file: .*gone\.json"):
        read_patch(tmp_path / "gone.json")


@pytest.mark.parametrize("complete", [False, True])
def test_a_patch_of_another_part_is_refused(complete: bool, tmp_path: Path) -> None:
    instances = list(read_tacred(EXAMPLES / "dev.json"))
    relations = {"dev-01": "per:title", "test-01": "per:title", "test-02": "per:age"}
    listed = [{"id": id_, "relation": relation} for id_, relation in relations.items()]
    path = written(tmp_path, relations if complete else listed, "patch.json")
    with pytest.raises(UserError, match=r"patch\.json: id 'test-01' and 1 more ids not found in dev\.json; give the"):
        read_patch(path).apply(instances, "dev.json")
