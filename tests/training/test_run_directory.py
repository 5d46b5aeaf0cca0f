"""What a run leaves on disk can be read whatever moment its writer was killed at."""

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
