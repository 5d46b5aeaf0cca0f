"""Readers of questions with answers: JSON Lines, a JSON list, DPR's tables, TriviaQA and SQuAD files.

Every reader yields `GroundedExample` lazily, and every error names the file, the place and the remedy.

``jsonl``     one object a line. Only the question is required; other fields than these are not read:
              question   ``question``, ``query`` or ``Question``
              answers    ``answers``, ``answer`` or ``Answer``: a string, a list of strings, or an object with ``text``
                         (SQuAD) or with ``value`` and ``aliases``, also in capitals (TriviaQA); a string that is the
                         text of a list, as in ``tsv``, is that list
              id         ``id``, ``_id``, ``qid``, ``query_id``, ``question_id`` or ``QuestionId``; else the line
              gold       ``gold_passages``, a list of passage ids
              Natural Questions open, TriviaQA and MS MARCO, as commonly distributed, are of this kind.
``json``      one JSON list of such objects.
``triviaqa``  one JSON object whose ``Data`` is a list of such objects.
``tsv``       DPR's question files: question, tab, list of answers, as in ``who wrote it<TAB>['Ann', 'A. Lee']``.
``squad``     SQuAD 1.1 and 2.0; the gold passage is the paragraph (`retrograd.data.squad`).

An empty list of answers, MS MARCO's "No Answer Present." and SQuAD 2.0's ``is_impossible`` are questions without an
answer: ``unanswerable`` "drop" leaves them out, "keep" gives them the target `NO_ANSWER`. A question whose record has
no field for answers at all can be predicted, not trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, get_args

from retrograd.data.examples import GroundedExample
from retrograd.data.record_fields import (
    Records,
    find_field,
    find_id,
    locate_errors,
    missing_field,
    name_type,
    number_records,
    read_records,
    read_string,
    read_strings,
    require_known,
)
from retrograd.data.squad import NO_ANSWER, UNANSWERABLE, read_squad
from retrograd.metrics.patterns import compile_pattern
from retrograd.types import UserError
from retrograd.util import text_files
from retrograd.util.guards import JsonObject, JsonValue, parse_text_list, peek_json_object
from retrograd.util.text_files import Refuse, raise_error

__all__ = [
    "ANSWERS_ARE",
    "NO_ANSWER",
    "QUESTION_FORMATS",
    "UNANSWERABLE",
    "QuestionFormat",
    "detect_question_format",
    "question_examples",
    "read_questions",
]

QuestionFormat = Literal["auto", "jsonl", "json", "tsv", "triviaqa", "squad"]
"""The values of ``data.format``: a new one is named here, in `_READERS` and, if "auto" knows it, in
`detect_question_format`."""

QUESTION_FORMATS: tuple[QuestionFormat, ...] = get_args(QuestionFormat)
ANSWERS_ARE = ("text", "regex")
"""Plain text, or regular expressions (`retrograd.metrics.patterns`)."""

_QUESTIONS = ("question", "query", "Question")
_ANSWERS = ("answers", "answer", "Answer")
_IDS = ("id", "_id", "qid", "query_id", "question_id", "QuestionId")
_VALUES = ("value", "Value")
_ALIASES = ("aliases", "Aliases")
_NONE_PRESENT = "No Answer Present."


def read_questions(
    path: Path,
    format: str = "auto",  # noqa: A002 (the field's word)
    unanswerable: str = "drop",
    refuse: Refuse = raise_error,
    answers_are: str = "text",
) -> Iterator[GroundedExample]:
    """Return the questions of a file in one of `QUESTION_FORMATS`; ``auto`` looks at its beginning.

    ``answers_are`` is one of `ANSWERS_ARE`. Malformed records and repeated ids go to ``refuse``, with file and place.
    Raises `UserError` for an unknown format or treatment of what is unanswerable, and for the first fault of a SQuAD
    file.
    """
    require_known(answers_are, ANSWERS_ARE, "kind of answers")
    require_known(format, QUESTION_FORMATS, "question format")
    require_known(unanswerable, UNANSWERABLE, "treatment of questions without an answer")
    detected = detect_question_format(path) if format == "auto" else format
    return _READERS[detected](path, unanswerable, refuse, answers_are == "regex")


def question_examples(
    records: Iterable[JsonObject], unanswerable: str = "drop", answers_are: str = "text"
) -> Iterator[GroundedExample]:
    """Return the questions of records with the fields of the format ``jsonl``.

    Raises `UserError`, with the number of the record (from 1), for a malformed one and a repeated id.
    """
    numbered = number_records("record", enumerate(records, start=1))
    require_known(answers_are, ANSWERS_ARE, "kind of answers")
    return _read_examples(Path("the records"), numbered, unanswerable, raise_error, answers_are == "regex")


def detect_question_format(path: Path) -> str:
    """Return the format of a file, judged by its first line that is not blank. Raises `UserError` where none fits."""
    number, line = text_files.first_line(path, "questions")
    start = line.lstrip()
    if start.startswith("["):
        return "json"
    if not start.startswith("{"):
        if "\t" in line:
            return "tsv"
        raise UserError(
            f"{path}, line {number}: neither JSON nor a question, a tab and a list of answers; "
            f"name the format: {', '.join(QUESTION_FORMATS[1:])}"
        )
    record = peek_json_object(line)
    if record is None:  # an object over several lines
        content = text_files.read_json(path)
        record = content if isinstance(content, dict) else {}
    if "Data" in record:
        return "triviaqa"
    return "squad" if "data" in record else "jsonl"


def _read_lines(path: Path, refuse: Refuse) -> Records:
    return number_records("line", text_files.read_jsonl(path, refuse))


def _read_list(path: Path, refuse: Refuse) -> Records:
    return (
        (f"line {line}, record {number}", number, record) for number, line, record in text_files.read_json_list(path)
    )


def _read_triviaqa(path: Path, refuse: Refuse) -> Records:
    content = text_files.read_json(path)
    records = content.get("Data") if isinstance(content, dict) else None
    if not isinstance(records, list):
        raise UserError(f"{path}: expected a JSON object whose 'Data' is a list, as TriviaQA has it")
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            expected = "expected an object with Question and Answer"
            refuse(UserError(f"{path}, Data {number}: {name_type(record)}; {expected}"))
            continue
        yield f"Data {number}", number, record


def _read_table(path: Path, refuse: Refuse) -> Records:
    for number, line in text_files.read_lines(path, refuse):
        if not line.strip():
            continue
        cells = text_files.split_row(line, 2)
        if number == 1 and [cell.strip().casefold() for cell in cells] in (
            ["question", "answer"],
            ["question", "answers"],
        ):
            continue
        with locate_errors(path, f"line {number}", refuse):
            if len(cells) != 2:
                raise UserError(f"{len(cells)} cells; expected a question, a tab and a list of answers")
            yield f"line {number}", number, {"question": cells[0], "answers": _parse_list(cells[1])}


def _parse_list(cell: str) -> list[JsonValue]:
    """Return a list written as Python or JSON writes it; no part of it is executed."""
    values = parse_text_list(cell)
    if values is not None:
        return [*values]
    raise UserError(f"the second cell is {cell[:60]!r}; expected a list of answers such as ['one', 'two']")


def _read_examples(
    path: Path, records: Records, unanswerable: str, refuse: Refuse, patterns: bool
) -> Iterator[GroundedExample]:
    def read(record: JsonObject, number: int) -> GroundedExample | None:
        return _read_example(record, number, unanswerable, patterns)

    return read_records(path, records, read, refuse)


def _read_example(record: JsonObject, number: int, unanswerable: str, patterns: bool) -> GroundedExample | None:
    """Return the example of a record; None for a question without an answer that is to be dropped."""
    question_field = find_field(record, _QUESTIONS)
    if question_field is None:
        raise missing_field(record, "question")
    question = read_string(record, question_field).strip()
    if not question:
        raise UserError(f"{question_field!r} is blank; expected a question")
    id_ = find_id(record, number, _IDS)
    gold = read_strings(record.get("gold_passages"), "gold_passages")
    answer_field = find_field(record, _ANSWERS)
    targets: tuple[str, ...] = ()
    if answer_field is not None:
        targets = _read_answers(record[answer_field], answer_field)
        if record.get("is_impossible") is True or targets in ((), (_NONE_PRESENT,)):
            if unanswerable == "drop":
                return None
            targets = (NO_ANSWER,)
    if patterns:
        for target in targets:
            compile_pattern(target)
    return GroundedExample(id_, question, targets, gold, patterns)


def _read_answers(value: JsonValue, name: str) -> tuple[str, ...]:
    """Return the distinct answers in order, the canonical one first."""
    if not isinstance(value, dict):
        return read_strings(value, name)
    if "text" in value:
        return read_strings(value["text"], f"{name}.text")
    main, aliases = find_field(value, _VALUES), find_field(value, _ALIASES)
    if main is None and aliases is None:
        raise UserError(f"{name!r} has {', '.join(value) or 'no fields'}; expected text, or value and aliases")
    first = read_strings(value[main], f"{name}.{main}") if main else ()
    return tuple(dict.fromkeys([*first, *(read_strings(value[aliases], f"{name}.{aliases}") if aliases else ())]))


# ---- the table of formats --------------------------------------------------------------------------------------------

_Read = Callable[[Path, str, Refuse, bool], Iterator[GroundedExample]]


def _by_record(read: Callable[[Path, Refuse], Records]) -> _Read:
    """Return a reader of files whose records have the fields of ``jsonl``; ``read`` finds the records."""
    return lambda path, unanswerable, refuse, patterns: _read_examples(
        path, read(path, refuse), unanswerable, refuse, patterns
    )


def _read_squad(path: Path, unanswerable: str, refuse: Refuse, patterns: bool) -> Iterator[GroundedExample]:
    return read_squad(path, unanswerable)  # its answers are spans of its paragraphs, never patterns


_READERS: Mapping[str, _Read] = {
    "jsonl": _by_record(_read_lines),
    "json": _by_record(_read_list),
    "tsv": _by_record(_read_table),
    "triviaqa": _by_record(_read_triviaqa),
    "squad": _read_squad,
}
"""How each of `QUESTION_FORMATS` but "auto" is read."""
