"""Readers of dialogues: every dialect gives the same turns, and every refusal names file, place and remedy."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.reading import Write, assert_refused, json_values, read_any

from retrograd.data.dialogues import DIALOGUE_FORMATS, read_dialogues, read_doc2dial_documents
from retrograd.data.examples import DialogueExample, Turn, dialogue_example
from retrograd.data.squad import NO_ANSWER, read_contexts
from retrograd.types import Passage, UserError

TURNS = (Turn("user", "Hello."), Turn("agent", "Yes?"), Turn("user", "Is it late?"))


@pytest.mark.parametrize(
    "record",
    [
        {"history": [{"role": "USER", "text": "Hello."}, {"role": "bot", "text": "Yes?"}], "question": "Is it late?"},
        {"history": ["user:Hello.", "Agent: Yes?", "human : Is it late?"]},
        {"history": ["Hello.", "Yes?", "Is it late?"]},
        {"Context": ["Hello.", "Yes?"], "Question": "Is it late?"},
        {"history": [{"question": "Hello.", "answer": {"text": "Yes?"}}], "question": "Is it late?"},
    ],
    ids=["objects", "role: text", "in turn", "TopiOCQA", "OR-QuAC"],
)
@pytest.mark.parametrize(
    "answer", [{"answer": "No."}, {"response": "No."}, {"answers": ["No."]}, {"answer": {"text": "No."}}]
)
def test_json_lines_in_their_dialects(write: Write, record: dict[str, object], answer: dict[str, object]) -> None:
    path = write([{**record, **answer, "gold_passages": ["p"], "knowledge": "It is not late."}])
    assert list(read_dialogues(path)) == [dialogue_example("1", TURNS, ("No.",), ("p",), ("It is not late.",))]


def test_other_roles_keep_their_names(write: Write) -> None:
    path = write([{"id": 4, "history": [{"role": " Nurse ", "text": "Next!"}, {"role": "seeker", "text": "Me."}]}])
    assert list(read_dialogues(path)) == [dialogue_example("4", (Turn("Nurse", "Next!"), Turn("user", "Me.")))]


def test_or_quac_with_its_evidence(write: Write) -> None:
    record = {
        "qid": "C_1_q#0",
        "question": "Who won?",
        "history": [],
        "answer": {"text": "CANNOTANSWER", "answer_start": 9},
        "rewrite": "Who won the race?",
        "followup": "n",
        "yesno": "x",
        "evidences": ["Nobody knows.", "Ann won."],
        "retrieval_labels": [0, 1],
    }
    path = write([record, {**record, "qid": "C_1_q#1", "answer": {"text": "Ann"}}])
    first, second = read_dialogues(path)
    assert first == dialogue_example("C_1_q#0", (Turn("user", "Who won?"),), (NO_ANSWER,), (), ("Ann won.",))
    assert second.targets == ("Ann",)
    assert [one.id for one in read_dialogues(path, unanswerable="drop")] == ["C_1_q#1"]


def test_quac_follows_the_questions_of_a_paragraph(write: Write) -> None:
    questions = [
        {
            "id": "a",
            "question": "Who?",
            "answers": [{"text": "Ann"}, {"text": "Ann L."}],
            "orig_answer": {"text": "Ann L."},
        },
        {"id": "b", "question": "Why?", "answers": [{"text": "CANNOTANSWER"}], "orig_answer": {"text": "CANNOTANSWER"}},
        {"id": "c", "question": "When?", "answers": [{"text": "in May"}]},
    ]
    other = [{"id": "d", "question": "Where?", "answers": [{"text": "Lima"}]}]
    paragraphs = [{"id": "p", "context": "…", "qas": questions}, {"id": "q", "context": "…", "qas": other}]
    path = write(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}))
    asked = [Turn("user", "Who?"), Turn("agent", "Ann L."), Turn("user", "Why?"), Turn("agent", NO_ANSWER)]
    expected = [
        dialogue_example("a", asked[:1], ("Ann L.", "Ann"), ("p",)),
        dialogue_example("b", asked[:3], (NO_ANSWER,), ("p",)),
        dialogue_example("c", [*asked, Turn("user", "When?")], ("in May",), ("p",)),
        dialogue_example("d", [Turn("user", "Where?")], ("Lima",), ("q",)),
    ]
    assert list(read_dialogues(path)) == expected
    assert list(read_dialogues(path, unanswerable="drop")) == [expected[0], *expected[2:]]


@pytest.mark.parametrize(
    ("answers", "said", "targets"),
    [
        (["Ann", "CANNOTANSWER", "Ann"], "CANNOTANSWER", ("Ann",)),
        (["Ann", "CANNOTANSWER", "Ann L."], "Ann L.", ("Ann L.", "Ann")),
        (["Ann", "CANNOTANSWER"], "Ann", (NO_ANSWER,)),  # of as many on either side, as QuAC's scorer has it
        (["CANNOTANSWER", "Ann", "CANNOTANSWER", "Bea", "CANNOTANSWER"], "Ann", (NO_ANSWER,)),
    ],
)
def test_where_answers_differ_on_whether_there_is_one_most_decide(
    write: Write, answers: list[str], said: str, targets: tuple[str, ...]
) -> None:
    asked = {
        "id": "a",
        "question": "Who?",
        "answers": [{"text": one} for one in answers],
        "orig_answer": {"text": said},
    }
    path = write(json.dumps({"data": [{"paragraphs": [{"context": "…", "qas": [asked]}]}]}))
    assert [one.targets for one in read_dialogues(path)] == [targets]
    assert len(list(read_dialogues(path, unanswerable="drop"))) == (targets != (NO_ANSWER,))
    lines = write([{"history": ["Who?"], "answers": answers}])
    (example,) = read_dialogues(lines)
    assert set(example.targets) == set(targets)


def test_doc2dial_answers_every_turn_of_the_agent(write: Write) -> None:
    turns = [
        {"turn_id": 1, "role": "user", "utterance": "Hello.", "references": []},
        {"turn_id": 2, "role": "agent", "utterance": "Yes?", "references": []},
        {"turn_id": 3, "role": "user", "utterance": "Is it late?", "references": [{"sp_id": "4"}]},
        {"turn_id": 4, "role": "agent", "utterance": "No.", "references": [{"sp_id": "4"}]},
    ]
    path = write(json.dumps({"dial_data": {"port": {"doc": [{"dial_id": "x", "doc_id": "doc", "turns": turns}]}}}))
    expected = [
        dialogue_example("x_2", TURNS[:1], ("Yes?",), ("doc",)),
        dialogue_example("x_4", TURNS, ("No.",), ("doc",)),
    ]
    assert list(read_dialogues(path)) == expected
    assert list(read_dialogues(path, unanswerable="drop")) == expected[1:]


def test_a_turn_whose_answers_are_empty_cannot_be_answered(write: Write) -> None:
    lines = write([{"history": ["Who?"], "answers": []}, {"history": ["Who?"], "answer": "Ann"}, {"history": ["Who?"]}])
    assert [one.targets for one in read_dialogues(lines)] == [(NO_ANSWER,), ("Ann",), ()]
    assert [one.targets for one in read_dialogues(lines, unanswerable="drop")] == [("Ann",), ()]
    turns = [{"id": "a", "question": "Who?", "answers": []}, {"id": "b", "question": "Why?"}]
    path = write(json.dumps({"data": [{"paragraphs": [{"context": "…", "qas": turns}]}]}))
    gold = tuple(passage.id for passage in read_contexts(path))
    asked = [Turn("user", "Who?"), Turn("agent", NO_ANSWER), Turn("user", "Why?")]
    expected = [
        dialogue_example("a", asked[:1], (NO_ANSWER,), gold),
        dialogue_example("b", asked, (), gold),
    ]
    assert list(read_dialogues(path)) == expected
    assert list(read_dialogues(path, unanswerable="drop")) == expected[1:]


def test_contexts_lose_the_word_for_no_answer(write: Write) -> None:
    paragraphs = [{"id": "p", "context": "Ann ran. CANNOTANSWER", "qas": []}, {"id": "q", "context": "It is so. "}]
    path = write(json.dumps({"data": [{"title": "t", "paragraphs": [{"qas": [], **one} for one in paragraphs]}]}))
    assert [one.text for one in read_contexts(path)] == ["Ann ran.", "It is so. "]


def test_documents_of_doc2dial(write: Write) -> None:
    path = write(json.dumps({"doc_data": {"port": {"doc": {"title": "Times", "doc_text": "Never late."}}}}))
    assert list(read_doc2dial_documents(path)) == [Passage("doc", "Times", "Never late.")]
    with pytest.raises(UserError, match="domain 'port', document 'd': no field 'doc_text'"):
        list(read_doc2dial_documents(write('{"doc_data": {"port": {"d": {}}}}')))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"answer": "x"}', r"its records have no 'history', but answer; say where they have it"),
        ('{"history": [], "answer": "x"}', r"line 1: dialogue '1' has no turn"),
        ('{"history": "hello"}', r"line 1: 'history' is a string; expected a list of turns"),
        ('{"history": ["user: a", "b"]}', r"line 1: entry 1 of 'history' has no role, while others have one"),
        ('{"history": [{"role": "user"}]}', r"line 1: no field 'text'"),
        ('{"history": [{"role": "", "text": "a"}]}', r"line 1: the role of a turn is blank"),
        ('{"history": ["a", 3]}', r"line 1: entry 0 of 'history' is a string; expected an object"),
        ('{"history": ["a"], "answer": {"x": 1}}', r"line 1: no field 'text'"),
        (
            '{"question": "a", "evidence": [], "retrieval_labels": [1]}',
            r"line 1: 'evidence' and 'retrieval_labels' differ",
        ),
        ('{"id": 1, "question": "a"}\n{"id": "1", "question": "b"}', r"line 2: id '1' is already used at line 1"),
        ('{"dial_data": {"d": {"doc": [{"turns": []}]}}}', r"document 'doc', dialogue 1: no field 'dial_id'"),
        ('{"dial_data": {"d": {"doc": 1}}}', r"document 'doc': 'doc' is a number"),
        ('{"dial_data": {"d": 1}}', r"domain 'd': a number; expected an object of documents"),
        ('{"dial_data": 1}', r"'dial_data' is an object of domains"),
        ("hello", r"line 1: neither JSON nor a table"),
    ],
)
def test_refusals_name_file_place_and_remedy(write: Write, content: str, message: str) -> None:
    assert_refused(read_dialogues, write(content), message)


def test_unknown_choices_are_refused(write: Write) -> None:
    with pytest.raises(UserError, match="did you mean 'doc2dial'"):
        read_dialogues(write([{}]), "doc2dail")
    with pytest.raises(UserError, match="did you mean 'drop'"):
        read_dialogues(write([{}]), unanswerable="dropped")


FIELDS = (
    "history question answer role text utterance turns dial_id dial_data "
    "data references evidence retrieval_labels knowledge gold_passages id turn_id"
)
JSON = json_values(FIELDS.split(), "user: a")
LINES = JSON.map(json.dumps) | st.text(max_size=30)


@given(st.lists(LINES, min_size=1, max_size=3), st.sampled_from(DIALOGUE_FORMATS))
def test_any_line_gives_dialogues_or_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], name: str
) -> None:
    dialogues = read_any(lambda path: read_dialogues(path, name), lines, tmp_path_factory)
    assert all(isinstance(one, DialogueExample) and one.history for one in dialogues or ())
