"""A build plan states what it needs, and refuses what cannot fit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from retrograd.index.disk.plan import BuildPlan, require_memory
from retrograd.types import UserError

GB = 10**9


def plan(remaining=21_000_000, free_disk=100 * GB, free_memory=20 * GB):
    """Return the plan of the 21 M passages of Wikipedia at 768 numbers in bf16: 32.3 GB."""
    return BuildPlan(
        place=Path("indexes"),
        passages=21_000_000,
        remaining=remaining,
        dimension=768,
        dtype=torch.bfloat16,
        block_rows=2_048,
        seconds_per_passage=0.001,
        resident_bytes=2 * GB,
        free_disk=free_disk,
        free_memory=free_memory,
    )


def test_the_needs_are_arithmetic():
    wanted = plan(remaining=7_000_000)
    assert wanted.vector_bytes == 21_000_000 * 768 * 2
    assert wanted.remaining_bytes == 7_000_000 * 768 * 2
    assert wanted.seconds == 7000
    assert wanted.block_bytes == 2_048 * 768 * (4 + 4 + 2)
    assert wanted.peak_bytes == 2 * GB + wanted.block_bytes


def test_the_text_names_each_need():
    text = str(plan(remaining=7_000_000))
    for part in (
        "21,000,000 passages",
        "768 numbers in bfloat16",
        "14,000,000 are done if undamaged",
        "32.3 GB on disk",
    ):
        assert part in text
    assert "about 2.02 GB of memory (from the probe), 20 GB free" in text
    assert "about 1 h 56 min (1,000 passages/s, measured)" in text
    assert "done" not in str(plan())
    assert "free space unknown" in str(plan(free_memory=None))


def test_what_cannot_fit_is_refused():
    plan().require_fit()
    plan(free_disk=None, free_memory=None).require_fit()
    with pytest.raises(UserError, match=r"needs 32.3 GB more in indexes, and 1.05 MB .*; 30 GB are free there; free"):
        plan(free_disk=30 * GB).require_fit()
    with pytest.raises(UserError, match=r"free some space or choose another place$"):  # bf16 is what it is
        plan(free_disk=30 * GB).require_fit()
    with pytest.raises(UserError, match=r"another place or halve it with bf16$"):
        replace(plan(free_disk=30 * GB), dtype=torch.float32).require_fit()
    plan(remaining=7_000_000, free_disk=30 * GB).require_fit()
    with pytest.raises(UserError, match=r"a block of 2,048 passages takes 15.7 MB of memory and 10 MB are free; stop"):
        plan(free_memory=GB // 100).require_fit()
    plan(free_memory=GB // 50).require_fit()
    plan(remaining=0, free_memory=0, free_disk=0).require_fit()  # nothing is built
    require_memory(1)
    with pytest.raises(UserError, match="of memory and"):
        require_memory(10**18)
