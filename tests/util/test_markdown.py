"""Markdown of names: nothing in a name ends its code or its cell."""

from __future__ import annotations

import pytest

from retrograd.util.markdown import code_span, escape


@pytest.mark.parametrize(
    ("text", "span"),
    [("seed = 1", "`seed = 1`"), ("a `b` c", "`` a `b` c ``"), ("``", "``` `` ```"), ("two\nlines", "`two lines`")],
)
def test_code_stands_between_more_backticks_than_are_in_it(text: str, span: str) -> None:
    assert code_span(text) == span


def test_a_name_cannot_leave_its_cell() -> None:
    assert escape("a|b `c` *d* snake_case") == r"a\|b \`c\` \*d\* snake_case"
