"""Questions and dialogues are data answered from a corpus in free words: their settings, files and tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal, TypeVar, get_args

from retrograd.data.dialogues import (
    DIALOGUE_FORMATS,
    DialogueFormat,
    detect_dialogue_format,
    read_dialogues,
    read_doc2dial_documents,
)
from retrograd.data.examples import DialogueExample, GroundedExample, Turn, gold_passages, with_knowledge
from retrograd.data.feedback import Verdict
from retrograd.data.field_maps import DialogueFields, QuestionFields
from retrograd.data.passages import CORPUS_FORMATS, CorpusFormat
from retrograd.data.questions import (
    NO_ANSWER,
    QUESTION_FORMATS,
    QuestionFormat,
    detect_question_format,
    read_questions,
)
from retrograd.data.readers import read_dialogues as read_dialogue_source
from retrograd.data.readers import read_questions as read_question_source
from retrograd.data.squad import read_contexts
from retrograd.experiments.data.corpus import CorpusData
from retrograd.experiments.data.example_files import ExampleSource, write_examples
from retrograd.experiments.data.layouts import Layout, detect_base_layout, read_in_layout
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.metrics.patterns import plain_texts
from retrograd.tasks.dialogue import GroundedDialogue
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.tasks.support import AnswerSupport, OverlapSupport
from retrograd.tasks.task import Task
from retrograd.types import Example, Passage, UserError
from retrograd.util.guards import JsonObject
from retrograd.util.progress import say
from retrograd.util.text_files import Refuse, raise_error

__all__ = ["DialogueData", "QuestionData"]

_PASSAGES = "passages.jsonl"
"""The file of the knowledge base in a folder of data from Python."""

QuestionBase = Literal[CorpusFormat, "squad"]
DialogueBase = Literal[CorpusFormat, "quac", "doc2dial"]


@dataclass(frozen=True)
class QuestionData(CorpusData):
    """Settings of questions with answers in free words (`retrograd.tasks.question_answering`).

    ``format`` and ``base_format`` are those of `read_questions` and `read_corpus`; "squad" as ``base_format`` takes the
    paragraphs of a SQuAD file. ``fields`` says where records have what, where they name it in another way: the name of
    a field, or a path such as ``output[*].text``. A passage is evidence for an answer only if it also holds the share
    ``question_overlap`` of the question's words. ``answers_are`` "regex" reads answers as patterns
    (`retrograd.metrics.patterns`): they are matched for exact match and for evidence, and training takes those of
    them that stand for plain texts.
    """

    kind: ClassVar[str] = "questions"
    answers_stand_in_base: ClassVar[bool] = True

    format: QuestionFormat = "auto"
    fields: QuestionFields = field(default_factory=QuestionFields)
    base_format: QuestionBase = "auto"
    instruction: str = "Answer the question in as few words as possible."
    question_overlap: float = 0.2
    answers_are: Literal["text", "regex"] = "text"
    metric: Literal["exact_match", "f1", "rouge_l", "bleu_1", "bleu_4"] = "exact_match"

    def __post_init__(self) -> None:
        CorpusData.__post_init__(self)
        if self.answers_are == "regex" and self.metric != "exact_match":
            raise UserError(
                f'data.metric is "{self.metric}", which compares words, and data.answers_are = "regex" has none to '
                f'compare with; set data.metric = "exact_match", which then is a match of the pattern'
            )

    def task(self) -> QuestionAnswering:
        """Return the task that these settings make."""
        evidence = AnswerSupport(self.most_share, self.most_passages, self.question_overlap)
        task = _with_settings(QuestionAnswering(evidence=evidence), self)
        return replace(task, primary_metric="regex_match") if self.answers_are == "regex" else task

    @classmethod
    def from_python(cls, task: Task, sources: Mapping[str, ExampleSource], folder: Path) -> QuestionData | None:
        """Write questions, and return settings as `DataKind.from_python` does."""
        if type(task) is not QuestionAnswering:
            return None
        files = write_examples(sources, folder, Example, read_question_source, CorpusData.example_record)
        settings = cls(question_overlap=task.evidence.question_overlap, base=str(folder / _PASSAGES))
        if task.primary_metric == "regex_match":
            settings = replace(_with_task(settings, replace(task, primary_metric="exact_match")), answers_are="regex")
        else:
            settings = _with_task(settings, task)
        return replace(settings, **files)

    def read_examples(self, path: Path, refuse: Refuse) -> Iterable[Example]:
        """Yield the questions of a file."""
        layout = Layout("data.format", self.format, QUESTION_FORMATS, detect_question_format, QUESTION_FORMATS)
        return read_in_layout(
            path,
            layout,
            lambda own: read_questions(path, self.format, self.unanswerable, own, self.answers_are, self.fields),
            refuse,
        )

    def select_teachable(self, examples: list[Example]) -> list[Example]:
        """Return examples with the texts that their patterns stand for as targets; those without any are left out."""
        return examples if self.answers_are == "text" else _take_plain_texts(examples)

    def documents(self, path: Path, refuse: Refuse = raise_error) -> Iterable[Passage]:
        """Yield documents as `CorpusData.documents` does; of a SQuAD file its paragraphs."""
        layout = Layout(
            "data.base_format", self.base_format, get_args(QuestionBase), detect_base_layout, CORPUS_FORMATS
        )
        if self.base_format == "squad" and not self.base_fields.paths:
            return read_in_layout(path, layout, lambda _: read_contexts(path), refuse)
        return read_in_layout(path, layout, lambda own: self.read_base(path, self.base_format, own), refuse)


@dataclass(frozen=True)
class DialogueData(CorpusData):
    """Settings of dialogues whose turns passages help to give (`retrograd.tasks.dialogue`).

    ``format`` is that of `read_dialogues`. ``fields`` says where records have what, where they name it in another way:
    the name of a field, or a path such as ``turns[:-1]``. ``base_format`` "quac" takes the paragraphs of a QuAC or
    DoQA file, "doc2dial" the documents of its ``doc_data`` file. ``turns`` is how many of the last turns are read
    (0: all). ``user_name`` and ``agent_name`` are what the generator reads for the two roles. ``least_overlap`` and
    ``near_best`` are what makes a passage evidence for a turn (`OverlapSupport`).
    """

    kind: ClassVar[str] = "dialogue"

    format: DialogueFormat = "auto"
    fields: DialogueFields = field(default_factory=DialogueFields)
    base_format: DialogueBase = "auto"
    instruction: str = "Give the next turn of the dialogue, with what the passages say."
    turns: int = 8
    user_name: str = "user"
    agent_name: str = "agent"
    least_overlap: float = 0.5
    near_best: float = 0.8
    metric: Literal["exact_match", "f1", "rouge_l", "bleu_1", "bleu_4"] = "f1"

    def task(self) -> GroundedDialogue:
        """Return the task that these settings make."""
        evidence = OverlapSupport(self.least_overlap, self.near_best, self.most_share, self.most_passages)
        task = GroundedDialogue(self.turns, self.user_name, self.agent_name, evidence=evidence)
        return _with_settings(task, self)

    @classmethod
    def from_python(cls, task: Task, sources: Mapping[str, ExampleSource], folder: Path) -> DialogueData | None:
        """Write dialogues, and return settings as `DataKind.from_python` does."""
        if type(task) is not GroundedDialogue:
            return None
        files = write_examples(sources, folder, Example, read_dialogue_source, _dialogue_record)
        settings = cls(
            turns=task.turns,
            user_name=task.user_name,
            agent_name=task.agent_name,
            least_overlap=task.evidence.least,
            near_best=task.evidence.near_best,
            base=str(folder / _PASSAGES),
        )
        return replace(_with_task(settings, task), **files)

    @staticmethod
    def example_record(example: Example) -> JsonObject:
        """Return the fields of a turn to be answered."""
        return _dialogue_record(example)

    def read_examples(self, path: Path, refuse: Refuse) -> Iterable[Example]:
        """Yield the turns of a file that are to be answered."""
        layout = Layout("data.format", self.format, DIALOGUE_FORMATS, detect_dialogue_format, DIALOGUE_FORMATS)
        return read_in_layout(
            path, layout, lambda own: read_dialogues(path, self.format, self.unanswerable, own, self.fields), refuse
        )

    def example_of(self, verdict: Verdict, id: str) -> Example:  # noqa: A002 (the record's field)
        """Return the dialogue of a verdict with its right next turn."""
        return verdict.dialogue(id)

    def documents(self, path: Path, refuse: Refuse = raise_error) -> Iterable[Passage]:
        """Yield documents as `CorpusData.documents` does; of QuAC or DoQA paragraphs, of Doc2Dial documents."""
        layout = Layout(
            "data.base_format", self.base_format, get_args(DialogueBase), _detect_dialogue_base, CORPUS_FORMATS
        )
        if self.base_format == "quac" and not self.base_fields.paths:
            return read_in_layout(path, layout, lambda _: read_contexts(path), refuse)
        if self.base_format == "doc2dial" and not self.base_fields.paths:
            return read_in_layout(path, layout, lambda _: read_doc2dial_documents(path), refuse)
        return read_in_layout(path, layout, lambda own: self.read_base(path, self.base_format, own), refuse)

    def _with_knowledge(
        self, examples: list[Example], base: KnowledgeBase, rows: Mapping[str, Sequence[int]]
    ) -> list[Example]:
        """Add texts as `CorpusData._with_knowledge` does: knowledge F1 reads them."""
        return list(with_knowledge(examples, lambda id_: base.passages(rows.get(id_, ()))))


def _detect_dialogue_base(path: Path) -> str:
    """Return the layout of a file as dialogues call it: SQuAD's is QuAC's."""
    layout = detect_base_layout(path)
    return "quac" if layout == "squad" else layout


def _take_plain_texts(examples: list[Example]) -> list[Example]:
    """Return the examples with the texts that their patterns stand for as targets, and say how many have none.

    Raises `UserError` where no example has any.
    """
    texts = [[text for pattern in example.targets for text in plain_texts(pattern)] for example in examples]
    teachable: list[Example] = [
        replace(example, targets=tuple(dict.fromkeys(own)), has_patterns=False)
        for example, own in zip(examples, texts, strict=True)
        if own and isinstance(example, GroundedExample)
    ]
    if examples and not teachable:
        raise UserError(
            f"data.train: no answer of the {len(examples):,} examples is a plain text (the first is "
            f"{examples[0].target[:60]!r}), and a generator cannot learn to write a pattern; give texts to train on"
        )
    if len(teachable) < len(examples):
        left_out = len(examples) - len(teachable)
        say(f"train: {left_out:,} of {len(examples):,} examples have patterns alone, and are left out")
    return teachable


# What tasks and settings of both kinds share, in either direction

AnyTask = TypeVar("AnyTask", QuestionAnswering, GroundedDialogue)
AnyData = TypeVar("AnyData", QuestionData, DialogueData)


def _with_settings(task: AnyTask, settings: QuestionData | DialogueData) -> AnyTask:
    """Return the task with the settings that questions and dialogues share."""
    return replace(
        task,
        query_prefix=settings.query_prefix,
        passage_prefix=settings.passage_prefix,
        titles=settings.titles,
        instruction=settings.instruction,
        no_answer=NO_ANSWER if settings.unanswerable == "keep" else None,
        primary_metric=settings.metric,
    )


def _with_task(settings: AnyData, task: QuestionAnswering | GroundedDialogue) -> AnyData:
    """Return the settings with what they share of a task: the inverse of `_with_settings`."""
    return replace(
        settings,
        base_format="jsonl",
        query_prefix=task.query_prefix,
        passage_prefix=task.passage_prefix,
        titles=task.titles,
        instruction=task.instruction,
        unanswerable="drop" if task.no_answer is None else "keep",
        most_share=task.evidence.most_share,
        most_passages=task.evidence.most_passages,
        metric=task.primary_metric,
    )


def _dialogue_record(example: Example) -> JsonObject:
    dialogue = example if isinstance(example, DialogueExample) else None
    history = (Turn("user", example.query),) if dialogue is None else dialogue.history
    return {
        "id": example.id,
        "history": [{"role": turn.role, "text": turn.text} for turn in history],
        "answers": list(example.targets),
        "gold_passages": list(gold_passages(example)),
        "knowledge": [] if dialogue is None else list(dialogue.knowledge),
    }
