"""What a build says it needs, and what it refuses to begin."""

from pathlib import Path

import pytest
import torch

from retrograd.corpus.plan import (
    BuildPlan,
    free_disk,
    free_memory,
    peak_memory,
    readable_bytes,
    readable_seconds,
    require_memory,
)
from retrograd.types import UserError

GB = 10**9


def plan(remaining=21_000_000, free_disk=100 * GB, free_memory=20 * GB, in_memory=False):
    """The 21 M passages of Wikipedia at 768 numbers in bf16: 32.3 GB."""
    return BuildPlan(
        place=Path("indexes"),
        passages=21_000_000,
        remaining=remaining,
        dimension=768,
        dtype=torch.bfloat16,
        seconds_per_passage=0.001,
        resident_bytes=2 * GB,
        free_disk=free_disk,
        free_memory=free_memory,
        in_memory=in_memory,
    )


def test_the_needs_are_arithmetic():
    wanted = plan(remaining=7_000_000)
    assert wanted.vector_bytes == 21_000_000 * 768 * 2
    assert wanted.remaining_bytes == 7_000_000 * 768 * 2
    assert wanted.seconds == 7000
    assert wanted.peak_bytes == 2 * GB
    assert plan(in_memory=True).peak_bytes == 2 * GB + 21_000_000 * 768 * 2


def test_the_text_names_each_need():
    text = str(plan(remaining=7_000_000))
    for part in ("21,000,000 passages", "768 numbers in bfloat16", "14,000,000 are done", "32.3 GB on disk", "2 GB of"):
        assert part in text
    assert "about 1 h 56 min (1,000 passages/s, measured)" in text
    assert "done" not in str(plan())
    assert "free space unknown" in str(plan(free_memory=None))


def test_what_cannot_fit_is_refused():
    plan().require_fit()
    plan(free_disk=None, free_memory=None).require_fit()
    with pytest.raises(UserError, match=r"needs 32.3 GB more in indexes and 30 GB are free there; free some space"):
        plan(free_disk=30 * GB).require_fit()
    plan(remaining=7_000_000, free_disk=30 * GB).require_fit()
    with pytest.raises(UserError, match=r"32.3 GB of memory and 20 GB are free; build the index on disk, or store"):
        plan(in_memory=True).require_fit()
    plan(in_memory=True, free_memory=40 * GB).require_fit()
    require_memory(1)
    with pytest.raises(UserError, match="of memory and"):
        require_memory(10**18)


def test_this_machine_tells(tmp_path: Path):
    assert free_disk(tmp_path / "not" / "there") > 0
    memory = free_memory()
    assert memory is None or memory > 0
    assert peak_memory() >= 0


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (32_256_000_000, "32.3 GB")]
)
def test_bytes_for_people(count, text):
    assert readable_bytes(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0 s"), (61.0, "1 min 1 s"), (7500.0, "2 h 5 min")])
def test_seconds_for_people(seconds, text):
    assert readable_seconds(seconds) == text
