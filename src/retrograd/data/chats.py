"""Read whole chats, whose every turn of the agent is to be answered, and MTRAG's tasks.

``messages`` or ``conversations`` is a list of turns, each an object with its speaker in ``role``, ``from`` or
``speaker``, and its words in ``content``, ``value`` or ``text``, as in the files that OpenAI's fine-tuning, ShareGPT
and MTRAG have. Turns of the system before the first of the user are instructions, and are not read. What an agent's
turn was written from may be in its ``contexts``.

MTRAG's tasks have the turns so far in ``input``, the answers in ``targets``, and ``contexts`` that were found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from retrograd.data.examples import DialogueExample, Turn, dialogue_example
from retrograd.data.record_fields import find_field, missing_field, read_objects, read_string
from retrograd.types import UserError
from retrograd.util.guards import JsonObject, JsonValue

__all__ = ["CHAT_IDS", "is_chat", "read_chat", "read_turn"]

CHAT_IDS = ("id", "_id", "task_id", "conversation_id")

_CHATS = ("messages", "conversations")
_SPEAKERS = ("role", "from", "speaker")
_WORDS = ("text", "content", "value", "utterance")
_PASSAGE_IDS = ("document_id", "id", "_id")


def is_chat(record: JsonObject) -> bool:
    """Return whether a record is a whole chat, or a task of MTRAG."""
    return find_field(record, _CHATS) is not None or isinstance(record.get("targets"), list)


def read_chat(record: JsonObject, id_: str, normalise_role: Callable[[str], str]) -> Iterator[DialogueExample]:
    """Yield the turns of a chat that are to be answered; those of a whole chat have the id with the turn's number.

    ``normalise_role`` returns "user" or "agent" for what speakers call themselves. Raises `UserError` for a malformed
    turn, and a chat without a turn to answer.
    """
    name = find_field(record, _CHATS)
    if name is None:
        yield _read_task(record, id_, normalise_role)
        return
    entries = read_objects(record, name)
    turns = [read_turn(entry, normalise_role) for entry in entries]
    first = next((i for i, turn in enumerate(turns) if turn.role == "user"), len(turns))
    asked = [i for i in range(first + 1, len(turns)) if turns[i].role == "agent" and turns[i].text]
    if not asked:
        raise UserError(f"{name!r} has no turn of an agent after one of a user; expected at least one, to be learned")
    for i in asked:
        history = [turn for turn in turns[first:i] if turn.text]
        yield dialogue_example(f"{id_}:{i}", history, (turns[i].text,), _read_gold(entries[i]), _read_texts(entries[i]))


def _read_task(record: JsonObject, id_: str, normalise_role: Callable[[str], str]) -> DialogueExample:
    history = [read_turn(entry, normalise_role) for entry in read_objects(record, "input")]
    targets = [read_turn(entry, normalise_role).text for entry in read_objects(record, "targets")]
    return dialogue_example(
        id_, history, tuple(text for text in targets if text), _read_gold(record), _read_texts(record)
    )


def read_turn(entry: JsonObject, normalise_role: Callable[[str], str]) -> Turn:
    """Return the turn of an object. Raises `UserError` where it lacks its speaker or its words."""
    speaker, words = find_field(entry, _SPEAKERS), find_field(entry, _WORDS)
    if speaker is None or words is None:
        raise missing_field(entry, "role" if speaker is None else "text")
    value = entry[words]
    text = "".join(map(_read_part, value)) if isinstance(value, list) else read_string(entry, words)
    return Turn(normalise_role(read_string(entry, speaker)), text.strip())


def _read_part(part: JsonValue) -> str:
    """Return the text of a part of a message; pictures and sounds have none."""
    if isinstance(part, dict) and isinstance(text := part.get("text"), str):
        return text
    if isinstance(part, dict):
        return ""
    raise UserError("a message is a list of something else than objects; expected a text, or parts with a text each")


def _read_gold(entry: JsonObject) -> tuple[str, ...]:
    """Return the ids of the passages that a turn was written from, where they are given."""
    contexts = read_objects(entry, "contexts") if entry.get("contexts") else []
    names = ((context, find_field(context, _PASSAGE_IDS)) for context in contexts)
    return tuple(dict.fromkeys(str(context[name]) for context, name in names if name is not None))


def _read_texts(entry: JsonObject) -> tuple[str, ...]:
    contexts = read_objects(entry, "contexts") if entry.get("contexts") else []
    texts = (context.get("text") for context in contexts)
    return tuple(dict.fromkeys(text for text in texts if isinstance(text, str) and text.strip()))
