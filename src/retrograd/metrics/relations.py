"""Official scores of relation extraction: TACRED's micro-F1 and the SemEval-2010 Task 8 report.

Every score is in percent. A prediction may be missing (None, or its id absent): it is then a *skipped* item, which
is never a guess and never right. Gold labels come first, predictions second; both are lists in the same order, or
mappings from item id to label.

* TACRED (Zhang et al. 2017): micro P/R/F1 over all items where ``no_relation`` counts neither as a guess nor as an
  answer to be found, so that answering it always scores 0.
* SemEval-2010 Task 8 (Hendrickx et al. 2010, scorer 1.2): three evaluations of 9 directed relations and Other; the
  official score is macro-F1 over the relations, with direction. A right relation with the wrong direction is a miss
  and, through its own column *xDIRx*, a false alarm for that relation. Two rules that only the scorer's outputs show,
  and that matter on small test sets: the macro average runs over the relations *that occur in the key*, not over nine;
  and a predicted relation that the key never has is no false alarm for anybody: neither average's precision counts it,
  though the item it stands on is still a miss.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from retrograd.types import UserError

__all__ = [
    "DIRECTIONS",
    "OTHER",
    "SEMEVAL_LABELS",
    "SEMEVAL_RELATIONS",
    "WRONG_DIRECTION",
    "GoldLabels",
    "MacroAverage",
    "PrecisionRecallF1",
    "PredictedLabels",
    "RelationLabel",
    "RelationTable",
    "SemEvalEvaluation",
    "SemEvalReport",
    "official_cell",
    "pair_labels",
    "parse_relation",
    "relation_table",
    "semeval_score",
    "tacred_score",
]

SEMEVAL_RELATIONS = (
    "Cause-Effect",
    "Component-Whole",
    "Content-Container",
    "Entity-Destination",
    "Entity-Origin",
    "Instrument-Agency",
    "Member-Collection",
    "Message-Topic",
    "Product-Producer",
)
OTHER = "Other"
DIRECTIONS = ("(e1,e2)", "(e2,e1)")
WRONG_DIRECTION = "xDIRx"

SEMEVAL_LABELS = (*(name + direction for name in SEMEVAL_RELATIONS for direction in DIRECTIONS), OTHER)
"""The 19 labels: 9 relations in two directions, and Other."""

GoldLabels = Sequence[str] | Mapping[str, str]
PredictedLabels = Sequence[str | None] | Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class RelationLabel:
    """A relation's name and its direction, "(e1,e2)" or "(e2,e1)"; None for a label without one, such as Other."""

    name: str
    direction: str | None

    def __str__(self) -> str:
        return self.name + (self.direction or "")


def parse_relation(label: str) -> RelationLabel:
    """Split ``Cause-Effect(e1,e2)`` into name and direction. Raises `UserError` for an empty name or other brackets."""
    for direction in DIRECTIONS:
        if label.endswith(direction) and label != direction:
            return RelationLabel(label.removesuffix(direction), direction)
    if not label or "(" in label or ")" in label:
        raise UserError(f"relation label {label!r}: expected a name, or a name followed by (e1,e2) or (e2,e1)")
    return RelationLabel(label, None)


@dataclass(frozen=True, slots=True)
class PrecisionRecallF1:
    """Counts of items and what follows from them; a share of nothing is 0, as in SemEval's scorer.

    Where nothing is guessed TACRED's scorer prints a precision of 100, beside the same recall and F1 of 0.
    """

    correct: int
    guessed: int
    gold: int

    @property
    def precision(self) -> float:
        """Return the percentage of the guesses that are correct."""
        return _percent(self.correct, self.guessed)

    @property
    def recall(self) -> float:
        """Return the percentage of the gold items that were found."""
        return _percent(self.correct, self.gold)

    @property
    def f1(self) -> float:
        """Return the harmonic mean of precision and recall, in percent."""
        return _percent(2 * self.correct, self.guessed + self.gold)

    def __str__(self) -> str:
        scores = f"P {self.precision:6.2f}  R {self.recall:6.2f}  F1 {self.f1:6.2f}"
        return f"{scores}  ({self.correct} correct of {self.guessed} guessed, {self.gold} gold)"


