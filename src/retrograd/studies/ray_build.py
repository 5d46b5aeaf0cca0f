"""Build an index by tasks of Ray. Each is a worker of the build that processes share anyway, and schedules nothing."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from retrograd.index.disk.build import SHARD_ROWS, IndexSpec, count_remaining_rows
from retrograd.index.disk.plan import BuildPlan
from retrograd.index.settings import Storage
from retrograd.models.compute.compute import Compute
from retrograd.models.settings import ComputePrecision
from retrograd.rag.index_folder import plan_build
from retrograd.studies.index import BuiltIndex, open_source, require_place, tell_what_is_kept
from retrograd.studies.ray_tasks import LOCAL, RayTasks, connect_to_ray
from retrograd.training.distributed.ranks import is_only_process
from retrograd.types import UserError
from retrograd.util.progress import bar, say

__all__ = ["build_over_ray"]


def build_over_ray(
    source: str,
    root: Path,
    dtype: Storage = "fp32",
    address: str = LOCAL,
    workers: int | None = None,
    shard_rows: int = SHARD_ROWS,
) -> BuiltIndex:
    """Build, or go on building, the index of a run's or an experiment's base in ``root``, by ``workers`` tasks of Ray.

    ``address`` is that of a cluster whose machines see ``source`` and ``root`` by the same paths, or "local" for a
    cluster of this machine, which ends with the build. By default there are as many tasks as GPUs; without a GPU, as
    many as find processors for the threads that torch has here. More tasks than shards of ``shard_rows`` rows are not
    started. The bytes are those of one worker with the same processor, threads and ``shard_rows``.

    Raises `UserError` as the build of one process does, and for an error in a task, which cancels the others.
    """
    require_place(root)
    if not is_only_process():
        raise UserError("--ray starts the workers, and so does torchrun; use one of them")
    if workers is not None and workers < 1:
        raise UserError(f"--workers is {workers}; expected at least 1")
    job = _Job(source, root, dtype, shard_rows)
    with connect_to_ray(address, workers, torch.get_num_threads()) as tasks:
        prepared = tasks.run(job.prepare, 1)
        prepared.plan.require_fit()
        say(str(prepared.plan))
        return _build(tasks, job, prepared, tasks.count if workers is None else workers)


def _build(tasks: RayTasks, job: _Job, prepared: _Prepared, workers: int) -> BuiltIndex:
    """Start the workers, show how many rows they have finished, and return what the first one to end returns."""
    spec = prepared.spec
    count = min(workers, len(spec.ranges()))
    say(f"{_count(count, 'worker')} with {_count(tasks.threads, 'thread')} each; that is the time of one")
    with bar("building the index", spec.rows, "passages") as advance, tell_what_is_kept(job.root, spec):
        return tasks.run(partial(job.build, prepared), count, _report_rows(job.root, spec, advance))


def _report_rows(root: Path, spec: IndexSpec, advance: Callable[[int], None]) -> Callable[[], None]:
    """Return a function that reports the rows of the shards that have been finished since it was called last."""
    reported = 0

    def look() -> None:
        nonlocal reported
        finished = spec.rows - count_remaining_rows(root, spec)
        if finished > reported:
            advance(finished - reported)
            reported = finished

    return look


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@dataclass(frozen=True)
class _Prepared:
    """A build as the first task found it: the spec and the precision that all workers share, and what it will need."""

    spec: IndexSpec
    precision: ComputePrecision
    plan: BuildPlan


@dataclass(frozen=True)
class _Job:
    """A build, as it is sent to tasks."""

    source: str
    root: Path
    dtype: Storage
    shard_rows: int

    def prepare(self) -> _Prepared:
        """Return what the build will be and need, measured on a machine that works on it."""
        builder = open_source(self.source)
        with builder.compute.autocast():
            spec = replace(builder.index_spec(self.dtype), shard_rows=self.shard_rows)
            plan = plan_build(builder.retriever, builder.task, builder.base, self.root, spec)
        return _Prepared(spec, builder.compute.precision, plan)

    def build(self, prepared: _Prepared) -> BuiltIndex:
        """Be one worker. Raises `UserError` where this machine has another base or encoder than the first task's."""
        builder = open_source(self.source)
        builder = replace(builder, compute=Compute(builder.compute.device, prepared.precision))
        with builder.compute.autocast():
            difference = prepared.spec.difference(builder.index_spec(self.dtype).manifest())
            if difference is not None:
                raise UserError(
                    f"{self.source} has another {difference.replace('_', ' ')} on {platform.node()} than on the "
                    f"machine of the first task; all must read the same files, with the same versions of libraries"
                )
            return builder.build(self.root, prepared.spec)
