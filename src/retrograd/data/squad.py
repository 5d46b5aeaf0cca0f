"""Readers of the nested JSON of SQuAD 1.1 and 2.0, QuAC and DoQA: articles, their paragraphs, and questions on each.

One file is questions (`read_squad`), dialogues (`read_quac`, where the questions of a paragraph follow each other) and
passages (`read_contexts`): a question's gold passage is its paragraph. A paragraph's id is its own where it has one
(QuAC, DoQA), else made of its title and text (`TEXT_ID`): the same paragraph has the same id in every file, and stands
in a base once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrograd.data.examples import DialogueExample, GroundedExample, Turn, dialogue_example
from retrograd.data.record_fields import (
    locate_errors,
    name_type,
    read_every_string,
    read_id,
    read_objects,
    read_optional_string,
    read_string,
    require_fields,
    require_new,
)
from retrograd.types import Passage, UserError
from retrograd.util.fingerprints import fingerprint
from retrograd.util.guards import JsonObject, JsonValue
from retrograd.util.text_files import read_json

__all__ = [
    "CANNOT_ANSWER",
    "NO_ANSWER",
    "TEXT_ID",
    "UNANSWERABLE",
    "has_articles",
    "read_contexts",
    "read_quac",
    "read_squad",
    "resolve_answers",
]

NO_ANSWER = "cannot answer"
"""The target of what cannot be answered, in every format; a task's ``no_answer`` should be the same."""

UNANSWERABLE = ("drop", "keep")
"""What cannot be answered is left out, or has the target `NO_ANSWER`."""

TEXT_ID = "text:"
"""How an id begins that a reader made of a passage's words, because its file has none."""

CANNOT_ANSWER = "CANNOTANSWER"
"""What QuAC, DoQA and OR-QuAC write instead of an answer."""


@dataclass(frozen=True, slots=True)
class _Paragraph:
    place: str
    passage: Passage
    record: JsonObject


def read_contexts(path: Path) -> Iterator[Passage]:
    """Yield the distinct paragraphs of a file as passages.

    Raises `UserError`, with file and place, for a malformed one.
    """
    known_ids: set[str] = set()
    for paragraph in _read_paragraphs(path):
        if paragraph.passage.id not in known_ids:
            known_ids.add(paragraph.passage.id)
            yield paragraph.passage


def has_articles(content: JsonObject) -> bool:
    """Return whether an object is laid out as SQuAD is, whose 'data' are articles, and no list of plain records."""
    if "data" not in content:
        return False
    articles = content["data"]
    if not isinstance(articles, list) or not articles:
        return True
    return any(not isinstance(article, dict) or "paragraphs" in article for article in articles)


def read_squad(path: Path, unanswerable: str = "drop") -> Iterator[GroundedExample]:
    """Yield the questions of a SQuAD file; ``unanswerable`` (one of `UNANSWERABLE`) decides on ``is_impossible`` ones.

    Raises `UserError`, with file and place, for a malformed record and a repeated id.
    """
    first_places: dict[str, str] = {}
    for paragraph, place, question, id_ in _read_questions(path):
        with locate_errors(path, place):
            require_new(id_, place, first_places)
            targets = tuple(dict.fromkeys(_read_texts(question, "answers")))
            if question.get("is_impossible") is True or ("answers" in question and not targets):
                if unanswerable == "drop":
                    continue
                targets = (NO_ANSWER,)
            yield GroundedExample(id_, read_string(question, "question").strip(), targets, (paragraph.passage.id,))


