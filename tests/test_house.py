"""The house itself: the README tells the truth, and every room keeps the house rules."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "retrograd"
MODULES = sorted(SOURCE.rglob("*.py"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_prints_every_package() -> None:
    tree = re.search(r"```\nsrc/retrograd/\n(.*?)```", README, re.DOTALL)
    assert tree, "README.md prints no tree under src/retrograd/"
    printed = {name.rstrip("/") for name in re.findall(r"^  (\w+/)", tree[1], re.MULTILINE)}
    assert printed == {path.parent.name for path in SOURCE.glob("*/__init__.py")}


def test_the_python_example_of_the_readme_is_short_and_compiles() -> None:
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example
    assert len(example[1].splitlines()) <= 12
    compile(example[1], "README.md", "exec")


@pytest.mark.slow
def test_the_python_example_of_the_readme_runs(tmp_path: Path) -> None:
    """Word for word, but for the amount of data and training."""
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example
    less = '"data.train_count=40", "data.test_count=20", "warm_start.epochs=1", "training.epochs=1"'
    code = re.sub(r"with_settings\(\[.*?\]\)", f"with_settings([{less}])", example[1])
    assert code != example[1]
    done = subprocess.run(
        [ROOT / ".venv" / "bin" / "python", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_rooms_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 420
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.end_lineno - node.lineno + 1 - len((ast.get_docstring(node, clean=False) or "").splitlines())
            assert body <= 60, f"{node.name} has {body} lines"


def test_nothing_loads_pickle_or_remote_code() -> None:
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        for forbidden in ("torch.load", "pickle", "trust_remote_code=True"):
            assert forbidden not in text, f"{path.name}: {forbidden}"


def test_nothing_below_the_recipes_seeds_the_global_random_state() -> None:
    for path in MODULES:
        if "recipes" not in path.parts:
            for line in path.read_text(encoding="utf-8").splitlines():
                assert not re.search(r"torch\.manual_seed|random\.seed|np\.random\.seed", line), path.name
