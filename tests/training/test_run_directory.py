"""What a run leaves on disk can be read whatever moment its writer was killed at."""

import os
from pathlib import Path

from retrograd.training.run_directory import RunDirectory


def test_a_model_that_was_being_replaced_is_found_where_it_stood_aside(tmp_path: Path) -> None:
    """`retrograd.io.atomic_directory` was killed between its two renames."""
    run = RunDirectory.create(tmp_path / "run", "", "no")
    aside = run.path / ".model.old" / "model"
    aside.mkdir(parents=True)
    assert run.model == aside
    (run.path / "model").mkdir()
    assert run.model == run.path / "model"


def test_the_newest_checkpoint_is_the_last_written_whatever_the_clock_says(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", "", "no")
    for stage, step in (("warm start", 9), ("training", 2), ("training", 4)):
        with run.new_checkpoint(stage, step, keep=2) as folder:
            (folder / "progress.json").write_text("{}", encoding="utf-8")
        os.utime(run.checkpoints()[0], (0, 0))  # as a clock set back leaves it
    assert [path.name for path in run.checkpoints()] == ["0003-training-step-0000004", "0002-training-step-0000002"]
