"""A restricted index equals an index that never had the other rows."""

from statistics import NormalDist

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrograd.index.exact import ExactIndex
from retrograd.index.protocol import Index
from retrograd.index.restricted import RestrictedIndex
from retrograd.types import UserError

FALSE_ALARM = 1e-6  # allowed chance that a correct sampler fails a statistical test
NAMES = {"base_fingerprint": "base" * 16, "encoder_fingerprint": "encoder" * 9}


@settings(max_examples=150)
@given(st.integers(0, 2**31), st.integers(1, 15), st.integers(1, 20), st.integers(1, 8), st.booleans())
def test_rows_normaliser_and_gradient_are_those_of_the_subset(seed, count, k, block_rows, gather):
    """Small whole numbers make sums exact and ties frequent."""
    rng = torch.Generator().manual_seed(seed)
    vectors = torch.randint(-2, 3, (15, 3), generator=rng).double()
    vectors[:, 0] = vectors[:, 0].masked_fill(vectors[:, 0] == 0, 1)  # no subset is all zero
    rows = torch.randperm(15, generator=rng)[:count]
    query = torch.randint(-2, 3, (2, 3), generator=rng).double().requires_grad_()
    exclude = torch.randint(-1, 15, (2, 4), generator=rng)
    whole = ExactIndex(vectors, **NAMES, block_rows=block_rows)
    found = RestrictedIndex(whole, rows, gather=gather).search(query, k, exclude)

    outside = torch.ones(15, dtype=torch.bool)
    outside[rows] = False
    absent = outside.expand(2, -1) | (exclude[:, :, None] == torch.arange(15)).any(1)
    logits = (query @ vectors.T).masked_fill(absent, -torch.inf)
    value, row = logits.detach().sort(dim=1, descending=True, stable=True)
    row = torch.nn.functional.pad(row.masked_fill(value == -torch.inf, -1), (0, 10), value=-1)[:, :k]
    assert torch.equal(found.row, row)
    torch.testing.assert_close(found.log_normaliser, logits.logsumexp(1), rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad(found.log_normaliser.sum(), query)
    share = logits.detach().softmax(1).nan_to_num(0)
    torch.testing.assert_close(gradient, share @ vectors, rtol=1e-12, atol=1e-12)
    again = RestrictedIndex(whole, rows, gather=gather).log_normaliser(query, exclude)
    torch.testing.assert_close(again, found.log_normaliser)


@pytest.mark.parametrize("gather", [False, True])
def test_samples_follow_the_softmax_over_the_subset(gather):
    rng = torch.Generator().manual_seed(0)
    vectors, query = torch.randn(9, 3, generator=rng), torch.randn(1, 3, generator=rng)
    rows, draws = torch.tensor([7, 1, 4, 3]), 40_000
    index = RestrictedIndex(ExactIndex(vectors, **NAMES, block_rows=2), rows, gather=gather)
    drawn = index.sample(query, draws, rng, torch.tensor([[1]]))[0]
    share = torch.full((9,), -torch.inf, dtype=torch.float64)
    kept = [3, 4, 7]
    share[kept] = (query.double() @ vectors.double().T)[0, kept]
    share = share.softmax(0)
    count = torch.bincount(drawn, minlength=9).double()
    assert count[[0, 1, 2, 5, 6, 8]].sum() == 0
    z = NormalDist().inv_cdf(1 - FALSE_ALARM / 2 / len(kept))
    assert ((count - draws * share).abs() <= z * (draws * share * (1 - share)).sqrt() + 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gather", [False, True])
def test_vectors_keep_their_rows_and_their_bits(gather, dtype):
    vectors = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    whole = ExactIndex(vectors, **NAMES, dtype=dtype)
    index = RestrictedIndex(whole, torch.tensor([6, 2, 2]), gather=gather)
    wanted = torch.tensor([[2, -1], [6, 6]])
    assert torch.equal(index.vectors(wanted), whole.vectors(wanted))
    assert len(index) == 2
    assert isinstance(index, Index)
    with pytest.raises(ValueError, match=r"row 3 is not one of the 2"):
        index.vectors(torch.tensor([2, 3]))


def test_small_subsets_are_copied_and_large_ones_masked():
    whole = ExactIndex(torch.eye(10), **NAMES)
    later = torch.zeros(1, 10)
    later[0, 9] = 5.0
    small, large = (RestrictedIndex(whole, torch.arange(first, 10)) for first in (7, 2))
    whole.replace(torch.tensor([9]), later, "newer")
    query = torch.zeros(1, 10).index_fill_(1, torch.tensor([9]), 1.0)
    assert small.search(query, 1).logit.item() == 1.0  # a copy keeps what it was made from …
    assert small.encoder_fingerprint == NAMES["encoder_fingerprint"]  # … and says so
    assert large.search(query, 1).logit.item() == 5.0


def test_bad_subsets_are_refused():
    whole = ExactIndex(torch.eye(3), **NAMES)
    with pytest.raises(UserError, match=r"no rows to restrict the index to; loosen the filter"):
        RestrictedIndex(whole, torch.empty(0, dtype=torch.long))
    with pytest.raises(ValueError, match=r"rows span 1 … 3"):
        RestrictedIndex(whole, torch.tensor([1, 3]))
    with pytest.raises(ValueError, match=r"row -1 does not exist"):
        RestrictedIndex(whole, torch.tensor([1, -1]))
    with pytest.raises(UserError, match=r"width 2, the index 3"):
        RestrictedIndex(whole, torch.tensor([1])).search(torch.ones(1, 2), 1)
