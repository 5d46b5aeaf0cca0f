"""Only pictures need matplotlib, which is an extra, and a command reports it missing before its work."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from retrograd import __main__ as cli
from retrograd.report.curves import draw_curves
from retrograd.report.figures import make_figure
from retrograd.studies.curves import CurveReport, Point
from retrograd.types import UserError

ADVICE = re.escape("a picture needs matplotlib, which is not installed: pip install 'retrograd[plots]'")


def test_a_missing_matplotlib_is_reported_with_the_extra_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=ADVICE):
        make_figure(1.0, 1.0)


@pytest.mark.parametrize("words", [["analyse"], ["lab", "semeval-joint", "--out"]])
def test_commands_that_draw_say_so_before_their_work(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    failure = CliRunner().invoke(cli.app, [*words, str(tmp_path / "none")]).exception
    assert isinstance(failure, UserError)
    assert re.search(ADVICE, str(failure))


def test_only_one_file_imports_each_optional_library() -> None:
    source = Path(__file__).parents[2] / "src" / "retrograd"
    importers = {
        library: [path.name for path in source.rglob("*.py") if _imports(library, path)]
        for library in ("matplotlib", "networkx", "rdflib", "faiss", "bm25s")
    }
    assert importers == {
        "matplotlib": ["figures.py"],
        "networkx": ["graph.py"],
        "rdflib": ["ntriples.py"],
        "faiss": ["faiss.py"],
        "bm25s": ["bm25.py"],
    }


def _imports(library: str, path: Path) -> bool:
    """Return whether a module imports the library, but for type checkers alone."""
    text = re.sub(r"if TYPE_CHECKING:\n(?: +.*\n)+", "", path.read_text(encoding="utf-8"))
    return re.search(rf"^\s*(?:import|from) {library}\b", text, re.MULTILINE) is not None


def test_dollar_signs_in_names_make_no_formula(tmp_path: Path) -> None:
    name = r"$\nosuchcommand$"
    point = Point(name, 1.0, [0, 1], [50.0, 52.0])
    draw_curves(CurveReport(name, "macro_f1", [point]), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 0
