"""Refuse data that a run would break on, before it computes anything."""

from __future__ import annotations

from retrograd.experiments.data.source import Data
from retrograd.experiments.experiment import Experiment
from retrograd.types import UserError

__all__ = ["require_data"]


def require_data(experiment: Experiment, data: Data) -> None:
    """Raise `UserError` where a stage needs training data and there are none, and for a dev or test example without an
    answer: it could not be scored once the model is trained.
    """
    if not data.train and experiment.stages_on_data:
        raise UserError(
            f"data.train names no training data, which {experiment.stages_on_data[0]} needs; give a file, "
            f"or set {experiment.stages_on_data[0]}.epochs = 0 (masking alone needs none)"
        )
    for part, examples in (("dev", data.dev), ("test", data.test)):
        bare = next((example for example in examples if not example.targets), None)
        if bare is not None:
            raise UserError(
                f"data.{part}, example {bare.id!r}: no answer, so it cannot be scored; give one, or leave data.{part} "
                f"out and answer the file with predict"
            )
