"""The contract of every kind of data; CONTRIBUTING.md's toy kind is put through it, and trained."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path

import pytest
from tests.experiments.data.files import write_lines

from retrograd.experiments.data import kinds
from retrograd.experiments.data.example_files import ExampleSource
from retrograd.experiments.data.findings import Findings
from retrograd.experiments.data.free_answers import QuestionData
from retrograd.experiments.data.kinds import KINDS, file_settings, kind_names, open_data, open_files, read_data
from retrograd.experiments.data.recorded import record_data
from retrograd.experiments.data.relations import RelationData
from retrograd.experiments.data.source import DataKind
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
from retrograd.studies.answers import search_run
from retrograd.studies.planning.data import collect_data_facts
from retrograd.studies.validation.validate import validate_experiment
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.tasks.task import Task
from retrograd.types import Example, Passage, UserError
from retrograd.util.guards import JsonObject

CONTRIBUTING = Path(__file__).parents[3] / "CONTRIBUTING.md"
THINGS = ("cup", "box", "wheel", "car", "tea", "rain")


class Riddles(QuestionAnswering):
    """A task that no kind of data of the package makes."""


class RiddleData(QuestionData):
    """A kind of data that makes it; it writes no files."""

    @classmethod
    def from_python(cls, task: Task, sources: Mapping[str, ExampleSource], folder: Path) -> RiddleData | None:
        return cls() if type(task) is Riddles else None


def passages(folder: Path) -> str:
    return write_lines(folder / "base.jsonl", [{"id": one, "text": f"the {one} is here ."} for one in THINGS])


def relations(folder: Path) -> JsonObject:
    records: list[JsonObject] = [
        {"text": f"the {one} holds tea .", "head": [4, 4 + len(one)], "tail": [11 + len(one), 14 + len(one)]}
        | {"relation": ("holds", "has")[i % 2]}
        for i, one in enumerate(THINGS)
    ]
    train, test = write_lines(folder / "train.jsonl", records[:4]), write_lines(folder / "test.jsonl", records[4:])
    return {"train": train, "test": test, "labels": "from_train"}


def questions(folder: Path) -> JsonObject:
    records: list[JsonObject] = [{"question": f"where is the {one} ?", "answers": [one]} for one in THINGS]
    train, test = write_lines(folder / "train.jsonl", records[:4]), write_lines(folder / "test.jsonl", records[4:])
    return {"base": passages(folder), "train": train, "test": test}


def dialogue(folder: Path) -> JsonObject:
    records: list[JsonObject] = [{"history": [f"user: where is the {one} ?"], "answer": one} for one in THINGS]
    train, test = write_lines(folder / "train.jsonl", records[:4]), write_lines(folder / "test.jsonl", records[4:])
    return {"base": passages(folder), "train": train, "test": test}


def cards(folder: Path) -> JsonObject:
    for name, things in (("train", THINGS[:4]), ("test", THINGS[4:])):
        text = "".join(f"where is the {one} ? = {one}\n" for one in things)
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return {"base": passages(folder), "train": str(folder / "train.txt"), "test": str(folder / "test.txt")}


SAMPLES: dict[str, Callable[[Path], JsonObject]] = {
    "relations": relations,
    "questions": questions,
    "dialogue": dialogue,
    "cards": cards,
}
"""Settings of each kind over files with four training and two test examples that have no fault."""


@pytest.fixture(params=[*kind_names(), "cards"])
def data(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataKind:
    """Return settings of a kind over its sample; "cards" is the kind of CONTRIBUTING.md, in one file and one line."""
    if request.param == "cards":
        code = CONTRIBUTING.read_text(encoding="utf-8").split("<!-- toy kind of data -->\n```python\n", 1)[1]
        file = tmp_path / "card_data.py"
        file.write_text(code.split("```", 1)[0], encoding="utf-8")
        spec = importlib.util.spec_from_file_location("card_data", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "card_data", module)
        spec.loader.exec_module(module)
        monkeypatch.setattr(kinds, "KINDS", (*KINDS, module.CardData))
    settings = SAMPLES[request.param](tmp_path)
    return read_data({"kind": request.param, **settings}, "here")


def test_an_experiment_writes_and_reads_it(data: DataKind) -> None:
    experiment = Experiment(data=data)
    assert Experiment.from_mapping(experiment.to_mapping(), "here") == experiment
    assert Experiment().with_settings([f"data.kind={data.kind}"]).data == type(data)()
    assert "kind" not in [field.name for field in fields(data)]  # pyright: ignore[reportArgumentType]


def test_what_it_says_of_its_task_is_so(data: DataKind) -> None:
    loaded = data.load(0)
    assert data.has_closed_answers == (loaded.task.choices is not None)
    assert data.train_is_base == (data.base_source == "")
    assert len(loaded.base) == (len(loaded.train) if data.train_is_base else len(THINGS))
    assert (len(loaded.train), len(loaded.dev), len(loaded.test)) == (4, 0, 2)
    assert not data.has_dev


def test_its_task_comes_back_without_the_files(data: DataKind) -> None:
    task = data.load(0).task
    record = json.loads(json.dumps(data.task_record(task)))
    assert data.task_from_record(record, "here") == task
    with pytest.raises(UserError, match=r"^here: expected .*train"):
        data.task_from_record({"other": 1}, "here")


def test_its_examples_from_python_come_back_from_files(data: DataKind, tmp_path: Path) -> None:
    loaded = data.load(0)
    train, test = (data.train, data.test) if data.train_is_base else (loaded.train, loaded.test)
    recorded = record_data(loaded.task, loaded.base, train, test, tmp_path / "recorded")
    again = recorded.settings.load(0)
    recorded.check(again.task, again.base)
    assert again.task == loaded.task
    for ours, given in ((again.train, loaded.train), (again.dev, []), (again.test, loaded.test)):
        assert [(one.id, one.query, one.targets) for one in ours] == [(one.id, one.query, one.targets) for one in given]
    assert list(again.base) == list(loaded.base)
    alone = record_data(loaded.task, loaded.base, train, None, tmp_path / "alone").settings
    assert (alone.test, alone.load(0).test) == ("", [])


def test_a_task_from_python_is_recorded_by_the_kind_that_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, train = KnowledgeBase.from_passages([Passage("p", "", "rain")]), [Example("1", "what falls ?", ("rain",))]
    with pytest.raises(UserError, match=r"your class Riddles, .* or add a kind of data"):
        record_data(Riddles(), base, train, None, tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(kinds, "KINDS", (*KINDS, RiddleData))
    recorded = record_data(Riddles(), base, train, None, tmp_path)
    assert recorded.settings == RiddleData()
    recorded.check(Riddles(), base)
    with pytest.raises(UserError, match=r"the model's task has class = 'Riddles'"):
        recorded.check(QuestionAnswering(), base)


def test_files_are_named_from_the_root(data: DataKind, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    names = {name: Path(name).name for name in (data.train, data.test, data.base_source) if name}
    relative = replace(
        data,  # pyright: ignore[reportArgumentType]
        train=names[data.train],
        test=names[data.test],
        **({"base": names[data.base_source]} if data.base_source else {}),
    )
    assert relative.from_root() == data


def test_validation_reads_what_a_run_reads(data: DataKind) -> None:
    validation = validate_experiment(Experiment(data=data, training=TrainingSettings(passages=2)))
    assert validation.findings.total("error") == 0, validation.findings.shown
    assert [(part.name, part.records) for part in validation.parts][:2] == [("train", 4), ("test", 2)]
    loaded, parts = data.load(0), open_data(data, Findings())
    assert [[one for one, _ in part.examples()] for part in parts.parts] == [loaded.train, loaded.test]
    read = parts.neighbours if parts.base is None else list(parts.base.passages())
    assert list(read) == loaded.base.passages(range(len(loaded.base)))


def test_bare_files_are_read_by_its_name(data: DataKind) -> None:
    findings = Findings()
    (parts,) = open_files([Path(data.train), Path(data.test)], data.kind, file_settings(data.kind, "auto"), findings)
    assert [len(list(part.examples())) for part in parts.parts] == [4, 2]
    assert findings.shown == []
    with pytest.raises(UserError, match=rf"--kind {data.kind}: format is 'xlsx'"):
        file_settings(data.kind, "xlsx")


def test_a_plan_counts_what_a_run_reads(data: DataKind) -> None:
    facts = collect_data_facts(Experiment(data=data, training=TrainingSettings(passages=2)), 0, 0)
    assert (facts.examples, facts.tests, facts.passages) == (4, 2, 4 if data.train_is_base else 6)
    missing = read_data({"kind": data.kind, "train": "gone.txt", "train_count": 3, "test": ""}, "here")
    facts = collect_data_facts(Experiment(data=missing), 0, 0)
    assert (facts.examples, facts.passages) == (3, 3 if data.train_is_base else None)


def test_a_typed_query_is_an_example_without_a_target(data: DataKind) -> None:
    task = data.load(0).task
    example = task.parse_query("<e1>cup</e1> holds <e2>tea</e2>")
    assert example.targets == ()
    assert "holds" in task.query_text(example)


def test_only_relations_have_pairs_of_entities(data: DataKind) -> None:
    task = data.load(0).task
    if data.has_closed_answers:
        pairs = data.read_pairs(Path(data.test), task)
        assert [instance.relation for instance, _ in pairs] == ["holds", "has"]
        assert [example for _, example in pairs] == data.load(0).test
    else:
        with pytest.raises(UserError, match=r"extract is about relations .* evaluate, predict, search, compare"):
            data.read_pairs(Path(data.test), task)


def test_a_decision_is_fitted_among_closed_answers_alone(data: DataKind) -> None:
    changes = ["data.dev_from_train=1", "evaluation.calibrate=true"]
    if data.has_closed_answers:
        assert Experiment(data=data).with_settings(changes).evaluation.calibrate
    else:
        with pytest.raises(UserError, match=rf"evaluation.calibrate .* {data.kind} have none; set it to false"):
            Experiment(data=data).with_settings(changes)


@pytest.mark.parametrize("data", ["cards"], indirect=True)
def test_a_new_kind_trains_and_answers(data: DataKind, tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    experiment = Experiment(
        data=data,
        retriever=RetrieverSettings(model=str(tiny_encoder)),
        generator=GeneratorSettings(model=str(tiny_seq2seq), max_target_tokens=4),
        warm_start=WarmStartSettings(epochs=0),
        training=TrainingSettings(epochs=1, batch_size=2, passages=2, precision="fp32"),  # two steps
    )
    run_experiment(experiment, tmp_path / "run")
    assert open_run(tmp_path / "run").data.test == data.load(0).test
    assert len(search_run(tmp_path / "run", "where is the cup ?", 2).hits) == 2


def test_published_keys_embed_labels() -> None:
    assert RelationData(key_style="published").embeds_labels
    assert not RelationData().embeds_labels
