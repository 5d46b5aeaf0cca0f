"""Question and dialogue data of an experiment: settings, the corpus they are answered from, and what is drawn."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from retrograd.corpus.corpus_formats import read_corpus
from retrograd.corpus.knowledge_base import KnowledgeBase
from retrograd.io import JsonObject, Refuse, fingerprint, raised
from retrograd.progress import say
from retrograd.recipes.source import Data, in_full
from retrograd.tasks.dialogue import GroundedDialogue
from retrograd.tasks.dialogue_formats import read_dialogues, read_doc2dial_documents
from retrograd.tasks.grounded_example import (
    GroundedExample,
    Turn,
    dialogue_example,
    with_knowledge,
)
from retrograd.tasks.qrels import judged, read_qrels
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.tasks.question_formats import NO_ANSWER, read_questions
from retrograd.tasks.relevance import gold_rows, judgeable, rows_by_id
from retrograd.tasks.splitting import Splitting, split_passages
from retrograd.tasks.squad_format import read_contexts
from retrograd.tasks.support import AnswerSupport, OverlapSupport
from retrograd.tasks.task import Task
from retrograd.types import Example, Passage, UserError

__all__ = ["CorpusData", "DialogueData", "QuestionData"]


@dataclass(frozen=True)
class CorpusData(ABC):
    """What questions and dialogues have in common: a knowledge base, ``base``, and examples answered from it.

    ``split_words`` cuts its documents into passages of so many words, ``split_overlap`` of which stand in the passage
    before as well, at words or at the ends of ``sentences`` (0: they are passages as they are). ``dev_from_train``
    holds so many training examples out as development data; then ``train_count``, ``dev_count`` and ``test_count`` draw
    that many (0: all), shuffled and nested. ``seed`` is that of all draws (-1: the experiment's).

    ``titles`` shows passages with their titles. The prefixes stand before what the towers read, for encoders that were
    trained with an instruction. ``instruction`` begins every prompt. ``unanswerable`` examples are dropped, or kept,
    with the target "cannot answer". ``qrels`` is a file that says which passages are gold, for scores alone
    (`retrograd.tasks.qrels`). An answer that more than ``most_share`` of the passages support, or more than
    ``most_passages``, is no evidence for the warm start.
    """

    base: str = ""
    train: str = ""
    dev: str = ""
    test: str = ""
    train_count: int = 0
    dev_from_train: int = 0
    dev_count: int = 0
    test_count: int = 0
    seed: int = -1
    split_words: int = 0
    split_overlap: int = 0
    split_at: Literal["words", "sentences"] = "words"
    unanswerable: Literal["drop", "keep"] = "drop"
    titles: bool = True
    query_prefix: str = ""
    passage_prefix: str = ""
    most_share: float = 0.02
    most_passages: int = 100
    qrels: str = ""

    def __post_init__(self) -> None:
        for name in ("train_count", "dev_from_train", "dev_count", "test_count", "split_words"):
            if vars(self)[name] < 0:
                raise UserError(f"data.{name} is {vars(self)[name]}; expected 0 or more")
        if self.seed < -1:
            raise UserError(f"data.seed is {self.seed}; expected 0 or more, or -1 for the experiment's")
        if self.dev_from_train and (self.dev or self.dev_count):
            raise UserError("data.dev_from_train makes the development data; leave data.dev and dev_count out")
        _ = self.splitting  # which checks its own numbers

    @property
    def has_dev(self) -> bool:
        """Whether there will be development data."""
        return bool(self.dev) or self.dev_from_train > 0

    @property
    def splitting(self) -> Splitting | None:
        """How documents are cut into passages, where they are."""
        return Splitting(self.split_words, self.split_overlap, self.split_at) if self.split_words else None

    def load(self, seed: int, task: Task | None = None) -> Data:
        """As `Source.load`."""
        if not self.base:
            raise UserError("data.base names no knowledge base; give a file of passages")
        seed = seed if self.seed < 0 else self.seed
        documents, splitting = self.documents(Path(self.base)), self.splitting
        base = KnowledgeBase.from_passages(documents if splitting is None else split_passages(documents, splitting))
        whole = self._marked({name: self._part(name) for name in ("train", "dev", "test")})
        rest, held = self._held_out(whole["train"], seed)
        parts = {
            "train": self._drawn("train", rest, seed),
            "dev": held or self._drawn("dev", whole["dev"], seed),
            "test": self._drawn("test", whole["test"], seed),
        }
        record: JsonObject = {"seed": seed, "passages": len(base)}
        for name, examples in parts.items():
            ids = fingerprint(sorted(example.id for example in examples))
            record[name] = {"examples": len(examples), "ids_sha256": ids}
        known = self._known(parts, base, ("dev", "test"))
        return Data(task or self.task(), base, known["train"], known["dev"], known["test"], drawn=record)

    def read(self, path: Path, patch: Path | None, task: Task, base: KnowledgeBase) -> list[Example]:
        """As `Source.read`. Runs need no training files: where ``qrels`` is gone, examples have the gold they bring."""
        if patch is not None:
            raise UserError(f"--patch {patch} corrects relations; the task of this run is {task.name}")
        here = self if Path(self.qrels).exists() else replace(self, qrels="")
        return self._known({"read": list(here.examples(path))}, base)["read"]

    def task_record(self, task: Task) -> JsonObject:
        """Nothing: the settings hold all of it."""
        return {}

    def task_from_record(self, record: object, where: str) -> Task:
        """As `Source.task_from_record`."""
        if record != {}:
            raise UserError(f"{where}: expected an empty table; train the run again")
        return self.task()

    def from_root(self) -> CorpusData:
        """As `Source.from_root`."""
        return replace(self, **{name: in_full(vars(self)[name]) for name in ("base", "train", "dev", "test", "qrels")})

    @abstractmethod
    def task(self) -> Task:
        """The task that these settings make."""

    def examples(self, path: Path, refuse: Refuse = raised) -> Iterable[Example]:
        """The examples of a file, with their gold passages; malformed ones go to ``refuse``."""
        found = self._examples(path, refuse)
        return judged(found, read_qrels(Path(self.qrels))) if self.qrels else found

    @abstractmethod
    def _examples(self, path: Path, refuse: Refuse) -> Iterable[Example]:
        """The examples of a file as it has them."""

    @abstractmethod
    def asked(self, text: str, task: Task) -> Example:
        """As `Source.asked`."""

    @abstractmethod
    def documents(self, path: Path, refuse: Refuse = raised) -> Iterable[Passage]:
        """The documents of a file, before they are cut; malformed ones go to ``refuse``."""

    def _known(
        self, parts: dict[str, list[Example]], base: KnowledgeBase, scored: Sequence[str] = ()
    ) -> dict[str, list[Example]]:
        """With what the base says of gold passages, whose ids are read only where examples have some.

        Raises `UserError` for gold passages of the ``scored`` parts that it lacks: before a run, not after it.
        """
        if not any(isinstance(e, GroundedExample) and e.gold_passages for part in parts.values() for e in part):
            return parts
        rows = rows_by_id(base)
        found = {name: judgeable(part, rows) for name, part in parts.items()}
        for name, part in found.items():
            lost = sum(one != before for one, before in zip(part, parts[name], strict=True))
            if lost and name != "train":
                say(f"{name}: the paragraphs of {lost:,} of {len(part):,} examples are not in the base: no gold there")
        for name in scored:
            gold_rows(found[name], rows)
        return {name: self._with_knowledge(part, base, rows) for name, part in found.items()}

    def _with_knowledge(
        self, examples: list[Example], base: KnowledgeBase, rows: Mapping[str, Sequence[int]]
    ) -> list[Example]:
        """With the texts of gold passages, for scores alone, where the task scores by them."""
        return examples

    def _part(self, name: str) -> list[Example]:
        source = vars(self)[name]
        found = list(self._examples(Path(source), raised)) if source else []
        untold = next((example.id for example in found if not example.targets), None)
        if untold is not None:
            raise UserError(
                f"data.{name}: {source}, example {untold!r} has no field for answers, and training and scoring need "
                f"one; give it, or take the example out (`retrograd predict` answers such)"
            )
        return found

    def _marked(self, parts: dict[str, list[Example]]) -> dict[str, list[Example]]:
        """With the gold passages that ``qrels`` names. Raises `UserError` where it names none of the examples."""
        if not self.qrels:
            return parts
        relevant = read_qrels(Path(self.qrels))
        ids = [example.id for examples in parts.values() for example in examples]
        if ids and relevant.keys().isdisjoint(ids):
            raise UserError(
                f"data.qrels: {self.qrels} judges none of the {len(ids)} examples; its query ids are like "
                f"{next(iter(relevant))!r}, theirs like {ids[0]!r}"
            )
        return {name: list(judged(examples, relevant)) for name, examples in parts.items()}

    def _held_out(self, whole: list[Example], seed: int) -> tuple[list[Example], list[Example]]:
        """(the rest, development data)."""
        count = self.dev_from_train
        if count == 0:
            return whole, []
        if count >= len(whole):
            raise UserError(
                f"data.dev_from_train is {count}, but {self.train or 'data.train'} holds {len(whole)} examples; leave "
                f"some for training"
            )
        shuffled = _shuffled(whole, seed)
        return shuffled[count:], shuffled[:count]

    def _drawn(self, name: str, examples: list[Example], seed: int) -> list[Example]:
        count = vars(self)[f"{name}_count"]
        if count > len(examples):
            held = " beside those of data.dev_from_train" if name == "train" and self.dev_from_train else ""
            raise UserError(
                f"data.{name}_count is {count}, but {vars(self)[name] or f'data.{name}'} holds {len(examples)} "
                f"examples{held}; set it to 0 for all of them"
            )
        return _shuffled(examples, seed)[:count] if count else examples


def _shuffled(examples: Sequence[Example], seed: int) -> list[Example]:
    return random.Random(seed).sample(examples, len(examples))


@dataclass(frozen=True)
class QuestionData(CorpusData):
    """Questions with answers in free words (`retrograd.tasks.question_answering`).

    ``format`` and ``base_format`` are those of `read_questions` and `read_corpus`; "squad" as ``base_format`` takes the
    paragraphs of a SQuAD file. A passage is evidence for an answer only if it also holds the share ``question_overlap``
    of the question's words.
    """

    format: Literal["auto", "jsonl", "json", "tsv", "triviaqa", "squad"] = "auto"
    base_format: Literal["auto", "jsonl", "tsv", "squad"] = "auto"
    instruction: str = "Answer the question in as few words as possible."
    question_overlap: float = 0.2
    metric: Literal["exact_match", "f1", "rouge_l", "bleu_1", "bleu_4"] = "exact_match"

    def task(self) -> QuestionAnswering:
        """The task that these settings make."""
        return QuestionAnswering(
            query_prefix=self.query_prefix,
            passage_prefix=self.passage_prefix,
            titles=self.titles,
            instruction=self.instruction,
            no_answer=NO_ANSWER if self.unanswerable == "keep" else None,
            evidence=AnswerSupport(self.most_share, self.most_passages, self.question_overlap),
            primary_metric=self.metric,
        )

    def _examples(self, path: Path, refuse: Refuse) -> Iterable[Example]:
        """The questions of a file."""
        return read_questions(path, self.format, self.unanswerable, refuse)

    def asked(self, text: str, task: Task) -> Example:
        """The text as a question."""
        if not text.strip():
            raise UserError("the question is blank; write one")
        return GroundedExample("query", text.strip())

    def documents(self, path: Path, refuse: Refuse = raised) -> Iterable[Passage]:
        """As `CorpusData.documents`; of a SQuAD file its paragraphs."""
        return read_contexts(path) if self.base_format == "squad" else read_corpus(path, self.base_format, refuse)


@dataclass(frozen=True)
class DialogueData(CorpusData):
    """Turns of dialogues that passages help to give (`retrograd.tasks.dialogue`).

    ``base_format`` "quac" takes the paragraphs of a QuAC or DoQA file, "doc2dial" the documents of its ``doc_data``
    file. ``turns`` is how many of the last turns are read (0: all). ``least_overlap`` and ``near_best`` are what makes
    a passage evidence for a turn (`OverlapSupport`).
    """

    format: Literal["auto", "jsonl", "quac", "doc2dial"] = "auto"
    base_format: Literal["auto", "jsonl", "tsv", "quac", "doc2dial"] = "auto"
    instruction: str = "Give the next turn of the dialogue, with what the passages say."
    turns: int = 8
    user_name: str = "user"
    agent_name: str = "agent"
    least_overlap: float = 0.5
    near_best: float = 0.8
    metric: Literal["exact_match", "f1", "rouge_l", "bleu_1", "bleu_4"] = "f1"

    def task(self) -> GroundedDialogue:
        """The task that these settings make."""
        return GroundedDialogue(
            turns=self.turns,
            user_name=self.user_name,
            agent_name=self.agent_name,
            query_prefix=self.query_prefix,
            passage_prefix=self.passage_prefix,
            titles=self.titles,
            instruction=self.instruction,
            no_answer=NO_ANSWER if self.unanswerable == "keep" else None,
            evidence=OverlapSupport(self.least_overlap, self.near_best, self.most_share, self.most_passages),
            primary_metric=self.metric,
        )

    def _examples(self, path: Path, refuse: Refuse) -> Iterable[Example]:
        """The turns of a file that are to be answered."""
        return read_dialogues(path, self.format, self.unanswerable, refuse)

    def asked(self, text: str, task: Task) -> Example:
        """The text as the one turn of a dialogue."""
        return dialogue_example("query", [Turn("user", text)])

    def documents(self, path: Path, refuse: Refuse = raised) -> Iterable[Passage]:
        """As `CorpusData.documents`; of a QuAC or DoQA file its paragraphs, of Doc2Dial's its documents."""
        if self.base_format == "quac":
            return read_contexts(path)
        if self.base_format == "doc2dial":
            return read_doc2dial_documents(path)
        return read_corpus(path, self.base_format, refuse)

    def _with_knowledge(
        self, examples: list[Example], base: KnowledgeBase, rows: Mapping[str, Sequence[int]]
    ) -> list[Example]:
        """As `CorpusData._with_knowledge`: knowledge F1 reads them."""
        return list(with_knowledge(examples, lambda id_: base.passages(rows.get(id_, ()))))
