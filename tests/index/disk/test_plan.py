"""A build plan states what it needs, and refuses what cannot fit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from retrograd.index.disk.plan import (
    BuildPlan,
    container_memory,
    free_disk,
    free_memory,
    peak_memory,
    readable_bytes,
    readable_seconds,
    require_memory,
)
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


def test_this_machine_tells(tmp_path: Path):
    assert free_disk(tmp_path / "not" / "there") > 0
    memory = free_memory()
    assert memory is None or memory > 0
    assert peak_memory() >= 0


class TestContainer:
    """A container allows its limit less its usage, where reclaimable file pages count as free."""

    def test_version_2_nested(self, tmp_path: Path):
        (tmp_path / "membership").write_text("0::/jobs/one\n")
        job, root = tmp_path / "cgroup" / "jobs" / "one", tmp_path / "cgroup"
        group(job, {"memory.max": 10 * GB, "memory.current": 7 * GB}, inactive_file=2 * GB)
        assert container_memory(tmp_path / "membership", root) == 5 * GB
        group(job.parent, {"memory.max": 30 * GB, "memory.current": 28 * GB}, inactive_file=GB)
        assert container_memory(tmp_path / "membership", root) == 3 * GB
        (job.parent / "memory.max").write_text("max\n")
        (job / "memory.current").write_text(f"{20 * GB}\n")
        assert container_memory(tmp_path / "membership", root) == 0

    def test_version_1_whose_own_name_is_not_mounted(self, tmp_path: Path):
        (tmp_path / "membership").write_text("9:name=systemd:/\n4:cpu,memory:/docker/0123\n0::/\n")
        root = tmp_path / "cgroup" / "memory"
        files = {"memory.limit_in_bytes": 8 * GB, "memory.usage_in_bytes": 6 * GB}
        group(root, files, inactive_file=GB, total_inactive_file=4 * GB)
        assert container_memory(tmp_path / "membership", tmp_path / "cgroup") == 6 * GB

    def test_without_limits_nothing_is_known(self, tmp_path: Path):
        assert container_memory(tmp_path / "membership", tmp_path) is None
        (tmp_path / "membership").write_text("0::/\n")
        assert container_memory(tmp_path / "membership", tmp_path) is None


def group(folder: Path, files: dict[str, int], **statistics: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text("".join(f"{name} {value}\n" for name, value in statistics.items()))


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (32_256_000_000, "32.3 GB")]
)
def test_bytes_for_people(count, text):
    assert readable_bytes(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0 s"), (61.0, "1 min 1 s"), (7500.0, "2 h 5 min")])
def test_seconds_for_people(seconds, text):
    assert readable_seconds(seconds) == text
