"""Offsets and marks: what goes into a marked sentence comes out of it, whatever the sentence holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrograd.data.relations.instance import RelationInstance, bare_sentence, mark, unmark
from retrograd.types import Span, UserError

# Rich in everything the marks could be confused with.
SENTENCES = st.text(alphabet="ab @#\\\n\té", min_size=1, max_size=24)


@st.composite
def instances(draw: st.DrawFn) -> RelationInstance:
    """Draw a sentence with two entities, separate, touching or nested, in either order."""
    text = draw(SENTENCES)
    places = st.integers(0, len(text))
    spans = [Span(*sorted((draw(places), draw(places)))) for _ in range(2)]
    try:
        return RelationInstance("1", text, spans[0], spans[1], None)
    except UserError:  # not an instance: the constructor's own tests are below
        text = f"x{text}y"
        return RelationInstance("1", text, Span(0, 1), Span(len(text) - 1, len(text)), None)


@given(instances())
def test_unmark_recovers_sentence_and_offsets(instance: RelationInstance) -> None:
    marked = mark(instance.text, instance.head, instance.tail)
    assert unmark(marked) == (instance.text, instance.head, instance.tail)
    assert bare_sentence(marked) == instance.text


@given(st.text(alphabet="a @#\\", max_size=30))
def test_bare_sentence_takes_any_text(text: str) -> None:
    assert "a" * text.count("a") == bare_sentence(text).translate(str.maketrans("", "", " @#\\"))


@pytest.mark.parametrize(
    ("text", "head", "tail", "expected"),
    [
        ("The lamp lit the hall.", (4, 8), (17, 21), "The @ lamp @ lit the # hall #."),
        ("The lamp lit the hall.", (17, 21), (4, 8), "The # lamp # lit the @ hall @."),
        ("stone wall", (0, 10), (0, 5), "@ # stone # wall @"),
        ("stone wall", (6, 10), (0, 10), "# stone @ wall @ #"),
        ("sunflower", (0, 3), (3, 9), "@ sun @# flower #"),
        ("mail me @ home #1", (0, 4), (10, 14), r"@ mail @ me \@ # home # \#1"),
    ],
)
def test_marks_stand_where_expected(text: str, head: tuple[int, int], tail: tuple[int, int], expected: str) -> None:
    assert mark(text, Span(*head), Span(*tail)) == expected
    assert unmark(expected) == (text, Span(*head), Span(*tail))


@pytest.mark.parametrize("marked", ["no marks", "@ a @ alone", "@ a @ # b # #", "one @ a # b #"])
def test_wrong_marks_say_how_to_build_them(marked: str) -> None:
    with pytest.raises(UserError, match=r"expected 2 around the (head|tail); build texts with RelationExtraction"):
        unmark(marked)


@pytest.mark.parametrize(
    ("head", "tail", "advice"),
    [
        ((0, 30), (4, 8), r"head \[0, 30\) lies outside the text of 10 characters; offsets count characters from 0"),
        ((0, 5), (-1, 3), r"tail \[-1, 3\) lies outside"),
        ((5, 0), (6, 10), r"head \[5, 0\) lies outside"),
        ((3, 3), (6, 10), r"head \[3, 3\) covers no visible character; the end is exclusive"),
        ((0, 5), (5, 6), r"tail \[5, 6\) covers no visible character"),
        ((0, 5), (0, 5), "two different entities"),
        ((0, 7), (6, 10), "overlap in part; one may lie inside the other"),
        ((6, 10), (0, 7), "overlap in part"),
    ],
)
def test_impossible_spans_are_refused(head: tuple[int, int], tail: tuple[int, int], advice: str) -> None:
    with pytest.raises(UserError, match=advice):
        RelationInstance("1", "stone wall", Span(*head), Span(*tail), None)
