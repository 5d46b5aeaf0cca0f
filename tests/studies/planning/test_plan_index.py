"""The index in a plan: its bytes by storage and engine, and what one saves that is there."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from retrograd.__main__ import app
from retrograd.experiments.build import build_model
from retrograd.experiments.experiment import Experiment
from retrograd.index.faiss import FaissIndex
from retrograd.report.plan import print_plan
from retrograd.studies.planning.hardware import Hardware
from retrograd.studies.planning.needs import Plan
from retrograd.studies.planning.plan import plan_experiment
from retrograd.types import UserError

BIG = Hardware("big", 10**12, 1e12, 0.5, cuda=False, bf16=False)
N, D = 8, 16


@pytest.fixture
def experiment(tmp_path: Path, tiny_encoder: Path, tiny_seq2seq: Path) -> Experiment:
    """Eight passages; the passage tower rests."""
    base, train = tmp_path / "passages.jsonl", tmp_path / "train.jsonl"
    texts = [f"the cup number {i} holds tea ." for i in range(N)]
    base.write_text("".join(json.dumps({"id": f"p{i}", "text": text}) + "\n" for i, text in enumerate(texts)), "utf-8")
    train.write_text('{"question": "what holds tea ?", "answers": ["cup"]}\n' * 4, "utf-8")
    settings = ["data.kind=questions", f"data.base={base}", f"data.train={train}", f"retriever.model={tiny_encoder}"]
    settings += [f"generator.model={tiny_seq2seq}", "retriever.separate_towers=true", "retriever.trained=query"]
    settings += ["training.precision=fp32", "training.epochs=1", "training.passages=2", "warm_start.epochs=0"]
    return Experiment().with_settings(settings)


def build(experiment: Experiment, root: Path, dtype: str) -> None:
    file = root.with_suffix(".toml")
    file.write_text(experiment.to_toml(), encoding="utf-8")
    app(["index", "build", str(file), "--out", str(root), "--dtype", dtype], standalone_mode=False)


def printed(plan: Plan) -> str:
    console = Console(width=140, record=True, file=io.StringIO())
    print_plan(plan, console)
    return console.export_text()


@pytest.mark.parametrize(
    ("settings", "row_bytes"),
    [
        ((), 4 * D),
        (("index.storage=bf16",), 2 * D),
        (("index.kind=faiss",), 4 * D + 8),
        (("index.kind=faiss", "index.preset=ivf-sq8"), D + 8),
        (("index.kind=faiss", "index.preset=hnsw"), 4 * D + 256),
    ],
)
def test_the_bytes_are_those_of_storage_and_engine(
    settings: tuple[str, ...], row_bytes: int, experiment: Experiment
) -> None:
    plan = plan_experiment(experiment.with_settings(settings), BIG)
    assert plan.index_bytes == N * row_bytes
    assert plan.memory.index == N * row_bytes
    assert not plan.index.is_ready
    assert plan.embedding == plan.saved
    assert plan.saved is not None
    assert plan.saved > 0
    assert "which an index or the cache saves later runs" in printed(plan)


def test_a_given_index_is_mapped_and_saves_the_embedding(experiment: Experiment, tmp_path: Path) -> None:
    root = tmp_path / "index"
    given = experiment.with_settings([f"index.path={root}"])
    before = plan_experiment(given, BIG)
    assert f"{root} is not there yet" in before.index.note
    assert before.embedding == before.saved
    build(experiment, root, "bf16")
    plan = plan_experiment(given, BIG)
    assert plan.index_bytes == N * D * 2
    assert plan.memory.index == 0
    assert plan.embedding == 0
    assert plan.saved == before.saved
    assert "the passages are embedded already, which saves about" in printed(plan)
    moving = given.with_settings(["retriever.trained=both", "training.refresh=never"])
    assert plan_experiment(moving, BIG).embedding == pytest.approx(before.embedding)  # once, after the stage
    with Path(given.data.base_source).open("a", encoding="utf-8") as file:
        file.write('{"id": "new", "text": "the box"}\n')
    with pytest.raises(UserError, match=r"index\.path: .* was built from knowledge base"):
        plan_experiment(given, BIG)


def test_workers_are_named_for_more_than_an_hour(experiment: Experiment) -> None:
    small = plan_experiment(experiment, BIG)
    assert small.saved is not None
    assert "workers of" not in printed(small)
    large = plan_experiment(
        experiment, BIG, passages=round(len(experiment.data.load(0).base) * 2.5 * 3600 / small.saved)
    )
    assert "3 workers of `retrograd index build`, each with such hardware, take about an hour" in printed(large)


def test_a_given_index_of_milvus_is_held_or_served(experiment: Experiment, tmp_path: Path) -> None:
    (tmp_path / "base.db").mkdir()
    for where, number in ((str(tmp_path / "base.db"), 8 * D + 16), ("http://localhost:19530", 0)):
        plan = plan_experiment(experiment.with_settings(["index.kind=milvus", f"index.path={where}"]), BIG)
        assert plan.index.row_bytes(D) == number
        assert plan.index.is_ready
        assert f"the index is given: {where}" in printed(plan)


def test_an_index_of_another_engine_is_refused_as_training_refuses_it(experiment: Experiment, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    vectors = torch.randn(40, D, generator=torch.Generator().manual_seed(0))
    FaissIndex(vectors, base_fingerprint="base", encoder_fingerprint="encoder").save(tmp_path / "faiss")
    for kind in ("exact", "milvus"):
        given = experiment.with_settings([f"index.kind={kind}", f"index.path={tmp_path / 'faiss'}"])
        with pytest.raises(UserError, match=rf"holds a 'faiss' index, and index\.kind is \"{kind}\""):
            plan_experiment(given, BIG)


def test_the_probe_finds_what_the_cache_holds(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETROGRAD_CACHE", str(tmp_path / "cache"))
    here = plan_experiment(experiment)
    assert here.probed
    assert not here.index.is_ready
    build_model(experiment, experiment.data.load(0), torch.Generator()).refresh_index()
    again = plan_experiment(experiment)
    assert again.index.is_ready
    assert again.embedding == 0
    assert again.record()["index_ready"]
