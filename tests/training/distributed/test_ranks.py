"""Train tiny random models without dropout with two real gloo processes, and compare with one process.

The processes run every case of ``CASES`` in turn (starting them costs more than training) and each writes what it found
into a folder of its own; the same cases in one process, here, say what it should have found.
"""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tolerances import descent_tolerance, plain_descent, rounding
from torch import distributed as dist

from retrograd.index.exact import ExactIndex
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.index.sharded import ShardedIndex
from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.retriever import Retriever, TrainedTowers
from retrograd.objectives import JointStochasticApproximation, Objective, TopKMarginal
from retrograd.rag.rag_model import RagModel
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.training.distributed.ranks import Ranks, join_process_group
from retrograd.training.loop import train
from retrograd.training.refresh.policies import EverySteps, InBackground, Never, RefreshPolicy, RetrievedLately, Rolling
from retrograd.training.run.run_directory import TIMES, RunDirectory
from retrograd.training.stage import GeneratorEvidence, Pace, Stage
from retrograd.types import Example, Passage, UserError

ROOT = Path(__file__).parents[3]
LABELS = ("Content-Container(e2,e1)", "Cause-Effect(e1,e2)", "Component-Whole(e1,e2)")
NOUNS = ("cup", "rain", "wheel")
NEVER = Never()
RATE, STEPS, NORM = 1e-2, 4, 1.0
"""Two epochs of at most two batches, under gradients clipped to `NORM`."""
TERMS, DEPTH = 8 * 3 * 64, 12
"""A gradient sums 8 queries x 3 passages x at most 64 tokens; a weight is within 12 matrix products of the loss."""
LOGGED = rounding(TERMS, DEPTH)
TOLERANCE = descent_tolerance(RATE, STEPS, NORM, TERMS, DEPTH)


@dataclass(frozen=True)
class Case:
    """Training on ``examples`` examples in batches of 8. ``exact`` cases draw nothing: ranks change rounding only."""

    objective: Objective
    trained: TrainedTowers = "query"
    refresh: RefreshPolicy = NEVER
    examples: int = 12
    micro_batch: int = 0
    tail: int = 0
    sharded: bool = True
    exact: bool = True


SAMPLED = JointStochasticApproximation(sampler="metropolis", draws=3)
CASES = {
    "marginal": Case(TopKMarginal()),
    "split": Case(TopKMarginal(), micro_batch=2),
    "whole on each rank": Case(TopKMarginal(), sharded=False),
    "refreshed": Case(TopKMarginal(), "both", EverySteps(1)),
    "rolling": Case(TopKMarginal(), "both", Rolling(0.4)),
    "retrieved lately": Case(TopKMarginal(), "both", RetrievedLately(1, 1)),
    "a rank without examples": Case(TopKMarginal(), "both", EverySteps(1), examples=9),
    "weights of the posterior": Case(JointStochasticApproximation(), "both", EverySteps(1)),
    "chains": Case(SAMPLED, "both", EverySteps(1), exact=False),
    "a tail": Case(TopKMarginal(), tail=2, exact=False),
}


def build(encoder: Path, generator: Path, case: Case) -> tuple[RagModel, list[Example]]:
    task = RelationExtraction.semeval("marked", "labelled")
    examples = [
        Example(f"{noun}{i}", f"the @ {noun} @ holds # tea # number {i} .", (task.verbalise(label),))
        for i in range(4)
        for noun, label in zip(NOUNS, LABELS, strict=True)
    ]
    base = KnowledgeBase.from_passages(Passage(e.id, e.target, e.query) for e in examples)
    tower = Encoder.open(str(encoder), dropout=False)
    retriever = Retriever(tower, tower, 0.1, case.trained)
    posterior = Retriever(Encoder.open(str(encoder), dropout=False), tower, 0.1, case.trained)
    source = torch.Generator().manual_seed(0)
    read = Generator.open(str(generator), source, None, GeneratorOptions(max_target_tokens=8, dropout=False))
    needs = case.objective.needs_posterior
    sharded = case.sharded and Ranks().count > 1
    model = RagModel(retriever, read, task, base, posterior if needs else None, sharded=sharded)
    return model, examples[: case.examples]