@dataclass(frozen=True, slots=True)
class MacroAverage:
    """Unweighted means over ``relations`` relations, in percent; ``f1`` is the mean of F1s, not the F1 of the means."""

    precision: float
    recall: float
    f1: float
    relations: int

    def __str__(self) -> str:
        scores = f"P {self.precision:6.2f}  R {self.recall:6.2f}  F1 {self.f1:6.2f}"
        return f"{scores}  (mean over {self.relations} relations)"


@dataclass(frozen=True, slots=True)
class RelationTable:
    """Scores by relation; the ``negative`` label (no_relation, Other) is listed separately and in neither average."""

    relations: dict[str, PrecisionRecallF1]
    negative: str | None
    negative_scores: PrecisionRecallF1

    @property
    def micro(self) -> PrecisionRecallF1:
        """Return the counts summed over the relations."""
        rows = self.relations.values()
        return PrecisionRecallF1(
            correct=sum(row.correct for row in rows),
            guessed=sum(row.guessed for row in rows),
            gold=sum(row.gold for row in rows),
        )

    @property
    def macro(self) -> MacroAverage:
        """Return the means over the relations that occur in the gold labels; all 0 where none does."""
        rows = [row for row in self.relations.values() if row.gold > 0]
        count = max(len(rows), 1)
        return MacroAverage(
            precision=sum(row.precision for row in rows) / count,
            recall=sum(row.recall for row in rows) / count,
            f1=sum(row.f1 for row in rows) / count,
            relations=len(rows),
        )

    def __str__(self) -> str:
        rows: dict[str, PrecisionRecallF1 | MacroAverage] = {**self.relations}
        if self.negative is not None:
            rows[f"({self.negative})"] = self.negative_scores
        rows["micro"], rows["macro"] = self.micro, self.macro
        width = max(map(len, rows))
        return "\n".join(f"{name:<{width}}  {scores}" for name, scores in rows.items())


def relation_table(
    gold: GoldLabels,
    predicted: PredictedLabels,
    negative: str | None = "no_relation",
    labels: Collection[str] | None = None,
) -> RelationTable:
    """Return the scores of every relation that occurs among the gold labels or the predictions, by name.

    With ``labels``, any other label is a `UserError` naming the nearest known one; without, labels are taken as they
    are. Raises `UserError` too for lengths or ids that do not match.
    """
    pairs = pair_labels(gold, predicted, labels)
    if labels is not None and negative is not None and negative not in labels:
        raise UserError(f"negative label {negative!r} is not among the labels; {_suggest_label(negative, labels)}")
    answers = Counter(answer for answer, _ in pairs)
    guesses = Counter(guess for _, guess in pairs if guess is not None)
    correct = Counter(answer for answer, guess in pairs if answer == guess)
    rows = {name: PrecisionRecallF1(correct[name], guesses[name], answers[name]) for name in sorted(answers | guesses)}
    nothing = PrecisionRecallF1(0, 0, 0)
    negative_scores = nothing if negative is None else rows.pop(negative, nothing)
    return RelationTable(rows, negative, negative_scores)


def tacred_score(
    gold: GoldLabels, predicted: PredictedLabels, negative: str = "no_relation", labels: Collection[str] | None = None
) -> PrecisionRecallF1:
    """Return TACRED's official micro P/R/F1; ``negative`` counts neither as an answer nor as a guess.

    A skipped item is no guess. Raises `UserError` for lengths or ids that do not match, and, with ``labels``, for a
    label outside them.
    """
    return relation_table(gold, predicted, negative, labels).micro


