"""What a finished run is for: evaluating, predicting, searching. Each function returns the text a person reads."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch

from retrograd.evaluation.evaluate import evaluate, predict, prediction_record
from retrograd.experiments.open import OpenRun, open_run
from retrograd.experiments.run import require_passages
from retrograd.rag.answers.decision import Decision
from retrograd.studies.study import is_study
from retrograd.studies.verdict import judged
from retrograd.tasks.task import Task
from retrograd.types import Example, Prediction, UserError
from retrograd.util.guards import JsonObject
from retrograd.util.text_files import read_json, write_jsonl

__all__ = ["evaluate_run", "predict_file", "scores_of", "search_run"]

_MOSTLY = 50.0


def evaluate_run(run: Path, data: Path | None, patch: Path | None, passages: int | None, out: Path | None) -> str:
    """Scores as readable lines; with ``out`` also predictions and scores as files. ``patch`` corrects ``data``.

    Of a study its table and its sentence, from what its runs answered.
    """
    if is_study(run):
        if not (data is patch is passages is out is None):
            raise UserError(
                f"{run} is a study, which is judged on what its runs answered to their test data; for --data, "
                f"--passages or --out give one of its runs, such as {run / 'experiment-seed0'}"
            )
        return judged(run)[0]
    if patch is not None and data is None:
        raise UserError(
            "--patch corrects the labels of --data, which is missing; the run's own patch applies by itself"
        )
    opened = open_run(run)
    require_passages(opened.model.base, "--passages", passages or 0)
    if data is None and not opened.experiment.data.test:
        raise UserError(f"{run} has no test data of its own; give some with --data FILE")
    examples = opened.data.test if data is None else _examples(opened, data, patch)
    for example in examples:
        if not example.targets:
            source = data or opened.experiment.data.test
            raise UserError(f"{source}, example {example.id!r}: no answer, so there is nothing to score; use predict")
    if out is not None and (out / "scores.json").exists():
        raise UserError(f"{out} holds scores already; choose another folder with --out")
    k = opened.experiment.test_passages if passages is None else passages
    found = evaluate(opened.model, examples, k, opened.experiment.evaluation.scoring)
    if out is not None:
        found.save(out)
    text = f"{len(examples)} examples, {k} passages each\n{readable(found.answers | found.neighbours)}"
    fitted = opened.experiment.test_passages
    if opened.model.answering.decision != Decision() and k != fitted:
        text += f"\nThe vote's weight and the threshold of the negative were fitted at {fitted} passages, not at {k}."
    return text


def readable(scores: Mapping[str, float]) -> str:
    """Scores in percent, one a line; and what to do where most answers are empty."""
    lines = [f"{name:<20} {value:6.2f} %" for name, value in scores.items()]
    if scores.get("empty_rate", 0.0) > _MOSTLY:
        lines.append(
            "Most answers are empty: the generator has not learned to write them. Train it longer (training.epochs), "
            "or name one that can write (generator.model)."
        )
    return "\n".join(lines)


def scores_of(run: Path) -> str:
    """What `run_experiment` scored on the run's test data, as lines; empty where there was none."""
    file = run / "scores.json"
    found = read_json(file) if file.exists() else {}
    parts = [part for part in found.values() if isinstance(part, dict)] if isinstance(found, dict) else []
    return readable({name: value for part in parts for name, value in part.items() if isinstance(value, float)})


def predict_file(run: Path, data: Path, patch: Path | None, out: Path | None) -> str:
    """Answers as JSON Lines, or where they were written. A ``patch`` that drops instances drops them here too."""
    opened = open_run(run)
    if out is not None and out.exists():
        raise UserError(f"{out} exists; choose another file with --out, or remove it first")
    examples = _examples(opened, data, patch)
    predictions = _answered(opened, examples)
    records = [
        _told(opened.task, example, prediction) for example, prediction in zip(examples, predictions, strict=True)
    ]
    if out is None:
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    write_jsonl(out, records)
    return f"{len(records)} answers in {out}\n"


def _answered(opened: OpenRun, examples: list[Example]) -> list[Prediction]:
    """As the experiment says."""
    experiment = opened.experiment
    return predict(opened.model, examples, experiment.test_passages, experiment.evaluation.scoring)


def _examples(opened: OpenRun, data: Path, patch: Path | None) -> list[Example]:
    return opened.experiment.data.read(data, patch, opened.task, opened.model.base)


def _told(task: Task, example: Example, prediction: Prediction) -> JsonObject:
    """A prediction as a record; of a relation also its label and, where the answer was not the label's own words, the
    rule by which it was read."""
    return prediction_record(prediction) | task.label_record(prediction.answer, example)


def search_run(run: Path, query: str, k: int) -> str:
    """The k best passages with p(z|x), and the answer."""
    opened = open_run(run)
    require_passages(opened.model.base, "-k", k)
    example = opened.experiment.data.parse_query(query, opened.task)
    with torch.no_grad():
        candidates = opened.model.retrieve([example], k)
    answer = _answered(opened, [example])[0]
    share = candidates.scores.log_prior[0].exp().tolist()
    rows = [row for row in candidates.rows[0].tolist() if row >= 0]
    lines = [
        f"{share[i]:6.1%}  [{passage.title}] {passage.text}"
        for i, passage in enumerate(opened.model.base.passages(rows))
    ]
    relation = _told(opened.task, example, answer).get("relation", answer.answer)
    probability = f"{math.exp(answer.log_probability):.0%}"
    label = "" if relation in (None, answer.answer) else f" ({relation})"
    return "\n".join(
        [f"answer: {answer.answer or '(empty)'}{label}, probability {probability}", "", "p(z|x)  passage", *lines]
    )
