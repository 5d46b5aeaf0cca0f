"""What the runs of a study say: from their answers to scores, differences and the sentence, as a table and as files."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

from retrograd.evaluation.evidence import Difference, Evidence, difference, metric_words, spread
from retrograd.experiments.controls import CLOSED_BOOK, FROZEN, ORACLE, RANDOM, trains_retriever
from retrograd.experiments.open import saved_task
from retrograd.metrics.significance import Statistic
from retrograd.rag.search.oracle import ORACLE_SHARE
from retrograd.studies.compare import Told, statistic_of, told_by
from retrograd.studies.curves import score_of
from retrograd.studies.study import EXPERIMENT, Study
from retrograd.training.run.run_directory import RunDirectory
from retrograd.types import UserError
from retrograd.util.files import atomic_file
from retrograd.util.text_files import read_json, write_json

__all__ = ["judged"]

_RIVALS = {CLOSED_BOOK: "the closed book", RANDOM: "random neighbours", FROZEN: "the frozen retriever"}
_BESIDE = ("exact_match", "f1", "knowledge_f1", "precision@1", "gold_recall@5", "answer_recall@5")
"""Scores that stand beside the primary one where a run has them."""

Scores = dict[str, dict[str, list[float]]]
"""By system and metric, in percent, one a seed."""


def judged(path: Path) -> tuple[str, str]:
    """Table and sentence of a study whose runs have all ended, and its strongest rival.

    Writes ``evidence.json`` and ``evidence.txt`` into it. Trains and opens no model. Raises `UserError` where runs are
    missing or not the study's own, and where data have changed since.
    """
    study = Study.open(path)
    study.require_ended()
    evidence, scores = _evidence(study)
    text = _text(study, evidence, scores)
    record = {
        "sentence": evidence.sentence,
        "metric": evidence.metric,
        "seeds": list(study.seeds),
        "strongest_rival": evidence.main.control,
        "differences": [asdict(one) for one in evidence.differences],
        "scores": scores,
    }
    write_json(path / "evidence.json", record)
    with atomic_file(path / "evidence.txt") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return text, evidence.main.control


def _evidence(study: Study) -> tuple[Evidence, Scores]:
    controls = [name for name in study.systems if name != EXPERIMENT]
    statistics: dict[str, list[Statistic]] = {name: [] for name in controls}
    items: list[tuple[str, str, tuple[str, ...]]] = []
    metric = ""
    for seed in study.seeds:
        told = _told(study, seed)
        own = told[EXPERIMENT]
        metric, found = own.data.task.primary_metric, [(e.id, e.query, e.targets) for e in own.examples.values()]
        if items and items != found:
            raise UserError(f"{own.path} and runs of other seeds answered other test examples; begin another study")
        items = found
        for name in controls:
            answers = [list(one.answers.values()) for one in (told[name], own)]
            statistics[name].append(statistic_of(own.data.task, list(own.examples.values()), *answers))
    scores = {name: _scores(study, name, metric) for name in study.systems}
    subject = "joint training" if trains_retriever(study.systems[EXPERIMENT]) else "retrieval"
    differences = [difference(name, statistics[name], len(items)) for name in controls]
    primary = {name: found[metric] for name, found in scores.items()}
    return Evidence(subject, metric, primary, differences, _RIVALS), scores


def _told(study: Study, seed: int) -> dict[str, Told]:
    """What each system answered; the data of a seed, the same for all, are read once."""
    runs = [run for run in study.runs if run.experiment.seed == seed]
    first = runs[0]
    data = first.experiment.data.load(seed, saved_task(first.experiment, RunDirectory.open(first.path)))
    return {run.system: told_by(run.path, data) for run in runs}


def _scores(study: Study, system: str, metric: str) -> dict[str, list[float]]:
    """What its runs wrote down: the primary score first."""
    found: dict[str, list[float]] = {}
    for run in study.runs:
        if run.system == system:
            record = read_json(run.path / "scores.json")
            parts = [part for part in record.values() if isinstance(part, dict)] if isinstance(record, dict) else []
            own = {name: value for part in parts for name, value in part.items() if isinstance(value, float)}
            own[metric] = score_of(run.path, metric)
            for name in dict.fromkeys((metric, *_BESIDE, ORACLE_SHARE)):
                if name in own:
                    found.setdefault(name, []).append(own[name])
    return found


def _text(study: Study, evidence: Evidence, scores: Scores) -> str:
    """The table, what its numbers mean, and the sentence."""
    file = io.StringIO()
    console = Console(file=file, width=140)
    console.print(_table(study, evidence, scores))
    rivals = ", ".join(name for name in evidence.rivals if name in scores)
    lines = [
        "± is the standard deviation over seeds; of a difference, that of its pairs. Interval (95 %, paired bootstrap) "
        "and p (paired permutation test) are of the mean over seeds and about other test examples, not other seeds; "
        "they are not corrected for the number of comparisons.",
        f"The sentence compares with the strongest of {rivals} by mean score.",
    ]
    if len(study.seeds) == 1:
        lines.append("One seed says nothing about what another would have given; train with --seeds 0,1,2.")
    if share := scores.get(ORACLE, {}).get(ORACLE_SHARE):
        lines.append(
            f"The oracle is told the answer, in training and at test time: a reference, no rival. Nothing supports "
            f"the target of {100.0 - fmean(share):.1f} % of the test examples, which read the nearest passages."
        )
    lines += [f"Left out: {name}, {why}." for name, why in study.left_out.items()]
    for line in [*lines, f"\n{evidence.sentence}"]:
        console.print(line, highlight=False, markup=False)
    return file.getvalue().rstrip()


def _table(study: Study, evidence: Evidence, scores: Scores) -> Table:
    beside = [name for name in _BESIDE if name != evidence.metric and any(name in found for found in scores.values())]
    table = Table(
        title=f"{study.systems[EXPERIMENT].name}, seeds {', '.join(map(str, study.seeds))}", title_justify="left"
    )
    table.add_column("system")
    for heading in (*map(metric_words, (evidence.metric, *beside)), "experiment less it", "95 % interval", "p"):
        table.add_column(heading.replace("[", r"\["), justify="right")
    differences = {one.control: one for one in evidence.differences}
    for name, found in scores.items():
        title = {EXPERIMENT: study.systems[EXPERIMENT].name, ORACLE: "oracle (is told)"}.get(name, name)
        values = (spread(found.get(metric, [])) for metric in (evidence.metric, *beside))
        table.add_row(title.replace("[", r"\["), *values, *_cells(differences.get(name)))
    return table


def _cells(found: Difference | None) -> tuple[str, ...]:
    if found is None:
        return ("", "", "")
    interval = f"{found.interval.low:+.1f} to {found.interval.high:+.1f}"
    return spread(found.by_seed, "+"), interval, f"{found.test.p_value:.2g}"
