"""A model is opened with versions that are known to work, and is not with the others."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.loading import versions
from retrograd.models.loading.versions import SUPPORTED, require_supported_versions
from retrograd.types import UserError

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


@pytest.fixture(autouse=True)
def _ask_again() -> Iterator[None]:
    """What is installed is looked up once a process."""
    require_supported_versions.cache_clear()
    yield
    require_supported_versions.cache_clear()


def installed(**changed: str) -> Callable[[str], str]:
    """Look a version up as `importlib.metadata.version` does, with some versions changed."""
    return lambda package: changed[package] if package in changed else version(package)


def test_the_package_asks_for_the_same_ranges() -> None:
    required = [Requirement(one) for one in tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]["dependencies"]]
    ranges = {one.name: one.specifier for one in required}
    assert {name: ranges[name] for name in SUPPORTED} == {name: SpecifierSet(one) for name, one in SUPPORTED.items()}


@pytest.mark.parametrize("known", ["5.17.0", "5.20.2", "5.23.0", "5.23.1"])
def test_versions_that_passed_are_taken(known: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "version", installed(transformers=known, peft="0.21.2"))
    require_supported_versions()


@pytest.mark.parametrize("wrong", ["4.57.1", "5.8.0", "5.14.1", "5.24.0", "5.24.0.dev0", "6.0"])
def test_another_transformers_is_named_with_the_remedy(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "version", installed(transformers=wrong))
    with pytest.raises(
        UserError, match=rf"^transformers {wrong} .* wrong T5 .* pip install 'transformers>=5.17,<5.24'"
    ):
        require_supported_versions()


def test_an_older_peft_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "version", installed(peft="0.14.0"))
    with pytest.raises(UserError, match=r"^peft 0.14.0 is installed.* pip install .*'peft>=0.21.2'"):
        require_supported_versions()


def test_it_is_said_where_a_model_is_opened(
    tiny_encoder: Path, tiny_seq2seq: Path, rng: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "version", installed(transformers="5.24.0"))
    with pytest.raises(UserError, match=r"transformers 5\.24\.0 is installed"):
        Encoder.open(str(tiny_encoder))
    for name in (str(tiny_seq2seq), "builtin:minilm-seq2seq"):
        with pytest.raises(UserError, match=r"transformers 5\.24\.0 is installed"):
            Generator.open(name, rng)
