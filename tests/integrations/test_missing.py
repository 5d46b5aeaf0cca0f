"""A framework that is not installed is named, with the way to install it."""

from __future__ import annotations

import importlib
import sys

import pytest

from retrograd.types import UserError


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("langchain", "langchain_core", "langchain"),
        ("langchain", "pydantic", "langchain"),
        ("llama_index", "llama_index", "llama-index"),
        ("haystack", "haystack", "haystack"),
        ("dspy", "dspy", "dspy"),
    ],
)
def test_a_missing_framework_is_named(module: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # an import of it now fails
    monkeypatch.delitem(sys.modules, f"retrograd.integrations.{module}", raising=False)
    with pytest.raises(UserError, match=rf"which is not installed: pip install 'retrograd\[{extra}\]'"):
        importlib.import_module(f"retrograd.integrations.{module}")
