"""Every pair of recognised entities becomes an instance."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retrograd.data.relations.entity_pairs import has_entities, read_entity_pairs
from retrograd.types import UserError


def written(folder: Path, *records: object) -> Path:
    path = folder / "text.jsonl"
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records))
    return path


def entity(start: int, end: int, **more: str) -> dict[str, object]:
    return {"start": start, "end": end, **more}


def test_every_pair_is_asked_once_or_in_both_orders(tmp_path: Path) -> None:
    text = "Ada met Bob in Rome."
    twice = entity(0, 3, type="PERSON"), entity(0, 3)  # the first counts
    entities = [entity(15, 19, type="PLACE"), twice[0], entity(8, 11), twice[1]]  # in any order
    path = written(tmp_path, {"id": "a", "text": text, "entities": entities})
    assert has_entities(path)
    pairs = [(one.head.of(text), one.tail.of(text)) for one in read_entity_pairs(path, both_orders=False)]
    assert pairs == [("Ada", "Bob"), ("Ada", "Rome"), ("Bob", "Rome")]
    both = list(read_entity_pairs(path, both_orders=True))
    ids = {one.id: (one.head.of(text), one.tail.of(text)) for one in both}  # places in the list
    assert ids == {
        "a:1-2": ("Ada", "Bob"),
        "a:2-1": ("Bob", "Ada"),
        "a:1-0": ("Ada", "Rome"),
        "a:0-1": ("Rome", "Ada"),
        "a:2-0": ("Bob", "Rome"),
        "a:0-2": ("Rome", "Bob"),
    }
    assert {one.head_type for one in both if one.head.of(text) == "Ada"} == {"PERSON"}
    assert {one.head_type for one in both if one.head.of(text) == "Rome"} == {"PLACE"}
    assert all(one.relation is None for one in both)


def test_one_entity_may_lie_inside_another_but_not_across_it(tmp_path: Path) -> None:
    text = "the king of Spain's sister"
    entities = [entity(0, 17), entity(12, 17), entity(4, 26)]
    path = written(tmp_path, {"text": text, "entities": entities})
    pairs = [(one.head.of(text), one.tail.of(text)) for one in read_entity_pairs(path, both_orders=False)]
    assert pairs == [("the king of Spain", "Spain"), ("king of Spain's sister", "Spain")]


def test_no_entity_or_one_makes_no_pair(tmp_path: Path) -> None:
    path = written(tmp_path, {"text": "Ada.", "entities": []}, {"text": "Ada.", "entities": [entity(0, 3)]})
    assert list(read_entity_pairs(path, both_orders=True)) == []


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": "Ada.", "entities": {}}, 'line 1: "entities" is not a list'),
        ({"text": "Ada.", "entities": [[0, 3]]}, "line 1: entity 0 is"),
        ({"text": "Ada.", "entities": [{"start": 0}]}, "line 1: .*end"),
        ({"text": "Ada.", "entities": [entity(0, 9)]}, "line 1: entity 0 .*outside the text"),
        ({"text": "Ada.", "entities": [{"start": 0, "end": 3, "kind": "x"}]}, "line 1: .*kind"),
        ({"text": "abcdef", "entities": [entity(i, i + 1) for i in range(6)]}, "line 1: 6 entities make too many"),
    ],
)
def test_what_is_wrong_names_its_line(record: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        list(read_entity_pairs(written(tmp_path, record), both_orders=True, max_entities=5))


def test_marked_text_speaks_of_no_entities(tmp_path: Path) -> None:
    assert not has_entities(written(tmp_path, {"text": "<e1>Ada</e1> met <e2>Bob</e2>."}))
    assert not has_entities(written(tmp_path, {"id": "entities", "text": "<e1>Ada</e1> met <e2>Bob</e2>."}))
    assert not has_entities(written(tmp_path, '{"entities": '))
    assert not has_entities(written(tmp_path, "", '1\t"<e1>Ada</e1> met <e2>Bob</e2>."'))
    assert not has_entities(written(tmp_path, "", "9" * 5000))  # more digits than Python converts
