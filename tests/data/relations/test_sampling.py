"""Samples are exact in size, stratified, nested, reproducible, and shuffled."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.sampling import sample_instances, split_instances
from retrograd.types import Span, UserError


def labelled(labels: list[str | None]) -> list[RelationInstance]:
    return [RelationInstance(str(i), "owl fox", Span(0, 3), Span(4, 7), label) for i, label in enumerate(labels)]


POOLS = st.lists(st.sampled_from(["a", "b", "c", "rare", None]), min_size=1, max_size=60).map(labelled)


@given(POOLS, st.data(), st.integers(0, 99))
def test_samples_are_nested_and_splits_complete(
    instances: list[RelationInstance], data: st.DataObject, seed: int
) -> None:
    large = data.draw(st.integers(0, len(instances)))
    small = data.draw(st.integers(0, large))
    sample = sample_instances(instances, large, random.Random(seed))
    assert len(sample) == large
    assert sample_instances(instances, small, random.Random(seed)) == sample[:small]
    rest, held_out = split_instances(instances, large, random.Random(seed))
    assert held_out == sample
    assert sorted(int(i.id) for i in rest + held_out) == list(range(len(instances)))


@given(POOLS, st.data(), st.integers(0, 99))
def test_samples_keep_the_mix_of_labels(instances: list[RelationInstance], data: st.DataObject, seed: int) -> None:
    count = data.draw(st.integers(0, len(instances)))
    all_counts = Counter(instance.relation for instance in instances)
    sample = Counter(instance.relation for instance in sample_instances(instances, count, random.Random(seed)))
    for label, size in all_counts.items():
        share = size / len(instances)
        # The bound that the docstring derives.
        assert abs(sample[label] - count * share) < 1 + share * len(all_counts)


def test_the_skewed_end_of_a_file_is_mixed_in() -> None:
    instances = labelled(["a"] * 900)
    sample = sample_instances(instances, 300, random.Random(1))
    late = sum(int(instance.id) >= 600 for instance in sample)
    # Hypergeometric: mean 100, standard deviation sqrt(300 · 1/3 · 2/3 · 600/899) = 6.7; five of those around it.
    assert 66 < late < 134


def test_a_rare_label_has_its_fair_chance() -> None:
    instances = labelled(["a"] * 99 + ["rare"])
    drawn = sum(
        any(instance.relation == "rare" for instance in sample_instances(instances, 20, random.Random(seed)))
        for seed in range(500)
    )
    # Binomial(500, about 0.2): standard deviation 9; five of those around 100.
    assert 55 < drawn < 145


@pytest.mark.parametrize("count", [-1, 4])
def test_impossible_counts_are_refused(count: int) -> None:
    with pytest.raises(UserError, match=f"cannot draw {count} of 3 instances; choose 0 to 3"):
        sample_instances(labelled(["a", "b", "c"]), count, random.Random(0))
