"""All of TACRED's 42 label sentences of an example in one pass, against one label a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import torch
from benchmarks.label_scoring import generators, questions
from benchmarks.speed.measuring import Aim, Measured, Row, compare_speed

from retrograd.models.settings import Scoring

__all__ = ["ROWS"]

_SENTENCES, _LABELS = 4, 42
_MODELS = {"builtin": "builtin:minilm-seq2seq", "t5": "T5-small's sizes, random"}


def measure_scoring(model: str, scoring: Scoring) -> Callable[[int], Measured]:
    """Return the measurement of one model and one way to score."""

    def measure(repeats: int) -> Measured:
        prompts, choices = questions(_SENTENCES, _LABELS)
        generator = generators()[_MODELS[model]]

        @torch.no_grad()
        def one_label_a_call() -> None:
            for prompt, texts in zip(prompts, choices, strict=True):
                for text in texts:
                    generator.log_likelihood([prompt], [text])

        ratios, seconds = compare_speed(
            one_label_a_call, lambda: generator.choice_log_likelihood(prompts, choices, scoring), repeats
        )
        return ratios, seconds, f"{_SENTENCES} sentences, {_MODELS[model]}"

    return measure


ROWS = tuple(
    Row(
        f"labels-{scoring}-{model}",
        f"{_LABELS} labels, {scoring}",
        "one call a label",
        measure_scoring(model, scoring),
        Aim(10),
    )
    for model in _MODELS
    for scoring in get_args(Scoring)
)
