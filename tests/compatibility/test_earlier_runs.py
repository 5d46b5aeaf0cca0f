"""Runs that earlier versions wrote open, and answer as they did then.

`0.1.0/` holds two runs of tiny random models as version 0.1.0 left them, with the predictions it wrote. A version that
can no longer open one must say in its error which version can.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retrograd.evaluation.evaluate import predict
from retrograd.experiments.open import open_run

RUNS = Path(__file__).parent / "0.1.0"

# Log-probabilities of some 20 nats from matrix products of width 16 in another order: a few units in the last place
# of fp32 each (1.2e-7 relative), over fewer than 100 operations in a row.
RELATIVE = 100 * 1.2e-7


@pytest.mark.parametrize("kind", ["questions", "relations"])
def test_a_run_of_0_1_0_answers_as_it_did(kind: str) -> None:
    opened = open_run(RUNS / kind)
    data = opened.experiment.data
    examples = data.read(RUNS / f"{kind}.jsonl", None, opened.task, opened.model.base)
    predictions = predict(opened.model, examples, opened.experiment.test_passages, opened.experiment.evaluation.scoring)
    lines = (RUNS / kind / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(predictions) == len(lines) == 10
    for prediction, line in zip(predictions, lines, strict=True):
        written = json.loads(line)
        assert prediction.answer == written["answer"]
        assert prediction.log_probability == pytest.approx(written["log_probability"], rel=RELATIVE)
        assert list(prediction.passage_ids) == written["passage_ids"]
