"""Read spaCy's documents with relations, written by spaCy itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import retrograd as rg
from retrograd.data.relations.formats import detect_format, read_relations
from retrograd.types import UserError

spacy = pytest.importorskip("spacy")
tokens = pytest.importorskip("spacy.tokens")

WORDS = "Ida Berg lives in Oslo . It rains . She met Ove there ."


@pytest.fixture(autouse=True)
def extension() -> Iterator[None]:
    """Declare ``doc._.rel`` as those who write such files do."""
    tokens.Doc.set_extension("rel", default=None)
    yield
    tokens.Doc.remove_extension("rel")


def write(path: Path, relations: object, *, has_sentences: bool = True, keeps_user_data: bool = True) -> Path:
    """Write one document without annotations, and one with three entities and some relations."""
    nlp = spacy.blank("en")
    doc = nlp(WORDS)
    doc.ents = [tokens.Span(doc, 0, 2, "PER"), tokens.Span(doc, 4, 5, "LOC"), tokens.Span(doc, 11, 12, "PER")]
    if has_sentences:
        for token in doc:
            token.is_sent_start = token.i in (0, 6, 9)
    doc._.rel = relations
    docs = [nlp("Nobody is here ."), doc]
    tokens.DocBin(docs=docs, store_user_data=keeps_user_data).to_disk(path)
    return path


def test_relations_are_those_with_a_score_of_one_half(tmp_path: Path) -> None:
    relations = {(0, 4): {"lives in": 1.0, "born in": 0.4}, (4, 0): {"lives in": 0.0}, (11, 0): {"knows": 0.5}}
    path = write(tmp_path / "dev.spacy", relations)
    assert detect_format(path) == "docbin"
    first, second = rg.read_relations(path)
    assert (first.id, first.text, first.relation) == ("2:1", "Ida Berg lives in Oslo .", "lives in")
    assert (first.head.of(first.text), first.head_type) == ("Ida Berg", "PER")
    assert (first.tail.of(first.text), first.tail_type) == ("Oslo", "LOC")
    assert (second.id, second.text, second.relation) == ("2:2", WORDS, "knows")
    assert (second.head.of(second.text), second.tail.of(second.text)) == ("Ove", "Ida Berg")


def test_without_sentences_the_text_is_the_whole_document(tmp_path: Path) -> None:
    path = write(tmp_path / "dev.spacy", {(0, 4): {"lives in": 1.0}}, has_sentences=False)
    assert [one.text for one in rg.read_relations(path)] == [WORDS]


@pytest.mark.parametrize("pair", [(1, 4), (0, 0.0), (0,), "ab", 3])
def test_a_pair_that_is_no_entities_is_refused(pair: object, tmp_path: Path) -> None:
    path = write(tmp_path / "dev.spacy", {pair: {"lives in": 1.0}, (0, 11): {"knows": 1}})
    with pytest.raises(UserError, match=r"document 2, relation 1: .* are not the first tokens of two entities"):
        rg.read_relations(path)
    refused: list[UserError] = []
    assert [one.id for one in read_relations(path, "auto", refused.append)] == ["2:2"]
    assert len(refused) == 1


@pytest.mark.parametrize(("relations", "keeps_user_data"), [(None, True), ([1], True), ({(0, 4): {"r": 1.0}}, False)])
def test_documents_without_relations_say_how_to_keep_them(
    relations: object, keeps_user_data: bool, tmp_path: Path
) -> None:
    path = write(tmp_path / "dev.spacy", relations, keeps_user_data=keeps_user_data)
    with pytest.raises(UserError, match=r"no document has relations in doc\._\.rel; .*store_user_data=True"):
        rg.read_relations(path)


def test_documents_whose_pairs_are_all_unrelated_have_no_instances(tmp_path: Path) -> None:
    assert rg.read_relations(write(tmp_path / "dev.spacy", {(0, 4): {"lives in": 0.0}})) == []


@pytest.mark.parametrize("change", [lambda sound: sound[:40], lambda _: b"no documents", lambda _: b""])
def test_a_damaged_file_is_named(change: object, tmp_path: Path) -> None:
    assert callable(change)
    path = write(tmp_path / "dev.spacy", {(0, 4): {"lives in": 1.0}})
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=r"dev\.spacy: (damaged, or no DocBin|.*empty)"):
        rg.read_relations(path)


def test_without_spacy_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "dev.spacy", {(0, 4): {"lives in": 1.0}})
    monkeypatch.setattr("retrograd.util.optional.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"needs spacy, which is not installed: pip install 'retrograd\[spacy\]'"):
        rg.read_relations(path)
