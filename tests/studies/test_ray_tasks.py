"""Tasks of Ray build what one process builds, though they are killed; errors arrive as they were raised."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tests.index.disk.test_build import SPEC, VECTORS, Encoder, tree
from tests.requirements import skip_without_ray

from retrograd.index.disk.build import build_vectors, build_version
from retrograd.studies.ray_tasks import LOCAL, RayTasks, connect_to_ray
from retrograd.types import UserError

skip_without_ray()

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PROCESSORS = 3


@pytest.fixture(scope="module")
def tasks() -> Iterator[RayTasks]:
    with connect_to_ray(LOCAL, PROCESSORS, 1) as tasks:
        yield tasks


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    build_vectors(tmp_path / "whole", SPEC, Encoder())
    return tree(tmp_path / "whole")


def wait_for(is_reached: Callable[[], bool]) -> None:
    """Wait until other processes have done something; they may be slow, but a mistake in them must not hang a test."""
    for _ in range(3_000):
        if is_reached():
            return
        time.sleep(0.1)
    raise TimeoutError("the other processes have not come so far")


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_three_tasks_write_at_once_what_one_process_writes(tasks: RayTasks, tmp_path: Path, whole) -> None:
    """None goes on with its first shard before all have begun one."""
    root, begun = tmp_path / "index", tmp_path / "begun"
    begun.mkdir()

    def encode(first: int, stop: int):
        (begun / str(os.getpid())).touch()
        wait_for(lambda: len(list(begun.iterdir())) == 3)
        yield VECTORS[first:stop]

    looks = []
    assert tasks.run(lambda: build_version(root, SPEC, encode), 3, lambda: looks.append(1)) == root / "v000001"
    assert looks
    assert len(list(begun.iterdir())) == 3
    assert tree(root / "v000001") == whole
    assert sorted(path.name for path in root.iterdir()) == ["current", "v000001"]


@pytest.mark.parametrize("count", [1, 3])
def test_killed_twice_while_they_write_the_bytes_are_the_same(
    count: int, tasks: RayTasks, tmp_path: Path, whole
) -> None:
    """A single task can only end well because Ray starts it again."""
    root, deaths = tmp_path / "index", tmp_path / "deaths"
    deaths.mkdir()

    def encode(first: int, stop: int):
        for start in range(first, stop, 2):
            yield VECTORS[start : min(start + 2, stop)]
            for death in (deaths / "first", deaths / "second"):
                try:
                    with death.open("x") as file:
                        half_written = [path.name for path in root.glob(".v000001.build/.shard-*")]
                        file.write("\n".join([str(os.getpid()), *half_written]))
                except FileExistsError:
                    continue
                os.kill(os.getpid(), signal.SIGKILL)

    tasks.run(lambda: build_version(root, SPEC, encode), count)
    died = [death.read_text().splitlines() for death in sorted(deaths.iterdir())]
    assert len({process for process, *_ in died}) == 2
    assert all(half_written for _, *half_written in died)
    assert tree(root / "v000001") == whole
    assert sorted(path.name for path in root.iterdir()) == ["current", "v000001"]


def test_who_dies_each_time_is_given_up(tasks: RayTasks) -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(UserError, match=r"each of 1 tasks has died 4 times, .*; what is finished is kept"):
        tasks.run(die, 1)


def test_an_error_of_one_task_is_raised_as_it_was_and_ends_the_others(tasks: RayTasks, tmp_path: Path) -> None:
    def refuse() -> None:
        (tmp_path / str(os.getpid())).touch()
        wait_for(lambda: len(list(tmp_path.iterdir())) == PROCESSORS)
        if str(os.getpid()) == min(path.name for path in tmp_path.iterdir()):
            raise UserError("row 7 is not finite; check the encoder")
        time.sleep(100_000)

    with pytest.raises(UserError) as refused:
        tasks.run(refuse, PROCESSORS)
    assert str(refused.value) == "row 7 is not finite; check the encoder"
    _, *others = sorted(path.name for path in tmp_path.iterdir())
    wait_for(lambda: not any(is_alive(int(process)) for process in others))


def test_a_task_has_the_threads_and_the_folder_of_the_caller(
    tasks: RayTasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tasks.run(os.getcwd, 1) == str(tmp_path)
    assert [RayTasks(threads).run(torch.get_num_threads, 1) for threads in (2, 1, 5)] == [2, 1, 5]
    assert [RayTasks(threads).count for threads in (1, 2, 5)] == [3, 1, 1]


LISTENING = """
import os
import psutil
from retrograd.studies.ray_tasks import LOCAL, connect_to_ray

with connect_to_ray(LOCAL, 1, 1) as tasks:
    tasks.run(os.getpid, 1)
    own = psutil.Process()
    processes = [own, *own.children(recursive=True)]
    sockets = [socket for process in processes for socket in process.net_connections("inet")]
    print(len(processes), *sorted({socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN}))
    assert 8265 not in {socket.laddr.port for socket in sockets}, "there is a dashboard"
processes = own.children(recursive=True)
assert not [process for process in processes if process.status() != psutil.STATUS_ZOMBIE], processes
"""


def test_nobody_outside_this_machine_can_reach_a_local_cluster_and_it_ends() -> None:
    pytest.importorskip("psutil")
    done = subprocess.run([sys.executable, "-c", LISTENING], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    processes, *places = done.stdout.split()
    assert int(processes) > 3
    assert {place.removeprefix("::ffff:") for place in places} == {"127.0.0.1"}
    assert done.stderr == ""


def test_a_connection_of_the_caller_is_used_and_stays(tasks: RayTasks) -> None:
    import ray  # pyright: ignore[reportMissingImports]

    with connect_to_ray("10.0.0.1:1", None, 1) as others:
        assert others.count == tasks.count
    assert ray.is_initialized()
