"""Readers of document-grounded dialogues: records in any container, OR-QuAC, QuAC and DoQA files, Doc2Dial, chats.

Every reader yields `DialogueExample` lazily, and every error names the file, the place and the remedy.

``jsonl``, ``json``, ``csv``, ``parquet`` and ``arrow`` hold records (`retrograd.data.rows`), of one turn to answer
each; other fields than these are not read, and a map of fields (`retrograd.data.field_maps`) says where records have
them that name them otherwise:
              turns      ``history`` or ``Context``, oldest first: objects ``{"role", "text"}``; texts ``"role: text"``;
                         texts without roles, user and agent in turn; or objects ``{"question", "answer"}`` (OR-QuAC)
              question   ``question`` or ``Question``, the turn to answer; without it that is the last of the history
              answers    ``answers``, ``answer``, ``response`` or ``Answer``: text, a list, or ``{"text": …}``
              id         ``id``, ``qid`` or ``_id``; else the line
              gold       ``gold_passages``: passage ids; ``knowledge``: texts that the answer was written from, or
                         OR-QuAC's ``evidences`` where ``retrieval_labels`` is 1
              A record with a whole chat, in ``messages`` or ``conversations`` (objects with ``role``, ``from`` or
              ``speaker``, and ``content``, ``value`` or ``text``, as OpenAI's, ShareGPT's and MTRAG's files have them),
              gives one example for each turn of the agent; MTRAG's tasks have the turns so far in ``input``, the
              answers in ``targets``, and the ids of what was found in ``contexts``, which are taken as gold.
``quac``      QuAC and DoQA (`retrograd.data.squad`); the gold passage is the paragraph.
``doc2dial``  the official ``dial_data`` file: one example for each turn of the agent; the gold passage is the document.

Turns that cannot be answered (CANNOTANSWER in QuAC, DoQA and OR-QuAC; an empty list of answers; a turn of Doc2Dial
without references) are kept with the target `NO_ANSWER` (Doc2Dial: what was said) or dropped, as ``unanswerable`` says.
Where several people answered and disagree, the majority decides (`retrograd.data.squad.resolve_answers`).
``user``, ``usr``, ``human`` and ``seeker`` are one role, ``agent``, ``assistant``, ``system``, ``bot``, ``wizard``,
``gpt`` and ``model`` the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from retrograd.data.chats import CHAT_IDS, is_chat, read_chat, read_turn
from retrograd.data.examples import DialogueExample, Turn, dialogue_example
from retrograd.data.field_maps import DialogueFields, map_records
from retrograd.data.proposals import mapped_kind, propose_dialogue_fields, require_field
from retrograd.data.record_fields import (
    Records,
    find_field,
    find_id,
    locate_errors,
    missing_field,
    name_type,
    number_records,
    read_every_string,
    read_objects,
    read_optional_string,
    read_string,
    read_strings,
    require_fields,
    require_known,
    require_new,
)
from retrograd.data.rows import ROW_KINDS, read_rows, row_kind, split_header
from retrograd.data.squad import NO_ANSWER, UNANSWERABLE, has_articles, read_quac, resolve_answers
from retrograd.types import Passage, UserError
from retrograd.util import text_files
from retrograd.util.guards import JsonObject, JsonValue, peek_json_object
from retrograd.util.text_files import Refuse, raise_error

__all__ = [
    "DIALOGUE_FORMATS",
    "DialogueFormat",
    "detect_dialogue_format",
    "dialogue_examples",
    "read_dialogues",
    "read_doc2dial_documents",
]

DialogueFormat = Literal["auto", "jsonl", "json", "csv", "parquet", "arrow", "quac", "doc2dial"]
"""The values of ``data.format``: a new one is named here, in `_READERS` and, if "auto" knows it, in
`detect_dialogue_format`."""

DIALOGUE_FORMATS: tuple[DialogueFormat, ...] = get_args(DialogueFormat)

_HISTORIES = ("history", "Context")
_QUESTIONS = ("question", "Question")
_ANSWERS = ("answers", "answer", "response", "Answer")
_IDS = ("id", "qid", "_id")
_EVIDENCE = ("evidences", "evidence")
_NAMES = (*_HISTORIES, *_QUESTIONS, *_ANSWERS, *_IDS)
_PLAIN = DialogueFields()
_USERS = frozenset({"user", "usr", "human", "seeker"})
_AGENTS = frozenset({"agent", "assistant", "system", "bot", "wizard", "gpt", "model"})
_SPOKEN = re.compile(rf"\s*({'|'.join(sorted(_USERS | _AGENTS))})\s*:\s*(.*)", re.IGNORECASE | re.DOTALL)


def read_dialogues(
    path: Path,
    format: str = "auto",  # noqa: A002 (the field's word)
    unanswerable: str = "keep",
    refuse: Refuse = raise_error,
    fields: DialogueFields = _PLAIN,
) -> Iterator[DialogueExample]:
    """Return the dialogues of a file in one of `DIALOGUE_FORMATS`; ``auto`` looks at its beginning.

    ``fields`` says where records have what. Malformed records and repeated ids go to ``refuse``, with file and place.
    Raises `UserError` for an unknown format or treatment of what is unanswerable, and for the first fault of the other
    formats.
    """
    require_known(format, DIALOGUE_FORMATS, "dialogue format")
    require_known(unanswerable, UNANSWERABLE, "treatment of turns without an answer")
    if fields.paths:
        detected = mapped_kind(path, format)
    else:
        detected = detect_dialogue_format(path) if format == "auto" else format
        if detected in ROW_KINDS:
            require_field(path, detected, _NAMES, _has_turns, "history", propose_dialogue_fields)
    read = _read_mapped(detected, fields) if fields.paths else _READERS[detected]
    return read(path, unanswerable, refuse)


def detect_dialogue_format(path: Path) -> str:
    """Return the format of a file, judged by its beginning. Raises `UserError` where none fits."""
    kind = row_kind(path)
    if kind == "csv":
        number, line = text_files.first_line(path, "dialogues")
        if len(split_header(line)) > 1:
            return kind
        raise UserError(
            f"{path}, line {number}: neither JSON nor a table whose first line names its columns; name the format: "
            f"{', '.join(DIALOGUE_FORMATS[1:])}"
        )
    if kind != "json":
        return kind
    _, line = text_files.first_line(path, "dialogues")
    if line.lstrip().startswith("["):
        return kind
    content = peek_json_object(line) or text_files.read_json(path)
    if isinstance(content, dict) and "dial_data" in content:
        return "doc2dial"
    return "quac" if isinstance(content, dict) and has_articles(content) else kind


# Records --------------------------------------------------------------------------------------------------------------


def dialogue_examples(
    records: Iterable[JsonObject], unanswerable: str = "keep", fields: DialogueFields = _PLAIN
) -> Iterator[DialogueExample]:
    """Yield the turns of records with the fields of the format ``jsonl``, or where ``fields`` says.

    Raises `UserError`, with the number of the record (from 1), for a malformed one and a repeated id.
    """
    place = Path("the records")
    numbered = map_records(place, number_records("record", enumerate(records, start=1)), fields)
    return _read_examples(place, numbered, unanswerable, raise_error)


def _read_examples(path: Path, records: Records, unanswerable: str, refuse: Refuse) -> Iterator[DialogueExample]:
    """Yield the turns of records that are to be answered."""
    first_places: dict[str, str] = {}
    for place, number, record in records:
        with locate_errors(path, place, refuse):
            for example in _read_turns(record, number):
                require_new(example.id, place.split(", ")[-1], first_places)
                if unanswerable == "keep" or example.targets != (NO_ANSWER,):
                    yield example


def _has_turns(record: JsonObject) -> bool:
    return find_field(record, (*_HISTORIES, *_QUESTIONS)) is not None or is_chat(record)


def _read_turns(record: JsonObject, number: int) -> Iterable[DialogueExample]:
    """Return the turns of a record that are to be answered: those of a chat, or one."""
    if find_field(record, (*_HISTORIES, *_QUESTIONS)) is None and is_chat(record):
        return read_chat(record, find_id(record, number, CHAT_IDS), _normalise_role)
    return [_read_example(record, number)]


def _read_example(record: JsonObject, number: int) -> DialogueExample:
    history_field, question_field = find_field(record, _HISTORIES), find_field(record, _QUESTIONS)
    if history_field is None and question_field is None:
        raise missing_field(record, "history")
    history = _read_history(record[history_field], history_field, question_field is not None) if history_field else []
    if question_field is not None:
        history.append(Turn("user", read_string(record, question_field).strip()))
    id_ = find_id(record, number, _IDS)
    answer_field = find_field(record, _ANSWERS)
    targets = () if answer_field is None else _read_answers(record[answer_field], answer_field) or (NO_ANSWER,)
    gold = read_strings(record.get("gold_passages"), "gold_passages")
    return dialogue_example(id_, history, targets, gold, _read_knowledge(record))


def _read_history(value: JsonValue, name: str, question_follows: bool) -> list[Turn]:
    if not isinstance(value, list):
        raise UserError(f"{name!r} is {name_type(value)}; expected a list of turns, oldest first")
    if all(isinstance(turn, str) for turn in value):
        return _parse_turns([str(turn) for turn in value], name, question_follows)
    turns: list[Turn] = []
    for turn in read_objects({name: value}, name):
        if "question" in turn:
            turns.append(Turn("user", read_string(turn, "question").strip()))
            answers = _read_answers(turn["answer"], "answer") if turn.get("answer") is not None else ()
            turns += [Turn("agent", answers[0])] if answers else []
        else:
            turns.append(read_turn(turn, _normalise_role))
    return turns


def _parse_turns(texts: Sequence[str], name: str, question_follows: bool) -> list[Turn]:
    """Return the turns of texts that all name their roles, or none of which does: then user and agent alternate, user
    last.
    """
    matches = [_SPOKEN.fullmatch(text) for text in texts]
    if texts and all(matches):
        return [Turn(_normalise_role(match[1]), match[2].strip()) for match in matches if match]
    if any(matches):
        position = matches.index(None)
        raise UserError(
            f"entry {position} of {name!r} has no role, while others have one; write 'user: …' or 'agent: …' "
            "before each, or before none"
        )
    asks = (len(texts) - 1 + question_follows) % 2
    return [Turn("user" if i % 2 == asks else "agent", text.strip()) for i, text in enumerate(texts)]


def _normalise_role(name: str) -> str:
    key = name.strip().casefold()
    if not key:
        raise UserError("the role of a turn is blank; expected user or agent")
    return "user" if key in _USERS else "agent" if key in _AGENTS else name.strip()


def _read_answers(value: JsonValue, name: str) -> tuple[str, ...]:
    if isinstance(value, dict):
        require_fields(value, ("text",))
        value = value["text"]
    return resolve_answers(read_every_string(value, name))


def _read_knowledge(record: JsonObject) -> tuple[str, ...]:
    labels, name = record.get("retrieval_labels"), find_field(record, _EVIDENCE)
    if "knowledge" in record or labels is None or name is None:
        return read_strings(record.get("knowledge"), "knowledge")
    evidence = record[name]
    if not isinstance(labels, list) or not isinstance(evidence, list) or len(labels) != len(evidence):
        raise UserError(f"{name!r} and 'retrieval_labels' differ; expected two lists of one length")
    return read_strings([text for text, label in zip(evidence, labels, strict=True) if label == 1], name)


# Doc2Dial -------------------------------------------------------------------------------------------------------------


def _read_doc2dial(path: Path, unanswerable: str) -> Iterator[DialogueExample]:
    """Yield one example for each turn of the agent that follows another turn; ids are ``dial_id_turn_id``."""
    first_places: dict[str, str] = {}
    number = 0
    for place, document, value in _read_documents(path, "dial_data"):
        with locate_errors(path, place):
            dialogues = read_objects({document: value}, document)
        for dialogue in dialogues:
            number += 1
            with locate_errors(path, f"{place}, dialogue {number}"):
                for example, grounded in _read_doc2dial_turns(dialogue, document):
                    require_new(example.id, f"dialogue {number}", first_places)
                    if grounded or unanswerable == "keep":
                        yield example


def _read_doc2dial_turns(dialogue: JsonObject, document: str) -> Iterator[tuple[DialogueExample, bool]]:
    """Yield every turn of the agent that follows another, and whether it refers to the document."""
    require_fields(dialogue, ("dial_id",))
    id_ = read_string(dialogue, "dial_id")
    history: list[Turn] = []
    for position, turn in enumerate(read_objects(dialogue, "turns"), start=1):
        require_fields(turn, ("role", "utterance"))
        role, text = _normalise_role(read_string(turn, "role")), read_string(turn, "utterance").strip()
        if not text:
            continue
        if role == "agent" and history:
            example = dialogue_example(f"{id_}_{turn.get('turn_id', position)}", history, (text,), (document,))
            yield example, bool(turn.get("references"))
        history.append(Turn(role, text))


def read_doc2dial_documents(path: Path) -> Iterator[Passage]:
    """Yield the documents of Doc2Dial's ``doc_data`` file, each as one passage, to be split.

    Raises `UserError`, with file and place, for a malformed one.
    """
    for place, document, value in _read_documents(path, "doc_data"):
        with locate_errors(path, place):
            if not isinstance(value, dict):
                raise UserError(f"{name_type(value)}; expected an object with doc_text")
            require_fields(value, ("doc_text",))
            yield Passage(document, read_optional_string(value, "title") or "", read_string(value, "doc_text"))


def _read_documents(path: Path, name: str) -> Iterator[tuple[str, str, JsonValue]]:
    """Yield place, id and value of every document of a file ``{name: {domain: {document: value}}}``."""
    content = text_files.read_json(path)
    domains = content.get(name) if isinstance(content, dict) else None
    if not isinstance(domains, dict):
        raise UserError(f"{path}: expected a JSON object whose {name!r} is an object of domains, as Doc2Dial has it")
    for domain, documents in domains.items():
        if not isinstance(documents, dict):
            raise UserError(f"{path}, domain {domain!r}: {name_type(documents)}; expected an object of documents")
        for document, value in documents.items():
            yield f"domain {domain!r}, document {document!r}", document, value


# The table of formats -------------------------------------------------------------------------------------------------

_Read = Callable[[Path, str, Refuse], Iterator[DialogueExample]]


def _read_mapped(kind: str, fields: DialogueFields) -> _Read:
    """Return a reader of records that have their fields where ``fields`` says."""
    names = (*_NAMES, *fields.paths.values())
    return lambda path, unanswerable, refuse: _read_examples(
        path, map_records(path, read_rows(path, names, refuse, kind), fields, refuse), unanswerable, refuse
    )


def _to_first_fault(read: Callable[[Path, str], Iterator[DialogueExample]]) -> _Read:
    """Return a reader of nested files, which raises its first fault instead of refusing a record."""
    return lambda path, unanswerable, _: read(path, unanswerable)


_READERS: Mapping[str, _Read] = {
    **{kind: _read_mapped(kind, _PLAIN) for kind in ROW_KINDS},
    "quac": _to_first_fault(read_quac),
    "doc2dial": _to_first_fault(_read_doc2dial),
}
"""How each of `DIALOGUE_FORMATS` but "auto" is read."""
