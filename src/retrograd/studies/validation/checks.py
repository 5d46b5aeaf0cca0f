"""Checks of examples and passages, one at a time, in bounded memory: 16 bytes for each text that was seen.

Texts are compared as the task sees them: `Task.identity` across parts, which is what keeps an example from retrieving
itself; the whole query within a part, so that two pairs of entities in one sentence are two examples.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from retrograd.data.examples import DialogueExample, gold_passages, has_patterns
from retrograd.data.squad import TEXT_ID
from retrograd.experiments.data.findings import Findings
from retrograd.metrics.patterns import looks_like_pattern
from retrograd.metrics.words import fold
from retrograd.tasks.task import Task
from retrograd.types import Example, Passage

__all__ = ["BaseContents", "PartContents", "check_labels", "check_leaks", "check_patterns", "check_queries"]

_FEW = 5
_TRAINED_ON = {"train", "more"}


@dataclass
class PartContents:
    """Contents of a part, as they are read: ids and keys of its examples, its labels, the gold passages it names.

    ``identities`` holds, for each text as the task takes it for equal, the id where it came first.
    """

    name: str
    source: str
    examples: int = 0
    identities: dict[bytes, str] = field(default_factory=dict)
    queries: dict[bytes, tuple[str, str]] = field(default_factory=dict)
    labels: Counter[str] = field(default_factory=Counter)
    gold: dict[str, str] = field(default_factory=dict)
    pattern: tuple[str, str] | None = None
    """Id and text of the first answer that looks like a regular expression and is read as text."""

    def place(self, id_: str) -> str:
        """Return where an example is; one without an id has the number of its line."""
        return f"{self.source}, id {id_!r}"


def check_queries(
    part: PartContents, examples: Iterable[tuple[Example, str | None]], task: Task, findings: Findings
) -> Iterator[Example]:
    """Pass examples with their labels (None where the task has none) through, and keep their contents in ``part``."""
    for example, label in examples:
        part.examples += 1
        if label is not None:
            part.labels[label] += 1
        part.identities.setdefault(_key(task.identity(example.query)), example.id)
        _check_target(part, example, findings)
        if part.pattern is None and not has_patterns(example):
            part.pattern = next(((example.id, one) for one in example.targets if looks_like_pattern(one)), None)
        _check_repeated(part, example, findings)
        _check_last_turn(part, example, findings)
        for id_ in gold_passages(example):
            part.gold.setdefault(id_, example.id)
        yield example


def check_patterns(parts: Iterable[PartContents], findings: Findings) -> None:
    """Report parts with an answer that looks like a regular expression."""
    for part in parts:
        if part.pattern is not None:
            id_, answer = part.pattern
            message = f"the answer {answer[:60]!r} looks like a regular expression, and is read as text"
            remedy = 'if answers are patterns, as those of CuratedTREC, set data.answers_are = "regex"'
            findings.warning("answers", part.name, part.place(id_), message, remedy)


def _check_target(part: PartContents, example: Example, findings: Findings) -> None:
    if any(target.strip() for target in example.targets):
        return
    place = part.place(example.id)
    if part.name in ("train", "dev", "test"):
        findings.error("empty field", part.name, place, "no target", "give one, or take it out: a run needs one")
    else:
        findings.warning("empty field", part.name, place, "no target", "give one: without it no answer can be scored")


def _check_repeated(part: PartContents, example: Example, findings: Findings) -> None:
    target = example.targets[0] if example.targets else ""
    first, other = part.queries.setdefault(_key(fold(example.query)), (example.id, target))
    if first == example.id:
        return
    place = part.place(example.id)
    if fold(other) == fold(target):
        message = f"the same as id {first!r}, target included"
        findings.warning("duplicate", part.name, place, message, "keep one: it counts twice in training and in scores")
    else:
        message = f"the same as id {first!r}, but the target is {target[:60]!r}, there {other[:60]!r}"
        remedy = "keep the right one, or put all answers into one record where several are right"
        findings.warning("contradiction", part.name, place, message, remedy)


def _check_last_turn(part: PartContents, example: Example, findings: Findings) -> None:
    """Report a dialogue in which the turn to be answered is the agent's, who is to give the next one."""
    if isinstance(example, DialogueExample) and example.history and example.history[-1].role == "agent":
        message = f"the history ends with the agent's turn, {example.history[-1].text[:40]!r}"
        remedy = "end it with the turn that is to be answered, the user's; the agent's next one is the target"
        findings.warning("last turn", part.name, part.place(example.id), message, remedy)


def check_leaks(parts: Iterable[PartContents], findings: Findings) -> None:
    """Report texts that two parts share.

    In what is tested on, an error; a warning between what is trained on and dev, and in a data set of the package,
    whose parts are as they were published.
    """
    for first, second in combinations(parts, 2):
        if {first.name, second.name} == _TRAINED_ON:
            continue
        for key in second.identities:
            if key not in first.identities:
                continue
            own_place, other_place = second.place(second.identities[key]), first.place(first.identities[key])
            message = f"the same text as {other_place}"
            remedy = f"take it out of {first.name}: what a model was trained on, it is not tested on"
            published = first.source == second.source and first.source.startswith("builtin:")
            mild = published or (first.name in _TRAINED_ON and second.name == "dev")
            report = findings.warning if mild else findings.error
            report("leak", second.name, own_place, message, remedy)