def trained(encoder: Path, generator: Path, case: Case, folder: Path) -> RagModel:
    model, examples = build(encoder, generator, case)
    torch.manual_seed(0)
    pace = Pace(2, 8, RATE, RATE, weight_decay=0.0, warmup=0.0, clip=NORM, micro_batch=case.micro_batch)
    evidence = GeneratorEvidence(3, tail=case.tail)
    stage = Stage("training", case.objective, evidence, pace, case.refresh, log_every=1, probe_passages=4)
    run = RunDirectory.create(folder, "", "no")
    with plain_descent():
        train(model, examples, stage, run, torch.Generator().manual_seed(0))
    return model


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def fail_once(patched: pytest.MonkeyPatch, owner: type, method: str, error: Exception, call: int) -> None:
    """Have the ``call``-th call of a method find no memory."""
    real, calls = getattr(owner, method), []

    def failing(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == call:
            raise error
        return real(*arguments)

    patched.setattr(owner, method, failing)


def keep(model: RagModel, path: Path) -> None:
    save_file({name: weight.detach().clone() for name, weight in model.named_parameters()}, path)


# ---- in each of the processes ----------------------------------------------------------------------------------------


def train_all_cases(rank: int, folder: Path, encoder: Path, generator: Path) -> None:
    for name, case in CASES.items():
        model = trained(encoder, generator, case, folder / f"{name}.{rank}")
        assert isinstance(model.index, ShardedIndex) == case.sharded
        keep(model, folder / f"{name}.{rank}" / "weights.safetensors")


def run_out_of_memory(rank: int, folder: Path, encoder: Path, generator: Path) -> None:
    """Fail on the second rank alone: where the generator reads, and where its own rows are searched."""
    failing = [
        ("reading", Generator, "token_log_likelihood", torch.OutOfMemoryError("here")),
        ("searching", ExactIndex, "search", RuntimeError("DefaultCPUAllocator: not enough memory")),
    ]
    for name, owner, method, error in failing:
        with pytest.MonkeyPatch.context() as patched:
            if rank == 1:
                fail_once(patched, owner, method, error, call=2)
            model = trained(encoder, generator, Case(TopKMarginal(), "both", EverySteps(1)), folder / f"{name}.{rank}")
        keep(model, folder / f"{name}.{rank}" / "weights.safetensors")


def refuse_what_only_one_process_can(rank: int, folder: Path, encoder: Path, generator: Path) -> None:
    with pytest.raises(UserError, match="is for one process; set"):
        trained(encoder, generator, Case(TopKMarginal(), "both", InBackground(2)), folder / f"background.{rank}")


def find_unequal_weights(rank: int, folder: Path, encoder: Path, generator: Path) -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0 + 1e-6 * rank]))
    with pytest.raises(UserError, match="weights of process 1 are not those of process 0"):
        Ranks().require_equal([weight])


def sum_gradients_that_a_rank_may_lack(rank: int, folder: Path, encoder: Path, generator: Path) -> None:
    both, one, none = (torch.nn.Parameter(torch.zeros(2, 3)) for _ in range(3))
    both.grad = torch.full((2, 3), 1.0 + rank)
    if rank == 1:
        one.grad = torch.full((3, 2), 5.0).T  # not contiguous
    Ranks().sum_gradients([both, one, none])
    assert both.grad.tolist() == [[3.0] * 3] * 2
    assert one.grad.tolist() == [[5.0] * 3] * 2
    assert none.grad is None


def share_out_every_query_once(rank: int, folder: Path, encoder: Path, generator: Path) -> None:
    ranks = Ranks()
    for queries in (1, 2, 5, 8):
        positions = torch.arange(queries) + 10
        parts = ranks.micro_batches(positions, positions + 100, 2)
        assert all(torch.equal(part.target, part.positions + 100) for part in parts)
        assert len({len(parts), ranks.broadcast(len(parts))}) == 1
        own = torch.cat([part.positions for part in parts if part.weight > 0] or [positions[:0]])
        assert torch.equal(ranks.join_shares(own, queries), positions)
        shares = ranks.stack_numbers(torch.tensor([sum(part.weight for part in parts)]))
        assert shares.sum() == pytest.approx(1.0)


