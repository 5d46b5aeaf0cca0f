"""The public API: ``import retrograd as rg``, what it imports and when, and what a user does with it."""

from __future__ import annotations

import inspect
import itertools
import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch

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
        rg.read_questions(iter(["what holds tea ?"]))  # pyright: ignore[reportArgumentType]
    with pytest.raises(rg.UserError, match=r"'question' is .*; expected a string"):
        rg.read_questions([{"question": ["what"]}])
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


CONFIG = rg.TrainingConfig(epochs=1, batch_size=2, passages=2, save_every=1)


def test_training_from_python_leaves_an_ordinary_run_and_prints_nothing(
    model: rg.RagModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rg.show_progress(False)
    before = model.search("what holds tea ?", k=4)
    run = rg.train(
        model,
        QUESTIONS,
        eval_examples=rg.read_questions(QUESTIONS),
        out=tmp_path / "run",
        objective=rg.JointStochasticApproximation(),
        config=CONFIG,
    )
    assert capfd.readouterr() == ("", "")
    assert run.model is model
    assert model.search("what holds tea ?", k=4) != before
    assert "exact_match" in run.scores
    assert run.test_examples == rg.read_questions(QUESTIONS)
    again = rg.open_run(tmp_path / "run")
    assert again.model.answer("what holds tea ?") == model.answer("what holds tea ?")
    assert again.experiment == run.experiment
    assert again.scores == run.scores
    with pytest.raises(rg.UserError, match="exists and is not empty"):
        rg.train(model, QUESTIONS, out=tmp_path / "run", config=CONFIG)


def test_a_run_from_python_goes_on_from_the_model_it_began_with(
    model: rg.RagModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    first = rg.train(model, QUESTIONS, out=tmp_path / "first", config=CONFIG)
    whole = rg.train(first.model, QUESTIONS, out=tmp_path / "whole", config=CONFIG)
    killed = tmp_path / "killed"
    shutil.copytree(whole.path, killed)
    text = (killed / "experiment.toml").read_text(encoding="utf-8").replace(str(whole.path), str(killed))
    (killed / "experiment.toml").write_text(text, encoding="utf-8")
    for name in ("model", "checkpoints"):
        shutil.rmtree(killed / name)
    resumed = rg.resume(killed)
    weights, others = whole.model.state_dict(), resumed.model.state_dict()
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    # Where an index lies in memory decides in which order a matrix product adds up, so probabilities are not compared.
    rows = [[hit.row for hit in run.model.search("what holds tea ?")] for run in (whole, resumed)]
    assert rows[0] == rows[1]


def test_relations_are_trained_from_python(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    sentences = [("the <e1>cup</e1> holds <e2>tea</e2> .", "holds"), ("<e1>rain</e1> caused <e2>flood</e2> .", "cause")]
    train = rg.read_relations([{"text": text, "label": label} for text, label in sentences * 2])
    task = rg.RelationExtraction.from_labels(["holds", "cause"])
    base = rg.KnowledgeBase.from_passages(task.passage(one) for one in train)
    names = {"retriever": str(tiny_encoder), "generator": str(tiny_seq2seq)}
    model = rg.RagModel.from_pretrained(**names, task=task, base=base)
    run = rg.train(model, train, eval_examples=train[:2], out=tmp_path / "run", config=CONFIG)
    assert len(run.train_examples) == 4
    assert model.answer("the <e1>cup</e1> holds <e2>tea</e2>").text in ("holds", "cause")
    other = rg.RagModel.from_pretrained(**names, task=replace(task, negative="cause"), base=base)
    with pytest.raises(rg.UserError, match="knowledge base has 4 passages, and the data of this run make another of 2"):
        rg.train(other, train[:2], out=tmp_path / "other", config=CONFIG)


def test_dialogues_are_trained_from_python(
    base: rg.KnowledgeBase, tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    names = {"retriever": str(tiny_encoder), "generator": str(tiny_seq2seq)}
    model = rg.RagModel.from_pretrained(**names, task=rg.GroundedDialogue(turns=2), base=base)
    turns = rg.read_dialogues([{"history": ["user: what holds tea ?"], "answers": ["the cup"]}] * 1)
    run = rg.train(model, turns, out=tmp_path / "run", config=CONFIG)
    assert run.train_examples == turns
    assert run.scores == {}


def test_what_cannot_be_trained_is_said_before_anything_runs(model: rg.RagModel, tmp_path: Path) -> None:
    tiny = {"out": tmp_path / "run", "config": CONFIG}
    bare = rg.RagModel(model.retriever, model.generator, rg.QuestionAnswering(), model.base)
    with pytest.raises(rg.UserError, match=r"make it with RagModel\.from_pretrained"):
        rg.train(bare, QUESTIONS, **tiny)
    custom = rg.RagModel(model.retriever, model.generator, Riddles(), model.base, settings=model.settings)
    with pytest.raises(rg.UserError, match=r"needs a posterior retriever; .* posterior=True"):
        rg.train(custom, QUESTIONS, objective=rg.JointStochasticApproximation(), **tiny)
    with pytest.raises(rg.UserError, match="object of your class Riddles"):
        rg.train(custom, QUESTIONS, **tiny)
    marked = rg.QuestionAnswering(separator=" | ")
    other = rg.RagModel(model.retriever, model.generator, marked, model.base, settings=model.settings)
    with pytest.raises(rg.UserError, match=r"the model's task has separator = ' \| ', .* ' \[SEP\] '"):
        rg.train(other, QUESTIONS, **tiny)
    with pytest.raises(rg.UserError, match=r"of the types int, GroundedExample|of the types GroundedExample, int"):
        rg.train(model, iter([rg.read_questions(QUESTIONS)[0], 3]), **tiny)  # pyright: ignore[reportArgumentType]
    with pytest.raises(rg.UserError, match="batch_size"):
        rg.TrainingConfig(batch_size=0)
    with pytest.raises(rg.UserError, match="both 0, so nothing is trained"):
        rg.TrainingConfig(epochs=0, warm_start_epochs=0)


def test_an_experiment_is_changed_section_by_section() -> None:
    experiment = rg.recipe("semeval-joint")
    changed = experiment.replace(training={"epochs": 7}, seed=3)
    assert (changed.training.epochs, changed.seed) == (7, 3)
    assert replace(changed.training, epochs=experiment.training.epochs) == experiment.training
    switched = experiment.replace(objective={"kind": "FrozenRetriever"}, retriever={"trained": "none"})
    assert isinstance(switched.objective, rg.FrozenRetriever)
    assert experiment.replace(objective=rg.TopKMarginal(normaliser="candidates")).objective == rg.TopKMarginal(
        normaliser="candidates"
    )
    with pytest.raises(rg.UserError, match=r"replace: training: unknown key 'epoch'; did you mean 'epochs'"):
        experiment.replace(training={"epoch": 2})
    with pytest.raises(rg.UserError, match="no recipe 'semeval-join'"):
        rg.recipe("semeval-join")


# The examples of README.md and of the docstrings ----------------------------------------------------------------------

FACTS = [*PASSAGES, {"id": "p5", "title": "program", "text": "a part of the first program ."}]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that examples name; examples run in it."""
    for name, records in (("passages", FACTS), ("train", QUESTIONS), ("test", QUESTIONS)):
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{_json(one)}\n" for one in records), encoding="utf-8")
    (tmp_path / "page.txt").write_text("The cup holds tea.\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _substituted(code: str, changes: Mapping[str, str]) -> str:
    for old, new in changes.items():
        assert old in code, old
        code = code.replace(old, new)
    return code


@pytest.mark.slow
@pytest.mark.usefixtures("workplace")
def test_the_example_of_the_readme_runs(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    """Word for word, but for the two models' names and for the sizes."""
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert example
    small = (
        f".replace(data={{'train_count': 8, 'test_count': 4}}, retriever={{'model': {str(tiny_encoder)!r}}}, "
        f"generator={{'model': {str(tiny_seq2seq)!r}}}, warm_start={{'epochs': 0}})"
    )
    changes = {
        "builtin:minilm-seq2seq": str(tiny_seq2seq),
        "builtin:minilm": str(tiny_encoder),
        "epochs=2, batch_size=16": "epochs=1, batch_size=2",
        'rg.recipe("semeval-frozen")': f'rg.recipe("semeval-frozen"){small}',
        'rg.recipe("semeval-joint")': f'rg.recipe("semeval-joint"){small}',
        '"epochs": 2': '"epochs": 1',
        "train_examples[:64]": "train_examples[:2], redraws=2",
    }
    exec(_substituted(example[1], changes), {})


@pytest.mark.slow
@pytest.mark.usefixtures("workplace")
def test_the_page_on_python_runs(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    """Word for word, all blocks of `docs/python.md` in turn, but for the two models' names."""
    page = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    changes = {"builtin:minilm-seq2seq": str(tiny_seq2seq), "builtin:minilm": str(tiny_encoder)}
    exec(compile(_substituted(code, changes), "docs/python.md", "exec"), {})


def _examples() -> dict[str, str]:
    """The example in the docstring of each public name."""
    found = {}
    for name in set(rg.__all__) - {"__version__"}:
        docstring = inspect.cleandoc(getattr(rg, name).__doc__ or "")
        _, _, after = docstring.partition("Example::\n\n")
        lines = itertools.takewhile(lambda line: not line or line.startswith("    "), after.splitlines())
        found[name] = textwrap.dedent("\n".join(lines))
    return found


def test_the_example_of_every_public_name_runs(
    model: rg.RagModel, tiny_encoder: Path, tiny_seq2seq: Path, workplace: Path
) -> None:
    examples = rg.read_questions(QUESTIONS)
    for name in ("nq", "first", "second"):
        rg.train(model, examples, eval_examples=examples, out=workplace / "runs" / name, config=CONFIG)
    sentences = (("the <e1>cup</e1> holds <e2>tea</e2> .", "holds"), ("<e1>rain</e1> caused <e2>flood</e2>", "causes"))
    related = rg.read_relations([{"text": text, "label": label} for text, label in sentences])
    task = rg.RelationExtraction.from_labels(["holds", "causes"])
    instances = rg.KnowledgeBase.from_passages(task.passage(one) for one in related)
    names = {"retriever": str(tiny_encoder), "generator": str(tiny_seq2seq)}
    about_relations = rg.RagModel.from_pretrained(**names, task=task, base=instances)
    rg.train(about_relations, related, out=workplace / "runs" / "relations", config=CONFIG)
    codes = _examples()
    assert not [name for name, code in codes.items() if not code], "these have no example"
    del codes["run"]  # the README's example trains recipes
    for name, code in codes.items():
        code = code.replace("builtin:minilm-seq2seq", str(tiny_seq2seq)).replace("builtin:minilm", str(tiny_encoder))
        exec(
            compile(code, f"example of {name}", "exec"),
            {"rg": rg, "torch": torch, "model": model, "examples": examples},
        )
