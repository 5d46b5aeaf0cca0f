"""Reading whole data sets from Python: from a file, or from anything that yields records with the fields of one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

from retrograd.data import dialogues, passages, questions
from retrograd.data.documents.windows import Windows
from retrograd.data.examples import DialogueExample, GroundedExample
from retrograd.data.field_maps import DialogueFields, PassageFields, QuestionFields, RelationFields
from retrograd.data.hub import data_path
from retrograd.data.relations import formats
from retrograd.data.relations.instance import RelationInstance
from retrograd.data.rows import name_class, plain_value, table_records
from retrograd.data.sentences import SplitSentences
from retrograd.deferred import pa
from retrograd.types import Passage, UserError
from retrograd.util.guards import JsonObject, JsonValue
from retrograd.util.records import read_record

__all__ = [
    "Source",
    "SupportsArrow",
    "read_dialogues",
    "read_passages",
    "read_questions",
    "read_relations",
    "records_of",
]

Source: TypeAlias = "str | Path | SupportsArrow | Iterable[Mapping[str, object]]"
"""A file, a data set of the hub (``hf:NAME:SPLIT``), a table of Arrow, pandas or polars, or records: a list of dicts, a
Hugging Face ``Dataset``, a generator."""


@runtime_checkable
class SupportsArrow(Protocol):
    """A table that hands itself over in Arrow's way: of pyarrow, a data frame of pandas (from 2.2) or polars."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object: ...


def read_questions(
    source: Source,
    format: str = "auto",  # noqa: A002 (the field's word)
    unanswerable: str = "drop",
    answers_are: str = "text",
    fields: Mapping[str, str] | None = None,
) -> list[GroundedExample]:
    """Return the questions of a file or of records, with their answers.

    ``format`` is that of a file: "jsonl", "json", "csv", "parquet", "arrow", "tsv", "triviaqa", "squad" or "beir";
    "auto" looks at its beginning. A record has the fields of "jsonl": ``question`` and ``answers``, and may have ``id``
    and ``gold_passages`` (`retrograd.data.questions`); ``fields`` says where records have them that name them
    otherwise, as in ``{"question": "input", "answers": "output[*].text"}`` (`retrograd.data.field_maps`).
    ``unanswerable`` questions are dropped, or kept, with the target "cannot answer".
    ``answers_are`` "regex" for answers that are regular expressions, as those of CuratedTREC, instead of "text".
    Raises `UserError` with the place of what is malformed.

    Example::

        train = rg.read_questions([{"question": "what does the cup hold ?", "answers": ["tea"]}])
        print(train[0].query, train[0].targets)
    """
    paths = read_record(QuestionFields, fields or {}, "fields")
    if isinstance(source, str | Path):
        path = data_path(str(source))
        return list(questions.read_questions(path, format, unanswerable, answers_are=answers_are, fields=paths))
    return list(questions.question_examples(records_of(source), unanswerable, answers_are, paths))


def read_dialogues(
    source: Source,
    format: str = "auto",  # noqa: A002 (the field's word)
    unanswerable: str = "keep",
    fields: Mapping[str, str] | None = None,
) -> list[DialogueExample]:
    """Return the turns to be answered of a file or of records, each with its dialogue so far.

    ``format`` is that of a file: "jsonl", "json", "csv", "parquet", "arrow", "quac" or "doc2dial"; "auto" looks at its
    beginning. A record has the fields of "jsonl": ``history`` and ``answers``, or a whole chat in ``messages``
    (`retrograd.data.dialogues`); ``fields`` is as for `read_questions`. Raises `UserError` with the place of what is
    malformed.

    Example::

        turns = rg.read_dialogues([{"history": ["user: what does the cup hold ?"], "answers": ["tea"]}])
        print(turns[0].history[-1].text, turns[0].targets)
    """
    paths = read_record(DialogueFields, fields or {}, "fields")
    if isinstance(source, str | Path):
        return list(dialogues.read_dialogues(data_path(str(source)), format, unanswerable, fields=paths))
    return list(dialogues.dialogue_examples(records_of(source), unanswerable, paths))


