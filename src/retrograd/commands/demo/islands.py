"""An invented group of islands to ask questions about: no model can know it, and nothing needs to be downloaded.

Every place has five passages, one for each of `_FACTS`, so that a retriever must find the place and the fact. Questions
use other words than passages do. Places that are asked about in training are not asked about in the test.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from pathlib import Path

from retrograd.util.guards import JsonObject
from retrograd.util.text_files import write_jsonl

__all__ = ["Islands", "invent_islands"]

_BEGINNINGS = ("Bran", "Sel", "Tor", "Wex", "Ard", "Kel", "Mor", "Fen", "Hol", "Dun", "Pel", "Gar", "Lin", "Ost", "Rav")
_ENDINGS = ("noch", "by", "mouth", "wick", "ness", "holm", "stow", "gate", "lea", "fleet")
_FIRST_NAMES = ("Ada", "Bruno", "Clara", "Dorian", "Edda", "Felix", "Greta", "Hugo", "Irma", "Jonas", "Klara", "Leo")
_FAMILY_NAMES = ("Ashdown", "Barrow", "Crane", "Dray", "Elwood", "Farrow", "Garrick", "Hale", "Marsh", "Pike", "Reyle")
_GOODS = ("salt", "slate", "dried plums", "candles", "smoked eel", "wool", "glass bottles", "honey", "chalk", "barley")
_MONTHS = ("January", "March", "April", "May", "June", "July", "August", "September", "October", "November")
_ANIMALS = ("otters", "grey geese", "hares", "puffins", "seals", "wild goats", "herons", "ponies", "owls", "foxes")


@dataclass(frozen=True)
class _Fact:
    """One fact of a place: how passages state it, and how questions ask for it."""

    name: str
    values: tuple[str, ...]
    statements: tuple[str, ...]
    questions: tuple[str, ...]


_FACTS = (
    _Fact(
        "the lamp",
        tuple(" ".join(names) for names in itertools.product(_FIRST_NAMES, _FAMILY_NAMES)),
        (
            "At night a lamp on the old mill guides boats to {place}. {value} trims it, as an aunt did before.",
            "Sailors look for the green lamp of {place}. For twelve years it has been {value} who fills it with oil.",
        ),
        ("Whom do captains thank for coming home to {place} in the dark?", "Who never sleeps at dusk in {place}?"),
    ),
    _Fact(
        "the harbour",
        _GOODS,
        (
            "Most boats that leave {place} carry {value}. They come home with rope, flour and news.",
            "The sheds along the quay of {place} are full of {value}, waiting for a ship to the mainland.",
        ),
        ("What makes a merchant of {place} rich?", "What would you buy in {place} to sell elsewhere?"),
    ),
    _Fact(
        "the first houses",
        tuple(map(str, range(1507, 1893, 7))),
        (
            "The first houses of {place} went up in {value}, after a flood had taken the lower fields.",
            "A stone beside the well says that {place} was begun by nine families in {value}. None of it is left.",
        ),
        ("How far back does {place} go?", "In which year was there nothing yet but grass in {place}?"),
    ),
    _Fact(
        "the barrel race",
        _MONTHS,
        (
            "Each {value} the people of {place} roll barrels down the hill to the pier. The winner is given a goat.",
            "Visitors to {place} should come in {value}, when barrels thunder down Church Lane and nobody works.",
        ),
        ("When do all shops of {place} close?", "When is {place} too loud for anyone who likes to read?"),
    ),
    _Fact(
        "the meadows",
        _ANIMALS,
        (
            "Nobody may build on the meadows of {place}, because {value} raise their young there.",
            "Painters come to {place} for its {value}, which have lost all fear of people.",
        ),
        ("Who lives in {place} without paying rent?", "What should a child in {place} never chase?"),
    ),
)


@dataclass(frozen=True)
class Islands:
    """Passages, and questions about them for training and test, as records of JSON Lines."""

    passages: list[JsonObject]
    train: list[JsonObject]
    test: list[JsonObject]

    def save(self, folder: Path) -> None:
        """Write ``passages.jsonl``, ``train.jsonl`` and ``test.jsonl``."""
        for name, records in vars(self).items():
            write_jsonl(folder / f"{name}.jsonl", records)


def invent_islands(seed: int, train_places: int, test_places: int) -> Islands:
    """Return islands drawn by ``seed``, with five passages and five questions for each place."""
    draw = random.Random(seed)
    places = draw.sample([a + b for a in _BEGINNINGS for b in _ENDINGS], train_places + test_places)
    islands = Islands([], [], [])
    for number, place in enumerate(places):
        asked = islands.train if number < train_places else islands.test
        for fact in _FACTS:
            value, id_ = draw.choice(fact.values), f"{place}, {fact.name}"
            text = draw.choice(fact.statements).format(place=place, value=value)
            question = draw.choice(fact.questions).format(place=place)
            islands.passages.append({"id": id_, "title": "", "text": text})
            asked.append({"id": id_, "question": question, "answers": [value], "gold_passages": [id_]})
    for records in (islands.passages, islands.train, islands.test):
        draw.shuffle(records)
    return islands
