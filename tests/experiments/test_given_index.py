"""Runs that stand on a built index, or on what the cache kept, are the runs that embed their base themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from tests.experiments.test_resume import differing
from tests.requirements import skip_without_milvus
from torch import Tensor
from typer.testing import CliRunner

import retrograd as rg
from retrograd.__main__ import app
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.open import open_run
from retrograd.experiments.run import resume_run, run_experiment
from retrograd.index.exact import ExactIndex
from retrograd.index.faiss import FaissIndex
from retrograd.index.milvus import MilvusIndex
from retrograd.models.encoder import Encoder
from retrograd.training.run.checkpoints import Checkpoints
from retrograd.types import UserError

pytestmark = pytest.mark.slow

N = 20  # more than the 16 rows that are compared with fresh embeddings


@pytest.fixture
def experiment(tmp_path: Path, tiny_encoder: Path, tiny_seq2seq: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """Twenty passages, separate towers of which the query's learns."""
    monkeypatch.setenv("RETROGRAD_CACHE", str(tmp_path / "cache"))
    base, train = tmp_path / "passages.jsonl", tmp_path / "train.jsonl"
    things = ["cup", "box", "wheel", "car", "rain"] * 4
    passages = [{"id": f"p{i}", "text": f"the {thing} number {i} holds tea ."} for i, thing in enumerate(things)]
    questions = [{"question": f"what holds tea number {i} ?", "answers": [thing]} for i, thing in enumerate(things[:8])]
    for path, records in ((base, passages), (train, questions)):
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    settings = ["data.kind=questions", f"data.base={base}", f"data.train={train}", f"data.test={train}"]
    settings += [f"retriever.model={tiny_encoder}", f"generator.model={tiny_seq2seq}", "generator.max_target_tokens=4"]
    settings += ["retriever.separate_towers=true", "retriever.trained=query", "training.precision=fp32"]
    settings += ["training.epochs=1", "training.passages=2", "training.batch_size=4", "training.log_every=1"]
    settings += ["training.save_every=1", "training.retriever_learning_rate=1e-2", "warm_start.epochs=1"]
    return Experiment().with_settings(settings)


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counts: list[int] = []
    embed = Encoder.embed_passages

    def embed_and_count(encoder: Encoder, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        counts.append(len(texts))
        return embed(encoder, texts)

    monkeypatch.setattr(Encoder, "embed_passages", embed_and_count)
    return counts


def build(experiment: Experiment, root: Path) -> Path:
    file = root.with_suffix(".toml")
    file.write_text(experiment.to_toml(), encoding="utf-8")
    app(["index", "build", str(file), "--out", str(root)], standalone_mode=False)
    return root


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def weights(run: Path) -> dict[str, Tensor]:
    return {
        str(file.relative_to(run)) + name: weight
        for file in sorted((run / "model").glob("*/**/*.safetensors"))
        if file.parent.name != "index"
        for name, weight in load_file(file).items()
    }


def logged(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def require_equal(one: Path, other: Path) -> None:
    """The same trained weights, log and answers, bit for bit."""
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    assert all(weight.equal(theirs[name]) for name, weight in ours.items())
    for file in ("predictions.jsonl", "scores.json"):
        assert (one / file).read_bytes() == (other / file).read_bytes()


def test_cached_given_or_embedded_a_run_is_the_same_bit_for_bit(
    experiment: Experiment, tmp_path: Path, embedded: list[int]
) -> None:
    for name, settings in (("alone", ["index.cache=false"]), ("first", []), ("second", [])):
        embedded.clear()
        run_experiment(experiment.with_settings(settings), tmp_path / name)
        assert (max(embedded) < N) == (name == "second")
    given = experiment.with_settings([f"index.path={build(experiment, tmp_path / 'index')}"])
    before = tree(tmp_path / "index")
    run_experiment(given, tmp_path / "given")
    for name in ("first", "second", "given"):
        require_equal(tmp_path / "alone", tmp_path / name)
    assert tree(tmp_path / "index") == before
    assert (tmp_path / "alone" / "model" / "index").exists()
    assert not (tmp_path / "given" / "model" / "index").exists()
    assert not any((tmp_path / "given").glob("checkpoints/*/*index"))
    opened = open_run(tmp_path / "given")
    assert opened.model.reopens_index
    app(["evaluate", str(tmp_path / "given")], standalone_mode=False)
    (tmp_path / "index").rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"index\.path: .*index holds no finished index"):
        open_run(tmp_path / "given")


def test_a_stopped_run_over_a_given_index_goes_on_with_it(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = experiment.with_settings([f"index.path={build(experiment, tmp_path / 'index')}"])
    run_experiment(given, tmp_path / "whole")
    after_step = Checkpoints.after_step

    def stop_after_two(saves: Checkpoints, step: int, due: bool) -> None:
        after_step(saves, step, due)
        if step == 2:
            raise InterruptedError

    monkeypatch.setattr(Checkpoints, "after_step", stop_after_two)
    with pytest.raises(InterruptedError):
        run_experiment(given, tmp_path / "stopped")
    monkeypatch.setattr(Checkpoints, "after_step", after_step)
    resume_run(tmp_path / "stopped")
    require_equal(tmp_path / "whole", tmp_path / "stopped")
    assert differing(tmp_path / "whole", tmp_path / "stopped") == []


def test_training_that_moves_passages_leaves_the_given_index_as_it_is(experiment: Experiment, tmp_path: Path) -> None:
    moving = experiment.with_settings(["retriever.trained=both", "training.refresh_every=1"])
    given = moving.with_settings([f"index.path={build(moving, tmp_path / 'index')}"])
    before = tree(tmp_path / "index")
    run_experiment(given, tmp_path / "given")
    run_experiment(moving, tmp_path / "alone")
    require_equal(tmp_path / "alone", tmp_path / "given")
    assert tree(tmp_path / "index") == before
    assert not (tmp_path / "given" / "index").exists()
    assert open_run(tmp_path / "given").model.index_is_current()


@pytest.fixture(params=["faiss", pytest.param("milvus", marks=pytest.mark.integration)])
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "milvus":
        skip_without_milvus()
    else:
        pytest.importorskip("faiss")
    return request.param


ENGINES = {"faiss": FaissIndex, "milvus": MilvusIndex}


@pytest.mark.parametrize("trained", ["query", "both"])
def test_a_run_on_an_approximate_engine_is_trained_and_opened(
    engine: str, trained: str, experiment: Experiment, tmp_path: Path
) -> None:
    changes = [f"index.kind={engine}", "index.preset=flat", f"retriever.trained={trained}"]
    changes += ["objective.kind=TopKMarginal", "objective.normaliser=candidates", "warm_start.epochs=0"]
    run_experiment(experiment.with_settings(changes), tmp_path / "run")
    opened = open_run(tmp_path / "run")
    assert isinstance(opened.model.index, ENGINES[engine])
    assert opened.model.index_is_current()
    rows = torch.arange(N)
    assert opened.model.index.vectors(rows).equal(opened.model.embed_rows(rows))


def test_a_run_stands_on_a_published_index_and_estimates_the_whole_bases_normaliser(
    engine: str, experiment: Experiment, tmp_path: Path, embedded: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    root, where = build(experiment, tmp_path / "index"), str(tmp_path / ("at.db" if engine == "milvus" else "at"))
    app(["index", "publish", str(root), "--kind", engine, "--to", where, "--preset", "flat"], standalone_mode=False)
    assert re.search(r"20 passages are in .*\nrecall@10 is \d+\.\d%", capsys.readouterr().out)
    embedded.clear()
    changes = [f"index.kind={engine}", f"index.path={where}", "training.normaliser_draws=20", "index.cache=false"]
    run_experiment(experiment.with_settings(changes), tmp_path / "published")
    assert max(embedded, default=0) < N
    run_experiment(experiment.with_settings([f"index.path={root}"]), tmp_path / "exact")
    for ours, theirs in zip(logged(tmp_path / "published"), logged(tmp_path / "exact"), strict=True):
        if ours["stage"] == "training":
            assert ours["log_z_error"] == 0.0  # as many draws as there are rows: nothing is estimated
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-3)
    assert isinstance(open_run(tmp_path / "published").model.index, ENGINES[engine])


def test_a_model_from_python_stands_on_a_given_index(
    experiment: Experiment, tmp_path: Path, tiny_encoder: Path, tiny_seq2seq: Path, embedded: list[int]
) -> None:
    root = build(experiment, tmp_path / "index")
    data = experiment.data.load(0)

    def model(path: Path) -> rg.RagModel:
        return rg.RagModel.from_pretrained(
            retriever=str(tiny_encoder),
            generator=str(tiny_seq2seq),
            task=data.task,
            base=data.base,
            trained="query",
            separate_towers=True,
            index=rg.IndexSettings(path=str(path)),
        )

    embedded.clear()
    trained = rg.train(model(root), data.train, out=tmp_path / "run", config=rg.TrainingConfig(epochs=1, passages=2))
    assert max(embedded, default=0) < N
    assert trained.experiment.index.path == str(root)
    assert not (tmp_path / "run" / "model" / "index").exists()
    assert rg.open_run(tmp_path / "run").model.search("what holds tea ?", k=2)
    with pytest.raises(UserError, match=r"index\.path: .*missing holds no finished index"):
        model(tmp_path / "missing").search("what holds tea ?")


def test_publishing_never_touches_an_exact_index_or_a_run(experiment: Experiment, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    (tmp_path / "a").mkdir()
    root, other = build(experiment, tmp_path / "a" / "index"), build(experiment, tmp_path / "a" / "other")
    before = tree(tmp_path)
    for source, to in (
        (root, root),
        (root / "v000001", root),
        (root, root / "inside"),
        (root, root.parent),
        (root, other),
    ):
        with pytest.raises(UserError, match=r"--to is .* give a place of its own"):
            app(["index", "publish", str(source), "--kind", "faiss", "--to", str(to)], standalone_mode=False)
    assert tree(tmp_path) == before
    plain = tmp_path / "plain"  # an index without versions; what lies beside it is not its own
    ExactIndex.load(root).save(plain)
    app(["index", "publish", str(plain), "--kind", "faiss", "--to", str(tmp_path / "beside")], standalone_mode=False)
    refused = CliRunner().invoke(app, ["index", "publish", str(root), "--kind", "exact", "--to", str(tmp_path / "x")])
    assert refused.exit_code == 2
    assert "'exact' is not one of 'faiss'" in refused.output
    with pytest.raises(UserError, match=r"--out is .*base\.db; give a folder, and then: retrograd index publish"):
        app(["index", "build", "no matter", "--out", str(tmp_path / "base.db")], standalone_mode=False)
    with pytest.raises(UserError, match=r"missing\.db holds no finished index; write it with `retrograd index publish"):
        run_experiment(
            experiment.with_settings(["index.kind=milvus", f"index.path={tmp_path / 'missing.db'}"]), tmp_path / "r"
        )
