"""Names of a list are found in text."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrograd.data.relations.recognisers.gazetteer import Gazetteer, read_gazetteer
from retrograd.types import UserError


def gazetteer(*names: tuple[str, str]) -> Gazetteer:
    one = Gazetteer()
    for name, kind in names:
        one.add(name, kind)
    return one


def found(text: str, *names: tuple[str, str]) -> list[tuple[str, str]]:
    recognised = gazetteer(*names).recognise(text)
    assert recognised.sentences is None
    return [(entity.span.of(text), entity.kind) for entity in recognised.entities]


def test_the_longest_name_is_found_and_none_inside_it() -> None:
    names = [("New York", "CITY"), ("York", "CITY"), ("New York Times", "PAPER")]
    text = "The New York Times of New York, not of York."
    assert found(text, *names) == [("New York Times", "PAPER"), ("New York", "CITY"), ("York", "CITY")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a party of artists", []),
        ("art, and art.", ["art", "art"]),
        ("art's an art_form", ["art"]),
        ("state-of-the-art", ["art"]),
        ("the ART of Art", ["ART", "Art"]),
    ],
)
def test_names_are_whole_words_in_any_case_where_they_have_no_capital(text: str, expected: list[str]) -> None:
    assert [name for name, _ in found(text, ("art", "X"))] == expected


def test_a_name_with_a_capital_is_found_as_it_is_written() -> None:
    assert found("May may be MAY", ("May", "MONTH"), ("MAY", "ORG")) == [("May", "MONTH"), ("MAY", "ORG")]
    assert found("May may", ("may", "VERB"), ("May", "MONTH")) == [("May", "MONTH"), ("may", "VERB")]


def test_white_space_is_any_and_signs_are_part_of_names() -> None:
    text = "Ada\n  Lovelace wrote C++, not C, for U.S. firms."
    names = [("Ada  Lovelace", "P"), ("C", "L"), ("C++", "L"), ("U.S.", "G")]
    assert [name for name, _ in found(text, *names)] == ["Ada\n  Lovelace", "C++", "C", "U.S."]
    assert found("U. S.", ("U.S.", "G")) == []


def test_scripts_without_spaces_and_with_marks() -> None:
    assert found("東京都に住む", ("東京", "CITY")) == [("東京", "CITY")]
    assert found("हिन्दी में", ("हिन्दी", "LANGUAGE")) == [("हिन्दी", "LANGUAGE")]
    assert found("हिन्दीवादी", ("हिन्दी", "LANGUAGE")) == []


@pytest.mark.parametrize(
    "content",
    [
        "name\ttype\nAda Lovelace\tPERSON\ngreen tea\tDRINK\n\n",
        "Ada Lovelace\tPERSON\nAda Lovelace\tPERSON\ngreen tea\tDRINK",
        '{"name": "Ada Lovelace", "type": "PERSON"}\n{"pattern": "green tea", "label": "DRINK", "id": "x"}\n',
    ],
)
def test_a_file_is_a_table_or_json_lines(content: str, tmp_path: Path) -> None:
    (tmp_path / "names").write_text(content, encoding="utf-8")
    text = "Green tea for Ada Lovelace"
    entities = read_gazetteer(tmp_path / "names").recognise(text).entities
    assert [(one.span.of(text), one.kind) for one in entities] == [("Green tea", "DRINK"), ("Ada Lovelace", "PERSON")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Ada\tPERSON\nBob\n", r"line 2: 1 columns in 'Bob'; expected a name, a tab and its type"),
        ("Ada\tPERSON\tx\n", r"line 1: 3 columns"),
        ("Ada\tPERSON\n\tCITY\n", r"line 2: the name '' is blank"),
        ("Ada\tPERSON\n\nAda\tSHIP\n", r"line 3: 'Ada' has the type 'SHIP', and before 'PERSON'; give each name one"),
        ("tea\tDRINK\ntea\tMEAL\n", r"line 2: 'tea' has the type 'MEAL'"),
        ('{"name": "Ada"}', r"line 1: no field 'type'; the record has name"),
        ('{"name": "Ada", "type": "P"}\n{"nam": "Bob", "type": "P"}', r"line 2: unknown field 'nam'; did you mean"),
        ('{"name": "Ada", "type": 7}', r"line 1: 'type' is a number; expected a string"),
        (
            '{"label": "P", "pattern": [{"LOWER": "ada"}]}',
            r"line 1: 'pattern' is a list; patterns of tokens need",
        ),
        ('{"name": "Ada", "type": "P"}\n{', r"line 2: not valid JSON"),
        ("", r"names\.tsv is empty"),
        ("\n \n", r"names\.tsv holds only blank lines; expected names with their types"),
    ],
)
def test_what_is_malformed_names_its_line(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "names.tsv").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_gazetteer(tmp_path / "names.tsv")
