"""The bounds of ``pyproject.toml`` are those that ``tools/versions.py`` tried, and its table is in the docs."""

from __future__ import annotations

import tomllib
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
TOOL = run_path(str(ROOT / "tools" / "versions.py"))
RECORDS: list[dict[str, Any]] = TOOL["read"](TOOL["RESULTS"])
REQUIREMENTS: list[Requirement] = TOOL["requirements"]()


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda one: one.name)
def test_the_lowest_set_that_passed_had_exactly_the_lower_bound(requirement: Requirement) -> None:
    tried = [one["versions"][requirement.name] for one in RECORDS if one["set"] == "lowest" and one["passed"]]
    bounds = [one.version for one in requirement.specifier if one.operator == ">="]
    assert tried, "no lowest set has passed; run: python tools/versions.py lowest"
    for bound in bounds:
        assert Version(bound) in map(Version, tried), (
            f"{requirement} was not tried; run: python tools/versions.py lowest"
        )


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda one: one.name)
def test_every_version_that_was_tried_is_permitted(requirement: Requirement) -> None:
    for record in RECORDS:
        assert requirement.specifier.contains(record["versions"][requirement.name])


def test_every_python_of_the_classifiers_has_passed() -> None:
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["classifiers"]
    named = {one.rpartition(" ")[2] for one in classifiers if one.startswith("Programming Language :: Python :: 3.")}
    sets = {name: {minor(one) for one in RECORDS if one["passed"] and one["set"] == name} for name in TOOL["SETS"]}
    assert all(passed == named for passed in sets.values()), sets


def minor(record: dict[str, Any]) -> str:
    return ".".join(record["python"].split(".")[:2])


def test_the_docs_have_the_table() -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert TOOL["table"](RECORDS) in page, "run: python tools/versions.py --table, and copy it into docs/install.md"
