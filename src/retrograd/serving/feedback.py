"""Keep verdicts on answers in ``feedback.jsonl`` of a run: whole lines, and nothing but what was typed and answered."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retrograd.data.feedback import Verdict, verdict_record
from retrograd.serving.requests import Query
from retrograd.serving.served_run import ServedRun
from retrograd.serving.task_words import find_label
from retrograd.types import UserError
from retrograd.util.files import lock_folder

__all__ = ["FEEDBACK_FILE", "FeedbackRequest", "append_verdict", "make_verdict"]

FEEDBACK_FILE = "feedback.jsonl"
_MOST_MARKED = 100
_LOCK_SECONDS = 5.0


@dataclass(frozen=True)
class FeedbackRequest:
    """The body of ``/api/feedback``, but for its query: a verdict on an ``answer``, and marks on its passages by id.

    With a ``correction`` the verdict is "corrected".
    """

    answer: str
    verdict: Literal["right", "wrong", "corrected"]
    correction: str | None = None
    right_passages: tuple[str, ...] = ()
    wrong_passages: tuple[str, ...] = ()
    run: str = ""

    def __post_init__(self) -> None:
        if (self.correction is not None) != (self.verdict == "corrected"):
            raise UserError(
                f'correction is {self.correction!r}; it belongs to the verdict "corrected", and to no other'
            )
        if len(self.right_passages) + len(self.wrong_passages) > _MOST_MARKED:
            raise UserError(f"right_passages and wrong_passages mark more than {_MOST_MARKED} passages; mark fewer")


def make_verdict(run: ServedRun, query: Query, request: FeedbackRequest) -> Verdict:
    """Return what is kept. Raises `UserError` for a query that is none, and for words that name no label."""
    example, task = run.read_query(query), run.opened.task
    label = task.label_record(request.answer, example).get("relation")
    answer = label if isinstance(label, str) else request.answer
    target = None
    if request.verdict == "right":
        answer = target = find_label(task, request.answer, example)
    elif request.correction is not None:
        target = find_label(task, request.correction.strip(), example)
    return Verdict(
        answer,
        request.verdict,
        query.text.strip(),
        query.turns,
        target,
        request.right_passages,
        request.wrong_passages,
    )


def append_verdict(folder: Path, verdict: Verdict) -> Path:
    """Append one line to the file of a run, also where other processes do, and return the file.

    A line that a killed process has not finished is ended first, so that it spoils no other. Raises `UserError` where
    another process keeps the file locked.
    """
    path = folder / FEEDBACK_FILE
    line = json.dumps(verdict_record(verdict), ensure_ascii=False, allow_nan=False).encode() + b"\n"
    with lock_folder(folder, folder / f".{FEEDBACK_FILE}.lock", wait_seconds=_LOCK_SECONDS), path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            line = line if file.read(1) == b"\n" else b"\n" + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    return path
