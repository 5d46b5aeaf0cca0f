"""The files of an evaluation's predictions: ``predictions.jsonl``, and the prior's ranking in TREC's format."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote

from retrograd.data.relations.instance import has_unseen_label
from retrograd.types import Example, Prediction
from retrograd.util.guards import JsonObject, JsonValue

__all__ = ["prediction_record", "ranking_lines", "trec_lines"]

_BLANK = re.compile(r"\s")


def prediction_record(prediction: Prediction, example: Example | None = None) -> JsonObject:
    """Return a prediction as a JSON object; ``withheld`` is there where the model's own answer was withheld.

    ``query`` and ``gold``, the accepted answers, are there where its example is given, and ``has_unseen_label`` where
    gold is a label that no answer can name. ``candidates`` are the passages
    that were read, heaviest first, each with its ``prior`` p(z|x) and its ``responsibility`` p(z|x,y), None where the
    model knows none.
    """
    record: JsonObject = {
        "id": prediction.id,
        **({} if example is None else {"query": example.query, "gold": [*example.targets]}),
        **({"has_unseen_label": True} if example is not None and has_unseen_label(example) else {}),
        "answer": prediction.answer,
        "log_probability": prediction.log_probability,
        "candidates": list(_candidates(prediction)),
        "rows": [*prediction.rows],
        "passage_ids": [*prediction.passage_ids],
        "weights": [*prediction.weights],
        "prior_weights": [*prediction.prior_weights],
        "weights_are": prediction.weight_kind,
        "confidence": prediction.confidence,
        "confidence_is": f"probability {prediction.confidence_kind}",
        "citations": [
            {"passage_id": citation.passage_id, "probability": citation.probability}
            for citation in prediction.citations
        ],
    }
    return record if prediction.withheld is None else record | {"withheld": prediction.withheld}


def _candidates(prediction: Prediction) -> Iterator[JsonValue]:
    columns = prediction.rows, prediction.passage_ids, prediction.prior_weights, prediction.weights
    for row, id_, prior, weight in zip(*columns, strict=True):
        responsibility = weight if prediction.has_posterior_weights else None
        yield {"id": id_, "row": row, "prior": prior, "responsibility": responsibility}


def ranking_lines(predictions: Sequence[Prediction]) -> Iterator[str]:
    """Yield the passages that were read for each example as `trec_lines`, with the tag ``retrograd``.

    The score is the prior's weight, p(z|x) among the passages that were read.
    """
    for prediction in predictions:
        scores = list(zip(prediction.passage_ids, prediction.prior_weights, strict=True))
        yield from trec_lines(prediction.id, scores, "retrograd")


def trec_lines(query: str, scores: Sequence[tuple[str, float]], tag: str) -> Iterator[str]:
    """Yield a query's passages as a run file of TREC has them, best first: ``QUERY Q0 PASSAGE RANK SCORE TAG``.

    ``scores`` are ids of passages with their scores. The format has blanks between its fields, so white space in an id
    is written as in addresses, a blank as ``%20``. Everything else in it stays as it is.
    """
    ranked = sorted(scores, key=lambda pair: -pair[1])
    for rank, (id_, score) in enumerate(ranked, start=1):
        yield f"{_word(query)} Q0 {_word(id_)} {rank} {score!r} {_word(tag)}"


def _word(text: str) -> str:
    """Return a text as one word."""
    return _BLANK.sub(lambda match: quote(match.group(), safe=""), text)
