"""What a log says whatever the clock: its lines without the times, which are of one process on one day."""

from __future__ import annotations

import json
from pathlib import Path

from retrograd.training.run.run_directory import TIMES

__all__ = ["untimed_lines"]


def untimed_lines(metrics: Path) -> str:
    """Return the text of a ``metrics.jsonl`` without `TIMES`."""
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    return "".join(json.dumps({key: line[key] for key in line if key not in TIMES}) + "\n" for line in lines)
