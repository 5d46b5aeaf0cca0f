"""What a model reads to write a question, what is taken of its text, and which questions are of no use."""

from __future__ import annotations

import pytest

from retrograd.studies.synthesis.drafts import Draft
from retrograd.studies.synthesis.questions import (
    ask,
    ask_for_question,
    find_fault,
    read_answer,
    read_question,
    short_answer,
)
from retrograd.types import Passage

TEXT = "It rained. The bridge was opened by Anna Berg in May 1931. It is long."
BRIDGE = Passage("p", "Harbour Bridge", TEXT)


def draft(question: str = "", answer: str = "Anna Berg", opening: str = "") -> Draft:
    return Draft("p:0", "p", TEXT.index("The"), TEXT.index(" It is"), opening, question, answer)


def test_the_prompt_ends_with_the_sentence_and_the_opening() -> None:
    case = "\n\nTopic: Harbour Bridge\nText: The bridge was opened by Anna Berg in May 1931.\nQuestion:"
    assert ask_for_question(BRIDGE, draft()).endswith(case)
    assert ask_for_question(BRIDGE, draft(opening="When")).endswith(f"{case} When")
    assert ask_for_question(BRIDGE, draft(opening="When")).shorten(0).endswith(f"text.{case} When")
    without_title = Passage("p", "", TEXT)
    assert ask_for_question(without_title, draft()).endswith(f"\n\n{case[2:].partition(chr(10))[2]}")


def test_a_long_sentence_is_cut_at_a_word() -> None:
    text = "alpha " * 200
    prompt = ask_for_question(Passage("p", "", text), Draft("p:0", "p", 0, len(text), ""))
    shown = prompt.rpartition("Text: ")[2].partition("\n")[0]
    assert set(shown.split()) == {"alpha"}
    assert 390 < len(shown) <= 400


def test_a_question_is_asked_with_its_passage_or_without_any() -> None:
    question = "\nQuestion: Who opened it?\nAnswer:"
    assert ask("Who opened it?", BRIDGE).endswith(f"\n\nPassage: Harbour Bridge: {TEXT}{question}")
    assert ask("Who opened it?").endswith(f"\n{question}")
    assert "Passage:" not in ask("Who opened it?")


@pytest.mark.parametrize(
    ("written", "begun", "question", "answer"),
    [
        (" Who opened it?\nAnswer: Anna Berg.\n\nTopic: more?", "", "Who opened it?", "Anna Berg"),
        ("Question: Who opened it? And when? Answer: “Anna”", "", "Who opened it?", "Anna"),
        ("was it opened?\nAnswer:\n", "When", "When was it opened?", ""),
        ("It was opened.", "", "It was opened.", ""),
        ("誰が橋を開いた？ 他", "", "誰が橋を開いた？", ""),
        ("\n", "", "", ""),
    ],
)
def test_the_first_question_and_its_answer_are_taken(written: str, begun: str, question: str, answer: str) -> None:
    assert read_question(written, begun) == question
    assert read_answer(written) == answer


def test_a_reading_is_one_line_without_signs_around_it() -> None:
    assert short_answer('\n "Anna Berg".\nQuestion: more') == "Anna Berg"
    assert short_answer(" \n") == ""


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("Who opened the bridge in 1931?", "Anna Berg", ""),
        ("The bridge was opened in 1931", "Anna Berg", "no_question_mark"),
        ("", "", "no_question_mark"),
        ("Who opened it?", "Anna Berg", "too_short"),
        ("Who " + "very " * 30 + "?", "Anna Berg", "too_long"),
        ("The bridge was opened by?", "Anna Berg", "copies_passage"),
        ("Who opened the bridge in 1931?", "", "no_answer"),
        ("Who opened the bridge in 1931?", "It rained. The bridge was opened by Anna Berg", "no_answer"),
        ("Was the bridge opened by anna  berg?", "Anna Berg", "contains_answer"),
        ("Was it opened by Anna Bergen?", "Anna Berg", ""),
        ("Who opened it in 1931?", "Otto Holm", "answer_not_found"),
        ("What did she open in 1931?", "the bridge", ""),
        ("What did she open in 1931?", "Harbour Bridge", "answer_not_found"),
    ],
)
def test_each_fault_has_its_reason(question: str, answer: str, reason: str) -> None:
    assert find_fault(draft(question, answer), BRIDGE) == reason
