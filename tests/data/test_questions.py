"""Readers of questions: what a file says is what comes out, and every refusal names file, place and remedy."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.reading import Write, assert_refused, json_values, read_any

from retrograd.data.dialogues import dialogue_examples
from retrograd.data.examples import DialogueExample, GroundedExample
from retrograd.data.questions import NO_ANSWER, QUESTION_FORMATS, question_examples, read_questions
from retrograd.data.squad import read_contexts, read_quac
from retrograd.types import Example, UserError

SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "Tides",
            "paragraphs": [
                {
                    "context": "The moon pulls the water.",
                    "qas": [
                        {"id": "q1", "question": "What pulls? ", "answers": [{"text": "moon"}, {"text": "The moon"}]},
                        {"id": "q2", "question": "What sings?", "answers": [], "is_impossible": True},
                    ],
                },
                {"context": "Twice a day.", "qas": []},
            ],
        }
    ],
}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"question": "who?", "answer": ["Ann", " Lee ", "Ann"]}, GroundedExample("1", "who?", ("Ann", "Lee"))),
        ({"question": " who?", "answer": "Ann", "id": 7}, GroundedExample("7", "who?", ("Ann",))),
        (
            {"id": "x", "question": "who?", "answers": ["Ann"], "gold_passages": ["p", "q"]},
            GroundedExample("x", "who?", ("Ann",), ("p", "q")),
        ),
        (
            {"Question": "who?", "QuestionId": "tc_1", "Answer": {"Value": "Ann", "Aliases": ["A. Lee", "Ann"]}},
            GroundedExample("tc_1", "who?", ("Ann", "A. Lee")),
        ),
        ({"question": "who?", "answer": {"aliases": ["Ann"]}}, GroundedExample("1", "who?", ("Ann",))),
        (
            {"question": "who?", "answers": {"text": ["Ann"], "answer_start": [3]}},
            GroundedExample("1", "who?", ("Ann",)),
        ),
        (
            {"query_id": 3, "query": "who", "answers": ["Ann"], "passages": [{}], "wellFormedAnswers": "[]"},
            GroundedExample("3", "who", ("Ann",)),
        ),
        ({"question": "who?"}, GroundedExample("1", "who?")),
    ],
    ids=["nq", "plain", "gold", "triviaqa", "aliases", "squad", "marco", "unanswered"],
)
def test_json_lines_in_their_dialects(write: Write, record: dict[str, object], expected: GroundedExample) -> None:
    assert list(read_questions(write([record]))) == [expected]
    assert list(read_questions(write(f"[{json.dumps(record)}]"))) == [expected]
    assert list(read_questions(write(json.dumps({"Data": [record]})))) == [expected]


@pytest.mark.parametrize("answers", [[], ["No Answer Present."], {"text": [], "answer_start": []}])
def test_questions_without_an_answer_are_dropped_or_kept(write: Write, answers: object) -> None:
    path = write([{"question": "who?", "answers": answers}, {"question": "when?", "answers": ["now"]}])
    assert [one.id for one in read_questions(path)] == ["2"]
    assert [one.targets for one in read_questions(path, unanswerable="keep")] == [(NO_ANSWER,), ("now",)]


def test_tables_of_dpr(write: Write) -> None:
    path = write('who wrote it\t[\'Ann\', "O\'Hara"]\n\nwhat is "it"\t"[""a"", ""b""]"\n"say ""hi"""\t["hi"]')
    assert [(one.id, one.query, one.targets) for one in read_questions(path)] == [
        ("1", "who wrote it", ("Ann", "O'Hara")),
        ("3", 'what is "it"', ("a", "b")),
        ("4", 'say "hi"', ("hi",)),
    ]
    assert [one.id for one in read_questions(write("question\tanswers\nwho\t['Ann']"))] == ["2"]


TEXT_LISTS = [
    ("['Ann', 'A. Lee']", ("Ann", "A. Lee")),
    ('["Ann", "A. Lee"]', ("Ann", "A. Lee")),
    (' ["Ann"] ', ("Ann",)),
    (r'["\ud83c\udf55", "a\/b"]', ("\U0001f355", "a/b")),  # JSON in ASCII
    ("['Ann' 'A. Lee'\n \"O'Hara\"]", ("Ann", "A. Lee", "O'Hara")),  # an array, as numpy prints it
    ("[1905]", ("[1905]",)),
    ("[Ann]", ("[Ann]",)),
    ("Ann [sic]", ("Ann [sic]",)),
]


@pytest.mark.parametrize(("text", "targets"), TEXT_LISTS)
def test_answers_that_are_the_text_of_a_list_are_that_list_to_every_reader(
    write: Write, text: str, targets: tuple[str, ...]
) -> None:
    record = {"question": "who?", "answers": text}
    sources = [
        write([record]),
        write(json.dumps([record])),
        write(json.dumps({"Data": [{"Question": "who?", "Answer": {"Value": text, "Aliases": []}}]})),
        write([{"question": "who?", "answers": {"text": text}}]),
    ]
    if targets != (text,) and "\n" not in text:
        sources.append(write(f"who?\t{text}"))
    for source in sources:
        assert [one.targets for one in read_questions(source)] == [targets]
    assert [one.targets for one in question_examples([record])] == [targets]
    (turn,) = dialogue_examples([{"history": ["who?"], "answers": text}])
    assert turn.targets == targets
    (literal,) = question_examples([{"question": "who?", "answers": [text]}])
    assert literal.targets == (text.strip(),)


