"""Check refresh policies on tiny models: which passages are encoded when, and how old the index is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.tolerances import rounding
from tests.untimed import untimed_lines

from retrograd.index.exact import ExactIndex
from retrograd.index.faiss import FaissIndex
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.index.protocol import Index
from retrograd.index.restricted import RestrictedIndex
from retrograd.models.compute.sentence_head import Side
from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.retriever import Retriever, TrainedTowers
from retrograd.objectives import TopKMarginal
from retrograd.rag.embedding import build_index
from retrograd.rag.rag_model import RagModel
from retrograd.rag.staleness import Probe
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.training.loop import train
from retrograd.training.refresh import live_index
from retrograd.training.refresh.background import IndexWorker, remove_leftovers
from retrograd.training.refresh.live_index import LiveIndex
from retrograd.training.refresh.policies import (
    EverySteps,
    InBackground,
    Never,
    RefreshPolicy,
    RetrievedLately,
    Rolling,
    WhenDrifted,
)
from retrograd.training.run.run_directory import RunDirectory
from retrograd.training.stage import GeneratorEvidence, Pace, Stage
from retrograd.types import Example, Passage, UserError
from retrograd.util.files import lock_folder

N = 12
ALL = list(range(N))


def build(
    encoder: Path, generator: Path, trained: TrainedTowers = "query", shared: bool = True
) -> tuple[RagModel, list[Example]]:
    task = RelationExtraction.semeval("marked", "labelled")
    labels = {"cup": "Content-Container(e2,e1)", "rain": "Cause-Effect(e1,e2)", "wheel": "Component-Whole(e1,e2)"}
    examples = [
        Example(f"{noun}{i}", f"the @ {noun} @ holds # tea # number {i} .", (task.verbalise(label),))
        for noun, label in labels.items()
        for i in range(N // 3)
    ]
    base = KnowledgeBase.from_passages(Passage(e.id, e.target, e.query) for e in examples)
    tower = Encoder.open(str(encoder))
    retriever = Retriever(tower, tower if shared else Encoder.open(str(encoder)), 0.1, trained)
    generating = Generator.open(
        str(generator), torch.Generator().manual_seed(0), None, GeneratorOptions(max_target_tokens=8)
    )
    return RagModel(retriever, generating, task, base), examples


def live(model: RagModel, folder: Path, probe: Probe | None = None) -> LiveIndex:
    model.refresh_index()
    return LiveIndex(model, probe, folder)


def disturb(model: RagModel, scale: float = 0.1, seed: int = 3) -> None:
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.retriever.passage_encoder.parameters():
            weight += scale * torch.randn(weight.shape, generator=rng)


def fresh(model: RagModel) -> torch.Tensor:
    return build_index(model.passage_side, model.task, model.base).vectors(torch.arange(N))


def stored(model: RagModel) -> torch.Tensor:
    return model.index.vectors(torch.arange(N))


class Encoded:
    """A recorder of the rows that the passage tower has read since the last look."""

    def __init__(self, model: RagModel, monkeypatch: pytest.MonkeyPatch) -> None:
        self._rows: list[int] = []
        row_of = {model.task.passage_text(passage): row for row, passage in enumerate(model.base)}
        real = Encoder.embed

        def embed(tower: Encoder, texts: list[str], side: Side | None = None) -> torch.Tensor:
            self._rows += [row_of[text] for text in texts if text in row_of]
            return real(tower, texts, side)

        monkeypatch.setattr(Encoder, "embed", embed)

    def taken(self) -> list[int]:
        rows, self._rows[:] = list(self._rows), []
        return rows


# ---- which rows when ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (EverySteps(3), {3: ALL, 6: ALL}),
        (EverySteps(0), {}),
        (Never(), {}),
        (Rolling(0.25), {1: [0, 1, 2], 2: [3, 4, 5], 3: [6, 7, 8], 4: [9, 10, 11], 5: [0, 1, 2], 6: [3, 4, 5]}),
        (Rolling(0.4), {1: [0, 1, 2, 3, 4], 2: [5, 6, 7, 8, 9], 3: [10, 11, 0, 1, 2], 4: [3, 4, 5, 6, 7]}),
        (Rolling(1.0), {1: ALL, 2: ALL, 3: ALL}),
        (RetrievedLately(2, 2), {2: [0, 1], 4: [2, 3], 6: [4, 5]}),
        (RetrievedLately(2, 3), {2: [0, 1], 4: [1, 2, 3], 6: [3, 4, 5]}),
        (RetrievedLately(4, 1), {4: [3]}),
    ],
)  # fmt: skip
def test_each_policy_encodes_its_rows_at_its_steps(
    policy: RefreshPolicy,
    expected: dict[int, list[int]],
    tiny_encoder: Path,
    tiny_seq2seq: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Step s reads row s as a candidate, beside padding and the null passage."""
    model, _ = build(tiny_encoder, tiny_seq2seq)
    index = live(model, tmp_path)
    encoded = Encoded(model, monkeypatch)
    for step in range(max(expected, default=6) + 1):
        policy.apply(index, step)
        assert encoded.taken() == expected.get(step, [])
        index.record_reads([torch.tensor([[step, -1], [-2, step]])], step)


