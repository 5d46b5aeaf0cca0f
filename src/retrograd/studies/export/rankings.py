"""Rankings of the test queries as a run file of TREC: ``query Q0 passage rank score tag``, with p(z|x) as the score."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from retrograd.evaluation.retrieval import retrieve
from retrograd.studies.export.kind import Comparison, ExportKind, Source
from retrograd.types import UserError

__all__ = ["TREC"]

_FILE = "run.trec"
_COMPARED = 8


def _write(source: Source, folder: Path) -> None:
    examples = source.test_examples()
    _require_words("example", [example.id for example in examples])
    ids = [passage.id for passage in source.model.base]
    _require_words("passage", ids)
    tag = "-".join(source.name.split()) or "retrograd"
    ranked = retrieve(source.model, examples, source.passages)
    with (folder / _FILE).open("w", encoding="utf-8") as file:
        for example, rows, shares in zip(examples, ranked.rows.tolist(), ranked.probability.tolist(), strict=True):
            present = [(row, share) for row, share in zip(rows, shares, strict=True) if row >= 0]
            for rank, (row, share) in enumerate(present, start=1):
                file.write(f"{example.id} Q0 {ids[row]} {rank} {share:.9g} {tag}\n")


def _require_words(what: str, ids: list[str]) -> None:
    """Raise `UserError` for an id that a line of words cannot hold."""
    for id_ in ids:
        if len(id_.split()) != 1 or id_ != id_.strip():
            raise UserError(
                f"the id of the {what} {id_!r} is empty or has spaces, and a run file parts its columns by them; "
                f"give the data other ids"
            )


def _read(path: Path) -> Iterator[tuple[str, str, float]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        query, _, passage, _, score, _ = line.split()
        yield query, passage, float(score)


def _compare(source: Source, folder: Path) -> Comparison:
    found: dict[str, list[tuple[str, float]]] = {}
    for query, passage, score in _read(folder / _FILE):
        found.setdefault(query, []).append((passage, score))
    difference, examples = 0.0, source.test_examples()[:_COMPARED]
    for example in examples:
        hits = source.model.search(example, k=source.passages)
        expected = {hit.passage.id: hit.probability for hit in hits}
        for passage, score in found.get(example.id, []):
            difference = max(difference, abs(score - expected.get(passage, float("inf"))))
        if len(found.get(example.id, [])) != len(hits):
            difference = float("inf")
    return Comparison(f"p(z|x) of {len(examples)} queries, read again", difference)


TREC = ExportKind("trec", "rankings of the test queries as a run file of TREC", _write, _compare)