def read_relations(
    source: Source,
    format: str = "auto",  # noqa: A002 (the field's word)
    offsets: str = "characters",
    fields: Mapping[str, str] | None = None,
) -> list[RelationInstance]:
    """Return the relation instances of a file or of records: sentences with two marked entities and their relation.

    ``format`` is that of a file or folder; "auto" looks at its beginning. Sentences: "semeval", "jsonl", "markers",
    "tacred", "tacred_exclusive", "opennre", "fewrel". Annotated texts and documents: "dygie", "conll04", "docred",
    "glirel". Annotation tools: "brat", "label_studio", "prodigy", "doccano", "docbin". Tables and other containers of
    records: "rows". `retrograd.data.relations.readers` describes each. A record has the fields of "jsonl" or "markers";
    ``fields`` says where records have them that name them otherwise, as in ``{"head": "subject.word"}``
    (`retrograd.data.field_maps`). ``offsets`` in texts count "characters", as in Python, "utf-16" code units, as in
    JavaScript, or the bytes of "utf-8". Raises `UserError` with the place of what is malformed.

    Example::

        instances = rg.read_relations([{"text": "the <e1>cup</e1> holds <e2>tea</e2>", "label": "holds"}])
        print(instances[0].head.of(instances[0].text), instances[0].relation)
    """
    paths = read_record(RelationFields, fields or {}, "fields")
    if isinstance(source, str | Path):
        return list(formats.read_relations(data_path(str(source)), format, offsets=offsets, fields=paths))
    return list(formats.relation_instances(records_of(source), offsets, paths))


def read_passages(
    source: Source,
    format: str = "auto",  # noqa: A002 (the field's word)
    fields: Mapping[str, str] | None = None,
    windows: Windows | None = None,
    split_sentences: SplitSentences | None = None,
) -> list[Passage]:
    """Return the passages of a file or folder, or of records; `KnowledgeBase.from_passages` makes a base of them.

    ``format`` is that of a file, "jsonl", "json", "csv", "parquet", "arrow", "tsv" or "collection", or of a folder,
    "arrow", "beir" or "documents"; "auto" looks at its beginning. A record has ``text``, and may have ``id`` and
    ``title`` (`retrograd.data.passages`), or ``fields`` says where it has them: ``{"text": "body.plain"}``. Documents,
    that is text, Markdown, HTML and PDF files, are cut into ``windows`` of whole sentences (None: the defaults of
    `Windows`); ``split_sentences``, a function of your own, returns the characters (start, end) of a text's sentences.
    Raises `UserError` with the place of what is malformed.

    Example::

        base = rg.KnowledgeBase.from_passages(rg.read_passages([{"text": "the cup holds tea ."}]))
        print(len(base), base[0].text)
    """
    paths = read_record(PassageFields, fields or {}, "fields")
    if isinstance(source, str | Path):
        cut = windows or Windows()
        path = data_path(str(source))
        return list(passages.read_corpus(path, format, fields=paths, windows=cut, split_sentences=split_sentences))
    return list(passages.passages_of(records_of(source), paths))


def records_of(source: SupportsArrow | Iterable[Mapping[str, object]]) -> Iterator[JsonObject]:
    """Return the rows of a table, or the records of an iterable, as plain values. Raises `UserError` for a row that is
    no record."""
    if isinstance(source, SupportsArrow):
        yield from table_records(pa.RecordBatchReader.from_stream(source))
        return
    classes = _class_names(source)
    for number, record in enumerate(source, start=1):
        if not isinstance(record, Mapping):
            raise UserError(
                f"the records, record {number} is a value of type {type(record).__name__}; expected a mapping of field "
                f"names to values, such as a dict"
            )
        yield {str(name): name_class(classes.get(name), plain_value(value)) for name, value in record.items()}


def _class_names(source: Iterable[Mapping[str, object]]) -> dict[str, list[JsonValue]]:
    """Return the names of the classes that a Hugging Face ``Dataset`` keeps as numbers, by column."""
    features = getattr(source, "features", None)
    named = {column: getattr(one, "names", None) for column, one in features.items()} if features else {}
    return {column: list(names) for column, names in named.items() if names}
