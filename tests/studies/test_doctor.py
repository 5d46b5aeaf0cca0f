"""The doctor judges versions by the package's own metadata, and knows which do not work together."""

from __future__ import annotations

import json
from importlib.metadata import requires, version

import pytest
from packaging.requirements import Requirement

from retrograd.models.loading.versions import SUPPORTED
from retrograd.studies.doctor import KNOWN_CONFLICTS, examine, find_conflicts, judge_version


@pytest.mark.parametrize(
    ("installed", "state"),
    [("5.17", "ok"), ("5.23.9", "ok"), ("5.24", "outside the tried range"), ("4.9", "outside the tried range")],
)
def test_versions_are_judged_by_their_range(installed: str, state: str) -> None:
    assert judge_version(">=5.17,<5.24", installed) == state


def test_a_package_that_is_not_there_is_missing() -> None:
    assert judge_version(">=1", "") == "missing"


@pytest.mark.parametrize(
    ("transformers", "peft", "conflicts"),
    [("5.20", "0.21.2", 0), ("5.8", "0.21.2", 1), ("5.14.1", "0.22", 1), ("5.24", "0.21.2", 1), ("5.24", "0.22", 0)],
)
def test_conflicts_are_found_where_all_versions_meet(transformers: str, peft: str, conflicts: int) -> None:
    found = find_conflicts({"transformers": transformers, "peft": peft})
    assert len(found) == conflicts
    assert all(f"transformers {transformers}" in line for line in found)


def test_no_supported_version_is_a_conflict() -> None:
    for ranges, _ in KNOWN_CONFLICTS:
        assert "transformers" in ranges
    lowest = {name: bounds.split(",")[0].removeprefix(">=") for name, bounds in SUPPORTED.items()}
    assert find_conflicts(lowest) == ()


def test_this_machine_is_described() -> None:
    examination = examine()
    needed = {Requirement(line).name for line in requires("retrograd") or [] if "extra ==" not in line}
    assert {package.name for package in examination.packages} == needed
    assert {package.name: package.installed for package in examination.packages}["torch"] == version("torch")
    assert "dev" not in {extra.name for extra in examination.extras}
    assert {"faiss", "plots"} <= {extra.name for extra in examination.extras}
    assert examination.devices[0].startswith("CPU ")
    assert json.loads(json.dumps(examination.record()))["is_sound"] == examination.is_sound
