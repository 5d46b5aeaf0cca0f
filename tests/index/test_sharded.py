"""Three gloo ranks, one process each, agree with one index that holds all rows.

Each rank runs the functions below that are named ``check_…`` and raises where something differs. What the ranks should
find is computed by each of them from the whole base, which only the test holds whole.
"""

from __future__ import annotations

import subprocess
import sys
import traceback
from pathlib import Path
from statistics import NormalDist

import pytest
import torch
from torch import distributed as dist

from retrograd.index.exact import ExactIndex
from retrograd.index.exchange import Exchange, GivenUpError
from retrograd.index.protocol import Index
from retrograd.index.sharded import ShardedIndex, shard_range
from retrograd.types import UserError

FALSE_ALARM = 1e-6  # allowed chance that a correct sampler fails a statistical test
NAMES = {"base_fingerprint": "base" * 16, "encoder_fingerprint": "encoder" * 9}
LENGTHS = {2: (23, 8), 3: (17, 0, 14)}  # rows of each rank: unequal, one of three without any
WIDTH = 5


def world(dtype=torch.float64):
    """Draw small whole numbers, so that sums are exact, and equal logits frequent and equal on every rank."""
    rng = torch.Generator().manual_seed(0)
    return torch.randint(-2, 3, (31, WIDTH), generator=rng).to(dtype)


def own_rows(vectors, lengths, rank):
    return vectors[sum(lengths[:rank]) :][: lengths[rank]]


def build(rank, ranks, dtype=torch.float64):
    vectors = world(dtype)
    shard = ExactIndex(own_rows(vectors, LENGTHS[ranks], rank), **NAMES, block_rows=4)
    return ShardedIndex(shard), ExactIndex(vectors, **NAMES)


def queries(rank, count, dtype=torch.float64):
    rng = torch.Generator().manual_seed(100 + rank)
    return torch.randint(-2, 3, (count, WIDTH), generator=rng).to(dtype), rng


def check_search_equals_the_whole(rank, ranks):
    """Search with other queries, numbers of queries, k and exclusions on each rank."""
    index, whole = build(rank, ranks)
    assert len(index) == 31
    assert isinstance(index, Index)
    for count, k, excluded in ((3, 5, 6), (0, 1, 0), (1, 40, 31)):
        query, rng = queries(rank, count + rank)
        exclude = torch.randint(-1, 31, (len(query), excluded + rank), generator=rng) if excluded else None
        found, expected = (one.search(query, k + rank, exclude) for one in (index, whole))
        assert torch.equal(found.row, expected.row)
        assert torch.equal(found.logit, expected.logit)
        torch.testing.assert_close(found.log_normaliser, expected.log_normaliser, rtol=0, atol=1e-12)
        assert not found.log_normaliser.requires_grad


def check_gradient_equals_the_whole(rank, ranks):
    """Request gradients on even ranks only; a query without rows left has gradient zero."""
    index, whole = build(rank, ranks)
    query, _ = queries(rank, 3)
    exclude = torch.full((3, 31), -1)
    exclude[1] = torch.arange(31)
    asked = query.clone().requires_grad_(rank % 2 == 0)
    for found in (index.search(asked, 4, exclude).log_normaliser, index.log_normaliser(asked, exclude)):
        twin = query.clone().requires_grad_()
        expected = whole.log_normaliser(twin, exclude)
        torch.testing.assert_close(found.detach(), expected.detach(), rtol=0, atol=1e-12)
        assert found[1] == -torch.inf
        assert found.requires_grad == (rank % 2 == 0)
        if found.requires_grad:
            weight = torch.tensor([1.0, 0.0, -2.0], dtype=torch.float64)
            (gradient,) = torch.autograd.grad((found * weight).masked_fill(weight == 0, 0).sum(), asked)
            (wanted,) = torch.autograd.grad((expected * weight).masked_fill(weight == 0, 0).sum(), twin)
            torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-12)
            assert gradient[1].tolist() == [0] * WIDTH


