"""What the starting retriever finds is written down once, and training is the same with and without it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.experiments.test_resume import crashed, differing, tiny

from retrograd.evaluation import kept_neighbours
from retrograd.evaluation.kept_neighbours import read_neighbours, sample_examples
from retrograd.experiments import run as run_module
from retrograd.experiments.run import resume_run, run_experiment
from retrograd.models.retriever import Retriever
from retrograd.rag.rag_model import RagModel
from retrograd.types import Example, UserError

FILES = ["neighbours-after.jsonl", "neighbours-before.jsonl"]


@pytest.fixture
def models(tiny_encoder: Path, tiny_seq2seq: Path, tiny_causal: Path) -> dict[str, Path]:
    return {"encoder": tiny_encoder, "seq2seq": tiny_seq2seq, "causal": tiny_causal}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "chains", "lora"])
def test_training_is_the_same_with_and_without_them_and_embeds_the_base_as_often(
    kind: str, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, refreshes = tiny(kind, tmp_path / "data", models), []
    real = RagModel.refresh_index

    def counted(model: RagModel, *arguments: object) -> None:
        refreshes.append(1)
        real(model, *arguments)

    monkeypatch.setattr(RagModel, "refresh_index", counted)
    first = run_experiment(experiment, tmp_path / "with").path
    count = len(refreshes)
    monkeypatch.setattr(run_module, "_keep_neighbours", lambda *_: None)
    second = run_experiment(experiment, tmp_path / "without").path
    assert differing(first, second) == FILES
    assert len(refreshes) == 2 * count > 0


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 6], ids=["without a checkpoint", "with one"])
def test_a_run_that_goes_on_keeps_what_it_found_before_its_first_step(
    step: int, models: dict[str, Path], tmp_path: Path
) -> None:
    experiment = tiny("full", tmp_path / "data", models)
    run = crashed(experiment, tmp_path / "run", step)
    before = (run / FILES[1]).read_bytes()
    assert not (run / FILES[0]).exists()
    resume_run(run)
    assert (run / FILES[1]).read_bytes() == before
    found, later = read_neighbours(run / FILES[1]), read_neighbours(run / FILES[0])
    predictions = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert [one.id for one in found] == [one.id for one in later] == [one["id"] for one in predictions]
    assert [one.query for one in found] == [one["query"] for one in predictions]
    assert found != later
    for one, prediction in zip(later, predictions, strict=True):
        assert set(prediction["rows"]) <= set(one.rows)
        assert list(one.probabilities) == sorted(one.probabilities, reverse=True)
        assert 0 < sum(one.probabilities) <= 1 + 1e-6
    # Precision@1 is the share of the examples whose nearest passage supports the target.
    precision = json.loads((run / "scores.json").read_text())["neighbours"]["precision@1"]
    assert precision == pytest.approx(100 * sum(one.supports[0] for one in later) / len(later))


@pytest.mark.slow
def test_a_run_of_an_older_version_that_goes_on_has_nothing_from_before(
    models: dict[str, Path], tmp_path: Path
) -> None:
    run = crashed(tiny("full", tmp_path / "data", models), tmp_path / "run", 6)
    (run / FILES[1]).unlink()
    resume_run(run)
    assert not (run / FILES[1]).exists()


@pytest.mark.slow
def test_a_run_without_retrieval_has_no_file_and_searches_nothing(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Retriever, "forward", lambda *_: pytest.fail("nothing is to be searched"))
    closed = ["objective.kind=NoRetrieval", "training.passages=0", "retriever.trained=none", "warm_start.epochs=0"]
    closed += ["training.distraction=0", "training.tail=0"]
    experiment = tiny("lora", tmp_path / "data", models, *closed)
    run = run_experiment(experiment, tmp_path / "run").path
    assert not any((run / name).exists() for name in FILES)


def test_the_sample_is_the_same_each_time_and_in_order() -> None:
    examples = [Example(str(number), "q", ("a",)) for number in range(400)]
    sample = sample_examples(examples)
    assert len(sample) == kept_neighbours.KEPT_EXAMPLES
    assert sample == sample_examples(examples) == sorted(sample, key=lambda one: int(one.id))
    assert sample != examples[:150]
    assert sample_examples(examples[:150]) == examples[:150]


@pytest.mark.parametrize(
    "change",
    [
        {"rows": [0.5]},
        {"prior": ["x"]},
        {"prior": []},
        {"query": None},
        {"rows": None},
        {"gold": "a"},
        {"supports": [1]},
        {"supports": [True, True]},
    ],
)
def test_a_damaged_line_is_named(change: dict, tmp_path: Path) -> None:
    path = tmp_path / "neighbours-before.jsonl"
    record = {
        "id": "1",
        "query": "q",
        "gold": ["a"],
        "rows": [0],
        "passage_ids": ["p"],
        "prior": [0.5],
        "supports": [True],
    }
    path.write_text(json.dumps(record) + "\n")
    assert read_neighbours(path)[0].rows == (0,)
    path.write_text(json.dumps(record) + "\n" + json.dumps(record | change) + "\n")
    with pytest.raises(UserError, match="line 2: damaged"):
        read_neighbours(path)
