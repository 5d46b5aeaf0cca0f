"""``retrograd evaluate``: the scores of a finished run, or of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrograd.commands import AsJson, DataSettings, PassagesRead, Patch, RunFolder, format_scores, print_json
from retrograd.types import UserError

__all__ = ["evaluate"]


def evaluate(
    run: RunFolder,
    data: Annotated[Path | None, typer.Option(help="Labelled examples; default: the run's own test data.")] = None,
    patch: Patch = None,
    changes: DataSettings = None,
    passages: PassagesRead = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for predictions.jsonl, confidence.json and scores.json.")
    ] = None,
    confidence: Annotated[
        bool, typer.Option("--confidence", help="Print the reliability table and risk against coverage as well.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Score a finished run: official answer scores, scores of neighbours, citations and confidence; of a study
    (`train --controls`) its verdict.

    Example: `retrograd evaluate runs/joint --data mine.jsonl --out runs/joint/mine`
    """
    from retrograd.studies.study import is_study

    if is_study(run):
        if not (data is patch is passages is out is None) or confidence or changes:
            raise UserError(
                f"{run} is a study, which is scored by the answers of its runs to their test data; for --data, "
                f"--passages, --out or --confidence give one of its runs, such as {run / 'experiment-seed0'}"
            )
        from retrograd.report.evidence import save_evidence
        from retrograd.studies.verdict import judge_study

        verdict = judge_study(run)
        text = save_evidence(verdict)
        print_json(verdict.record()) if json else typer.echo(text)
        return
    from retrograd.studies.answers import evaluate_run
    from retrograd.tasks.relations.unseen_labels import describe_unseen

    result = evaluate_run(run, data, patch, passages, out, changes or [])
    if json:
        print_json(result.record())
        return
    typer.echo(f"{result.examples} examples, {result.passages} passages each\n{format_scores(result.scores)}")
    if unseen := describe_unseen(result.evaluation.unseen_labels, result.examples):
        typer.echo(f"{unseen}.")
    if confidence:
        from retrograd.report.confidence import format_confidence

        typer.echo("\n" + "\n".join(format_confidence(result.evaluation.confidence)))
    fitted = result.fitted_passages
    if fitted is not None and fitted != result.passages:
        typer.echo(
            f"What the run fitted on development data, its decision or its threshold, was fitted at {fitted} passages, "
            f"not at {result.passages}."
        )
