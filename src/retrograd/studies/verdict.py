"""The verdict of a study: scores, paired differences and one sentence, from the answers of its runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from retrograd.evaluation.evidence import Evidence, difference
from retrograd.experiments.card import record_controls
from retrograd.experiments.controls import CLOSED_BOOK, FROZEN, ORACLE, RANDOM
from retrograd.experiments.open import read_run_task
from retrograd.experiments.stage_description import trains_retriever
from retrograd.metrics.significance import Statistic
from retrograd.rag.search.oracle import ORACLE_SHARE
from retrograd.studies.answers import saved_scores
from retrograd.studies.compare import RunAnswers, build_statistic, read_run_answers
from retrograd.studies.curves import score_of
from retrograd.studies.study import EXPERIMENT, Study
from retrograd.training.run.run_directory import RunDirectory
from retrograd.types import UserError
from retrograd.util.guards import JsonObject
from retrograd.util.text_files import write_json

__all__ = ["SECONDARY_METRICS", "ScoresBySystem", "Verdict", "judge_study", "weigh_study"]

_RIVALS = {CLOSED_BOOK: "the closed book", RANDOM: "random neighbours", FROZEN: "the frozen retriever"}
SECONDARY_METRICS = ("exact_match", "f1", "knowledge_f1", "precision@1", "gold_recall@5", "answer_recall@5")
"""Scores that are shown beside the primary one where a run has them."""

ScoresBySystem = dict[str, dict[str, list[float]]]
"""By system and metric, in percent, one a seed."""


@dataclass(frozen=True)
class Verdict:
    """A study whose runs have all ended, its evidence, and the scores of every system."""

    study: Study
    evidence: Evidence
    scores: ScoresBySystem

    @property
    def strongest_rival(self) -> str:
        """The control that the sentence compares with."""
        return self.evidence.main.control

    @property
    def notes(self) -> list[str]:
        """Return how the numbers are to be read: what the table and the page of the study say below them."""
        rivals = ", ".join(name for name in self.evidence.rivals if name in self.scores)
        notes = [
            "± is the standard deviation over seeds; of a difference, that of its pairs. Interval (95 %, paired "
            "bootstrap) and p (paired permutation test) are of the mean over seeds and about other test examples, not "
            "other seeds; they are not corrected for the number of comparisons.",
            f"The sentence compares with the strongest of {rivals} by mean score.",
        ]
        if len(self.study.seeds) == 1:
            notes.append("One seed says nothing about what another would have given; train with --seeds 0,1,2.")
        if share := self.scores.get(ORACLE, {}).get(ORACLE_SHARE):
            notes.append(
                f"The oracle is told the answer, in training and at test time: a reference, no rival. Nothing supports "
                f"the target of {100.0 - fmean(share):.1f} % of the test examples, which read the nearest passages."
            )
        return [*notes, *(f"Left out: {name}, {why}." for name, why in self.study.left_out.items())]

    def record(self) -> JsonObject:
        """Return the evidence as JSON."""
        return {
            "sentence": self.evidence.sentence,
            "metric": self.evidence.metric,
            "seeds": list(self.study.seeds),
            "strongest_rival": self.strongest_rival,
            "differences": [asdict(difference) for difference in self.evidence.differences],
            "scores": {name: {score: [*values] for score, values in own.items()} for name, own in self.scores.items()},
        }

    def save(self) -> None:
        """Write ``evidence.json`` into the folder of the study."""
        write_json(self.study.path / "evidence.json", self.record())


def weigh_study(path: Path) -> Verdict:
    """Compare the runs of a study, all of which have ended; nothing is written.

    Trains and opens no model. Raises `UserError` where runs are missing or not the study's own, and where data have
    changed since.
    """
    study = Study.open(path)
    study.require_ended()
    return Verdict(study, *_weigh_evidence(study))


def judge_study(path: Path) -> Verdict:
    """Compare the runs of a study as `weigh_study` does, and write ``evidence.json`` into its folder.

    The runs of the experiment get the scores of their controls, which the cards of their models show.
    """
    verdict = weigh_study(path)
    verdict.save()
    _record_controls(verdict)
    return verdict


def _record_controls(verdict: Verdict) -> None:
    """Write the scores of the controls beside each run of the experiment, of the same seed."""
    runs = verdict.study.runs
    for run in runs:
        if run.system == EXPERIMENT:
            of_seed = [one for one in runs if one.experiment.seed == run.experiment.seed and one.system != EXPERIMENT]
            scores = {one.system: saved_scores(one.path) for one in of_seed}
            record_controls(RunDirectory.open(run.path), verdict.evidence.sentence, scores)


def _weigh_evidence(study: Study) -> tuple[Evidence, ScoresBySystem]:
    """Return the evidence of a study and the scores of its systems."""
    controls = [name for name in study.systems if name != EXPERIMENT]
    statistics: dict[str, list[Statistic]] = {name: [] for name in controls}
    items: list[tuple[str, str, tuple[str, ...]]] = []
    metric = ""
    for seed in study.seeds:
        runs = _read_runs(study, seed)
        reference = runs[EXPERIMENT]
        metric = reference.data.task.primary_metric
        seed_items = [(example.id, example.query, example.targets) for example in reference.examples.values()]
        if items and items != seed_items:
            raise UserError(
                f"{reference.path} and runs of other seeds answered other test examples; begin another study"
            )
        items = seed_items
        for name in controls:
            answers = [list(run.answers.values()) for run in (runs[name], reference)]
            statistics[name].append(build_statistic(reference.data.task, list(reference.examples.values()), *answers))
    scores = {name: _scores(study, name, metric) for name in study.systems}
    subject = "joint training" if trains_retriever(study.systems[EXPERIMENT]) else "retrieval"
    differences = [difference(name, statistics[name], len(items)) for name in controls]
    primary = {name: by_metric[metric] for name, by_metric in scores.items()}
    return Evidence(subject, metric, primary, differences, _RIVALS), scores


def _read_runs(study: Study, seed: int) -> dict[str, RunAnswers]:
    """Return the answers of each system for one seed; the data, which all share, are read once."""
    runs = [run for run in study.runs if run.experiment.seed == seed]
    first = runs[0]
    data = first.experiment.data.load(seed, read_run_task(first.experiment, RunDirectory.open(first.path)))
    return {run.system: read_run_answers(run.path, data) for run in runs}


def _scores(study: Study, system: str, metric: str) -> dict[str, list[float]]:
    """Return the scores that the runs of a system saved, by metric with one value a seed; the primary metric first."""
    scores: dict[str, list[float]] = {}
    for run in study.runs:
        if run.system == system:
            run_scores = saved_scores(run.path)
            run_scores[metric] = score_of(run.path, metric)
            for name in dict.fromkeys((metric, *SECONDARY_METRICS, ORACLE_SHARE)):
                if name in run_scores:
                    scores.setdefault(name, []).append(run_scores[name])
    return scores
