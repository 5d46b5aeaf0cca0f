"""Readers of the passages of a corpus, one at a time: records in any container, tables, and folders of documents.

``jsonl``, ``json``, ``csv``, ``parquet`` and ``arrow`` hold records (`retrograd.data.rows`), with text, title and id by
the names of `retrograd.data.passage_records`, or where a map of fields says (`retrograd.data.field_maps`). Documents of
LlamaIndex, LangChain and Haystack, BEIR's ``corpus.jsonl`` and Pyserini's files are of this kind.

``tsv``         a header and rows with the columns id, text and title in any order: DPR's ``psgs_w100.tsv``. Title may
                be missing.
``collection``  id, tab and text, without a header: MS MARCO's ``collection.tsv``.
``beir``        a BEIR folder: its ``corpus.jsonl``.
``documents``   a folder of text, Markdown, HTML and PDF files, or one of these, cut into passages
                (`retrograd.data.documents.folder`).

Compressed text files are read as they are (`retrograd.util.packed_files`). 16 bytes a passage are kept, to find
repeated ids; nothing else, but for a list or an object of JSON, which is held whole.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from retrograd.data.beir import find_beir_corpus
from retrograd.data.documents.folder import is_document, read_documents
from retrograd.data.documents.windows import Windows
from retrograd.data.field_maps import PassageFields, map_record, map_records
from retrograd.data.passage_records import PASSAGE_NAMES, expand_stores, has_text, read_passage
from retrograd.data.proposals import mapped_kind, propose_passage_fields, require_field
from retrograd.data.record_fields import Records, locate_errors, require_known
from retrograd.data.rows import ROW_KINDS, is_saved_dataset, read_rows, row_kind, split_header
from retrograd.data.sentences import SplitSentences
from retrograd.deferred import np
from retrograd.types import Passage, UserError
from retrograd.util.guards import JsonObject
from retrograd.util.text_files import Refuse, first_line, raise_error, read_lines, read_tsv, split_row

__all__ = ["CORPUS_FORMATS", "CorpusFormat", "detect_corpus_format", "holds_documents", "passages_of", "read_corpus"]

CorpusFormat = Literal["auto", "jsonl", "json", "csv", "parquet", "arrow", "tsv", "collection", "beir", "documents"]
"""The values of ``data.base_format`` for every kind of data: a new one is named here, in `_READERS` and, if "auto"
knows it, in `detect_corpus_format`."""

CORPUS_FORMATS: tuple[CorpusFormat, ...] = get_args(CorpusFormat)

_TEXT_COLUMNS = frozenset(PASSAGE_NAMES) - {"title", "name"}
_NO_FIELDS = PassageFields()
_WINDOWS = Windows()
_SETTING = "data.base_fields"

Numbered = Iterator[tuple[str, int, Passage]]
"""Place, number and value of every passage; the places of one file differ in their numbers alone."""


def read_corpus(
    path: Path,
    format: str = "auto",  # noqa: A002 (the field's word)
    refuse: Refuse = raise_error,
    fields: PassageFields = _NO_FIELDS,
    windows: Windows = _WINDOWS,
    split_sentences: SplitSentences | None = None,
) -> Iterator[Passage]:
    """Return the passages of a file or folder in one of `CORPUS_FORMATS`, in order; ``auto`` looks at its beginning.

    ``fields`` says where records have what. ``windows`` is how documents are cut, and ``split_sentences`` takes the
    place of its rule for sentences. Malformed records go to ``refuse`` (file and place) and, when all have been read,
    ids that two records have (file and both places). Raises `UserError` for an unknown format, and where no record has
    a text, with a proposal.
    """
    if fields.paths:
        kind = mapped_kind(path, format, "data.base_format", _SETTING)
        return _refuse_repeated(path, partial(_read_rows, kind=kind, fields=fields), refuse)
    require_known(format, CORPUS_FORMATS, "corpus format")
    detected = detect_corpus_format(path) if format == "auto" else format
    read = _READERS[detected]
    if detected == "documents":
        read = partial(_read_documents, windows=windows, split_sentences=split_sentences)
    elif detected in ROW_KINDS:
        require_field(path, detected, PASSAGE_NAMES, has_text, "text", propose_passage_fields, _SETTING)
    return _refuse_repeated(path, read, refuse)


def passages_of(records: Iterable[JsonObject], fields: PassageFields = _NO_FIELDS) -> Iterator[Passage]:
    """Yield the passages of records with the fields of the format ``jsonl``, or where ``fields`` says.

    Raises `UserError`, with the number of the record (from 1), for a malformed one.
    """
    for row, record in enumerate(records):
        with locate_errors(Path("the records"), f"record {row + 1}"):
            yield read_passage(map_record(record, fields), row)


def detect_corpus_format(path: Path) -> str:
    """Return the format of a file or folder, judged by its beginning and its name.

    Raises `UserError` where none fits.
    """
    if os.path.isdir(path):
        return "arrow" if is_saved_dataset(path) else "documents" if find_beir_corpus(path) is None else "beir"
    if is_document(path) and path.suffix.lower() not in _TEXT_ENDINGS:
        return "documents"
    kind = row_kind(path)
    return _detect_text(path) if kind == "csv" else kind


def holds_documents(path: Path, format: str = "auto") -> bool:  # noqa: A002 (the field's word)
    """Return whether a base in one of `CORPUS_FORMATS` is of documents, which are cut as they are read."""
    if format == "auto":
        try:
            format = detect_corpus_format(path)  # noqa: A001
        except UserError:
            return False
    return format == "documents"


def _detect_text(path: Path) -> str:
    """Return the format of a text that is no JSON: of prose only where it is named as a document."""
    number, line = first_line(path, "passages")
    header = split_header(line)
    if {"id", "text"} <= set(split_row(line, line.count("\t") + 1)):
        return "tsv"
    if _NUMBERED_TEXT.fullmatch(line):
        return "collection"
    known = len(_TEXT_COLUMNS.intersection(header))
    if is_document(path) and "\t" not in line and known < 2:
        return "documents"
    if known or len(header) > 1:
        return "csv"
    raise UserError(
        f"{path}, line {number}: neither JSON, nor a table whose first line names its columns, nor an id, a tab and a "
        f"text; name the format: {', '.join(CORPUS_FORMATS[1:])}"
    )


_TEXT_ENDINGS = (".txt", ".text")
_NUMBERED_TEXT = re.compile(r"[^\s]*\d[^\s]*\t[^\t]*")


def _read_records(path: Path, records: Records, refuse: Refuse) -> Numbered:
    for row, (place, number, record) in enumerate(expand_stores(records)):
        passage: Passage | None = None
        with locate_errors(path, place, refuse):
            passage = read_passage(record, row)
        if passage is not None:
            yield place, number, passage


def _read_rows(path: Path, refuse: Refuse, kind: str, fields: PassageFields = _NO_FIELDS) -> Numbered:
    names = (*PASSAGE_NAMES, *fields.paths.values())
    rows = read_rows(path, names, refuse, kind)
    return _read_records(path, map_records(path, rows, fields, refuse), refuse)


def _read_tsv(path: Path, refuse: Refuse) -> Numbered:
    for number, row in read_tsv(path, ("id", "text"), refuse):
        yield f"line {number}", number, Passage(row["id"], row.get("title", ""), row["text"])


def _read_collection(path: Path, refuse: Refuse) -> Numbered:
    for number, line in read_lines(path, refuse):
        if not line.strip():
            continue
        id_, *texts = cells = line.split("\t")
        if number == 1 and set(cells) <= set(PASSAGE_NAMES):
            raise UserError(f'{path} names its columns; set data.base_format = "csv"')
        if len(texts) != 1 or not id_.strip():
            expected = "expected an id, one tab and a text, without tabs in it"
            refuse(UserError(f"{path}, line {number}: {len(texts) + 1} cells; {expected}"))
            continue
        yield f"line {number}", number, Passage(id_.strip(), "", texts[0])


def _read_beir(path: Path, refuse: Refuse) -> Numbered:
    corpus = find_beir_corpus(path)
    if corpus is None:
        raise UserError(f"{path} has no corpus.jsonl; give the folder of a data set of BEIR")
    return ((f"{corpus.name} {place}", number, one) for place, number, one in _read_rows(corpus, refuse, "jsonl"))


def _read_documents(
    path: Path, refuse: Refuse, windows: Windows = _WINDOWS, split_sentences: SplitSentences | None = None
) -> Numbered:
    passages = read_documents(path, windows, refuse, split_sentences)
    return ((f"passage {number}", number, passage) for number, passage in enumerate(passages, start=1))


def _refuse_repeated(path: Path, read: Callable[[Path, Refuse], Numbered], refuse: Refuse) -> Iterator[Passage]:
    """Yield the passages; records whose ids have equal hashes are read again at the end and compared."""
    hashes, numbers = array("q"), array("q")
    for _, number, passage in read(path, refuse):
        hashes.append(hash(passage.id))
        numbers.append(number)
        yield passage
    values = np.frombuffer(hashes, dtype=np.int64)
    order = np.argsort(values, kind="stable")
    repeated = np.flatnonzero(values[order][1:] == values[order][:-1])
    if not len(repeated):
        return
    suspects = {numbers[int(position)] for position in np.concatenate([order[repeated], order[repeated + 1]])}
    first: dict[str, str] = {}
    for place, number, passage in read(path, lambda _: None):  # what is malformed has been refused
        if number in suspects:
            if passage.id in first:
                message = f"the id {passage.id!r} is already used at {first[passage.id]}"
                remedy = "ids must be distinct (leave them out to number the passages)"
                refuse(UserError(f"{path}, {place}: {message}; {remedy}"))
            first.setdefault(passage.id, place.split(", ")[-1])


_READERS: Mapping[str, Callable[[Path, Refuse], Numbered]] = {
    **{kind: partial(_read_rows, kind=kind) for kind in ROW_KINDS},
    "tsv": _read_tsv,
    "collection": _read_collection,
    "beir": _read_beir,
    "documents": _read_documents,
}
"""How each of `CORPUS_FORMATS` but "auto" is read."""
