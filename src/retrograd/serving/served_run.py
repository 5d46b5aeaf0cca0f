"""One run behind the service: what is asked of its model, batch by batch, equal to `predict` and `search`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

from retrograd.evaluation.records import prediction_record
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.open import OpenRun, open_run
from retrograd.index.kinds import current_name
from retrograd.models.compute.inference import inference
from retrograd.serving.fresh_index import FreshIndex
from retrograd.serving.requests import Query
from retrograd.serving.tested import TestedExample, read_tested
from retrograd.studies.answers import select_rows
from retrograd.tasks.task import TurnTask
from retrograd.training.run.run_directory import RunDirectory
from retrograd.types import Example, Hit, Passage, Prediction, UserError
from retrograd.util.guards import JsonObject, JsonValue

__all__ = ["AnswerBatch", "EmbedBatch", "SearchBatch", "ServedRun", "StreamBatch", "StreamedAnswer", "hit_records"]

Side = Literal["query", "passage"]
Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class ServedRun:
    """A finished run, opened, under the ``name`` by which clients ask for it; it is equal to itself alone."""

    name: str
    path: Path
    opened: OpenRun
    index: FreshIndex = field(repr=False)
    tested: tuple[TestedExample, ...] = field(default=(), repr=False)

    @classmethod
    def open(cls, path: Path, name: str) -> ServedRun:
        """Open a finished run. Raises `UserError` as `open_run`."""
        settings = Experiment.load(RunDirectory.open(path).experiment).index
        version = current_name(settings) if settings.path else ""  # before it is opened: a later one is then taken up
        opened = open_run(path)
        return cls(name, path, opened, FreshIndex(opened.model, version), read_tested(path, opened.task))

    @property
    def default_passages(self) -> int:
        """Return how many passages are read where a client does not say: as many as in the run's test."""
        return min(self.opened.experiment.test_passages, len(self.opened.model.base))

    def read_query(self, query: Query) -> Example:
        """Return a query as an example. Raises `UserError` for a text that is none, and turns where none are read."""
        task = self.opened.task
        if not query.turns:
            return task.parse_query(query.text)
        if not isinstance(task, TurnTask):
            raise UserError(f'"turns" are for dialogues, and the task of this run is {task.name}; send "query"')
        return task.parse_turns(query.turns)

    def streams(self, k: int) -> bool:
        """Return whether an answer from ``k`` passages is decoded once, so that its tokens can be sent as they come."""
        answering, task = self.opened.model.answering, self.opened.task
        one_text = k == 0 or answering.selection is not None or answering.manner.one_prompt
        is_written = answering.manner.answers == "written" or task.choices is None
        return one_text and is_written and answering.manner.beams == 1 and answering.abstain_below is None

    def count_sources(self, k: int) -> int:
        """Return how many passages an answer from ``k`` of them names: in soft slots as many as there are slots."""
        selection = self.opened.model.answering.selection
        return k if selection is None else min(k, selection.slots)

    # ---- work of the model's thread -----------------------------------------------------------------------------

    def rows(self, where: Sequence[str]) -> tuple[int, ...] | None:
        """Return the rows that match all patterns; None, for all, without any. Raises `UserError` as `select_rows`."""
        if where and not self.opened.model.needs_index:
            raise UserError("where is for searches by embeddings, and this run has none; leave it out")
        rows = select_rows(self.opened.model.base, where)
        return None if rows is None else tuple(rows)

    def search(self, examples: Sequence[Example], k: int, where: Sequence[str] = ()) -> list[list[Hit]]:
        """Return the k best passages of each query with p(z|x), best first, among those that match all patterns."""
        model = self.opened.model
        with model.among(self.rows(where)), inference(model):
            candidates = model.retrieve(examples, min(k, len(model.base)))
        log_prior = candidates.scores.log_prior
        found = zip(candidates.rows.tolist(), log_prior.exp().tolist(), strict=True)
        return [
            [Hit(row, model.base[row], share) for row, share in zip(own, shares, strict=True) if row >= 0]
            for own, shares in found
        ]

    def answer(self, examples: Sequence[Example], k: int, where: Sequence[str] = ()) -> list[Prediction]:
        """Return an answer of each query from its k best passages that match, with the passages themselves."""
        model = self.opened.model
        with model.among(self.rows(where)):
            predictions = model.predict(examples, k, self.opened.experiment.evaluation.scoring)
        return [replace(one, passages=tuple(model.base.passages(one.rows))) for one in predictions]

    def embed(self, texts: Sequence[str], side: Side) -> list[list[float]]:
        """Return the embedding of each text by one side of the retriever."""
        model = self.opened.model
        retriever = model.retriever
        with model.autocast():
            if side == "query":
                return retriever.query_encoder.embed(texts, "query").tolist()
            return retriever.passage_encoder.embed_passages(texts).tolist()

    def embedded_texts(self, texts: Sequence[str], side: Side) -> tuple[str, ...]:
        """Return what a side of the retriever reads of each text. Raises `UserError` for a text that is no query."""
        task = self.opened.task
        if side == "query":
            return tuple(task.query_text(task.parse_query(text)) for text in texts)
        return tuple(task.passage_text(Passage("", "", text)) for text in texts)

    # ---- records ------------------------------------------------------------------------------------------------

    def answer_record(self, example: Example, prediction: Prediction) -> JsonObject:
        """Return an answer as JSON: the label where there are labels, passages with p(z|x) and p(z|x,y), citations."""
        record = prediction_record(prediction)
        candidates = record["candidates"]
        assert isinstance(candidates, list)
        passages: list[JsonValue] = [
            {**one, "title": passage.title, "text": passage.text}
            for one, passage in zip(candidates, prediction.passages, strict=True)
            if isinstance(one, dict)
        ]
        kept = ("answer", "log_probability", "confidence", "confidence_is", "weights_are", "citations", "withheld")
        answer: JsonObject = {name: record[name] for name in kept if name in record}
        log_probability = prediction.log_probability
        answer["log_probability"] = log_probability if math.isfinite(log_probability) else None
        answer |= self.opened.task.label_record(prediction.answer, example)
        answer["passages"] = passages
        return answer


