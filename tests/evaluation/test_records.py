"""Predictions tell prior and responsibility apart, and the prior's ranking is written as TREC has it."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from retrograd.evaluation.records import prediction_record, ranking_lines
from retrograd.types import Example, Prediction

EXAMPLE = Example("q 1", "what holds tea ?", ("cup", "the cup"))


def prediction(**changes: object) -> Prediction:
    values: dict[str, object] = {
        "rows": (4, 2, 9),
        "passage_ids": ("a b", "50%", "c"),
        "weights": (0.7, 0.2, 0.1),
        "prior_weights": (0.25, 0.5, 0.25),
    }
    return Prediction("q 1", "cup", -1.5, **values | changes)  # pyright: ignore[reportArgumentType]


def test_candidates_have_prior_and_responsibility() -> None:
    record = prediction_record(prediction(), EXAMPLE)
    assert (record["query"], record["gold"]) == ("what holds tea ?", ["cup", "the cup"])
    assert record["candidates"] == [
        {"id": "a b", "row": 4, "prior": 0.25, "responsibility": 0.7},
        {"id": "50%", "row": 2, "prior": 0.5, "responsibility": 0.2},
        {"id": "c", "row": 9, "prior": 0.25, "responsibility": 0.1},
    ]


def test_weights_that_are_no_posterior_are_no_responsibilities() -> None:
    record = prediction_record(prediction(weight_kind="p(z|x)"), Example("q 1", "what ?"))
    assert record["gold"] == []
    candidates = record["candidates"]
    assert isinstance(candidates, list)
    assert [candidate["responsibility"] for candidate in candidates if isinstance(candidate, dict)] == [None] * 3


def test_the_ranking_is_by_the_prior_and_its_ids_are_words() -> None:
    lines = [line.split(" ") for line in ranking_lines([prediction()])]
    assert all(len(line) == 6 for line in lines)
    assert [unquote(line[0]) for line in lines] == ["q 1"] * 3
    assert [line[2] for line in lines] == ["50%", "a%20b", "c"]
    assert [(unquote(line[2]), int(line[3]), float(line[4])) for line in lines] == [
        ("50%", 1, 0.5),
        ("a b", 2, 0.25),
        ("c", 3, 0.25),
    ]
    assert {(line[1], line[5]) for line in lines} == {("Q0", "retrograd")}


@pytest.mark.parametrize("blank", [" ", "\t", "\n", "\N{IDEOGRAPHIC SPACE}", "\N{NO-BREAK SPACE}"])
def test_every_blank_is_written_as_in_addresses(blank: str) -> None:
    (line, *_) = ranking_lines([prediction(passage_ids=("c", f"a{blank}b", "d"))])
    assert unquote(line.split()[2]) == f"a{blank}b"
    assert len(line.split()) == 6


def test_an_id_without_blanks_stays_as_it_is() -> None:
    (line, *_) = ranking_lines([prediction(passage_ids=("c", "Caf%C3%A9", "d"))])
    assert line.split()[2] == "Caf%C3%A9"


def test_a_prediction_without_passages_has_no_ranking() -> None:
    assert list(ranking_lines([Prediction("q", "cup", -1.0)])) == []
