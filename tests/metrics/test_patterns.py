"""Answers that are regular expressions: matched as DrQA and DPR match them, never taken for text, never trained on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from retrograd.data.examples import GroundedExample
from retrograd.data.readers import read_questions
from retrograd.experiments.data.free_answers import QuestionData
from retrograd.metrics.patterns import looks_like_pattern, plain_texts, regex_match, search_patterns
from retrograd.metrics.resampling import item_scores
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.tasks.relevance import answer_rows
from retrograd.tasks.support import AnswerSupport
from retrograd.types import Example, Passage, UserError

RIVER = r"19[0-9]{2}"
TASK = QuestionAnswering(primary_metric="regex_match", evidence=AnswerSupport(most_share=1.0, question_overlap=0.0))


@pytest.mark.parametrize(
    ("patterns", "answer", "matches"),
    [
        ([r"Long Island|New\s?York"], "new york", True),
        ([r"Long Island|New\s?York"], " NewYork City", True),  # from the beginning on, as in DrQA
        ([r"Long Island|New\s?York"], "in New York", False),
        ([RIVER], "1921", True),
        ([RIVER], "2021", False),
        (["never", RIVER], "1921", True),
        ([r"(?:U\.?S\.?|America)$"], "U.S.", True),
        ([r"^Zürich$"], "ZÜRICH", True),
    ],
)
def test_a_match_begins_with_the_answer(patterns: list[str], answer: str, matches: bool) -> None:
    assert regex_match(patterns, answer) == float(matches)
    assert item_scores("regex_match", [patterns], [answer]) == pytest.approx([100.0 * matches])
    question = GroundedExample("q", "when ?", tuple(patterns), has_patterns=True)
    assert TASK.score([question], [answer]) == {"regex_match": 100.0 * matches, "empty_rate": 0.0}


def test_evidence_and_recall_match_anywhere_in_a_passage() -> None:
    texts = ["it was dug in 1921 .", "it was dug in 2021 .", "19 of them were dug", "since 1999 ( or 1998 )"]
    question = GroundedExample("q", "when was it dug ?", (RIVER,), has_patterns=True)
    as_text = replace(question, has_patterns=False)
    assert answer_rows([question, as_text, replace(as_text, targets=("19",))], texts) == [(0, 3), (), (2,)]
    support = TASK.support([Passage(str(row), "", text) for row, text in enumerate(texts)])
    assert tuple(support(question)) == (0, 3)
    assert tuple(support(as_text)) == ()
    assert not search_patterns(["x*", ""], "nothing of it")


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        ("Ann Lee", ["Ann Lee"]),
        ("Ann|A\\. Lee| ", ["Ann", "A. Lee"]),
        ("New\\s?York", []),
        ("[0-9]+", []),
        ("(Ann|Bo) Lee", []),
        ("Ann\\", []),
    ],
)
def test_only_what_stands_for_texts_can_be_trained_on(pattern: str, texts: list[str]) -> None:
    assert plain_texts(pattern) == texts


@pytest.mark.parametrize("answer", [r"\d+ miles", "New ?York|NYC", "19[0-9]+", r"U\.S\.", "(?:a|b)", "(very )?old"])
def test_patterns_look_like_patterns(answer: str) -> None:
    assert looks_like_pattern(answer)


@pytest.mark.parametrize("answer", ["Who's Afraid?", "f(x)", "[sic]", "A+", "50 %", "3.5", "C:\\Users", "$5", "a * b"])
def test_texts_do_not(answer: str) -> None:
    assert not looks_like_pattern(answer)


def write(folder: Path, name: str, records: list[dict[str, object]]) -> str:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


@pytest.fixture
def data(tmp_path: Path) -> QuestionData:
    train = [
        {"id": "a", "question": "who ?", "answers": ["Ann|A\\. Lee", "\\w+ Lee"]},
        {"id": "b", "question": "when ?", "answers": [RIVER]},
    ]
    test = [{"id": "c", "question": "when ?", "answers": [RIVER]}]
    base = [{"id": "p", "text": "Ann came in 1921 ."}]
    return QuestionData(
        base=write(tmp_path, "base", base),
        train=write(tmp_path, "train", train),
        test=write(tmp_path, "test", test),
        answers_are="regex",
    )


def test_training_gets_texts_and_the_test_keeps_patterns(
    data: QuestionData, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = data.load(0)
    assert loaded.train == [GroundedExample("a", "who ?", ("Ann", "A. Lee"))]
    assert "1 of 2 examples have patterns alone" in capsys.readouterr().err
    assert loaded.test == [GroundedExample("c", "when ?", (RIVER,), has_patterns=True)]
    assert loaded.task.primary_metric == "regex_match"
    assert loaded.task.score(loaded.test, ["1921"])["regex_match"] == 100.0


def test_what_cannot_be_is_refused(data: QuestionData, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'data\.metric is "f1".*data\.answers_are = "regex"'):
        replace(data, metric="f1")
    with pytest.raises(UserError, match=r"no answer of the 1 examples is a plain text"):
        replace(data, train=data.test).load(0)
    broken = write(tmp_path, "broken", [{"question": "who ?", "answers": ["(Ann"]}])
    with pytest.raises(UserError, match=r"broken\.jsonl, line 1: the answer '\(Ann' is no regular expression"):
        replace(data, test=broken).load(0)
    pattern = GroundedExample("q", "when ?", (RIVER,), has_patterns=True)
    with pytest.raises(UserError, match=r"the answers are patterns; set it to 'regex_match'"):
        QuestionAnswering().score([pattern], ["1921"])
    with pytest.raises(UserError, match="others text; score them apart"):
        TASK.score([pattern, Example("r", "who ?", ("Ann",))], ["1921", "Ann"])


def test_records_from_python_may_have_patterns(data: QuestionData, tmp_path: Path) -> None:
    questions = read_questions([{"question": "when ?", "answers": [RIVER]}], answers_are="regex")
    assert questions == [GroundedExample("1", "when ?", (RIVER,), has_patterns=True)]
    with pytest.raises(UserError, match=r"unknown kind of answers 'glob'"):
        read_questions([], answers_are="glob")
    settings = QuestionData.from_python(TASK, {"test": questions}, tmp_path)
    assert settings is not None
    assert (settings.answers_are, settings.metric, settings.task().primary_metric) == (
        "regex",
        "exact_match",
        "regex_match",
    )
    assert list(settings.examples(Path(settings.test))) == questions
