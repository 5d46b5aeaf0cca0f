"""The table of a study on the terminal: names are printed as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from retrograd.evaluation.evidence import Evidence, difference
from retrograd.experiments.experiment import Experiment
from retrograd.report.evidence import format_evidence
from retrograd.studies.study import Study
from retrograd.studies.verdict import Verdict

NAME = "[bold]mine[/bold] [/] \\\\[red]"


def test_markup_in_the_name_of_an_experiment_is_printed() -> None:
    systems = {"experiment": replace(Experiment(), name=NAME), "closed book": Experiment()}
    scores = {"experiment": [20.0], "closed book": [9.0]}
    differences = [difference("closed book", [lambda rows: float(rows[0])], 4)]
    evidence = Evidence("joint training", "macro_f1", scores, differences, {"closed book": "the closed book"})
    by_metric = {name: {"macro_f1": values} for name, values in scores.items()}
    text = format_evidence(Verdict(Study(Path("study"), systems, (0,), {}), evidence, by_metric))
    assert text.count(NAME) == 2  # in the title and in the line of the experiment
    assert "One seed says nothing" in text
