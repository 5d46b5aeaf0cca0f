"""From plain text to a graph in one command: entities are recognised, paired, classified, merged and written."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import networkx as nx
import pytest
from tests.commands.test_cli import command
from tests.studies.extraction.conftest import train, typed_records

from retrograd.data.relations.recognisers.recogniser import Entity
from retrograd.studies.extraction.extract import Extraction, extract
from retrograd.studies.extraction.sources import Pairing
from retrograd.types import Span, UserError

pytestmark = pytest.mark.slow

NAMES = "cup\tCONTAINER\ntea\tLIQUID\nrain\tLIQUID\nwheel\tPART\ncar\tWHOLE\n"
PAGE = "The cup holds tea. In the rain, the wheel of the car\nis a part of the flood.\n\nThe CUP has tea inside."


@pytest.fixture
def gazetteer(tmp_path: Path) -> str:
    (tmp_path / "names.tsv").write_text(NAMES, encoding="utf-8")
    return f"gazetteer:{tmp_path / 'names.tsv'}"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "page.txt").write_text(PAGE, encoding="utf-8")
    return tmp_path / "page.txt"


def ends(found: Extraction) -> set[tuple[str, str]]:
    return {(triple.head, triple.tail) for triple in found.triples}


def spacy_pipeline(folder: Path, sentences: bool = False) -> str:
    """A pipeline whose entities are listed, saved to a folder."""
    if find_spec("spacy") is None:
        pytest.skip("spacy is not installed: pip install 'retrograd[spacy]'")
    import spacy

    pipeline = spacy.blank("en")
    if sentences:
        pipeline.add_pipe("sentencizer")
    patterns = [dict(zip(("pattern", "label"), line.split("\t"), strict=True)) for line in NAMES.splitlines()]
    pipeline.add_pipe("entity_ruler", config={"phrase_matcher_attr": "LOWER"}).add_patterns(patterns)
    folder.mkdir(exist_ok=True)
    pipeline.to_disk(folder / "pipeline")
    return f"spacy:{folder / 'pipeline'}"


def test_a_page_becomes_graphml_by_a_spacy_pipeline(
    typed_run: Path, page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "graph.graphml"
    command("extract", typed_run, page, "--ner", spacy_pipeline(tmp_path), "--out", out)
    # One pair of the first sentence, one of the second; the last is the first again, in other words.
    assert capsys.readouterr().out.splitlines()[-1] == f"2 triples from 3 pairs of entities in {out}"
    graph = nx.read_graphml(out)
    assert set(graph.edges()) == {("cup", "tea"), ("wheel", "car")}
    assert {name: data["type"] for name, data in graph.nodes(data=True)} == {
        "cup": "CONTAINER",
        "tea": "LIQUID",
        "wheel": "PART",
        "car": "WHOLE",
    }
    (held,) = [data for head, _, data in graph.edges(data=True) if head == "cup"]
    sources = [line.split("\t") for line in held["sources"].splitlines()]
    assert {tuple(line[:4]) for line in sources} == {
        (str(page), "0,18", "4,7", "14,17"),
        (str(page), "78,101", "82,85", "90,93"),
    }
    assert held["score"] == pytest.approx(max(float(line[4]) for line in sources), abs=1e-4)


def test_a_page_becomes_a_graph_by_a_list_of_names(typed_run: Path, page: Path, gazetteer: str, tmp_path: Path) -> None:
    command("extract", typed_run, page, "--ner", gazetteer, "--out", tmp_path / "graph.jsonl")
    triples = [json.loads(line) for line in (tmp_path / "graph.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {(one["head"], one["head_type"], one["tail"], one["tail_type"]) for one in triples} == {
        ("cup", "CONTAINER", "tea", "LIQUID"),
        ("wheel", "PART", "car", "WHOLE"),
    }
    for triple in triples:
        assert triple["relation"] == {"cup": "holds", "wheel": "part of"}[triple["head"]]
        assert len(triple["neighbours"]) == 2
        best = triple["sources"][0]
        assert (best["score"], best["text"], best["id"]) == (triple["score"], triple["sentence"], triple["id"])


def test_the_places_of_a_triple_are_those_of_the_text(typed_run: Path, tmp_path: Path, gazetteer: str) -> None:
    page = tmp_path / "page.md"
    page.write_bytes("\ufeff# The cup\r\n\r\n* A cup of\r\n  green tea ☕.\r\n* The car has a wheel.\r\n".encode())
    text = page.read_text(encoding="utf-8-sig")
    found = extract(typed_run, page, gazetteer)
    assert ends(found) == {("cup", "tea"), ("wheel", "car")}
    for triple in found.triples:
        for source in triple.sources:
            assert source.document == str(page)
            assert source.span.of(text) == source.text
            assert source.head.of(text) == triple.head
            assert source.tail.of(text) == triple.tail
    texts = {source.text for triple in found.triples for source in triple.sources}
    assert texts == {"A cup of\n  green tea ☕.", "The car has a wheel."}


def test_only_pairs_of_types_that_training_shows_are_asked(typed_run: Path, page: Path, gazetteer: str) -> None:
    assert extract(typed_run, page, gazetteer).pairs == 3
    every = extract(typed_run, page, gazetteer, Pairing(any_pair=True))
    assert every.pairs == 2 + 6 + 2  # each order of the pairs in the three sentences
    assert ("car", "rain") in ends(every)


def test_types_are_renamed_to_those_of_training(
    typed_run: Path, page: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "other.tsv").write_text("cup\tVESSEL\ntea\tLIQUID\n", encoding="utf-8")
    names = f"gazetteer:{tmp_path / 'other.tsv'}"
    with caplog.at_level("INFO", "retrograd"):
        assert extract(typed_run, page, names).pairs == 0
    assert "it does not have VESSEL; it has CONTAINER, LIQUID, PART, WHOLE" in caplog.text
    assert "--type VESSEL=CONTAINER, or ask all pairs with --any-pair" in caplog.text
    renamed = extract(typed_run, page, names, Pairing(types={"VESSEL": "CONTAINER"}))
    assert {triple.head_type for triple in renamed.triples} == {"CONTAINER"}


def test_training_without_types_asks_every_pair_once_where_labels_are_directed(
    directed_run: Path, page: Path, gazetteer: str
) -> None:
    found = extract(directed_run, page, gazetteer, merge="none")
    assert found.pairs == 1 + 3 + 1
    for triple in found.triples:
        assert triple.relation in ("Content-Container", "Cause-Effect")
        (source,) = triple.sources
        assert (source.head.of(PAGE), source.tail.of(PAGE)) == (triple.head, triple.tail)


def test_entities_are_paired_within_a_window(typed_run: Path, page: Path, gazetteer: str) -> None:
    one = extract(typed_run, page, gazetteer)
    two = extract(typed_run, page, gazetteer, Pairing("2"))
    assert ends(two) - ends(one) == {("cup", "rain")}
    by_words = extract(typed_run, page, gazetteer, Pairing("5 words"))
    assert all(len(source.text.split()) <= 5 for triple in by_words.triples for source in triple.sources)
    assert ends(by_words) == {("cup", "tea"), ("wheel", "car")}


def test_equal_triples_are_merged_as_far_as_is_asked(
    typed_run: Path, page: Path, tmp_path: Path, gazetteer: str
) -> None:
    folder = tmp_path / "pages"
    folder.mkdir()
    for name in ("a.txt", "b.md"):
        (folder / name).write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / ".hidden.txt").write_text("cup of tea", encoding="utf-8")
    (folder / "empty.txt").touch()
    counts = {merge: extract(typed_run, folder, gazetteer, merge=merge) for merge in ("none", "document", "all")}
    assert {merge: found.pairs for merge, found in counts.items()} == {"none": 6, "document": 6, "all": 6}
    assert {merge: len(found.triples) for merge, found in counts.items()} == {"none": 6, "document": 4, "all": 2}
    assert {merge: found.documents for merge, found in counts.items()} == {"none": 2, "document": 2, "all": 2}
    (held,) = [triple for triple in counts["all"].triples if triple.head == "cup"]
    files = [folder / "a.txt", folder / "b.md"]
    assert sorted(source.document for source in held.sources) == [str(file) for file in files for _ in range(2)]
    scores = [source.score for source in held.sources]
    assert scores == sorted(scores, reverse=True)
    assert held.score == scores[0]
    assert extract(typed_run, files, gazetteer, merge="all").triples == counts["all"].triples
    with pytest.raises(UserError, match="unknown way to merge 'al'; did you mean 'all'"):
        extract(typed_run, folder, gazetteer, merge="al")


def test_a_function_recognises_and_finds_sentences(typed_run: Path, page: Path) -> None:
    def find(text: str) -> list[Entity | tuple[int, int, str]]:
        cup, tea = text.index("cup"), text.index("tea")
        return [(cup, cup + 3, "CONTAINER"), Entity(Span(tea, tea + 3), "LIQUID")]

    assert ends(extract(typed_run, page, find)) == {("cup", "tea")}
    halves = Pairing(sentences=lambda text: [(0, 8), (8, len(text))])
    assert ends(extract(typed_run, page, find, halves)) == set()
    with pytest.raises(UserError, match=r"page\.txt, text: the recogniser's entity 0 \[0, 999\) lies outside the text"):
        extract(typed_run, page, lambda _: [(0, 999, "")])
    with pytest.raises(UserError, match=r"entity 0 is 'cup'; expected Entity"):
        extract(typed_run, page, lambda _: ["cup"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=r"the sentence \[5, 5\) of your function is empty"):
        extract(typed_run, page, find, Pairing(sentences=lambda _: [(0, 5), (5, 5)]))


def test_the_language_of_sentence_ends_is_named(
    typed_run: Path, page: Path, gazetteer: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "retrograd"):
        extract(typed_run, page, gazetteer)
    assert "sentence ends are found by the rule for English; name another language with --language" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO", "retrograd"):
        extract(typed_run, page, gazetteer, Pairing(language="en"))
        extract(typed_run, page, spacy_pipeline(tmp_path, sentences=True), Pairing(language="de"))  # has its own ends
    assert "sentence ends" not in caplog.text
    with pytest.raises(UserError, match=r"page\.txt, text: no rule finds the sentence ends of language 'de'"):
        extract(typed_run, page, gazetteer, Pairing(language="de"))
    assert extract(typed_run, page, gazetteer, Pairing("4 words", "de")).pairs > 0


def test_sentences_of_a_pipeline_come_before_the_rule(typed_run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.txt"
    page.write_text("the cup is here! it holds tea", encoding="utf-8")  # no capital: one sentence by the rule
    with_ends, without = tmp_path / "with", tmp_path / "without"
    assert ends(extract(typed_run, page, spacy_pipeline(without))) == {("cup", "tea")}
    assert ends(extract(typed_run, page, spacy_pipeline(with_ends, sentences=True))) == set()


@pytest.mark.parametrize("text", ["", " \n\n", "Nothing is known of this."])
def test_text_without_entities_is_an_empty_graph(
    text: str, typed_run: Path, tmp_path: Path, gazetteer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.txt"
    page.write_text(text, encoding="utf-8")
    capsys.readouterr()
    command("extract", typed_run, page, "--ner", gazetteer, "--out", tmp_path / "graph.graphml")
    assert nx.read_graphml(tmp_path / "graph.graphml").number_of_nodes() == 0
    assert (f"{page} has no text" in capsys.readouterr().err) == (not text.strip())


def test_what_is_asked_for_in_vain_says_so(typed_run: Path, page: Path, tmp_path: Path, gazetteer: str) -> None:
    out = tmp_path / "graph.jsonl"
    with pytest.raises(UserError, match=r"for plain text name what recognises entities: --ner spacy:PIPELINE"):
        command("extract", typed_run, page, "--out", out)
    with pytest.raises(UserError, match=r"a folder, and no format .*; for plain text name what recognises entities"):
        command("extract", typed_run, tmp_path, "--out", out)
    with pytest.raises(UserError, match=r"--within, --language, --type and --any-pair .* name .* with --ner"):
        command("extract", typed_run, page, "--out", out, "--within", "2")
    with pytest.raises(UserError, match=r"--within 0: expected sentence, a number of sentences such as 3"):
        command("extract", typed_run, page, "--ner", gazetteer, "--out", out, "--within", "0")
    with pytest.raises(UserError, match=r"--type ORG=: expected RECOGNISED=TRAINING"):
        command("extract", typed_run, page, "--ner", gazetteer, "--out", out, "--type", "ORG=")
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"no file in this folder ends in \.txt, \.text, \.md"):
        command("extract", typed_run, tmp_path / "none", "--ner", gazetteer, "--out", out)
    (tmp_path / "latin.txt").write_bytes("Ada\ncaf\xe9 tea".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.txt, line 2: not UTF-8"):
        command("extract", typed_run, tmp_path / "latin.txt", "--ner", gazetteer, "--out", out)
    assert not out.exists()


@pytest.mark.parametrize("constraints", [False, True])
def test_types_come_from_the_training_file_where_a_run_has_no_constraints(
    constraints: bool,
    tmp_path: Path,
    tiny_encoder: Path,
    tiny_seq2seq: Path,
    page: Path,
    gazetteer: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    text = "car rain"  # in no relation, which does not make a pair of types to be asked
    unrelated = {"text": text, "head": [0, 3], "tail": [4, 8], "head_type": "WHOLE", "tail_type": "LIQUID"}
    changes = ("data.negative=none", f"data.type_constraints={str(constraints).lower()}")
    run = train(folder, [*typed_records(), unrelated | {"relation": "none"}], tiny_encoder, tiny_seq2seq, *changes)
    assert extract(run, page, gazetteer).pairs == 3
    (folder / "train.jsonl").unlink()
    with caplog.at_level("INFO", "retrograd"):
        found = extract(run, page, gazetteer)
    assert found.pairs == (3 if constraints else 10)
    assert ("the training data cannot be read, so that all pairs" in caplog.text) != constraints


def test_two_mentions_of_one_entity_are_no_pair_unless_nothing_is_merged(
    typed_run: Path, tmp_path: Path, gazetteer: str
) -> None:
    page = tmp_path / "page.txt"
    page.write_text("A cup is a cup.", encoding="utf-8")
    every = Pairing(any_pair=True)
    assert extract(typed_run, page, gazetteer, every).pairs == 0
    assert extract(typed_run, page, gazetteer, every, merge="none").pairs == 2
