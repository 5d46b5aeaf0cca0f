"""Helpers of the tests of readers: refusals, and files of any content."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import strategies as st

from retrograd.types import UserError
from retrograd.util.guards import JsonValue

Write = Callable[[str | Sequence[object]], Path]
Read = Callable[[Path], Iterable[object]]


def assert_refused(read: Read, path: Path, message: str) -> None:
    """Assert that reading a file raises an error that matches the message and names the file."""
    with pytest.raises(UserError, match=message) as refusal:
        list(read(path))
    assert str(path) in str(refusal.value)


def read_any(read: Read, lines: Sequence[str], factory: pytest.TempPathFactory) -> list[object] | None:
    """Return all that is read of a file of any lines; None where it is refused by an error that names the file."""
    path = factory.getbasetemp() / "fuzz.txt"
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    try:
        return list(read(path))
    except UserError as error:
        message = str(error)
    assert str(path) in message
    return None


def json_values(names: Sequence[str], text: str) -> st.SearchStrategy[JsonValue]:
    """Return nested JSON values whose objects have fields of these names; ``text`` is one of the strings in them."""
    return st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(text),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(names), inner, max_size=5),
        max_leaves=12,
    )
