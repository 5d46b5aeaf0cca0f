"""Relation extraction as text: labels become words, training instances become passages, answers are scored.

Key and value of a passage are apart. The key, which every retriever reads, is the sentence with both entities marked;
the value is the verbalised label and stands in the title alone, so that no label ever enters a distance. Queries and
keys are written in the same style (`QUERY_STYLES`), so that both sides live in the same space. The published form of
ETRAG (arXiv 2406.03790) has the label in the key as well: ``key_style="published"``.

By default the phrase alone is the target: on SemEval-2010 Task 8 generating it beats repeating both entity names, and
with first words that differ the generator decides at its first token. ``target_style="sentence"`` is the target of
SuRE (Lu et al. 2022, "Summarization as Indirect Supervision for Relation Extraction"): the relation's template with
both entity names filled in; ``input_style="described"`` and ``constraints`` are the other two parts of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from retrograd.data.relations.instance import (
    RelationExample,
    RelationInstance,
    bare_sentence,
    entity_types,
    has_unseen_label,
    mark,
    unmark,
)
from retrograd.data.relations.readers.markers import parse_markers
from retrograd.metrics.relations import DIRECTIONS
from retrograd.metrics.words import NonWords, fold
from retrograd.tasks.relations.generator_text import (
    INPUT_STYLES,
    NEIGHBOUR_STYLES,
    describe_entities,
    format_instruction,
    format_instruction_example,
    neighbour_text,
    split_marked,
)
from retrograd.tasks.relations.label_checks import check_labels
from retrograd.tasks.relations.refinement import Refined, refine_answer
from retrograd.tasks.relations.relation_scores import METRICS, score_relations
from retrograd.tasks.relations.retriever_text import QUERY_STYLES, RoleSpans, restyle_text, role_spans, with_label
from retrograd.tasks.relations.type_constraints import TypeConstraints
from retrograd.tasks.relations.verbalisation import Verbalisation, derive_phrases, semeval_verbalisation
from retrograd.tasks.task import Support
from retrograd.types import Example, Passage, Prompt, UserError
from retrograd.util.guards import JsonObject, suggest_name

__all__ = [
    "EXCLUDED",
    "KEY_STYLES",
    "TARGET_STYLES",
    "RelationExtraction",
]

TARGET_STYLES = ("phrase", "sentence")
"""What the generator is to say: the label's phrase, or its template with both entity names filled in."""

KEY_STYLES = ("split", "published")
"""What the passage tower reads: the instance without its label; or, as published, with the label's phrase behind."""

EXCLUDED = ("sentence", "pair")
"""What is never retrieved for an example: any instance of an equal sentence, whichever entities are marked; or only one
with the same head and tail in it. The pair (tail, head) is another one, and its label often gives the answer away."""


