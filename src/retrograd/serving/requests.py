"""What clients ask, read strictly: an unknown field, a wrong type or a number out of range is named in an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from retrograd.data.examples import Turn
from retrograd.data.feedback import parse_turns
from retrograd.types import UserError
from retrograd.util.guards import JsonObject, JsonValue, describe_value, parse_json
from retrograd.util.records import read_record

__all__ = [
    "AnswerRequest",
    "EmbedRequest",
    "ExamplesRequest",
    "Query",
    "SearchRequest",
    "WeightsRequest",
    "parse_body",
    "read_query",
    "read_request",
    "require_texts",
]

_MOST_PASSAGES = 1_000
_MOST_TEXTS = 256
_MOST_PATTERNS = 8
_LONGEST_PATTERN = 200

Request = TypeVar("Request")


@dataclass(frozen=True)
class Query:
    """A query as it was sent: a text, or the turns of a dialogue from the oldest to the one to be answered."""

    text: str = ""
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True)
class SearchRequest:
    """The body of ``/api/search``, but for its query.

    ``where`` are patterns such as ``title=Cups*``; ``run`` is one of the names in ``/api/runs``, "" the first.
    """

    k: int = 5
    where: tuple[str, ...] = ()
    run: str = ""

    def __post_init__(self) -> None:
        _require_range("k", self.k, 1, _MOST_PASSAGES)
        _require_patterns(self.where)


@dataclass(frozen=True)
class AnswerRequest:
    """The body of ``/api/answer``, but for its query. ``k`` passages are read; None: as many as in the run's test."""

    k: int | None = None
    where: tuple[str, ...] = ()
    run: str = ""

    def __post_init__(self) -> None:
        if self.k is not None:
            _require_range("k", self.k, 0, _MOST_PASSAGES)
        _require_patterns(self.where)


@dataclass(frozen=True)
class EmbedRequest:
    """The body of ``/api/embed``: texts, and the side of the retriever that embeds them."""

    texts: tuple[str, ...]
    side: Literal["query", "passage"] = "query"
    run: str = ""

    def __post_init__(self) -> None:
        require_texts("texts", self.texts)


@dataclass(frozen=True)
class ExamplesRequest:
    """The body of ``/api/examples``: which of the test examples; what cannot be judged is neither wrong nor right."""

    run: str = ""
    contains: str = ""
    only: Literal["all", "wrong", "right"] = "all"
    offset: int = 0
    limit: int = 20

    def __post_init__(self) -> None:
        _require_range("offset", self.offset, 0, 10**9)
        _require_range("limit", self.limit, 1, 100)


@dataclass(frozen=True)
class WeightsRequest:
    """The body of ``/api/weights``: the number of a training example, from 0."""

    example: int = 0
    run: str = ""

    def __post_init__(self) -> None:
        _require_range("example", self.example, 0, 10**9)


def parse_body(body: bytes) -> JsonObject:
    """Return the JSON object that a body is. Raises `UserError` for anything else."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"the body is not UTF-8 at byte {error.start}") from None
    value = parse_json(text, "the body")
    if not isinstance(value, dict):
        raise UserError(f"the body is {describe_value(value)}; expected a JSON object")
    return value


def read_request(kind: type[Request], body: Mapping[str, JsonValue]) -> Request:
    """Return the fields of a body as a record. Raises `UserError` that names the field."""
    return read_record(kind, body, "the body")


def read_query(body: JsonObject) -> tuple[Query, JsonObject]:
    """Return the query of a body, in ``query`` or ``turns``, and the other fields.

    Raises `UserError` for none, and for both.
    """
    others = {name: value for name, value in body.items() if name not in ("query", "turns")}
    if ("query" in body) == ("turns" in body):
        raise UserError('the body needs "query", a text, or "turns", those of a dialogue, and not both')
    if "turns" in body:
        return Query(turns=parse_turns(body["turns"], "turns")), others
    query = body["query"]
    if not isinstance(query, str):
        raise UserError(f"the body: query is {describe_value(query)}; expected text in quotes")
    return Query(query), others


def require_texts(name: str, texts: Sequence[str]) -> None:
    """Raise `UserError` unless there are 1 to 256 texts, none of them blank."""
    if not 0 < len(texts) <= _MOST_TEXTS:
        raise UserError(f"{name} has {len(texts)} texts; expected 1 to {_MOST_TEXTS}")
    for number, text in enumerate(texts):
        if not text.strip():
            raise UserError(f"{name}[{number}] is blank; write a text")


def _require_patterns(where: Sequence[str]) -> None:
    """Raise `UserError` for many or long patterns: each is looked for in all passages."""
    if len(where) > _MOST_PATTERNS:
        raise UserError(f"where has {len(where)} patterns; expected {_MOST_PATTERNS} at most")
    for number, pattern in enumerate(where):
        if len(pattern) > _LONGEST_PATTERN:
            raise UserError(f"where[{number}] has {len(pattern)} characters; expected {_LONGEST_PATTERN} at most")


def _require_range(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise UserError(f"{name} is {value}; expected {least} to {most:,}")
