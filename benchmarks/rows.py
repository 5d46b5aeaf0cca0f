"""Rows of a table of results on SemEval-2010 Task 8: trained, scored and kept one by one, then compared in pairs.

A row is a name and an experiment. Every system is scored on the official test sentences, by its generator alone
("alone"), with the decision fitted on its development data ("decided") and by the plain vote of its neighbours ("kNN
vote"). Finished rows stay in a folder and are not run again, so a killed benchmark goes on, and two processes may share
the work by seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from statistics import mean
from typing import Any, cast

from rich.console import Console
from rich.table import Table

from retrograd.evaluation.evaluate import answering_batches, neighbour_scores, vote
from retrograd.evaluation.evidence import difference, format_spread
from retrograd.experiments.data.source import Data, relation_extraction
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.run import train_experiment
from retrograd.metrics.resampling import semeval_resampler
from retrograd.rag.answers.decision import ChoiceScores, Decision
from retrograd.types import UserError
from retrograd.util.fingerprints import fingerprint
from retrograd.util.text_files import read_json, write_json

Result = dict[str, Any]
"""What `measure` writes."""

Found = Callable[[Experiment, Data, Path], Result]
"""Answers on the test by name, and what else is to be kept; the folder is for the run."""


def measure(row: str, experiment: Experiment, folder: Path, find: Found) -> None:
    """Find and score one row, unless its file is there. Raises `UserError` where that is of other settings."""
    seed = experiment.seed
    file = folder / f"{row.replace(' ', '-')}-seed{seed}.json"
    settings = fingerprint([experiment.to_json()])
    if file.exists():
        if cast("Result", read_json(file))["experiment"] != settings:
            raise UserError(f"{file} is of other settings; remove it, or choose another --out")
        return
    data = experiment.data.load(seed)
    place = folder / file.stem
    rmtree(place, ignore_errors=True)  # of a killed attempt
    found = find(experiment, data, place)
    rmtree(place, ignore_errors=True)
    answers = found.pop("answers")
    task = relation_extraction(data.task, "this benchmark")
    scores = {how: task.score(data.test, given)["macro_f1"] for how, given in answers.items()}
    relations = {
        how: [task.read_answer(answer, example).label for answer, example in zip(given, data.test, strict=True)]
        for how, given in answers.items()
    }
    gold = [task.relation_of(example.target, example) for example in data.test]
    record = {"row": row, "seed": seed, "experiment": settings, "scores": scores, **found, "gold": gold}
    write_json(file, record | {"answers": relations})
    print(f"{row}, seed {seed}: {scores}, {found['seconds']:.0f} s", flush=True)


def begun(name: str, experiment: Experiment, folder: Path) -> Path:
    """The folder of a model that rows begin with, which is trained where it is missing."""
    place = folder / f"{name}-seed{experiment.seed}-{fingerprint([experiment.to_json()])[:12]}"
    if not (place / "model").is_dir():
        rmtree(place, ignore_errors=True)  # of a killed attempt
        train_experiment(experiment, experiment.data.load(experiment.seed), place)
    return place / "model"


def trained(experiment: Experiment, data: Data, place: Path) -> Result:
    """Answers of a trained model: by the generator alone, as decided, and by the vote of all instances."""
    run = train_experiment(experiment, data, place)
    model, k = run.model, experiment.test_passages
    decision = model.answering.decision
    scored = [one for part in answering_batches(data.test, k) for one in model.choice_scores(part, k) or []]
    found = {"answers": decided(scored, decision), "seconds": run.seconds, "decision": vars(decision)}
    if k > 0:
        found["answers"]["vote"] = vote(model, data.test)
        found["neighbours"] = neighbour_scores(model, data.test)
    return found


def decided(scored: Sequence[ChoiceScores], decision: Decision) -> dict[str, list[str]]:
    """Answers without and with a decision."""
    return {
        "plain": [one.choices[Decision().choose(one)] for one in scored],
        "decided": [one.choices[decision.choose(one)] for one in scored],
    }


# ---- the table ------------------------------------------------------------------------------------------------------


def print_table(title: str, order: Sequence[str], folder: Path, compared: Sequence[str]) -> None:
    """Rows in ``order``: means, standard deviations over seeds, and by how much the best of ``compared`` is better.

    The best is chosen by its score here: a choice on the test, which favours it a little.
    """
    results: dict[str, list[Result]] = {row: [] for row in order}
    for file in sorted(folder.glob("*.json")):
        found = cast("Result", read_json(file))
        results[found["row"]].append(found)
    table = Table(title=title, title_justify="left")
    table.add_column("row")
    for heading in ("alone", "decided", "kNN vote", "match @1", "λ", "seconds", "seeds"):
        table.add_column(heading, justify="right")
    for row, found in results.items():
        if found:
            weights = [f"{one['decision']['vote_weight']:g}" for one in found if "decision" in one]
            matches = [one["neighbours"]["precision@1"] for one in found if "neighbours" in one]
            table.add_row(
                row,
                *(
                    format_spread([one["scores"][how] for one in found if how in one["scores"]])
                    for how in ("plain", "decided", "vote")
                ),
                format_spread(matches),
                " ".join(weights),
                f"{mean(one['seconds'] for one in found):.0f}",
                " ".join(str(one["seed"]) for one in found),
            )
    console = Console(width=150)
    console.print(table)
    done = {row: found for row, found in results.items() if found}
    candidates = [row for row in compared if row in done]
    if candidates:
        best = max(candidates, key=lambda row: mean(one["scores"]["decided"] for one in done[row]))
        print_differences(best, done, console)


def print_differences(best: str, done: Mapping[str, list[Result]], console: Console) -> None:
    """One line for each other row and way of answering."""
    console.print(f"{best}, decided, against others: mean over common seeds, 95 % paired bootstrap over sentences,")
    console.print("p of a paired permutation test, uncorrected for the number of comparisons")
    for row, found in done.items():
        for how in ("plain", "decided", "vote"):
            compared = (row, how) != (best, "decided") and (how != "vote" or row == best)
            if compared and how in found[0]["scores"]:
                console.print(f"  {row}, {how}: {described(row, found, how, done[best])}", highlight=False)


def described(row: str, baseline: list[Result], how: str, system: list[Result]) -> str:
    """The difference of the mean score over the seeds that both have."""
    other = {one["seed"]: one for one in system}
    pairs = [(one, other[one["seed"]]) for one in baseline if one["seed"] in other]
    if not pairs:
        return "no common seed"
    gold = pairs[0][0]["gold"]
    parts = [semeval_resampler([*gold, *gold], [*a["answers"][how], *b["answers"]["decided"]]) for a, b in pairs]
    found = difference(row, parts, len(gold))
    return (
        f"{found.mean:+.1f} [{found.interval.low:+.1f}, {found.interval.high:+.1f}], p = {found.test.p_value:.3f}, "
        f"{len(pairs)} seeds"
    )
