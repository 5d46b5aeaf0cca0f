"""The card of a run: the settings that differ from its recipe, and from the defaults where it has none."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.studies.test_study import questions

import retrograd as rg
from retrograd.experiments.card import record_controls
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.run import resume_run
from retrograd.recipes import RECIPES
from retrograd.studies.report_page import build_progress_page
from retrograd.training.run.run_directory import RunDirectory


def listed(run: Path) -> tuple[str, set[str]]:
    """Return what the settings on the card are compared with, and the names of those that differ."""
    text = (run / "model" / "README.md").read_text(encoding="utf-8")
    title, _, rest = text.partition("Settings that differ from ")[2].partition(":\n")
    lines = rest.partition("## Scores")[0].strip().splitlines()
    return title, {line.strip("- `").partition(" = ")[0] for line in lines if line.startswith("- `")}


def test_settings_are_compared_with_the_recipe_as_it_was(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Experiment.load(questions(tmp_path, tiny_encoder, tiny_seq2seq)).replace(name="tiny-recipe")
    monkeypatch.setitem(RECIPES, "tiny-recipe", lambda: recipe)
    changed = recipe.replace(training={"batch_size": 2}, objective={"draws": 3}, data={"seed": 4})
    run = rg.run(changed, out=tmp_path / "run").path
    own = {"training.batch_size", "objective.draws", "data.seed"}
    assert listed(run) == ("the recipe `tiny-recipe`", own)
    # Later versions may have another recipe of this name: what counts is the one that the run began from.
    monkeypatch.setitem(RECIPES, "tiny-recipe", lambda: changed)
    (run / "scores.json").unlink()
    resume_run(run)
    assert listed(run) == ("the recipe `tiny-recipe`", own)
    RunDirectory(run).recipe.write_text("[training]\nno_such_setting = 1\n", encoding="utf-8")
    record_controls(RunDirectory(run), "nothing helped", {"closed book": {"exact_match": 1.25}})
    title, names = listed(run)
    assert title == "the defaults"
    assert {"training.batch_size", "retriever.model", "data.test"} <= names
    assert names == {change.name for change in build_progress_page(run).changes}  # the page of the run has the same
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    assert "| closed book |" in card
    assert "Over all seeds: nothing helped." in card
    assert "| 1.25 |" in card
    assert str(tmp_path) not in card
