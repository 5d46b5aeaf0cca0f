"""Two tiny runs to extract with: relations between typed entities, and directed relations without types.

No label is negative, so that every pair that is asked becomes a triple, whatever the random weights are; of two types
that training shows, the constraints leave one relation.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.commands.test_cli import command, experiment_file

HELD = {"cup": "tea", "box": "tea", "cup .": "rain"}
PARTS = {"wheel": "car", "box": "car"}


def typed_records() -> list[dict[str, object]]:
    """Containers hold liquids, and parts are of wholes: the pairs of types that training shows."""
    held = [(f"the {one} holds {other} .", one, other, "holds", "CONTAINER", "LIQUID") for one, other in HELD.items()]
    parts = [(f"a {one} of the {other} .", one, other, "part of", "PART", "WHOLE") for one, other in PARTS.items()]
    records = []
    for text, head, tail, relation, head_type, tail_type in held + parts:
        ends = {"head": [text.index(head), text.index(head) + len(head)]}
        start = text.rindex(tail)
        ends["tail"] = [start, start + len(tail)]
        types = {"head_type": head_type, "tail_type": tail_type}
        records.append({"text": text, "relation": relation, **ends, **types})
    return records


def directed_records() -> list[dict[str, str]]:
    return [
        {"text": "the <e1>cup</e1> holds <e2>tea</e2> .", "label": "Content-Container(e2,e1)"},
        {"text": "<e1>rain</e1> caused the <e2>flood</e2> .", "label": "Cause-Effect(e1,e2)"},
        {"text": "the <e1>flood</e1> came from <e2>rain</e2> .", "label": "Cause-Effect(e2,e1)"},
    ]


def documents(swapped: bool = False) -> list[dict[str, object]]:
    """A document in DocRED's form: a container by two names, and a liquid, each related to the other.

    ``swapped`` gives each the other's relation, which training does not show.
    """
    sentences = ["the cup holds tea .", "a wheel of the car .", "the box came from rain ."]
    entities = [
        [_mention("cup", 0, 1, "CONTAINER"), _mention("box", 2, 1, "CONTAINER")],
        [_mention("tea", 0, 3, "LIQUID")],
    ]
    first, second = ("part of", "holds") if swapped else ("holds", "part of")
    labels = [{"h": 0, "t": 1, "r": first, "evidence": [0]}, {"h": 1, "t": 0, "r": second, "evidence": []}]
    return [{"title": "cups", "sents": [one.split() for one in sentences], "vertexSet": entities, "labels": labels}]


def _mention(name: str, sentence: int, token: int, kind: str) -> dict[str, object]:
    return {"name": name, "sent_id": sentence, "pos": [token, token + 1], "type": kind}


def train(folder: Path, records: list[dict[str, object]], encoder: Path, generator: Path, *changes: str) -> Path:
    """A run that is trained on these records, whose file stays in its folder."""
    data = folder / "train.jsonl"
    data.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    file = experiment_file(folder, data, encoder, generator)
    changes = ("data.negative=", "warm_start.epochs=0", *changes)
    command("train", file, "--out", folder / "run", *(word for change in changes for word in ("--set", change)))
    return folder / "run"


@pytest.fixture(scope="session")
def typed_run(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path, tiny_seq2seq: Path) -> Path:
    folder = tmp_path_factory.mktemp("typed")
    return train(folder, typed_records(), tiny_encoder, tiny_seq2seq, "data.type_constraints=true")


@pytest.fixture(scope="session")
def document_run(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path, tiny_seq2seq: Path) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    return train(folder, documents() * 2, tiny_encoder, tiny_seq2seq, "data.type_constraints=true")


@pytest.fixture(scope="session")
def directed_run(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path, tiny_seq2seq: Path) -> Path:
    records: list[dict[str, object]] = [dict(one) for one in directed_records()]
    return train(tmp_path_factory.mktemp("directed"), records, tiny_encoder, tiny_seq2seq)
