"""The public API: ``import retrograd as rg``, what it imports and when, and what a user does with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

import retrograd as rg
from retrograd.data.questions import read_questions as iterate_questions

PASSAGES = [
    {"id": "p1", "title": "cup", "text": "the cup holds tea ."},
    {"id": "p2", "title": "rain", "text": "the flood came from rain ."},
    {"id": "p3", "title": "car", "text": "the wheel is a part of the car ."},
    {"id": "p4", "title": "box", "text": "inside the box : a cup ."},
]
QUESTIONS = [
    {"id": "q1", "question": "what holds tea ?", "answers": ["cup"]},
    {"id": "q2", "question": "what caused the flood ?", "answers": ["rain"]},
    {"id": "q3", "question": "wheel is a part of what ?", "answers": ["car"]},
    {"id": "q4", "question": "what is inside the box ?", "answers": ["a cup", "cup"]},
]


@pytest.fixture
def base() -> rg.KnowledgeBase:
    return rg.KnowledgeBase.from_passages(rg.read_passages(PASSAGES))


@pytest.fixture
def model(base: rg.KnowledgeBase, tiny_encoder: Path, tiny_seq2seq: Path) -> rg.RagModel:
    return rg.RagModel.from_pretrained(
        retriever=str(tiny_encoder),
        generator=str(tiny_seq2seq),
        task=rg.QuestionAnswering(),
        base=base,
        posterior=True,
        max_target_tokens=4,
    )


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, retrograd; print([name for name in sys.modules if name.split('.')[0] in sys.argv[1:]])"
    heavy = ["torch", "transformers", "numpy", "pyarrow", "peft", "rich", "typer"]
    done = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    assert sorted(rg.__all__) == rg.__all__ == dir(rg)
    for name in rg.__all__:
        assert getattr(rg, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'RagModels'"):
        _ = rg.RagModels  # pyright: ignore[reportAttributeAccessIssue]


def test_records_of_any_source_are_read_as_those_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(f"{_json(record)}\n" for record in QUESTIONS), encoding="utf-8")
    expected = list(iterate_questions(file))
    table = pa.Table.from_pylist(QUESTIONS)
    for source in (file, str(file), QUESTIONS, (record for record in QUESTIONS), table):
        assert rg.read_questions(source) == expected


def test_a_malformed_record_is_named_by_its_number() -> None:
    with pytest.raises(rg.UserError, match=r"the records, record 2: no field 'question'"):
        rg.read_questions([QUESTIONS[0], {"answer": "tea"}])
    with pytest.raises(rg.UserError, match=r"record 2: id 'q1' is already used at record 1"):
        rg.read_questions([QUESTIONS[0], QUESTIONS[0]])
    with pytest.raises(rg.UserError, match=r"record 1 is a value of type str; expected a mapping"):
        rg.read_questions(["what holds tea ?"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(rg.UserError, match=r"'question' is a value of type object; expected a string"):
        rg.read_questions([{"question": object()}])
    with pytest.raises(rg.UserError, match=r"the records, record 1: no text"):
        rg.read_passages([{"title": "cup"}])


def test_relations_are_read_from_either_layout() -> None:
    marked = {"text": "the <e1>cup</e1> holds <e2>tea</e2>", "label": "holds"}
    plain = {"text": "the cup holds tea", "head": (4, 7), "tail": (14, 17), "relation": "holds"}
    first, second = rg.read_relations([marked, plain])
    assert replace(first, id="") == replace(second, id="")


def test_dialogues_are_read_from_records() -> None:
    (turn,) = rg.read_dialogues([{"history": ["user: what holds tea ?"], "answers": ["the cup"]}])
    assert turn.history[-1].text == "what holds tea ?"
    assert turn.targets == ("the cup",)


def test_search_gives_the_best_passages_with_their_probability(model: rg.RagModel) -> None:
    hits = model.search("what holds tea ?", k=3)
    assert len(hits) == 3
    assert [hit.passage for hit in hits] == [model.base[hit.row] for hit in hits]
    shares = [hit.probability for hit in hits]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) < 1
    every = model.search("what holds tea ?", k=100)
    assert sum(hit.probability for hit in every) == pytest.approx(1.0)
    assert every == model.search(rg.read_questions(QUESTIONS)[0], k=100)


def test_answer_gives_text_and_passages(model: rg.RagModel) -> None:
    one = model.answer("what holds tea ?", k=2)
    assert one.text == one.answer
    assert [passage.id for passage in one.passages] == list(one.passage_ids)
    assert len(one.passages) == len(one.weights) == 2
    several = model.answer([str(record["question"]) for record in QUESTIONS], k=2)
    assert several[0].text == one.text
    assert len(model.answer("what holds tea ?").passages) == len(model.base)
    assert model.answer("what holds tea ?", k=0).passages == ()
    with pytest.raises(rg.UserError, match="the question is blank"):
        model.answer(" ")


def test_a_saved_model_answers_as_before_and_needs_nothing_else(model: rg.RagModel, tmp_path: Path) -> None:
    questions = [str(record["question"]) for record in QUESTIONS]
    before = model.answer(questions)
    model.save_pretrained(tmp_path / "mine")
    again = rg.RagModel.from_pretrained(tmp_path / "mine")
    assert again.answer(questions) == before
    assert again.task == model.task
    assert again.posterior is not None
    assert again.settings == model.settings
    model.save_pretrained(tmp_path / "mine")  # an older model is replaced
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(rg.UserError, match="holds something else than a model"):
        model.save_pretrained(tmp_path / "other")


def test_a_saved_model_under_adapters_names_the_generator_below(
    base: rg.KnowledgeBase, tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    names = {"retriever": str(tiny_encoder), "generator": str(tiny_seq2seq)}
    model = rg.RagModel.from_pretrained(**names, task=rg.QuestionAnswering(), base=base, lora=rg.Lora(rank=2))
    model.save_pretrained(tmp_path / "adapted")
    again = rg.RagModel.from_pretrained(tmp_path / "adapted")
    assert again.answer("what holds tea ?") == model.answer("what holds tea ?")
    assert (tmp_path / "adapted" / "generator" / "adapter_config.json").exists()


class Riddles(rg.QuestionAnswering):
    """A task of one's own."""


