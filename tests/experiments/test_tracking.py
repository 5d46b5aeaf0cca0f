"""Trackers get what a run logs, change nothing that it computes, and know it again when it goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.experiments.test_resume import crashed, differing, metrics, tiny
from tests.requirements import skip_without_tracker
from tests.training.tracking.stores import READERS

from retrograd.__main__ import app
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.run import resume_run, run_experiment
from retrograd.experiments.setting_changes import list_setting_changes
from retrograd.experiments.tracking import last_steps
from retrograd.training.run.run_directory import RunDirectory
from retrograd.training.tracking.kinds import TRACKERS
from retrograd.training.tracking.settings import TrackSettings
from retrograd.types import UserError


@pytest.fixture(scope="session")
def models(tiny_encoder: Path, tiny_seq2seq: Path, tiny_causal: Path) -> dict[str, Path]:
    return {"encoder": tiny_encoder, "seq2seq": tiny_seq2seq, "causal": tiny_causal}


def test_where_lines_go_makes_no_other_experiment(tmp_path: Path) -> None:
    plain = Experiment()
    tracked = plain.replace(track={"kinds": ["mlflow"], "address": "http://here:1"})
    assert tracked.track == TrackSettings(kinds=("mlflow",), address="http://here:1")
    assert tracked == plain
    assert list_setting_changes(tracked, plain) == []
    file = tmp_path / "experiment.toml"
    file.write_text(tracked.to_toml(), encoding="utf-8")
    assert Experiment.load(file).track == tracked.track
    inside = replace(plain, track=TrackSettings(folder="here")).from_root().track.folder
    assert Path(inside).is_absolute()


def test_a_run_goes_on_with_other_trackers_but_not_with_other_settings(models: dict[str, Path], tmp_path: Path) -> None:
    out = crashed(tiny("lora", tmp_path / "data", models), tmp_path / "run", 3)
    file = RunDirectory(out).experiment
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("clip = 1.0", "clip = 2.0"), encoding="utf-8")
    with pytest.raises(UserError, match="has changed since"):
        resume_run(out)
    file.write_text(text.replace('project = "retrograd"', 'project = "another"'), encoding="utf-8")
    assert Experiment.load(file).track.project == "another"
    assert resume_run(out).has_ended


def test_the_last_step_of_each_stage_is_known(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert last_steps(run) == {}
    for stage, step in (("warm start", 1), ("warm start", 2), ("training", 1)):
        run.log(step, stage, {"loss": 1.0})
    assert last_steps(run) == {"warm start": 2, "training": 1}


def test_the_command_takes_names_of_trackers(tmp_path: Path) -> None:
    words = ["train", "semeval-joint", "--out", str(tmp_path / "run")]
    with pytest.raises(UserError, match=r"'tensorbord', which is no tracker; did you mean 'tensorboard'"):
        app([*words, "--track", "tensorbord"], standalone_mode=False)
    with pytest.raises(UserError, match="'wandb' twice"):
        app([*words, "--track", "wandb", "--track", "wandb"], standalone_mode=False)
    with pytest.raises(UserError, match="leave out the recipe and all other options"):
        app(["train", "--resume", str(tmp_path / "run"), "--track", "wandb"], standalone_mode=False)
    assert not (tmp_path / "run").exists()


TRAINED_IN_PARTS = Path(__file__).with_name("killed_training.py")


@pytest.mark.integration
def test_a_tracked_run_that_was_killed_is_stored_whole_and_computes_the_same(
    models: dict[str, Path], tmp_path: Path
) -> None:
    for kind in TRACKERS:
        skip_without_tracker(kind.package)
    plain = tiny("lora", tmp_path / "data", models, "training.evaluate_every=2")
    whole = run_experiment(plain, tmp_path / "whole").path
    tracked = replace(plain, track=TrackSettings(kinds=tuple(kind.name for kind in TRACKERS)))
    file, out, home = tmp_path / "tracked.toml", tmp_path / "run", tmp_path / "home"
    file.write_text(tracked.to_toml(), encoding="utf-8")
    home.mkdir()
    words = [str(TRAINED_IN_PARTS), str(file), str(out), "retrograd.training.run.checkpoints:Checkpoints.after_step:4"]
    done = run_python(words, home)
    assert done.stdout.count("killed") == 1, done.stdout + done.stderr
    assert not [path for path in home.rglob("*") if path.is_file()], "files outside the run"
    odd = [name for name in differing(out, whole) if not name.startswith("tracking/")]
    assert odd == ["experiment.toml", "tracked.json"]

    loss = {line["step"]: line["loss"] for line in metrics(out) if "loss" in line}
    primary = {line["step"]: line["micro_f1"] for line in metrics(out) if "micro_f1" in line}
    scores = RunDirectory(out).all_scores()
    for kind in TRACKERS:
        found = read(kind.name, out / "tracking" / kind.name, home)
        # The first process was killed after step 4; its checkpoint is of step 2. Of what it logged before, the packages
        # that write later may have lost some.
        is_whole = kind.name in ("tensorboard", "mlflow")
        for name, expected in (("loss", loss), ("micro_f1", primary)):
            values = {int(step): value for step, value in found["values"][f"training/{name}"].items()}
            assert values.keys() >= {step for step in expected if step > 2 or is_whole}
            assert values == pytest.approx({step: expected[step] for step in values})
        assert found["settings"]["generator.lora_rank"] == "2"
        assert {name.replace("_at_", "@"): value for name, value in found["scores"].items()} == pytest.approx(scores)


def run_python(words: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, *words], env=environment, cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def read(kind: str, folder: Path, home: Path) -> dict[str, dict]:
    """Read what a tracker stored in a process of its own: trackio has one folder in a process."""
    assert kind in READERS
    code = (
        "import dataclasses, json, sys; from pathlib import Path; from tests.training.tracking.stores import READERS; "
        f"print(json.dumps(dataclasses.asdict(READERS[{kind!r}](Path({str(folder)!r}), 'retrograd'))))"
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TRACKIO_DIR", str(folder))
        return json.loads(run_python(["-c", code], home).stdout.splitlines()[-1])
