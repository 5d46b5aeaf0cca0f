"""The examples run, and show what they say."""

from __future__ import annotations

import importlib
import importlib.util
import re
import socket
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from retrograd.evaluation.laboratory.measure import measure
from retrograd.experiments.experiment import Experiment

EXAMPLES = Path(__file__).parent.parent / "examples"
BENCHMARKS = EXAMPLES.parent / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_the_index_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code of docs/index.md, as it stands there, by one process that is a group of its own."""
    pytest.importorskip("faiss")
    pytest.importorskip("bm25s")
    text = (EXAMPLES.parent / "docs" / "index.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    monkeypatch.chdir(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    found: dict[str, object] = {}
    try:
        exec(compile(code, "docs/index.md", "exec"), found)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    rows, log_prior, queries = found["rows"], found["log_prior"], found["queries"]
    assert isinstance(rows, torch.Tensor)
    assert isinstance(log_prior, torch.Tensor)
    assert isinstance(queries, torch.Tensor)
    assert rows.shape == (2, 10)
    assert bool((log_prior < 0).all())
    assert queries.grad is not None
    assert {path.name for path in (tmp_path / "indexes").iterdir()} == {"mine", "faiss"}


@pytest.mark.parametrize("page", sorted((EXAMPLES.parent / "docs").glob("*.md")), ids=lambda page: page.name)
def test_the_toml_of_the_docs_is_an_experiment(page: Path, tmp_path: Path) -> None:
    for number, text in enumerate(_toml(page)):
        file = tmp_path / f"{number}.toml"
        file.write_text(text, encoding="utf-8")
        Experiment.load(file)


@pytest.mark.parametrize("kind", ["questions", "dialogue"])
def test_questions_and_dialogues_are_read_as_the_docs_say(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record beside a file's name is one that the file may hold."""
    experiments = (one for one in _toml(EXAMPLES.parent / "docs" / "questions.md") if "[generator]" in one)
    (text,) = (one for one in experiments if f'kind = "{kind}"' in one)
    monkeypatch.chdir(tmp_path)
    records = re.findall(r'(\w+) = "(.*?\.jsonl)" +# (\{.*\})', text)
    assert [name for name, _, _ in records] == ["base", "train"]
    for _, file, record in [*records, ("test", "test.jsonl", records[1][2])]:
        Path(file).write_text(f"{record}\n", encoding="utf-8")
    Path("mine.toml").write_text(text, encoding="utf-8")
    data = Experiment.load(Path("mine.toml")).data.load(0)
    assert [len(part) for part in (data.base, data.train, data.dev, data.test)] == [1, 1, 0, 1]
    assert "tea" in data.train[0].target.casefold()


def _toml(page: Path) -> list[str]:
    return re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def test_the_estimators_stand_in_the_order_that_is_known() -> None:
    """Answer-aware candidates and the full normaliser decide; sampling noise comes after both."""
    module = load("estimators")
    by_rank = {}
    for rank in (4, 60):
        tables = module.world(rank, 40, 0)
        by_rank[rank] = {
            one.name: module.squared_error(measure(one, tables, 20, torch.Generator().manual_seed(0)), tables)
            for one in module.ESTIMATORS
        }
    orders = {
        4: (
            "no update",
            "VRAG, as published",
            "top-10, renormalised (RAG)",
            "JSA, 50 draws on the union, cold, renormalised",
            "union 10+10, exact, renormalised",
            "JSA, 50 draws over the base, cold",
            "top-10, full normaliser",
            "union 10+10, exact, full normaliser",
        ),
        60: (
            "top-10, full normaliser",
            "top-10, renormalised (RAG)",
            "no update",
            "VRAG, as published",
            "JSA, 50 draws over the base, cold",
            "RWS, 50 draws over the base",
            "union 10+10, exact, full normaliser",
        ),
    }
    for rank, order in orders.items():
        errors = [by_rank[rank][name] for name in order]
        assert errors == sorted(errors, reverse=True), (rank, dict(zip(order, errors, strict=True)))


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_benchmarks_find_what_they_import(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    importlib.import_module(path.stem)
