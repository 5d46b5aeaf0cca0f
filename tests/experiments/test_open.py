"""A run is opened with an index that fits, with one built anew where there is none, or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from retrograd.__main__ import app
from retrograd.experiments import open as opening_run
from retrograd.experiments.experiment import (
    Experiment,
    GeneratorSettings,
    RelationData,
    RetrieverSettings,
    TrainingSettings,
    WarmStartSettings,
)
from retrograd.experiments.open import open_run
from retrograd.experiments.run import run_experiment
from retrograd.index.exact import ExactIndex
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.studies.answers import evaluate_run, predict_file, search_run
from retrograd.studies.index import search_index
from retrograd.studies.laboratory.lab import run_laboratory
from retrograd.types import UserError

RECORDS = [
    {
        "text": f"the {thing} holds tea number {i} .",
        "head": [4, 4 + len(thing)],
        "tail": [len(thing) + 11, len(thing) + 14],
        "relation": label,
    }
    for i, (thing, label) in enumerate((thing, label) for thing in ("cup", "box") for label in ("holds", "part of"))
]


@pytest.fixture(scope="session")
def trained(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tiny finished run and its data; nothing changes it."""
    folder = tmp_path_factory.mktemp("trained")
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(record) + "\n" for record in RECORDS), encoding="utf-8")
    experiment = Experiment(
        data=RelationData(train=str(data), test="", labels="from_train"),
        retriever=RetrieverSettings(model=str(tiny_encoder)),
        generator=GeneratorSettings(model=str(tiny_seq2seq)),
        warm_start=WarmStartSettings(epochs=0),
        training=TrainingSettings(epochs=1, passages=2, precision="fp32", save_every=1),
    )
    run_experiment(experiment, folder / "run")
    return folder