def test_a_step_that_reads_the_whole_base_has_seen_every_row(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    model, _ = build(tiny_encoder, tiny_seq2seq)
    index = live(model, tmp_path)
    index.record_reads([torch.tensor([ALL])], 4)
    assert index.rows_read_since(4).tolist() == ALL
    assert index.rows_read_since(5).tolist() == []


def test_a_refresh_on_drift_waits_for_drift(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq)
    index = live(model, tmp_path, Probe(torch.tensor([2, 5]), tuple(examples[:2]), 1))
    encoded = Encoded(model, monkeypatch)
    policy = WhenDrifted(0.01, 2)
    for step in range(5):
        policy.apply(index, step)
        assert encoded.taken() == ([2, 5] if step in (2, 4) else [])
    disturb(model)
    policy.apply(index, 5)
    assert encoded.taken() == []
    policy.apply(index, 6)
    assert encoded.taken() == [2, 5, *ALL]
    policy.apply(index, 8)
    assert encoded.taken() == [2, 5]
    with pytest.raises(UserError, match=r"probe_passages"):
        policy.apply(live(model, tmp_path), 2)


def test_a_full_round_with_weights_at_rest_gives_the_fresh_index(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    """Shares embedded as the policy does it agree bit for bit, and with all in one batch up to its rounding."""
    model, _ = build(tiny_encoder, tiny_seq2seq)
    index = live(model, tmp_path)
    old = stored(model)
    disturb(model)
    for step in range(1, 4):
        Rolling(1 / 3).apply(index, step)
        assert torch.equal(stored(model)[4 * step :], old[4 * step :])
    parts = [model.embed_rows(rows) for rows in torch.arange(N).split(4)]
    assert torch.equal(stored(model), torch.cat(parts))
    # Of length 1, after 12 products over 16 or 32 numbers.
    torch.testing.assert_close(stored(model), fresh(model), rtol=0, atol=rounding(32, 12))
    assert not torch.allclose(stored(model), old, atol=1e-2)


def test_a_mixed_index_is_exact_for_what_it_holds(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    """The neighbours and log Z are those of the rows as they now are, old and new."""
    model, _ = build(tiny_encoder, tiny_seq2seq)
    index = live(model, tmp_path)
    disturb(model)
    Rolling(0.5).apply(index, 1)
    rng = torch.Generator().manual_seed(1)
    query = torch.randn(4, 16, generator=rng)
    logits = query @ stored(model).T
    found = model.index.search(query, 3)
    assert found.log_normaliser is not None
    torch.testing.assert_close(found.log_normaliser, logits.logsumexp(-1))
    assert torch.equal(found.row, logits.topk(3).indices)


# ---- age and staleness -------------------------------------------------------------------------------------------


def test_the_age_is_the_mean_over_rows_in_steps(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    model, _ = build(tiny_encoder, tiny_seq2seq)
    index = live(model, tmp_path)
    assert index.diagnostics(5) == {"index_age": 5.0, "index_embedded": 0}
    EverySteps(3).apply(index, 3)
    assert index.diagnostics(5) == {"index_age": 2.0, "index_embedded": N}
    Rolling(0.25).apply(index, 6)
    assert index.diagnostics(7) == {"index_age": pytest.approx((3 * 1 + 9 * 4) / 12), "index_embedded": N + 3}


def test_staleness_is_logged_where_passages_move(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    names = {"index_age", "staleness_drift", "staleness_overlap"}
    for trained, policy in (("query", Never()), ("query", EverySteps(1)), ("none", EverySteps(1))):
        folder = tmp_path / f"{trained}-{policy}"
        log = trained_log(tiny_encoder, tiny_seq2seq, folder, policy, trained)
        assert all((names & set(line)) == (names if trained == "query" else set()) for line in log)
        if trained == "query":
            ages = [line["index_age"] for line in log]
            assert ages == ([1, 2, 3, 4, 5, 6] if policy == Never() else [1] * 6)
            assert all(0 <= line["staleness_overlap"] <= 1 for line in log)
            assert log[-1]["staleness_drift"] > 0
    quiet = trained_log(tiny_encoder, tiny_seq2seq, tmp_path / "quiet", EverySteps(1), probe_passages=0)
    assert all((names & set(line)) == {"index_age"} for line in quiet)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_ages_are_carried_over_and_what_another_process_embedded_is_embedded_here(
    elsewhere: bool, tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("retrograd.training.refresh.live_index.say", said.append)
    model, _ = build(tiny_encoder, tiny_seq2seq)
    model.refresh_index()
    before = LiveIndex(model, None, tmp_path)
    before.renew_rows(torch.tensor([1, 3]), 2)
    disturb(model)
    state = before.state()
    if elsewhere:
        state["counts"][1] = 2  # the step of the last snapshot
    after = LiveIndex(model, None, tmp_path)
    after.load(state)
    after.catch_up(5)
    assert model.index_is_current() == elsewhere
    assert bool(said) == elsewhere
    expected = {"index_age": 0.0, "index_embedded": 2.0 + N} if elsewhere else before.diagnostics(5)
    assert after.diagnostics(5) == expected


# ---- whole stages ------------------------------------------------------------------------------------------------


def trained_log(
    encoder: Path,
    generator: Path,
    folder: Path,
    policy: RefreshPolicy,
    trained: TrainedTowers = "query",
    shared: bool = True,
    probe_passages: int = 8,
    save_every: int = 0,
) -> list[dict]:
    """Train six steps at a rate that moves embeddings; the model's index must be fresh at the end."""
    model, examples = build(encoder, generator, trained, shared)
    torch.manual_seed(0)
    pace = Pace(2, 4, 1e-2, 1e-2, weight_decay=0.0, warmup=0.0, clip=0.0)
    stage = Stage("training", TopKMarginal(), GeneratorEvidence(3), pace, policy, 1, 0, save_every, probe_passages)
    directory = RunDirectory.create(folder, "", "no")
    train(model, examples, stage, directory, torch.Generator().manual_seed(0))
    assert model.index_is_current()
    torch.testing.assert_close(stored(model), fresh(model), rtol=0, atol=0)
    assert not list(folder.glob("background-*"))
    lines = [json.loads(line) for line in untimed_lines(folder / "metrics.jsonl").splitlines()]
    return [line for line in lines if "alarm" not in line]  # some of these stages are meant to go stale


POLICIES = [EverySteps(2), EverySteps(0), Never(), Rolling(0.3), RetrievedLately(2, 2), WhenDrifted(1e-4, 1)]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_stage_ends_with_a_fresh_index_whatever_the_policy(
    policy: RefreshPolicy, tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    log = trained_log(tiny_encoder, tiny_seq2seq, tmp_path / "run", policy, save_every=3)
    assert len(log) == 6
    # A checkpoint holds an index only if the tower of the checkpoint built all of it, which no policy promises.
    assert not list((tmp_path / "run" / "checkpoints").glob("*/index"))


def test_policies_that_do_the_same_train_the_same(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    """Three policies embed all rows before each step, and two embed none."""
    for same in ((EverySteps(1), Rolling(1.0), WhenDrifted(1e-12, 1)), (EverySteps(0), Never())):
        losses = [
            [line["loss"] for line in trained_log(tiny_encoder, tiny_seq2seq, tmp_path / f"{policy}", policy)]
            for policy in same
        ]
        assert all(other == losses[0] for other in losses[1:])


def test_measuring_staleness_changes_nothing_else(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    """The probe changes neither dropout nor the order of the examples, which are drawn while training."""
    measured = trained_log(tiny_encoder, tiny_seq2seq, tmp_path / "a", EverySteps(2))
    without = trained_log(tiny_encoder, tiny_seq2seq, tmp_path / "b", EverySteps(2), probe_passages=0)
    for line in measured:
        del line["staleness_drift"], line["staleness_overlap"]
    assert measured == without


@pytest.mark.parametrize(("policy", "told"), [(EverySteps(2), 1), (Rolling(0.1), 1), (Never(), 0), (EverySteps(0), 0)])
def test_query_side_training_needs_no_refresh_and_says_so_once(
    policy: RefreshPolicy,
    told: int,
    tiny_encoder: Path,
    tiny_seq2seq: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[str] = []
    monkeypatch.setattr("retrograd.training.refresh.fresh_index.say", lines.append)
    refreshed: list[int] = []
    real = RagModel.refresh_index
    monkeypatch.setattr(RagModel, "refresh_index", lambda self, *rest: (refreshed.append(1), real(self, *rest))[1])
    trained_log(tiny_encoder, tiny_seq2seq, tmp_path / "run", policy, shared=False)
    assert sum("needs no refresh" in line for line in lines) == told
    assert len(refreshed) == 1


def test_training_never_reads_an_index_of_zeros_or_of_other_weights(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad index is recognised at the start and embedded anew; a sound one is kept."""
    lines: list[str] = []
    monkeypatch.setattr("retrograd.training.refresh.fresh_index.say", lines.append)
    refreshed: list[int] = []
    real = RagModel.refresh_index
    monkeypatch.setattr(RagModel, "refresh_index", lambda self, *rest: (refreshed.append(1), real(self, *rest))[1])
    for case, expected in (("sound", 0), ("zeros", 1), ("stale", 1)):
        model, examples = build(tiny_encoder, tiny_seq2seq, "none")
        model.refresh_index()
        assert isinstance(model.index, ExactIndex)
        if case == "zeros":
            model.index.replace(torch.arange(N), torch.zeros(N, 16), model.passage_fingerprint())
        if case == "stale":
            disturb(model)
        refreshed.clear()
        stage = Stage(
            "training", TopKMarginal(), GeneratorEvidence(3), Pace(1, 6, 1e-3, 0.0), EverySteps(1), log_every=0
        )
        directory = RunDirectory.create(tmp_path / case, "", "no")
        train(model, examples, stage, directory, torch.Generator().manual_seed(0))
        assert len(refreshed) == expected
        torch.testing.assert_close(stored(model), fresh(model), rtol=0, atol=0)
    assert [line for line in lines if "damaged" in line] == [lines[0]]


def kinds_of_index(model: RagModel) -> list[Index]:
    """Build a restricting index, of half the rows, and an approximating one, of each number's sign."""
    whole = build_index(model.passage_side, model.task, model.base)
    fingerprints = {"base_fingerprint": whole.base_fingerprint, "encoder_fingerprint": whole.encoder_fingerprint}
    approximate = FaissIndex(whole.vectors(torch.arange(N)).sign(), "Flat", **fingerprints)
    return [RestrictedIndex(whole, torch.arange(0, N, 2)), approximate]


@pytest.mark.parametrize("kind", [0, 1])
def test_an_index_that_is_not_exact_serves_where_no_passage_moves_and_is_refused_at_once_elsewhere(
    kind: int, tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    pytest.importorskip("faiss")
    stage = Stage(
        "training", TopKMarginal(normaliser="candidates"), GeneratorEvidence(3), Pace(1, 4, 1e-3, 1e-3), Never(), 1
    )
    for shared in (False, True):
        model, examples = build(tiny_encoder, tiny_seq2seq, shared=shared)
        index = kinds_of_index(model)[kind]
        model.use_index(index)
        directory = RunDirectory.create(tmp_path / f"shared-{shared}", "", "no")
        arguments = (model, examples, stage, directory, torch.Generator().manual_seed(0))
        if shared:
            with pytest.raises(UserError, match=r"cannot be refreshed.*use_index\(\)"):
                train(*arguments)
            assert not (directory.path / "metrics.jsonl").exists()
        else:
            train(*arguments)
        assert model.index is index


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EverySteps(-1), "refresh_every is -1"),
        (lambda: WhenDrifted(0.0, 1), "refresh_drift is 0.0"),
        (lambda: WhenDrifted(0.1, 0), "refresh_every is 0"),
        (lambda: Rolling(0.0), "refresh_share is 0.0"),
        (lambda: Rolling(1.5), "refresh_share is 1.5"),
        (lambda: RetrievedLately(0, 5), "refresh_every is 0"),
        (lambda: RetrievedLately(5, 0), "refresh_window is 0"),
        (lambda: InBackground(0), "refresh_every is 0"),
    ],
)
def test_numbers_that_make_no_policy_are_refused(make, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


# ---- in the background -------------------------------------------------------------------------------------------


class Elsewhere:
    """A stand-in for the other process, which is done when the test says so."""

    def __init__(self, model: RagModel, scratch: Path) -> None:
        self.idle, self.done, self.closed = True, False, False

    def embed_snapshot(self, model: RagModel) -> None:
        self._index, self.idle, self.done = build_index(model.passage_side, model.task, model.base), False, False

    def take_finished(self) -> ExactIndex | None:
        if self.idle or not self.done:
            return None
        self.idle = True
        return self._index

    def close(self) -> None:
        self.closed = True


def test_an_index_from_elsewhere_is_as_old_as_its_snapshot(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_index, "IndexWorker", Elsewhere)
    model, _ = build(tiny_encoder, tiny_seq2seq)
    policy, index = InBackground(2), live(model, tmp_path)
    with index:
        old = stored(model)
        policy.apply(index, 0)
        policy.apply(index, 1)
        assert index._worker is None
        disturb(model, seed=1)
        snapshot = fresh(model)
        policy.apply(index, 2)  # a snapshot is taken
        worker = index._worker
        assert worker is not None
        disturb(model, seed=2)
        for step in range(3, 6):  # training goes on with the old index, and no second snapshot is taken
            policy.apply(index, step)
            assert torch.equal(stored(model), old)
            assert index.diagnostics(step)["index_age"] == step
        worker.done = True
        policy.apply(index, 6)  # taken over, and the next snapshot is due
        assert torch.equal(stored(model), snapshot)
        assert index.diagnostics(7)["index_age"] == 5
        assert not worker.idle
        worker.done = True
        policy.apply(index, 7)
        assert torch.equal(stored(model), fresh(model))
        assert index.diagnostics(7)["index_age"] == 1
        assert index.diagnostics(7)["index_embedded"] == 2 * N
        policy.apply(index, 8)
        assert not worker.idle
    assert worker.closed


@pytest.mark.slow
def test_another_process_embeds_the_snapshot_and_its_death_is_told(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    """A real process embeds two snapshots as here, while the tower has moved on; then it is killed."""
    model, _ = build(tiny_encoder, tiny_seq2seq)
    worker = IndexWorker(model, tmp_path)
    try:
        for seed in (1, 2):
            expected = build_index(model.passage_side, model.task, model.base)
            worker.embed_snapshot(model)
            assert not worker.idle
            disturb(model, seed=seed)
            worker.wait(120.0)
            found = worker.take_finished()
            assert found is not None
            assert worker.idle
            assert worker.take_finished() is None
            assert found.encoder_fingerprint == expected.encoder_fingerprint
            assert torch.equal(found.vectors(torch.arange(N)), expected.vectors(torch.arange(N)))
            model.use_index(found)
        worker.process.kill()
        worker.process.wait()
        with pytest.raises(UserError, match=r"killed by signal 9.*training\.refresh = every"):
            worker.take_finished()
        with pytest.raises(UserError, match="killed by signal 9"):
            worker.embed_snapshot(model)
    finally:
        worker.close()
    assert not list(tmp_path.iterdir())
    worker_gone = stored(model)  # its files are removed, and the index mapped from them still serves
    assert worker_gone.isfinite().all()


def test_a_stage_begins_by_removing_what_killed_trainings_left(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    model, _ = build(tiny_encoder, tiny_seq2seq)
    index = live(model, tmp_path)
    for name in ("background-killed", "background-alive", "other"):
        (tmp_path / name / "snapshot-0").mkdir(parents=True)
        (tmp_path / name / "texts.jsonl").write_text("{}")
    with lock_folder(tmp_path / "background-alive"), index:
        assert sorted(path.name for path in tmp_path.iterdir()) == ["background-alive", "other"]
    with index:
        assert [path.name for path in tmp_path.iterdir()] == ["other"]


_TRAINING = """
import sys, time
from pathlib import Path
from tests.training.refresh.test_refresh import build
from retrograd.training.refresh.background import IndexWorker
encoder, generator, scratch = map(Path, sys.argv[1:])
worker = IndexWorker(build(encoder, generator)[0], scratch)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_a_killed_training_leaves_a_folder_that_is_removed_once_it_is_dead(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    folders = [str(folder) for folder in (tiny_encoder, tiny_seq2seq, tmp_path)]
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", _TRAINING, *folders]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as training:
        assert training.stdout is not None
        assert training.stdout.readline() == b"ready\n"
        remove_leftovers(tmp_path)
        assert len(list(tmp_path.glob("background-*/texts.jsonl"))) == 1
        training.kill()
    assert len(list(tmp_path.glob("background-*/texts.jsonl"))) == 1
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_process_whose_training_died_before_it_began_embeds_nothing(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    """The process has another parent than it was given, and the snapshot is in the pipe already."""
    model, _ = build(tiny_encoder, tiny_seq2seq)
    worker = IndexWorker(model, tmp_path)
    try:
        worker.embed_snapshot(model)
        worker.wait(120.0)
        snapshot = next(tmp_path.glob("background-*/snapshot-0"))
        shutil.rmtree(snapshot / "index")
        orphan = subprocess.run(
            [
                sys.executable,
                "-c",
                f"from retrograd.training.refresh.background import serve; serve({training_that_is_gone()})",
            ],
            input=json.dumps(str(snapshot)).encode(),
            capture_output=True,
            check=False,
        )
        assert orphan.returncode == 1
        assert b"the training process is gone" in orphan.stderr
        assert not (snapshot / "index").exists()
    finally:
        worker.close()


def training_that_is_gone() -> int:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    return gone.pid


@pytest.mark.slow
def test_a_stage_with_a_background_process_leaves_nothing_behind(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training waits here for each index, so each is taken over one step after its snapshot."""
    real = IndexWorker.embed_snapshot

    def patiently(worker: IndexWorker, model: RagModel) -> None:
        real(worker, model)
        worker.wait(120.0)

    monkeypatch.setattr(IndexWorker, "embed_snapshot", patiently)
    log = trained_log(tiny_encoder, tiny_seq2seq, tmp_path / "run", InBackground(1))
    assert [line["index_age"] for line in log] == [1, 2, 2, 2, 2, 2]


@pytest.mark.slow
def test_a_background_process_that_fails_says_why(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training stops with the process's last message, and leaves nothing behind."""
    real = IndexWorker.embed_snapshot

    def spoilt(worker: IndexWorker, model: RagModel) -> None:
        (next(tmp_path.glob("run/background-*")) / "texts.jsonl").write_text("{}\nnothing", encoding="utf-8")
        real(worker, model)
        worker.wait(120.0)

    monkeypatch.setattr(IndexWorker, "embed_snapshot", spoilt)
    with pytest.raises(UserError, match=r"exit status 1 \(.+\)"):
        trained_log(tiny_encoder, tiny_seq2seq, tmp_path / "run", InBackground(1))
    assert not list((tmp_path / "run").glob("background-*"))
