"""Relation extraction data of an experiment: settings, reading, label patches, what is drawn, and a record of it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from retrograd.corpus.knowledge_base import KnowledgeBase
from retrograd.io import JsonObject, Refuse, fingerprint, raised
from retrograd.recipes.source import Data, in_full, relation_extraction
from retrograd.tasks.relation_extraction import RelationExtraction
from retrograd.tasks.relation_formats import parse_markers, read_relations
from retrograd.tasks.relation_instance import RelationInstance
from retrograd.tasks.sampling import sample_instances, split_instances
from retrograd.tasks.semeval import load_semeval
from retrograd.tasks.tacred import NO_RELATION, read_patch
from retrograd.tasks.task import Task
from retrograd.tasks.type_constraints import TypeConstraints
from retrograd.tasks.verbalisation import Verbalisation, derive_phrases, open_verbalisation
from retrograd.types import Example, UserError

__all__ = [
    "RelationData",
    "labelled_examples",
    "read_all_instances",
    "read_instances",
    "relation_task",
]

_BUILTIN_DATA = "builtin:semeval2010_task8"
_NEGATIVE = {"semeval": "Other", "tacred": NO_RELATION, "retacred": NO_RELATION}
"""The negative label of each label set that is known by name."""
_TEMPLATES = {"semeval": "builtin:semeval2010_task8", "tacred": "builtin:tacred", "retacred": "builtin:retacred"}
"""The words of each label set that is known by name."""


@dataclass(frozen=True)
class RelationData:
    """Relation extraction data. ``train`` is also the knowledge base.

    ``train``, ``dev`` and ``test`` are files, or ``builtin:semeval2010_task8`` for the data set in the package (its
    training or its test part). ``train_patch``, ``dev_patch`` and ``test_patch`` are files that correct labels by id
    (TACREV's list or Re-TACRED's object); they apply first.

    ``dev_from_train`` holds that many training instances out as development data, where there is no ``dev``. Then
    ``train_count`` or ``train_share``, ``dev_count`` or ``dev_share``, and ``test_count`` draw that many instances or
    that share of them (0: all). All draws are shuffled, stratified by label and nested: with one seed, 1 % lies inside
    5 %. ``seed`` is theirs (-1: the experiment's); with one of its own, runs with several seeds share their data.

    ``labels`` is ``semeval`` for the 19 relations of SemEval-2010 Task 8 with its official score, ``tacred`` (TACREV's
    too) for 42 and ``retacred`` for 40 labels with the official micro-F1 without ``no_relation``, else ``from_train``:
    phrases derived from the labels in ``train``, drawn or not, with ``negative`` and ``metric`` as set here.

    ``templates`` replaces the words of the labels: ``builtin:tacred``, another file of the package or one of your own
    (`retrograd.tasks.verbalisation`), with phrase and template for every label; with ``from_train`` its labels are the
    task's, those that ``train`` lacks too. ``target_style`` "sentence" makes the filled template the target (it is
    longer: see generator.max_target_tokens). ``input_style`` "described" names entities and their types before the
    sentence; "instructed" asks as RAG4RE does, with the list of relations, "instructed, no list" without it.
    ``type_constraints`` leaves to each pair of types the relations that the drawn training data have for it
    (`retrograd.tasks.type_constraints` has the rule for others).

    ``base_labels`` "shuffled" is a control: the sentences of the knowledge base exchange their labels.

    ``key_style`` "published" adds the label to what the passage tower reads. ``exclude`` says what is never retrieved
    for an example: instances of an equal ``sentence``, or of an equal sentence with an equal ``pair`` of entities.
    """

    train: str = _BUILTIN_DATA
    test: str = _BUILTIN_DATA
    dev: str = ""
    format: Literal["auto", "semeval", "jsonl", "markers", "tacred"] = "auto"
    train_patch: str = ""
    dev_patch: str = ""
    test_patch: str = ""
    train_count: int = 0
    train_share: float = 0.0
    dev_from_train: int = 0
    dev_count: int = 0
    dev_share: float = 0.0
    test_count: int = 0
    seed: int = -1
    labels: Literal["semeval", "tacred", "retacred", "from_train"] = "semeval"
    negative: str = ""
    metric: Literal["macro", "micro"] = "micro"
    query_style: Literal["marked", "entities+marked", "between", "between+marked"] = "between+marked"
    neighbour_style: Literal["labelled", "unlabelled", "label only"] = "labelled"
    templates: str = ""
    target_style: Literal["phrase", "sentence"] = "phrase"
    input_style: Literal["marked", "described", "instructed", "instructed, no list"] = "marked"
    type_constraints: bool = False
    key_style: Literal["split", "published"] = "split"
    exclude: Literal["sentence", "pair"] = "sentence"
    base_labels: Literal["right", "shuffled"] = "right"

    def __post_init__(self) -> None:
        self._check_draws()
        if self.dev.startswith("builtin:"):
            raise UserError(
                "data.dev: the package has no development data; give a file, or hold some of the training data out "
                "with data.dev_from_train"
            )
        for part in ("train", "dev", "test"):
            if vars(self)[f"{part}_patch"] and not vars(self)[part]:
                raise UserError(f"data.{part}_patch corrects data.{part}, which is empty; give both, or neither")
        fixed = _NEGATIVE.get(self.labels)
        if fixed and self.negative not in ("", fixed):
            raise UserError(
                f"data.negative is {self.negative!r}, but labels = {self.labels!r} has {fixed!r}; leave it empty, or "
                f"set data.labels to 'from_train'"
            )

    def _check_draws(self) -> None:
        for name in ("train_count", "dev_count", "test_count", "dev_from_train"):
            if vars(self)[name] < 0:
                raise UserError(f"data.{name} is {vars(self)[name]}; expected 0 or more")
        if self.seed < -1:
            raise UserError(f"data.seed is {self.seed}; expected 0 or more, or -1 for the experiment's")
        for part in ("train", "dev"):
            share, count = vars(self)[f"{part}_share"], vars(self)[f"{part}_count"]
            if not 0 <= share <= 1:
                raise UserError(f"data.{part}_share is {share:g}; expected 0 to 1 (0.01 is one percent; 0 and 1 all)")
            if share and count:
                raise UserError(f"data.{part}_share and data.{part}_count are both set; set one of them to 0")
        if self.dev_from_train and (self.dev or self.dev_share or self.dev_count):
            raise UserError(
                "data.dev_from_train makes the development data, all of it; leave data.dev, dev_share and dev_count out"
            )

    @property
    def has_dev(self) -> bool:
        """Whether there will be development data."""
        return bool(self.dev) or self.dev_from_train > 0

    def load(self, seed: int, task: Task | None = None) -> Data:
        """As `Source.load`: read, correct, draw and verbalise."""
        known = None if task is None else relation_extraction(task, "data.kind = relations")
        seed = seed if self.seed < 0 else self.seed
        whole = _read(self, "train")
        _require_relations(whole.instances, self.train)
        rest, dev = _held_out(self, whole, seed)
        train = _draw(rest, self, "train", self.train_count, self.train_share, seed)
        if dev is None:
            dev = _draw(_read(self, "dev"), self, "dev", self.dev_count, self.dev_share, seed)
        test = _draw(_read(self, "test"), self, "test", self.test_count, 0.0, seed)
        relations = known or relation_task(self, whole.instances, train.instances)
        parts = {"train": train, "dev": dev, "test": test}
        sources = {"train": self.train, "dev": self.dev or self.train, "test": self.test}
        examples = {
            name: labelled_examples(relations, part.instances, sources[name], self.labels)
            for name, part in parts.items()
        }
        drawn: JsonObject = {"seed": seed, **{name: part.record() for name, part in parts.items() if part.instances}}
        passages = [relations.passage(instance) for instance in train.instances]
        if self.base_labels == "shuffled":
            titles = random.Random(seed).sample([passage.title for passage in passages], len(passages))
            passages = [replace(passage, title=title) for passage, title in zip(passages, titles, strict=True)]
        return Data(relations, KnowledgeBase.from_passages(passages), **examples, drawn=drawn)

    def read(self, path: Path, patch: Path | None, task: Task, base: KnowledgeBase) -> list[Example]:
        """As `Source.read`; a ``patch`` corrects labels."""
        relations = relation_extraction(task, "data.kind = relations")
        return labelled_examples(relations, read_instances(path, self.format, patch), str(path), self.labels)

    def asked(self, text: str, task: Task) -> Example:
        """A sentence with both entities marked."""
        return relation_extraction(task, "data.kind = relations").example(parse_markers(text, "query", None))

    def task_record(self, task: Task) -> JsonObject:
        """The words of the labels, and the type constraints learned."""
        relations = relation_extraction(task, "data.kind = relations")
        constraints = None if relations.constraints is None else relations.constraints.to_record()
        return {"relations": relations.verbalisation.to_record(), "type_constraints": constraints}

    def task_from_record(self, record: object, where: str) -> RelationExtraction:
        """As `Source.task_from_record`."""
        if not isinstance(record, Mapping) or set(record) != {"relations", "type_constraints"}:
            raise UserError(f"{where}: expected the relations and type constraints of the run; train it again")
        found = record["type_constraints"]
        constraints = None if found is None else TypeConstraints.from_record(found, f"{where}: type_constraints")
        return _task(self, Verbalisation.from_record(record["relations"], f"{where}: relations"), constraints)

    def from_root(self) -> RelationData:
        """As `Source.from_root`."""
        names = ("train", "dev", "test", "train_patch", "dev_patch", "test_patch", "templates")
        return replace(self, **{name: in_full(vars(self)[name]) for name in names})


@dataclass(frozen=True)
class _Part:
    """Instances of one part; ``available`` is how many there were to draw from."""

    instances: list[RelationInstance]
    available: int
    relabelled: int = 0
    dropped: int = 0

    def record(self) -> JsonObject:
        """What of this part was drawn. The hash is of the sorted ids."""
        by_label = Counter(instance.relation or "" for instance in self.instances)
        return {
            "instances": len(self.instances),
            "available": self.available,
            "relabelled_by_patch": self.relabelled,
            "dropped_by_patch": self.dropped,
            "ids_sha256": fingerprint(sorted(instance.id for instance in self.instances)),
            "by_label": dict(sorted(by_label.items())),
        }


def _require_relations(instances: list[RelationInstance], source: str) -> None:
    for instance in instances:
        if instance.relation is None:
            raise UserError(
                f"{source}, instance {instance.id!r} (without ids: the line): no relation; training needs one in each "
                f'record, as "relation": "…"'
            )


def labelled_examples(
    task: RelationExtraction, instances: Sequence[RelationInstance], source: str, labels: str
) -> list[Example]:
    """Instances in the task's words; ``labels`` is the setting that the task was made from.

    Raises `UserError` with source and instance for a relation that the task does not know.
    """
    others = {
        "semeval": "",
        "tacred": '; "retacred" has those of Re-TACRED',
        "retacred": '; "tacred" has those of TACRED',
    }
    hint = "" if labels not in others else f' (data.labels = "from_train" takes those of your own data{others[labels]})'
    examples = []
    for instance in instances:
        try:
            examples.append(task.example(instance))
        except UserError as error:
            raise UserError(f"{source}, instance {instance.id!r} (without ids: the line): {error}{hint}") from None
    return examples


def read_instances(path: Path, format: str, patch: Path | None) -> list[RelationInstance]:  # noqa: A002
    """All instances of a file, with corrected labels where there is a patch. Raises `UserError` as the readers do."""
    found = list(read_relations(path, format))
    return found if patch is None else read_patch(patch).apply(found, str(path))


def read_all_instances(settings: RelationData, part: str, refuse: Refuse) -> list[RelationInstance]:
    """A whole part, malformed records left out, with corrected labels. Raises `UserError` as `RelationData.load`."""
    return _read(settings, part, refuse).instances


def _read(settings: RelationData, part: str, refuse: Refuse = raised) -> _Part:
    """A whole part, with corrected labels; empty where there is no source."""
    source, patch = vars(settings)[part], vars(settings)[f"{part}_patch"]
    if not source:
        return _Part([], 0)
    if source == _BUILTIN_DATA:
        found = load_semeval(part)
    elif source.startswith("builtin:"):
        raise UserError(f"no built-in data set {source!r}; there is {_BUILTIN_DATA}")
    else:
        found = list(read_relations(Path(source), settings.format, refuse))
    if not patch:
        return _Part(found, len(found))
    before = {instance.id: instance.relation for instance in found}
    patched = read_patch(Path(patch)).apply(found, source)
    relabelled = sum(before[instance.id] != instance.relation for instance in patched)
    return _Part(patched, len(patched), relabelled, len(found) - len(patched))


def _held_out(settings: RelationData, whole: _Part, seed: int) -> tuple[_Part, _Part | None]:
    """(the rest, development data) where some are held out of training, which no share or count of it changes."""
    count = settings.dev_from_train
    if count == 0:
        return whole, None
    if count >= len(whole.instances):
        raise UserError(
            f"data.dev_from_train is {count}, but {settings.train or 'data.train'} holds {len(whole.instances)} "
            f"instances; leave some for training"
        )
    rest, dev = split_instances(whole.instances, count, random.Random(seed))
    return replace(whole, instances=rest, available=len(rest)), _Part(dev, whole.available)


def _draw(part: _Part, settings: RelationData, name: str, count: int, share: float, seed: int) -> _Part:
    """``count`` instances of a part, or a ``share`` of them (at least one), or all; drawn ones are in random order."""
    available = len(part.instances)
    if count > available:
        raise UserError(
            f"data.{name}_count is {count}, but {vars(settings)[name]} holds {available} instances"
            f"{' beside those of data.dev_from_train' if name == 'train' and settings.dev_from_train else ''}; "
            f"set it to 0 for all of them"
        )
    if 0 < share < 1 and available:
        count = max(1, round(share * available))
    return replace(part, instances=sample_instances(part.instances, count, random.Random(seed))) if count else part


def relation_task(
    settings: RelationData, whole: Sequence[RelationInstance], drawn: Sequence[RelationInstance]
) -> RelationExtraction:
    """The task that settings and training data make: labels of the whole, type constraints of what was drawn.

    Raises `UserError` where the words of the labels do not fit.
    """
    labels = [instance.relation for instance in whole if instance.relation is not None]
    constraints = TypeConstraints.learn(drawn) if settings.type_constraints else None
    return _task(settings, _verbalisation(settings, labels), constraints)


def _verbalisation(settings: RelationData, labels: Sequence[str]) -> Verbalisation:
    """The words that the settings name. Raises `UserError` for a label without any, or one that a fixed set lacks."""
    fixed = settings.labels != "from_train"
    source = settings.templates or _TEMPLATES.get(settings.labels, "")
    if not source:
        return Verbalisation(derive_phrases(labels))
    found = open_verbalisation(source)
    if fixed and settings.templates:
        found.require(open_verbalisation(_TEMPLATES[settings.labels]).phrases, source, exactly=True)
    elif not fixed:
        found.require([*labels, settings.negative] if settings.negative else labels, source)
    return found


def _task(
    settings: RelationData, verbalisation: Verbalisation, constraints: TypeConstraints | None
) -> RelationExtraction:
    names = {"semeval": "semeval2010_task8", "from_train": "relation extraction"}
    metrics = {"semeval": "semeval", "tacred": "micro", "retacred": "micro"}
    return RelationExtraction(
        verbalisation,
        negative=_NEGATIVE.get(settings.labels, settings.negative or None),
        metric=metrics.get(settings.labels, settings.metric),
        query_style=settings.query_style,
        neighbour_style=settings.neighbour_style,
        name=names.get(settings.labels, settings.labels),
        target_style=settings.target_style,
        input_style=settings.input_style,
        key_style=settings.key_style,
        exclude=settings.exclude,
        constraints=constraints,
    )
