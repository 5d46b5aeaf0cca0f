"""Whatever stands in a file of data or settings, its reader answers with a result or with a `UserError`."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from tests.fuzz.data_files import DATA_FILES, REFUSING
from tests.fuzz.fuzzing import Reader, fuzz, outcome


@pytest.mark.parametrize("reader", DATA_FILES, ids=str)
def test_any_content(reader: Reader, inputs: int, tally: dict[str, Counter[str]], tmp_path: Path) -> None:
    assert reader.sound is not None
    (tmp_path / reader.file).write_bytes(reader.sound)
    assert outcome(reader, tmp_path / reader.file) == "result"
    tally[str(reader)] = fuzz(reader, tmp_path, inputs // reader.cost)


@pytest.mark.parametrize("reader", REFUSING, ids=str)
def test_what_is_no_file(reader: Reader, tmp_path: Path) -> None:
    folder, pipe, loop = (tmp_path / f"{name}-{reader.file}" for name in ("folder", "pipe", "loop"))
    folder.mkdir()
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    nowhere = [tmp_path / "no" / reader.file, Path(f"{'x' * 300}{reader.file}"), Path(f"a\0b{reader.file}")]
    for path in (folder, pipe, loop, *nowhere):
        try:
            assert outcome(reader, path) == "UserError"
        except AssertionError:
            assert reader.group == "validate"  # which reports what cannot be read
