"""Read brat's standoff: entities and relations of lines of text, and what to do about all else."""

from __future__ import annotations

from pathlib import Path

import pytest

import retrograd as rg
from retrograd.data.relations.formats import detect_format, read_relations
from retrograd.types import UserError

TEXT = "Ada Holm sang.\r\nIn Århus 🎻 she met Ove of Ulm.\n\nOve slept.\n"


def entity(name: str, kind: str, words: str, occurrence: int = 0) -> str:
    start = TEXT.index(words)
    for _ in range(occurrence):
        start = TEXT.index(words, start + 1)
    return f"{name}\t{kind} {start} {start + len(words)}\t{words}"


ANNOTATIONS = [
    entity("T1", "Person", "Ada Holm"),
    entity("T2", "City", "Århus"),
    entity("T3", "Person", "Ove"),
    entity("T4", "City", "Ulm"),
    "A1\tNegation T2",
    "#1\tAnnotatorNotes T1\ta remark of ours",
    "R1\tComes_from Arg1:T3 Arg2:T4\t",
    "*\tEquiv T1 T3",
    "E1\tMeeting:T3 Who:T1",
]


def annotate(folder: Path, lines: list[str], name: str = "a", text: str = TEXT) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.txt").write_bytes(text.encode())
    path = folder / f"{name}.ann"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_a_file_is_read_by_lines_of_its_text(tmp_path: Path) -> None:
    path = annotate(tmp_path, ANNOTATIONS)
    assert detect_format(path) == "brat"
    (instance,) = rg.read_relations(path)
    assert instance.text == "In Århus 🎻 she met Ove of Ulm."
    assert (instance.head.of(instance.text), instance.tail.of(instance.text)) == ("Ove", "Ulm")
    assert (instance.id, instance.relation) == ("R1", "Comes_from")
    assert (instance.head_type, instance.tail_type) == ("Person", "City")


def test_a_folder_is_read_in_the_order_of_its_files(tmp_path: Path) -> None:
    annotate(tmp_path, [*ANNOTATIONS[:4], "R1\tFrom Arg1:T3 Arg2:T4"], "b")
    annotate(tmp_path, [*ANNOTATIONS[:4], "R1\tIn Arg1:T3 Arg2:T2"], "a")
    annotate(tmp_path, [], "c")
    assert detect_format(tmp_path) == "brat"
    assert [(one.id, one.relation) for one in rg.read_relations(tmp_path)] == [("a:R1", "In"), ("b:R1", "From")]


def test_a_discontinuous_entity_reaches_from_its_first_to_its_last_character(tmp_path: Path) -> None:
    text = "The north and south gate of Ulm."
    lines = ["T1\tGate 4 9;20 24\tnorth gate", "T2\tCity 28 31\tUlm", "R1\tpart_of Arg1:T1 Arg2:T2"]
    (instance,) = rg.read_relations(annotate(tmp_path, lines, text=text))
    assert instance.head.of(instance.text) == "north and south gate"


def test_the_text_of_entities_in_different_lines_is_all_from_the_one_to_the_other(tmp_path: Path) -> None:
    path = annotate(tmp_path, [*ANNOTATIONS[:4], "R1\tx Arg1:T4 Arg2:T1", "R2\tx Arg1:T1 Arg2:T2"])
    first, _ = rg.read_relations(path)
    assert first.text == "Ada Holm sang.\r\nIn Århus 🎻 she met Ove of Ulm."
    assert (first.head.of(first.text), first.tail.of(first.text)) == ("Ulm", "Ada Holm")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("T9\tPerson 0\tAda", r"line 5: 'T9\\tPerson 0\\tAda' is no entity; expected a name, a tab, type, start"),
        ("T9\tPerson 0 900\tAda", r"line 5: T9 \[0, 900\) lies outside the text of 59 characters; is it the text of"),
        ("T9\tPerson 1 4\tAda", r"line 5: T9 is 'Ada', but 'da ' stands at \[1, 4\) of the text; .*line ends included"),
        ("R9 From Arg1:T3 Arg2:T4", "line 5: .* is no relation; expected a name, a tab, and a label with Arg1:T1"),
        ("R9\tFrom Arg1:T3 Arg2:T8", "line 5: no entity is named 'T8'; give it a line of its own"),
        ("R1\tFrom Arg1:T3 Arg2:T4", "line 6: a second relation is named 'R1'; give each a name of its own"),
        ("R9\tFrom Arg1:T3 Arg2:T3", r"line 5: head and tail are both \[19, 22\)"),
    ],
)  # fmt: skip
def test_faults_are_placed_and_the_rest_is_read(line: str, message: str, tmp_path: Path) -> None:
    path = annotate(tmp_path, [*ANNOTATIONS[:4], line, "R1\tFrom Arg1:T3 Arg2:T4"])
    with pytest.raises(UserError, match=message):
        rg.read_relations(path)
    refused: list[UserError] = []
    assert [one.tail_type for one in read_relations(path, "brat", refused.append)] == ["City"]
    assert len(refused) == 1
    assert str(refused[0]).startswith(f"{path}, line ")


def test_a_text_that_is_missing_or_no_text_is_named(tmp_path: Path) -> None:
    path = annotate(tmp_path, ANNOTATIONS)
    (tmp_path / "a.txt").write_bytes(b"Ada\xff")
    with pytest.raises(UserError, match=r"a\.txt: not UTF-8 \(byte 4\)"):
        rg.read_relations(path)
    (tmp_path / "a.txt").unlink()
    with pytest.raises(UserError, match=r"a\.txt"):
        rg.read_relations(tmp_path)


def test_a_folder_without_annotations_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected pairs of a\.txt and a\.ann"):
        rg.read_relations(tmp_path, "brat")
    with pytest.raises(UserError, match="a folder, and no format of relations is recognised; name the format"):
        rg.read_relations(tmp_path)