def test_an_empty_list_in_text_is_no_answer_and_lists_of_ids_are_read_alike(write: Write) -> None:
    path = write(
        [{"question": "who?", "answers": "[]"}, {"question": "a", "answer": "b", "gold_passages": "['p', 'q']"}]
    )
    first, second = read_questions(path, unanswerable="keep")
    assert first.targets == (NO_ANSWER,)
    assert second.gold_passages == ("p", "q")


def test_squad_and_its_paragraphs(write: Write) -> None:
    for path in (write(json.dumps(SQUAD)), write(json.dumps(SQUAD, indent=1))):
        first, second = read_contexts(path)
        assert (first.title, first.text) == ("Tides", "The moon pulls the water.")
        assert (second.title, second.text) == ("Tides", "Twice a day.")
        assert list(read_questions(path)) == [GroundedExample("q1", "What pulls?", ("moon", "The moon"), (first.id,))]
        kept = list(read_questions(path, unanswerable="keep"))
        assert kept[1] == GroundedExample("q2", "What sings?", (NO_ANSWER,), (first.id,))


def test_a_paragraph_has_one_id_in_every_file_and_stands_in_a_base_once(write: Write) -> None:
    first, second = read_contexts(write(json.dumps(SQUAD)))
    (tides,) = SQUAD["data"]
    other = {"title": "Rain", "paragraphs": [{"context": "It falls.", "qas": []}]}
    found = list(read_contexts(write(json.dumps({"data": [other, tides, tides]}))))
    assert found[1:] == [first, second]
    assert len({passage.id for passage in found}) == 3


def test_compressed_files(tmp_path: Path) -> None:
    path = tmp_path / "dev.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"question": "who?", "answer": ["Ann"]}\n'))
    assert [one.targets for one in read_questions(path)] == [("Ann",)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"question": "a", "answer": "b"}\n{"answers": ["b"]}',
            r"line 2: no field 'question'; the record has answers",
        ),
        ('{"question": 3, "answer": "b"}', r"line 1: 'question' is a number; expected a string"),
        ('{"question": " ", "answer": "b"}', r"line 1: 'question' is blank"),
        ('{"question": "a", "answers": ["b", 3]}', r"line 1: entry 1 of 'answers' is a number"),
        ('{"question": "a", "answer": ""}', r"line 1: 'answer' is blank"),
        (
            '{"question": "a", "answer": {"wrong": 1}}',
            r"line 1: 'answer' has wrong; expected text, or value and aliases",
        ),
        ('{"question": "a", "gold_passages": [1]}', r"line 1: entry 0 of 'gold_passages' is a number"),
        ('{"question": "a", "id": []}', r"line 1: 'id' is a list"),
        ('{"id": "x", "question": "a"}\n{"id": "x", "question": "b"}', r"line 2: id 'x' is already used at line 1"),
        (
            '[{"id": "x", "question": "a"},\n{"id": "x", "question": "b"}]',
            r"record 2: id 'x' is already used at record 1",
        ),
        ("who\t['a'\n", r"line 1: the second cell is .* expected a list of answers"),
        ("who\t__import__('os')\n", r"line 1: the second cell is"),
        ("who\t['a']\twhere\n", r"line 1: 3 cells"),
        ("who wrote it", r"line 1: neither JSON, nor a table"),
        ('{"Data": 3}', r"'Data' is a list"),
        ('{"Data": [3]}', r"Data 1: a number"),
        ('{"data": [{"paragraphs": [{"qas": []}]}]}', r"article 1, paragraph 1: no field 'context'"),
        ('{"data": [{"paragraphs": [{"context": "", "qas": [{"id": 1}]}]}]}', r"question 1: no field 'question'"),
        ('{"data": {}}', r"top level: 'data' is an object"),
        ("\n \n", r"only blank lines"),
    ],
)
def test_refusals_name_file_place_and_remedy(write: Write, content: str, message: str) -> None:
    assert_refused(read_questions, write(content), message)


def test_unknown_choices_are_refused(write: Write) -> None:
    path = write([{"question": "who?"}])
    with pytest.raises(UserError, match="did you mean 'jsonl'"):
        read_questions(path, "json_lines")
    with pytest.raises(UserError, match="did you mean 'keep'"):
        read_questions(path, unanswerable="kept")


FIELDS = (
    "question answer answers text value aliases id data Data "
    "paragraphs qas context is_impossible orig_answer gold_passages title history role"
)
JSON = json_values(FIELDS.split(), "CANNOTANSWER")
LINES = st.one_of(JSON.map(json.dumps), st.text(max_size=30), st.builds("{}\t{!r}".format, st.text(max_size=5), JSON))


@given(st.lists(LINES, min_size=1, max_size=3), st.sampled_from(QUESTION_FORMATS))
def test_any_line_gives_examples_or_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], name: str
) -> None:
    examples = read_any(lambda path: read_questions(path, name, "keep"), lines, tmp_path_factory)
    assert all(isinstance(one, Example) and one.query.strip() for one in examples or ())


@given(st.lists(LINES, min_size=1, max_size=3))
def test_any_file_gives_dialogues_or_a_user_error(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    dialogues = read_any(read_quac, lines, tmp_path_factory)
    assert all(isinstance(one, DialogueExample) for one in dialogues or ())


def test_half_a_sign_that_a_table_writes_as_python_does_is_no_answer(write: Write) -> None:
    with pytest.raises(UserError, match="expected a list of answers"):
        list(read_questions(write("who\t['\\ud800']")))
