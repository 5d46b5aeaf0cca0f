"""`analyse` on a tiny finished run: the figures are those of the model's own retrieval, and mistakes are explained."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from retrograd import __main__ as cli
from retrograd.evaluation.retrieval import retrieve, soft_slots
from retrograd.experiments.data.relations import RelationData
from retrograd.experiments.experiment import (
    EvaluationSettings,
    Experiment,
    GeneratorSettings,
    RetrieverSettings,
    TrainingSettings,
    WarmStartSettings,
)
from retrograd.experiments.open import open_run
from retrograd.experiments.run import train_experiment
from retrograd.objectives import CandidateScores, NoRetrieval
from retrograd.report.analysis import draw_analysis, print_analysis, save_text
from retrograd.studies.analyse import analyse_run, draw_stratified
from retrograd.types import UserError

THINGS = ("cup", "box", "wheel", "car")
LABELS = ("holds", "part of", "none")


def record(number: int, thing: str, label: str, typed: bool) -> dict:
    text = f"the {thing} holds tea number {' '.join(str(number))} ."
    types = {"head_type": "THING", "tail_type": "DRINK" if thing != "car" else "FUEL"} if typed else {}
    spans = {"head": [4, 4 + len(thing)], "tail": [len(thing) + 11, len(thing) + 14]}
    return {"id": f"i{number}", "text": text, "relation": label, **spans, **types}


def write(path: Path, records: list[dict]) -> str:
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return str(path)


def finish(folder: Path, encoder: Path, generator: Path, typed: bool, passages: int = 3) -> Path:
    """A run on twelve training instances and four test instances, of which the car's types are unknown to training."""
    pairs = [(thing, label) for thing in THINGS[:3] for label in LABELS] + [("cup", "holds")] * 3
    train = [record(number, thing, label, typed) for number, (thing, label) in enumerate(pairs)]
    test = [record(20 + number, thing, LABELS[number % 3], typed) for number, thing in enumerate(THINGS)]
    experiment = Experiment(
        name="tiny",
        data=RelationData(
            train=write(folder / "train.jsonl", train),
            test=write(folder / "test.jsonl", test),
            labels="from_train",
            negative="none",
        ),
        retriever=RetrieverSettings(model=str(encoder)),
        generator=GeneratorSettings(model=str(generator)),
        warm_start=WarmStartSettings(epochs=0),
        objective=NoRetrieval() if passages == 0 else Experiment().objective,
        training=TrainingSettings(epochs=1, passages=passages, precision="fp32"),
        evaluation=EvaluationSettings(passages=passages),
    )
    train_experiment(experiment, experiment.data.load(experiment.seed), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def run(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish(tmp_path_factory.mktemp("typed"), tiny_encoder, tiny_seq2seq, typed=True)


def test_what_is_retrieved_is_what_the_index_finds(run: Path) -> None:
    opened = open_run(run)
    found = retrieve(opened.model, opened.data.test, 5)
    with torch.no_grad():
        candidates = opened.model.retrieve(opened.data.test, 5)
    order = candidates.scores.log_prior.argsort(dim=-1, descending=True)
    assert found.rows.tolist() == candidates.rows.gather(1, order).tolist()
    expected = candidates.scores.log_prior.gather(1, order).exp()
    np.testing.assert_allclose(found.probability, expected, rtol=1e-5)
    everything = opened.model.retrieve_all(opened.data.test).scores.log_prior.detach().double()
    np.testing.assert_allclose(found.entropy, -(everything.exp() * everything).sum(dim=-1), rtol=1e-6)
    np.testing.assert_allclose(found.weight(5).sum(axis=1), 1.0)


def test_training_queries_never_retrieve_themselves(run: Path, tmp_path: Path) -> None:
    opened = open_run(run)
    found = retrieve(opened.model, opened.data.train, 12)
    for row, neighbours in enumerate(found.rows.tolist()):
        assert row not in neighbours
        assert neighbours[-1] == -1
        assert row in found.own_rows[row]
    report = analyse_run(run, "train", 0, [2], tmp_path)
    assert "own text" in report.notes[0]


def test_the_report_holds_every_group_and_reference(run: Path, tmp_path: Path) -> None:
    report = analyse_run(run, "test", 0, [2, 1], tmp_path)
    assert (report.name, report.queries, report.base_size, [one.k for one in report.at]) == ("tiny", 4, 12, [2, 1])
    by_group = {name: lines[0].queries for name, lines in report.at[0].base.items()}
    assert by_group == {"all": 4, "positive": 3, "negative": 1}
    label = report.at[0].base["all"][0]
    assert label.random_share == pytest.approx((6 + 3 + 3 + 6) / 12 / 4)
    assert report.at[0].types["all"][0].queries == 3
    assert report.notes == ["1 of the queries have a pair of entity types that the base has not."]
    saved = json.loads((tmp_path / "analysis.json").read_text())
    assert saved["at"][0]["against_base"]["all"][0]["random_share"] == label.random_share
    assert saved["at"][0]["weights"]["effective"]["mean"] == pytest.approx(report.at[0].effective.mean())
    assert len(saved["best"]) + len(saved["worst"]) == 3
    assert {story["label"] for story in saved["best"] + saved["worst"]} <= {"holds", "part of"}
    assert sum(hub["times"] for hub in saved["at"][1]["hubs"]) == 4
    weights = [story["weight"] for story in saved["best"] + saved["worst"][::-1]]
    assert weights == sorted(weights, reverse=True)


def test_tables_and_pictures_can_be_read(run: Path, tmp_path: Path) -> None:
    report = analyse_run(run, "test", 0, [2, 1], tmp_path)
    stream = StringIO()
    print_analysis(report, Console(file=stream, width=110))
    printed = stream.getvalue()
    assert "tiny: 4 queries of the test data, each with the k best of 12 training instances." in printed
    assert printed.count("lift: found / random") == 1
    assert printed.count("against blind draws from the query's pair of entity types") == 2
    assert "[holds] the @ cup @ holds # tea #" in printed
    assert max(len(line) for line in printed.splitlines()) <= 110
    save_text(report, tmp_path / "analysis.txt")
    assert (tmp_path / "analysis.txt").read_text() == printed
    for path in draw_analysis(report, tmp_path):
        assert path.stat().st_size > 10_000


def test_more_neighbours_than_instances_are_all_instances(run: Path, tmp_path: Path) -> None:
    report = analyse_run(run, "test", 0, [100], tmp_path)
    assert [one.k for one in report.at] == [12]
    assert report.notes[0] == "k = 100 is more than the base holds; all 12 instances are taken."
    assert report.at[0].base["all"][0].share_lift == pytest.approx(1.0)


def test_data_without_types_say_so(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    report = analyse_run(finish(tmp_path, tiny_encoder, tiny_seq2seq, typed=False), "test", 0, [], tmp_path / "out")
    assert [one.k for one in report.at] == [3]
    assert report.notes == ["The data name no entity types, so there is no comparison within a pair of types."]
    assert report.at[0].types == {"all": [], "positive": [], "negative": []}
    with pytest.raises(UserError, match="has no dev data; choose another part with --split"):
        analyse_run(tmp_path / "run", "dev", 0, [], tmp_path / "dev")


def test_a_run_that_retrieves_nothing_needs_k(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    run = finish(tmp_path, tiny_encoder, tiny_seq2seq, typed=False, passages=0)
    with pytest.raises(UserError, match=r"tiny retrieves nothing .* give -k 5"):
        analyse_run(run, "test", 0, [], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert analyse_run(run, "test", 0, [2], tmp_path / "out").at[0].k == 2


def test_soft_slots_are_those_of_the_candidates(run: Path, tmp_path: Path) -> None:
    """A selection that takes the two best of four candidates, and prints as a table of its own."""
    opened = open_run(run)

    def two_best(scores: CandidateScores) -> torch.Tensor:
        return torch.nn.functional.one_hot(scores.log_prior.topk(2).indices, scores.log_prior.shape[1]).float()

    found = soft_slots(opened.model, two_best, opened.data.test, 4)
    assert (found.count, found.candidates) == (2, 4)
    assert (found.similarity, found.hard_distance, found.largest_sum) == (0.0, 0.0, 1.0)
    stream = StringIO()
    print_analysis(replace(analyse_run(run, "test", 0, [], tmp_path), slots=found), Console(file=stream, width=110))
    assert "Soft slots: 2 weight rows over 4 candidates" in stream.getvalue()


def test_a_limit_keeps_the_mix_of_labels(rng: torch.Generator) -> None:
    labels = ["a"] * 70 + ["b"] * 25 + ["c"] * 5
    drawn = draw_stratified(labels, 20, random.Random(0))
    assert drawn == sorted(set(drawn))
    found = Counter(labels[position] for position in drawn)
    assert all(abs(found[label] - share) < 1 for label, share in (("a", 14), ("b", 5), ("c", 1)))
    assert drawn == draw_stratified(labels, 20, random.Random(0))
    assert drawn != draw_stratified(labels, 20, random.Random(1))


def test_the_command_writes_tables_and_pictures(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["analyse", str(run), "-k", "2", "-k", "1", "--limit", "2", "--out", str(tmp_path)]
    cli.app(words, standalone_mode=False)
    printed = capsys.readouterr().out
    assert "tiny: 2 queries" in printed
    assert printed.rstrip().endswith(f"Figures and pictures are in {tmp_path}.")
    names = {"analysis.json", "analysis.txt", "shared.png", "concentration.png", "usage.png"}
    assert {path.name for path in tmp_path.iterdir()} == names


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "b"], "2 runs; analyse one at a time, or compare their scores with --runs"),
        (["a", "--over", "seed"], "add --runs"),
        (["--runs", "a", "b", "-k", "2"], "need a single run"),
        (["nowhere"], "nowhere is not a run"),
    ],
)
def test_mistakes_on_the_command_line_are_explained(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        cli.app(["analyse", *words], standalone_mode=False)


def test_a_split_that_there_is_not_is_refused_with_the_list() -> None:
    refused = CliRunner().invoke(cli.app, ["analyse", "a", "--split", "tset"])
    assert refused.exit_code == 2
    assert all(split in refused.output for split in ("'test'", "'dev'", "'train'"))