def check_half_precision_equals_the_whole(rank, ranks):
    rng = torch.Generator().manual_seed(1)
    vectors = torch.randn(31, WIDTH, generator=rng)
    index = ShardedIndex(ExactIndex(own_rows(vectors, LENGTHS[ranks], rank), **NAMES, dtype=torch.bfloat16))
    whole = ExactIndex(vectors, **NAMES, dtype=torch.bfloat16)
    query = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(rank)).requires_grad_()
    found, expected = index.search(query, 6), whole.search(query, 6)
    assert torch.equal(found.row, expected.row)
    torch.testing.assert_close(found.logit, expected.logit, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.log_normaliser, expected.log_normaliser, rtol=0, atol=1e-6)
    gradients = [torch.autograd.grad(one.log_normaliser.sum(), query)[0] for one in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-6)


def check_samples_follow_the_softmax(rank, ranks):
    """Sample with equal and with different sources on the ranks; equal ones must not make perturbations equal."""
    index, _ = build(rank, ranks)
    query, _ = queries(rank, 1)
    query = query / 2
    exclude = torch.tensor([[rank, -1, 30]])
    draws = 20_000 + 10 * rank
    share = (query @ world().T).index_fill(1, torch.tensor([rank, 30]), -torch.inf).softmax(1)[0]
    for seed in (7, 7 + rank):
        drawn = index.sample(query, draws, torch.Generator().manual_seed(seed), exclude)[0]
        assert len(drawn) == draws
        again = index.sample(query, draws, torch.Generator().manual_seed(seed), exclude)[0]
        assert torch.equal(drawn, again)
        count = torch.bincount(drawn, minlength=31).double()
        assert count[[rank, 30]].sum() == 0
        z = NormalDist().inv_cdf(1 - FALSE_ALARM / 2 / 31 / 2 / ranks)
        assert ((count - draws * share).abs() <= z * (draws * share * (1 - share)).sqrt() + 1).all()
    nothing = index.sample(query, 3, torch.Generator(), torch.arange(31)[None])
    assert nothing.tolist() == [[-1] * 3]


def check_draws_of_one_query_are_independent(rank, ranks):
    index, _ = build(rank, ranks)
    query, _ = queries(rank, 1)
    copies = 10_000
    drawn = index.sample((query / 2).expand(copies, WIDTH), 2, torch.Generator().manual_seed(3))
    agree = float((query / 2 @ world().T).softmax(1).square().sum())
    seen = float((drawn[:, 0] == drawn[:, 1]).double().mean())
    z = NormalDist().inv_cdf(1 - FALSE_ALARM / 2 / ranks)
    assert abs(seen - agree) <= z * (agree * (1 - agree) / copies) ** 0.5


def check_vectors_come_from_whoever_holds_them(rank, ranks):
    index, whole = build(rank, ranks, torch.float32)
    rng = torch.Generator().manual_seed(rank)
    for shape in ((2, 3 + rank), (0,), (4,)):
        row = torch.randint(-1, 31, shape, generator=rng) if rank else torch.full(shape, -1)
        assert torch.equal(index.vectors(row), whole.vectors(row))


def check_a_wrong_call_is_told_to_every_rank(rank, ranks):
    index, _ = build(rank, ranks)
    query, rng = queries(rank, 2)
    with pytest.raises(
        ValueError if rank == 0 else UserError, match="k is 0" if rank == 0 else "rank 0 was given wrong arguments"
    ):
        index.search(query, 0 if rank == 0 else 3)
    with pytest.raises(UserError, match="width 2" if rank == 1 else "rank 1 was given wrong arguments"):
        index.log_normaliser(query[:, :2] if rank == 1 else query)
    with pytest.raises(UserError, match=r"rank \d calls \w+ while rank \d calls \w+; every rank must make the same"):
        index.search(query, 2) if rank == 0 else index.sample(query, 2, rng)
    assert index.search(query, 2).row.shape == (2, 2)  # and the group still works


