"""Relation extraction data of an experiment: settings, reading, label patches, draws, and a record of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from retrograd.data.feedback import Verdict, teach
from retrograd.data.field_maps import RelationFields
from retrograd.data.offsets import Offsets
from retrograd.data.readers import read_relations
from retrograd.data.relations.entity_pairs import has_entities, read_entity_pairs
from retrograd.data.relations.formats import RelationFormat
from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.sampling import stratify
from retrograd.experiments.data.draws import Draws, draw_seed, require_draws
from retrograd.experiments.data.example_files import ExampleSource, write_examples
from retrograd.experiments.data.findings import Findings, split_message
from retrograd.experiments.data.part_reading import BaseFile, DataPart, DataParts
from retrograd.experiments.data.relation_parts import (
    BUILTIN_DATA,
    RelationPart,
    RelationReading,
    check_offsets,
    instance_record,
    labelled_examples,
    read_instances,
    read_more,
    read_part,
    report_examples,
    report_offsets,
    require_relations,
)
from retrograd.experiments.data.relation_tasks import NEGATIVE, TASK_NAMES, relation_task, require_two_labels, task_of
from retrograd.experiments.data.source import Data, absolute_file, relation_extraction
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.tasks.relations.type_constraints import TypeConstraints
from retrograd.tasks.relations.verbalisation import Verbalisation
from retrograd.tasks.task import Task
from retrograd.types import Example, UserError
from retrograd.util.guards import JsonObject
from retrograd.util.progress import say
from retrograd.util.records import read_record
from retrograd.util.text_files import Refuse, raise_error

__all__ = ["RelationData"]


@dataclass(frozen=True)
class RelationData:
    """Settings of relation extraction data. ``train`` is also the knowledge base.

    ``train``, ``dev`` and ``test`` are files, or ``builtin:semeval2010_task8`` for the data set in the package (its
    training or its test part). ``format`` is that of these files; "auto" looks at the beginning of each.
    ``train_patch``, ``dev_patch`` and ``test_patch`` are files that correct labels by id (TACREV's list or Re-TACRED's
    object); they apply first. ``more`` is a file of verdicts that a served run has kept (`retrograd.data.feedback`):
    those that name the right relation are training instances, and passages, beside the drawn ones.

    ``dev_from_train`` holds that many training instances out as development data, where there is no ``dev``. Then
    ``train_count`` or ``train_share``, ``dev_count`` or ``dev_share``, and ``test_count`` draw that many instances or
    that share of them (0: all). All draws are shuffled, stratified by label and nested: with one seed, 1 % lies inside
    5 %. ``seed`` is theirs (-1: the experiment's); with one of its own, runs with several seeds share their data.

    ``offsets`` is what those of entities in texts count: ``characters``, as in Python, ``utf-16`` code units, as in
    JavaScript, or the bytes of ``utf-8`` (`retrograd.data.offsets`). ``fields`` says where records have what, by names
    or paths of JMESPath, where they name it otherwise than the format ``rows`` does (`retrograd.data.field_maps`).

    ``labels`` is ``semeval`` for the 19 relations of SemEval-2010 Task 8 with its official score, ``tacred`` (TACREV's
    too) for 42 and ``retacred`` for 40 labels with the official micro-F1 without ``no_relation``, else ``from_train``:
    phrases derived from the labels in ``train``, drawn or not. Of these ``negative`` is the label that is no relation,
    and ``metric`` the F1 without it that counts.

    ``query_style`` is what both towers of the retriever read of an instance, ``neighbour_style`` what a retrieved
    instance adds to the prompt.

    ``templates`` replaces the words of the labels: ``builtin:tacred``, another file of the package or one of your own
    (`retrograd.tasks.relations.verbalisation`), with phrase and template for every label; with ``from_train`` its
    labels are the
    task's, those that ``train`` lacks too. ``target_style`` "sentence" makes the filled template the target (it is
    longer: see generator.max_target_tokens). ``input_style`` "described" names entities and their types before the
    sentence; "instructed" asks as RAG4RE does, with the list of relations, "instructed, no list" without it.
    ``type_constraints`` leaves to each pair of types the relations that the drawn training data have for it
    (`retrograd.tasks.relations.type_constraints` has the rule for others).

    ``base_labels`` "shuffled" is a control: the sentences of the knowledge base exchange their labels.

    ``key_style`` "published" adds the label to what the passage tower reads. ``exclude`` says what is never retrieved
    for an example: instances of an equal ``sentence``, or of an equal sentence with an equal ``pair`` of entities.

    ``unseen_labels`` says what to do with a label of ``dev`` or ``test`` that ``train`` never shows, and no answer can
    name: "refuse" the data, or count such instances as "wrong", in every score and whatever is answered.
    """

    kind: ClassVar[str] = "relations"
    has_closed_answers: ClassVar[bool] = True
    train_is_base: ClassVar[bool] = True
    base_source = ""

    train: str = BUILTIN_DATA
    test: str = BUILTIN_DATA
    dev: str = ""
    more: str = ""
    format: RelationFormat = "auto"
    offsets: Offsets = "characters"
    fields: RelationFields = field(default_factory=RelationFields)
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
    unseen_labels: Literal["refuse", "wrong"] = "refuse"

    def __post_init__(self) -> None:
        self._check_draws()
        if self.dev.startswith("builtin:"):
            raise UserError(
                "data.dev: the package has no development data; give a file, or hold some of the training data out "
                "with data.dev_from_train"
            )
        for part, (file, patch) in self._files.items():
            if patch and not file:
                raise UserError(f"data.{part}_patch corrects data.{part}, which is empty; give both, or neither")
        fixed = NEGATIVE.get(self.labels)
        if fixed and self.negative not in ("", fixed):
            raise UserError(
                f"data.negative is {self.negative!r}, but labels = {self.labels!r} has {fixed!r}; leave it empty, or "
                f"set data.labels to 'from_train'"
            )

    def _check_draws(self) -> None:
        counts = {
            "train_count": self.train_count,
            "dev_count": self.dev_count,
            "test_count": self.test_count,
            "dev_from_train": self.dev_from_train,
        }
        require_draws(counts, self.seed)
        shares = (("train", self.train_share, self.train_count), ("dev", self.dev_share, self.dev_count))
        for part, share, count in shares:
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
        """Return whether there will be development data."""
        return bool(self.dev) or self.dev_from_train > 0

    @property
    def embeds_labels(self) -> bool:
        """Return whether the label is part of what the passage tower reads."""
        return self.key_style == "published"

    @property
    def _reading(self) -> RelationReading:
        return RelationReading(self.format, self.offsets, self.fields)

    @property
    def _files(self) -> dict[str, tuple[str, str]]:
        """Return the file and the patch of every part."""
        return {
            "train": (self.train, self.train_patch),
            "dev": (self.dev, self.dev_patch),
            "test": (self.test, self.test_patch),
        }

    def load(self, seed: int, task: Task | None = None) -> Data:
        """Read, correct, draw and verbalise, as `DataKind.load`."""
        known = None if task is None else relation_extraction(task, "data.kind = relations")
        draws = Draws(draw_seed(self.seed, seed), "instances", stratify, self.dev_from_train)
        whole = self._read_part("train")
        require_relations(whole.instances, self.train)
        parts = self._draw_parts(whole, draws)
        relations = known or relation_task(self, whole.instances, parts["train"].instances)
        require_two_labels(relations, self.templates or self.train)
        more = read_more(Path(self.more), relations) if self.more else []
        train = [*parts["train"].instances, *more]
        parts["train"] = replace(parts["train"], instances=train)
        sources = {"train": self.train, "dev": self.dev or self.train, "test": self.test}
        examples = {
            name: self._examples(relations, part.instances, sources[name], is_scored=name != "train")
            for name, part in parts.items()
        }
        draw_record: JsonObject = {
            "seed": draws.seed,
            **{name: part.record(relations.phrases) for name, part in parts.items() if part.instances},
        }
        passages = [relations.passage(instance) for instance in train]
        if self.base_labels == "shuffled":
            titles = random.Random(draws.seed).sample([passage.title for passage in passages], len(passages))
            passages = [replace(passage, title=title) for passage, title in zip(passages, titles, strict=True)]
        return Data(relations, KnowledgeBase.from_passages(passages), **examples, draw_record=draw_record)

    def _draw_parts(self, whole: RelationPart, draws: Draws[RelationInstance]) -> dict[str, RelationPart]:
        """Read and draw all parts; development data held out of training are drawn no further."""
        rest, dev_instances = draws.hold_out(whole.instances, self.train)
        train_pool = replace(whole, instances=rest, available=len(rest)) if dev_instances else whole
        train = train_pool.draw(draws, "train", self.train, self.train_count, self.train_share)
        if dev_instances:
            dev = RelationPart(dev_instances, whole.available)
        else:
            dev = self._read_part("dev").draw(draws, "dev", self.dev, self.dev_count, self.dev_share)
        test = self._read_part("test").draw(draws, "test", self.test, self.test_count)
        return {"train": train, "dev": dev, "test": test}

    def _read_part(self, part: str) -> RelationPart:
        """Read a whole part, with corrected labels; empty where there is no source."""
        return read_part(part, *self._files[part], self._reading, raise_error)

    def read(self, path: Path, patch: Path | None, task: Task, base: KnowledgeBase) -> list[Example]:
        """Read another file, as `DataKind.read`; a ``patch`` corrects labels."""
        relations = relation_extraction(task, "data.kind = relations")
        instances = read_instances(path, self._reading, patch)
        return self._examples(relations, instances, str(path), is_scored=True)

    def own_records(self, path: Path, refuse: Refuse) -> Iterator[JsonObject]:
        """Yield the instances of a file, as `DataKind.own_records`."""
        return map(instance_record, self._reading.read(path, refuse))

    def read_pairs(self, path: Path, task: Task) -> list[tuple[RelationInstance, Example]]:
        """Read marked pairs in any format that training reads, or all pairs of text with ``entities``."""
        relations = relation_extraction(task, "extract")
        if has_entities(path):
            both_orders = not relations.has_directed_labels
            instances = list(read_entity_pairs(path, both_orders, offsets=self.offsets))
        else:
            instances = read_instances(path, self._reading, None)
        self._warn_of_offsets(path, instances)
        examples = self._examples(relations, instances, str(path), is_scored=True)
        return list(zip(instances, examples, strict=True))

    def _examples(
        self, task: RelationExtraction, instances: Sequence[RelationInstance], source: str, is_scored: bool
    ) -> list[Example]:
        """Return instances in the task's words; those to be scored may have labels that it does not know, if so set."""
        permits_unseen = is_scored and self.unseen_labels == "wrong"
        return labelled_examples(task, instances, source, self.labels, permits_unseen)

    def _warn_of_offsets(self, path: Path, instances: Sequence[RelationInstance]) -> None:
        """Say which entities begin or end inside a word or on a space, where the file states them by offsets."""
        if instances and (has_entities(path) or self._reading.states_offsets(path)):
            check = check_offsets(instances, str(path), self.offsets)
            if check.first is not None:
                say(f"{check.first[0]}: {'; '.join(check.message())}")

    def task_record(self, task: Task) -> JsonObject:
        """Return the words of the labels, and the type constraints learned."""
        relations = relation_extraction(task, "data.kind = relations")
        constraints = None if relations.constraints is None else relations.constraints.to_record()
        return {"relations": relations.verbalisation.to_record(), "type_constraints": constraints}

    def task_from_record(self, record: object, where: str) -> RelationExtraction:
        """Return the task of a record, as `DataKind.task_from_record`."""
        if not isinstance(record, Mapping) or set(record) != {"relations", "type_constraints"}:
            raise UserError(f"{where}: expected the relations and type constraints of the run; train it again")
        value = record["type_constraints"]
        constraints = None if value is None else TypeConstraints.from_record(value, f"{where}: type_constraints")
        return task_of(self, Verbalisation.from_record(record["relations"], f"{where}: relations"), constraints)

    def from_root(self) -> RelationData:
        """Return the settings with absolute names of files."""
        return replace(
            self,
            train=absolute_file(self.train),
            dev=absolute_file(self.dev),
            test=absolute_file(self.test),
            more=absolute_file(self.more),
            train_patch=absolute_file(self.train_patch),
            dev_patch=absolute_file(self.dev_patch),
            test_patch=absolute_file(self.test_patch),
            templates=absolute_file(self.templates),
        )

    @classmethod
    def for_files(cls, format: str) -> RelationData:  # noqa: A002
        """Return the settings of bare files: of their format, and with the labels that stand in them."""
        return read_record(RelationData, {"format": format, "labels": "from_train"}, "--kind relations")

    @classmethod
    def from_python(cls, task: Task, sources: Mapping[str, ExampleSource], folder: Path) -> RelationData | None:
        """Write relation instances, and return settings as `DataKind.from_python` does."""
        if type(task) is not RelationExtraction:
            return None
        files = write_examples(sources, folder, RelationInstance, read_relations, instance_record)
        return replace(_settings_of(task), **files)

    def open_parts(self, sources: Mapping[str, str], findings: Findings) -> DataParts:
        """Open all parts, as `DataKind.open_parts`; without the task where its labels cannot be worded."""
        instances = {name: self._instances(name, source, findings) for name, source in sources.items()}
        train = instances.get("train") or [instance for part in instances.values() for instance in part]
        try:
            task = relation_task(self, train, train)
            if "train" in sources:
                require_two_labels(task, self.templates or self.train)
        except UserError as error:
            if train or not findings.total("error"):  # else why nothing could be read has been said
                findings.error("labels", "train", self.templates or ", ".join(sources.values()), *split_message(error))
            return DataParts(None, tuple(DataPart(name, source, lambda: iter(())) for name, source in sources.items()))
        permitted = () if self.unseen_labels == "refuse" else ("dev", "test")
        worded = {
            name: report_examples(task, name, sources[name], part, findings, permits_unseen=name in permitted)
            for name, part in instances.items()
        }
        parts = tuple(DataPart(name, sources[name], lambda part=part: iter(part)) for name, part in worded.items())
        return DataParts(
            task, parts, neighbours=[task.passage(instance) for instance in train if instance.relation in task.phrases]
        )

    def open_base(self, findings: Findings) -> BaseFile | None:
        """Return None: the training instances are the passages."""
        return None

    def _instances(self, name: str, source: str, findings: Findings) -> list[RelationInstance]:
        """Return all instances of a part, or of a bare file, which is read as training data are."""
        part, patch = (name, self._files[name][1]) if name in self._files else ("train", "")
        if name == "more":
            taught = teach(Path(source), Verdict.relation, findings.refusing(name, source))
            return [instance for _, _, instance in taught if instance is not None]
        try:
            read = read_part(part, source, patch, self._reading, findings.refusing(name, source))
            report_offsets(name, source, read.instances, self._reading, findings)
            return read.instances
        except UserError as error:
            findings.fault(name, source, error)
            return []


def _settings_of(task: RelationExtraction) -> RelationData:
    """Return settings, without files, for a task; the words of its labels have no place there."""
    labels = next((labels for labels, name in TASK_NAMES.items() if name == task.name), "from_train")
    return replace(
        RelationData(train="", test=""),
        labels=labels,
        negative=(task.negative or "") if labels == "from_train" else "",
        metric="macro" if task.metric == "macro" else "micro",
        query_style=task.query_style,
        neighbour_style=task.neighbour_style,
        target_style=task.target_style,
        input_style=task.input_style,
        key_style=task.key_style,
        exclude=task.exclude,
        type_constraints=task.constraints is not None,
    )
