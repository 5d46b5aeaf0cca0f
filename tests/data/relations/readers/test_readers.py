"""Each format that is JSON: "auto" finds it, its file gives the instances that were meant, and faults are placed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.data.relations.samples import SAMPLES, Sample

import retrograd as rg
from retrograd.data.relations.formats import FORMATS, RELATION_FILE_FORMATS, detect_format, read_relations
from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.readers.docred import NO_LABEL
from retrograd.types import UserError

samples = pytest.mark.parametrize("name", SAMPLES)


def what(instance: RelationInstance) -> tuple[str, str, str, str, str | None]:
    """Return what a sample states of an instance."""
    head, tail = (span.of(instance.text) for span in (instance.head, instance.tail))
    return head, instance.head_type, tail, instance.tail_type, instance.relation


def written(folder: Path, content: bytes | object, name: str = "data.json") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def changed(sample: Sample, change: Callable[[list[dict[str, object]]], object]) -> bytes:
    """Return the file of a sample whose records were changed in place."""
    records = json.loads(json.dumps(sample.records))
    change(records)
    return Sample(sample.format, "", records, [], sample.is_whole).content()


# What is meant


@samples
def test_a_file_is_recognised_and_read(name: str, tmp_path: Path) -> None:
    sample = SAMPLES[name]
    path = written(tmp_path, sample.content())
    assert detect_format(path) == sample.format
    instances = rg.read_relations(path)
    assert [what(instance) for instance in instances] == sample.instances
    assert instances[0].text == sample.text
    assert instances == rg.read_relations(path, format=sample.format)
    assert len({instance.id for instance in instances}) == len(instances)


@samples
def test_a_list_and_one_record_a_line_are_the_same(name: str, tmp_path: Path) -> None:
    sample = SAMPLES[name]
    if isinstance(sample.records, dict):
        pytest.skip("it is one object")
    other = Sample(sample.format, "", sample.records, [], not sample.is_whole)
    path, turned = written(tmp_path, sample.content()), written(tmp_path, other.content(), "turned.json")
    detected = detect_format(turned)
    assert {detected, sample.format} in ({sample.format}, {"rows", "jsonl"})
    if sample.format != "rows":  # whose further fields plain JSON Lines refuse
        assert rg.read_relations(turned) == rg.read_relations(path)


@samples
def test_an_indented_file_is_the_same(name: str, tmp_path: Path) -> None:
    sample = SAMPLES[name]
    if not sample.is_whole:
        pytest.skip("its records are lines")
    path = written(tmp_path, sample.content())
    indented = written(tmp_path, json.dumps(sample.records, indent=2).encode(), "indented.json")
    assert rg.read_relations(indented) == rg.read_relations(path)


NESTED = ("tacred", "opennre", "conll04", "docred", "doccano")


@pytest.mark.parametrize("name", [name for name, sample in SAMPLES.items() if sample.format in NESTED])
def test_tables_with_lists_in_their_cells_are_the_same(name: str, tmp_path: Path) -> None:
    sample = SAMPLES[name]
    first = json.loads(json.dumps(sample.records))[:1]
    table = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist(first), table)
    assert detect_format(table) == sample.format
    assert rg.read_relations(table) == rg.read_relations(written(tmp_path, first))


def test_the_names_of_formats_are_those_of_the_table() -> None:
    names = [known.name for known in RELATION_FILE_FORMATS]
    assert FORMATS[0] == "auto"
    assert sorted(FORMATS[1:]) == sorted(names)
    assert len(set(names)) == len(names)


# Particulars


def test_the_few_records_of_inclusive_ends_are_not_taken_for_exclusive_ones(tmp_path: Path) -> None:
    records = SAMPLES["tacred_exclusive: ends behind the last token"].records
    assert detect_format(written(tmp_path, list(records)[:19])) == "tacred"
    assert detect_format(written(tmp_path, list(records))) == "tacred_exclusive"


def test_ids_name_document_and_relation(tmp_path: Path) -> None:
    ids = {}
    for name, sample in SAMPLES.items():
        ids[name] = [instance.id for instance in rg.read_relations(written(tmp_path, sample.content()))]
    assert ids["dygie: a document of sentences"] == ["a:1", "a:2"]
    assert ids["conll04: entities by their places"] == ["41:1"]
    assert ids["docred: entities of mentions"] == ["1:0-1-0", "1:0-1-1", "1:1-0"]
    assert ids["label_studio: an export"] == ["5:1-0", "5:1-1", "5:2"]


def docred(**changes: object) -> list[dict[str, object]]:
    sample = SAMPLES["docred: entities of mentions"]
    assert isinstance(sample.records, list)
    return [json.loads(json.dumps(sample.records[0] | changes))]


def test_the_nearest_mentions_and_the_sentences_between_them_are_taken(tmp_path: Path) -> None:
    mentions = [[{"sent_id": 0, "pos": [0, 2]}], [{"sent_id": 2, "pos": [3, 4]}, {"sent_id": 1, "pos": [1, 2]}]]
    path = written(tmp_path, docred(vertexSet=mentions, labels=[]))
    first, second = rg.read_relations(path)
    assert first.text == "Ada Holm sings . It rains ."
    assert what(first) == ("Ada Holm", "", "rains", "", NO_LABEL)
    assert what(second) == ("rains", "", "Ada Holm", "", NO_LABEL)


def test_a_pair_whose_mentions_overlap_is_no_instance_and_no_labels_are_no_relation(tmp_path: Path) -> None:
    records = docred()
    records[0]["vertexSet"] = [
        [{"sent_id": 0, "pos": [0, 2]}],
        [{"sent_id": 0, "pos": [1, 3]}],
        [{"sent_id": 1, "pos": [0, 1]}],
    ]
    del records[0]["labels"]
    instances = rg.read_relations(written(tmp_path, records))
    assert [instance.id for instance in instances] == ["1:0-2", "1:1-2", "1:2-0", "1:2-1"]
    assert {instance.relation for instance in instances} == {None}


def test_labels_by_column_are_those_by_row(tmp_path: Path) -> None:
    path = written(tmp_path, docred())
    columns = {"head": [0, 0], "tail": [1, 1], "relation_id": ["P551", "P19"], "relation_text": ["a", "b"]}
    assert rg.read_relations(written(tmp_path, docred(labels=columns), "b.json")) == rg.read_relations(path)


@pytest.mark.parametrize(("offsets", "words"), [("characters", "boat"), ("utf-16", " boa")])
def test_offsets_in_texts_count_what_is_said(offsets: str, words: str, tmp_path: Path) -> None:
    path = written(tmp_path, SAMPLES["opennre: characters"].content())
    first = rg.read_relations(path, offsets=offsets)[0]
    assert first.tail.of(first.text) == words


def test_the_words_of_label_studio_decide_what_its_offsets_count(tmp_path: Path) -> None:
    sample = SAMPLES["label_studio: an export"]
    content = sample.content()
    for old, new in (
        (b'"start": 3, "end": 7', b'"start": 2, "end": 6'),
        (b'"start": 18, "end": 21', b'"start": 17, "end": 20'),
    ):
        assert old in content
        content = content.replace(old, new)
    assert [what(one) for one in rg.read_relations(written(tmp_path, content))] == sample.instances


# Faults


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("opennre: tokens", {"h": "oder"}, "line 1: 'h' is a string; expected .* the end exclusive"),
        ("opennre: tokens", {"t": {"name": "x"}}, "line 1: 't' is without 'pos'"),
        ("opennre: tokens", {"t": {"pos": [5, 9]}}, r"line 1: t \[5, 9\) lies outside the 7 tokens"),
        ("opennre: tokens", {"token": None}, "line 1: no field 'token'; the record has token, h, t, relation"),
        ("opennre: characters", {"h": {"pos": "0"}}, "line 1: 'h.pos' is \"0\"; expected two whole numbers"),
        ("dygie: a document of sentences", {"ner": [[]]}, "line 1: 'ner' has 1 entries, 'sentences' 2"),
        ("dygie: a document of sentences", {"ner": [[["x"]], []]}, r"an entity of 'ner' is \['x'\]; expected \[start"),
        (
            "dygie: a document of sentences",
            {"relations": [[[3, 3, 7, 8, "r"]], []]},
            r"line 1, relation 1: tail \[7, 8\] does not lie in its sentence, tokens 0 to 4 of the document",
        ),
        ("dygie: a document of sentences", {"relations": [[[0, 0, 2, 2]], []]}, "relation 1: its label is None"),
        ("dygie: a sentence, as CrossRE", {"relations": ["a"]}, "line 1, relation 1: it is 'a'; expected"),
        ("dygie: a sentence, as CrossRE", {"doc_key": "music-1"}, "line 2: id 'music-1' is already used at line 1"),
        ("conll04: entities by their places", {"relations": [{"type": "r", "head": 2, "tail": 0}]},
         "line 1, record 1, relation 1: 'head' is 2; expected the place of one of 2 entities, from 0"),
        ("conll04: entities by their places", {"entities": [{"start": 0, "end": 9}]},
         "record 1: entity 0 .* lies outside"),
        ("conll04: entities by their places", {"relations": [7]}, "relation 1: it is a number; expected"),
        ("conll04: entities by their places", {"relations": 7}, "record 1: 'relations' is 7; expected a list"),
        ("glirel: ends inclusive", {"relations": [{"head": 1, "tail": 2, "relation_text": "x"}]}, "'head' is a number"),
        ("glirel: ends inclusive", {"tokenized_text": ["Juno"]}, r"tail \[2, 4\] is no span of 1 tokens; .*last token"),
        ("label_studio: an export", {"data": {"a": "x", "b": "y"}},
         "'data' has a, b; expected the field 'text', or one"),
        ("prodigy: accepted texts", {"relations": [{"label": "x", "head_span": 1, "child_span": {}}]},
         "line 1, relation 1: 'head_span' is a number"),
        ("prodigy: accepted texts", {"text": "Gus"}, r"child_span \[11, 15\) lies outside the text of 3 characters"),
        ("doccano: relations of ids", {"relations": [{"from_id": 8, "to_id": 1, "type": "x"}]},
         "line 1, relation 1: 'to_id' is 1, which is the id of no entity of this text"),
        ("doccano: relations of ids", {"entities": [{"id": 1}]}, "line 1: no field 'start_offset'; the record has id"),
        ("docred: entities of mentions", {"labels": [{"h": 0, "t": 5, "r": "P1"}]}, "label 1 is of 0 and 5; expected"),
        ("docred: entities of mentions", {"labels": [{"h": 0, "t": 1, "r": 3}]},
         "'r' of label 1 is 3; expected a string"),
        ("docred: entities of mentions", {"labels": {"head": [1], "tail": []}},
         "'labels' has lists of different length"),
        ("docred: entities of mentions", {"vertexSet": [[]]},
         "entity 0 of 'vertexSet' is .*expected a list of mentions"),
        ("docred: entities of mentions", {"vertexSet": [[{"sent_id": 9, "pos": [0, 1]}]]}, "entity 0 has 'sent_id' 9"),
        ("docred: entities of mentions", {"vertexSet": [[{"sent_id": 1, "pos": [0, 9]}]]}, "lies outside the 3 tokens"),
        ("tacred: one record a line", {"obj_end": 9},
         "no span of 7 tokens; .* last token itself .*\"tacred_exclusive\""),
        ("tacred_exclusive: ends behind the last token", {"obj_end": 9}, "the end is exclusive .*\"tacred\" counts"),
        ("jsonl: words", {"head": "sings"}, "'sings' stands nowhere in the text, as whole words; give its offsets"),
        ("jsonl: words", {"text": "Kit, Kit and Rex"}, "head 'Kit' stands 2 times in the text, as whole words"),
        ("rows: a JSON list", {"tail": "Re"}, "line 1, record 1: tail 'Re' stands nowhere"),
    ],
)  # fmt: skip
def test_faults_are_placed_and_explained(name: str, change: dict[str, object], message: str, tmp_path: Path) -> None:
    sample = SAMPLES[name]

    def make(records: list[dict[str, object]]) -> None:
        records[0].update(change)

    path = written(tmp_path, changed(sample, make))
    with pytest.raises(UserError, match=message) as error:
        list(read_relations(path, sample.format))
    assert str(error.value).startswith(str(path))
    refused: list[UserError] = []
    rest = list(read_relations(path, sample.format, refused.append))
    assert str(error.value) == str(refused[0])
    assert len(refused) + len(rest) >= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"P57": 3}, "relation 'P57': a number; expected a list of instances"),
        ({"P57": [3]}, "relation 'P57', instance 1: a number; expected an object"),
        ({"P57": [{"tokens": ["a", "b"], "h": ["a"], "t": ["b", "", [[1]]]}]}, "'h' is .*; expected a name, an id and"),
        ({"P57": [{"tokens": ["a", "b"], "h": ["a", "", [[0, 5]]], "t": []}]}, r"h \[0, 5\] is no span of 2 tokens"),
        ({"P57": [{"tokens": ["a", "b"], "h": ["a", "", [["0"]]], "t": []}]}, "'h' is .*lists of token positions"),
        ({"P57": [{"tokens": []}]}, "relation 'P57', instance 1: no field 'h'"),
    ],
)
def test_faults_of_fewrel(change: dict[str, object], message: str, tmp_path: Path) -> None:
    records = SAMPLES["fewrel: an object by relation"].records
    assert isinstance(records, dict)
    path = written(tmp_path, records | change)
    with pytest.raises(UserError, match=message):
        list(read_relations(path, "fewrel"))
    refused: list[UserError] = []
    assert [one.relation for one in read_relations(path, "fewrel", refused.append)] == ["P86", "P86"]
    assert len(refused) == 1


def test_a_list_is_no_file_of_fewrel(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a list; expected an object of lists of instances by relation"):
        list(read_relations(written(tmp_path, [1]), "fewrel"))


def test_one_faulty_relation_leaves_the_others(tmp_path: Path) -> None:
    sample = SAMPLES["dygie: a document of sentences"]

    def spoil(records: list[dict[str, object]]) -> None:
        records[0]["relations"] = [[[0, 9, 1, 1, "r"]], [[7, 8, 10, 10, "Used-on"]]]

    refused: list[UserError] = []
    path = written(tmp_path, changed(sample, spoil))
    assert [instance.id for instance in read_relations(path, "auto", refused.append)] == ["a:2"]
    assert len(refused) == 1


def test_a_task_without_annotations_has_no_instances(tmp_path: Path) -> None:
    sample = SAMPLES["label_studio: an export"]

    def cancel(records: list[dict[str, object]]) -> None:
        records[0]["annotations"] = []

    assert rg.read_relations(written(tmp_path, changed(sample, cancel))) == []