def test_a_task_of_ones_own_is_given_again(
    base: rg.KnowledgeBase, tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    names = {"retriever": str(tiny_encoder), "generator": str(tiny_seq2seq)}
    model = rg.RagModel.from_pretrained(**names, task=Riddles(), base=base)
    model.save_pretrained(tmp_path / "riddles")
    with pytest.raises(rg.UserError, match=r"your class Riddles, .* from_pretrained\(.*task=…\)"):
        rg.RagModel.from_pretrained(tmp_path / "riddles")
    again = rg.RagModel.from_pretrained(tmp_path / "riddles", task=Riddles())
    assert again.answer("what holds tea ?") == model.answer("what holds tea ?")


@pytest.mark.parametrize(
    "task",
    [
        rg.QuestionAnswering(titles=False, no_answer="cannot answer"),
        rg.GroundedDialogue(turns=2),
        rg.RelationExtraction.from_labels(["holds", "part of", "none"], negative="none"),
        rg.RelationExtraction.semeval(),
    ],
    ids=lambda task: task.name,
)
def test_every_task_of_the_package_is_saved_with_a_model(task: rg.QuestionAnswering, tmp_path: Path) -> None:
    from retrograd.tasks.saved_tasks import read_task, write_task

    write_task(task, tmp_path / "task.json")
    assert read_task(tmp_path / "task.json") == task


def test_from_pretrained_says_what_is_missing(base: rg.KnowledgeBase, model: rg.RagModel, tmp_path: Path) -> None:
    with pytest.raises(rg.UserError, match="needs generator=…"):
        rg.RagModel.from_pretrained(retriever="builtin:minilm")
    with pytest.raises(rg.UserError, match="needs task=… and base=…"):
        rg.RagModel.from_pretrained(retriever="builtin:minilm", generator="builtin:minilm-seq2seq", base=base)
    with pytest.raises(rg.UserError, match="leave out the folder, or these arguments"):
        rg.RagModel.from_pretrained(tmp_path, retriever="builtin:minilm")
    with pytest.raises(rg.UserError, match="holds no model; give a folder that save_pretrained wrote"):
        rg.RagModel.from_pretrained(tmp_path)
    model.save(tmp_path / "parts")
    with pytest.raises(rg.UserError, match=r"brings no task \(no task.json\); give it: from_pretrained\(…, task=…\)"):
        rg.RagModel.from_pretrained(tmp_path / "parts")


def _json(record: Mapping[str, object]) -> str:
    import json

    return json.dumps(record)
