"""Files that name their fields in ways unknown to us: what is proposed, and that the proposal reads them."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from retrograd.data.field_maps import DialogueFields, PassageFields, QuestionFields
from retrograd.data.passages import read_corpus
from retrograd.data.questions import read_questions
from retrograd.types import UserError
from retrograd.util.guards import JsonObject

TOPICS = ("cup", "lamp", "bridge", "river", "violin", "garden", "clock", "letter")


def many(make: dict[str, str], **constants: object) -> list[JsonObject]:
    return [{name: text.format(i=i, t=t) for name, text in make.items()} | constants for i, t in enumerate(TOPICS)]


LONG = "the {t} stands in hall number {i} , where the people of the town put it long ago , and it is blue , as they say"
FILES: dict[str, tuple[list[JsonObject], str, str]] = {
    "trivia": (many({"nr": "{i}", "q": "where is the {t} ?", "a": "hall number {i}"}), "q", "a"),
    "german": (many({"Frage": "wo steht {t} ?", "Antwort": "Halle {i}", "Quelle": LONG}), "Frage", "Antwort"),
    "alpaca": (many({"instruction": "say where the {t} is", "output": "hall {i}"}), "instruction", "output"),
    "chat export": (
        many(
            {"ticket": "T-10{i}", "customer_text": "my {t} is broken , what now ?", "agent_text": "send back the {t}"}
        ),
        "customer_text",
        "agent_text",
    ),
    "with context": (
        many({"passage_of_text": LONG, "ask": "in which hall is the {t} ?", "span": "hall number {i}", "uid": "u{i}"}),
        "ask",
        "span",
    ),
    "prompts": (many({"prompt": "Name the hall of the {t} .", "completion": " hall {i}"}), "prompt", "completion"),
    "nested": (
        [{"data": {"utterance": f"where is the {t} ?", "gold": [f"hall {i}"]}} for i, t in enumerate(TOPICS)],
        "data.utterance",
        "data.gold",
    ),
    "lists of objects": (
        [
            {"problem": f"find the {t} ?", "solutions": [{"s": f"hall {i}"}, {"s": "there"}]}
            for i, t in enumerate(TOPICS)
        ],
        "problem",
        "solutions[*].s",
    ),
    "kinds and sources": (
        many({"kind": "fact", "head_line": "who made the {t} ?", "short": "Ann {i}", "url": "https://example.org/{i}"}),
        "head_line",
        "short",
    ),
    "unspaced": (many({"编号": "{i}", "问题": "{t}在哪里？", "答案": "第{i}厅"}), "问题", "答案"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_map_is_proposed_that_reads_the_file(name: str, tmp_path: Path) -> None:
    records, question, answers = FILES[name]
    path = tmp_path / "export.jsonl"
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    with pytest.raises(UserError, match="its records have no 'question', but ") as refused:
        list(read_questions(path))
    proposed = dict(re.findall(r'data\.fields\.(\w+) = "([^"]+)"', str(refused.value)))
    assert proposed == {"question": question, "answers": answers}
    examples = list(read_questions(path, fields=QuestionFields(**proposed)))
    assert len(examples) == len(TOPICS)
    assert all(one.targets for one in examples)


def test_where_nothing_looks_like_a_question_none_is_proposed(tmp_path: Path) -> None:
    path = tmp_path / "numbers.jsonl"
    path.write_text("\n".join(json.dumps({"id": f"a{i}", "n": i}) for i in range(5)), encoding="utf-8")
    with pytest.raises(UserError, match=r"but id, n; say where they have it: data.fields.question"):
        list(read_questions(path))


def test_dialogues(tmp_path: Path) -> None:
    from retrograd.data.dialogues import read_dialogues

    records = [{"thread": [f"where is the {t} ?"], "reply_text": f"in hall {i} , sir"} for i, t in enumerate(TOPICS)]
    path = tmp_path / "threads.jsonl"
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    with pytest.raises(UserError, match=r'data.fields.history = "thread" and data.fields.answers = "reply_text"'):
        list(read_dialogues(path))
    examples = list(read_dialogues(path, fields=DialogueFields(history="thread", answers="reply_text")))
    assert examples[1].targets == ("in hall 1 , sir",)


PASSAGES: dict[str, tuple[list[JsonObject], dict[str, str]]] = {
    "wiki": (
        [{"pageid": 40 + i, "heading": f"The {t}", "abstract": LONG.format(t=t, i=i)} for i, t in enumerate(TOPICS)],
        {"text": "abstract", "title": "heading", "id": "pageid"},
    ),
    "german": (
        many({"Nr": "A-{i}", "Titel": "Von {t}", "Inhalt": LONG, "Stand": "2020"}),
        {"text": "Inhalt", "title": "Titel", "id": "Nr"},
    ),
    "nested": (
        [{"doc": {"plain": LONG.format(t=t, i=i), "headline": f"on the {t}"}, "key": i} for i, t in enumerate(TOPICS)],
        {"text": "doc.plain", "title": "doc.headline", "id": "key"},
    ),
    "tickets, with a name that is known": (
        many({"id": "T-{i}", "subject": "{t} is broken", "description": LONG, "status": "open"}),
        {"text": "description", "title": "subject"},
    ),
    "unspaced": (
        many({"编号": "{i}", "标题": "{t}", "正文": "很久以前人们把{t}放在第{i}厅里，它是蓝色的，大家都这么说。"}),
        {"text": "正文", "title": "标题", "id": "编号"},
    ),
}


@pytest.mark.parametrize("name", PASSAGES)
@pytest.mark.parametrize("container", ["jsonl", "csv"])
def test_a_map_of_passages_is_proposed_that_reads_the_file(name: str, container: str, tmp_path: Path) -> None:
    records, expected = PASSAGES[name]
    path = tmp_path / f"export.{container}"
    if container == "jsonl":
        path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    elif name == "nested":
        pytest.skip("a table has no nested fields")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(records[0]))
            table.writeheader()
            table.writerows(records)
    with pytest.raises(UserError, match="its records have no 'text', but ") as refused:
        list(read_corpus(path))
    proposed = dict(re.findall(r'data\.base_fields\.(\w+) = "([^"]+)"', str(refused.value)))
    assert proposed == expected
    passages = list(read_corpus(path, fields=PassageFields(**proposed)))
    assert len({passage.id for passage in passages}) == len({passage.text for passage in passages}) == len(TOPICS)
    assert all(passage.title for passage in passages)


def test_where_nothing_looks_like_a_text_none_is_proposed(tmp_path: Path) -> None:
    path = tmp_path / "numbers.jsonl"
    path.write_text("\n".join(json.dumps({"code": f"a{i}", "n": i}) for i in range(5)), encoding="utf-8")
    with pytest.raises(UserError, match=r'but code, n; say where they have it: data\.base_fields\.text = "…"'):
        list(read_corpus(path))
