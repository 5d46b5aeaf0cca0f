"""Run the same work in several tasks of Ray, which places them and starts one again whose process dies.

The work knows nothing of Ray: its tasks agree among themselves who does what, as `retrograd.index.disk.build` does, and
each returns when all of it is done. So the first result is the result, and a task that is lost costs only time.

Only this file imports ray.
"""

from __future__ import annotations

import logging
import os
import platform
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from retrograd.types import UserError
from retrograd.util.optional import require_package

__all__ = ["LOCAL", "RayTasks", "connect_to_ray"]

LOCAL = "local"
"""The address of a cluster on this machine that begins and ends with the work."""

_RESTARTS = 3
"""How often Ray starts a task again whose process has died; the other tasks go on meanwhile."""

_ANSWER_SECONDS = 10.0
_LOOK_SECONDS = 1.0
_LAST_SECONDS = 10.0
"""How long the tasks that work may take to see that all is done. Those that Ray has not placed yet never see it."""

_LOCAL_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to Ray's makers
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux, too, all listen on the loopback interface alone
}
"""Ray reads it when it is imported, so a process that has done so before listens on all interfaces."""

_STORE_BYTES = 100 << 20
"""Settings and paths are all that passes through Ray's store of objects, and it refuses to have less than 75 MiB."""

Result = TypeVar("Result")


@contextmanager
def connect_to_ray(address: str, workers: int | None, threads: int) -> Iterator[RayTasks]:
    """Provide the tasks of a cluster, each with ``threads`` threads.

    `LOCAL` starts a cluster that only this machine can reach and that ends with the block. It has the processors of
    the machine, or as many as ``workers`` tasks need. Where the caller has connected to Ray, that connection is used,
    and stays. Raises `UserError` without ray, and where no cluster answers.
    """
    require_package("a cluster of Ray", "ray", "ray")
    if address == LOCAL:
        os.environ.update(_LOCAL_ENVIRONMENT)
    import ray  # pyright: ignore[reportMissingImports]

    if ray.is_initialized():
        yield RayTasks(threads)
        return
    if address == LOCAL:
        _start_ray(None if workers is None else workers * threads)
    else:
        _join_ray(address)
    try:
        yield RayTasks(threads)
    finally:
        ray.shutdown()


def _start_ray(processors: int | None) -> None:
    """Start a cluster of this machine without dashboard."""
    import ray  # pyright: ignore[reportMissingImports]

    ray.init(
        address=LOCAL,
        num_cpus=processors,
        object_store_memory=_STORE_BYTES,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )


def _join_ray(address: str) -> None:
    """Connect to a cluster. Raises `UserError` where none answers, which Ray itself waits for more than a minute."""
    import ray  # pyright: ignore[reportMissingImports]
    from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]

    host, _, port = address.rpartition(":")
    try:
        if host and "/" not in host and port.isdecimal():
            socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, OverflowError, RuntimeError, ValueError, RayError) as error:
        raise UserError(
            f"no cluster of Ray can be used at {address!r} ({str(error).strip().splitlines()[0]}); give the address of "
            f"its head, such as 10.0.0.1:6379, or {LOCAL}; one that asks for a token needs RAY_AUTH_MODE=token here"
        ) from None


@dataclass(frozen=True)
class RayTasks:
    """The tasks that the cluster runs at once, each with ``threads`` threads, and a GPU where the cluster has any."""

    threads: int

    @property
    def count(self) -> int:
        """Return how many tasks the cluster can run at once, at least 1."""
        import ray  # pyright: ignore[reportMissingImports]

        gpus = int(ray.cluster_resources().get("GPU", 0))
        return max(1, gpus or sum(processors // self._processors for processors in self._nodes()))

    def run(self, work: Callable[[], Result], count: int, look: Callable[[], None] | None = None) -> Result:
        """Run ``work`` in ``count`` tasks and return the first result; the working folder of each is this one.

        ``look`` is called about once a second. An error of one task cancels all, and is raised as it was raised there;
        a task whose process dies is started again. Raises `UserError` where all have died too often.
        """
        import ray  # pyright: ignore[reportMissingImports]
        from ray.exceptions import RayError, RayTaskError  # pyright: ignore[reportMissingImports]

        gpus = int("GPU" in ray.cluster_resources())
        task = ray.remote(_run_task).options(
            num_cpus=1 if gpus else self._processors,
            num_gpus=gpus,
            max_retries=_RESTARTS,
            scheduling_strategy="SPREAD",
        )
        running = [task.remote(work, self.threads, Path.cwd()) for _ in range(count)]
        loss: RayError | None = None
        try:
            while running:
                ended, running = ray.wait(running, timeout=_LOOK_SECONDS)
                if look is not None:
                    look()
                for one in ended:
                    try:
                        result = ray.get(one)
                    except RayTaskError as error:
                        raise error.cause from error
                    except RayError as error:
                        loss = error
                    else:
                        if running:
                            _, running = ray.wait(running, num_returns=len(running), timeout=_LAST_SECONDS)
                        return result
        finally:
            for one in running:
                ray.cancel(one, force=True)
        raise UserError(
            f"each of {count} tasks has died {_RESTARTS + 1} times, at last so: {str(loss).strip().splitlines()[0]}; "
            f"what is finished is kept. Fewer tasks need less memory"
        )

    @property
    def _processors(self) -> int:
        """Return the processors that a task asks for: one a thread, and no more than any machine has."""
        return min(self.threads, max(self._nodes(), default=0) or self.threads)

    def _nodes(self) -> list[int]:
        """Return the number of processors of each machine."""
        import ray  # pyright: ignore[reportMissingImports]

        return [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]


def _run_task(work: Callable[[], Result], threads: int, folder: Path) -> Result:
    """Run ``work`` in a task. Ray gives a process one thread unless it is told otherwise, which would change bits."""
    torch.set_num_threads(threads)
    if not folder.is_dir():
        raise UserError(f"{folder} is not there on {platform.node()}; machines of a cluster must share it")
    os.chdir(folder)
    return work()
