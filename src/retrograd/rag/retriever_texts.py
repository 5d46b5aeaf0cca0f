"""How the texts of queries and passages are made, for programs that know no task: templates, and what they cannot say.

A task puts a prefix before texts, and a passage's title before its text. What it does is found out by giving it texts
that it cannot have seen: where the result holds them as they were, all around them is a template. A prefix becomes a
prompt of sentence-transformers, so that plain texts get the vectors of the model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrograd.models.compute.sentence_head import Side
from retrograd.models.retriever import Retriever
from retrograd.rag.search_kinds import DENSE, SearchKind
from retrograd.tasks.saved_tasks import describe_queries, task_record
from retrograd.tasks.task import Task
from retrograd.types import Example, Passage, UserError
from retrograd.util.guards import JsonObject
from retrograd.util.text_files import write_json

__all__ = ["TEXTS_FILE", "RetrieverTexts", "describe_texts", "find_limits", "texts_record", "write_texts"]

TEXTS_FILE = "texts.json"
_PROBES = (("Qanbu wikso, Reto?", "Lemu", "Zarko Peli 3."), ("moxi (Drel)", "Ubsen 7", "fintu: GOV"))
"""A query, a title and a text, twice: a task that changes letters or signs changes one of them."""
_FIELDS = re.compile(r"\{title\}|\{text\}")


@dataclass(frozen=True)
class RetrieverTexts:
    """Templates of what the towers read; None where the task's texts follow none.

    ``query`` holds ``{query}``, ``passage`` ``{title}`` (or not) and ``{text}``, and ``untitled``, for passages without
    a title, ``{text}``.
    """

    query: str | None
    passage: str | None
    untitled: str | None

    @property
    def prefixes(self) -> Mapping[Side, str]:
        """Return the prefix of the texts of each side, with which its templates begin."""
        query = (self.query or "").partition("{query}")[0]
        return {"query": query, "passage": (self.untitled or "").partition("{text}")[0]}

    @property
    def plain_passage(self) -> str | None:
        """Return the template of a passage behind its prefix; None where a prefix cannot express it."""
        prefix = self.prefixes["passage"]
        if self.passage is None or not self.passage.startswith(prefix):
            return None
        return self.passage.removeprefix(prefix)

    def passage_of(self, passage: Passage) -> str:
        """Return a passage's title and text as one plain text."""
        template = (self.plain_passage if passage.title else None) or "{text}"
        values = {"{title}": passage.title, "{text}": passage.text}
        # At once: a title may say {text}.
        return _FIELDS.sub(lambda match: values[match.group()], template)

    @property
    def faults(self) -> list[str]:
        """Return sentences about what a prefix cannot express."""
        faults = []
        if self.query is None or not self.query.endswith("{query}"):
            faults.append(
                "The task makes the text of a query itself; give what retrograd makes of it (task.query_text), not the "
                "raw text."
            )
        if self.plain_passage is None or not (self.untitled or "").endswith("{text}"):
            faults.append(
                "The task makes the text of a passage itself; give what retrograd makes of it (task.passage_text), not "
                "title and text."
            )
        return faults


def describe_texts(task: Task) -> RetrieverTexts:
    """Return the templates by which a task makes the texts of queries and passages.

    A task may refuse a text with `UserError`; whatever else it raises is a fault of its own, and raised.
    """

    def query_text(probe: tuple[str, str, str]) -> str:
        try:
            query = task.parse_query(probe[0])
        except UserError:  # no query for this task: relations are asked with their entities marked
            return _text_of_plain_example(task, probe[0])
        return task.query_text(query)

    def passage_text(title: bool) -> Callable[[tuple[str, str, str]], str]:
        return lambda probe: task.passage_text(Passage("probe", probe[1] if title else "", probe[2]))

    return RetrieverTexts(
        _template(query_text, {"{query}": 0}),
        _template(passage_text(title=True), {"{title}": 1, "{text}": 2}),
        _template(passage_text(title=False), {"{text}": 2}),
    )


def _text_of_plain_example(task: Task, query: str) -> str:
    """Return the text of a query that is no more than words. Raises `UserError` where the task needs more of it."""
    try:
        return task.query_text(Example("probe", query))
    except (AttributeError, TypeError) as error:  # its examples are of a class of their own
        raise UserError(f"the task reads no plain example ({error}); give what parse_query returns") from error


def _template(make: Callable[[tuple[str, str, str]], str], fields: Mapping[str, int]) -> str | None:
    """Return what ``make`` does with the fields of every probe; None where it is not the same for all."""
    templates = set()
    for probe in _PROBES:
        try:
            text = str(make(probe))
        except UserError:
            return None
        for name, place in fields.items():
            text = text.replace(probe[place], name)
        templates.add(text)
    template = templates.pop() if len(templates) == 1 else ""
    return template if template.count(list(fields)[-1]) == 1 else None


def find_limits(texts: RetrieverTexts, retriever: Retriever, search: SearchKind = DENSE) -> list[str]:
    """Return sentences about why sentence-transformers does not rank as the model does; none where it does."""
    tower, limits = retriever.query_encoder, texts.faults
    if search is not DENSE:
        limits.append(f'The model searches by "{search.name}", not by these vectors alone.')
    if tower.pooling == "roles":
        limits.append(
            "The model pools head, tail and context separately, which a folder of sentence-transformers cannot say: "
            "this one gives the mean over the whole text."
        )
    if retriever.lexical_weight is not None:
        limits.append(
            f"Search is hybrid: the model adds {float(retriever.lexical_weight.detach()):.6g} times a score of shared "
            "words (lexical.json) to the inner product divided by the temperature; this folder has the vectors alone."
        )
    own = {side: tower.head.prompts.before(side) for side in texts.prefixes}
    if not tower.head.pools_prompt and any(own.values()) and any(texts.prefixes.values()):
        limits.append("The model's own prompt is not pooled and the task's prefix is, which no prompt can say.")
    return limits


def write_texts(folder: Path, task: Task, texts: RetrieverTexts, retriever: Retriever, limits: list[str]) -> None:
    """Write ``texts.json`` beside each tower of a saved retriever: how its texts are made, and what that leaves out."""
    for tower, sides in retriever.sides_of_towers.items():
        write_json(folder / tower / TEXTS_FILE, texts_record(task, texts, retriever, limits, sides))


def texts_record(
    task: Task, texts: RetrieverTexts, retriever: Retriever, limits: list[str], sides: Sequence[Side]
) -> JsonObject:
    """Return the content of ``texts.json`` for a folder that embeds the texts of ``sides``.

    ``texts`` are the task's, as `describe_texts` returns them.
    """
    prompts = retriever.query_encoder.head.prompts
    query: JsonObject = {"prompt": prompts.before("query") + texts.prefixes["query"], "template": texts.query}
    query["queries"] = describe_queries(task)
    passage: JsonObject = {
        "prompt": retriever.passage_encoder.head.prompts.before("passage") + texts.prefixes["passage"],
        "template": texts.passage,
        "template_without_title": texts.untitled,
        "plain_text": texts.plain_passage,
    }
    read = {"query": query, "passage": passage}
    return {
        "format": 1,
        "task": task_record(task)[0],
        **{side: read[side] for side in sides},
        "max_tokens": retriever.query_encoder.max_tokens,
        "score": "inner product / temperature",
        "temperature": float(retriever.temperature.detach()),
        "plain_texts_suffice": not limits,
        "limits": [*limits],
    }
