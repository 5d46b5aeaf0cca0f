"""The package as a whole: README prints its packages, files stay small, and nothing unsafe is imported."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "retrograd"
MODULES = sorted(SOURCE.rglob("*.py"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_prints_every_package() -> None:
    tree = re.search(r"```\nsrc/retrograd/\n(.*?)```", README, re.DOTALL)
    assert tree, "README.md prints no tree under src/retrograd/"
    printed = {name.rstrip("/") for name in re.findall(r"^  (\w+/)", tree[1], re.MULTILINE)}
    assert printed == {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}


def test_the_python_example_of_the_readme_is_short_and_compiles() -> None:
    """`tests/test_public_api.py` runs it."""
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example
    assert len(example[1].splitlines()) <= 32
    compile(example[1], "README.md", "exec")


def test_files_and_functions_stay_small() -> None:
    large = []
    for path in MODULES:
        text, name = path.read_text(encoding="utf-8"), str(path.relative_to(SOURCE))
        if text.count("\n") > 400:
            large.append(f"{name} has {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                docstring = (ast.get_docstring(node, clean=False) or "").splitlines()
                lines = node.end_lineno - node.lineno + 1 - len(docstring)
                if lines > 60:
                    large.append(f"{name}: {node.name} has {lines} lines")
    assert not large, large


def test_nothing_loads_pickle_or_remote_code() -> None:
    offenders = [
        f"{path.relative_to(SOURCE)}: {forbidden}"
        for path in MODULES
        for forbidden in ("torch.load", "import pickle", "pickle.load", "trust_remote_code=True")
        if forbidden in path.read_text(encoding="utf-8")
    ]
    assert not offenders, offenders


def test_nothing_below_the_experiments_seeds_the_global_random_state() -> None:
    for path in MODULES:
        if not {"experiments", "recipes"} & set(path.parts):
            for line in path.read_text(encoding="utf-8").splitlines():
                assert not re.search(r"torch\.manual_seed|random\.seed|np\.random\.seed", line), path.name