@dataclass(frozen=True)
class RelationExtraction:
    """The task of naming the relation between two marked entities.

    ``negative`` is the label of "no relation", or None; ``constraints``, where given, say which relations the types
    of a pair permit. `semeval` and `from_labels` are shortcuts; `dataclasses.replace` changes a setting.
    Raises `UserError` for a negative or a constrained relation that is no label, for an unknown metric or style, and
    for sentences as targets without templates.

    Example::

        task = rg.RelationExtraction.from_labels(["holds", "part-of", "none"], negative="none")
        print(task.choices, task.parse_query("the <e1>cup</e1> holds <e2>tea</e2>").query)
    """

    verbalisation: Verbalisation
    negative: str | None
    metric: str
    query_style: str = "marked"
    neighbour_style: str = "labelled"
    name: str = "relation extraction"
    target_style: str = "phrase"
    input_style: str = "marked"
    key_style: str = "split"
    exclude: str = "sentence"
    constraints: TypeConstraints | None = None

    def __post_init__(self) -> None:
        for value, known, what in (
            (self.metric, METRICS, "metric"),
            (self.query_style, QUERY_STYLES, "query style"),
            (self.neighbour_style, NEIGHBOUR_STYLES, "neighbour style"),
            (self.target_style, TARGET_STYLES, "target style"),
            (self.input_style, INPUT_STYLES, "input style"),
            (self.key_style, KEY_STYLES, "key style"),
            (self.exclude, EXCLUDED, "exclusion"),
        ):
            if value not in known:
                raise UserError(f"unknown {what} {value!r} of relation extraction; {suggest_name(value, known)}")
        check_labels(self.verbalisation, self.negative, self.metric, self.target_style == "sentence", self.constraints)

    @classmethod
    def semeval(cls, query_style: str = "marked", neighbour_style: str = "labelled") -> RelationExtraction:
        """Return the task of SemEval-2010 Task 8: 19 labels with our own words, scored as the task's official scorer
        does.
        """
        return cls(semeval_verbalisation(), "Other", "semeval", query_style, neighbour_style, "semeval2010_task8")

    @classmethod
    def from_labels(
        cls,
        labels: Iterable[str],
        negative: str | None = None,
        metric: str = "micro",
        query_style: str = "marked",
        neighbour_style: str = "labelled",
    ) -> RelationExtraction:
        """Return the task of any label set, phrases derived by rule: ``org:founded_by`` is "org founded by",
        ``Cause-Effect(e2,e1)`` "cause effect reversed".

        Labels with equal words get a number; the order of ``labels`` changes nothing.

        Raises `UserError` for no labels at all and as the constructor does.
        """
        return cls(Verbalisation(derive_phrases(labels)), negative, metric, query_style, neighbour_style)

    @property
    def choices(self) -> tuple[str, ...]:
        """Return the phrases of all labels, in their order."""
        return tuple(self.phrases.values())

    @property
    def primary_metric(self) -> str:
        """Return the F1 that sums up the others: the official one of the task's metric."""
        return "micro_f1" if self.metric == "micro" else "macro_f1"

    # Labels and words

    @property
    def phrases(self) -> Mapping[str, str]:
        """Return the phrase of every label, one to one: the words of titles and prompts."""
        return self.verbalisation.phrases

    @property
    def has_directed_labels(self) -> bool:
        """Return whether labels name the entity that is the first argument, so that each pair is asked once."""
        return any(label.endswith(DIRECTIONS) for label in self.phrases)

    def verbalise(self, relation: str) -> str:
        """Return the phrase of a label. Raises `UserError` for an unknown label, with the nearest known one."""
        if relation not in self.phrases:
            raise UserError(f"unknown relation {relation!r}; {suggest_name(relation, self.phrases)}")
        return self.phrases[relation]

    def relation_of(self, words: str, example: Example | None = None) -> str | None:
        """Return the label of a phrase or, where there are templates, of a sentence about the example's two entities;
        exact but for case and spaces.

        None where it is neither.
        """
        relation = self.verbalisation.relation_of(words)
        if relation is not None or example is None:
            return relation
        folded_words = fold(words)
        return next(
            (label for label, own in self._own_sentences(example).items() if own.casefold() == folded_words),
            None,
        )

    def read_answer(self, answer: str, example: Example) -> Refined:
        """Return the label that a model's answer names, and the rule that read it
        (`retrograd.tasks.relations.refinement`).

        Without a label it is an invalid answer, never mapped to one.
        """
        label = self.relation_of(answer, example)
        if label is not None:
            return Refined(label, "exact")
        sentences = self._own_sentences(example)
        words = {label: [phrase, *filter(None, [sentences.get(label)])] for label, phrase in self.phrases.items()}
        return refine_answer(answer, words, *self._repeatable(example))

    def label_record(self, answer: str, example: Example) -> JsonObject:
        """Return the label that an answer names and, where it is not the label's own words, the rule that reads it."""
        reading = self.read_answer(answer, example)
        record: JsonObject = {"relation": reading.label}
        return record if reading.is_exact else record | {"read_by": reading.rule}

    def _repeatable(self, example: Example) -> tuple[str, str, str]:
        """Return the parts of a question that an answer may repeat: sentence, head and tail; the text alone where
        nothing is marked.
        """
        try:
            return split_marked(example.query)
        except UserError:
            return example.query, "", ""

    def _own_sentences(self, example: Example) -> Mapping[str, str]:
        """Return every label's sentence about the example's entities; none without templates, or where nothing is
        marked.
        """
        try:
            return self._sentences(example.query) if self.verbalisation.templates else {}
        except UserError:
            return {}

    def choices_for(self, example: Example) -> tuple[str, ...]:
        """Return the answers permitted for this example, in the order of the labels and the style of its target: those
        of all labels or, with ``constraints``, of those that its entity types permit and the negative.
        """
        labels, answers = self._permitted_labels(example), self._answers(example)
        return tuple(answers[label] for label in self.phrases if labels is None or label in labels)

    def negative_for(self, example: Example) -> str | None:
        """Return the negative label in the style of the target, or None without one."""
        return None if self.negative is None else self._answers(example)[self.negative]

    def _answers(self, example: Example) -> Mapping[str, str]:
        """Return the answer that names each label for this example."""
        return self._sentences(example.query) if self.target_style == "sentence" else self.phrases

    def _permitted_labels(self, example: Example) -> frozenset[str] | None:
        """Return the permitted labels; None permits all."""
        types = entity_types(example)
        if self.constraints is None or types is None:
            return None
        labels = self.constraints.permitted_relations(*types)
        return labels if labels is None or self.negative is None else labels | {self.negative}

    def _sentences(self, query: str) -> dict[str, str]:
        text, head, tail = unmark(query)
        return self.verbalisation.sentences(head.of(text), tail.of(text))

    # Instances as examples and passages

    def example(self, instance: RelationInstance, permits_unseen: bool = False) -> RelationExample:
        """Return an example: the marked sentence, the entity types and, where the relation is known, the target.

        Raises `UserError` for an unknown label; with ``permits_unseen`` that label is the target of an example to be
        scored, to which every answer is wrong.
        """
        query, relation = mark(instance.text, instance.head, instance.tail), instance.relation
        types = instance.head_type, instance.tail_type
        if relation is None:
            return RelationExample(instance.id, query, (), *types)
        if permits_unseen and relation not in self.phrases:
            return RelationExample(instance.id, query, (relation,), *types, has_unseen_label=True)
        phrase = self.verbalise(relation)
        target = self._sentences(query)[relation] if self.target_style == "sentence" else phrase
        return RelationExample(instance.id, query, (target,), *types)

    def parse_query(self, text: str) -> RelationExample:
        """Return a sentence with both entities marked, ``<e1>…</e1>`` and ``<e2>…</e2>``, as an example.

        Raises `UserError` where one is not.
        """
        return self.example(parse_markers(text, "query", None))

    def passage(self, instance: RelationInstance) -> Passage:
        """Return a passage with the marked sentence as ``text`` (the key) and the phrase as ``title`` (the value).

        Raises `UserError` without a label.
        """
        if instance.relation is None:
            raise UserError(f"instance {instance.id!r} has no relation; a knowledge base of instances needs labels")
        title = self.verbalise(instance.relation)
        return Passage(instance.id, title, mark(instance.text, instance.head, instance.tail))

    # What the retrievers read

    non_words = NonWords()
    """Nothing: what marks entities stands in queries and passages alike, and the posterior's bar is no word."""

    def query_text(self, example: Example) -> str:
        """Return the marked sentence in the task's query style. Raises `UserError` where a query is not marked."""
        return restyle_text(example.query, self.query_style)

    def posterior_text(self, example: Example, target: str) -> Prompt:
        """Return the query text, a bar, and the target. Where it is too long the query's end goes first, unless vectors
        are pooled by role.
        """
        query = self.query_text(example)
        return Prompt("", query, with_label(query, target).removeprefix(query))

    def passage_text(self, passage: Passage) -> str:
        """Return the passage's sentence in the same style as a query; the label stays out of it, but for ``key_style``
        "published", which adds a bar and the phrase. Raises `UserError` as there.
        """
        text = restyle_text(passage.text, self.query_style)
        return with_label(text, passage.title) if self.key_style == "published" else text

    def role_spans(self, text: str) -> RoleSpans:
        """Return the characters ``[start, end)`` of head, tail and context in a text of `query_text`, `passage_text` or
        `posterior_text`.

        Where that ends with a label ("published"), the label's characters are the third role.

        Raises `UserError` for a text that is none of these.
        """
        return role_spans(text, self.query_style, self.choices if self.key_style == "published" else ())

    # What the generator reads

    def prompt(self, example: Example, passages: Sequence[Passage]) -> Prompt:
        """Return the query in the task's input style and the neighbours, best first, separated by bars.

        With ``label only`` the phrases stand before the sentence, where a generator finds them at the same place in
        every prompt: ``phrase | phrase | sentence``. Otherwise neighbours come last, each label before its sentence:
        ``sentence | phrase : neighbour | …``. What describes the entities (``input_style`` "described") comes before
        all else; "instructed" has an order of its own. Where a prompt is too long, the last neighbour's words go first.
        """
        if self.input_style.startswith("instructed"):
            sentence, head, tail = split_marked(example.query)
            labels = self.choices_for(example) if self.input_style == "instructed" else None
            texts = [format_instruction_example(passage, self.neighbour_style) for passage in passages]
            return format_instruction(sentence, head, tail, labels, texts)
        described, sentence = self._described(example)
        neighbours = "".join(f"{self.neighbour_text(passage)} | " for passage in passages)
        if self.neighbour_style == "label only":
            return Prompt("".join(f"{description} | " for description in described), neighbours, sentence)
        before = " ".join([*described, sentence])
        return Prompt(before, f" | {neighbours.removesuffix(' | ')}") if passages else Prompt(before)

    def _described(self, example: Example) -> tuple[list[str], str]:
        """Return the description of the two entities (in at most one text), and the sentence."""
        if self.input_style == "marked":
            return [], example.query
        sentence, head, tail = split_marked(example.query)
        return [describe_entities(head, tail, entity_types(example) or ("", ""))], sentence

    def neighbour_text(self, passage: Passage) -> str:
        """Return a neighbour in the task's style: ``phrase : sentence``, the sentence, or the phrase alone."""
        return neighbour_text(passage, self.neighbour_style)

    # Equality, support, score

    def identity(self, text: str) -> str:
        """Return the part of a marked sentence that is never retrieved for itself, with case and spaces normalised: the
        sentence without marks or, with ``exclude`` "pair", with them.
        """
        return fold(text if self.exclude == "pair" else bare_sentence(text))

    def support(self, passages: Iterable[Passage]) -> Support:
        """Return the test that gives the rows of the instances with the relation of an example's target."""
        rows: dict[str | None, list[int]] = {}
        for row, passage in enumerate(passages):
            rows.setdefault(self.verbalisation.relation_of(passage.title), []).append(row)
        rows.pop(None, None)
        by_relation = {relation: tuple(rows_of_relation) for relation, rows_of_relation in rows.items()}
        return lambda example: by_relation.get(self.gold_label(example), ())

    def score(self, examples: Sequence[Example], answers: Sequence[str]) -> dict[str, float]:
        """Return official scores in percent, with the rates of answers that are no label, that are one only by the
        rules of refinement, and that are the negative label.

        An answer that is no label is skipped: a miss, and a false alarm for nobody. ``accuracy`` is over all items.
        Raises `UserError` for unequal lengths, for nothing to score and for a target that is no phrase.
        """
        if len(examples) != len(answers):
            raise UserError(f"{len(answers)} answers to {len(examples)} examples; give one answer per example")
        gold = [self._require_gold(example) for example in examples]
        readings = [self.read_answer(answer, example) for example, answer in zip(examples, answers, strict=True)]
        return score_relations(gold, readings, self.metric, self.negative, self.phrases)

    def gold_label(self, example: Example) -> str | None:
        """Return the label of an example's target, which an unseen label is itself; None where it names none."""
        return example.target if has_unseen_label(example) else self.relation_of(example.target, example)

    def _require_gold(self, example: Example) -> str:
        relation = self.gold_label(example)
        if relation is None:
            raise UserError(
                f"the target {example.target!r} of example {example.id!r} is no {self.target_style} of this "
                f"task; {suggest_name(example.target, self.choices_for(example))}"
            )
        return relation
