"""Read a BEIR folder: ``queries.jsonl``, ``corpus.jsonl``, and a table of relevant passages for each part in ``qrels``.

The table of a part says which of the queries belong to it, so it stands for the part: ``FOLDER/qrels/test.tsv``.
"""

from __future__ import annotations

from pathlib import Path

from retrograd.data.qrels import read_qrels
from retrograd.data.record_fields import Records
from retrograd.types import UserError
from retrograd.util import text_files
from retrograd.util.guards import JsonObject
from retrograd.util.text_files import Refuse

__all__ = ["find_beir_corpus", "is_beir_qrels", "read_beir_queries"]

_HEADING = ["query-id", "corpus-id", "score"]
_QUERIES = "queries.jsonl"
_CORPORA = ("corpus.jsonl", "corpus.jsonl.gz")


def is_beir_qrels(path: Path) -> bool:
    """Return whether a table is that of a BEIR folder: it has BEIR's heading, and the queries lie one folder above."""
    _, line = text_files.first_line(path, "a table")
    return line.split() == _HEADING and _queries(path).is_file()


def find_beir_corpus(folder: Path) -> Path | None:
    """Return the file of the passages of a BEIR folder; None for another folder."""
    return next((folder / name for name in _CORPORA if (folder / name).is_file()), None)


def read_beir_queries(path: Path, refuse: Refuse) -> Records:
    """Yield the queries that a table names, with their relevant passages.

    Raises `UserError` where there are judgements of a query that is missing.
    """
    relevant = read_qrels(path)
    queries = _queries(path)
    seen: set[str] = set()
    for number, record in text_files.read_jsonl(queries, refuse):
        id_ = str(record.get("_id"))
        if id_ in relevant:
            seen.add(id_)
            query: JsonObject = {"id": id_, "question": record.get("text"), "gold_passages": [*relevant[id_]]}
            yield f"{queries.name} line {number}", number, query
    missing = next((id_ for id_ in relevant if id_ not in seen), None)
    if missing is not None:
        count = len(relevant) - len(seen)
        raise UserError(f"{path}: {count} of its queries, such as {missing!r}, are not in {queries}; fetch both again")


def _queries(path: Path) -> Path:
    return path.parent.parent / _QUERIES
