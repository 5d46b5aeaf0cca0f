"""Rankings of the test queries as a run file of TREC: ``query Q0 passage rank score tag``, with p(z|x) as the score.

Passages are found as the model searches, and p(z|x) is that of `RagModel.search`: over the whole base, and over the
passages of the ranking where an approximate index or a search by words knows no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from retrograd.evaluation.records import trec_lines
from retrograd.models.compute.inference import inference
from retrograd.studies.export.kind import Comparison, ExportKind, Source
from retrograd.types import Example, UserError
from retrograd.util.progress import bar
from retrograd.util.text_files import write_lines

__all__ = ["TREC"]

_FILE = "run.trec"
_BATCH = 64
"""Queries that are ranked together: those of the first batch are ranked again to compare them."""


def _write(source: Source, folder: Path) -> None:
    examples = source.test_examples()
    _require_ids("example", [example.id for example in examples])
    _require_ids("passage", source.model.base.ids())
    with bar("ranking", len(examples), "queries") as advance:

        def lines() -> Iterator[str]:
            for start in range(0, len(examples), _BATCH):
                batch = examples[start : start + _BATCH]
                yield from _rank(source, batch)
                advance(len(batch))

        write_lines(folder / _FILE, lines())


def _rank(source: Source, examples: Sequence[Example]) -> Iterator[str]:
    """Yield the lines of a batch of queries."""
    model = source.model
    if model.needs_index and not model.has_index:
        model.refresh_index()
    with inference(model):
        candidates = model.retrieve(examples, min(source.passages, len(model.base)))
    shares = candidates.scores.log_prior.double().exp().tolist()
    for example, rows, own in zip(examples, candidates.rows.tolist(), shares, strict=True):
        scores = [(model.base[row].id, share) for row, share in zip(rows, own, strict=True) if row >= 0]
        yield from trec_lines(example.id, scores, source.name or "retrograd")


def _require_ids(what: str, ids: Sequence[str]) -> None:
    """Raise `UserError` for an id that is empty, for which a line has no word."""
    if "" in ids:
        raise UserError(f"the id of the {what} {ids.index('') + 1} is empty; give the data other ids")


def _read(lines: Iterable[str]) -> Iterator[tuple[str, str, float]]:
    for line in lines:
        query, _, passage, _, score, _ = line.split()
        yield query, passage, float(score)


def _compare(source: Source, folder: Path) -> Comparison:
    examples = source.test_examples()[:_BATCH]
    expected = list(_read(_rank(source, examples)))
    with (folder / _FILE).open(encoding="utf-8") as file:
        found = list(islice(_read(file), len(expected)))
    pairs = list(zip(expected, found, strict=False))
    same = len(found) == len(expected) and all(own[:2] == other[:2] for own, other in pairs)
    difference = max((abs(own[2] - other[2]) for own, other in pairs), default=0.0)
    return Comparison(f"p(z|x) of {len(examples)} queries, read again", difference if same else float("inf"))


TREC = ExportKind("trec", _write, _compare)
