"""Tests of questions and dialogues, from files to a finished run that answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.experiments.data.files import write_lines
from typer.testing import CliRunner

from retrograd.__main__ import app
from retrograd.data.examples import DialogueExample, GroundedExample
from retrograd.data.squad import NO_ANSWER
from retrograd.experiments.data.free_answers import DialogueData, QuestionData
from retrograd.experiments.data.kinds import read_data
from retrograd.experiments.data.recorded import record_data
from retrograd.experiments.experiment import (
    Experiment,
    GeneratorSettings,
    RetrieverSettings,
    TrainingSettings,
    WarmStartSettings,
)
from retrograd.experiments.open import open_run
from retrograd.experiments.run import run_experiment
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.tasks.dialogue import GroundedDialogue
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.tasks.relevance import rows_by_id
from retrograd.tasks.support import AnswerSupport, OverlapSupport
from retrograd.types import Example, Passage, UserError
from retrograd.util.text_files import read_json, read_jsonl

PASSAGES = [("cup", "the cup holds tea ."), ("box", "the box holds rain ."), ("car", "the wheel of the car .")]
QUESTIONS = [("what holds tea ?", "cup", "cup"), ("what holds rain ?", "box", "box"), ("what of car ?", "wheel", "car")]


@pytest.fixture
def questions(tmp_path: Path) -> QuestionData:
    base = write_lines(tmp_path / "base.jsonl", [{"id": key, "title": key, "text": text} for key, text in PASSAGES])
    asked = [
        {"id": f"q{i}", "question": text, "answers": [answer, f"the {answer}"], "gold_passages": [gold]}
        for i, (text, answer, gold) in enumerate(QUESTIONS)
    ]
    return QuestionData(
        base=base, train=write_lines(tmp_path / "train.jsonl", asked), test=write_lines(tmp_path / "test.jsonl", asked)
    )


@pytest.fixture
def dialogues(questions: QuestionData, tmp_path: Path) -> DialogueData:
    turns = [
        {"id": f"d{i}", "history": ["user: what is there ?", "agent: tea", f"user: {text}"], "answer": answer}
        | {"gold_passages": [gold]}
        for i, (text, answer, gold) in enumerate(QUESTIONS)
    ]
    found = write_lines(tmp_path / "turns.jsonl", turns)
    return DialogueData(base=questions.base, train=found, test=found, turns=2)


def experiment(data: QuestionData | DialogueData, encoder: Path, generator: Path) -> Experiment:
    return Experiment(
        data=data,
        retriever=RetrieverSettings(model=str(encoder), posterior=True, lexical_dimensions=8),
        generator=GeneratorSettings(model=str(generator), max_target_tokens=4),
        warm_start=WarmStartSettings(epochs=1),
        training=TrainingSettings(epochs=1, passages=2, precision="fp32"),
    ).with_settings(["objective.kind=JointStochasticApproximation"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("generator", "kind"),
    [
        ("tiny_seq2seq", "questions"),
        ("tiny_causal", "dialogue"),
        pytest.param("tiny_seq2seq", "dialogue", marks=pytest.mark.sweep),
        pytest.param("tiny_causal", "questions", marks=pytest.mark.sweep),
    ],
)
def test_a_run_from_files_to_answers(
    kind: str,
    generator: str,
    questions: QuestionData,
    dialogues: DialogueData,
    tiny_encoder: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    data = questions if kind == "questions" else dialogues
    path, run = tmp_path / "mine.toml", tmp_path / "run"
    path.write_text(experiment(data, tiny_encoder, request.getfixturevalue(generator)).to_toml(), encoding="utf-8")
    assert f'kind = "{kind}"' in path.read_text()
    command = CliRunner()
    result = command.invoke(app, ["train", str(path), "--out", str(run)])
    assert result.exit_code == 0, result.output
    scores = read_json(run / "scores.json")
    assert isinstance(scores, dict)
    assert isinstance(scores["answers"], dict)
    assert {"exact_match", "f1", "rouge_l", "bleu_4"} <= set(scores["answers"])
    assert ("knowledge_f1" in scores["answers"]) == (kind == "dialogue")
    opened = open_run(run)
    assert opened.task == data.task()
    answers = [one.answer for one in opened.model.predict(opened.data.test, 2)]
    assert answers == [line["answer"] for _, line in read_jsonl(run / "predictions.jsonl")]
    result = command.invoke(app, ["search", str(run), "what holds tea ?", "-k", "2"])
    assert result.exit_code == 0, result.output
    assert "the cup holds tea ." in result.output or "the box" in result.output
    result = command.invoke(app, ["evaluate", str(run), "--data", data.test])
    assert result.exit_code == 0, result.output
    assert ("knowledge_f1" in result.output) == (kind == "dialogue")
    result = command.invoke(app, ["predict", str(run), data.test])
    assert result.exit_code == 0, result.output
    assert [json.loads(line)["answer"] for line in result.output.splitlines() if line.startswith("{")] == answers
    result = command.invoke(app, ["compare", str(run), str(run), "--resamples", "100"])
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "may be chance" in said
    assert "equal 3" in said
    asked = ["--queries", "2", "--redraws", "2", "--objectives", "JSA,TopKMarginal", "--out", str(tmp_path / "lab")]
    result = command.invoke(app, ["lab", str(run), *asked])
    assert result.exit_code == 0, result.output
    assert "over all 3 passages" in result.output
    for words in (["analyse", str(run)], ["extract", str(run), data.test, "--out", str(tmp_path / "g.jsonl")]):
        result = command.invoke(app, words)
        assert isinstance(result.exception, UserError), words
        assert "is about relations between entities" in str(result.exception)
        assert "evaluate, predict, search, compare, report and lab know every task" in str(result.exception)


@pytest.mark.slow
@pytest.mark.parametrize("spans", [False, True])
def test_masking_needs_a_corpus_alone(spans: bool, tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    text = "people say that the old bridge was opened in 1911 by the town council"
    base = write_lines(tmp_path / "base.jsonl", [{"id": f"p{i}", "title": "", "text": text} for i in range(4)])
    place = text.index("council")
    named = write_lines(tmp_path / "spans.jsonl", [{"id": "p2", "spans": [[place, place + len("council")]]}])
    what = experiment(QuestionData(base=base), tiny_encoder, tiny_seq2seq)
    alone = ["masking.epochs=1", "training.epochs=0", "warm_start.epochs=0", "training.log_every=1"]
    run = run_experiment(what.with_settings([*alone, *([f"masking.spans={named}"] if spans else [])]), tmp_path / "run")
    logged = [line for _, line in read_jsonl(run.path / "metrics.jsonl")]
    assert {line["stage"] for line in logged if "loss" in line} == {"masking"}
    assert (run.path / "model" / "model.json").exists()
    with pytest.raises(UserError, match=r"data.train names no training data, which warm_start needs; .*masking alone"):
        run_experiment(what.with_settings(["masking.epochs=1"]), tmp_path / "other")


def test_draws_are_nested_and_recorded(questions: QuestionData) -> None:
    whole = questions.load(3)
    assert [example.id for example in whole.train] == ["q0", "q1", "q2"]
    two = replace(questions, train_count=2).load(3)
    one = replace(questions, train_count=1).load(3)
    assert one.train == two.train[:1]
    held = replace(questions, dev_from_train=1).load(3)
    assert len(held.dev) == 1
    assert {example.id for example in [*held.dev, *held.train]} == {"q0", "q1", "q2"}
    assert two.draw_record["seed"] == 3
    assert two.draw_record["train"] != whole.draw_record["train"]
    assert isinstance(whole.train[0], GroundedExample)
    with pytest.raises(UserError, match=r"data.train_count is 4, but .*train.jsonl holds 3 examples"):
        replace(questions, train_count=4).load(0)
    with pytest.raises(UserError, match=r"data.dev_from_train is 3, but .*train.jsonl holds 3 examples; leave some"):
        replace(questions, dev_from_train=3).load(0)


@pytest.mark.parametrize("part", ["train", "test"])
def test_an_example_that_nobody_answered_is_named_before_anything_is_trained(
    part: str, questions: QuestionData, tmp_path: Path
) -> None:
    records = [{"id": "a", "question": "what ?", "answers": ["tea"]}, {"id": "b", "question": "what is in the cup ?"}]
    file = write_lines(tmp_path / "some.jsonl", records)
    with pytest.raises(UserError, match=rf"data\.{part}: .*some\.jsonl, example 'b' has no field for answers"):
        replace(questions, **{part: file}).load(0)


def test_documents_are_split_and_gold_stands_for_their_passages(questions: QuestionData) -> None:
    data = replace(questions, split_words=3).load(0)
    assert [passage.id for passage in data.base][:2] == ["cup#0", "cup#1"]
    assert len(data.base) == 6


def test_gold_passages_may_stand_in_a_file_of_their_own(
    questions: QuestionData, dialogues: DialogueData, tmp_path: Path
) -> None:
    file = tmp_path / "qrels.tsv"
    file.write_text("query-id\tcorpus-id\tscore\nq0\tbox\t1\nd0\tbox\t1\n", "utf-8")
    data = replace(questions, qrels=str(file)).load(0)
    assert [one.gold_passages for one in data.test if isinstance(one, GroundedExample)] == [
        ("box",),
        ("box",),
        ("car",),
    ]
    first = replace(dialogues, qrels=str(file)).load(0).test[0]
    assert isinstance(first, DialogueExample)
    assert (first.gold_passages, first.knowledge) == (("box",), ("the box holds rain .",))


def test_judgements_of_other_questions_are_refused(questions: QuestionData, tmp_path: Path) -> None:
    file = tmp_path / "qrels.tsv"
    file.write_text("other 0 box 1\n", "utf-8")
    data = replace(questions, qrels=str(file))
    with pytest.raises(
        UserError, match=r"qrels.tsv judges none of the 6 examples; .* like 'other', those of the examples like 'q0'"
    ):
        data.load(0)


def test_a_finished_run_reads_new_questions_without_its_judgements(questions: QuestionData, tmp_path: Path) -> None:
    file = tmp_path / "qrels.tsv"
    file.write_text("q0 0 box 1\n", "utf-8")
    data = replace(questions, qrels=str(file))
    base = data.load(0).base
    for gone, gold in ((False, "box"), (True, "cup")):
        if gone:
            file.unlink()
        first = data.read(Path(data.test), None, data.task(), base)[0]
        assert isinstance(first, GroundedExample)
        assert first.gold_passages == (gold,)


@pytest.mark.parametrize("base_format", ["quac", "doc2dial"])
def test_a_corpus_may_be_the_file_that_dialogues_come_with(base_format: str, tmp_path: Path) -> None:
    turn = {"id": "a", "question": "Who ran?", "answers": [{"text": "Ann"}]}
    quac = {"data": [{"title": "Runs", "paragraphs": [{"id": "p", "context": "Ann ran. CANNOTANSWER", "qas": [turn]}]}]}
    documents = {"doc_data": {"sport": {"p": {"title": "Runs", "doc_text": "Ann ran."}}}}
    asked, base = tmp_path / "quac.json", tmp_path / "base.json"
    asked.write_text(json.dumps(quac), "utf-8")
    base.write_text(json.dumps(quac if base_format == "quac" else documents), "utf-8")
    settings = {"data.base": base, "data.test": asked, "data.base_format": base_format}
    changed = Experiment().with_settings(
        ["data.kind=dialogue", *(f"{name}={value}" for name, value in settings.items())]
    )
    data = changed.data.load(0)
    assert list(data.base) == [Passage("p", "Runs", "Ann ran.")]
    assert isinstance(data.test[0], DialogueExample)
    assert data.test[0].knowledge == ("Ann ran.",)


def squad(path: Path, *passages: tuple[str, str]) -> str:
    """Write a SQuAD file with one article a passage, each with a question named after its text."""
    articles = [
        {
            "title": title,
            "paragraphs": [
                {"context": text, "qas": [{"id": text, "question": "what ?", "answers": [{"text": text.split()[1]}]}]}
            ],
        }
        for title, text in passages
    ]
    path.write_text(json.dumps({"data": articles}), encoding="utf-8")
    return str(path)


def test_paragraphs_of_several_squad_files_are_not_taken_for_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cup, box, car = [(title, text) for title, text in PASSAGES]
    base = squad(tmp_path / "base.json", cup, box)
    test = squad(tmp_path / "test.json", car, box)
    data = QuestionData(base=base, base_format="squad", train=base, test=test).load(0)
    told = {one.id: one.gold_passages for one in data.test if isinstance(one, GroundedExample)}
    rows = rows_by_id(data.base)
    assert told[car[1]] == ()  # nobody can judge it here
    assert "test: the paragraphs of 1 of 2 examples are not in the base" in capsys.readouterr().err
    assert [data.base[row].text for id_ in told[box[1]] for row in rows[id_]] == [box[1]]
    elsewhere = QuestionData(base=write_lines(tmp_path / "base.jsonl", [{"id": "0#0", "text": "x"}]), train=test).load(
        0
    )
    assert all(one.gold_passages == () for one in elsewhere.train if isinstance(one, GroundedExample))


def test_a_gold_passage_that_the_base_lacks_is_named_before_a_run(questions: QuestionData, tmp_path: Path) -> None:
    asked = [{"id": "q", "question": "what ?", "answers": ["tea"], "gold_passages": ["cap"]}]
    test = write_lines(tmp_path / "other.jsonl", asked)
    with pytest.raises(UserError, match=r"gold passage 'cap' of example 'q'.*did you mean 'cup'"):
        replace(questions, test=test).load(0)
    assert replace(questions, train=test).load(0).train  # it is not scored


def test_a_dialogue_knows_the_text_of_its_gold_passages(dialogues: DialogueData) -> None:
    first = dialogues.load(0).test[0]
    assert isinstance(first, DialogueExample)
    assert first.knowledge == ("the cup holds tea .",)


def test_kinds_are_told_apart_strictly(questions: QuestionData) -> None:
    changed = Experiment().with_settings(["data.kind=questions", "data.base=b.jsonl", "data.train=t.jsonl"])
    assert changed.data == QuestionData(base="b.jsonl", train="t.jsonl")
    assert Experiment.from_mapping(changed.to_mapping(), "here") == changed
    with pytest.raises(UserError, match=r"no kind of data 'question'; did you mean 'questions'"):
        Experiment().with_settings(["data.kind=question"])
    with pytest.raises(UserError, match=r"unknown key 'labels'"):
        changed.with_settings(["data.labels=tacred"])
    with pytest.raises(UserError, match=r'here: data: kind is missing, .* set kind = "questions" or "dialogue"'):
        Experiment.from_mapping({"data": {"base": "b.jsonl"}}, "here")
    with pytest.raises(UserError, match=r"evaluation.calibrate .* questions have none; set it to false"):
        changed.with_settings(["data.dev_from_train=1", "evaluation.calibrate=true"])
    with pytest.raises(UserError, match=r"data.base names no knowledge base"):
        QuestionData(train=questions.train).load(0)


SHARED = {
    "query_prefix": "q: ",
    "passage_prefix": "p: ",
    "titles": False,
    "instruction": "Say.",
    "no_answer": NO_ANSWER,
}


@pytest.mark.parametrize(
    "task",
    [
        QuestionAnswering(**SHARED, evidence=AnswerSupport(0.5, 7, 0.1), primary_metric="f1"),
        GroundedDialogue(
            2, "guest", "host", **SHARED, evidence=OverlapSupport(0.4, 0.7, 0.3, 9), primary_metric="bleu_4"
        ),
    ],
    ids=lambda task: task.name,
)
def test_the_settings_of_a_task_from_python_make_it_again(
    task: QuestionAnswering | GroundedDialogue, tmp_path: Path
) -> None:
    base = KnowledgeBase.from_passages([Passage(key, key, text) for key, text in PASSAGES])
    settings = record_data(task, base, [Example("1", "what holds tea ?", ("cup",))], None, tmp_path).settings
    assert isinstance(settings, QuestionData | DialogueData)
    assert settings.task() == task
    assert read_data(Experiment(data=settings).to_mapping()["data"], "here") == settings
