"""Recipes are listed with a summary each, which is read in one line."""

from __future__ import annotations

import pytest

from retrograd.recipes import RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_a_summary_is_a_whole_sentence(name: str) -> None:
    """A summary is the first line of a docstring: one that goes on in the next line would be cut off."""
    assert RECIPES[name].summary.endswith(".")