@dataclass(frozen=True, slots=True)
class SemEvalEvaluation:
    """One of the three official evaluations. Counts are items.

    ``rows`` are the labels of the key, Other last; ``columns`` are the same and then labels that were only predicted.
    ``confusion[i][j]`` items of ``rows[i]`` were called ``columns[j]``; besides, ``wrong_direction[i]`` got the right
    relation the wrong way round (xDIRx, always 0 but in the official evaluation) and ``skipped[i]`` got no answer.
    """

    name: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    wrong_direction: tuple[int, ...]
    skipped: tuple[int, ...]

    @property
    def items(self) -> int:
        """Return the number of items in the key."""
        return self.predicted_items + sum(self.skipped)

    @property
    def predicted_items(self) -> int:
        """Return the number of items with a prediction."""
        return sum(map(sum, self.confusion)) + sum(self.wrong_direction)

    @property
    def correct(self) -> int:
        """Return the number of items with the right label, Other included."""
        return sum(row[i] for i, row in enumerate(self.confusion))

    @property
    def correct_skipped_as_other(self) -> int:
        """Return the number of items with the right label if each skipped item had been called Other."""
        return self.correct + (self.skipped[self.rows.index(OTHER)] if OTHER in self.rows else 0)

    @property
    def coverage(self) -> float:
        """Return the percentage of the items that have a prediction."""
        return _percent(self.predicted_items, self.items)

    @property
    def accuracy(self) -> float:
        """Return the percentage of the answered items that are right."""
        return _percent(self.correct, self.predicted_items)

    @property
    def accuracy_skipped_as_wrong(self) -> float:
        """Return the percentage of all items that are right."""
        return _percent(self.correct, self.items)

    @property
    def accuracy_skipped_as_other(self) -> float:
        """Return the percentage of all items that are right if each skipped one had been called Other."""
        return _percent(self.correct_skipped_as_other, self.items)

    @property
    def table(self) -> RelationTable:
        """Return P/R/F1 of each label of the key; a wrong direction counts as a guess of, and a miss of, its
        relation.
        """
        scores = {
            label: PrecisionRecallF1(
                correct=self.confusion[i][i],
                guessed=sum(row[i] for row in self.confusion) + self.wrong_direction[i],
                gold=sum(self.confusion[i]) + self.wrong_direction[i] + self.skipped[i],
            )
            for i, label in enumerate(self.rows)
        }
        other = scores.pop(OTHER, PrecisionRecallF1(0, 0, 0))
        return RelationTable(scores, OTHER, other)

    def __str__(self) -> str:
        return (
            f"{self.name}\ncoverage {self.coverage:.2f} %, accuracy {self.accuracy:.2f} % "
            f"({self.accuracy_skipped_as_wrong:.2f} % with skipped as wrong, "
            f"{self.accuracy_skipped_as_other:.2f} % with skipped as Other)\n{self.table}"
        )


@dataclass(frozen=True, slots=True)
class SemEvalReport:
    """The three official evaluations; `macro_f1` is the score that papers quote."""

    directed: SemEvalEvaluation
    undirected: SemEvalEvaluation
    official: SemEvalEvaluation

    @property
    def macro_f1(self) -> float:
        """Return the official score: macro-F1 in percent, (9+1)-way with direction, over the relations of the key."""
        return self.official.table.macro.f1

    def __str__(self) -> str:
        return f"{self.official}\n\nofficial score: macro-F1 {self.macro_f1:.2f} %"


def semeval_score(gold: GoldLabels, predicted: PredictedLabels, unseen: Collection[str] = ()) -> SemEvalReport:
    """Return the official SemEval-2010 Task 8 report; a missing prediction counts as skipped.

    ``unseen`` are labels of the key that the official scorer does not know: each is a relation that is always missed.
    Raises `UserError` for a label outside both and `SEMEVAL_LABELS`, and for lengths or ids that do not match.
    """
    pairs = pair_labels(gold, predicted, (*SEMEVAL_LABELS, *unseen))
    return SemEvalReport(
        directed=_evaluate("(2*9+1)-way, with direction", Counter(pairs)),
        undirected=_evaluate(
            "(9+1)-way, ignoring direction", Counter((_relation_name(a), _relation_name(b)) for a, b in pairs)
        ),
        official=_evaluate("(9+1)-way, with direction (official)", Counter(map(official_cell, pairs))),
    )


