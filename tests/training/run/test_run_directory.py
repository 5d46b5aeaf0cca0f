"""Check that a run on disk can be read whenever its writer was killed."""

import os
import resource
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from retrograd.experiments.experiment import Experiment
from retrograd.experiments.run import run_experiment
from retrograd.training.run.run_directory import RunDirectory
from retrograd.types import UserError


def test_a_model_that_was_being_replaced_is_found_where_it_stood_aside(tmp_path: Path) -> None:
    """A model is found when `retrograd.util.files.atomic_directory` was killed between its two renames."""
    run = RunDirectory.create(tmp_path / "run", "", "no")
    aside = run.path / ".model.old" / "model"
    aside.mkdir(parents=True)
    assert run.model == aside
    (run.path / "model").mkdir()
    assert run.model == run.path / "model"


def test_only_a_run_from_python_begins_where_one_was_prepared(tmp_path: Path) -> None:
    """Another run would begin with the model of the one that was killed before it began."""
    (tmp_path / "start").mkdir()
    RunDirectory.require_free(tmp_path, prepared=True)
    with pytest.raises(UserError, match="exists and is not empty"):
        RunDirectory.require_free(tmp_path)
    with pytest.raises(UserError, match="exists and is not empty"):
        run_experiment(Experiment(), tmp_path)


def test_what_a_killed_process_left_unfinished_is_removed_when_a_run_begins(tmp_path: Path) -> None:
    for left in (".experiment.toml.x1.tmp", "data/.train.jsonl.x2.tmp", ".start.x3.tmp/generator/config.json"):
        (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / left).touch()
    RunDirectory.create(tmp_path, "", "no")
    assert {path.name for path in tmp_path.rglob("*")} == {"data", "experiment.toml", "environment.json"}


def test_the_newest_checkpoint_is_the_last_written_whatever_the_clock_says(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", "", "no")
    for stage, step in (("warm start", 9), ("training", 2), ("training", 4)):
        with run.new_checkpoint(stage, step, keep=2) as folder:
            (folder / "progress.json").write_text("{}", encoding="utf-8")
        os.utime(run.checkpoints()[0], (0, 0))  # as a clock set back leaves it
    assert [path.name for path in run.checkpoints()] == ["0003-training-step-0000004", "0002-training-step-0000002"]


def test_a_full_disk_says_what_could_not_be_written_and_how_to_go_on(tmp_path: Path, tiny_encoder: Path) -> None:
    """A stream or tokenizers, which raise a bare Exception, may meet the full disk; other errors are passed on."""
    run = RunDirectory.create(tmp_path / "run", "", "no")
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))  # met as a full disk is
    try:
        with pytest.raises(UserError, match=r"a line of metrics\.jsonl could not be .*make room .*--resume .*run"):
            run.log(1, "training", {"loss": 1.0, "log_likelihood_of_the_target": -1.0})
        with pytest.raises(UserError, match=r"the model could not be written .*too large"), run.writing("the model"):
            tokenizer.backend_tokenizer.save(str(run.path / "tokenizer.json"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with pytest.raises(ValueError, match="something else"), run.writing("the model"):
        raise ValueError("something else")
