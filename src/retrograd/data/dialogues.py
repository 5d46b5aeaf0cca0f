"""Reading document-grounded dialogues: JSON Lines, OR-QuAC, QuAC and DoQA files, Doc2Dial.

Every reader yields `DialogueExample` lazily, and every error names the file, the place and the remedy.

``jsonl``     one turn to answer a line; other fields than these are not read:
              turns      ``history`` or ``Context``, oldest first: objects ``{"role", "text"}``; texts ``"role: text"``;
                         texts without roles, user and agent in turn; or objects ``{"question", "answer"}`` (OR-QuAC)
              question   ``question`` or ``Question``, the turn to answer; without it that is the last of the history
              answers    ``answers``, ``answer``, ``response`` or ``Answer``: text, a list, or ``{"text": …}``
              id         ``id``, ``qid`` or ``_id``; else the line
              gold       ``gold_passages``: passage ids; ``knowledge``: texts that the answer was written from, or
                         OR-QuAC's ``evidences`` where ``retrieval_labels`` is 1
``quac``      QuAC and DoQA (`retrograd.data.squad`); the gold passage is the paragraph.
``doc2dial``  the official ``dial_data`` file: one example for each turn of the agent; the gold passage is the document.

Turns that cannot be answered (CANNOTANSWER in QuAC, DoQA and OR-QuAC; an empty list of answers; a turn of Doc2Dial
without references) are kept with the target `NO_ANSWER` (Doc2Dial: what was said) or dropped, as ``unanswerable`` says.
Where several people answered and differ on that, most decide (`retrograd.data.squad.agreed`).
``user``, ``usr``, ``human`` and ``seeker`` are one role, ``agent``, ``assistant``, ``system``, ``bot`` and ``wizard``
the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from retrograd.data.grounded_example import DialogueExample, Turn, dialogue_example
from retrograd.data.record_fields import kind_of, optional_string, record_id, require_fields, require_new, string
from retrograd.data.record_lists import every_string, located, named, objects, strings
from retrograd.data.squad import NO_ANSWER, UNANSWERABLE, agreed, read_quac
from retrograd.types import Passage, UserError
from retrograd.util import text_files
from retrograd.util.guards import JsonObject, JsonValue, advice, peek_json_object
from retrograd.util.text_files import Refuse, raise_error

__all__ = ["DIALOGUE_FORMATS", "dialogue_examples", "read_dialogues", "read_doc2dial_documents"]

DIALOGUE_FORMATS = ("auto", "jsonl", "quac", "doc2dial")

_HISTORIES = ("history", "Context")
_QUESTIONS = ("question", "Question")
_ANSWERS = ("answers", "answer", "response", "Answer")
_IDS = ("id", "qid", "_id")
_EVIDENCE = ("evidences", "evidence")
_USERS = frozenset({"user", "usr", "human", "seeker"})
_AGENTS = frozenset({"agent", "assistant", "system", "bot", "wizard"})
_SPOKEN = re.compile(rf"\s*({'|'.join(sorted(_USERS | _AGENTS))})\s*:\s*(.*)", re.IGNORECASE | re.DOTALL)


def read_dialogues(
    path: Path,
    format: str = "auto",  # noqa: A002 (the field's word)
    unanswerable: str = "keep",
    refuse: Refuse = raise_error,
) -> Iterator[DialogueExample]:
    """Dialogues of a file in one of `DIALOGUE_FORMATS`; ``auto`` looks at its beginning.

    Malformed lines and repeated ids of JSON Lines go to ``refuse``, with file and place. Raises `UserError` for an
    unknown format or treatment of what is unanswerable, and for the first fault of the other formats.
    """
    for value, known, what in (
        (format, DIALOGUE_FORMATS, "dialogue format"),
        (unanswerable, UNANSWERABLE, "treatment of turns without an answer"),
    ):
        if value not in known:
            raise UserError(f"unknown {what} {value!r}; {advice(value, known)}")
    chosen = detect_dialogue_format(path) if format == "auto" else format
    if chosen == "jsonl":
        return _read_lines(path, unanswerable, refuse)
    return {"quac": read_quac, "doc2dial": _read_doc2dial}[chosen](path, unanswerable)


def detect_dialogue_format(path: Path) -> str:
    """The format of a file, judged by its first line that is not blank. Raises `UserError` where none fits."""
    for number, line in text_files.read_lines(path):
        if not line.strip():
            continue
        record = peek_json_object(line)
        if record is None and line.lstrip().startswith("{"):  # an object over several lines
            record = text_files.read_json(path)
        if not isinstance(record, dict):
            raise UserError(
                f"{path}, line {number}: no JSON object; name the format: {', '.join(DIALOGUE_FORMATS[1:])}"
            )
        if "dial_data" in record:
            return "doc2dial"
        return "quac" if "data" in record else "jsonl"
    raise UserError(f"{path} holds only blank lines; expected dialogues")


# JSON Lines -----------------------------------------------------------------------------------------------------------


def _read_lines(path: Path, unanswerable: str, refuse: Refuse) -> Iterator[DialogueExample]:
    return _examples(path, "line", text_files.read_jsonl(path, refuse), unanswerable, refuse)


def dialogue_examples(records: Iterable[JsonObject], unanswerable: str = "keep") -> Iterator[DialogueExample]:
    """Return the turns of records with the fields of the format ``jsonl``.

    Raises `UserError`, with the number of the record (from 1), for a malformed one and a repeated id.
    """
    return _examples(Path("the records"), "record", enumerate(records, start=1), unanswerable, raise_error)


def _examples(
    path: Path, unit: str, records: Iterable[tuple[int, JsonObject]], unanswerable: str, refuse: Refuse
) -> Iterator[DialogueExample]:
    """Return the turns of numbered records; ``unit`` is what the numbers count."""
    seen: dict[str, int] = {}
    for number, record in records:
        with located(path, f"{unit} {number}", refuse):
            example = _example(record, number)
            require_new(example.id, number, seen, unit)
            if unanswerable == "keep" or example.targets != (NO_ANSWER,):
                yield example


def _example(record: JsonObject, number: int) -> DialogueExample:
    history_field, question_field = named(record, _HISTORIES), named(record, _QUESTIONS)
    if history_field is None and question_field is None:
        raise UserError(f"no field 'history'; the record has {', '.join(record) or 'no fields'}")
    history = _history(record[history_field], history_field, question_field is not None) if history_field else []
    if question_field is not None:
        history.append(Turn("user", string(record, question_field).strip()))
    id_field = named(record, _IDS)
    id_ = record_id({} if id_field is None else {"id": record[id_field]}, number)
    answer_field = named(record, _ANSWERS)
    targets = () if answer_field is None else _answers(record[answer_field], answer_field) or (NO_ANSWER,)
    gold = strings(record.get("gold_passages"), "gold_passages")
    return dialogue_example(id_, history, targets, gold, _knowledge(record))


def _history(value: JsonValue, name: str, question_follows: bool) -> list[Turn]:
    if not isinstance(value, list):
        raise UserError(f"{name!r} is {kind_of(value)}; expected a list of turns, oldest first")
    if all(isinstance(one, str) for one in value):
        return _spoken([str(one) for one in value], name, question_follows)
    turns: list[Turn] = []
    for one in objects({name: value}, name):
        if "question" in one:
            turns.append(Turn("user", string(one, "question").strip()))
            said = _answers(one["answer"], "answer") if one.get("answer") is not None else ()
            turns += [Turn("agent", said[0])] if said else []
        else:
            require_fields(one, ("role", "text"))
            turns.append(Turn(_role(string(one, "role")), string(one, "text").strip()))
    return turns


def _spoken(texts: Sequence[str], name: str, question_follows: bool) -> list[Turn]:
    """Turns of texts, which all name their roles or none: then user and agent take turns, the user asking last."""
    matches = [_SPOKEN.fullmatch(text) for text in texts]
    if texts and all(matches):
        return [Turn(_role(match[1]), match[2].strip()) for match in matches if match]
    if any(matches):
        position = matches.index(None)
        raise UserError(
            f"entry {position} of {name!r} names no role, others do; write 'user: …' or 'agent: …' before each, or "
            "before none"
        )
    asks = (len(texts) - 1 + question_follows) % 2
    return [Turn("user" if i % 2 == asks else "agent", text.strip()) for i, text in enumerate(texts)]


def _role(name: str) -> str:
    key = name.strip().casefold()
    if not key:
        raise UserError("the role of a turn is blank; expected user or agent")
    return "user" if key in _USERS else "agent" if key in _AGENTS else name.strip()


def _answers(value: JsonValue, name: str) -> tuple[str, ...]:
    if isinstance(value, dict):
        require_fields(value, ("text",))
        value = value["text"]
    return agreed(every_string(value, name))


def _knowledge(record: JsonObject) -> tuple[str, ...]:
    labels, name = record.get("retrieval_labels"), named(record, _EVIDENCE)
    if "knowledge" in record or labels is None or name is None:
        return strings(record.get("knowledge"), "knowledge")
    evidence = record[name]
    if not isinstance(labels, list) or not isinstance(evidence, list) or len(labels) != len(evidence):
        raise UserError(f"{name!r} and 'retrieval_labels' differ; expected two lists of one length")
    return strings([one for one, label in zip(evidence, labels, strict=True) if label == 1], name)


# Doc2Dial -------------------------------------------------------------------------------------------------------------


def _read_doc2dial(path: Path, unanswerable: str) -> Iterator[DialogueExample]:
    """One example for each turn of the agent that follows another turn; ids are ``dial_id_turn_id``."""
    seen: dict[str, int] = {}
    number = 0
    for place, document, value in _by_document(path, "dial_data"):
        with located(path, place):
            dialogues = objects({document: value}, document)
        for dialogue in dialogues:
            number += 1
            with located(path, f"{place}, dialogue {number}"):
                for example, grounded in _doc2dial_turns(dialogue, document):
                    require_new(example.id, number, seen, "dialogue")
                    if grounded or unanswerable == "keep":
                        yield example


def _doc2dial_turns(dialogue: JsonObject, document: str) -> Iterator[tuple[DialogueExample, bool]]:
    """Every turn of the agent that follows another, and whether it refers to the document."""
    require_fields(dialogue, ("dial_id",))
    id_ = string(dialogue, "dial_id")
    history: list[Turn] = []
    for position, turn in enumerate(objects(dialogue, "turns"), start=1):
        require_fields(turn, ("role", "utterance"))
        role, text = _role(string(turn, "role")), string(turn, "utterance").strip()
        if not text:
            continue
        if role == "agent" and history:
            example = dialogue_example(f"{id_}_{turn.get('turn_id', position)}", history, (text,), (document,))
            yield example, bool(turn.get("references"))
        history.append(Turn(role, text))


def read_doc2dial_documents(path: Path) -> Iterator[Passage]:
    """The documents of Doc2Dial's ``doc_data`` file, each as one passage, to be split.

    Raises `UserError`, with file and place, for a malformed one.
    """
    for place, document, value in _by_document(path, "doc_data"):
        with located(path, place):
            if not isinstance(value, dict):
                raise UserError(f"{kind_of(value)}; expected an object with doc_text")
            require_fields(value, ("doc_text",))
            yield Passage(document, optional_string(value, "title") or "", string(value, "doc_text"))


def _by_document(path: Path, name: str) -> Iterator[tuple[str, str, JsonValue]]:
    """Place, id and value of every document of a file ``{name: {domain: {document: value}}}``."""
    whole = text_files.read_json(path)
    domains = whole.get(name) if isinstance(whole, dict) else None
    if not isinstance(domains, dict):
        raise UserError(f"{path}: expected a JSON object whose {name!r} is an object of domains, as Doc2Dial has it")
    for domain, documents in domains.items():
        if not isinstance(documents, dict):
            raise UserError(f"{path}, domain {domain!r}: {kind_of(documents)}; expected an object of documents")
        for document, value in documents.items():
            yield f"domain {domain!r}, document {document!r}", document, value