def _relation_name(label: str | None) -> str | None:
    """Return the relation of a label without its direction; a label that SemEval does not have is one itself."""
    return parse_relation(label).name if label in SEMEVAL_LABELS else label


def official_cell(pair: tuple[str, str | None]) -> tuple[str | None, str | None]:
    """Return row and column of the official confusion matrix; xDIRx is a column of its own."""
    gold, guess = _relation_name(pair[0]), _relation_name(pair[1])
    return (gold, WRONG_DIRECTION if gold == guess and pair[0] != pair[1] else guess)


def _evaluate(name: str, cells: Mapping[tuple[str | None, str | None], int]) -> SemEvalEvaluation:
    rows = sorted({gold for gold, _ in cells if gold is not None}, key=_other_last)
    guessed = {guess for _, guess in cells if guess is not None and guess != WRONG_DIRECTION}
    columns = [*rows, *sorted(guessed - set(rows), key=_other_last)]
    return SemEvalEvaluation(
        name=name,
        rows=tuple(rows),
        columns=tuple(columns),
        confusion=tuple(tuple(cells.get((row, column), 0) for column in columns) for row in rows),
        wrong_direction=tuple(cells.get((row, WRONG_DIRECTION), 0) for row in rows),
        skipped=tuple(cells.get((row, None), 0) for row in rows),
    )


def _other_last(label: str) -> tuple[bool, str]:
    return (label == OTHER, label)


def pair_labels(
    gold: GoldLabels, predicted: PredictedLabels, labels: Collection[str] | None
) -> list[tuple[str, str | None]]:
    """Return gold and predicted label of every item. Raises `UserError` where they do not match, or are unknown."""
    pairs = _by_id(gold, predicted) if isinstance(gold, Mapping) else _in_order(gold, predicted)
    if not pairs:
        raise UserError("no gold labels; expected at least one item to score")
    if labels is not None:
        for label in sorted({label for pair in pairs for label in pair if label is not None} - set(labels)):
            raise UserError(f"unknown relation label {label!r}; {_suggest_label(label, labels)}")
    return pairs


def _by_id(gold: Mapping[str, str], predicted: PredictedLabels) -> list[tuple[str, str | None]]:
    if not isinstance(predicted, Mapping):
        raise UserError("gold labels are given by id, predictions as a list; give both by id or both as lists")
    for stray in predicted.keys() - gold.keys():
        raise UserError(f"prediction for id {stray!r}, which has no gold label; {_suggest_label(stray, gold.keys())}")
    return [(label, predicted.get(id_)) for id_, label in gold.items()]


def _in_order(gold: Sequence[str], predicted: PredictedLabels) -> list[tuple[str, str | None]]:
    if isinstance(predicted, Mapping):
        raise UserError("gold labels are given as a list, predictions by id; give both by id or both as lists")
    if isinstance(gold, str) or isinstance(predicted, str):
        raise UserError("labels are a single string; expected a list of labels, one per item")
    if len(gold) != len(predicted):
        raise UserError(
            f"{len(gold)} gold labels but {len(predicted)} predictions; expected one per item, None where skipped"
        )
    return list(zip(gold, predicted, strict=True))


def _suggest_label(value: str, labels: Collection[str]) -> str:
    nearest = difflib.get_close_matches(value, list(labels), n=1, cutoff=0.0)
    return f"the nearest known one is {nearest[0]!r}" if nearest else "there are no known ones"


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 0.0
