"""Lengths of texts in the tokens of the models that will read them, and the limits at which they are cut."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Generic, TypeVar

from retrograd.experiments.settings import GeneratorSettings, RetrieverSettings
from retrograd.models.compute.positions import position_limit
from retrograd.models.inputs.control_tokens import ControlTokens
from retrograd.models.inputs.prompt_tokens import PromptTokens, target_limit
from retrograd.models.loading.local_files import local_config, local_tokenizer
from retrograd.util.guards import JsonObject

__all__ = [
    "IN_WORDS",
    "Lengths",
    "Reservoir",
    "Ruler",
    "generator_ruler",
    "measure_lengths",
    "retriever_ruler",
    "target_ruler",
]

_MOST_KEPT = 10_000
_BINS = 8
_NO_LIMIT = 10**6

T = TypeVar("T")
Count = Callable[[Sequence[str]], list[int]]


class Reservoir(Generic[T]):
    """An even sample of at most 10,000 values of a stream (Vitter 1985, algorithm R); equal for equal streams."""

    def __init__(self) -> None:
        self.count = 0
        self.values: list[T] = []
        self._rng = random.Random(0)

    def add(self, text: T) -> None:
        self.count += 1
        if len(self.values) < _MOST_KEPT:
            self.values.append(text)
            return
        place = self._rng.randrange(self.count)
        if place < _MOST_KEPT:
            self.values[place] = text


@dataclass(frozen=True)
class Ruler:
    """A counter of ``unit`` in texts; longer ones than ``limit`` are cut.

    Without the model's tokenizer: words, no limit.
    """

    count: Count
    unit: str
    limit: int | None


@dataclass(frozen=True)
class Lengths:
    """Lengths of the texts ``what`` of a part, from ``sampled`` of ``texts``.

    ``cut`` is the share over ``limit``.

    ``bins`` are (shortest, longest, texts), evenly wide.
    """

    part: str
    what: str
    unit: str
    texts: int
    sampled: int
    mean: float
    median: int
    longest: int
    limit: int | None
    cut: float
    bins: tuple[tuple[int, int, int], ...]

    def record(self) -> JsonObject:
        """Return the lengths as JSON."""
        return {**asdict(self), "bins": [list(bin_) for bin_ in self.bins]}


def measure_lengths(part: str, what: str, texts: Sequence[str], total: int, ruler: Ruler) -> Lengths | None:
    """Return the lengths of a sample of ``total`` texts; None where there are none."""
    if not texts:
        return None
    lengths = sorted(ruler.count(texts))
    limit = ruler.limit
    cut = 0.0 if limit is None else sum(length > limit for length in lengths) / len(lengths)
    width = -(-(lengths[-1] - lengths[0] + 1) // _BINS)
    bins = [(start, start + width - 1) for start in range(lengths[0], lengths[-1] + 1, width)]
    histogram = tuple((low, high, sum(low <= length <= high for length in lengths)) for low, high in bins)
    mean, median = sum(lengths) / len(lengths), lengths[len(lengths) // 2]
    return Lengths(part, what, ruler.unit, total, len(lengths), mean, median, lengths[-1], limit, cut, histogram)


def _words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


IN_WORDS = Ruler(_words, "words", None)
"""Lengths in words, for lack of a tokenizer."""


def retriever_ruler(settings: RetrieverSettings, queries: bool) -> Ruler:
    """Return a counter for the tower of queries, or that of passages, special tokens included."""
    name = (settings.query_model if queries else "") or settings.model
    tokenizer, config = local_tokenizer(name), local_config(name)
    if tokenizer is None or config is None:
        return IN_WORDS
    limit = min(settings.max_tokens, tokenizer.model_max_length, position_limit(config) or settings.max_tokens)

    control = ControlTokens(tokenizer)

    def count(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in control.encode(texts)["input_ids"]]

    return Ruler(count, "tokens", limit)


def generator_ruler(settings: GeneratorSettings) -> Ruler:
    """Return a counter of prompts for the generator: in its chat template, where it has one."""
    tokenizer, config = local_tokenizer(settings.model), local_config(settings.model)
    if tokenizer is None or config is None:
        return IN_WORDS
    seq2seq = bool(config.is_encoder_decoder) or settings.model.startswith("builtin:")
    end = next((token for token in (tokenizer.eos_token_id, tokenizer.sep_token_id) if isinstance(token, int)), 0)
    tokens = PromptTokens(tokenizer, seq2seq, "\n", end, settings.chat)
    positions = position_limit(config)
    limit = settings.max_input_tokens
    if positions:
        limit = min(limit, positions - (0 if seq2seq else settings.max_target_tokens))
    return Ruler(lambda texts: [len(ids) for ids in tokens.ids(texts, [_NO_LIMIT] * len(texts))], "tokens", limit)


def target_ruler(settings: GeneratorSettings) -> Ruler:
    """Return a counter of targets for the generator: the end of sequence included."""
    tokenizer, config = local_tokenizer(settings.model), local_config(settings.model)
    if tokenizer is None:
        return IN_WORDS
    limit = settings.max_target_tokens if config is None else target_limit(config, settings.max_target_tokens)

    control = ControlTokens(tokenizer)

    def count(texts: Sequence[str]) -> list[int]:
        return [len(ids) + 1 for ids in control.encode(texts, special=False)["input_ids"]]

    return Ruler(count, "tokens", limit)
