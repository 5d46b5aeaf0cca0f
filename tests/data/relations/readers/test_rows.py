"""Tables and other containers of relations, with our own field names, and with a map of other ones."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import retrograd as rg
from retrograd.data.field_maps import RelationFields
from retrograd.data.relations.formats import detect_format, read_relations
from retrograd.data.relations.instance import RelationInstance
from retrograd.types import Span, UserError

TEXTS = ("Kit feeds Rex, a dog.", "Ove, and Ada too, sang.")
FEEDS = RelationInstance("1", TEXTS[0], Span(0, 3), Span(10, 13), "feeds")
SANG = RelationInstance("2", TEXTS[1], Span(9, 12), Span(0, 3), "sang with", "PER", "PER")
WORDS = [
    {"text": TEXTS[0], "head": "Kit", "tail": "Rex", "relation": "feeds", "head_type": "", "tail_type": ""},
    {"text": TEXTS[1], "head": "Ada", "tail": "Ove", "relation": "sang with", "head_type": "PER", "tail_type": "PER"},
]


def write_table(path: Path, records: Sequence[Mapping[str, object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    return path


def numbered(instances: Sequence[RelationInstance]) -> list[RelationInstance]:
    """Return instances with the ids of records that have none, whatever number their lines have."""
    return [
        RelationInstance(str(number), one.text, one.head, one.tail, one.relation, one.head_type, one.tail_type)
        for number, one in enumerate(instances, start=1)
    ]


def test_a_table_of_words(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", WORDS)
    assert detect_format(path) == "rows"
    instances = rg.read_relations(path)
    assert numbered(instances) == [FEEDS, SANG]
    assert [one.id for one in instances] == ["2", "3"], "the lines of the file"


def test_a_table_of_offsets_and_further_columns(tmp_path: Path) -> None:
    rows = [
        {"id": "x", "note": "", "text": TEXTS[0], "head": "[0, 3]", "tail": "(10,13)", "relation": "feeds"},
        {"id": "y", "note": "ours", "text": TEXTS[1], "head": "[ 9, 12 ]", "tail": "[0, 3]", "relation": ""},
    ]
    first, second = rg.read_relations(write_table(tmp_path / "a.csv", rows))
    assert (first.id, first.head, first.tail, first.relation) == ("x", FEEDS.head, FEEDS.tail, "feeds")
    assert (second.id, second.head, second.tail, second.relation) == ("y", SANG.head, SANG.tail, None)


def test_words_that_look_like_offsets_are_words_where_they_stand_in_the_text(tmp_path: Path) -> None:
    rows = [{"text": "the key [0, 3] opens the lock", "head": "[0, 3]", "tail": "lock", "relation": "opens"}]
    (instance,) = rg.read_relations(write_table(tmp_path / "a.csv", rows))
    assert instance.head.of(instance.text) == "[0, 3]"


def test_a_table_of_marked_text(tmp_path: Path) -> None:
    rows = [
        {"text": "<e1>Kit</e1> feeds <e2>Rex</e2>, a dog.", "label": "feeds"},
        {"text": "[[ Ove ]], and << Ada >> too, sang.", "label": ""},
    ]
    first, second = numbered(rg.read_relations(write_table(tmp_path / "a.tsv", rows)))
    assert first == FEEDS
    assert (second.head, second.tail, second.relation) == (SANG.head, SANG.tail, None)


@pytest.mark.parametrize("kind", ["list", "columns", "pandas", "ids", "parquet", "arrow", "objects"])
def test_every_container_holds_the_same(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    columns = {name: [record[name] for record in WORDS] for name in WORDS[0]}
    match kind:
        case "list":
            path.write_text(json.dumps(WORDS))
        case "columns":
            path.write_text(json.dumps(columns))
        case "pandas":
            path.write_text(json.dumps({name: dict(enumerate(own)) for name, own in columns.items()}))
        case "ids":
            path.write_text(json.dumps({str(number): record for number, record in enumerate(WORDS, start=1)}))
        case "parquet":
            pq.write_table(pa.Table.from_pylist(WORDS), path)
        case "arrow":
            table = pa.Table.from_pylist(WORDS)
            with pa.ipc.new_stream(str(path), table.schema) as writer:
                writer.write_table(table)
        case _:
            path.write_text("\n".join(json.dumps({**record, "source": "mine"}) for record in WORDS))
            assert list(read_relations(path, "rows")) == [FEEDS, SANG]
            path.write_text("\n".join(map(json.dumps, WORDS)))
            assert detect_format(path) == "jsonl"
    assert rg.read_relations(path) == [FEEDS, SANG]


def test_a_map_reads_what_names_its_fields_otherwise(tmp_path: Path) -> None:
    records = [
        {"s": {"words": TEXTS[0]}, "subj": {"from": 0, "to": 3}, "obj": ["Rex", "DOG"], "p": "feeds", "nr": 7},
        {"s": {"words": TEXTS[1]}, "subj": {"from": 9, "to": 12}, "obj": ["Ove", "PER"], "p": None, "nr": 8},
    ]
    fields = {"text": "s.words", "head": "[subj.from, subj.to]", "tail": "obj[0]", "tail_type": "obj[1]"}
    fields |= {"relation": "p", "id": "nr"}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(records))
    first, second = rg.read_relations(path, fields=fields)
    assert (first.id, first.text, first.head, first.tail) == ("7", TEXTS[0], FEEDS.head, FEEDS.tail)
    assert (first.relation, first.head_type, first.tail_type) == ("feeds", "", "DOG")
    assert (second.id, second.relation) == ("8", None)
    assert rg.read_relations(records, fields=fields) == [first, second]


def test_a_map_of_a_table_reads_its_numbers(tmp_path: Path) -> None:
    rows = [{"sentence": TEXTS[0], "a1": "0", "a2": "3", "b1": "10", "b2": "13", "r": "feeds"}]
    fields = {"text": "sentence", "head": "[a1, a2]", "tail": "[b1, b2]", "relation": "r"}
    assert numbered(rg.read_relations(write_table(tmp_path / "a.csv", rows), fields=fields)) == [FEEDS]


def test_a_map_of_tokens(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"w": ["Kit", "feeds", "Rex"], "h": [0, 1], "t": [2, 3], "label": "feeds"}))
    fields = {"tokens": "w", "head": "h", "tail": "t", "relation": "label"}
    (instance,) = rg.read_relations(path, fields=fields)
    assert (instance.text, instance.tail, instance.relation) == ("Kit feeds Rex", Span(10, 13), "feeds")


def test_formats_of_fixed_fields_take_no_map(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", WORDS)
    with pytest.raises(UserError, match=r"the format 'fewrel' has no fields to be mapped; leave data.fields out, or"):
        rg.read_relations(path, "fewrel", fields={"text": "sentence"})


def test_an_unknown_field_of_a_map_is_refused() -> None:
    with pytest.raises(UserError, match="subject"):
        rg.read_relations(WORDS, fields={"subject": "s"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": "Ki"}, r"line 2: head 'Ki' stands nowhere in the text, as whole words; give its offsets"),
        ({"tail": ""}, r"line 2: 'tail' is null; expected two whole numbers \[start, end\]"),
        ({"head": "[0, 99]"}, r"line 2: head \[0, 99\) lies outside the text of 21 characters"),
        ({"head": "[0, 3, 4]"}, r"line 2: head '\[0, 3, 4\]' stands nowhere"),
        ({"tail": "Kit"}, r"line 2: head and tail are both \[0, 3\); give two different entities"),
        ({"text": ""}, "line 2: 'text' is null; expected a string"),
    ],
)
def test_faults_are_placed_and_the_rest_is_read(change: dict[str, str], message: str, tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", [WORDS[0] | change, WORDS[1]])
    with pytest.raises(UserError, match=message):
        list(read_relations(path, "rows"))
    refused: list[UserError] = []
    (instance,) = read_relations(path, "rows", refused.append)
    assert instance.relation == "sang with"
    assert len(refused) == 1


def test_a_path_that_fails_is_placed(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", WORDS)
    refused: list[UserError] = []
    fields = RelationFields(text="text", head="join(head, tail)", tail="tail")
    assert list(read_relations(path, "auto", refused.append, fields=fields)) == []
    assert len(refused) == 2
    assert str(refused[0]).startswith(f"{path}, line 2: fields.head = 'join(head, tail)': ")
