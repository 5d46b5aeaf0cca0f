"""Relation extraction as text: labels become short phrases, training instances become passages, phrases are scored.

Key and value of a passage are apart. The key, which every retriever reads, is the sentence with both entities marked;
the value is the verbalised label and stands in the title alone, so that no label ever enters a distance. Queries and
keys are written in the same style (`QUERY_STYLES`), so that both sides live in the same space.

The phrase alone is the target: on SemEval-2010 Task 8 generating it beats repeating both entity names, and with first
words that differ the generator decides at its first token (the verbalised relations of SuRE, Lu et al. 2022,
"Summarization as Indirect Supervision for Relation Extraction", are whole sentences).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from retrograd.metrics.relations import SEMEVAL_LABELS, relation_table, semeval_score
from retrograd.suggestions import advice
from retrograd.tasks.relation_instance import RelationInstance, Span, bare_sentence, mark, unmark
from retrograd.tasks.semeval import SEMEVAL_PHRASES
from retrograd.tasks.task import Support
from retrograd.types import Example, Passage, UserError

__all__ = ["METRICS", "NEIGHBOUR_STYLES", "QUERY_STYLES", "RelationExtraction"]

QUERY_STYLES = ("marked", "entities+marked", "between", "between+marked")
"""What both retriever towers read: the marked sentence; the two entities before it; from the first entity to the last,
marked; or that part before the whole marked sentence."""

NEIGHBOUR_STYLES = ("labelled", "unlabelled", "label only")
"""What a retrieved instance adds to the generator's prompt: phrase and sentence, the sentence, or the phrase."""

METRICS = ("semeval", "macro", "micro")
"""``semeval``: the official macro-F1 over nine directed relations; ``macro`` and ``micro``: F1 without the negative."""