def read_quac(path: Path, unanswerable: str = "keep") -> Iterator[DialogueExample]:
    """Yield one dialogue for each question of a QuAC or DoQA file: the turns on its paragraph up to the question.

    A turn that cannot be answered stays in the history of later ones, as `NO_ANSWER`, whatever ``unanswerable`` does to
    it as a target. Raises `UserError`, with file and place, for a malformed record and a repeated id.
    """
    first_places: dict[str, str] = {}
    history: list[Turn] = []
    current: _Paragraph | None = None
    for paragraph, place, question, id_ in _read_questions(path):
        if paragraph is not current:
            current, history = paragraph, []
        with locate_errors(path, place):
            require_new(id_, place, first_places)
            answers = _read_texts(question, "answers")
            original = next(iter(_read_texts(question, "orig_answer")), "")
            if "answers" in question and not answers and not original:
                answers = [NO_ANSWER]
            history = [*history, Turn("user", read_string(question, "question").strip())]
            targets = resolve_answers(answers or [original] * bool(original), original)
            if unanswerable == "keep" or targets != (NO_ANSWER,):
                yield dialogue_example(id_, history, targets, (paragraph.passage.id,))
            if first := original or next(iter(targets), ""):
                history = [*history, Turn("agent", _normalise_answer(first))]


def resolve_answers(answers: Sequence[str], first: str = "") -> tuple[str, ...]:
    """Return the distinct targets that annotators agree on, given one answer each; ``first`` comes first if it counts.

    Where they differ on whether there is an answer, the majority decides, as in QuAC's official scorer; a tie counts as
    no answer. The targets are `NO_ANSWER` alone, or do not hold it.
    """
    plain = list(map(_normalise_answer, answers))
    if 2 * plain.count(NO_ANSWER) >= len(plain) > 0:
        return (NO_ANSWER,)
    return tuple(
        dict.fromkeys(answer for answer in (_normalise_answer(first), *plain) if answer not in ("", NO_ANSWER))
    )


def _normalise_answer(answer: str) -> str:
    return NO_ANSWER if answer == CANNOT_ANSWER else answer


def _read_paragraphs(path: Path) -> Iterator[_Paragraph]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: expected a JSON object whose 'data' is a list of articles, found {name_type(content)}"
        )
    with locate_errors(path, "top level"):
        articles = read_objects(content, "data")
    first_places: dict[str, str] = {}
    for a, article in enumerate(articles, start=1):
        with locate_errors(path, f"article {a}"):
            title = read_optional_string(article, "title") or ""
            paragraphs = read_objects(article, "paragraphs")
        for p, record in enumerate(paragraphs, start=1):
            place = f"article {a}, paragraph {p}"
            with locate_errors(path, place):
                require_fields(record, ("context",))
                context = read_string(record, "context")
                if context.endswith(CANNOT_ANSWER):  # QuAC and DoQA, for their annotators to mark
                    context = context.removesuffix(CANNOT_ANSWER).rstrip()
                id_ = record.get("id")
                if isinstance(id_, str):
                    require_new(id_, place, first_places)
                else:
                    id_ = f"{TEXT_ID}{fingerprint([title, context])[:16]}"
                paragraph = _Paragraph(place, Passage(id_, title, context), record)
            yield paragraph


def _read_questions(path: Path) -> Iterator[tuple[_Paragraph, str, JsonObject, str]]:
    """Yield paragraph, place, record and id of every question, none of them blank."""
    number = 0
    for paragraph in _read_paragraphs(path):
        with locate_errors(path, paragraph.place):
            questions = read_objects(paragraph.record, "qas")
        for q, question in enumerate(questions):
            number += 1
            place = f"{paragraph.place}, question {q + 1}"
            with locate_errors(path, place):
                require_fields(question, ("question",))
                if not read_string(question, "question").strip():
                    raise UserError("'question' is blank; expected a question")
                id_ = read_id(question, number)
            yield paragraph, place, question, id_


def _read_texts(question: JsonObject, name: str) -> list[str]:
    """Return the texts of an answer or of a list of answers, with repetitions; empty without such a field."""
    value: JsonValue = question.get(name)
    if value is None:
        return []
    answers = [value] if isinstance(value, dict) else read_objects(question, name)
    texts: list[str] = []
    for answer in answers:
        if not isinstance(answer, dict):  # objects() has seen to it
            continue
        require_fields(answer, ("text",))
        texts += read_every_string(answer["text"], f"{name}.text")
    return texts
