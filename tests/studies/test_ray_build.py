"""`retrograd index build --ray`: the index that one worker builds, and each mistake as one sentence."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.commands.test_index import command, experiment
from tests.index.disk.test_build import tree
from tests.requirements import skip_without_ray
from typer.testing import CliRunner

from retrograd.__main__ import app
from retrograd.studies import index, ray_build
from retrograd.studies.ray_build import build_over_ray
from retrograd.studies.ray_tasks import LOCAL, connect_to_ray
from retrograd.types import UserError

__all__ = ["experiment"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One cluster for all builds, which use a connection that there is; `test_ray_tasks.py` starts and ends others."""
    skip_without_ray()
    with connect_to_ray(LOCAL, 3, 1):
        yield


def build_alone(experiment: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The bytes that one worker writes, in shards of two rows."""
    made = index.index_spec
    with monkeypatch.context() as patched:
        patched.setattr(index, "index_spec", lambda *given: replace(made(*given), shard_rows=2))
        index.build_for(str(experiment), root, "fp32")
    return tree(root)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("address", "why"),
    [("127.0.0.1:1", "refused"), ("10.0.0.1", "")],
)
def test_a_cluster_that_does_not_answer_is_named(address: str, why: str, experiment: Path, tmp_path: Path) -> None:
    """Before the others, for what connects to Ray twice stays with its first cluster."""
    skip_without_ray()
    with pytest.raises(UserError, match=rf"no cluster of Ray can be used at '{address}' .*({why}).*; give the address"):
        command("index", "build", experiment, "--out", tmp_path / "index", "--ray", address)


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_interrupted_and_repeated_it_builds_what_one_worker_builds(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The paths are relative, and the tasks find them."""
    whole = build_alone(experiment, tmp_path / "whole", monkeypatch)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()

    def interrupt(_root: Path, _spec: object) -> int:
        raise KeyboardInterrupt  # where the command looks how far its tasks are

    with monkeypatch.context() as patched:
        patched.setattr(ray_build, "count_remaining_rows", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build_over_ray("tiny.toml", Path("index"), workers=3, shard_rows=2)
    shown = capsys.readouterr().err
    assert "of 6 rows are kept, and the same command goes on" in shown
    assert "3 workers with 1 thread each" in shown
    built = build_over_ray("tiny.toml", Path("index"), workers=3, shard_rows=2)
    assert (built.version, built.passages) == (Path("index/v000001"), 6)
    assert tree(Path("index")) == whole
    assert len(whole) == 2 + 3


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_the_command_builds_and_says_what_a_task_refuses(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "index"
    command("index", "build", experiment, "--out", root, "--ray", "local", "--workers", "2")
    shown = capsys.readouterr()
    assert "1 worker with 1 thread" in shown.err  # for there is one shard
    assert "6 passages x 16 numbers in float32" in shown.err
    assert shown.out.startswith(f"6 passages are in {root / 'v000001'}. Next: ")
    command("index", "check", root)
    experiment.write_text(experiment.read_text(encoding="utf-8").replace("from_train", "unknown"), encoding="utf-8")
    with pytest.raises(UserError, match=r"unknown") as refused:
        command("index", "build", experiment, "--out", root, "--ray", "local")
    assert "ray" not in str(refused.value)


def test_a_worker_that_reads_something_else_is_refused_by_its_machine(experiment: Path, tmp_path: Path) -> None:
    job = ray_build._Job(str(experiment), tmp_path / "index", "fp32", 2)
    prepared = job.prepare()
    assert job.build(prepared).passages == 6
    other = replace(prepared, spec=replace(prepared.spec, encoder_fingerprint="other"))
    with pytest.raises(UserError, match=r"another encoder fingerprint on .*; all must read the same files"):
        job.build(other)


def test_mistakes_are_one_sentence(experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("index", "build", experiment, "--out", tmp_path / "index")
    with pytest.raises(UserError, match="--workers is for --ray; without Ray, start the command as often as"):
        command(*words, "--workers", "2")
    with pytest.raises(UserError, match="--workers is 0; expected at least 1"):
        command(*words, "--ray", "local", "--workers", "0")
    refused = CliRunner().invoke(app, [*map(str, words), "--ray", "local", "--dtype", "bf61"])
    assert refused.exit_code == 2
    assert "'bf61' is not one of" in refused.output
    with monkeypatch.context() as patched:
        patched.setenv("WORLD_SIZE", "2")
        with pytest.raises(UserError, match="--ray starts the workers, and so does torchrun"):
            command(*words, "--ray", "local")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"needs ray, which is not installed: pip install 'retrograd\[ray\]'"):
        command(*words, "--ray", "local")
    assert not (tmp_path / "index").exists()
