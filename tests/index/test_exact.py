"""The streaming index against a slow twin that holds every logit, in float64."""

import gc
import math
from pathlib import Path
from statistics import NormalDist

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from retrograd.index.exact import ExactIndex
from retrograd.types import UserError

FALSE_ALARM = 1e-6  # allowed chance that a correct sampler fails a statistical test
NAMES = {"base_fingerprint": "base" * 16, "encoder_fingerprint": "encoder" * 9}


def index_of(vectors, **options):
    return ExactIndex(vectors, **NAMES, **options)


def dense_logits(vectors, query, exclude):
    """Return every logit of every row, -inf where excluded, as a slow reference."""
    logits = query.double() @ vectors.double().T
    if exclude is not None:
        for line, rows in enumerate(exclude.tolist()):
            for row in rows:
                if row >= 0:
                    logits = logits.clone()
                    logits[line, row] = -torch.inf
    return logits


def dense_top(logits, k):
    """Return the top rows, best first and equal logits by row, padded with (-1, -inf)."""
    found = []
    for line in logits.tolist():
        order = sorted((row for row, logit in enumerate(line) if logit > -math.inf), key=lambda row: (-line[row], row))
        pairs = [(row, line[row]) for row in order[:k]]
        found.append(pairs + [(-1, -math.inf)] * (k - len(pairs)))
    return torch.tensor([[r for r, _ in p] for p in found]), torch.tensor([[v for _, v in p] for p in found])


@st.composite
def worlds(draw):
    """Draw small whole numbers, so that every sum is exact in float64, and many logits are equal."""
    n, b, d, e = (draw(st.integers(1, high)) for high in (14, 3, 3, 5))
    seed, excluding = draw(st.integers(0, 2**31)), draw(st.sampled_from(["none", "some", "all"]))
    rng = torch.Generator().manual_seed(seed)
    vectors = torch.randint(-2, 3, (n, d), generator=rng).double()
    vectors[draw(st.integers(0, n - 1)), 0] = 1.0  # not all zero
    query = torch.randint(-2, 3, (b, d), generator=rng).double()
    exclude = {
        "none": None,
        "some": torch.randint(-1, n, (b, e), generator=rng),
        "all": torch.arange(n).expand(b, n).clone(),
    }[excluding]
    return vectors, query, exclude, draw(st.integers(1, 20)), draw(st.integers(1, 16))


@settings(max_examples=300)
@given(worlds())
def test_rows_logits_and_normaliser_equal_the_dense_ones(world):
    vectors, query, exclude, k, block_rows = world
    logits = dense_logits(vectors, query, exclude)
    row, logit = dense_top(logits, k)
    found = index_of(vectors, block_rows=block_rows).search(query, k, exclude)
    assert torch.equal(found.row, row)
    assert torch.equal(found.logit, logit)
    torch.testing.assert_close(found.log_normaliser, logits.logsumexp(1), rtol=1e-12, atol=1e-12)


@settings(max_examples=150)
@given(worlds())
def test_gradient_equals_the_dense_softmax_mean(world):
    vectors, query, exclude, k, block_rows = world
    query.requires_grad_()
    found = index_of(vectors, block_rows=block_rows).search(query, k, exclude)
    (gradient,) = torch.autograd.grad(found.log_normaliser.sum(), query)
    share = dense_logits(vectors, query.detach(), exclude).softmax(1).nan_to_num(0)  # NaN: a line without rows
    torch.testing.assert_close(gradient, share @ vectors, rtol=1e-12, atol=1e-12)
    assert not found.logit.requires_grad


