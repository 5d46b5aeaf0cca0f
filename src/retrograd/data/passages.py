"""Readers of the passages of a corpus, one at a time: JSON Lines in several layouts, and DPR's tables.

``jsonl``  one object a line: text in ``text``, ``contents``, ``content``, ``passage`` or ``body`` (required); title in
           ``title`` or ``name``; id in ``id``, ``_id``, ``pid``, ``docid`` or ``doc_id``, else the row, from 0. BEIR's
           ``corpus.jsonl`` and Pyserini's ``contents`` are of this kind. Other fields are not read.
``tsv``    a header and rows with the columns id, text and title in any order: DPR's ``psgs_w100.tsv``. Title may be
           missing.

Compressed files are read as they are (`retrograd.util.packed_files`). 16 bytes a passage are kept, to find repeated
ids; nothing else.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, get_args

from retrograd.data.record_fields import locate_errors, require_known
from retrograd.deferred import np
from retrograd.types import Passage, UserError
from retrograd.util.guards import JsonValue
from retrograd.util.text_files import Refuse, first_line, raise_error, read_jsonl, read_tsv, split_row

__all__ = ["CORPUS_FORMATS", "CorpusFormat", "detect_corpus_format", "passages_of", "read_corpus"]

CorpusFormat = Literal["auto", "jsonl", "tsv"]
"""The values of ``data.base_format`` for every kind of data: a new one is named here, in `_READERS` and, if "auto"
knows it, in `detect_corpus_format`."""

CORPUS_FORMATS: tuple[CorpusFormat, ...] = get_args(CorpusFormat)

_TEXTS = ("text", "contents", "content", "passage", "body")
_TITLES = ("title", "name")
_IDS = ("id", "_id", "pid", "docid", "doc_id")

Numbered = Iterator[tuple[int, Passage]]


def read_corpus(
    path: Path,
    format: str = "auto",  # noqa: A002 (the field's word)
    refuse: Refuse = raise_error,
) -> Iterator[Passage]:
    """Return the passages of a file in one of `CORPUS_FORMATS`, in order; ``auto`` looks at its first line that is not
    blank.

    Malformed records go to ``refuse`` (file and line) and, when all have been read, ids that two lines have (file and
    both lines). Raises `UserError` for an unknown format.
    """
    require_known(format, CORPUS_FORMATS, "corpus format")
    detected = detect_corpus_format(path) if format == "auto" else format
    return _refuse_repeated(path, _READERS[detected], refuse)


def detect_corpus_format(path: Path) -> str:
    """Return the format of a file, judged by its first line that is not blank. Raises `UserError` where none fits."""
    number, line = first_line(path, "passages")
    if line.lstrip().startswith("{"):
        return "jsonl"
    if {"id", "text"} <= set(split_row(line, line.count("\t") + 1)):
        return "tsv"
    raise UserError(
        f"{path}, line {number}: neither a JSON object nor a header with the columns id and text, "
        f"separated by tabs; name the format: {', '.join(CORPUS_FORMATS[1:])}"
    )


def _read_jsonl(path: Path, refuse: Refuse) -> Numbered:
    for row, (number, record) in enumerate(read_jsonl(path, refuse)):
        try:
            yield number, _read_passage(record, row)
        except UserError as error:
            refuse(UserError(f"{path}, line {number}: {error}"))


def passages_of(records: Iterable[Mapping[str, JsonValue]]) -> Iterator[Passage]:
    """Yield the passages of records with the fields of the format ``jsonl``.

    Raises `UserError`, with the number of the record (from 1), for a malformed one.
    """
    for row, record in enumerate(records):
        with locate_errors(Path("the records"), f"record {row + 1}"):
            yield _read_passage(record, row)


def _read_passage(record: Mapping[str, JsonValue], row: int) -> Passage:
    text, title, id_ = (
        next((name for name in names if record.get(name) is not None), None) for names in (_TEXTS, _TITLES, _IDS)
    )
    if text is None:
        raise UserError(
            f"no text; the record has {', '.join(record) or 'no fields'}, expected one of {', '.join(_TEXTS)}"
        )
    key = str(row) if id_ is None else record[id_]
    if isinstance(key, int) and not isinstance(key, bool):
        key = str(key)
    if not isinstance(key, str):
        raise UserError(f"{id_!r} is {json.dumps(key)[:60]}; expected a string or a whole number")
    return Passage(key, "" if title is None else _read_string(record, title), _read_string(record, text))


def _read_string(record: Mapping[str, JsonValue], name: str) -> str:
    value = record[name]
    if not isinstance(value, str):
        raise UserError(f"{name!r} is {json.dumps(value)[:60]}; expected a string")
    return value


def _read_tsv(path: Path, refuse: Refuse) -> Numbered:
    for number, row in read_tsv(path, ("id", "text"), refuse):
        yield number, Passage(row["id"], row.get("title", ""), row["text"])


def _refuse_repeated(path: Path, read: Callable[[Path, Refuse], Numbered], refuse: Refuse) -> Iterator[Passage]:
    """Yield the passages; lines whose ids have equal hashes are read again at the end and compared."""
    hashes, numbers = array("q"), array("q")
    for number, passage in read(path, refuse):
        hashes.append(hash(passage.id))
        numbers.append(number)
        yield passage
    values = np.frombuffer(hashes, dtype=np.int64)
    order = np.argsort(values, kind="stable")
    repeated = np.flatnonzero(values[order][1:] == values[order][:-1])
    if not len(repeated):
        return
    suspects = {numbers[int(position)] for position in np.concatenate([order[repeated], order[repeated + 1]])}
    first: dict[str, int] = {}
    for number, passage in read(path, lambda _: None):  # what is malformed has been refused
        if number in suspects:
            if passage.id in first:
                message = f"the id {passage.id!r} is already used at line {first[passage.id]}"
                remedy = "ids must be distinct (leave them out to number the passages)"
                refuse(UserError(f"{path}, line {number}: {message}; {remedy}"))
            first.setdefault(passage.id, number)


_READERS: Mapping[str, Callable[[Path, Refuse], Numbered]] = {"jsonl": _read_jsonl, "tsv": _read_tsv}
"""How each of `CORPUS_FORMATS` but "auto" is read."""
