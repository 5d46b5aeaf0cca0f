"""CONTRIBUTING.md shows a whole index, search and command; each is taken from the text, added by its line, and used."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tests.index import test_protocol as index_contract
from tests.rag.test_rag_model import build
from tests.rag.variants import variant
from typer.testing import CliRunner

from retrograd.__main__ import command_line
from retrograd.cli import COMMANDS
from retrograd.experiments.experiment import Experiment
from retrograd.index.exact import ExactIndex
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.index.protocol import Index
from retrograd.rag import search
from retrograd.training.run.run_directory import RunDirectory
from retrograd.types import Passage

CONTRIBUTING = Path(__file__).parent.parent / "CONTRIBUTING.md"
Load = Callable[[str], ModuleType]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Return a function that saves the code under a marker of CONTRIBUTING.md as a file, and imports it."""

    def save_and_import(marker: str) -> ModuleType:
        text = CONTRIBUTING.read_text(encoding="utf-8")
        name = marker.replace(" ", "_")
        file = tmp_path / f"{name}.py"
        file.write_text(text.split(f"<!-- {marker} -->\n```python\n", 1)[1].split("```", 1)[0], encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return save_and_import


def test_an_index_is_held_to_what_it_declares(load: Load, tmp_path: Path, rng: torch.Generator) -> None:
    sorting = load("toy index").SortingIndex

    def make(vectors: torch.Tensor) -> Index:
        return sorting(vectors, "base", "encoder")

    index_contract.test_an_index_does_what_it_declares(make, tmp_path, rng)


def test_an_index_finds_the_neighbours_of_the_exact_index(
    load: Load, tiny_encoder: Path, tiny_seq2seq: Path, rng: torch.Generator
) -> None:
    vectors, query = torch.randn(8, 3, generator=rng), torch.randn(4, 3, generator=rng)
    exclude = torch.tensor([[0, -1], [1, 2], [-1, -1], [7, 6]])
    sorting = load("toy index").SortingIndex
    neighbours = sorting(vectors, "base", "encoder").search(query, 8, exclude)
    exact = ExactIndex(vectors, base_fingerprint="base", encoder_fingerprint="encoder").search(query, 8, exclude)
    assert torch.equal(neighbours.row, exact.row)
    model, examples = build(tiny_encoder, tiny_seq2seq)
    rows = model.retrieve(examples, 3).rows
    every = model.index.vectors(torch.arange(len(model.base)))
    model.use_index(sorting(every, model.base.fingerprint, model.passage_fingerprint()))
    assert torch.equal(model.retrieve(examples, 3).rows, rows)


def test_an_experiment_names_a_search_and_a_model_answers_with_it(
    load: Load, tiny_encoder: Path, tiny_seq2seq: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load("toy search").FIRST
    monkeypatch.setattr(search, "SEARCHES", (*search.SEARCHES, first))
    experiment = Experiment().with_settings(["retriever.search=first", "retriever.trained=none"])
    assert experiment.retriever.search_kind == first
    model, examples = build(tiny_encoder, tiny_seq2seq, trained="none", posterior=False)
    model = variant(model, search=first)
    assert model.retrieve(examples, 2).rows.tolist() == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1], [0, 1]]
    assert len(model.predict(examples, 2)) == len(examples)


def test_a_command_joins_the_others(load: Load, tmp_path: Path) -> None:
    app = command_line((*COMMANDS, load("toy command").count))
    assert "retrograd count runs/joint" in CliRunner().invoke(app, ["count", "--help"]).stdout
    assert "count" in CliRunner().invoke(app, ["--help"]).stdout
    run = RunDirectory(tmp_path / "run")
    KnowledgeBase.from_passages([Passage("a", "", "two words"), Passage("b", "", "three more words")]).save(run.base)
    run.experiment.write_text("", encoding="utf-8")
    answer = CliRunner().invoke(app, ["count", str(run.path)])
    assert answer.stdout == "2 passages, 5 words\n", answer.exception
