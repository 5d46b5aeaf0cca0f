"""Check that every change in a sealed folder is detected."""

from collections.abc import Callable
from pathlib import Path

import pytest

from retrograd.training.run.seal import find_flaw, seal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "part").mkdir()
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "part" / "b.txt").write_text("second")
    seal(tmp_path)
    return tmp_path


def edit(name: str, change: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(change((folder / name).read_text()))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (edit("part/b.txt", lambda text: text[:-1]), "part/b.txt has 5 bytes, but 6 were written"),
        (edit("a.txt", str.upper), "a.txt has changed"),
        (lambda folder: (folder / "a.txt").unlink(), "a.txt is missing"),
        (edit("manifest.json", lambda text: text.replace('"bytes": 5', '"bytes": 7')), "manifest.json has changed"),
        (edit("manifest.json", lambda text: text[:-9]), "not valid JSON"),
        (edit("manifest.json", lambda text: "[]"), "manifest.json has changed"),
        (lambda folder: (folder / "manifest.json").unlink(), "no such file"),
    ],
)
def test_damage_is_named(damage: Callable[[Path], object], said: str, folder: Path) -> None:
    assert find_flaw(folder) is None
    damage(folder)
    assert said in str(find_flaw(folder))


def test_what_came_later_does_not_matter(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    assert find_flaw(folder) is None
