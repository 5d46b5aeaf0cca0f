"""Readers of questions with answers: records in any container, DPR's tables, TriviaQA, SQuAD and BEIR files.

Every reader yields `GroundedExample` lazily, and every error names the file, the place and the remedy.

``jsonl``, ``json``, ``csv``, ``parquet`` and ``arrow`` hold records (`retrograd.data.rows`). Only the question is
required; other fields than these are not read, and a map of fields (`retrograd.data.field_maps`) says where records
have them that name them otherwise:
              question   ``question``, ``query``, ``Question`` or ``Query``
              answers    ``answers``, ``answer``, ``Answer``, ``golden_answers`` (FlashRAG) or ``possible_answers``: a
                         string, a list of strings, or an object with ``text`` (SQuAD) or with ``value`` and
                         ``aliases``, also in capitals (TriviaQA); a string that is the text of a list, as in ``tsv``,
                         is that list
              id         ``id``, ``_id``, ``qid``, ``query_id``, ``question_id`` or ``QuestionId``; else the number
              gold       ``gold_passages``, a list of passage ids
              Natural Questions open, TriviaQA and MS MARCO (by columns, too), as commonly distributed, are of this
              kind; and so is KILT, with its question in ``input``, its answers in ``output[*].answer``, and the pages
              that they are from as gold passages.
``triviaqa``  one JSON object whose ``Data`` is a list of such objects.
``tsv``       DPR's question files: question, tab, list of answers, as in ``who wrote it<TAB>['Ann', 'A. Lee']``.
``squad``     SQuAD 1.1 and 2.0; the gold passage is the paragraph (`retrograd.data.squad`).
``beir``      the table of a BEIR folder that says which passages are relevant (``FOLDER/qrels/test.tsv``): its queries,
              from ``FOLDER/queries.jsonl``, without answers (`retrograd.data.beir`).

An empty list of answers, MS MARCO's "No Answer Present." and SQuAD 2.0's ``is_impossible`` are questions without an
answer: ``unanswerable`` "drop" leaves them out, "keep" gives them the target `NO_ANSWER`. A question whose record has
no field for answers at all can be predicted, not trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, get_args

from retrograd.data.beir import is_beir_qrels, read_beir_queries
from retrograd.data.examples import GroundedExample
from retrograd.data.field_maps import QuestionFields, map_records
from retrograd.data.proposals import mapped_kind, propose_question_fields, require_field
from retrograd.data.record_fields import (
    Records,
    find_field,
    find_id,
    locate_errors,
    missing_field,
    name_type,
    number_records,
    read_objects,
    read_records,
    read_string,
    read_strings,
    require_known,
)
from retrograd.data.rows import ROW_KINDS, read_rows, row_kind, split_header
from retrograd.data.squad import NO_ANSWER, UNANSWERABLE, has_articles, read_squad
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

QuestionFormat = Literal["auto", "jsonl", "json", "csv", "parquet", "arrow", "tsv", "triviaqa", "squad", "beir"]
"""The values of ``data.format``: a new one is named here, in `_READERS` and, if "auto" knows it, in
`detect_question_format`."""

QUESTION_FORMATS: tuple[QuestionFormat, ...] = get_args(QuestionFormat)
ANSWERS_ARE = ("text", "regex")
"""Plain text, or regular expressions (`retrograd.metrics.patterns`)."""

_QUESTIONS = ("question", "query", "Question", "Query")
_ANSWERS = ("answers", "answer", "Answer", "golden_answers", "possible_answers")
_IDS = ("id", "_id", "qid", "query_id", "question_id", "QuestionId")
_VALUES = ("value", "Value")
_ALIASES = ("aliases", "Aliases")
_HEADERS = (["question", "answer"], ["question", "answers"])
_NONE_PRESENT = "No Answer Present."
_NAMES = (*_QUESTIONS, *_ANSWERS, *_IDS)
_PLAIN = QuestionFields()


def read_questions(
    path: Path,
    format: str = "auto",  # noqa: A002 (the field's word)
    unanswerable: str = "drop",
    refuse: Refuse = raise_error,
    answers_are: str = "text",
    fields: QuestionFields = _PLAIN,
) -> Iterator[GroundedExample]:
    """Return the questions of a file in one of `QUESTION_FORMATS`; ``auto`` looks at its beginning.

    ``answers_are`` is one of `ANSWERS_ARE`; ``fields`` says where records have what.
    Malformed records and repeated ids go to ``refuse``, with file and place.
    Raises `UserError` for an unknown format or treatment of what is unanswerable, and for the first fault of a SQuAD
    file.
    """
    require_known(answers_are, ANSWERS_ARE, "kind of answers")
    require_known(format, QUESTION_FORMATS, "question format")
    require_known(unanswerable, UNANSWERABLE, "treatment of questions without an answer")
    if fields.paths:
        detected = mapped_kind(path, format)
    else:
        detected = detect_question_format(path) if format == "auto" else format
        if detected in ROW_KINDS:
            require_field(path, detected, _NAMES, _has_question, "question", propose_question_fields)
    read = _read_mapped(detected, fields) if fields.paths else _READERS[detected]
    return read(path, unanswerable, refuse, answers_are == "regex")


def question_examples(
    records: Iterable[JsonObject],
    unanswerable: str = "drop",
    answers_are: str = "text",
    fields: QuestionFields = _PLAIN,
) -> Iterator[GroundedExample]:
    """Return the questions of records with the fields of the format ``jsonl``, or where ``fields`` says.

    Raises `UserError`, with the number of the record (from 1), for a malformed one and a repeated id.
    """
    place = Path("the records")
    numbered = map_records(place, number_records("record", enumerate(records, start=1)), fields)
    require_known(answers_are, ANSWERS_ARE, "kind of answers")
    return _read_examples(place, numbered, unanswerable, raise_error, answers_are == "regex")


def detect_question_format(path: Path) -> str:
    """Return the format of a file, judged by its beginning. Raises `UserError` where none fits."""
    kind = row_kind(path)
    if kind == "csv":
        return _detect_table(path)
    if kind != "json":
        return kind
    _, line = text_files.first_line(path, "questions")
    if line.lstrip().startswith("["):
        return "json"
    content = peek_json_object(line) or text_files.read_json(path)
    if isinstance(content, dict) and "Data" in content:
        return "triviaqa"
    return "squad" if isinstance(content, dict) and has_articles(content) else "json"


def _detect_table(path: Path) -> str:
    """Return the format of a text that is no JSON: DPR's tables have tabs, and no header that is known."""
    number, line = text_files.first_line(path, "questions")
    if is_beir_qrels(path):
        return "beir"
    header = split_header(line)
    if "\t" in line:
        return "csv" if set(header) & set(_QUESTIONS) else "tsv"
    if len(header) > 1:
        return "csv"
    raise UserError(
        f"{path}, line {number}: neither JSON, nor a table whose first line names its columns, nor a question, a tab "
        f"and a list of answers; name the format: {', '.join(QUESTION_FORMATS[1:])}"
    )