@pytest.fixture
def finished(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of a finished run's folder, to damage; the data lie beside it."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path / "run"


def test_a_missing_index_is_built_anew_and_answers_the_same(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(opening_run, "say", lines.append)
    opened = open_run(finished)
    answers = opened.model.predict(opened.data.train, 2)
    assert lines == []
    shutil.rmtree(finished / "model" / "index")
    again = open_run(finished)
    assert again.model.index_is_current()
    assert [a.answer for a in again.model.predict(again.data.train, 2)] == [a.answer for a in answers]
    assert len(lines) == 1
    assert "index does not exist; embedding the 4 passages of the base anew" in lines[0]


def test_an_index_of_zeros_is_refused(finished: Path) -> None:
    """The index has the right fingerprints and shape, but zeros in all or some rows."""
    folder = finished / "model" / "index"
    sound = ExactIndex.load(folder)
    vectors = sound.vectors(torch.arange(4))
    vectors[2] = 0
    marks = {"base_fingerprint": sound.base_fingerprint, "encoder_fingerprint": sound.encoder_fingerprint}
    ExactIndex(vectors, **marks).save(folder)
    with pytest.raises(UserError, match=r"index is damaged: the vector of row 2 .*remove the folder"):
        open_run(finished)
    sound.replace(torch.arange(4), torch.zeros(4, 16), sound.encoder_fingerprint)
    sound.save(folder)
    with pytest.raises(UserError, match=r"zero|damaged"):
        open_run(finished)


def test_an_index_of_another_encoder_or_of_other_data_is_refused(finished: Path) -> None:
    weights = finished / "model" / "retriever" / "query" / "model.safetensors"
    kept = weights.read_bytes()
    state = load_file(weights)
    name = next(name for name, value in state.items() if value.dim() > 1)
    state[name] = state[name] + 0.1
    save_file(state, weights, metadata={"format": "pt"})
    with pytest.raises(UserError, match="encoder"):
        open_run(finished)
    weights.write_bytes(kept)
    base = list(KnowledgeBase.open(finished / "base.arrow"))
    KnowledgeBase.from_passages(base[::-1]).save(finished / "base.arrow")
    with pytest.raises(UserError, match="knowledge base"):
        open_run(finished)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training.passages=5", r"training\.passages is 5.*holds 4 passages; set it to 4 at most"),
        ("evaluation.passages=6", r"evaluation\.passages is 6.*holds 4"),
    ],
)
def test_an_experiment_that_asks_for_more_passages_than_there_are_is_refused_at_once(
    change: str, message: str, finished: Path, tmp_path: Path
) -> None:
    experiment = Experiment.load(finished / "experiment.toml").with_settings([change])
    with pytest.raises(UserError, match=message):
        run_experiment(experiment, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    with pytest.raises(UserError, match=message):
        run_laboratory(experiment, [], 4, 2, tmp_path / "lab", 0)


def test_a_command_that_asks_for_more_passages_than_there_are_is_refused(finished: Path, tmp_path: Path) -> None:
    query = "the <e1>cup</e1> holds <e2>tea</e2> ."
    with pytest.raises(UserError, match=r"--passages is 5.*holds 4"):
        evaluate_run(finished, tmp_path / "data.jsonl", None, 5, None)
    with pytest.raises(UserError, match=r"-k is 5.*holds 4"):
        search_run(finished, query, 5)
    with pytest.raises(UserError, match=r"-k is 5.*holds 4"):
        search_index(finished / "model" / "index", query, 5, str(finished))
    assert evaluate_run(finished, tmp_path / "data.jsonl", None, 4, None)
    assert len(search_run(finished, query, 4).hits) == 4


def test_a_file_of_another_layout_is_scored_and_answered(finished: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text(
        "says,what\nthe <e1>cup</e1> holds <e2>tea</e2> .,holds\n<e1>Ada</e1> sang <e2>it</e2> .,sings\n",
        encoding="utf-8",
    )
    changes = ["data.fields.text=says", "data.fields.relation=what", "data.unseen_labels=wrong"]
    with pytest.raises(UserError, match=r"data\.unseen_labels"):
        evaluate_run(finished, other, changes=changes[:2])
    result = evaluate_run(finished, other, changes=changes)
    assert (result.examples, result.evaluation.unseen_labels) == (2, {"sings": 1})
    assert len(predict_file(finished, other, changes=changes)) == 2
    with pytest.raises(UserError, match=r"training\.steps=3: only how the file is read"):
        predict_file(finished, other, changes=["training.steps=3"])
    with pytest.raises(UserError, match=r"--set says how --data are read"):
        evaluate_run(finished, changes=changes)


def test_a_search_is_filtered_by_what_passages_are(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query, index = "the <e1>cup</e1> holds <e2>tea</e2> .", finished / "model" / "index"
    base = KnowledgeBase.open(finished / "base.arrow")
    text = base[2].text
    for result in (
        search_run(finished, query, 4, [f"text={text}"]),
        search_index(index, query, 4, str(finished), [f"text={text}"]),
    ):
        assert [(hit.row, hit.probability) for hit in result.hits] == [(2, pytest.approx(1.0))]  # p(z|x) over the rest
    answer = search_run(finished, query, 4, [f"text={text}"]).answer
    assert answer is not None
    assert 2 in answer.rows
    assert set(answer.rows) <= {2, -1}
    app(["search", str(finished), query, "-k", "4", "--where", f"text={text}"], standalone_mode=False)
    assert f"[{base[2].title}] {text}" in capsys.readouterr().out
    both = search_run(finished, query, 4, ["text=*", f"text={text}"])
    assert [hit.row for hit in both.hits] == [2]  # all of them, of one field too
    with pytest.raises(UserError, match=r"no passage matches title=nothing\*; loosen --where"):
        search_run(finished, query, 4, ["title=nothing*"])
    with pytest.raises(UserError, match=r"--where is 'title'; write FIELD=PATTERN"):
        search_run(finished, query, 4, ["title"])
    with pytest.raises(UserError, match="no field 'author'"):
        search_index(index, query, 4, str(finished), ["author=me"])


@pytest.mark.parametrize("part", ["dev", "test"])
def test_examples_that_cannot_be_scored_are_refused_before_training(finished: Path, tmp_path: Path, part: str) -> None:
    bare = tmp_path / "bare.jsonl"
    record = {name: value for name, value in RECORDS[0].items() if name != "relation"}
    bare.write_text(json.dumps(record | {"text": "the cup holds tea again ."}) + "\n", encoding="utf-8")
    experiment = Experiment.load(finished / "experiment.toml").with_settings([f"data.{part}={bare}"])
    with pytest.raises(UserError, match=rf"data\.{part}, example '1': no answer.* with predict"):
        run_experiment(experiment, tmp_path / "other")
    assert not (tmp_path / "other" / "model").exists()
