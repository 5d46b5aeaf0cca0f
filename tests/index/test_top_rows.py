"""Top-K alone gives the rows of `search` for any data, also where a bf16 product proposes them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from retrograd.index import top_rows
from retrograd.index.best_rows import BestRows, add_block, list_entries
from retrograd.index.exact import ExactIndex
from retrograd.types import UserError

NAMES = {"base_fingerprint": "base" * 16, "encoder_fingerprint": "encoder" * 9}


def index_of(vectors, **options):
    return ExactIndex(vectors, **NAMES, **options)


@settings(max_examples=200)
@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 4), st.integers(1, 9), st.integers(1, 20))
def test_a_carried_top_k_equals_a_sort(seed, rows, batch, k, block_rows):
    """Logits take few values, so that ties occur at every position, in any order of rows."""
    logits = torch.randint(-2, 3, (batch, rows), generator=torch.Generator().manual_seed(seed)).float()
    logits[logits == -2] = -torch.inf
    best = BestRows.empty(logits, k)
    for first_row in range(0, rows, block_rows):
        best = add_block(best, logits[:, first_row : first_row + block_rows], first_row)
    value, row = logits.sort(dim=1, descending=True, stable=True)
    kept = value[:, :k] > -torch.inf
    assert torch.equal(best.logit[:, : kept.shape[1]], value[:, :k])
    assert torch.equal(best.row[:, : kept.shape[1]][kept], row[:, :k][kept])


def test_entries_are_listed_by_query_up_to_a_limit():
    enters = torch.tensor([[True, False, True], [False, False, False], [False, True, False]])
    listed = list_entries(enters, 2)
    assert listed is not None
    query, column, place, width = listed
    assert (query.tolist(), column.tolist(), place.tolist(), width) == ([0, 0, 2], [0, 2, 1], [0, 1, 0], 2)
    assert list_entries(enters, 1) is None
    assert list_entries(torch.zeros(0, 3, dtype=torch.bool), 1) is not None


@pytest.mark.parametrize("ascending", [False, True])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_a_bf16_product_finds_the_rows_of_the_fp32_one(ascending, scale, monkeypatch):
    """Vectors come in clusters of near-equal ones: their logits differ by less than a bf16 product can tell."""
    monkeypatch.setattr(top_rows, "_HEAD_ROWS", 64)
    rng = torch.Generator().manual_seed(0)
    centres = torch.randn(12, 32, generator=rng)
    vectors = (centres[torch.randint(12, (4000,), generator=rng)] + 0.02 * torch.randn(4000, 32, generator=rng)) * scale
    query = centres[:6] + 0.1 * torch.randn(6, 32, generator=rng)
    if ascending:  # every block beats all before it: nothing can be left out
        vectors = vectors[(vectors @ query[0]).argsort()]
    index = index_of(vectors, dtype=torch.bfloat16, block_rows=300)
    exclude = torch.tensor([[int(vectors.bfloat16().float().matmul(q).argmax()), -1] for q in query])
    expected = index.search(query, 10, exclude)
    found = index.top_k(query, 10, exclude, bf16_product=True)
    assert found.log_normaliser is None
    torch.testing.assert_close(found.logit, expected.logit, rtol=1e-5, atol=0)
    exact = query.double() @ index.vectors(torch.arange(4000)).double().T
    same = found.row == expected.row
    # where rows differ, their exact logits do not, as far as fp32 can tell
    gap = (exact.gather(1, found.row) - exact.gather(1, expected.row)).abs()
    assert (same | (gap <= 1e-5 * exact.gather(1, found.row).abs())).all()
    assert same.double().mean() > 0.9


def test_the_bf16_logits_alone_would_choose_other_rows():
    """The bf16 logits alone choose other rows, so that the test above can fail."""
    rng = torch.Generator().manual_seed(0)
    vectors = (torch.randn(1, 32, generator=rng) + 0.02 * torch.randn(4000, 32, generator=rng)).bfloat16()
    query = torch.randn(4, 32, generator=rng)
    coarse = (query.bfloat16() @ vectors.T).topk(10).indices.sort().values
    assert not torch.equal(coarse, index_of(vectors).top_k(query, 10, bf16_product=True).row.sort().values)


def test_blocks_are_indeed_left_out(monkeypatch):
    """A bf16 product whose rows were all taken in fp32 would be right and useless."""
    taken = []
    real = top_rows.list_entries

    def counted(enters, most):
        listed = real(enters, most)
        taken.append(None if listed is None else len(listed[0]))
        return listed

    monkeypatch.setattr(top_rows, "list_entries", counted)
    rng = torch.Generator().manual_seed(1)
    vectors = torch.nn.functional.normalize(torch.randn(20_000, 64, generator=rng), dim=1)
    query = 20 * vectors[:4]
    index_of(vectors, dtype=torch.bfloat16, block_rows=2_000).top_k(query, 10, bf16_product=True)
    assert len(taken) >= 9
    assert None not in taken
    assert sum(taken) < 0.02 * 4 * 20_000


class _Gathered(TorchDispatchMode):
    """Recorder of how many stored rows each product of row with row takes."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.mul.Tensor and isinstance(args[1], torch.Tensor) and args[1].ndim == 2:
            self.rows.append(len(args[1]))
        return func(*args, **(kwargs or {}))


