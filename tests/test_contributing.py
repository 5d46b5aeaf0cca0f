"""CONTRIBUTING.md shows a whole objective, kind of data, file format, index, search and command, with their lines.

Here all six are taken from the text, added to a copy of the package, and used by commands and from Python; the last
four are also tried one by one. `tests/objectives/test_contributing.py` and `tests/experiments/data/test_kinds.py` put
the first two through their contracts.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
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
from retrograd.data import questions
from retrograd.experiments.experiment import Experiment
from retrograd.index.exact import ExactIndex
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.index.protocol import Index
from retrograd.rag import search_kinds
from retrograd.rag.search_kinds import SearchKind
from retrograd.training.run.run_directory import RunDirectory
from retrograd.types import Passage, UserError

ROOT = Path(__file__).parent.parent
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
Load = Callable[[str], ModuleType]


def code(marker: str) -> str:
    """Return the code under a marker of CONTRIBUTING.md."""
    text = CONTRIBUTING.read_text(encoding="utf-8")
    return text.split(f"<!-- {marker} -->\n```python\n", 1)[1].split("```", 1)[0]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Return a function that saves the code under a marker of CONTRIBUTING.md as a file, and imports it."""

    def save_and_import(marker: str) -> ModuleType:
        name = marker.replace(" ", "_")
        file = tmp_path / f"{name}.py"
        file.write_text(code(marker), encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return save_and_import


def test_a_file_format_is_read_as_the_others_are(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = load("toy format").read_blocks
    monkeypatch.setattr(questions, "QUESTION_FORMATS", (*questions.QUESTION_FORMATS, "blocks"))
    monkeypatch.setattr(questions, "_READERS", {**questions._READERS, "blocks": questions._by_record(read)})
    file = tmp_path / "questions.txt"
    file.write_text("Q: where is it ?\nA: here\nA: there\n\nQ: who asks ?\n", encoding="utf-8")
    examples = [(one.id, one.query, one.targets) for one in questions.read_questions(file, "blocks", "keep")]
    assert examples == [("1", "where is it ?", ("here", "there")), ("5", "who asks ?", (questions.NO_ANSWER,))]
    file.write_text("where is it ?\nQ: who asks ?\nA: nobody\n", encoding="utf-8")
    refused: list[UserError] = []
    assert len(list(questions.read_questions(file, "blocks", refuse=refused.append))) == 1
    assert [str(error).removeprefix(str(file)) for error in refused] == [
        ", line 1: 'where is it ?'; expected Q: and a question, then A: and an answer"
    ]


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
    first = SearchKind("first", load("toy search").FirstSearch, **FIRST)
    monkeypatch.setattr(search_kinds, "SEARCHES", (*search_kinds.SEARCHES, first))
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


FIRST = {"needs_index": False, "has_vectors": False, "trains_retriever": False, "takes_other_rows": False}
"""What CONTRIBUTING.md's search declares."""

FILES = {
    "toy objective": "objectives/hard_em.py",
    "toy kind of data": "experiments/data/card_data.py",
    "toy format": "data/question_blocks.py",
    "toy index": "index/sorting.py",
    "toy search": "rag/search/first.py",
    "toy command": "commands/count.py",
}
LINES = (
    ("objectives/__init__.py", "objectives.hard_em import HardEM", "OBJECTIVES", "HardEM"),
    ("experiments/data/kinds.py", "experiments.data.card_data import CardData", "KINDS", "CardData"),
    ("cli.py", "commands.count import count", "COMMANDS", "count"),
)
"""File, import, tuple and entry; an index needs no line."""
FORMAT_LINES = (
    ("from retrograd.data.squad import", "from retrograd.data.question_blocks import read_blocks\n", ""),
    ('"beir"]', "", ', "blocks"'),
    ('    "squad": _read_squad,\n', "", '    "blocks": _by_record(read_blocks),\n'),
    ("    header = split_header(line)\n", "", '    if line.startswith("Q: "):\n        return "blocks"\n'),
)
"""Text of `data/questions.py`, and what the format of questions puts before it, and into or behind it."""

PROGRAM = """
import torch

import retrograd as rg
from retrograd.__main__ import app
from retrograd.index.sorting import SortingIndex


def command(*words):
    app(list(words), standalone_mode=False)


joint = ["--set", "objective.kind=HardEM"]
frozen = ["--set", "objective.kind=FrozenRetriever", "--set", "retriever.search=first"]
frozen += ["--set", "retriever.trained=none"]
command("validate", "toy.toml")
command("train", "toy.toml", "--out", "joint", *joint)
command("train", "toy.toml", "--out", "frozen", *frozen)
command("count", "joint")
command("search", "frozen", "where is the wheel ?", "-k", "2")
command("validate", "blocks.txt", "--kind", "questions", "--format", "blocks")
print(rg.read_questions("blocks.txt")[0].targets)

run = rg.open_run("joint")
print(type(run.experiment.objective).__name__, run.experiment.data.kind, [one.target for one in run.test_examples])
before = run.model.search("where is the cup ?", k=3)
every = run.model.index.vectors(torch.arange(len(run.model.base)))
run.model.use_index(SortingIndex(every, run.model.base.fingerprint, run.model.passage_fingerprint()))
print([one.row for one in before] == [one.row for one in run.model.search("where is the cup ?", k=3)])
"""


@pytest.mark.slow
def test_all_six_are_used_by_commands_and_from_python(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    """The copy differs from the package in the files of the text, an import and an entry each."""
    package = tmp_path / "retrograd"
    shutil.copytree(ROOT / "src" / "retrograd", package, ignore=shutil.ignore_patterns("__pycache__"))
    for marker, name in FILES.items():
        assert f"`{name}`" in CONTRIBUTING.read_text(encoding="utf-8")
        (package / name).write_text(code(marker), encoding="utf-8")
    for name, imported, tuple_name, entry in LINES:
        text = (package / name).read_text(encoding="utf-8")
        with_entry = rf"from retrograd.{imported}\n\g<0>{entry}, "
        text, replaced = re.subn(rf"^{tuple_name}\b[^(]*\(", with_entry, text, count=1, flags=re.MULTILINE)
        assert replaced == 1, name
        (package / name).write_text(text, encoding="utf-8")
    _add_format(package / "data" / "questions.py")
    _add_search(package / "rag" / "search_kinds.py")
    things = ("cup", "box", "wheel", "car", "tea", "rain")
    (tmp_path / "base.jsonl").write_text(
        "".join(f'{{"id": "{one}", "text": "the {one} is here ."}}\n' for one in things), encoding="utf-8"
    )
    (tmp_path / "cards.txt").write_text("".join(f"where is the {one} ? = {one}\n" for one in things[:4]), "utf-8")
    (tmp_path / "blocks.txt").write_text("Q: what is here ?\nA: the cup\nA: a cup\n", encoding="utf-8")
    (tmp_path / "toy.toml").write_text(
        f"""[data]
kind = "cards"
base = "base.jsonl"
train = "cards.txt"
test = "cards.txt"
[retriever]
model = "{tiny_encoder}"
[generator]
model = "{tiny_seq2seq}"
max_target_tokens = 4
[warm_start]
epochs = 0
[training]
epochs = 1
batch_size = 2
passages = 2
precision = "fp32"
""",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "6 passages, 30 words" in done.stdout
    assert "the cup is here ." in done.stdout
    assert "the box is here ." in done.stdout
    assert "the wheel is here ." not in done.stdout
    assert "('the cup', 'a cup')" in done.stdout
    assert done.stdout.endswith("HardEM cards ['cup', 'box', 'wheel', 'car']\nTrue\n"), done.stdout[-2000:]


def _add_search(path: Path) -> None:
    """Add the lines of CONTRIBUTING.md's search to `rag/search_kinds.py`."""
    lines = code("toy search's entry")
    entry, text = lines.split("\n\n\n")[-1].strip(), path.read_text(encoding="utf-8")
    anchor = "SEARCHES: tuple[SearchKind, ...] = ("
    assert text.count(anchor) == 1
    assert entry.startswith("FIRST = SearchKind(")
    path.write_text(text.replace(anchor, f"{lines}\n\n{anchor}FIRST, "), encoding="utf-8")


def _add_format(path: Path) -> None:
    """Add the lines of CONTRIBUTING.md's file format to `data/questions.py`."""
    text, shown = path.read_text(encoding="utf-8"), CONTRIBUTING.read_text(encoding="utf-8")
    for anchor, before, behind in FORMAT_LINES:
        assert text.count(anchor) == 1, anchor
        assert before or all(line.strip(" ,") in shown for line in behind.splitlines()), behind
        inner = anchor.removesuffix("]")
        text = text.replace(anchor, before + inner + behind + anchor[len(inner) :])
    path.write_text(text, encoding="utf-8")
