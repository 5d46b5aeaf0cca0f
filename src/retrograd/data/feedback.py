"""Verdicts on answers, as ``retrograd serve --feedback`` keeps them in ``feedback.jsonl``, and examples made of them.

One object a line, with these fields and no others:

==================  ==============================================================================================
query               what was asked: a question, or a sentence with both entities marked
turns               instead of it: those of a dialogue, each with ``role`` (user, agent) and ``text``
answer              what the model answered; for relations its label
verdict             "right", "wrong", or "corrected"
target              the right answer, for relations the label: that of a correction; null where none is known
right_passages      ids of passages that were marked as right
wrong_passages      ids of passages that were marked as not right
==================  ==============================================================================================

A verdict teaches where the right answer is known: the answer itself, or a correction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from retrograd.data.examples import DialogueExample, GroundedExample, Turn, dialogue_example
from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.readers.markers import parse_markers
from retrograd.types import UserError
from retrograd.util.guards import JsonObject, JsonValue, describe_value
from retrograd.util.progress import say
from retrograd.util.records import read_record
from retrograd.util.text_files import Refuse, raise_error, read_jsonl

__all__ = [
    "Verdict",
    "describe_verdicts",
    "parse_turns",
    "read_verdict",
    "read_verdicts",
    "teach",
    "verdict_record",
]

_ROLES = ("user", "agent")
_MOST_TURNS = 200

Made = TypeVar("Made")


@dataclass(frozen=True)
class _Fields:
    """The fields of a line that are texts and lists of texts."""

    answer: str
    verdict: Literal["right", "wrong", "corrected"]
    query: str = ""
    target: str | None = None
    right_passages: tuple[str, ...] = ()
    wrong_passages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """A verdict on an answer; the module has the meaning of its fields. Raises `UserError` where they do not fit."""

    answer: str
    verdict: Literal["right", "wrong", "corrected"]
    query: str = ""
    turns: tuple[Turn, ...] = ()
    target: str | None = None
    right_passages: tuple[str, ...] = ()
    wrong_passages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.query.strip()) == bool(self.turns):
            raise UserError("expected a query or the turns of a dialogue, and not both")
        known = self.target is not None and bool(self.target.strip())
        if self.verdict == "corrected" and not known:
            raise UserError(f"target is {self.target!r}; a verdict 'corrected' needs the right answer there")
        if self.verdict == "right" and self.target != self.answer:
            raise UserError(f"target is {self.target!r}; of a verdict 'right' it is the answer, {self.answer!r}")
        if self.verdict == "wrong" and self.target is not None:
            raise UserError(f"target is {self.target!r}; with the right answer the verdict is 'corrected', else null")
        if both := set(self.right_passages) & set(self.wrong_passages):
            raise UserError(f"passage {min(both)!r} is marked as right and as not right; keep one")

    @property
    def teaches(self) -> bool:
        """Return whether the right answer is known, and is not blank."""
        return self.target is not None and bool(self.target.strip())

    # Examples of each kind; ``id`` is theirs, and only a verdict that teaches has a target

    def question(self, id: str) -> GroundedExample:  # noqa: A002 (the record's field)
        """Return a question with its answer. Raises `UserError` for a dialogue."""
        if self.turns:
            raise UserError("turns are those of a dialogue, and these data are questions; expected a query")
        return GroundedExample(id, self.query.strip(), self._targets(), self.right_passages)

    def dialogue(self, id: str) -> DialogueExample:  # noqa: A002
        """Return a dialogue with its next turn; a query is one of one turn. Raises `UserError` for a blank one."""
        turns = self.turns or (Turn("user", self.query),)
        return dialogue_example(id, turns, self._targets(), self.right_passages)

    def relation(self, id: str) -> RelationInstance:  # noqa: A002
        """Return a sentence with both entities and their relation. Raises `UserError` where they are not marked."""
        if self.turns:
            raise UserError("turns are those of a dialogue, and these data are relations; expected a marked sentence")
        return parse_markers(self.query, id, self.target)

    def _targets(self) -> tuple[str, ...]:
        return () if self.target is None else (self.target,)


def read_verdicts(path: Path, refuse: Refuse = raise_error) -> Iterator[tuple[int, Verdict]]:
    """Yield the verdicts of a file, each with the number of its line; malformed ones go to ``refuse``.

    A last line that a killed process has not finished is malformed like any other. Raises `UserError` for a missing or
    empty file.
    """
    for number, record in read_jsonl(path, refuse):
        try:
            verdict = read_verdict(record)
        except UserError as error:
            refuse(UserError(f"{path}, line {number}: {error}"))
            continue
        yield number, verdict


def read_verdict(record: JsonObject) -> Verdict:
    """Return the verdict that a record is. Raises `UserError` that names the field."""
    plain = {name: value for name, value in record.items() if name != "turns"}
    read = read_record(_Fields, plain, "a verdict")
    turns = parse_turns(record["turns"], "turns") if "turns" in record else ()
    return Verdict(read.answer, read.verdict, read.query, turns, read.target, read.right_passages, read.wrong_passages)


def verdict_record(verdict: Verdict) -> JsonObject:
    """Return the record that `read_verdict` reads."""
    turns: list[JsonValue] = [{"role": turn.role, "text": turn.text} for turn in verdict.turns]
    asked: JsonObject = {"turns": turns} if turns else {"query": verdict.query}
    return {
        **asked,
        "answer": verdict.answer,
        "verdict": verdict.verdict,
        "target": verdict.target,
        "right_passages": [*verdict.right_passages],
        "wrong_passages": [*verdict.wrong_passages],
    }


def parse_turns(value: JsonValue, where: str) -> tuple[Turn, ...]:
    """Return turns, each an object with ``role`` (user or agent) and ``text``. Raises `UserError` with ``where``."""
    if not isinstance(value, list) or not 0 < len(value) <= _MOST_TURNS:
        raise UserError(f"{where} is {describe_value(value)}; expected a list of 1 to {_MOST_TURNS} turns")
    turns: list[Turn] = []
    for number, one in enumerate(value):
        if not isinstance(one, dict):
            raise UserError(f"{where}[{number}] is {describe_value(one)}; expected an object with role and text")
        turn = read_record(Turn, one, f"{where}[{number}]")
        if turn.role not in _ROLES:
            raise UserError(f"{where}[{number}]: role is {turn.role[:100]!r}; expected one of {', '.join(_ROLES)}")
        turns.append(turn)
    return tuple(turns)


def describe_verdicts(verdicts: list[Verdict], keeps_passages: bool) -> None:
    """Say how many verdicts teach, and what is not read of the others and of marked passages."""
    taught = sum(verdict.teaches for verdict in verdicts)
    parts = [f"data.more: {taught:,} of {len(verdicts):,} verdicts name the right answer, and are trained on"]
    unread = sum(len(one.wrong_passages) + (0 if keeps_passages else len(one.right_passages)) for one in verdicts)
    if unread:
        what = "marked as not right" if keeps_passages else "marked (the training sentences are the passages)"
        parts.append(f"{unread:,} passages {what} are not read")
    say("; ".join(parts))


def teach(
    path: Path, make: Callable[[Verdict, str], Made], refuse: Refuse = raise_error
) -> Iterator[tuple[int, Verdict, Made | None]]:
    """Yield the verdicts of a file, each with its line and, where it teaches, its example.

    ``make`` makes the example of a verdict and an id. What is malformed goes to ``refuse``, with file and line.
    """
    for number, verdict in read_verdicts(path, refuse):
        try:
            made = make(verdict, f"feedback-{number}") if verdict.teaches else None
        except UserError as error:
            refuse(UserError(f"{path}, line {number}: {error}"))
            continue
        yield number, verdict, made
