"""Documents as a whole: their sentences, their entities with all mentions, and the triples between these."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.data.relations.samples import SAMPLES

import retrograd as rg
from retrograd.data.relations.readers.docred import read_documents
from retrograd.types import UserError


def test_a_document_has_all_mentions_of_its_entities(tmp_path: Path) -> None:
    path = tmp_path / "dev.json"
    path.write_bytes(SAMPLES["docred: entities of mentions"].content())
    (document,) = read_documents(path)
    assert [one.of(document.text) for one in document.sentences] == [
        "Ada Holm sings .",
        "It rains .",
        "Holm lives in Aarhus .",
    ]
    assert [[(one.span.of(document.text), one.kind) for one in own] for own in document.entities] == [
        [("Ada Holm", "PER"), ("Holm", "PER")],
        [("Aarhus", "LOC")],
    ]
    assert document.triples == {(0, "P551", 1), (0, "P19", 1)}
    assert {instance.document for instance in rg.read_relations(path)} == {document.id}


def test_a_document_without_labels_has_no_triples_to_find(tmp_path: Path) -> None:
    records = json.loads(SAMPLES["docred: entities of mentions"].content())
    del records[0]["labels"]
    records[0]["sents"].append([])  # a sentence without a token is none
    (tmp_path / "test.json").write_text(json.dumps(records), encoding="utf-8")
    (document,) = read_documents(tmp_path / "test.json")
    assert document.triples is None
    assert len(document.sentences) == 3


def test_a_malformed_document_is_refused_with_its_place(tmp_path: Path) -> None:
    records = json.loads(SAMPLES["docred: entities of mentions"].content())
    records.append(records[0] | {"vertexSet": [[{"sent_id": 9, "pos": [0, 1]}]]})
    (tmp_path / "dev.json").write_text(json.dumps(records), encoding="utf-8")
    refused: list[UserError] = []
    assert len(list(read_documents(tmp_path / "dev.json", refused.append))) == 1
    assert "record 2: entity 0 has 'sent_id' 9; expected one of 3, from 0" in str(refused[0])


@pytest.mark.parametrize(
    ("sample", "documents"),
    [
        ("dygie: a document of sentences", ["a", "a"]),
        ("tacred: one record a line", ["", ""]),
        ("conll04: entities by their places", ["41"]),
    ],
)
def test_instances_say_of_which_document_they_are(sample: str, documents: list[str], tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(SAMPLES[sample].content())
    assert [one.document for one in rg.read_relations(tmp_path / "data")] == documents
