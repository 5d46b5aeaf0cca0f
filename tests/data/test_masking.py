"""Examples from a corpus alone: which spans are asked for, which are left out, and where they come from."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrograd.data.masking import SpanExample, SpanMasking, read_spans, salient_spans, span_examples
from retrograd.experiments.settings import MaskingSettings
from retrograd.types import Passage, UserError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The bridge opened on 12 March 1974.", ["12 March 1974"]),
        ("It burnt down on March 3, 1911, and again in the 1920s.", ["March 3, 1911", "1920s"]),
        ("They paid $3.5 million for 45% of it, and 7 left.", ["$3.5 million", "45%"]),
        ("Flight AB-202 took 1,250 people.", ["Flight AB-202", "1,250"]),
        ("In Lima the University of Oxford met NATO.", ["Lima", "University of Oxford", "NATO"]),
        ("Water is wet, and Ann Lee's boat is dry.", ["Ann Lee"]),
        ("Ann Lee sailed. Ann sailed too.", ["Ann Lee"]),
        ("We saw Charles V, Robert J. Shiller and St. John.", ["Charles V", "Robert J. Shiller", "St. John"]),
        ("However, I like it; You do not.", []),
        ("Renewing Your Boat Licence Online With Us", []),
        ("Sie kam aus Österreich im Juli.", ["Österreich", "Juli"]),
        ("", []),
    ],
)
def test_what_is_salient(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in salient_spans(text)] == expected


@given(st.text(alphabet="Ab 1.,$%-of\n&'", max_size=80))
def test_spans_lie_inside_and_apart(text: str) -> None:
    spans = salient_spans(text)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


BRIDGE = Passage("b", "Bridges", "Short one, Ann. The old iron bridge over the Severn was opened on  12 March 1974.")


def test_an_example_hides_one_span_and_names_its_source() -> None:
    masking = SpanMasking(most_per_passage=5)
    first, second = span_examples([BRIDGE], masking, random.Random(0))
    assert first == SpanExample(
        "b:45-51", "The old iron bridge over the [MASK] was opened on 12 March 1974.", ("Severn",), "b", ("b",)
    )
    assert second.query == "The old iron bridge over the Severn was opened on [MASK]."
    assert second.target == "12 March 1974"
    open_book = SpanMasking(mask="<extra_id_0>", may_see_source=True)
    (one,) = span_examples([BRIDGE], open_book, random.Random(0))
    assert (one.source, one.excluded) == ("b", ())
    assert "<extra_id_0>" in one.query


def test_a_span_that_stands_twice_is_left_out() -> None:
    twice = Passage("t", "", "When the Severn floods, everybody who lives near the Severn moves to Bath.")
    found = list(span_examples([twice], SpanMasking(most_per_passage=9), random.Random(0)))
    assert [one.target for one in found] == ["Bath"]


def test_draws_repeat_with_the_seed_and_are_bounded() -> None:
    base = [Passage(str(i), "", BRIDGE.text) for i in range(40)]
    drawn = [one.target for one in span_examples(base, SpanMasking(), random.Random(3))]
    assert drawn == [one.target for one in span_examples(base, SpanMasking(), random.Random(3))]
    assert len(drawn) == 40
    assert set(drawn) == {"Severn", "12 March 1974"}
    assert list(span_examples(base, SpanMasking(least_words=30), random.Random(3))) == []


def test_passages_are_read_one_at_a_time() -> None:
    endless = (Passage(str(i), "", BRIDGE.text) for i in iter(int, 1))
    assert next(span_examples(endless, SpanMasking(), random.Random(0))).source == "0"


def test_spans_of_ones_own() -> None:
    iron = BRIDGE.text.index("iron")
    found = span_examples([BRIDGE], SpanMasking(), random.Random(0), lambda _: [(iron, iron + 4), (0, 30)])
    assert [one.target for one in found] == ["iron"]
    with pytest.raises(UserError, match=r"span \[3, 999\) of passage 'b' lies outside"):
        list(span_examples([BRIDGE], SpanMasking(), random.Random(0), lambda _: [(3, 999)]))


def test_spans_from_a_file(tmp_path: Path) -> None:
    iron, path = BRIDGE.text.index("iron"), tmp_path / "spans.jsonl"
    path.write_text(
        f'{{"id": "b", "spans": [[{iron}, {iron + 4}]]}}\n{{"id": "other", "spans": [[0, 999]]}}\n', "utf-8"
    )
    spans = read_spans(path)
    passages = [BRIDGE, Passage("unnamed", "", BRIDGE.text)]
    found = span_examples(passages, SpanMasking(), random.Random(0), spans)
    assert [(one.source, one.target) for one in found] == [("b", "iron")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"spans": []}', "line 1: no field 'id'"),
        ('{"id": "b", "spans": 3}', "line 1: 'spans' is a number; expected a list"),
        ('{"id": "b", "spans": [[1]]}', "line 1: 'spans' holds [1]; expected"),
        ('{"id": "b", "spans": [[1, 2.5]]}', "line 1: 'spans' holds [1, 2.5]; expected"),
        ('{"id": "b", "spans": [[true, 2]]}', "line 1: 'spans' holds [true, 2]; expected"),
        ('{"id": "b", "spans": [1, 2]}', "line 1: 'spans' holds 1; expected"),
    ],
)
def test_what_is_no_span_says_where(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    path.write_text(line + "\n", "utf-8")
    with pytest.raises(UserError, match=re.escape(message)):
        read_spans(path)


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="mask is ' '"):
        SpanMasking(mask=" ")
    with pytest.raises(UserError, match="most_per_passage is 0"):
        SpanMasking(most_per_passage=0)


def test_sentences_are_those_of_ones_own_function() -> None:
    passage = Passage("p", "", "one two three four five six; seven eight nine ten Rome eleven twelve")
    masking = SpanMasking(least_words=6, split_sentences=lambda text: [(0, 28), (29, len(text))])
    (example,) = span_examples([passage], masking, random.Random(0), lambda _: [(50, 54)])
    assert example.query == "seven eight nine ten [MASK] eleven twelve"


def test_the_rules_for_english_are_named_where_another_language_is_set() -> None:
    with pytest.raises(UserError, match=r"for English; name a file .* masking\.spans"):
        MaskingSettings(language="any")
    assert MaskingSettings(language="any", spans="spans.jsonl").language == "any"
