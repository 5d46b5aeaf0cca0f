"""The file of a knowledge base is read by the packages that documents name, as these lines of `docs/runs.md` do it."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pytest
from tests.requirements import skip_without_tracker

from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.types import Passage

pytestmark = pytest.mark.integration

PASSAGES = [Passage(f"p{n}", ("Cups", "Rain")[n % 2], f"text {n}") for n in range(5)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    KnowledgeBase.from_passages(PASSAGES, tmp_path / "base.arrow")
    return tmp_path / "base.arrow"


def test_datasets_maps_it(file: Path) -> None:
    skip_without_tracker("datasets")
    import datasets

    passages = datasets.Dataset.from_file(str(file))
    assert [Passage(**record) for record in passages] == PASSAGES


def test_duckdb_asks_it(file: Path) -> None:
    skip_without_tracker("duckdb")
    import duckdb

    base = pyarrow.ipc.open_stream(str(file)).read_all()
    titles = duckdb.sql("SELECT title, count(*) FROM base GROUP BY title").fetchall()
    assert len(base) == 5
    assert sorted(titles) == [("Cups", 3), ("Rain", 2)]