_DIRECTED = re.compile(r"(.+)\((e[12]),(e[12])\)")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_BETWEEN_WORDS = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class RelationExtraction:
    """The task of naming the relation between two marked entities.

    ``phrases`` maps every label to the phrase that stands for it, one to one after case and spaces are levelled;
    ``negative`` is the label of "no relation", or None. Both have shortcuts: `semeval` and `from_labels`.
    Raises `UserError` for empty or equal phrases, a negative that is no label, an unknown metric or style.
    """

    phrases: Mapping[str, str]
    negative: str | None
    metric: str
    query_style: str = "marked"
    neighbour_style: str = "labelled"
    name: str = "relation extraction"
    choices: tuple[str, ...] = field(init=False, compare=False)
    primary_metric: str = field(init=False, compare=False)
    _relations: dict[str, str] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        for value, known, what in (
            (self.metric, METRICS, "metric"),
            (self.query_style, QUERY_STYLES, "query style"),
            (self.neighbour_style, NEIGHBOUR_STYLES, "neighbour style"),
        ):
            if value not in known:
                raise UserError(f"unknown {what} {value!r} of relation extraction; {advice(value, known)}")
        if self.negative is not None and self.negative not in self.phrases:
            raise UserError(f"negative label {self.negative!r} has no phrase; {advice(self.negative, self.phrases)}")
        if self.metric == "semeval":
            _require_semeval(self.phrases, self.negative)
        # The frozen record takes its own copy, and derives the way back once.
        object.__setattr__(self, "phrases", dict(self.phrases))
        object.__setattr__(self, "_relations", _way_back(self.phrases))
        object.__setattr__(self, "choices", tuple(self.phrases.values()))
        object.__setattr__(self, "primary_metric", "micro_f1" if self.metric == "micro" else "macro_f1")

    @classmethod
    def semeval(cls, query_style: str = "marked", neighbour_style: str = "labelled") -> RelationExtraction:
        """SemEval-2010 Task 8: 19 labels with our own phrases, scored as the task's official scorer does."""
        return cls(SEMEVAL_PHRASES, "Other", "semeval", query_style, neighbour_style, "semeval2010_task8")

    @classmethod
    def from_labels(
        cls,
        labels: Iterable[str],
        negative: str | None = None,
        metric: str = "micro",
        query_style: str = "marked",
        neighbour_style: str = "labelled",
    ) -> RelationExtraction:
        """Any label set, phrases derived by rule: ``org:founded_by`` is "org founded by", ``Cause-Effect(e2,e1)``
        "cause effect reversed". Labels with equal words get a number; the order of ``labels`` changes nothing.

        Raises `UserError` for no labels at all and as the constructor does.
        """
        phrases = derive_phrases(labels)
        return cls(phrases, negative, metric, query_style, neighbour_style)

    # Labels and phrases

    def verbalise(self, relation: str) -> str:
        """The phrase of a label. Raises `UserError` for an unknown label, with the nearest known one."""
        if relation not in self.phrases:
            raise UserError(f"unknown relation {relation!r}; {advice(relation, self.phrases)}")
        return self.phrases[relation]

    def relation_of(self, phrase: str) -> str | None:
        """The label of a phrase, exact but for case and spaces; None is an invalid answer, never mapped to a label."""
        return self._relations.get(_level(phrase))

    # Instances as examples and passages

    def example(self, instance: RelationInstance) -> Example:
        """The marked sentence and, where the relation is known, its phrase. Raises `UserError` for an unknown label."""
        targets = () if instance.relation is None else (self.verbalise(instance.relation),)
        return Example(instance.id, mark(instance.text, instance.head, instance.tail), targets)

    def passage(self, instance: RelationInstance) -> Passage:
        """Key: the marked sentence in ``text``. Value: the phrase in ``title``. Raises `UserError` without a label."""
        if instance.relation is None:
            raise UserError(f"instance {instance.id!r} has no relation; a knowledge base of instances needs labels")
        title = self.verbalise(instance.relation)
        return Passage(instance.id, title, mark(instance.text, instance.head, instance.tail))

    # What the models read

    def query_text(self, example: Example) -> str:
        """The marked sentence in the task's query style. Raises `UserError` where a query is not marked."""
        return self._styled(example.query)

    def posterior_text(self, example: Example, target: str) -> str:
        """The query text, a bar, and the target."""
        return f"{self.query_text(example)} | {target}"

    def passage_text(self, passage: Passage) -> str:
        """The passage's sentence in the same style as a query; the label stays out. Raises `UserError` as there."""
        return self._styled(passage.text)

    def prompt(self, example: Example, passages: Sequence[Passage]) -> str:
        """The marked sentence and the neighbours, best first, parted by bars.

        With ``label only`` the phrases stand first, where a generator finds them at the same place in every prompt:
        ``phrase | phrase | query``. Otherwise the query stands first and each label before its sentence, ``query |
        phrase : neighbour | …``: a tokeniser that cuts the end loses the last neighbour's words first.
        """
        neighbours = [self.neighbour_text(passage) for passage in passages]
        parts = [*neighbours, example.query] if self.neighbour_style == "label only" else [example.query, *neighbours]
        return " | ".join(parts)

    def neighbour_text(self, passage: Passage) -> str:
        """A neighbour in the task's style: ``phrase : sentence``, the sentence, or the phrase alone."""
        if self.neighbour_style == "unlabelled":
            return passage.text
        if self.neighbour_style == "label only":
            return passage.title
        return f"{passage.title} : {passage.text}"

    def _styled(self, marked: str) -> str:
        if self.query_style == "marked":
            return marked
        text, head, tail = unmark(marked)
        if self.query_style == "entities+marked":
            return f"{head.of(text)} ; {tail.of(text)} : {marked}"
        between = _between(text, head, tail)
        return between if self.query_style == "between" else f"{between} : {marked}"

    # Equality, support, score

    def identity(self, text: str) -> str:
        """The sentence without marks, case and spaces levelled: equal sentences are never retrieved for each other,
        whichever entities are marked in them."""
        return _level(bare_sentence(text))

    def support(self, passages: Iterable[Passage]) -> Support:
        """Rows of the instances whose phrase equals the example's target."""
        rows: dict[str, list[int]] = {}
        for row, passage in enumerate(passages):
            rows.setdefault(passage.title, []).append(row)
        by_title = {title: tuple(found) for title, found in rows.items()}
        return lambda example: by_title.get(example.target, ())

    def score(self, examples: Sequence[Example], answers: Sequence[str]) -> dict[str, float]:
        """Official scores in percent, with the rates of answers that are no label and that are the negative label.

        An answer that is no label is skipped: a miss, and a false alarm for nobody. ``accuracy`` is over all items.
        Raises `UserError` for unequal lengths, for nothing to score and for a target that is no phrase.
        """
        if len(examples) != len(answers):
            raise UserError(f"{len(answers)} answers to {len(examples)} examples; give one answer per example")
        gold = [self._gold(example) for example in examples]
        predicted = [self.relation_of(answer) for answer in answers]
        if self.metric == "semeval":
            table = semeval_score(gold, predicted).official.table
        else:
            table = relation_table(gold, predicted, self.negative, self.phrases)
        right = sum(answer == guess for answer, guess in zip(gold, predicted, strict=True))
        negative = 0 if self.negative is None else predicted.count(self.negative)
        return {
            "macro_f1": table.macro.f1,
            "micro_f1": table.micro.f1,
            "micro_precision": table.micro.precision,
            "micro_recall": table.micro.recall,
            "accuracy": 100.0 * right / len(gold),
            "invalid_rate": 100.0 * predicted.count(None) / len(gold),
            "negative_rate": 100.0 * negative / len(gold),
        }

    def _gold(self, example: Example) -> str:
        relation = self.relation_of(example.target)
        if relation is None:
            raise UserError(
                f"the target {example.target!r} of example {example.id!r} is no phrase of this task; "
                f"{advice(example.target, self.choices)}"
            )
        return relation


