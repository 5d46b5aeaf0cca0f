"""The values that settings of models can have, and what follows from them alone: no model and no tensor."""

from __future__ import annotations

from typing import Literal, Protocol

__all__ = [
    "ComputePrecision",
    "LearningTowers",
    "Pooling",
    "PoolingChoice",
    "PoolingMode",
    "PrecisionSetting",
    "Quantisation",
    "Scoring",
    "SoftPosition",
    "TrainedTowers",
]

PoolingMode = Literal["mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
"""The names of sentence-transformers; "weightedmean" weighs the token at place t, counted from 1, by t."""

Pooling = Literal[PoolingMode, "roles", "concatenated"]
"""The modes of sentence-transformers, several of them side by side, or roles."""

PoolingChoice = Literal["auto", Pooling]
"""A pooling, or "auto": what the model's folder declares, and the mean where it declares nothing."""

PrecisionSetting = Literal["auto", "bf16", "fp32"]
"""The setting of a precision; ``auto`` is the faster of the other two."""

ComputePrecision = Literal["bf16", "fp32"]
Quantisation = Literal["none", "nf4"]
Scoring = Literal["sequence", "tree"]
SoftPosition = Literal["before", "after"]
TrainedTowers = Literal["both", "query", "none"]


class LearningTowers(Protocol):
    """A retriever, or the settings of one, of which ``trained`` names the towers that learn."""

    trained: TrainedTowers

    @property
    def shares_tower(self) -> bool:
        """True if both towers are one module."""
        ...

    @property
    def is_trained(self) -> bool:
        """True if any tower receives gradient."""
        return self.trained != "none"

    @property
    def trains_passages(self) -> bool:
        """True if passage embeddings receive gradient."""
        return self.trained == "both"

    @property
    def passages_move(self) -> bool:
        """True if training changes passage embeddings, so that an index grows stale."""
        return self.trains_passages or (self.is_trained and self.shares_tower)
