"""Read, correct and draw the instances of one part of relation data, and put them into the words of a task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from retrograd.data.feedback import Verdict, describe_verdicts, teach
from retrograd.data.field_maps import RelationFields
from retrograd.data.hub import data_path
from retrograd.data.offsets import Offsets, SpanCheck
from retrograd.data.relations.formats import read_relations, states_offsets
from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.semeval import load_semeval
from retrograd.data.relations.tacred import read_patch
from retrograd.experiments.data.draws import Draws
from retrograd.experiments.data.findings import Findings, split_message
from retrograd.experiments.data.part_reading import LabelledExample
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.tasks.relations.unseen_labels import count_unseen, describe_unseen
from retrograd.types import Example, Span, UserError
from retrograd.util.fingerprints import fingerprint
from retrograd.util.guards import JsonObject, suggest_name
from retrograd.util.progress import say
from retrograd.util.text_files import Refuse, raise_error

__all__ = [
    "BUILTIN_DATA",
    "RelationPart",
    "RelationReading",
    "check_offsets",
    "instance_record",
    "labelled_examples",
    "read_instances",
    "read_more",
    "read_part",
    "report_examples",
    "report_offsets",
    "require_relations",
]

BUILTIN_DATA = "builtin:semeval2010_task8"
"""The data set in the package, as settings name it."""


_UNSEEN = 'in data that are only scored, data.unseen_labels = "wrong" counts such labels as wrong'


@dataclass(frozen=True)
class RelationReading:
    """How files are read: their format, what their offsets count, and where their records have what."""

    format: str
    offsets: Offsets
    fields: RelationFields

    def read(self, path: Path, refuse: Refuse = raise_error) -> list[RelationInstance]:
        """Return all instances of a file. Raises `UserError` as readers do."""
        return list(read_relations(path, self.format, refuse, self.offsets, self.fields))

    def states_offsets(self, path: Path) -> bool:
        """Return whether a file states its entities by offsets in texts."""
        return states_offsets(path, "rows" if self.fields.paths else self.format)


@dataclass(frozen=True)
class RelationPart:
    """Instances of one part; ``available`` is how many there were to draw from."""

    instances: list[RelationInstance]
    available: int
    relabelled: int = 0
    dropped: int = 0

    def draw(
        self, draws: Draws[RelationInstance], name: str, source: str, count: int, share: float = 0.0
    ) -> RelationPart:
        """Return the part with only the instances that are drawn."""
        return replace(self, instances=draws.take(self.instances, name, source, count, share))

    def record(self, labels: Collection[str]) -> JsonObject:
        """Return the record of what was drawn from this part. The hash is of the sorted ids.

        ``labels`` are those of the task; where the part has others, ``unseen_labels`` counts them.
        """
        by_label = Counter(instance.relation or "" for instance in self.instances)
        unseen = {label: count for label, count in sorted(by_label.items()) if label and label not in labels}
        return {
            "instances": len(self.instances),
            "available": self.available,
            "relabelled_by_patch": self.relabelled,
            "dropped_by_patch": self.dropped,
            "ids_sha256": fingerprint(sorted(instance.id for instance in self.instances)),
            "by_label": dict(sorted(by_label.items())),
            **({"unseen_labels": {**unseen}} if unseen else {}),
        }


def require_relations(instances: list[RelationInstance], source: str) -> None:
    for instance in instances:
        if instance.relation is None:
            raise UserError(
                f"{source}, instance {instance.id!r} (without ids: the line): no relation; training needs one in each "
                f'record, as "relation": "…"'
            )


def labelled_examples(
    task: RelationExtraction,
    instances: Sequence[RelationInstance],
    source: str,
    labels: str,
    permits_unseen: bool = False,
) -> list[Example]:
    """Return the instances in the task's words; ``labels`` is the setting that the task was made from.

    With ``permits_unseen`` a relation that the task does not know is one that no answer can name, and these are said.
    Without it raises `UserError` with source and instance for such a relation.
    """
    others = {
        "semeval": "",
        "tacred": '; "retacred" has those of Re-TACRED',
        "retacred": '; "tacred" has those of TACRED',
    }
    own = f'data.labels = "from_train" takes those of your own data{others[labels]}' if labels in others else _UNSEEN
    examples: list[Example] = []
    for instance in instances:
        try:
            examples.append(task.example(instance, permits_unseen))
        except UserError as error:
            raise UserError(f"{source}, instance {instance.id!r} (without ids: the line): {error} ({own})") from None
    if unseen := count_unseen(examples):
        say(f"{source}: {describe_unseen(unseen, len(examples))}")
    return examples


def read_instances(path: Path, reading: RelationReading, patch: Path | None) -> list[RelationInstance]:
    """Read all instances of a file, with corrected labels where there is a patch. Raises `UserError` as readers do."""
    instances = reading.read(path)
    return instances if patch is None else read_patch(patch).apply(instances, str(path))


def read_more(path: Path, task: RelationExtraction) -> list[RelationInstance]:
    """Return the instances of verdicts that name the right relation, and say which verdicts do not.

    Raises `UserError` with file and line for a malformed verdict, and for a relation that the task does not know.
    """
    verdicts: list[Verdict] = []
    instances: list[RelationInstance] = []
    for number, verdict, instance in teach(path, Verdict.relation):
        verdicts.append(verdict)
        if instance is not None:
            if instance.relation not in task.phrases:
                advice = suggest_name(str(instance.relation), task.phrases)
                raise UserError(f"{path}, line {number}: no relation {instance.relation!r} in these data; {advice}")
            instances.append(instance)
    describe_verdicts(verdicts, keeps_passages=False)
    return instances


def instance_record(instance: RelationInstance) -> JsonObject:
    """Return the fields of an instance in the format ``jsonl`` of `retrograd.data.relations.formats`."""
    return {
        "id": instance.id,
        "text": instance.text,
        "head": [instance.head.start, instance.head.end],
        "tail": [instance.tail.start, instance.tail.end],
        "relation": instance.relation,
        "head_type": instance.head_type,
        "tail_type": instance.tail_type,
    }


def read_part(part: str, source: str, patch: str, reading: RelationReading, refuse: Refuse) -> RelationPart:
    """Read a whole part, with corrected labels; empty where there is no source."""
    if not source:
        return RelationPart([], 0)
    if source == BUILTIN_DATA:
        instances = load_semeval(part)
    elif source.startswith("builtin:"):
        raise UserError(f"no built-in data set {source!r}; there is {BUILTIN_DATA}")
    else:
        instances = reading.read(data_path(source), refuse)
    if not patch:
        return RelationPart(instances, len(instances))
    before = {instance.id: instance.relation for instance in instances}
    patched = read_patch(Path(patch)).apply(instances, source)
    relabelled = sum(before[instance.id] != instance.relation for instance in patched)
    return RelationPart(patched, len(patched), relabelled, len(instances) - len(patched))


def check_offsets(instances: Iterable[RelationInstance], source: str, offsets: Offsets) -> SpanCheck:
    """Check whether the entities of a file that states them by offsets begin and end as words do, each once."""
    check = SpanCheck("data.offsets", offsets)
    checked: set[tuple[str, Span]] = set()
    for instance in instances:
        for name, span in (("head", instance.head), ("tail", instance.tail)):
            if (instance.text, span) in checked:
                continue
            checked.add((instance.text, span))
            check.add(f"{source}, id {instance.id!r}", name, instance.text, span)
    return check


def report_offsets(
    name: str,
    source: str,
    instances: Sequence[RelationInstance],
    reading: RelationReading,
    findings: Findings,
) -> None:
    """Report entities of a part that begin or end inside a word or on a space, where it states them by offsets."""
    if source and not source.startswith("builtin:") and instances and reading.states_offsets(data_path(source)):
        check = check_offsets(instances, source, reading.offsets)
        if check.first is not None:
            findings.warning("offsets", name, check.first[0], *check.message())


def report_examples(
    task: RelationExtraction,
    name: str,
    source: str,
    instances: Sequence[RelationInstance],
    findings: Findings,
    permits_unseen: bool = False,
) -> list[LabelledExample]:
    """Return the instances in the task's words; one whose label has no words is reported and left out, unless
    ``permits_unseen`` takes it as one that no answer can name."""
    examples: list[LabelledExample] = []
    for instance in instances:
        try:
            examples.append((task.example(instance, permits_unseen), instance.relation))
        except UserError as error:
            findings.error("labels", name, f"{source}, id {instance.id!r}", *split_message(error))
    return examples
