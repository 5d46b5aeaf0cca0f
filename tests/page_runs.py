"""Folders of runs as training leaves them, written by hand, for tests of pages: no model, any text in the data.

Of four training and four test examples the first two are answered right. ``text`` stands in every question, passage,
title, label and answer, and in the notes of training.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from retrograd.experiments.experiment import Experiment
from retrograd.training.run.run_directory import RunDirectory

__all__ = ["EVIL", "KINDS", "write_log", "write_run"]

KINDS = ("relations", "questions", "dialogue")

EVIL = (
    "</script><script>alert(1)</script> <!-- <script> \"><img src=x onerror=alert(2)> ' &amp; & \u2028 "
    "{{ 7 * 7 }} " + "W" * 300
)
"""Text that would run, end an element, begin a comment or overflow if a page did not take care."""

_COUNT = 4


def write_run(
    folder: Path,
    kind: str,
    text: str = "plain",
    finished: bool = True,
    right: int = 2,
    seed: int = 0,
    change: Callable[[Experiment], Experiment] = lambda experiment: experiment,
) -> Path:
    """Write a run of a kind with its data beside it, answered ``right`` times; or one that is still training.

    ``change`` makes its experiment of the default one.
    """
    folder.mkdir(parents=True)
    experiment = change(Experiment(seed=seed).with_settings([f"data.kind={kind}", *_data(folder, kind, text)]))
    data = experiment.data.load(0)
    run = RunDirectory.create(folder, experiment.from_root().to_toml(), "fp32")
    data.base.save(run.base)
    run.labels.write_text(json.dumps(experiment.data.task_record(data.task)))
    write_log(folder, text)
    examples = [{"id": one.id, "query": one.query, "gold": [*one.targets]} for one in data.test]
    rows = [[place, (place + 1) % _COUNT] for place in range(_COUNT)]
    for name, probability in (("before", 0.3), ("after", 0.8)) if finished else (("before", 0.3),):
        kept = [
            {**one, "rows": own, "passage_ids": [], "prior": [probability, 0.1], "supports": [name == "after", False]}
            for one, own in zip(examples, rows, strict=True)
        ]
        _write_lines(folder / f"neighbours-{name}.jsonl", kept)
    if finished:
        (folder / "model").mkdir()
        answers = [one.target if place < right else "nothing at all" for place, one in enumerate(data.test)]
        predictions = [
            {**one, "answer": answer, "log_probability": -0.5, "rows": own}
            for one, answer, own in zip(examples, answers, rows, strict=True)
        ]
        _write_lines(folder / "predictions.jsonl", predictions)
        scores = data.task.score(data.test, answers)
        (folder / "scores.json").write_text(json.dumps({"answers": scores, "neighbours": {"recall@1": 75.0}}))
    return folder


def write_log(folder: Path, text: str = "plain", steps: int = 6) -> None:
    """Write ``metrics.jsonl`` of a stage that has ended and of one that is training, with an alarm."""
    lines: list[Mapping[str, object]] = []
    for number in range(1, steps + 1):
        for stage in ("warm start", "training"):
            counts = {"queries_seen": 4 * number, "tokens_seen": 10 * number, "time": 2.0 * number}
            values = {"loss": 1.0 / number, "generator_forwards": 2.0, "staleness_overlap": 0.9, **counts}
            lines.append({"stage": stage, "step": number, **values})
    lines.sort(key=lambda line: line["stage"] == "training")
    alarm = {"stage": "training", "step": 3, "alarm": "prior flat", "says": f"it is flat {text}", "remedy": "lower it"}
    _write_lines(folder / "metrics.jsonl", [*lines, alarm])


def _data(folder: Path, kind: str, text: str) -> list[str]:
    data = folder.with_name(f"{folder.name}-data")
    data.mkdir()
    names = {part: data / f"{part}.jsonl" for part in ("train", "test", "base")}
    if kind == "relations":
        for part in ("train", "test"):
            _write_lines(names[part], [_sentence(part, place, text) for place in range(_COUNT)])
        return [f"data.train={names['train']}", f"data.test={names['test']}", "data.labels=from_train"]
    base = [
        {"id": f"p{place} {text}", "title": f"title {text}", "text": f"passage {place} holds thing{place} {text}"}
        for place in range(_COUNT)
    ]
    _write_lines(names["base"], base)
    asked = "question" if kind == "questions" else "history"
    for part in ("train", "test"):
        records = [
            {"id": f"{part}{place}", asked: _query(kind, place, text), "answers": [f"thing{place} {text}"]}
            for place in range(_COUNT)
        ]
        _write_lines(names[part], records)
    return [f"data.{part}={path}" for part, path in names.items()]


def _query(kind: str, place: int, text: str) -> str | list[str]:
    question = f"what is in passage {place} {text} ?"
    return question if kind == "questions" else [f"hello {text}", "yes ?", question]


def _sentence(part: str, place: int, text: str) -> Mapping[str, object]:
    head, tail = f"head{place}", f"tail{place}"
    sentence = f"{head} of the {part} has {tail} {text}"
    start = sentence.index(tail)
    return {
        "id": f"{part}{place}",
        "text": sentence,
        "head": [0, len(head)],
        "tail": [start, start + len(tail)],
        "relation": f"relation{place % 2} {text}",
    }


def _write_lines(path: Path, records: list[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