def test_rows_are_rescored_a_few_at_a_time(monkeypatch):
    """Up to 16 K rows of a query and block are listed, and gathered at once they would outgrow the block itself."""
    rng = torch.Generator().manual_seed(4)
    index = index_of(torch.randn(3000, 64, generator=rng), dtype=torch.bfloat16, block_rows=1_000)
    query = torch.randn(40, 64, generator=rng)
    expected = index.top_k(query, 20, bf16_product=True)
    monkeypatch.setattr(top_rows, "_RESCORED", 128)
    with _Gathered() as gathered:
        found = index.top_k(query, 20, bf16_product=True)
    assert max(gathered.rows) == 128
    assert sum(gathered.rows) > 500
    assert torch.equal(found.row, expected.row)
    assert torch.equal(found.logit, expected.logit)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("bf16_product", [None, False, True])
def test_top_k_equals_search(dtype, bf16_product):
    rng = torch.Generator().manual_seed(2)
    index = index_of(torch.randint(-3, 4, (500, 6), generator=rng).float(), dtype=dtype, block_rows=64)
    query = torch.randint(-3, 4, (5, 6), generator=rng).float()
    exclude = torch.randint(-1, 500, (5, 40), generator=rng)
    expected, found = index.search(query, 30, exclude), index.top_k(query, 30, exclude, bf16_product=bf16_product)
    assert torch.equal(found.row, expected.row)
    assert torch.equal(found.logit, expected.logit)


def test_rows_run_out_and_queries_may_be_none():
    index = index_of(torch.eye(3), dtype=torch.bfloat16, block_rows=2)
    found = index.top_k(torch.ones(2, 3), 5, torch.tensor([[0, 1, 2], [1, -1, -1]]), bf16_product=True)
    assert found.row.tolist() == [[-1] * 5, [0, 2, -1, -1, -1]]
    assert index.top_k(torch.empty(0, 3), 2, bf16_product=True).row.shape == (0, 2)
    assert index_of(torch.empty(0, 3)).top_k(torch.ones(1, 3), 2).row.tolist() == [[-1, -1]]
    zero = index_of(torch.eye(3).repeat(900, 1), dtype=torch.bfloat16).top_k(torch.zeros(1, 3), 3, bf16_product=True)
    assert zero.row.tolist() == [[0, 1, 2]]


def test_replaced_vectors_are_found_even_if_they_are_longer():
    index = index_of(torch.ones(4000, 2), dtype=torch.bfloat16, block_rows=500)
    query = torch.tensor([[1.0, 0.001]])
    index.top_k(query, 2, bf16_product=True)
    index.replace(torch.tensor([3999]), torch.tensor([[1000.0, 0.0]]), "other")
    assert index.top_k(query, 1, bf16_product=True).row.tolist() == [[3999]]


def test_the_faster_product_is_measured_once_for_each_size_of_batch(monkeypatch):
    asked = []
    monkeypatch.setattr(top_rows, "_time_action", lambda action: (action(), asked.append(1), float(len(asked)))[2])
    monkeypatch.setattr(top_rows, "_multiplies_bf16", lambda vectors: True)
    index = index_of(torch.randn(4000, 8, generator=torch.Generator().manual_seed(3)).bfloat16(), block_rows=100)
    for batch, k in ((4, 3), (5, 2), (9, 3), (4, 9)):
        index.top_k(torch.ones(batch, 8), k)
    assert len(asked) == 6


@pytest.mark.parametrize("faster", ["_select_rows", "_shortlist_rows"])
def test_a_bf16_product_is_taken_only_where_it_was_faster(faster, monkeypatch):
    monkeypatch.setattr(top_rows, "_multiplies_bf16", lambda vectors: True)
    monkeypatch.setattr(top_rows, "_time_action", lambda action: 1.0 if faster in action.__code__.co_names else 2.0)
    index = index_of(torch.eye(64).bfloat16(), block_rows=8)
    assert index.prefers_bf16_product(torch.ones(2, 64), 3) == (faster == "_shortlist_rows")
    called = []
    for name in ("_select_rows", "_shortlist_rows"):
        real = getattr(top_rows, name)
        monkeypatch.setattr(top_rows, name, lambda *words, n=name, real=real: (called.append(n), real(*words))[1])
    index.top_k(torch.ones(2, 64), 3)
    assert called == [faster]


def test_without_instructions_for_bf16_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(top_rows, "_multiplies_bf16", lambda vectors: False)
    monkeypatch.setattr(top_rows, "_time_action", lambda action: pytest.fail("measured"))
    assert not index_of(torch.eye(64).bfloat16(), block_rows=8).prefers_bf16_product(torch.ones(2, 64), 3)


def test_bad_arguments_are_refused():
    index = index_of(torch.eye(3))
    with pytest.raises(UserError, match=r"width 2, the index 3"):
        index.top_k(torch.ones(1, 2), 1)
    with pytest.raises(ValueError, match=r"k is 0"):
        index.top_k(torch.ones(1, 3), 0)
