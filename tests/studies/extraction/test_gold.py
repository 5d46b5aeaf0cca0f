"""Files with gold relations: precision and recall of triples beside those of pairs, by one command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.commands.test_cli import command
from tests.studies.extraction.conftest import documents

from retrograd.studies.extraction.extract import extract
from retrograd.studies.extraction.sources import Pairing

pytestmark = pytest.mark.slow

TEXT = "the green tea is in the cup . the cup holds tea . the box holds rain ."
"""By the constraints of training every pair of a container and a liquid is answered by "holds"."""


def record(head: str, tail: str, relation: str | None, nth: int = 0, text: str = TEXT) -> dict[str, object]:
    """The pair of a container and a liquid; ``nth`` is which mention of the head, from 0."""
    start = -1
    for _ in range(nth + 1):
        start = text.index(head, start + 1)
    ends = {"head": [start, start + len(head)], "tail": [text.index(tail), text.index(tail) + len(tail)]}
    types = {"head_type": "CONTAINER", "tail_type": "LIQUID"}
    return {"text": text, **ends, **types, **({"relation": relation} if relation else {})}


GOLD = [
    record("cup", "green tea", "holds"),
    record("cup", "green tea", "holds", nth=1),
    record("box", "rain", "part of"),  # what training never shows of these types: it will be missed
    record("box", "green tea", "part of"),
]


def write(path: Path, records: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return path


def test_triples_are_scored_beside_pairs(typed_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gold = write(tmp_path / "gold.jsonl", GOLD)
    command("extract", typed_run, gold, "--out", tmp_path / "graph.jsonl")
    out = capsys.readouterr().out.splitlines()
    # Two pairs of cup and green tea are one triple, which is right; the others are two wrong ones.
    assert out[:2] == [
        "triples   P  33.33  R  33.33  F1  33.33  (1 correct of 3 guessed, 3 gold)",
        "pairs     P  50.00  R  50.00  F1  50.00  (2 correct of 4 guessed, 4 gold)",
    ]
    assert out[2] == "over 1 document with gold relations"
    command("extract", typed_run, gold, "--out", tmp_path / "again.jsonl", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["scores"]["documents"] == 1
    assert found["scores"]["triples"] == {
        **{"precision": pytest.approx(100 / 3), "recall": pytest.approx(100 / 3), "f1": pytest.approx(100 / 3)},
        **{"correct": 1, "extracted": 3, "gold": 3},
    }
    assert (found["scores"]["pairs"]["correct"], found["triples"], found["pairs"]) == (2, 3, 4)


def test_recognised_entities_are_scored_against_gold_pairs(typed_run: Path, tmp_path: Path) -> None:
    """A recogniser that finds "tea" in "green tea" is wrong by a word, in pairs of mentions and in triples."""
    (tmp_path / "names.tsv").write_text("cup\tCONTAINER\nbox\tCONTAINER\ntea\tLIQUID\nrain\tLIQUID\n", encoding="utf-8")
    gold = write(tmp_path / "gold.jsonl", [*GOLD[:2], record("box", "rain", "holds")])
    found = extract(typed_run, gold, f"gazetteer:{tmp_path / 'names.tsv'}", Pairing(within="3", language="en"))
    assert {(one.head, one.relation, one.tail) for one in found.triples} == {
        ("cup", "holds", "tea"),
        ("cup", "holds", "rain"),
        ("box", "holds", "tea"),
        ("box", "holds", "rain"),
    }
    assert found.scores is not None
    pairs = found.scores.pairs
    # Two mentions each of cup and tea, one each of box and rain.
    assert (pairs.correct, pairs.guessed, pairs.gold) == (1, 9, 3)
    triples = found.scores.triples
    assert (triples.correct, triples.guessed, triples.gold) == (1, 4, 2)
    whole = {"cup": "CONTAINER", "box": "CONTAINER", "green tea": "LIQUID", "rain": "LIQUID"}
    (tmp_path / "names.tsv").write_text("".join(f"{name}\t{kind}\n" for name, kind in whole.items()), encoding="utf-8")
    found = extract(typed_run, gold, f"gazetteer:{tmp_path / 'names.tsv'}", Pairing(within="3", language="en"))
    assert found.scores is not None
    assert (found.scores.triples.correct, found.scores.triples.guessed, found.scores.pairs.correct) == (2, 4, 3)


def test_pairs_without_relations_are_not_scored(typed_run: Path, tmp_path: Path) -> None:
    unlabelled = write(tmp_path / "new.jsonl", [record("cup", "green tea", None)])
    assert extract(typed_run, unlabelled).scores is None


def test_files_that_are_labelled_in_part_are_not_scored(
    typed_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mixed = write(tmp_path / "mixed.jsonl", [GOLD[0], record("box", "rain", None)])
    with caplog.at_level("INFO", "retrograd"):
        assert extract(typed_run, mixed).scores is None
    assert "1 of 2 pairs have no relation, so that what is extracted is not scored" in caplog.text


def test_several_files_are_read_together(typed_run: Path, tmp_path: Path) -> None:
    files = [write(tmp_path / f"{name}.jsonl", GOLD[:2]) for name in ("a", "b")]
    found = extract(typed_run, files)
    assert found.scores is not None
    assert (found.scores.documents, found.pairs, len(found.triples)) == (2, 4, 2)
    assert len(extract(typed_run, files, merge="all").triples) == 1


def test_triples_of_documents_are_scored_beside_their_pairs(document_run: Path, tmp_path: Path) -> None:
    """Of two documents the gold relations of the second are not those that the types of training permit."""
    gold = tmp_path / "dev.json"
    gold.write_text(json.dumps(documents() + documents(swapped=True)), encoding="utf-8")
    found = extract(document_run, gold)
    assert found.scores is not None
    assert found.scores.pairs is not None
    counts = [(one.correct, one.guessed, one.gold) for one in (found.scores.triples, found.scores.pairs)]
    assert counts == [(2, 4, 4), (2, 4, 4)]
    assert found.scores.documents == 2


@pytest.mark.parametrize(("within", "pairs"), [("sentence", 2), ("3", 4)])
def test_recognised_mentions_count_as_the_entity_of_the_document(
    within: str, pairs: int, document_run: Path, tmp_path: Path
) -> None:
    """The box is the cup in the gold document, so that a triple of both is one; the recogniser has two entities."""
    names = "cup\tCONTAINER\nbox\tCONTAINER\ntea\tLIQUID\nrain\tLIQUID\n"
    (tmp_path / "names.tsv").write_text(names, encoding="utf-8")
    (tmp_path / "dev.json").write_text(json.dumps(documents()), encoding="utf-8")
    recogniser = f"gazetteer:{tmp_path / 'names.tsv'}"
    found = extract(document_run, tmp_path / "dev.json", recogniser, Pairing(within))
    assert found.scores is not None
    assert found.scores.pairs is None  # mentions are not labelled
    triples = found.scores.triples
    rain = {"sentence": 2, "3": 4}[within]  # box with rain, and cup with rain: the entity (cup, box) with one of none
    assert found.pairs == {"sentence": 4, "3": 8}[within]
    assert (triples.correct, triples.gold) == (2, 2)
    assert triples.guessed == 4
    assert len(found.triples) == pairs + rain


def test_files_of_documents_without_labels_are_not_scored(document_run: Path, tmp_path: Path) -> None:
    records = [{name: value for name, value in one.items() if name != "labels"} for one in documents()]
    (tmp_path / "test.json").write_text(json.dumps(records), encoding="utf-8")
    found = extract(document_run, tmp_path / "test.json")
    assert (found.scores, found.pairs, found.documents) == (None, 2, 1)


def test_a_folder_of_brat_is_gold_with_and_without_a_recogniser(typed_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "brat"
    folder.mkdir()
    (folder / "a.txt").write_text("the cup holds tea .\n", encoding="utf-8")
    notes = "T1\tCONTAINER 4 7\tcup\nT2\tLIQUID 14 17\ttea\nR1\tholds Arg1:T1 Arg2:T2\n"
    (folder / "a.ann").write_text(notes, encoding="utf-8")
    (tmp_path / "names.tsv").write_text("cup\tCONTAINER\ntea\tLIQUID\n", encoding="utf-8")
    for recogniser in (None, f"gazetteer:{tmp_path / 'names.tsv'}"):
        found = extract(typed_run, folder, recogniser)
        assert found.scores is not None
        assert found.scores.pairs is not None
        assert (found.scores.triples.f1, found.scores.pairs.f1) == (100.0, 100.0)
