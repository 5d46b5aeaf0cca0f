"""What this machine and its container have free is known, and sizes are written for people."""

from pathlib import Path

import pytest

from retrograd.util.machine import (
    container_memory,
    free_disk,
    free_memory,
    peak_memory,
    readable_bytes,
    readable_seconds,
)

GB = 10**9


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
