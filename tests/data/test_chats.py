"""Whole chats, in the files of several services, and the tasks of MTRAG."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from retrograd.data.dialogues import read_dialogues
from retrograd.data.examples import Turn
from retrograd.types import UserError

SPOKEN = [
    ("system", "be kind"),
    ("user", "where is the cup ?"),
    ("agent", "in the hall"),
    ("user", "and the tea ?"),
    ("agent", "in the cup"),
]
OPENAI = {"user": "user", "agent": "assistant", "system": "system"}
SHAREGPT = {"user": "human", "agent": "gpt", "system": "system"}


def write(folder: Path, *records: object) -> Path:
    path = folder / "chats.jsonl"
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "record",
    [
        {"id": "c", "messages": [{"role": OPENAI[who], "content": text} for who, text in SPOKEN]},
        {
            "id": "c",
            "messages": [{"role": OPENAI[who], "content": [{"type": "text", "text": text}]} for who, text in SPOKEN],
        },
        {"id": "c", "conversations": [{"from": SHAREGPT[who], "value": text} for who, text in SPOKEN]},
        {"_id": "c", "messages": [{"speaker": who, "text": text} for who, text in SPOKEN[1:]], "retriever": {}},
    ],
    ids=["openai", "parts", "sharegpt", "mtrag"],
)
def test_every_turn_of_the_agent_is_an_example(record: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path, record, {**record, "id": "d", "_id": "d"})
    first, second, *_ = read_dialogues(path)
    offset = 0 if "retriever" in record else 1
    assert [first.id, second.id] == [f"c:{1 + offset}", f"c:{3 + offset}"]
    assert first.history == (Turn("user", "where is the cup ?"),)
    assert (first.targets, second.targets) == (("in the hall",), ("in the cup",))
    assert second.history[1] == Turn("agent", "in the hall")


def test_tasks_and_turns_with_what_they_were_written_from(tmp_path: Path) -> None:
    contexts = [{"document_id": "d1", "text": "the cup is in the hall"}, {"document_id": "d2", "text": "tea"}]
    task = {
        "task_id": "t",
        "input": [{"speaker": "user", "text": "where is the cup ?"}],
        "targets": [{"speaker": "agent", "text": "in the hall"}],
        "contexts": contexts,
    }
    chat = {
        "messages": [{"speaker": "user", "text": "where ?"}, {"speaker": "agent", "text": "here", "contexts": contexts}]
    }
    one, other = read_dialogues(write(tmp_path, task, chat))
    assert (one.id, one.targets, one.gold_passages) == ("t", ("in the hall",), ("d1", "d2"))
    assert (other.id, other.gold_passages, other.knowledge) == ("2:1", one.gold_passages, one.knowledge)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([{"role": "user", "content": "a"}], "no turn of an agent after one of a user"),
        ([{"role": "user"}, {"role": "assistant", "content": "a"}], "no field 'text'"),
        ([{"role": "user", "content": [3]}], "a list of something else than objects"),
        ("hello", "'messages' is a string"),
    ],
)
def test_a_malformed_chat_is_refused_with_its_line(messages: object, said: str, tmp_path: Path) -> None:
    path = write(tmp_path, {"messages": messages}, {"messages": messages})
    with pytest.raises(UserError, match=rf"chats.jsonl, line 1: .*{said}"):
        list(read_dialogues(path))
