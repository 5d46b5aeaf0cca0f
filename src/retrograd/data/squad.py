"""The nested JSON of SQuAD 1.1 and 2.0, QuAC and DoQA: articles, their paragraphs, and questions on each.

One file is questions (`read_squad`), dialogues (`read_quac`, where the questions of a paragraph follow each other) and
passages (`read_contexts`): a question's gold passage is its paragraph. A paragraph's id is its own where it has one
(QuAC, DoQA), else made of its title and text (`TEXT_ID`): the same paragraph has the same id in every file, and stands
in a base once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrograd.data.grounded_example import DialogueExample, GroundedExample, Turn, dialogue_example
from retrograd.data.record_fields import kind_of, optional_string, record_id, require_fields, string
from retrograd.data.record_lists import every_string, located, objects
from retrograd.types import Passage, UserError
from retrograd.util.fingerprints import fingerprint
from retrograd.util.guards import JsonObject, JsonValue
from retrograd.util.text_files import read_json

__all__ = [
    "CANNOT_ANSWER",
    "NO_ANSWER",
    "TEXT_ID",
    "UNANSWERABLE",
    "agreed",
    "read_contexts",
    "read_quac",
    "read_squad",
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
    """The distinct paragraphs of a file as passages. Raises `UserError`, with file and place, for a malformed one."""
    given: set[str] = set()
    for paragraph in _paragraphs(path):
        if paragraph.passage.id not in given:
            given.add(paragraph.passage.id)
            yield paragraph.passage


def read_squad(path: Path, unanswerable: str = "drop") -> Iterator[GroundedExample]:
    """The questions of a SQuAD file, ``is_impossible`` ones by ``unanswerable`` (one of `UNANSWERABLE`).

    Raises `UserError`, with file and place, for a malformed record and a repeated id.
    """
    seen: dict[str, str] = {}
    for paragraph, place, question, id_ in _questions(path):
        with located(path, place):
            _require_new(id_, place, seen)
            targets = tuple(dict.fromkeys(_texts(question, "answers")))
            if question.get("is_impossible") is True or ("answers" in question and not targets):
                if unanswerable == "drop":
                    continue
                targets = (NO_ANSWER,)
            yield GroundedExample(id_, string(question, "question").strip(), targets, (paragraph.passage.id,))


def read_quac(path: Path, unanswerable: str = "keep") -> Iterator[DialogueExample]:
    """One dialogue a question of a QuAC or DoQA file: the questions and answers before it on its paragraph, and itself.

    A turn that cannot be answered stays in the history of later ones, as `NO_ANSWER`, whatever ``unanswerable`` does to
    it as a target. Raises `UserError`, with file and place, for a malformed record and a repeated id.
    """
    seen: dict[str, str] = {}
    history: list[Turn] = []
    current: _Paragraph | None = None
    for paragraph, place, question, id_ in _questions(path):
        if paragraph is not current:
            current, history = paragraph, []
        with located(path, place):
            _require_new(id_, place, seen)
            answers = _texts(question, "answers")
            said = next(iter(_texts(question, "orig_answer")), "")
            if "answers" in question and not answers and not said:
                answers = [NO_ANSWER]
            history = [*history, Turn("user", string(question, "question").strip())]
            targets = agreed(answers or [said] * bool(said), said)
            if unanswerable == "keep" or targets != (NO_ANSWER,):
                yield dialogue_example(id_, history, targets, (paragraph.passage.id,))
            if first := said or next(iter(targets), ""):
                history = [*history, Turn("agent", _plain(first))]


def agreed(answers: Sequence[str], first: str = "") -> tuple[str, ...]:
    """Distinct targets of what several people answered, one entry each; ``first``, where it counts, is the first.

    Where they differ on whether anything can be answered, most decide, as in QuAC's official scorer, and of as many on
    either side those who say that it cannot: targets are `NO_ANSWER` alone, or do not hold it.
    """
    plain = list(map(_plain, answers))
    if 2 * plain.count(NO_ANSWER) >= len(plain) > 0:
        return (NO_ANSWER,)
    return tuple(dict.fromkeys(one for one in (_plain(first), *plain) if one not in ("", NO_ANSWER)))


def _plain(answer: str) -> str:
    return NO_ANSWER if answer == CANNOT_ANSWER else answer


def _paragraphs(path: Path) -> Iterator[_Paragraph]:
    whole = read_json(path)
    if not isinstance(whole, dict):
        raise UserError(f"{path}: expected a JSON object whose 'data' is a list of articles, found {kind_of(whole)}")
    with located(path, "top level"):
        articles = objects(whole, "data")
    seen: dict[str, str] = {}
    for a, article in enumerate(articles, start=1):
        with located(path, f"article {a}"):
            title = optional_string(article, "title") or ""
            paragraphs = objects(article, "paragraphs")
        for p, record in enumerate(paragraphs, start=1):
            place = f"article {a}, paragraph {p}"
            with located(path, place):
                require_fields(record, ("context",))
                context = string(record, "context")
                if context.endswith(CANNOT_ANSWER):  # QuAC and DoQA, for their annotators to mark
                    context = context.removesuffix(CANNOT_ANSWER).rstrip()
                id_ = record.get("id")
                if isinstance(id_, str):
                    _require_new(id_, place, seen)
                else:
                    id_ = f"{TEXT_ID}{fingerprint([title, context])[:16]}"
                paragraph = _Paragraph(place, Passage(id_, title, context), record)
            yield paragraph


def _questions(path: Path) -> Iterator[tuple[_Paragraph, str, JsonObject, str]]:
    """Paragraph, place, record and id of every question, none of them blank."""
    number = 0
    for paragraph in _paragraphs(path):
        with located(path, paragraph.place):
            questions = objects(paragraph.record, "qas")
        for q, question in enumerate(questions):
            number += 1
            place = f"{paragraph.place}, question {q + 1}"
            with located(path, place):
                require_fields(question, ("question",))
                if not string(question, "question").strip():
                    raise UserError("'question' is blank; expected a question")
                id_ = record_id(question, number)
            yield paragraph, place, question, id_


def _texts(question: JsonObject, name: str) -> list[str]:
    """The texts of an answer or of a list of answers, each as often as it stands; none where there is no such field."""
    value: JsonValue = question.get(name)
    if value is None:
        return []
    answers = [value] if isinstance(value, dict) else objects(question, name)
    found: list[str] = []
    for answer in answers:
        if not isinstance(answer, dict):  # objects() has seen to it
            continue
        require_fields(answer, ("text",))
        found += every_string(answer["text"], f"{name}.text")
    return found


def _require_new(id_: str, place: str, seen: dict[str, str]) -> None:
    if id_ in seen:
        raise UserError(f"id {id_!r} stands already at {seen[id_]}; ids must differ, predictions are kept by id")
    seen[id_] = place