def check_labels(parts: Mapping[str, PartContents], findings: Findings) -> None:
    """Report labels of dev and test that train lacks, labels of train with few examples, and labels that look alike."""
    _check_spelling(parts.values(), findings)
    train = parts.get("train")
    if train is None or not train.labels:
        return
    for part in parts.values():
        for label in sorted(part.labels.keys() - train.labels.keys()):
            message = f"{part.labels[label]} examples have the label {label!r}, which train lacks"
            remedy = "add examples of it to train: no neighbour can bear it, and no target teaches it"
            findings.warning("label coverage", part.name, part.source, message, remedy)
    for label, count in sorted(train.labels.items()):
        if count < _FEW:
            message = f"only {count} with the label {label!r}"
            findings.warning(
                "few examples", "train", train.source, message, f"add some: below {_FEW} little is learned"
            )


def _check_spelling(parts: Iterable[PartContents], findings: Findings) -> None:
    """Report blank labels, and labels that differ from another, of any part, only by spaces or case."""
    first: dict[str, str] = {}
    known: set[str] = set()
    for part in parts:
        for label, count in sorted(part.labels.items()):
            if label in known:
                continue
            known.add(label)
            if not label.strip():
                message, remedy = f"{count} examples have the label {label!r}", "give it a name"
                findings.warning("label spelling", part.name, part.source, message, remedy)
                continue
            other = first.setdefault(fold(label), label)
            if other != label:
                message = f"the labels {other!r} and {label!r} differ only by spaces or case"
                remedy = "write them alike, unless they are two relations"
                findings.warning("label spelling", part.name, part.source, message, remedy)


class BaseContents:
    """Contents of a knowledge base, as they are read: which wanted gold ids it lacks, and which texts are repeated."""

    def __init__(self, source: str, gold_ids: Iterable[str]) -> None:
        self.source = source
        self.passages = 0
        self._missing = set(gold_ids)
        self._hashes = array("q")

    def check(self, passages: Iterable[Passage], findings: Findings) -> Iterator[Passage]:
        """Pass the passages through, and record their contents."""
        for passage in passages:
            self.passages += 1
            self._missing.discard(passage.id)
            document, sign, number = passage.id.rpartition("#")
            if sign and number.isdecimal():  # a piece of a document, which may be gold as a whole
                self._missing.discard(document)
            words = fold(passage.text)
            if not words:
                place = f"{self.source}, id {passage.id!r}"
                findings.warning("empty passage", "base", place, "no text", "take it out: retrieving it costs a place")
            key = _key(words or f"no text in {passage.id}")  # which is no copy of another without text
            self._hashes.append(int.from_bytes(key[:8], "little", signed=True))
            yield passage

    def check_gold(self, parts: Iterable[PartContents], findings: Findings) -> None:
        """Report gold passages that the base lacks: where scores are taken, an error."""
        for part in parts:
            missing = part.gold.keys() & self._missing
            unjudged = {id_ for id_ in missing if id_.startswith(TEXT_ID)}
            if unjudged:
                message = (
                    f"{len(unjudged):,} of its {len(part.gold):,} paragraphs are not in the base: questions on them "
                )
                message += "have no gold passage there, and are not judged by it"
                findings.warning("gold passage", part.name, part.source, message, "give the base that has them")
            for id_ in sorted(missing - unjudged):
                message = f"the gold passage {id_!r} is not in the base"
                remedy = "give the base that belongs to these examples, or leave gold_passages out"
                report = findings.warning if part.name in _TRAINED_ON else findings.error
                report("gold passage", part.name, part.place(part.gold[id_]), message, remedy)

    def check_repeated(self, read: Callable[[], Iterable[Passage]], findings: Findings) -> None:
        """Report texts that several passages have; ``read`` gives the same passages, and is called only where there are
        any.

        A text is a 64-bit hash, 8 bytes: among 20 million passages the chance of one false alarm is 10⁻⁵.
        """
        hashes = np.frombuffer(self._hashes, dtype=np.int64)
        order = np.argsort(hashes, kind="stable")
        repeated = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
        if not len(repeated):
            return
        rows = set(np.concatenate([order[repeated], order[repeated + 1]]).tolist())
        first: dict[int, str] = {}
        for row, passage in enumerate(read()):
            if row in rows:
                earlier = first.setdefault(int(hashes[row]), passage.id)
                if earlier != passage.id:
                    place, message = f"{self.source}, id {passage.id!r}", f"the same text as id {earlier!r}"
                    remedy = "keep one: copies take places among the best K, and share p(z|x)"
                    findings.warning("duplicate passage", "base", place, message, remedy)


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