def _has_question(record: JsonObject) -> bool:
    return find_field(record, _QUESTIONS) is not None or _is_kilt(record)


def _read_mapped(kind: str, fields: QuestionFields) -> _Read:
    """Return a reader of records that have their fields where ``fields`` says."""
    names = (*_NAMES, *fields.paths.values())
    return _by_record(lambda path, refuse: map_records(path, read_rows(path, names, refuse, kind), fields, refuse))


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
        if number == 1 and [cell.strip().casefold() for cell in cells] in _HEADERS:
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
    raise UserError(
        f"the second cell is {cell[:60]!r}; expected a list of answers such as ['one', 'two'], or, where the first "
        f"line names columns, data.fields.question and data.fields.answers, which say which they are"
    )


def _read_examples(
    path: Path, records: Records, unanswerable: str, refuse: Refuse, patterns: bool
) -> Iterator[GroundedExample]:
    def read(record: JsonObject, number: int) -> GroundedExample | None:
        return _read_example(record, number, unanswerable, patterns)

    return read_records(path, records, read, refuse)


def _read_example(record: JsonObject, number: int, unanswerable: str, patterns: bool) -> GroundedExample | None:
    """Return the example of a record; None for a question without an answer that is to be dropped."""
    question_field = find_field(record, _QUESTIONS)
    if question_field is None and _is_kilt(record):
        record, question_field = _read_kilt(record), "question"
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


def _is_kilt(record: JsonObject) -> bool:
    """Return whether a record is one of KILT or CLAPnq: an input, and outputs that are objects."""
    outputs = record.get("output")
    is_list = isinstance(outputs, list) and all(isinstance(output, dict) for output in outputs)
    return "input" in record and is_list


def _read_kilt(record: JsonObject) -> JsonObject:
    """Return a record of KILT with our fields; an output without a text answers nothing."""
    outputs = read_objects(record, "output")
    pages = [page for output in outputs if "provenance" in output for page in read_objects(output, "provenance")]
    return {
        "id": record.get("id"),
        "question": record["input"],
        "answers": [output["answer"] for output in outputs if output.get("answer") not in (None, "")],
        "gold_passages": [str(page["wikipedia_id"]) for page in pages if page.get("wikipedia_id") is not None],
    }


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
    **{kind: _read_mapped(kind, _PLAIN) for kind in ROW_KINDS},
    "tsv": _by_record(_read_table),
    "triviaqa": _by_record(_read_triviaqa),
    "squad": _read_squad,
    "beir": _by_record(read_beir_queries),
}
"""How each of `QUESTION_FORMATS` but "auto" is read."""
