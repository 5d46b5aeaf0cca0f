"""Fixtures of the tests of readers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.data.reading import Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a text, or records as JSON Lines, to a file."""

    def write(content: str | Sequence[object]) -> Path:
        path = tmp_path / "data.txt"
        lines = content if isinstance(content, str) else "\n".join(json.dumps(record) for record in content)
        path.write_text(lines + "\n", encoding="utf-8")
        return path

    return write