def test_gradcheck():
    rng = torch.Generator().manual_seed(0)
    index = index_of(torch.randn(23, 4, generator=rng, dtype=torch.float64), block_rows=5)
    query = torch.randn(3, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    exclude = torch.tensor([[0, 22, -1], [7, 7, 8], [-1, -1, -1]])
    assert torch.autograd.gradcheck(lambda q: index.search(q, 4, exclude).log_normaliser, query)
    assert torch.autograd.gradcheck(lambda q: index.log_normaliser(q), query)


def test_all_rows_excluded_gives_padding_and_zero_gradient():
    index = index_of(torch.eye(3))
    query = torch.ones(2, 3, requires_grad=True)
    found = index.search(query, 2, torch.tensor([[0, 1, 2], [0, -1, -1]]))
    assert found.row.tolist() == [[-1, -1], [1, 2]]
    assert found.log_normaliser[0] == -torch.inf
    found.log_normaliser[1].backward(retain_graph=True)
    assert query.grad[0].tolist() == [0, 0, 0]
    query.grad = None
    found.log_normaliser.sum().backward()
    assert query.grad[0].tolist() == [0, 0, 0]
    assert query.grad[1].tolist() == [0, 0.5, 0.5]


def test_empty_base_behaves_like_absence():
    index = index_of(torch.empty(0, 3))
    query = torch.ones(2, 3, requires_grad=True)
    found = index.search(query, 2)
    assert len(index) == 0
    assert found.row.tolist() == [[-1, -1], [-1, -1]]
    assert found.log_normaliser.tolist() == [-math.inf, -math.inf]
    found.log_normaliser.sum().backward()
    assert torch.equal(query.grad, torch.zeros(2, 3))
    assert index.sample(query, 3, torch.Generator()).tolist() == [[-1] * 3] * 2
    assert torch.equal(index.vectors(torch.tensor([-1])), torch.zeros(1, 3))


def test_no_queries_give_no_rows():
    found = index_of(torch.eye(3)).search(torch.empty(0, 3), 2)
    assert found.row.shape == (0, 2)


@pytest.mark.parametrize(
    ("dtype", "with_gradient"),
    [
        (torch.float32, True),
        pytest.param(torch.float32, False, marks=pytest.mark.sweep),
        pytest.param(torch.bfloat16, True, marks=pytest.mark.slow),
        pytest.param(torch.float16, True, marks=pytest.mark.slow),
    ],
)
def test_large_base_equals_dense_values_and_gradient(dtype, with_gradient):
    """The base is 200,000 x 384: fp32 sums of 2e5 terms against float64, at logits as sharp as training's
    (temperature 0.05).
    """
    rng = torch.Generator().manual_seed(1)
    vectors = torch.nn.functional.normalize(torch.randn(200_000, 384, generator=rng), dim=1)
    query = 20 * torch.nn.functional.normalize(vectors[:8] + 0.02 * torch.randn(8, 384, generator=rng), dim=1)
    index = index_of(vectors, dtype=dtype)
    exclude = torch.tensor([[line, 199_999 - line, -1] for line in range(8)])
    query.requires_grad_(with_gradient)
    found = index.search(query, 10, exclude)
    stored = vectors.to(dtype).double()
    logits = query.detach().double() @ stored.T
    logits.scatter_(1, exclude[:, :2], -torch.inf)
    best, row = logits.topk(10)
    # fp32 products of 384 terms at |logit| <= 20: rounding below 384 * 2^-24 * 20 = 5e-4, in practice 1e-5
    torch.testing.assert_close(found.logit.double(), best, rtol=0, atol=5e-5)
    assert (found.row == row).double().mean() > 0.98  # near-equal neighbours may change places
    torch.testing.assert_close(found.log_normaliser.double(), logits.logsumexp(1), rtol=0, atol=2e-5)
    if with_gradient:
        (gradient,) = torch.autograd.grad(found.log_normaliser.sum(), query)
        torch.testing.assert_close(gradient.double(), logits.softmax(1) @ stored, rtol=0, atol=1e-6)


def test_logit_minus_normaliser_is_a_log_probability_in_half_precision():
    """A logit and its vector belong together: the logit is that of the vector which `vectors` returns."""
    rng = torch.Generator().manual_seed(2)
    index = index_of(torch.randn(500, 16, generator=rng), dtype=torch.bfloat16, block_rows=64)
    query = torch.randn(4, 16, generator=rng)
    found = index.search(query, 500)
    again = torch.einsum("bd,bkd->bk", query, index.vectors(found.row))
    torch.testing.assert_close(again, found.logit, rtol=0, atol=1e-5)
    torch.testing.assert_close((found.logit - found.log_normaliser[:, None]).exp().sum(1), torch.ones(4))


def test_extreme_logits_neither_overflow_nor_vanish():
    vectors = torch.tensor([[1000.0], [-1000.0], [999.0]])
    value = index_of(vectors, block_rows=1).log_normaliser(torch.tensor([[1.0], [-1.0], [0.0]]))
    torch.testing.assert_close(value, torch.tensor([1000 + math.log1p(math.exp(-1)), 1000.0, math.log(3)]))


def test_autocast_does_not_round_the_products():
    rng = torch.Generator().manual_seed(3)
    index, query = index_of(torch.randn(50, 64, generator=rng)), torch.randn(2, 64, generator=rng)
    plain = index.search(query, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = index.search(query, 5)
    assert torch.equal(plain.logit, cast.logit)
    assert torch.equal(plain.log_normaliser, cast.log_normaliser)


def test_half_precision_query_gets_its_gradient_in_its_own_type():
    query = torch.ones(1, 3, dtype=torch.bfloat16, requires_grad=True)
    index_of(torch.eye(3)).log_normaliser(query).sum().backward()
    assert query.grad.dtype == torch.bfloat16


def test_no_second_product_without_gradient():
    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            names.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    index, query = index_of(torch.eye(4), block_rows=2), torch.ones(1, 4, requires_grad=True)
    names = []
    with Products(), torch.no_grad():
        index.search(query, 2)
    assert names.count("mm") == 2
    assert "addmm_" not in names
    with Products():
        index.search(query, 2)
    assert names.count("addmm_") == 2


class _Largest(TorchDispatchMode):
    """Recorder of the largest storage, in bytes, that any operation allocates (views do not count)."""

    def __init__(self, *known):
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else (result,):
            if isinstance(one, torch.Tensor) and one.untyped_storage().data_ptr() not in self.known:
                self.bytes = max(self.bytes, one.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_allocation_grows_with_the_base(dtype):
    rng = torch.Generator().manual_seed(4)
    batch, block_rows, width = 4, 64, 8
    query = torch.randn(batch, width, generator=rng, requires_grad=True)
    exclude = torch.zeros(batch, 3, dtype=torch.long)
    largest = []
    for rows in (1_000, 4_000):
        vectors = torch.randn(rows, width, generator=rng).to(dtype)
        index = index_of(vectors, block_rows=block_rows)
        gc.collect()
        with _Largest(vectors) as seen:
            index.search(query, 10, exclude).log_normaliser.sum().backward()
            index.sample(query, 6, rng, exclude)
        largest.append(seen.bytes)
    assert largest[0] == largest[1]
    assert largest[1] <= 8 * block_rows * max(batch, width)


def test_equal_vectors_are_ordered_by_row_across_and_within_blocks():
    index = index_of(torch.ones(40, 2), block_rows=16)
    assert index.search(torch.ones(1, 2), 20).row.tolist() == [list(range(20))]


def test_results_do_not_depend_on_block_size():
    rng = torch.Generator().manual_seed(5)
    vectors, query = torch.randn(300, 8, generator=rng), torch.randn(3, 8, generator=rng)
    small, large = (index_of(vectors, block_rows=rows).search(query, 7) for rows in (11, 300))
    assert torch.equal(small.row, large.row)
    torch.testing.assert_close(small.log_normaliser, large.log_normaliser)


@pytest.mark.parametrize("block_rows", [2, 100])
def test_samples_follow_the_softmax(block_rows):
    rng = torch.Generator().manual_seed(6)
    vectors = torch.randn(7, 3, generator=rng)
    query = 1.5 * torch.randn(2, 3, generator=rng)
    exclude = torch.tensor([[4], [-1]])
    draws = 50_000
    row = index_of(vectors, block_rows=block_rows).sample(query, draws, rng, exclude)
    share = dense_logits(vectors, query, exclude).softmax(1)
    count = torch.stack([(row == n).sum(1) for n in range(7)], dim=1).double()
    assert count[0, 4] == 0
    # each cell is binomial; the bound is two-sided and shared by the 14 cells
    z = NormalDist().inv_cdf(1 - FALSE_ALARM / 2 / 14)
    assert ((count - draws * share).abs() <= z * (draws * share * (1 - share)).sqrt() + 1).all()


def test_draws_of_one_query_are_independent():
    """Two draws agree as often as independent ones do, with probability sum of p^2."""
    rng = torch.Generator().manual_seed(7)
    vectors, query = torch.randn(5, 3, generator=rng), torch.randn(1, 3, generator=rng)
    copies = 20_000
    row = index_of(vectors, block_rows=2).sample(query.expand(copies, 3), 2, rng)
    agree = float(dense_logits(vectors, query, None).softmax(1).square().sum())
    seen = float((row[:, 0] == row[:, 1]).double().mean())
    assert abs(seen - agree) <= NormalDist().inv_cdf(1 - FALSE_ALARM / 2) * math.sqrt(agree * (1 - agree) / copies)


def test_sampling_repeats_with_the_seed_and_pads():
    index = index_of(torch.eye(3))
    exclude = torch.tensor([[0, 1, 2], [0, 1, -1]])
    first, again = (index.sample(torch.ones(2, 3), 4, torch.Generator().manual_seed(8), exclude) for _ in range(2))
    assert torch.equal(first, again)
    assert first.tolist() == [[-1] * 4, [2] * 4]


def test_vectors_of_rows():
    index = index_of(torch.arange(6.0).view(3, 2), dtype=torch.float16)
    assert index.vectors(torch.tensor([[2, -1], [0, 1]])).tolist() == [[[4, 5], [0, 0]], [[0, 1], [2, 3]]]
    assert index.vectors(torch.tensor([2])).dtype == torch.float32
    with pytest.raises(ValueError, match=r"expected -1 .padding. … 2"):
        index.vectors(torch.tensor([3]))


def test_bad_vectors_are_refused_with_the_row():
    vectors = torch.ones(5, 2)
    vectors[3, 1] = torch.nan
    with pytest.raises(UserError, match=r"row 3 is not finite.*check the encoder"):
        index_of(vectors, block_rows=2)
    with pytest.raises(UserError, match=r"row 1 is not finite.*65504"):
        index_of(torch.tensor([[1.0], [1e5]]), dtype=torch.float16)
    with pytest.raises(UserError, match=r"all 4 vectors, from row 0 on, are zero"):
        index_of(torch.zeros(4, 2))
    with pytest.raises(UserError, match=r"expected torch.float32, torch.bfloat16"):
        index_of(torch.ones(2, 2), dtype=torch.complex64)


def test_bad_arguments_are_refused():
    index = index_of(torch.eye(3))
    with pytest.raises(UserError, match=r"width 2, the index 3; search with the encoder"):
        index.search(torch.ones(1, 2), 1)
    with pytest.raises(ValueError, match=r"k is 0"):
        index.search(torch.ones(1, 3), 0)
    with pytest.raises(ValueError, match=r"draws is 0"):
        index.sample(torch.ones(1, 3), 0, torch.Generator())
    with pytest.raises(ValueError, match=r"rows span 1 … 3; expected -1"):
        index.search(torch.ones(1, 3), 1, torch.tensor([[1, 3]]))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_query_that_is_not_finite_is_refused(value):
    index, query = index_of(torch.eye(3)), torch.ones(2, 3)
    query[1, 2] = value
    for ask in (
        lambda: index.search(query, 1),
        lambda: index.top_k(query, 1),
        lambda: index.log_normaliser(query),
        lambda: index.sample(query, 1, torch.Generator()),
    ):
        with pytest.raises(UserError, match=r"query 1 .* is not finite; check the encoder"):
            ask()


def test_exclusions_must_be_one_line_a_query(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the shape checker
    with pytest.raises(ValueError, match=r"2 lines for 1 queries"):
        index_of(torch.eye(3)).search(torch.ones(1, 3), 1, torch.tensor([[1], [2]]))


@pytest.mark.parametrize("bf16_product", [False, True])
def test_replaced_rows_leave_the_callers_tensor_alone(bf16_product):
    vectors = torch.eye(3, dtype=torch.bfloat16)
    index = index_of(vectors)
    for row in (1, 2):
        index.replace(torch.tensor([row]), torch.full((1, 3), 7.0), "other")
    assert torch.equal(vectors, torch.eye(3, dtype=torch.bfloat16))
    assert index.vectors(torch.tensor([1])).tolist() == [[7.0] * 3]
    assert index.top_k(torch.ones(1, 3), 2, bf16_product=bf16_product).row.tolist() == [[1, 2]]


def test_replacing_rows_copies_nothing_that_is_the_indexs_own(tmp_path: Path):
    built = [ExactIndex.from_blocks([torch.ones(1000, 8)], 1000, **NAMES, path=path) for path in (None, tmp_path / "i")]
    built.append(index_of(torch.ones(1000, 8), dtype=torch.bfloat16))  # the conversion made a tensor of its own
    for index in built:
        with _Largest(*index._shards) as seen:
            index.replace(torch.tensor([3]), torch.zeros(1, 8), "other")
        assert seen.bytes < 1000 * 8


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_as_on_the_processor():
    rng = torch.Generator().manual_seed(11)
    vectors, query = torch.randn(1000, 16, generator=rng), torch.randn(4, 16, generator=rng, requires_grad=True)
    exclude = torch.tensor([[0], [1], [2], [3]])
    here, there = index_of(vectors), index_of(vectors.cuda(), block_rows=128)
    expected, found = here.search(query, 5, exclude), there.search(query, 5, exclude)
    assert torch.equal(found.row, expected.row)
    torch.testing.assert_close(found.log_normaliser, expected.log_normaliser)
    gradients = [torch.autograd.grad(one.log_normaliser.sum(), query)[0] for one in (expected, found)]
    torch.testing.assert_close(*gradients)
    assert there.sample(query, 3, rng, exclude).shape == (4, 3)
