"""Relevance judgements in files of their own, beside the questions: which passages are gold.

One file in any of three layouts, told apart by its first line that is not blank:

JSON   one object ``{query id: {passage id: relevance}}`` (pytrec_eval, OR-QuAC's ``qrels.txt``)
TREC   four columns a line: query id, anything, passage id, relevance
BEIR   three columns a line between tabs: query id, passage id, relevance; the first line may name the columns

Above 0 is relevant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from retrograd import io
from retrograd.tasks.grounded_example import GroundedExample
from retrograd.tasks.record_fields import kind_of
from retrograd.tasks.record_lists import located
from retrograd.types import Example, UserError

__all__ = ["judged", "read_qrels"]

_LAYOUTS = "a JSON object {query: {passage: relevance}}, or lines 'query 0 passage relevance' or 'query\\tpassage\\t1'"
Judgement = tuple[str, str, float]


def read_qrels(path: Path) -> dict[str, tuple[str, ...]]:
    """The relevant passages of each query by id, in the order of the file. Raises `UserError` with file and place."""
    lines = ((number, line) for number, line in io.read_lines(path) if line.strip())
    first = next(lines, None)
    found: dict[str, dict[str, None]] = {}
    for query, passage, relevance in () if first is None else _judgements(path, first, lines):
        if relevance > 0:
            found.setdefault(query, {})[passage] = None
    if not found:
        raise UserError(f"{path} judges no passage relevant; expected {_LAYOUTS}")
    return {query: tuple(passages) for query, passages in found.items()}


def judged(examples: Iterable[Example], relevant: Mapping[str, tuple[str, ...]]) -> Iterator[Example]:
    """The examples, with the gold passages of those whose id is judged in the place of their own."""
    for example in examples:
        gold = relevant.get(example.id)
        yield replace(example, gold_passages=gold) if gold and isinstance(example, GroundedExample) else example


def _judgements(path: Path, first: tuple[int, str], rest: Iterable[tuple[int, str]]) -> Iterator[Judgement]:
    if first[1].lstrip().startswith("{"):
        yield from _of_object(path)
        return
    if not _is_heading(first[1]):
        yield _of_line(path, *first)
    for number, line in rest:
        yield _of_line(path, number, line)


def _of_object(path: Path) -> Iterator[Judgement]:
    whole = io.read_json(path)
    if not isinstance(whole, dict):
        raise UserError(f"{path}: {kind_of(whole)}; expected {_LAYOUTS}")
    for query, passages in whole.items():
        with located(path, f"query {query!r}"):
            if not isinstance(passages, dict):
                raise UserError(f"{kind_of(passages)}; expected an object {{passage: relevance}}")
            for passage, relevance in passages.items():
                if isinstance(relevance, bool) or not isinstance(relevance, int | float):
                    raise UserError(f"passage {passage!r} has {kind_of(relevance)}; expected a number, its relevance")
                yield query, passage, relevance


def _is_heading(line: str) -> bool:
    columns = _columns(line)
    return len(columns) == 3 and _number(columns[-1]) is None


def _of_line(path: Path, number: int, line: str) -> Judgement:
    columns = _columns(line)
    relevance = _number(columns[-1]) if len(columns) in (3, 4) else None
    if relevance is None:
        raise UserError(f"{path}, line {number}: {line.strip()[:80]!r}; expected {_LAYOUTS}")
    return columns[0], columns[-2], relevance


def _columns(line: str) -> list[str]:
    return [one.strip() for one in line.strip().split("\t")] if "\t" in line else line.split()


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
