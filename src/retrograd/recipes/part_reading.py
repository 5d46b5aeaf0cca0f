"""The parts of data, to be read one example at a time with all that is malformed reported, not only the first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from retrograd.corpus.corpus_formats import read_corpus
from retrograd.io import Refuse, line_count
from retrograd.progress import bar
from retrograd.recipes.findings import Findings, halves
from retrograd.recipes.grounded_data import CorpusData, DialogueData, QuestionData
from retrograd.recipes.relation_data import RelationData, read_all_instances, relation_task
from retrograd.recipes.source import Source
from retrograd.records import read_record
from retrograd.tasks.relation_extraction import RelationExtraction
from retrograd.tasks.relation_instance import RelationInstance
from retrograd.tasks.splitting import split_passages
from retrograd.tasks.task import Task
from retrograd.types import Example, Passage, UserError

__all__ = ["DATA_KINDS", "Opened", "Part", "open_data", "open_files"]

DATA_KINDS = ("relations", "questions", "dialogue", "corpus")
"""What bare files can hold."""

_PARTS = ("train", "dev", "test")

T = TypeVar("T")
Labelled = tuple[Example, str | None]


@dataclass(frozen=True)
class Part:
    """A file, or a part of the built-in data; ``examples`` reads it anew at each call, with the labels of relations."""

    name: str
    source: str
    examples: Callable[[], Iterator[Labelled]]


@dataclass(frozen=True)
class Opened:
    """The parts that there are. ``passages`` reads the base anew at each call, from the file ``source``.

    For relations the training instances are the passages, ``neighbours``, and there is no base beside them. ``task`` is
    None where there is none, or none can be made.
    """

    task: Task | None
    parts: tuple[Part, ...]
    source: str = ""
    passages: Callable[[], Iterator[Passage]] | None = None
    neighbours: Sequence[Passage] = ()


def open_data(data: Source, findings: Findings) -> Opened:
    """All parts of an experiment's data."""
    if isinstance(data, RelationData):
        return _relations(data, {name: vars(data)[name] for name in _PARTS if vars(data)[name]}, findings)
    if not isinstance(data, CorpusData):
        raise TypeError(f"no way to read {type(data).__name__} part by part")
    parts = [_examples(data, name, vars(data)[name], findings) for name in _PARTS if vars(data)[name]]
    if not data.base:
        findings.error("missing", "base", "data.base", "names no knowledge base", "give a file of passages")
        return Opened(data.task(), tuple(parts))
    return _with_base(Opened(data.task(), tuple(parts)), data, data.base, findings)


def open_files(paths: Sequence[Path], kind: str, format: str, findings: Findings) -> list[Opened]:  # noqa: A002
    """Bare files as the parts of one set of data; of a corpus, each by itself. Raises `UserError` for a format that the
    kind does not have, or a name that stands twice."""
    names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise UserError(f"{next(one for one in names if names.count(one) > 1)} is named twice; name each file once")
    if kind == "corpus":
        return [_corpus(name, format, findings) for name in names]
    if kind == "relations":
        data = read_record(RelationData, {"format": format, "labels": "from_train"}, "--kind relations")
        return [_relations(data, {name: name for name in names}, findings)]
    made: type[CorpusData] = {"questions": QuestionData, "dialogue": DialogueData}[kind]
    data = read_record(made, {"format": format}, f"--kind {kind}")
    return [Opened(data.task(), tuple(_examples(data, name, name, findings) for name in names))]


# ---- relations ----------------------------------------------------------------------------------------------------


def _relations(data: RelationData, sources: dict[str, str], findings: Findings) -> Opened:
    """The instances of all parts; without the task where its labels cannot be worded."""
    instances = {name: _instances(data, name, source, findings) for name, source in sources.items()}
    train = instances.get("train") or [one for found in instances.values() for one in found]
    try:
        task = relation_task(data, train, train)
    except UserError as error:
        if train or not findings.total("error"):  # else why nothing could be read has been said
            findings.error("labels", "train", data.templates or ", ".join(sources.values()), *halves(error))
        return Opened(None, tuple(Part(name, source, lambda: iter(())) for name, source in sources.items()))
    worded = {
        name: _worded(task, name, sources[name], found, findings) if found else [] for name, found in instances.items()
    }
    parts = tuple(Part(name, sources[name], lambda found=found: iter(found)) for name, found in worded.items())
    return Opened(task, parts, neighbours=[task.passage(one) for one in train if one.relation in task.phrases])


def _instances(data: RelationData, name: str, source: str, findings: Findings) -> list[RelationInstance]:
    refuse = findings.refusing(name, source)
    try:
        part = name if name in _PARTS else "train"
        return read_all_instances(replace(data, **{part: source}), part, refuse)
    except UserError as error:
        findings.fault(name, source, error)
        return []


def _worded(
    task: RelationExtraction, name: str, source: str, instances: Sequence[RelationInstance], findings: Findings
) -> list[Labelled]:
    """Instances in the task's words; what has a label without words is reported and left out."""
    found: list[Labelled] = []
    for instance in instances:
        try:
            found.append((task.example(instance), instance.relation))
        except UserError as error:
            findings.error("labels", name, f"{source}, id {instance.id!r}", *halves(error))
    return found


# ---- questions, dialogues, passages -------------------------------------------------------------------------------


def _examples(data: CorpusData, name: str, source: str, findings: Findings) -> Part:
    def read() -> Iterator[Labelled]:
        refuse = findings.refusing(name, source)
        for example in _counted(name, source, lambda: data.examples(Path(source), refuse), findings):
            yield example, None

    return Part(name, source, read)


def _with_base(opened: Opened, data: CorpusData, source: str, findings: Findings) -> Opened:
    def passages(refuse: Refuse) -> Iterator[Passage]:
        documents = data.documents(Path(source), refuse)
        return iter(documents if data.splitting is None else split_passages(documents, data.splitting))

    return _with_passages(opened, source, passages, findings)


def _corpus(source: str, format: str, findings: Findings) -> Opened:  # noqa: A002
    opened = Opened(None, ())
    return _with_passages(opened, source, lambda refuse: read_corpus(Path(source), format, refuse), findings)


def _with_passages(
    opened: Opened, source: str, passages: Callable[[Refuse], Iterator[Passage]], findings: Findings
) -> Opened:
    """The first reading reports what is malformed; another one says nothing of it again."""
    readings: list[Refuse] = [findings.refusing("base", source)]

    def read() -> Iterator[Passage]:
        refuse = readings.pop() if readings else _silently
        return _counted("base", source, lambda: passages(refuse), findings if refuse is not _silently else None)

    return replace(opened, source=source, passages=read)


def _silently(_: UserError) -> None:
    pass


def _counted(name: str, source: str, read: Callable[[], Iterable[T]], findings: Findings | None) -> Iterator[T]:
    """What is read, with a bar; what ends the reading is a finding."""
    try:
        with bar(f"reading {source}", line_count(Path(source)), "records") as advance:
            for one in read():
                advance(1)
                yield one
    except UserError as error:
        if findings is not None:
            findings.fault(name, source, error)
