"""Read the curves of a run while it is trained: what ``metrics.jsonl`` has gained since it was read last."""

from __future__ import annotations

from pathlib import Path

from retrograd.types import UserError
from retrograd.util.guards import JsonObject, JsonValue, finite_number, peek_json_object

__all__ = ["read_curves", "require_run"]

_MOST_BYTES = 2**20
"""Bytes that are read at once; the rest comes with the next request."""


def require_run(folder: Path) -> None:
    """Raise `UserError` unless a run was begun in the folder."""
    if not (folder / "experiment.toml").exists():
        raise UserError(
            f"{folder} is not a run (it has no experiment.toml); give the folder of `retrograd train --out`"
        )


def read_curves(folder: Path, start: int) -> JsonObject:
    """Return the lines of ``metrics.jsonl`` from byte ``start`` on, and where the next ones begin.

    ``reset`` says that the file is shorter than ``start``, as after a training that was resumed, so that all lines are
    there again. ``ended`` says that the run has its model. A line that is being written is left for the next time.
    """
    path = folder / "metrics.jsonl"
    size = path.stat().st_size if path.exists() else 0
    is_cut = start > size
    begin = 0 if is_cut else start
    content = b""
    if size > begin:
        with path.open("rb") as file:
            file.seek(begin)
            content = file.read(_MOST_BYTES)
    whole = content[: content.rfind(b"\n") + 1]
    lines = whole.decode("utf-8", errors="replace").split("\n")
    points: list[JsonValue] = [_point(record) for line in lines if (record := peek_json_object(line)) is not None]
    next_byte = begin + len(whole)
    return {
        "points": points,
        "next": next_byte,
        "reset": is_cut,
        "more": next_byte + len(content) - len(whole) < size,
        "ended": (folder / "model").exists(),
    }


def _point(record: JsonObject) -> JsonObject:
    """Return a line with its stage and step, its finite numbers, and the sentence of an alarm."""
    texts = {name: record[name] for name in ("stage", "alarm", "says", "remedy") if isinstance(record.get(name), str)}
    numbers: JsonObject = {
        name: number for name, value in record.items() if (number := finite_number(value)) is not None
    }
    return {**texts, **numbers}