def check_shards_of_different_indexes_are_refused(rank, ranks):
    names = NAMES | {"encoder_fingerprint": "newer"} if rank == 1 else NAMES
    with pytest.raises(UserError, match=r"the shard of rank 1 has another encoder than that of rank 0; rebuild it"):
        ShardedIndex(ExactIndex(own_rows(world(), LENGTHS[ranks], rank), **names))


def check_rows_are_replaced_wherever_they_lie(rank, ranks):
    """Replace rows from ranks that do not hold them, and gather the whole on rank 0."""
    index, whole = build(rank, ranks, torch.float32)
    rng = torch.Generator().manual_seed(5)
    rows, fresh = torch.randperm(31, generator=rng)[:11], torch.randn(11, WIDTH, generator=rng)
    whole.replace(rows, fresh, "newer")
    own = rows.tensor_split(ranks)[rank]
    index.replace(own, fresh.tensor_split(ranks)[rank], "newer")
    assert index.encoder_fingerprint == "newer"
    everything = torch.arange(31)
    assert torch.equal(index.vectors(everything), whole.vectors(everything))
    found = index.whole()
    assert (found is None) == (rank > 0)
    if found is not None:
        assert (found.encoder_fingerprint, found.dtype) == ("newer", torch.float32)
        assert torch.equal(found.vectors(everything), whole.vectors(everything))
    wrong = fresh[:1] * (torch.inf if rank == 0 else 1)
    with pytest.raises(UserError, match="not finite" if rank == 0 else "rank 0 was given wrong arguments for replace"):
        index.replace(rows[rank : rank + 1], wrong, "wrong")


def check_all_leave_where_one_has_no_memory(rank, ranks):
    """Let one rank run out of memory in the pass over its rows, and before the search."""
    index, _ = build(rank, ranks)
    query, _ = queries(rank, 2)
    with pytest.MonkeyPatch.context() as patched:
        if rank == 1:

            def full(*arguments):
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

            patched.setattr(ExactIndex, "search", full)
        with pytest.raises(GivenUpError, match="no memory to search" if rank == 1 else "process 1 of this run has no"):
            index.search(query, 3)
    if rank == 1:
        Exchange().give_up()
    else:
        with pytest.raises(GivenUpError, match="process 1 of this run has no memory left"):
            index.search(query, 3)
    assert index.search(query, 2).row.shape == (2, 2)  # and the group still works


CHILD = """
import runpy, sys
from jaxtyping import install_import_hook
with install_import_hook("retrograd", "beartype.beartype"):
    test = runpy.run_path(sys.argv[1])
test["run_rank"](int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
"""
CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]


def run_rank(rank: int, ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks)
    try:
        for check in CHECKS:
            try:
                check(rank, ranks)
            except Exception:
                Path(folder, f"{check.__name__}.{rank}").write_text(traceback.format_exc())
                raise
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [pytest.param(2, marks=pytest.mark.sweep), 3])  # of three, one has no rows
def test_ranks_find_together_what_one_finds_alone(ranks: int, tmp_path: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", CHILD, __file__, str(rank), str(ranks), str(tmp_path)])
        for rank in range(ranks)
    ]
    codes = []
    for process in processes:
        try:
            codes.append(process.wait(120))
        finally:
            process.kill()
    failures = [path.read_text() for path in sorted(tmp_path.glob("check_*"))]
    assert not failures, "\n".join(failures)
    assert codes == [0] * ranks


def test_ranges_cover_all_rows_once_in_order() -> None:
    for rows, ranks in ((10, 3), (2, 4), (0, 2), (7, 1)):
        parts = [shard_range(rows, rank, ranks) for rank in range(ranks)]
        assert [row for part in parts for row in part] == list(range(rows))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_without_a_process_group_the_remedy_is_named() -> None:
    with pytest.raises(UserError, match=r"launch with torchrun and call init_process_group first"):
        ShardedIndex(ExactIndex(torch.eye(3), **NAMES))
