"""A skip of what ``RETROGRAD_REQUIRE`` names is a failure, in a test and of a whole file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TEST = """
import pytest

def test_skipped():
    pytest.skip("smollm2 is not installed")

@pytest.mark.xfail
def test_expected():
    assert False

def test_other():
    pytest.skip("no such data")
"""
FILE = """
import pytest

pytest.importorskip("no_such_package")
"""


@pytest.mark.parametrize(
    ("named", "outcome"),
    [
        ("", "3 skipped, 1 xfailed"),
        ("other, SmolLM2", "1 failed, 2 skipped, 1 xfailed"),
        ("smollm2 no_such_package", "1 error"),
    ],
)
def test_skips_of_what_is_required_fail(tmp_path: Path, named: str, outcome: str) -> None:
    (tmp_path / "test_one.py").write_text(TEST)
    (tmp_path / "test_two.py").write_text(FILE)
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.requirements", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths, "RETROGRAD_REQUIRE": named},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in done.stdout.splitlines()[-1], done.stdout
    assert (done.returncode == 0) == (not named)