def _level(phrase: str) -> str:
    return " ".join(phrase.casefold().split())


def _between(text: str, head: Span, tail: Span) -> str:
    """The marked text from the first entity's start to the last one's end."""
    start, end = min(head.start, tail.start), max(head.end, tail.end)
    return mark(text[start:end], Span(head.start - start, head.end - start), Span(tail.start - start, tail.end - start))


def _require_semeval(phrases: Mapping[str, str], negative: str | None) -> None:
    """Raises `UserError` unless the official scorer knows every label and the negative is ``Other``."""
    for label in phrases:
        if label not in SEMEVAL_LABELS:
            raise UserError(
                f"metric 'semeval' does not know the label {label!r}; {advice(label, SEMEVAL_LABELS)} "
                "Score other label sets with metric 'macro' or 'micro'"
            )
    if negative != "Other":
        raise UserError(f"metric 'semeval' has the negative label 'Other', not {negative!r}; give negative='Other'")


def _way_back(phrases: Mapping[str, str]) -> dict[str, str]:
    """Label by levelled phrase. Raises `UserError` unless there are phrases, none empty, all different."""
    if not phrases:
        raise UserError("relation extraction without labels; give at least one label with its phrase")
    relations: dict[str, str] = {}
    for relation, phrase in phrases.items():
        key = _level(phrase)
        if not key:
            raise UserError(f"the phrase of {relation!r} is empty; give it words that a model can generate")
        if key in relations:
            raise UserError(f"{relations[key]!r} and {relation!r} share the phrase {phrase!r}; make them different")
        relations[key] = relation
    return relations


def derive_phrases(labels: Iterable[str]) -> dict[str, str]:
    """A phrase for every label, one to one: its words in lower case, "reversed" for the direction (e2,e1), and a
    number where another label has the same words."""
    phrases: dict[str, str] = {}
    taken: set[str] = set()
    for label in sorted(set(labels)):
        words = phrase = _words(label) or "relation"
        number = 1
        while phrase in taken:
            number += 1
            phrase = f"{words} {number}"
        taken.add(phrase)
        phrases[label] = phrase
    return phrases


def _words(label: str) -> str:
    directed = _DIRECTED.fullmatch(label)
    name = directed[1] if directed else label
    words = _BETWEEN_WORDS.sub(" ", _CAMEL.sub(" ", name)).casefold().split()
    if directed and directed[2] != directed[3]:
        return " ".join([*words, "reversed"] if directed[2] == "e2" else words)
    return " ".join([*words, directed[2], directed[3]] if directed else words)
