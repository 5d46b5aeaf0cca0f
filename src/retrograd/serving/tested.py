"""Browse the test examples of a run: what ``predictions.jsonl`` has, judged one by one, the wrong ones first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retrograd.serving.requests import ExamplesRequest
from retrograd.serving.task_words import typed_query
from retrograd.tasks.judging import judge_answers
from retrograd.tasks.task import Task
from retrograd.types import Example, UserError
from retrograd.util.guards import JsonObject, JsonValue, finite_number
from retrograd.util.text_files import read_jsonl

__all__ = ["TestedExample", "read_tested", "select_examples"]


@dataclass(frozen=True)
class TestedExample:
    """One test example with the answer that the run's evaluation gave; ``correctness`` is in [0, 1], None where it
    cannot be judged.
    """

    id: str
    query: str
    gold: tuple[str, ...]
    answer: str
    confidence: float | None
    correctness: float | None

    def record(self) -> JsonObject:
        """Return it as JSON."""
        return {
            "id": self.id,
            "query": self.query,
            "gold": [*self.gold],
            "answer": self.answer,
            "confidence": self.confidence,
            "correctness": self.correctness,
        }


def read_tested(folder: Path, task: Task) -> tuple[TestedExample, ...]:
    """Return the test examples of a run, least right first, then surest first; none where it had no test.

    Runs of older versions have no queries there, and are not browsed.
    """
    path = folder / "predictions.jsonl"
    if not path.exists():
        return ()
    found = [example for _, record in read_jsonl(path) if (example := _read(record, task)) is not None]
    return tuple(sorted(found, key=lambda one: (_or_less(one.correctness), -(one.confidence or 0.0))))


def _or_less(correctness: float | None) -> float:
    return 2.0 if correctness is None else correctness


def _read(record: JsonObject, task: Task) -> TestedExample | None:
    id_, query, answer, gold = (record.get(name) for name in ("id", "query", "answer", "gold"))
    if not isinstance(query, str) or not isinstance(answer, str) or not isinstance(gold, list):
        return None
    targets = tuple(text for text in gold if isinstance(text, str))
    confidence = finite_number(record.get("confidence"))
    is_unseen = record.get("has_unseen_label") is True
    correctness = 0.0 if is_unseen else _judge(task, Example(str(id_), query, targets), answer)
    return TestedExample(str(id_), typed_query(task, query), targets, answer, confidence, correctness)


def _judge(task: Task, example: Example, answer: str) -> float | None:
    if not example.targets:
        return None
    try:
        return judge_answers(task, [example], [answer]).correctness[0]
    except UserError:
        return None


def select_examples(examples: Sequence[TestedExample], request: ExamplesRequest) -> JsonObject:
    """Return one page of the examples that are asked for, and how many there are."""
    words = request.contains.casefold()
    chosen = [one for one in examples if _is_asked_for(one, request) and (not words or words in _text(one).casefold())]
    page: list[JsonValue] = [one.record() for one in chosen[request.offset : request.offset + request.limit]]
    return {"examples": page, "found": len(chosen), "all": len(examples)}


def _is_asked_for(one: TestedExample, request: ExamplesRequest) -> bool:
    if request.only == "all":
        return True
    if one.correctness is None:
        return False
    return (one.correctness >= 1.0) == (request.only == "right")


def _text(one: TestedExample) -> str:
    return " ".join([one.query, one.answer, *one.gold])
