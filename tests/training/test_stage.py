"""Check the records of a stage: what evidence permits, and how many candidates it gives a query."""

from __future__ import annotations

import pytest

from retrograd.rag.candidates import Pool
from retrograd.training.stage import CopyEvidence, GeneratorEvidence
from retrograd.types import UserError


def test_candidates_as_at_test_time_are_the_priors_alone() -> None:
    for more in ({"pool": Pool(1)}, {"prior_only": 0.1}):
        with pytest.raises(UserError, match="leave pool = None and prior_only = 0"):
            GeneratorEvidence(3, as_at_test_time=True, **more)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (GeneratorEvidence(3), 3),
        (GeneratorEvidence(3, tail=2), 5),
        (GeneratorEvidence(60, tail=50), 100),
        (GeneratorEvidence(3, pool=Pool(2)), 4 * 3 + 2),
    ],
)
def test_a_query_is_given_at_most_so_many_candidates(evidence: GeneratorEvidence, expected: int) -> None:
    assert evidence.candidates_per_query(base_size=100, queries=4, posterior=False) == expected


def test_a_posterior_adds_its_own_candidates_except_at_test_time() -> None:
    assert GeneratorEvidence(3).candidates_per_query(100, 4, posterior=True) == 6
    assert GeneratorEvidence(3, as_at_test_time=True).candidates_per_query(100, 4, posterior=True) == 3


def test_noise_of_copying_is_a_probability() -> None:
    with pytest.raises(UserError, match=r"noise is 1\.5; expected a probability"):
        CopyEvidence(noise=1.5)
