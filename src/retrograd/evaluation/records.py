"""The files of an evaluation's predictions: ``predictions.jsonl``, and the prior's ranking in TREC's format."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote

from retrograd.types import Example, Prediction
from retrograd.util.guards import JsonObject, JsonValue

__all__ = ["prediction_record", "ranking_lines"]

_NO_WORD = re.compile(r"[\s%]")


def prediction_record(prediction: Prediction, example: Example | None = None) -> JsonObject:
    """Return a prediction as a JSON object; ``withheld`` is there where the model's own answer was withheld.

    ``query`` and ``gold``, the accepted answers, are there where its example is given. ``candidates`` are the passages
    that were read, heaviest first, each with its ``prior`` p(z|x) and its ``responsibility`` p(z|x,y), None where the
    model knows none.
    """
    record: JsonObject = {
        "id": prediction.id,
        **({} if example is None else {"query": example.query, "gold": [*example.targets]}),
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
    """Yield the passages that were read for each example by p(z|x), best first: ``QUERY Q0 PASSAGE RANK SCORE
    retrograd``.

    The format has blanks between its fields, so a blank in an id is written as in addresses: ``%20``, and ``%`` as
    ``%25``. Ids are then read by `urllib.parse.unquote`.
    """
    for prediction in predictions:
        pairs = zip(prediction.prior_weights, prediction.passage_ids, strict=True)
        ranked = sorted(pairs, key=lambda pair: -pair[0])
        for rank, (prior, id_) in enumerate(ranked, start=1):
            yield f"{_word(prediction.id)} Q0 {_word(id_)} {rank} {prior!r} retrograd"


def _word(text: str) -> str:
    """Return a text as one word."""
    return _NO_WORD.sub(lambda match: quote(match.group(), safe=""), text)
