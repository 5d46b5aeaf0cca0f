"""Relevance judgements in separate files, which say which passages are gold for each query.

One file in any of three layouts, recognised by its first line that is not blank:

JSON   one object ``{query id: {passage id: relevance}}`` (pytrec_eval, OR-QuAC's ``qrels.txt``)
TREC   four columns a line: query id, anything, passage id, relevance
BEIR   three columns a line between tabs: query id, passage id, relevance; the first line may be BEIR's heading

Above 0 is relevant.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from retrograd.data.examples import GroundedExample
from retrograd.data.record_fields import locate_errors, name_type
from retrograd.types import Example, UserError
from retrograd.util import text_files

__all__ = ["mark_gold", "read_qrels"]

_LAYOUTS = "a JSON object {query: {passage: relevance}}, or lines 'query 0 passage relevance' or 'query\\tpassage\\t1'"
_HEADING = ["query-id", "corpus-id", "score"]
Judgement = tuple[str, str, float]


def read_qrels(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the relevant passages of each query by its id, in the order of the file.

    Raises `UserError` with file and place.
    """
    lines = ((number, line) for number, line in text_files.read_lines(path) if line.strip())
    first = next(lines, None)
    relevant: dict[str, dict[str, None]] = {}
    for query, passage, relevance in () if first is None else _read_judgements(path, first, lines):
        if relevance > 0:
            relevant.setdefault(query, {})[passage] = None
    if not relevant:
        raise UserError(f"{path} judges no passage relevant; expected {_LAYOUTS}")
    return {query: tuple(passages) for query, passages in relevant.items()}


def mark_gold(examples: Iterable[Example], relevant: Mapping[str, tuple[str, ...]]) -> Iterator[Example]:
    """Yield the examples; where an id has judgements, they replace its gold passages."""
    for example in examples:
        gold = relevant.get(example.id)
        yield replace(example, gold_passages=gold) if gold and isinstance(example, GroundedExample) else example


def _read_judgements(path: Path, first: tuple[int, str], rest: Iterable[tuple[int, str]]) -> Iterator[Judgement]:
    if first[1].lstrip().startswith("{"):
        yield from _read_object(path)
        return
    if first[1].split() != _HEADING:
        yield _parse_line(path, *first)
    for number, line in rest:
        yield _parse_line(path, number, line)


def _read_object(path: Path) -> Iterator[Judgement]:
    content = text_files.read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: {name_type(content)}; expected {_LAYOUTS}")
    for query, passages in content.items():
        with locate_errors(path, f"query {query!r}"):
            if not isinstance(passages, dict):
                raise UserError(f"{name_type(passages)}; expected an object {{passage: relevance}}")
            for passage, relevance in passages.items():
                if isinstance(relevance, bool) or not isinstance(relevance, int | float):
                    raise UserError(f"passage {passage!r} has {name_type(relevance)}; expected a number, its relevance")
                yield query, passage, relevance


def _parse_line(path: Path, number: int, line: str) -> Judgement:
    tabs = "\t" in line
    columns = [cell.strip() for cell in line.split("\t")] if tabs else line.split()
    relevance = _parse_number(columns[-1]) if len(columns) == 4 or (tabs and len(columns) == 3) else None
    if relevance is None or not all(columns):
        raise UserError(f"{path}, line {number}: {line.strip()[:80]!r}; expected {_LAYOUTS}")
    return columns[0], columns[-2], relevance


def _parse_number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
