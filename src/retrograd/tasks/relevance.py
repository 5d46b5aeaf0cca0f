"""Relevant passages, by which retrieval is measured: the marked ones, and those that hold an answer.

For evaluation alone. Rows go to `retrograd.metrics.ranking.relevance`: recall@k over `gold_rows`, success@k over
`answer_rows` (the top-k accuracy of open-domain question answering, DPR, Karpukhin et al. 2020, arXiv 2004.04906).
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace

from retrograd.data.examples import gold_passages, has_patterns
from retrograd.data.squad import TEXT_ID
from retrograd.deferred import np
from retrograd.metrics.patterns import search_patterns
from retrograd.metrics.words import words_and_signs
from retrograd.tasks.task import Task
from retrograd.tasks.text_index import TextIndex
from retrograd.types import Example, Passage, UserError
from retrograd.util.guards import suggest_name

__all__ = ["answer_rows", "drop_unknown_texts", "gold_rows", "is_answerable", "rows_by_id"]


_PLACE = re.compile(r"\d+|(?:page=\d+:)?\d+-\d+")
"""What an id has behind that of its document: a number (`split_passages`), or characters (`read_documents`)."""


def rows_by_id(passages: Iterable[Passage]) -> dict[str, tuple[int, ...]]:
    """Return the rows of every passage id, and of every document that was cut those of its passages, under its own id.

    That is ``doc`` for ``doc#0`` and ``doc#1``, ``a.pdf`` for ``a.pdf#page=1:0-80``, where no passage has it.
    """
    rows: dict[str, list[int]] = {}
    documents: dict[str, list[int]] = {}
    for row, passage in enumerate(passages):
        rows.setdefault(passage.id, []).append(row)
        document, sign, number = passage.id.rpartition("#")
        if sign and _PLACE.fullmatch(number):
            documents.setdefault(document, []).append(row)
    return {id_: tuple(passage_rows) for id_, passage_rows in (documents | rows).items()}


def drop_unknown_texts(examples: Iterable[Example], ids: Container[str]) -> list[Example]:
    """The examples without those gold passages that are known by their words alone (`TEXT_ID`) and are not among the
    ``ids`` of a base: questions of SQuAD over another corpus have no gold there."""
    return [
        replace(
            example,
            gold_passages=tuple(id_ for id_ in gold_passages(example) if id_ in ids or not id_.startswith(TEXT_ID)),
        )
        if gold_passages(example)
        else example
        for example in examples
    ]


def gold_rows(examples: Sequence[Example], rows: Mapping[str, Sequence[int]]) -> list[tuple[int, ...]]:
    """Return for each example the rows of its gold passages, ascending; none where no passage is marked.

    ``rows`` is what `rows_by_id` says. Raises `UserError` for an id that is not in the base.
    """
    return [_gold_rows(example, rows) for example in examples]


def _gold_rows(example: Example, rows: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    rows_found: set[int] = set()
    for id_ in gold_passages(example):
        if id_ not in rows:
            raise UserError(
                f"gold passage {id_!r} of example {example.id!r} is not in the knowledge base; "
                f"{suggest_name(id_, rows)} "
                "Take the base that belongs to these questions, or leave gold_passages out of them"
            )
        rows_found.update(rows[id_])
    return tuple(sorted(rows_found))


def is_answerable(task: Task, example: Example) -> bool:
    """Return whether an example has an answer that a passage may hold: not where it says that there is none."""
    return bool(example.targets) and example.target != task.negative_for(example)


def answer_rows(examples: Sequence[Example], texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Return for each example the rows of the passages' ``texts`` that hold any of its answers, ascending.

    That is `has_answer` for all at once, or a match where the answers of an example are patterns.
    """
    index = TextIndex(texts if any(not has_patterns(example) for example in examples) else ())
    return [
        tuple(row for row, text in enumerate(texts) if search_patterns(example.targets, text))
        if has_patterns(example)
        else _rows_with_text(example.targets, index)
        for example in examples
    ]


def _rows_with_text(targets: Sequence[str], index: TextIndex) -> tuple[int, ...]:
    rows = [index.rows_with_phrase(words_and_signs(target)) for target in targets]
    return tuple(np.unique(np.concatenate(rows)).tolist()) if rows else ()