CHECKS: list[Callable[[int, Path, Path, Path], None]] = [
    train_all_cases,
    run_out_of_memory,
    refuse_what_only_one_process_can,
    find_unequal_weights,
    sum_gradients_that_a_rank_may_lack,
    share_out_every_query_once,
]


def run_rank(folder: str, encoder: str, generator: str) -> None:
    torch.set_num_threads(1)
    assert join_process_group(torch.device("cpu")) == torch.device("cpu")
    rank = dist.get_rank()
    for check in CHECKS:
        try:
            check(rank, Path(folder), Path(encoder), Path(generator))
        except Exception:
            Path(folder, f"failed.{check.__name__}.{rank}").write_text(traceback.format_exc())
            raise
    dist.destroy_process_group()


# ---- here ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which two processes wrote their results."""
    folder = tmp_path_factory.mktemp("ranks")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", __name__]
    done = subprocess.run(
        [*launch, str(folder), str(tiny_encoder), str(tiny_seq2seq)], cwd=ROOT, check=False, timeout=300
    )
    failures = [path.read_text() for path in sorted(folder.glob("failed.*"))]
    assert not failures, "\n".join(failures)
    assert done.returncode == 0
    return folder


def same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name, weight in one.items():
        torch.testing.assert_close(weight, other[name], rtol=0, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_ranks_train_what_one_process_trains(
    name: str, two: Path, tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    case = CASES[name]
    first, second = (load_file(two / f"{name}.{rank}" / "weights.safetensors") for rank in range(2))
    same_weights(first, second, 0.0)
    if not case.exact:
        return
    alone = trained(tiny_encoder, tiny_seq2seq, case, tmp_path / "alone")
    same_weights(dict(alone.named_parameters()), first, TOLERANCE)
    found, expected = metrics(two / f"{name}.0"), metrics(tmp_path / "alone")
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    if case.micro_batch == 0:  # a line is of the last micro-batch of each rank
        for line, wanted in zip(found, expected, strict=True):
            # Which of two passages comes first may hang on rounding.
            counts = {"staleness_overlap", "best_supports"}
            assert line.keys() == wanted.keys()
            assert line["stage"] == wanted["stage"]
            # A prompt that two queries of a batch have in common is read once by each rank.
            left_out = counts | {"stage", "tokens_seen", *TIMES}
            exact = {key: value for key, value in wanted.items() if key not in left_out}
            assert {key: line[key] for key in exact} == pytest.approx(exact, rel=LOGGED, abs=LOGGED), name


@pytest.mark.slow
def test_what_a_rank_remembers_of_its_chains_all_ranks_know(two: Path) -> None:
    first, second = (load_file(two / f"chains.{rank}" / "chains" / "training.safetensors") for rank in range(2))
    assert torch.equal(first["row"], second["row"])
    assert (first["row"] >= 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("where", ["reading", "searching"])
def test_ranks_that_run_out_of_memory_halve_together(
    where: str, two: Path, tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    """Eight queries are four per rank, and from the second step on two at a time."""
    alone = trained(tiny_encoder, tiny_seq2seq, Case(TopKMarginal(), "both", EverySteps(1)), tmp_path / "alone")
    for rank in range(2):
        same_weights(
            dict(alone.named_parameters()), load_file(two / f"{where}.{rank}" / "weights.safetensors"), TOLERANCE
        )


if __name__ == "__main__":  # as torchrun starts it
    run_rank(*sys.argv[1:])


# ---- joining ---------------------------------------------------------------------------------------------------------


def test_a_process_that_is_alone_joins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join_process_group(torch.device("cpu")) == torch.device("cpu")
    assert not dist.is_initialized()


def test_a_launcher_that_does_not_say_where_to_meet_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r"WORLD_SIZE is 2.*RANK is not set; start all of them with torchrun"):
        join_process_group(torch.device("cpu"))
