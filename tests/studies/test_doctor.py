"""The doctor judges versions by the package's own metadata, and says what does not work."""

from __future__ import annotations

import json
from importlib.metadata import requires, version

import pytest
from packaging.requirements import Requirement

from retrograd.models.loading.versions import describe_unsupported
from retrograd.studies import doctor
from retrograd.studies.doctor import examine, judge_version


@pytest.mark.parametrize(
    ("installed", "state"),
    [("5.17", "ok"), ("5.23.9", "ok"), ("5.24", "outside the tried range"), ("4.9", "outside the tried range")],
)
def test_versions_are_judged_by_their_range(installed: str, state: str) -> None:
    assert judge_version(">=5.17,<5.24", installed) == state


def test_a_package_that_is_not_there_is_missing() -> None:
    assert judge_version(">=1", "") == "missing"


@pytest.mark.parametrize(
    ("installed", "refused"),
    [
        ({"transformers": "5.20", "peft": "0.21.2"}, []),
        ({"transformers": "5.14.1", "peft": "0.21.2"}, ["transformers 5.14.1"]),
        ({"transformers": "5.24", "peft": "0.14"}, ["transformers 5.24", "peft 0.14"]),
        ({"transformers": "", "peft": ""}, []),
    ],
)
def test_versions_that_a_model_refuses_are_problems(installed: dict[str, str], refused: list[str]) -> None:
    sentences = describe_unsupported(installed)
    assert len(sentences) == len(refused)
    assert all(line.startswith(f"{name} is installed") for line, name in zip(sentences, refused, strict=True))


def test_a_device_that_is_not_there_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any("RETROGRAD_DEVICE" in line for line in examine().problems)
    monkeypatch.setenv("RETROGRAD_DEVICE", "cuda:99")
    examination = examine()
    assert any("RETROGRAD_DEVICE=cuda:99" in line for line in examination.problems)
    assert not examination.is_sound


def test_without_metadata_nothing_is_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_DISTRIBUTION", "no-such-package")
    examination = examine()
    assert not examination.is_sound
    assert "not installed as a package" in examination.problems[0]


def test_this_machine_is_described() -> None:
    examination = examine()
    needed = {Requirement(line).name for line in requires("retrograd") or [] if "extra ==" not in line}
    assert {package.name for package in examination.packages} == needed
    assert {package.name: package.installed for package in examination.packages}["torch"] == version("torch")
    assert "dev" not in {extra.name for extra in examination.extras}
    assert {"faiss", "plots"} <= {extra.name for extra in examination.extras}
    assert examination.devices[0].startswith("CPU ")
    assert json.loads(json.dumps(examination.record()))["is_sound"] == examination.is_sound
