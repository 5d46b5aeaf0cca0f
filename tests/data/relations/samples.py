"""A small sound file of our own in each format of relations: how it is written, and what is read of it.

`tests.data.relations.readers.test_readers` reads them, `tests.fuzz` damages them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

__all__ = ["JSON_SAMPLES", "SAMPLES", "Sample"]

Read = tuple[str, str, str, str, str | None]
"""What an instance is: head, its type, tail, its type, relation."""


@dataclass(frozen=True)
class Sample:
    """A file in a format; ``records`` is what is written, as JSON Lines, or as one JSON value where ``is_whole``."""

    format: str
    name: str
    records: list[dict[str, object]] | dict[str, object]
    instances: list[Read]
    is_whole: bool = False
    text: str = ""
    """The text of the first instance."""

    def content(self) -> bytes:
        """Return the file."""
        if self.is_whole:
            return json.dumps(self.records, ensure_ascii=False).encode()
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in self.records).encode()


_TACRED = {
    "token": ["Ines", "Moravec", "-LRB-", "a", "pilot", "-RRB-", "sang"],
    "subj_type": "PERSON",
    "obj_type": "TITLE",
    "relation": "per:title",
    "stanford_pos": ["NNP"],
}

JSON_SAMPLES: tuple[Sample, ...] = (
    Sample(
        "tacred",
        "one record a line",
        [_TACRED | {"id": f"d{i}", "subj_start": 0, "subj_end": 1, "obj_start": 4, "obj_end": 4} for i in range(2)],
        [("Ines Moravec", "PERSON", "pilot", "TITLE", "per:title")] * 2,
        text="Ines Moravec ( a pilot ) sang",
    ),
    Sample(
        "tacred_exclusive",
        "ends behind the last token",
        [_TACRED | {"id": f"d{i}", "subj_start": 0, "subj_end": 2, "obj_start": 4, "obj_end": 5} for i in range(20)],
        [("Ines Moravec", "PERSON", "pilot", "TITLE", "per:title")] * 20,
        text="Ines Moravec ( a pilot ) sang",
    ),
    Sample(
        "opennre",
        "tokens",
        [
            {
                "token": ["The", "river", "Oder", "flows", "by", "Brieskow", "."],
                "h": {"name": "oder", "id": "Q1", "pos": [1, 3]},
                "t": {"name": "brieskow", "id": "Q2", "pos": [5, 6]},
                "relation": "located next to",
            }
        ],
        [("river Oder", "", "Brieskow", "", "located next to")],
        text="The river Oder flows by Brieskow .",
    ),
    Sample(
        "opennre",
        "characters",
        [
            {"text": "Lena paints the 🚣 boat.", "h": {"pos": [0, 4]}, "t": {"pos": [18, 22]}, "relation": "paints"},
            {"text": "Omar mends a kite.", "h": {"pos": [0, 4]}, "t": {"pos": [13, 17]}, "relation": "mends"},
        ],
        [("Lena", "", "boat", "", "paints"), ("Omar", "", "kite", "", "mends")],
        text="Lena paints the 🚣 boat.",
    ),
    Sample(
        "fewrel",
        "an object by relation",
        {
            "P57": [
                {
                    "tokens": ["Mara", "Lind", "directed", "Fog", "and", "Mara", "Lind", "cut", "Fog"],
                    "h": ["fog", "Q3", [[3], [8]]],
                    "t": ["mara lind", "Q4", [[0, 1], [5, 6]]],
                }
            ],
            "P86": [
                {"tokens": ["Dee", "scored", "Dusk"], "h": ["dusk", "Q5", [[2]]], "t": ["dee", "Q6", [[0]]]},
                {"tokens": ["Dee", "scored", "Dawn"], "h": ["dawn", "Q7", [[2]]], "t": ["dee", "Q6", [[0]]]},
            ],
        },
        [("Fog", "", "Mara Lind", "", "P57"), ("Dusk", "", "Dee", "", "P86"), ("Dawn", "", "Dee", "", "P86")],
        is_whole=True,
        text="Mara Lind directed Fog and Mara Lind cut Fog",
    ),
    Sample(
        "dygie",
        "a document of sentences",
        [
            {
                "doc_key": "a",
                "sentences": [["We", "train", "a", "parser", "."], ["It", "reads", "long", "poems", "on", "chips"]],
                "ner": [[[3, 3, "Method"]], [[7, 8, "Material"], [10, 10, "Tool"]]],
                "relations": [[], [[7, 8, 10, 10, "Used-on"], [10, 10, 7, 8, "Reads", 0.7]]],
                "clusters": [[[3, 3], [5, 5]]],
            }
        ],
        [
            ("long poems", "Material", "chips", "Tool", "Used-on"),
            ("chips", "Tool", "long poems", "Material", "Reads"),
        ],
        text="It reads long poems on chips",
    ),
    Sample(
        "dygie",
        "a sentence, as CrossRE",
        [
            {
                "doc_key": f"music-{i}",
                "sentence": ["Tess", "Vale", "founded", "The", "Kettles"],
                "ner": [[0, 1, "person"], [3, 4, "band"]],
                "relations": [[3, 4, 0, 1, "role", "founder", False, False]],
            }
            for i in range(2)
        ],
        [("The Kettles", "band", "Tess Vale", "person", "role")] * 2,
        text="Tess Vale founded The Kettles",
    ),
    Sample(
        "conll04",
        "entities by their places",
        [
            {
                "orig_id": 41,
                "tokens": ["Ida", "Berg", "lives", "in", "Oslo", "."],
                "entities": [{"type": "Loc", "start": 4, "end": 5}, {"type": "Peop", "start": 0, "end": 2}],
                "relations": [{"type": "Live_In", "head": 1, "tail": 0}],
            },
            {"orig_id": 42, "tokens": ["Rain", "fell"], "entities": [], "relations": []},
        ],
        [("Ida Berg", "Peop", "Oslo", "Loc", "Live_In")],
        is_whole=True,
        text="Ida Berg lives in Oslo .",
    ),
    Sample(
        "glirel",
        "ends inclusive",
        [
            {
                "ner": [[0, 0, "PERSON", "Juno"], [3, 4, "RIVER", "River Ems"]],
                "relations": [
                    {
                        "head": {"mention": "Juno", "position": [0, 0], "type": "X"},
                        "tail": {"mention": "the River Ems", "position": [2, 4], "type": "Q9"},
                        "relation_text": "lives beside",
                    }
                ],
                "tokenized_text": ["Juno", "beside", "the", "River", "Ems"],
            }
        ],
        [("Juno", "PERSON", "the River Ems", "Q9", "lives beside")],
        text="Juno beside the River Ems",
    ),
    Sample(
        "label_studio",
        "an export",
        [
            {
                "id": 5,
                "data": {"text": "🎻 Nora plays for Ove."},
                "annotations": [
                    {"id": 1, "was_cancelled": True, "result": []},
                    {
                        "id": 2,
                        "result": [
                            # Browsers count the violin twice.
                            {
                                "id": "n",
                                "type": "labels",
                                "value": {"start": 3, "end": 7, "text": "Nora", "labels": ["PER"]},
                            },
                            {
                                "id": "o",
                                "type": "labels",
                                "value": {"start": 18, "end": 21, "text": "Ove", "labels": ["PER"]},
                            },
                            {
                                "type": "relation",
                                "from_id": "n",
                                "to_id": "o",
                                "direction": "right",
                                "labels": ["serves", "knows"],
                            },
                            {"type": "relation", "from_id": "n", "to_id": "o", "direction": "left"},
                        ],
                    },
                ],
            }
        ],
        [
            ("Nora", "PER", "Ove", "PER", "serves"),
            ("Nora", "PER", "Ove", "PER", "knows"),
            ("Ove", "PER", "Nora", "PER", None),
        ],
        is_whole=True,
        text="🎻 Nora plays for Ove.",
    ),
    Sample(
        "prodigy",
        "accepted texts",
        [
            {
                "text": "Gus owns a cafe.",
                "answer": "accept",
                "spans": [{"start": 0, "end": 3, "label": "PER"}, {"start": 11, "end": 15, "label": "PLACE"}],
                "relations": [
                    {
                        "head": 0,
                        "child": 3,
                        "head_span": {"start": 0, "end": 3, "token_start": 0, "token_end": 0, "label": "PER"},
                        "child_span": {"start": 11, "end": 15, "token_start": 3, "token_end": 3, "label": "PLACE"},
                        "label": "owns",
                    }
                ],
            },
            {"text": "Gus sleeps.", "answer": "reject", "spans": [], "relations": ["anything"]},
        ],
        [("Gus", "PER", "cafe", "PLACE", "owns")],
        text="Gus owns a cafe.",
    ),
    Sample(
        "doccano",
        "relations of ids",
        [
            {
                "id": 70,
                "text": "Bo rents Hut Nine.",
                "entities": [
                    {"id": 8, "label": "PER", "start_offset": 0, "end_offset": 2},
                    {"id": 9, "label": "PLACE", "start_offset": 9, "end_offset": 17},
                ],
                "relations": [{"id": 1, "from_id": 8, "to_id": 9, "type": "rents"}],
                "Comments": [],
            }
        ],
        [("Bo", "PER", "Hut Nine", "PLACE", "rents")],
        text="Bo rents Hut Nine.",
    ),
    Sample(
        "docred",
        "entities of mentions",
        [
            {
                "title": "Ada Holm",
                "sents": [["Ada", "Holm", "sings", "."], ["It", "rains", "."], ["Holm", "lives", "in", "Aarhus", "."]],
                "vertexSet": [
                    [
                        {"name": "Ada Holm", "sent_id": 0, "pos": [0, 2], "type": "PER"},
                        {"name": "Holm", "sent_id": 2, "pos": [0, 1], "type": "PER"},
                    ],
                    [{"name": "Aarhus", "sent_id": 2, "pos": [3, 4], "type": "LOC"}],
                ],
                "labels": [
                    {"h": 0, "t": 1, "r": "P551", "evidence": [2]},
                    {"h": 0, "t": 1, "r": "P19", "evidence": []},
                ],
            }
        ],
        [
            ("Holm", "PER", "Aarhus", "LOC", "P551"),
            ("Holm", "PER", "Aarhus", "LOC", "P19"),
            ("Aarhus", "LOC", "Holm", "PER", "NA"),
        ],
        is_whole=True,
        text="Holm lives in Aarhus .",
    ),
    Sample(
        "rows",
        "a JSON list",
        [{"text": "Kit feeds Rex.", "head": "Kit", "tail": [10, 13], "relation": "feeds", "source": "mine"}],
        [("Kit", "", "Rex", "", "feeds")],
        is_whole=True,
        text="Kit feeds Rex.",
    ),
    Sample(
        "jsonl",
        "words",
        [{"text": "Kit feeds Rex; Kitty sleeps.", "head": "Kit", "tail": "Rex", "relation": "feeds"}],
        [("Kit", "", "Rex", "", "feeds")],
        text="Kit feeds Rex; Kitty sleeps.",
    ),
)

SAMPLES: dict[str, Sample] = {f"{sample.format}: {sample.name}": sample for sample in JSON_SAMPLES}
