"""Settings of `retrograd.experiments.from_python.train` in one flat record, for the settings of several stages."""

from __future__ import annotations

from dataclasses import dataclass

from retrograd.experiments.settings import TrainingSettings, WarmStartSettings
from retrograd.models.settings import ComputePrecision
from retrograd.types import UserError
from retrograd.util.guards import require_at_least

__all__ = ["TrainingConfig"]

_WHOLE_BASE_PASSAGES = 100_000
_WARM_PASSAGES = 100


@dataclass(frozen=True)
class TrainingConfig:
    """Frozen settings of `rg.train`; an experiment (`rg.run`) has all there are.

    Training makes ``epochs`` visits of every example in steps of ``batch_size``, and each query reads ``passages``
    passages of each retriever; where memory is short, ``micro_batch`` queries are held in it at once (0: all). Before
    that the retriever alone learns for ``warm_start_epochs`` from which passages hold the answer's words.

    Generator, retriever and the numbers that scale all logits have learning rates of their own; 0 leaves a part where
    it is. The index is embedded anew every ``refresh_every`` steps where passages move. A checkpoint is written every
    ``save_every`` steps (0: never by steps) and every ``save_minutes`` minutes (0: never by the clock). ``seed`` orders
    the examples and feeds the sampler. ``deterministic`` has one seed repeat a run on a GPU, with slower kernels.

    The precision belongs to the model: ``from_pretrained(…, precision="bf16")``. Raises `UserError` for numbers out of
    range.

    Example::

        config = rg.TrainingConfig(epochs=1, batch_size=2, passages=2)
        print(config.seed)
    """

    epochs: int = 2
    batch_size: int = 16
    micro_batch: int = 0
    passages: int = 5
    warm_start_epochs: int = 1
    generator_learning_rate: float = 2e-4
    retriever_learning_rate: float = 2e-5
    scale_learning_rate: float = 0.02
    weight_decay: float = 0.01
    warmup: float = 0.1
    refresh_every: int = 20
    save_every: int = 0
    save_minutes: float = 15.0
    log_every: int = 10
    seed: int = 0
    deterministic: bool = False

    def __post_init__(self) -> None:
        at_least_0 = {
            "epochs": self.epochs,
            "micro_batch": self.micro_batch,
            "passages": self.passages,
            "warm_start_epochs": self.warm_start_epochs,
            "generator_learning_rate": self.generator_learning_rate,
            "retriever_learning_rate": self.retriever_learning_rate,
            "scale_learning_rate": self.scale_learning_rate,
            "weight_decay": self.weight_decay,
            "save_every": self.save_every,
            "save_minutes": self.save_minutes,
            "seed": self.seed,
        }
        require_at_least(0, at_least_0)
        require_at_least(1, {"batch_size": self.batch_size, "refresh_every": self.refresh_every})
        if self.epochs == 0 and self.warm_start_epochs == 0:
            raise UserError("epochs and warm_start_epochs are both 0, so nothing is trained; set one of them")

    def training(self, precision: ComputePrecision) -> TrainingSettings:
        """Return the settings of the main stage, in the precision of the model."""
        return TrainingSettings(
            epochs=self.epochs,
            batch_size=self.batch_size,
            micro_batch=self.micro_batch,
            passages=self.passages,
            generator_learning_rate=self.generator_learning_rate,
            retriever_learning_rate=self.retriever_learning_rate,
            scale_learning_rate=self.scale_learning_rate,
            weight_decay=self.weight_decay,
            warmup=self.warmup,
            refresh_every=self.refresh_every,
            log_every=self.log_every,
            save_every=self.save_every,
            save_minutes=self.save_minutes,
            precision=precision,
            deterministic=self.deterministic,
        )

    def warm_start(self, base_passages: int) -> WarmStartSettings:
        """Return the settings of the warm start: over a whole base, or the best passages of one too large for that."""
        passages = _WARM_PASSAGES if base_passages > _WHOLE_BASE_PASSAGES else 0
        return WarmStartSettings(epochs=self.warm_start_epochs, batch_size=max(self.batch_size, 1), passages=passages)
