"""Passages of documents have every word once or, with an overlap, again, and are never empty."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrograd.data.sentences import SENTENCES, Language, SplitSentences, sentence_spans
from retrograd.data.splitting import Splitting, split_passages
from retrograd.types import Passage, UserError

TEXTS = st.text(alphabet="aB1. !?\n\"é'。…", max_size=120)
SPLITTINGS = st.integers(1, 9).flatmap(
    lambda length: st.builds(
        Splitting, st.just(length), st.integers(0, length - 1), st.sampled_from(["words", "sentences"])
    )
)


@given(TEXTS, SPLITTINGS)
def test_every_word_is_covered_in_order_and_none_too_often(text: str, splitting: Splitting) -> None:
    passages = list(split_passages([Passage("doc", "Title", text)], splitting))
    read: list[str] = []
    for passage in passages:
        words = passage.text.split()
        assert 1 <= len(words) <= splitting.length
        assert passage.text in text
        assert passage.text == passage.text.strip()
        repeated = next(
            n
            for n in range(min(splitting.overlap, len(words)) + 1)
            if text.split()[: len(read) - n + len(words)] == read[: len(read) - n] + words
        )
        assert repeated < len(words)
        read = read[: len(read) - repeated] + words
    assert read == text.split()
    assert [passage.id for passage in passages] == [f"doc#{i}" for i in range(len(passages))]
    assert {passage.title for passage in passages} <= {"Title"}


def test_words_are_counted_exactly() -> None:
    document = Passage("d", "", " one two\tthree  four five\nsix seven ")
    assert [one.text for one in split_passages([document], Splitting(3))] == [
        "one two\tthree",
        "four five\nsix",
        "seven",
    ]
    assert [one.text for one in split_passages([document], Splitting(4, 2))] == [
        "one two\tthree  four",
        "three  four five\nsix",
        "five\nsix seven",
    ]


def test_sentences_stay_whole_where_they_fit() -> None:
    text = "One two three. Four five. Six seven eight nine ten eleven. Twelve."
    at = [one.text for one in split_passages([Passage("d", "", text)], Splitting(5, 0, "sentences"))]
    assert at == ["One two three. Four five.", "Six seven eight nine ten", "eleven. Twelve."]
    again = [
        one.text for one in split_passages([Passage("d", "", "A b. C d. E f. G h.")], Splitting(4, 2, "sentences"))
    ]
    assert again == ["A b. C d.", "C d. E f.", "E f. G h."]


def test_documents_without_words_have_no_passages() -> None:
    documents = [Passage("a", "", " \n"), Passage("b", "T", "x")]
    assert list(split_passages(documents)) == [Passage("b#0", "T", "x")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0,), "length of passages is 0"),
        ((3, 3), "overlap of passages is 3 words of 3"),
        ((3, -1), "overlap of passages is -1"),
        ((3, 0, "sentence"), "did you mean 'sentences'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: tuple[object, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Splitting(*settings)  # pyright: ignore


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It rained. We stayed.", ["It rained.", "We stayed."]),
        (
            'Dr. J. Lee left at 5 p.m. sharp. Why? "No." (Yes.) 7 came!',
            ["Dr. J. Lee left at 5 p.m. sharp.", "Why?", '"No."', "(Yes.)", "7 came!"],
        ),
        ("1. Write to us. 2. Wait.", ["1. Write to us.", "2. Wait."]),
        ("It cost 3.5 million. e.g. this one", ["It cost 3.5 million. e.g. this one"]),
        ("A heading\n\nA text", ["A heading", "A text"]),
        ("See No. 5 and pp. 7 ff. Say no. Go.", ["See No. 5 and pp. 7 ff.", "Say no.", "Go."]),
        ("no end", ["no end"]),
        (" \n ", []),
    ],
)
def test_sentences_end_where_a_reader_says(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in sentence_spans(text)] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("杯裡有茶。這是什麼？！「好。」下雨了", ["杯裡有茶。", "這是什麼？！", "「好。」", "下雨了"]),
        ("यह चाय है। वह पानी है॥ बस", ["यह चाय है।", "वह पानी है॥", "बस"]),
        ("ما هذا؟ هذا شاي۔ نعم", ["ما هذا؟", "هذا شاي۔", "نعم"]),
        ("ሻይ ነው። ውሃ ነው።", ["ሻይ ነው።", "ውሃ ነው።"]),
        ("Что это? «Чай.» 3.5 литра", ["Что это?", "«Чай.»", "3.5 литра"]),
        ("Wait … they said. A heading\n\na text", ["Wait … they said.", "A heading", "a text"]),
    ],
)
def test_sentences_of_any_language_end_at_its_marks(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in SENTENCES["any"](text)] == expected


def test_abbreviations_are_those_of_english() -> None:
    text = "Dr. Lee came. 他说：好。 He left."
    spans = {language: [text[start:end] for start, end in split(text)] for language, split in SENTENCES.items()}
    assert spans["en"] == ["Dr. Lee came.", "他说：好。", "He left."]
    assert spans["any"] == ["Dr.", "Lee came.", "他说：好。", "He left."]


@pytest.mark.parametrize("language", SENTENCES)
@pytest.mark.parametrize(
    "text",
    ["." * 200_000, '?"' * 100_000, "\n " * 100_000, "Dr. X " * 30_000, "。」" * 100_000],
    ids=["stops", "quotation marks", "lines", "abbreviations", "other marks"],
)
def test_long_runs_of_marks_take_no_more_than_their_length(language: Language, text: str) -> None:
    """With a time that grows with the square this would take hours."""
    covered = sum(len("".join(text[start:end].split())) for start, end in SENTENCES[language](text))
    assert covered == len("".join(text.split()))


@pytest.mark.parametrize("split", [sentence_spans, *SENTENCES.values()])
@given(text=TEXTS)
def test_sentences_are_all_that_is_visible(split: SplitSentences, text: str) -> None:
    spans = list(split(text))
    assert "".join("".join(text[start:end].split()) for start, end in spans) == "".join(text.split())
    assert all(text[start:end] == text[start:end].strip() != "" for start, end in spans)
    assert [start for start, _ in spans] == sorted(start for start, _ in spans)


def test_sentences_end_by_the_rule_of_the_language_or_by_a_function() -> None:
    document = Passage("d", "", "Dr. Smith came. He sang; all slept.")

    def texts(language: Language, own: SplitSentences | None = None) -> list[str]:
        return [one.text for one in split_passages([document], Splitting(2, at="sentences", language=language), own)]

    assert texts("en") == ["Dr. Smith", "came.", "He sang;", "all slept."]
    assert texts("any") == ["Dr.", "Smith came.", "He sang;", "all slept."]
    assert texts("en", lambda text: [(0, 18), (19, len(text))]) == ["Dr. Smith", "came. He", "sang; all", "slept."]
