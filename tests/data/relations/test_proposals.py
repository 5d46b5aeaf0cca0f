"""Files of relations that name their fields in ways unknown to us: what is proposed, and that it reads them."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

import retrograd as rg
from retrograd.data.relations.formats import read_relations
from retrograd.types import UserError
from retrograd.util.guards import JsonObject

PEOPLE = ("Ida", "Ove", "Mona", "Nora", "Gus", "Kit")
PLACES = ("Oslo", "Ulm", "Bonn", "Turin", "Lodz", "Graz")
RELATIONS = ("born in", "lives in") * 3
EXPECTED = [*zip(PEOPLE, PLACES, RELATIONS, strict=True)]


def sentence(number: int) -> str:
    return f"{PEOPLE[number]} was seen in {PLACES[number]} on a cold day ."


def spans(number: int) -> tuple[list[int], list[int]]:
    person, place = PEOPLE[number], PLACES[number]
    start = sentence(number).index(place)
    return [0, len(person)], [start, start + len(place)]


def marked(number: int) -> str:
    (_, behind), (start, end) = spans(number)
    text = sentence(number)
    return f"<e1>{text[:behind]}</e1>{text[behind:start]}<e2>{text[start:end]}</e2>{text[end:]}"


def records(kind: str, number: int) -> JsonObject:
    """Return a record of one of the made files."""
    text, person, place, relation = sentence(number), PEOPLE[number], PLACES[number], RELATIONS[number]
    (start, end), (second_start, second_end) = head, tail = spans(number)
    match kind:
        case "words in columns":
            return {"nr": number, "sentence": text, "subject": person, "object": place, "predicate": relation}
        case "starts and ends":
            return {"sent": text, "e1_start": start, "e1_end": end, "e2_start": second_start, "e2_end": second_end,
                    "rel": relation}  # fmt: skip
        case "nested words":
            arguments: JsonObject = {"arg1": {"word": person, "kind": "PER"}, "arg2": {"word": place, "kind": "LOC"}}
            return {"data": {"sentence_text": text}, **arguments, "class": relation}
        case "nested offsets":
            return {"doc": text, "subj": {"text": person, "start": start, "end": end},
                    "obj": {"text": place, "start": second_start, "end": second_end}, "rel": relation}  # fmt: skip
        case "marked":
            return {"sentence": marked(number), "category": relation}
        case "pairs of numbers":
            return {"context": text, "source_span": head, "target_span": tail, "relation_type": relation,
                    "source_type": "PER", "target_type": "LOC"}  # fmt: skip
        case "tokens":
            return {"words": [*text.split()], "first": [0, 1], "second": [4, 5], "tag": relation}
        case "german":
            return {"Satz": text, "Kopf": person, "Ende": place, "Beziehung": relation}
        case "letters":
            return {"passage": text, "triple": {"s": person, "p": relation, "o": place}, "url": f"x.org/{number}"}
        case "from and to":
            return {"body": text, "from": person, "to": place, "edge": relation, "score": number / 10}
        case _:
            return {"text": text, "triple": [person, relation, place]}


FILES = {
    "words in columns": ("sentence", "subject", "object", "predicate"),
    "starts and ends": ("sent", "[e1_start, e1_end]", "[e2_start, e2_end]", "rel"),
    "nested words": ("data.sentence_text", "arg1.word", "arg2.word", "class"),
    "nested offsets": ("doc", "[subj.start, subj.end]", "[obj.start, obj.end]", "rel"),
    "marked": ("sentence", "", "", "category"),
    "pairs of numbers": ("context", "source_span", "target_span", "relation_type"),
    "tokens": ("words", "first", "second", "tag"),
    "german": ("Satz", "Kopf", "Ende", "Beziehung"),
    "letters": ("passage", "triple.s", "triple.o", "triple.p"),
    "from and to": ("body", "from", "to", "edge"),
    "a list of three": ("", "triple[0]", "triple[2]", "triple[1]"),
}
"""The paths of text (or tokens), head, tail and relation in each of the files; "" for our own name."""
FLAT = ("words in columns", "starts and ends", "marked", "german", "from and to")


def require_proposal(kind: str, path: Path) -> None:
    """Compare what the refusal of a file proposes with what is meant, and read the file by it."""
    with pytest.raises(UserError, match="no format of relations has records with ") as refused:
        read_relations(path)
    proposed = dict(re.findall(r'data\.fields\.(\w+) = "([^"]+)"', str(refused.value)))
    names = ("tokens" if kind == "tokens" else "text", "head", "tail", "relation")
    assert proposed == {name: own for name, own in zip(names, FILES[kind], strict=True) if own}
    instances = rg.read_relations(path, fields=proposed)
    assert [(one.head.of(one.text), one.tail.of(one.text), one.relation) for one in instances] == EXPECTED
    assert {one.text for one in instances} == {sentence(number) for number in range(6)}


@pytest.mark.parametrize("kind", FILES)
def test_a_map_is_proposed_that_reads_the_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "export.jsonl"
    path.write_text("\n".join(json.dumps(records(kind, number)) for number in range(6)))
    require_proposal(kind, path)


@pytest.mark.parametrize("kind", FLAT)
def test_a_map_is_proposed_for_a_table_of_text(kind: str, tmp_path: Path) -> None:
    content = io.StringIO()
    writer = csv.DictWriter(content, list(records(kind, 0)), delimiter=";")
    writer.writeheader()
    writer.writerows(records(kind, number) for number in range(6))
    path = tmp_path / "export.csv"
    path.write_text(content.getvalue())
    require_proposal(kind, path)


def test_a_record_without_one_of_our_fields_proposes_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"text": sentence(0), "head": "Ida", "ziel": "Oslo", "relation": "born in"}))
    with pytest.raises(UserError, match=r"line 1: no field 'tail'; .*`ziel` looks like the tail: set data.fields.tail"):
        rg.read_relations(path)


def test_where_nothing_looks_like_a_relation_none_is_proposed(tmp_path: Path) -> None:
    path = tmp_path / "numbers.jsonl"
    path.write_text("\n".join(json.dumps({"key": f"a{i}", "n": i}) for i in range(5)))
    with pytest.raises(UserError, match=r'with key, n; say where they have what: data\.fields\.text = "…", or name'):
        rg.read_relations(path)


def test_a_field_without_a_name_is_not_proposed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"sentence": sentence(0), "": "Ida", "place": "Oslo"}))
    with pytest.raises(UserError, match=r'data\.fields\.text = "…", or name the format'):
        rg.read_relations(path)


def test_several_relations_in_a_record_are_to_be_written_one_by_one(tmp_path: Path) -> None:
    triples = [{"subject": "Ida", "predicate": "born in", "object": "Oslo"}]
    path = tmp_path / "triples.jsonl"
    path.write_text(json.dumps({"text": sentence(0), "triples": triples}))
    with pytest.raises(UserError, match="a record has one relation here: write one for each entry of `triples`"):
        rg.read_relations(path)