def hit_records(hits: Sequence[Hit]) -> list[JsonValue]:
    """Return passages that were found as JSON, best first, each with its ``prior`` p(z|x)."""
    return [
        {
            "id": hit.passage.id,
            "row": hit.row,
            "title": hit.passage.title,
            "text": hit.passage.text,
            "prior": hit.probability,
        }
        for hit in hits
    ]


# ---- batches ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SearchBatch:
    """Searches in one run for equally many passages that match the same patterns."""

    served: ServedRun
    k: int
    where: tuple[str, ...] = ()
    takes_several: bool = True

    def run(self, items: Sequence[object]) -> Sequence[object]:
        """Return the passages of each `Example`."""
        self.served.index.refresh()
        return self.served.search(_examples(items), self.k, self.where)


@dataclass(frozen=True)
class AnswerBatch:
    """Answers of one run from equally many passages that match the same patterns."""

    served: ServedRun
    k: int
    where: tuple[str, ...] = ()
    takes_several: bool = True

    def run(self, items: Sequence[object]) -> Sequence[object]:
        """Return the `Prediction` of each `Example`."""
        self.served.index.refresh()
        return self.served.answer(_examples(items), self.k, self.where)


@dataclass(frozen=True)
class EmbedBatch:
    """Embeddings by one side of a run's retriever; an item is a tuple of texts."""

    served: ServedRun
    side: Side
    takes_several: bool = True

    def run(self, items: Sequence[object]) -> Sequence[object]:
        """Return the embeddings of each tuple of texts."""
        groups = [_of_type(item, tuple) for item in items]
        vectors = iter(self.served.embed([text for group in groups for text in group], self.side))
        return [[next(vectors) for _ in group] for group in groups]


@dataclass(frozen=True)
class StreamedAnswer:
    """A query whose ``sources`` are told of before it is answered.

    ``follow`` is told of the text so far, again and again, while the answer is decoded; None where several texts are
    decoded. Either function may raise to end the work.
    """

    example: Example
    sources: Callable[[list[Hit]], None]
    follow: Callable[[str], None] | None


@dataclass(frozen=True)
class StreamBatch:
    """Answers that are sent in pieces, one at a time; an item is a `StreamedAnswer`."""

    served: ServedRun
    k: int
    takes_several: bool = False

    def run(self, items: Sequence[object]) -> Sequence[object]:
        """Return the `Prediction` of each item."""
        self.served.index.refresh()
        return [self._answer(_of_type(item, StreamedAnswer)) for item in items]

    def _answer(self, item: StreamedAnswer) -> Prediction:
        if self.k > 0:
            item.sources(self.served.search([item.example], self.served.count_sources(self.k))[0])
        followed = nullcontext() if item.follow is None else self.served.opened.model.generator.followed_by(item.follow)
        with followed:
            return self.served.answer([item.example], self.k)[0]


def _examples(items: Sequence[object]) -> list[Example]:
    return [_of_type(item, Example) for item in items]


def _of_type(item: object, kind: type[Item]) -> Item:
    """Return an item of the queue, which carries those of every kind."""
    assert isinstance(item, kind), item
    return item
