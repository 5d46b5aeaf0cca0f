"""What a model reads to write a question, what is taken of its text, and which questions are of no use."""

from __future__ import annotations

import pytest

from retrograd.studies.synthesis.drafts import Draft
from retrograd.studies.synthesis.questions import ask_for_question, find_fault, opening, read_question
from retrograd.types import Passage

TEXT = "It rained. The bridge was opened by Anna Berg in May 1931. It is long."
BRIDGE = Passage("p", "Harbour Bridge", TEXT)


def draft(question: str = "", answer: str = "Anna Berg") -> Draft:
    return Draft("p", TEXT.index(answer), TEXT.index(answer) + len(answer), answer, 0, question)


def test_the_prompt_ends_with_the_sentence_and_its_gap() -> None:
    case = "Topic: Harbour Bridge\nStatement: The bridge was opened by ____ in May 1931.\nMissing: Anna Berg\nQuestion:"
    assert ask_for_question(BRIDGE, draft()).endswith(f"\n\n{case}")
    assert ask_for_question(BRIDGE, draft(answer="May 1931")).endswith("\nMissing: May 1931\nQuestion: When")
    without_title = Passage("p", "", TEXT)
    assert ask_for_question(without_title, draft()).endswith(f"\n\n{case.partition(chr(10))[2]}")


def test_a_long_sentence_is_cut_at_words_around_the_answer() -> None:
    text = "alpha " * 200 + "Anna Berg " + "beta " * 200
    start = text.index("Anna")
    prompt = ask_for_question(Passage("p", "", text), Draft("p", start, start + 9, "Anna Berg", 0))
    statement = prompt.rpartition("Statement: ")[2].partition("\n")[0].split()
    assert set(statement) == {"alpha", "____", "beta"}
    assert len(statement) < 130


@pytest.mark.parametrize(
    ("answer", "begins"),
    [
        ("1931", "In what year"),
        ("May 1931", "When"),
        ("Oct. 5", "When"),
        ("24 September 2007", "When"),
        ("1930s", "When"),
        ("2001-02-03", "When"),
        ("3,200", "How many"),
        ("43 million", "How many"),
        ("12.5 %", "What percentage"),
        ("80 percent", "What percentage"),
        ("$12", "How much"),
        ("Anna Berg", ""),
        ("NATO", ""),
    ],
)
def test_questions_for_dates_and_numbers_are_begun(answer: str, begins: str) -> None:
    assert opening(answer) == begins


@pytest.mark.parametrize(
    ("written", "begun", "question"),
    [
        (" Who opened it?\nStatement: more?", "", "Who opened it?"),
        ("Question: Who opened it? And when?", "", "Who opened it?"),
        ("was it opened?", "When", "When was it opened?"),
        ("It was opened.", "", "It was opened."),
        ("誰が橋を開いた？ 他", "", "誰が橋を開いた？"),
        ("\n", "", ""),
    ],
)
def test_the_first_question_is_taken(written: str, begun: str, question: str) -> None:
    assert read_question(written, begun) == question


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("Who opened the bridge in 1931?", ""),
        ("The bridge was opened in 1931", "no_question_mark"),
        ("", "no_question_mark"),
        ("Who opened it?", "too_short"),
        ("Who " + "very " * 30 + "?", "too_long"),
        ("Was the bridge opened by anna  berg?", "contains_answer"),
        ("Was it opened by Anna Bergen?", ""),
        ("The bridge was opened by?", "copies_passage"),
    ],
)
def test_each_fault_has_its_reason(question: str, reason: str) -> None:
    assert find_fault(draft(question), BRIDGE) == reason
