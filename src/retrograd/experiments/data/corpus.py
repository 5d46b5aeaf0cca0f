"""Data that are answered from a corpus share these settings, the reading of the corpus, gold passages and draws."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from retrograd.data.documents.windows import Windows
from retrograd.data.examples import gold_passages
from retrograd.data.feedback import Verdict, describe_verdicts, teach
from retrograd.data.field_maps import PassageFields
from retrograd.data.hub import data_path
from retrograd.data.passages import holds_documents, read_corpus
from retrograd.data.qrels import mark_gold, read_qrels
from retrograd.data.relations.instance import RelationInstance
from retrograd.data.sentences import Language
from retrograd.data.splitting import Splitting, split_passages
from retrograd.data.squad import NO_ANSWER
from retrograd.experiments.data.draws import Draws, draw_seed, require_draws, shuffle
from retrograd.experiments.data.example_files import ExampleSource
from retrograd.experiments.data.findings import Findings
from retrograd.experiments.data.part_reading import BaseFile, DataParts, base_file, example_file
from retrograd.experiments.data.source import Data, absolute_file, relation_extraction
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.tasks.relevance import drop_unknown_texts, gold_rows, rows_by_id
from retrograd.tasks.task import Task
from retrograd.types import Example, Passage, UserError
from retrograd.util.fingerprints import fingerprint
from retrograd.util.guards import JsonObject
from retrograd.util.progress import say
from retrograd.util.records import read_record
from retrograd.util.text_files import Refuse, raise_error

__all__ = ["CorpusData"]


@dataclass(frozen=True)
class CorpusData(ABC):
    """Settings that questions and dialogues share: a knowledge base, and examples answered from it.

    ``base`` is the file of the passages, the only one that they are retrieved from, or a folder of documents: text,
    Markdown, HTML and PDF files. ``base_fields`` says where the records of a file have text, title and id, where they
    name them in another way: the name of a field, or a path such as ``body.plain``. ``base_windows`` is how documents
    are cut into passages (`retrograd.data.documents.windows`). ``train``, ``dev`` and ``test`` are files of examples.

    ``split_words`` cuts the documents of the base into passages of so many words (0: they are passages as they are),
    ``split_overlap`` of which stand in the passage before as well. ``split_at`` says whether at any of the words or at
    the ends of sentences, ``split_language`` by which rule these end: "en", or "any" (`Windows`). ``dev_from_train``
    holds so many training examples out as development data; then ``train_count``, ``dev_count`` and ``test_count`` draw
    that many (0: all), shuffled and nested. ``seed`` is that of all draws (-1: the experiment's). ``more`` is a file of
    verdicts that a served run has kept (`retrograd.data.feedback`): those that name the right answer are training
    examples beside the drawn ones.

    ``titles`` shows passages with their titles. ``query_prefix`` and ``passage_prefix`` stand before what the towers
    read, for encoders that were trained with an instruction. ``instruction`` begins every prompt. ``metric`` is the
    score that counts. ``unanswerable`` examples are dropped, or kept, with the target "cannot answer". ``qrels`` is a
    file that says which passages are gold, for scores alone (`retrograd.data.qrels`). An answer that more than
    ``most_share`` of the passages support, or more than ``most_passages``, is no evidence for the warm start.
    """

    kind: ClassVar[str]
    has_closed_answers: ClassVar[bool] = False
    train_is_base: ClassVar[bool] = False
    embeds_labels = False
    answers_stand_in_base: ClassVar[bool] = False
    """Whether passages are expected to hold answers word for word."""

    base: str = ""
    base_fields: PassageFields = field(default_factory=PassageFields)
    base_windows: Windows = field(default_factory=Windows)
    train: str = ""
    dev: str = ""
    test: str = ""
    more: str = ""
    train_count: int = 0
    dev_from_train: int = 0
    dev_count: int = 0
    test_count: int = 0
    seed: int = -1
    split_words: int = 0
    split_overlap: int = 0
    split_at: Literal["words", "sentences"] = "words"
    split_language: Language = "en"
    unanswerable: Literal["drop", "keep"] = "drop"
    titles: bool = True
    query_prefix: str = ""
    passage_prefix: str = ""
    most_share: float = 0.02
    most_passages: int = 100
    qrels: str = ""

    def __post_init__(self) -> None:
        counts = {
            "train_count": self.train_count,
            "dev_from_train": self.dev_from_train,
            "dev_count": self.dev_count,
            "test_count": self.test_count,
            "split_words": self.split_words,
        }
        require_draws(counts, self.seed)
        if self.dev_from_train and (self.dev or self.dev_count):
            raise UserError("data.dev_from_train makes the development data; leave data.dev and dev_count out")
        _ = self.splitting  # which checks its own numbers

    @property
    def has_dev(self) -> bool:
        """Return whether there will be development data."""
        return bool(self.dev) or self.dev_from_train > 0

    @property
    def base_source(self) -> str:
        """Return the file of the knowledge base."""
        return self.base

    @property
    def splitting(self) -> Splitting | None:
        """Return how documents are cut into passages."""
        if not self.split_words:
            return None
        return Splitting(self.split_words, self.split_overlap, self.split_at, self.split_language)

    def load(self, seed: int, task: Task | None = None) -> Data:
        """Read, mark gold passages and draw, as `DataKind.load`."""
        if not self.base:
            raise UserError("data.base names no knowledge base; give a file of passages")
        draws: Draws[Example] = Draws(draw_seed(self.seed, seed), "examples", shuffle, self.dev_from_train)
        base = KnowledgeBase.from_passages(self.passages(data_path(self.base), raise_error))
        sources = {"train": self.train, "dev": self.dev, "test": self.test}
        all_parts = self._mark_gold({name: self._read_part(name, source) for name, source in sources.items()})
        rest, dev_examples = draws.hold_out(all_parts["train"], self.train)
        parts = {
            "train": draws.take(self.select_teachable(rest), "train", self.train, self.train_count),
            "dev": dev_examples or draws.take(all_parts["dev"], "dev", self.dev, self.dev_count),
            "test": draws.take(all_parts["test"], "test", self.test, self.test_count),
        }
        if self.more:
            parts["train"] = [*parts["train"], *self._learn_from_use()]
        record: JsonObject = {"seed": draws.seed, "passages": len(base)}
        for name, examples in parts.items():
            ids = fingerprint(sorted(example.id for example in examples))
            record[name] = {"examples": len(examples), "ids_sha256": ids}
        known = self._resolve_gold(parts, base, ("dev", "test"))
        return Data(task or self.task(), base, known["train"], known["dev"], known["test"], draw_record=record)

    def read(self, path: Path, patch: Path | None, task: Task, base: KnowledgeBase) -> list[Example]:
        """Read another file, as `DataKind.read`. Runs need no training files: where ``qrels`` is gone, examples have
        the gold passages that they bring."""
        if patch is not None:
            raise UserError(f"--patch {patch} corrects relations; the task of this run is {task.name}")
        settings = self if Path(self.qrels).exists() else replace(self, qrels="")
        return self._resolve_gold({"read": list(settings.examples(path))}, base)["read"]

    def read_pairs(self, path: Path, task: Task) -> list[tuple[RelationInstance, Example]]:
        """Raise `UserError`: these data have no pairs of entities."""
        relation_extraction(task, "extract")
        raise UserError(f"data of kind {self.kind} have no pairs of entities; set data.kind = relations")

    def task_record(self, task: Task) -> JsonObject:
        """Return an empty record: the settings hold the whole task."""
        return {}

    def task_from_record(self, record: object, where: str) -> Task:
        """Return the task of these settings, as `DataKind.task_from_record`."""
        if record != {}:
            raise UserError(f"{where}: expected an empty table; train the run again")
        return self.task()

    def from_root(self) -> CorpusData:
        """Return the settings with absolute names of files."""
        return replace(
            self,
            base=absolute_file(self.base),
            train=absolute_file(self.train),
            dev=absolute_file(self.dev),
            test=absolute_file(self.test),
            more=absolute_file(self.more),
            qrels=absolute_file(self.qrels),
        )

    @classmethod
    def for_files(cls, format: str) -> CorpusData:  # noqa: A002
        """Return the settings of bare files of a format."""
        return read_record(cls, {"format": format}, f"--kind {cls.kind}")

    @classmethod
    def from_python(cls, task: Task, sources: Mapping[str, ExampleSource], folder: Path) -> CorpusData | None:
        """Return None: unless a kind has a method of its own, no task from Python is recorded as its data."""
        return None

    def open_parts(self, sources: Mapping[str, str], findings: Findings) -> DataParts:
        """Open files of examples, as `DataKind.open_parts`."""
        parts = [
            example_file(name, source, self._read_verdicts if name == "more" else self.examples, findings)
            for name, source in sources.items()
        ]
        return DataParts(self.task(), tuple(parts), answers_stand_in_base=self.answers_stand_in_base)

    def open_base(self, findings: Findings) -> BaseFile | None:
        """Open the passages, as `DataKind.open_base`."""
        if self.base:
            return base_file(self.base, self.passages, findings)
        findings.error("missing", "base", "data.base", "names no knowledge base", "give a file of passages")
        return None

    @abstractmethod
    def task(self) -> Task:
        """Return the task that these settings make."""

    def examples(self, path: Path, refuse: Refuse = raise_error) -> Iterable[Example]:
        """Yield the examples of a file, with their gold passages; malformed ones go to ``refuse``."""
        examples = self.read_examples(path, refuse)
        return mark_gold(examples, read_qrels(Path(self.qrels))) if self.qrels else examples

    def example_of(self, verdict: Verdict, id: str) -> Example:  # noqa: A002 (the record's field)
        """Return the example that a verdict makes: a question. Raises `UserError` where it is not of this kind."""
        return verdict.question(id)

    def _learn_from_use(self) -> list[Example]:
        """Return the examples of ``more``, and say which verdicts make none."""
        read = list(teach(Path(self.more), self.example_of))
        describe_verdicts([verdict for _, verdict, _ in read], keeps_passages=True)
        return [example for _, _, example in read if example is not None]

    def _read_verdicts(self, path: Path, refuse: Refuse) -> Iterator[Example]:
        return (example for _, _, example in teach(path, self.example_of, refuse) if example is not None)

    def select_teachable(self, examples: list[Example]) -> list[Example]:
        """Return the examples that can be trained on, with targets that can be written."""
        return examples

    @abstractmethod
    def read_examples(self, path: Path, refuse: Refuse) -> Iterable[Example]:
        """Yield the examples of a file as the file has them."""

    def own_records(self, path: Path, refuse: Refuse) -> Iterator[JsonObject]:
        """Yield the records of a file, as `DataKind.own_records`: without what is empty, and no answer as ``[]``."""
        for example in replace(self, unanswerable="keep").read_examples(path, refuse):
            record = {name: value for name, value in self.example_record(example).items() if value not in ([], ())}
            yield record if example.targets != (NO_ANSWER,) else {**record, "answers": []}

    @staticmethod
    def example_record(example: Example) -> JsonObject:
        """Return the fields of an example in this project's own format; here those of a question."""
        return {
            "id": example.id,
            "question": example.query,
            "answers": list(example.targets),
            "gold_passages": list(gold_passages(example)),
        }

    @abstractmethod
    def documents(self, path: Path, refuse: Refuse = raise_error) -> Iterable[Passage]:
        """Yield the documents of a file, before they are cut; malformed ones go to ``refuse``."""

    def passages(self, path: Path, refuse: Refuse) -> Iterable[Passage]:
        """Yield the passages of a file: its documents, cut where these settings say so."""
        documents = self.documents(path, refuse)
        return documents if self.splitting is None else split_passages(documents, self.splitting)

    def read_base(self, path: Path, format: str, refuse: Refuse) -> Iterator[Passage]:  # noqa: A002 (the field's word)
        """Return what `read_corpus` returns with these settings.

        Raises `UserError` where ``split_words`` is set for documents, which ``base_windows`` cuts.
        """
        if self.splitting is not None and holds_documents(path, format):
            raise UserError(
                f"data.split_words is {self.split_words}, and {path} holds documents, which data.base_windows cuts; "
                f"leave data.split_words out, and set data.base_windows.words"
            )
        return read_corpus(path, format, refuse, self.base_fields, self.base_windows)

    def _resolve_gold(
        self, parts: dict[str, list[Example]], base: KnowledgeBase, scored: Sequence[str] = ()
    ) -> dict[str, list[Example]]:
        """Resolve gold passages in the base, whose ids are read only where examples have gold passages.

        Raises `UserError` for gold passages of the ``scored`` parts that it lacks: before a run, not after it.
        """
        if not any(gold_passages(example) for part in parts.values() for example in part):
            return parts
        rows = rows_by_id(base)
        known = {name: drop_unknown_texts(part, rows) for name, part in parts.items()}
        for name, part in known.items():
            removed = sum(example != before for example, before in zip(part, parts[name], strict=True))
            if removed and name != "train":
                say(
                    f"{name}: the paragraphs of {removed:,} of {len(part):,} examples are not in the base: no gold "
                    f"there"
                )
        for name in scored:
            gold_rows(known[name], rows)
        return {name: self._with_knowledge(part, base, rows) for name, part in known.items()}

    def _with_knowledge(
        self, examples: list[Example], base: KnowledgeBase, rows: Mapping[str, Sequence[int]]
    ) -> list[Example]:
        """Add the texts of gold passages, for scores alone, where the task scores by them."""
        return examples

    def _read_part(self, name: str, source: str) -> list[Example]:
        examples = list(self.read_examples(data_path(source), raise_error)) if source else []
        unanswered = next((example.id for example in examples if not example.targets), None)
        if unanswered is not None:
            raise UserError(
                f"data.{name}: {source}, example {unanswered!r} has no field for answers, and training and scoring "
                f"need one; give it, or take the example out (`retrograd predict` answers such)"
            )
        return examples

    def _mark_gold(self, parts: dict[str, list[Example]]) -> dict[str, list[Example]]:
        """Add the gold passages that ``qrels`` names. Raises `UserError` where it names none of the examples."""
        if not self.qrels:
            return parts
        relevant = read_qrels(Path(self.qrels))
        ids = [example.id for examples in parts.values() for example in examples]
        if ids and relevant.keys().isdisjoint(ids):
            raise UserError(
                f"data.qrels: {self.qrels} judges none of the {len(ids)} examples; its query ids are like "
                f"{next(iter(relevant))!r}, those of the examples like {ids[0]!r}"
            )
        return {name: list(mark_gold(examples, relevant)) for name, examples in parts.items()}
