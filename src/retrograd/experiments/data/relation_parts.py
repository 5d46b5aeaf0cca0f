"""Read, correct and draw the instances of one part of relation data, and put them into the words of a task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from retrograd.data.offsets import Offsets, SpanCheck
from retrograd.data.relations.formats import read_relations, states_offsets
from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.semeval import load_semeval
from retrograd.data.relations.tacred import read_patch
from retrograd.experiments.data.draws import Draws
from retrograd.experiments.data.findings import Findings, split_message
from retrograd.experiments.data.part_reading import LabelledExample
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.types import Example, Span, UserError
from retrograd.util.fingerprints import fingerprint
from retrograd.util.guards import JsonObject
from retrograd.util.text_files import Refuse

__all__ = [
    "BUILTIN_DATA",
    "RelationPart",
    "check_offsets",
    "instance_record",
    "labelled_examples",
    "read_instances",
    "read_part",
    "report_examples",
    "report_offsets",
    "require_relations",
]

BUILTIN_DATA = "builtin:semeval2010_task8"
"""The data set in the package, as settings name it."""


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

    def record(self) -> JsonObject:
        """Return the record of what was drawn from this part. The hash is of the sorted ids."""
        by_label = Counter(instance.relation or "" for instance in self.instances)
        return {
            "instances": len(self.instances),
            "available": self.available,
            "relabelled_by_patch": self.relabelled,
            "dropped_by_patch": self.dropped,
            "ids_sha256": fingerprint(sorted(instance.id for instance in self.instances)),
            "by_label": dict(sorted(by_label.items())),
        }


def require_relations(instances: list[RelationInstance], source: str) -> None:
    for instance in instances:
        if instance.relation is None:
            raise UserError(
                f"{source}, instance {instance.id!r} (without ids: the line): no relation; training needs one in each "
                f'record, as "relation": "…"'
            )


def labelled_examples(
    task: RelationExtraction, instances: Sequence[RelationInstance], source: str, labels: str
) -> list[Example]:
    """Return the instances in the task's words; ``labels`` is the setting that the task was made from.

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


def read_instances(
    path: Path,
    format: str,  # noqa: A002
    patch: Path | None,
    offsets: Offsets,
) -> list[RelationInstance]:
    """Read all instances of a file, with corrected labels where there is a patch. Raises `UserError` as readers do."""
    instances = list(read_relations(path, format, offsets=offsets))
    return instances if patch is None else read_patch(patch).apply(instances, str(path))


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


def read_part(
    part: str,
    source: str,
    patch: str,
    format: str,  # noqa: A002
    offsets: Offsets,
    refuse: Refuse,
) -> RelationPart:
    """Read a whole part, with corrected labels; empty where there is no source."""
    if not source:
        return RelationPart([], 0)
    if source == BUILTIN_DATA:
        instances = load_semeval(part)
    elif source.startswith("builtin:"):
        raise UserError(f"no built-in data set {source!r}; there is {BUILTIN_DATA}")
    else:
        instances = list(read_relations(Path(source), format, refuse, offsets))
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
    format: str,  # noqa: A002
    offsets: Offsets,
    findings: Findings,
) -> None:
    """Report entities of a part that begin or end inside a word or on a space, where it states them by offsets."""
    if source and not source.startswith("builtin:") and instances and states_offsets(Path(source), format):
        check = check_offsets(instances, source, offsets)
        if check.first is not None:
            findings.warning("offsets", name, check.first[0], *check.message())


def report_examples(
    task: RelationExtraction, name: str, source: str, instances: Sequence[RelationInstance], findings: Findings
) -> list[LabelledExample]:
    """Return the instances in the task's words; one whose label has no words is reported and left out."""
    examples: list[LabelledExample] = []
    for instance in instances:
        try:
            examples.append((task.example(instance), instance.relation))
        except UserError as error:
            findings.error("labels", name, f"{source}, id {instance.id!r}", *split_message(error))
    return examples
