"""CONTRIBUTING.md shows a whole objective. Here it is taken from the text and put through the contract."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_one_file_and_one_entry_put_an_objective_under_the_contract(tmp_path: Path) -> None:
    """The text asks for a file, an import and an entry; no test is touched."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = text.split("<!-- toy objective -->\n```python\n", 1)[1].split("```", 1)[0]
    package = tmp_path / "retrograd"
    shutil.copytree(ROOT / "src" / "retrograd", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "objectives" / "hard_em.py").write_text(code, encoding="utf-8")
    listing = package / "objectives" / "__init__.py"
    listed = listing.read_text(encoding="utf-8").replace("OBJECTIVES = (\n", "OBJECTIVES = (\n    HardEM,\n")
    listing.write_text("from retrograd.objectives.hard_em import HardEM\n" + listed, encoding="utf-8")
    files = [f"tests/objectives/test_{name}.py" for name in ("contract", "learning")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "addopts=-v", *files, "-k", "HardEM"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) >= 15, done.stdout[-2000:]
