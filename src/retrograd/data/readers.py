"""Reading whole data sets from Python: from a file, or from anything that yields records with the fields of one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias, cast

from retrograd.data import dialogues, passages, questions
from retrograd.data.examples import DialogueExample, GroundedExample
from retrograd.data.relations import formats
from retrograd.data.relations.instance import RelationInstance
from retrograd.deferred import pa
from retrograd.types import Passage, UserError
from retrograd.util.guards import JsonObject, JsonValue

__all__ = ["Source", "read_dialogues", "read_passages", "read_questions", "read_relations", "records_of"]

Source: TypeAlias = "str | Path | pa.Table | Iterable[Mapping[str, object]]"
"""A file, an Arrow table, or records: a list of dicts, a Hugging Face ``Dataset``, a generator of dicts."""


def read_questions(
    source: Source,
    format: str = "auto",  # noqa: A002 (the field's word)
    unanswerable: str = "drop",
    answers_are: str = "text",
) -> list[GroundedExample]:
    """Return the questions of a file or of records, with their answers.

    ``format`` is that of a file: "jsonl", "json", "tsv", "triviaqa" or "squad"; "auto" looks at its beginning. A record
    has the fields of "jsonl": ``question`` and ``answers``, and may have ``id`` and ``gold_passages``
    (`retrograd.data.questions`). ``unanswerable`` questions are dropped, or kept, with the target "cannot answer".
    ``answers_are`` "regex" for answers that are regular expressions, as those of CuratedTREC, instead of "text".
    Raises `UserError` with the place of what is malformed.

    Example::

        train = rg.read_questions([{"question": "what does the cup hold ?", "answers": ["tea"]}])
        print(train[0].query, train[0].targets)
    """
    if isinstance(source, str | Path):
        return list(questions.read_questions(Path(source), format, unanswerable, answers_are=answers_are))
    return list(questions.question_examples(records_of(source), unanswerable, answers_are))


def read_dialogues(source: Source, format: str = "auto", unanswerable: str = "keep") -> list[DialogueExample]:  # noqa: A002
    """Return the turns to be answered of a file or of records, each with its dialogue so far.

    ``format`` is that of a file: "jsonl", "quac" or "doc2dial"; "auto" looks at its beginning. A record has the fields
    of "jsonl": ``history`` and ``answers`` (`retrograd.data.dialogues`). Raises `UserError` with the place of what is
    malformed.

    Example::

        turns = rg.read_dialogues([{"history": ["user: what does the cup hold ?"], "answers": ["tea"]}])
        print(turns[0].history[-1].text, turns[0].targets)
    """
    if isinstance(source, str | Path):
        return list(dialogues.read_dialogues(Path(source), format, unanswerable))
    return list(dialogues.dialogue_examples(records_of(source), unanswerable))


def read_relations(
    source: Source,
    format: str = "auto",  # noqa: A002 (the field's word)
    offsets: str = "characters",
) -> list[RelationInstance]:
    """Return the relation instances of a file or of records: sentences with two marked entities and their relation.

    ``format`` is that of a file: "semeval", "jsonl", "markers" or "tacred"; "auto" looks at its beginning. A record has
    the fields of "jsonl" or "markers" (`retrograd.data.relations.formats`). ``offsets`` in texts count "characters",
    as in Python, "utf-16" code units, as in JavaScript, or the bytes of "utf-8". Raises `UserError` with the place of
    what is malformed.

    Example::

        instances = rg.read_relations([{"text": "the <e1>cup</e1> holds <e2>tea</e2>", "label": "holds"}])
        print(instances[0].head.of(instances[0].text), instances[0].relation)
    """
    if isinstance(source, str | Path):
        return list(formats.read_relations(Path(source), format, offsets=offsets))
    return list(formats.relation_instances(records_of(source), offsets))


def read_passages(source: Source, format: str = "auto") -> list[Passage]:  # noqa: A002
    """Return the passages of a file or of records; `KnowledgeBase.from_passages` makes a knowledge base of them.

    ``format`` is that of a file, "jsonl" or "tsv"; "auto" looks at its beginning. A record has ``text``, and may have
    ``id`` and ``title`` (`retrograd.data.passages`). Raises `UserError` with the place of what is malformed.

    Example::

        base = rg.KnowledgeBase.from_passages(rg.read_passages([{"text": "the cup holds tea ."}]))
        print(len(base), base[0].text)
    """
    if isinstance(source, str | Path):
        return list(passages.read_corpus(Path(source), format))
    return list(passages.passages_of(records_of(source)))


def records_of(source: pa.Table | Iterable[Mapping[str, object]]) -> Iterator[JsonObject]:
    """Return the rows of a table, or the records of an iterable, as plain values. Raises `UserError` for a row that is
    no record."""
    if isinstance(source, pa.Table):
        for batch in cast(pa.Table, source).to_batches():
            yield from batch.to_pylist()
        return
    for number, record in enumerate(source, start=1):
        if not isinstance(record, Mapping):
            raise UserError(
                f"the records, record {number} is a value of type {type(record).__name__}; expected a mapping of field "
                f"names to values, such as a dict"
            )
        yield {str(name): _plain(value) for name, value in record.items()}


def _plain(value: object) -> JsonValue:
    """Return a value with lists and dicts for other sequences and mappings; the readers refuse what is left."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value  # pyright: ignore[reportReturnType]  (each field says what it expects)
