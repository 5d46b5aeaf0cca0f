"""Relevance judgements are read from separate files and replace the gold passages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retrograd.data.examples import GroundedExample
from retrograd.data.qrels import mark_gold, read_qrels
from retrograd.types import Example, UserError

LAYOUTS = {
    "JSON": json.dumps({"q 1": {"a": 1, "b": 2, "c": 0}, "q2": {"a": 0}, "q3": {"d": 1}}),
    "BEIR": "query-id\tcorpus-id\tscore\nq 1\ta\t1\nq 1\tb\t2\n\nq 1\tc\t0\nq2\ta\t0\nq3\td\t1\n",
    "BEIR, no heading": "q 1\ta\t1\nq 1\tb\t2\nq3\td\t1\n",
    "TREC, tabs": "q 1\t0\ta\t1\nq 1\tQ0\tb\t2\nq 1\t0\tc\t0\nq3\t0\td\t1\n",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_relevant_is_what_is_above_zero(layout: str, tmp_path: Path) -> None:
    path = tmp_path / "qrels.txt"
    path.write_text(LAYOUTS[layout], encoding="utf-8")
    assert read_qrels(path) == {"q 1": ("a", "b"), "q3": ("d",)}


def test_columns_between_spaces(tmp_path: Path) -> None:
    path = tmp_path / "qrels.txt"
    path.write_text("\n7 0 a 1\n7  0  b  0\n8 Q0 c 2\n", encoding="utf-8")
    assert read_qrels(path) == {"7": ("a",), "8": ("c",)}


def test_gold_passages_are_those_judged(tmp_path: Path) -> None:
    marked, unmarked = (
        GroundedExample("1", "Who?", ("Ann",), ("own",)),
        GroundedExample("2", "What?", ("it",), ("own",)),
    )
    plain = Example("1", "Who?", ("Ann",))
    found = list(mark_gold([marked, unmarked, plain], {"1": ("a", "b")}))
    assert found == [GroundedExample("1", "Who?", ("Ann",), ("a", "b")), unmarked, plain]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q\ta\t1\nq\tb\n", "line 2: 'q\\tb'; expected"),
        ("q a 1\n", "line 1: 'q a 1'; expected"),
        ("q\ta\thigh\n", "line 1: 'q\\ta\\thigh'; expected"),
        ("q\t\t1\n", "line 1: 'q\\t\\t1'; expected"),
        ("q\ta\tnan\n", "line 1: 'q\\ta\\tnan'; expected"),
        ("q 0 a much\n", "line 1: 'q 0 a much'; expected"),
        ("q 0 a 0\n", "judges no passage relevant"),
        ("\n", "judges no passage relevant"),
        ('{"q": ["a"]}', "query 'q': a list; expected an object"),
        ('{"q": {"a": "yes"}}', "query 'q': passage 'a' has a string; expected a number"),
        ('{"q": {"a": true}}', "query 'q': passage 'a' has"),
    ],
)
def test_what_is_no_judgement_says_where(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "qrels.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"qrels\.txt") as caught:
        read_qrels(path)
    assert message in str(caught.value)
