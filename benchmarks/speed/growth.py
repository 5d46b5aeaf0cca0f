"""How the seconds of an operation grow with its size: the exponent of the power law that fits them best."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import linear_regression

from benchmarks.index import NAMES, world
from benchmarks.speed.joint_step import OurStep, make_model
from benchmarks.speed.measuring import Measured, Row, medians, take_turns

from retrograd.index.exact import ExactIndex
from retrograd.models.encoder import Encoder

__all__ = ["ROWS"]


def fit(works: Mapping[int, Callable[[], object]], repeats: int, unit: str) -> Measured:
    """Return the exponent of each turn, and the median seconds at each size."""
    seconds = take_turns({f"{size:,}": work for size, work in works.items()}, repeats)
    sizes = [math.log(size) for size in works]
    turns = zip(*seconds.values(), strict=True)
    return [_slope(sizes, turn) for turn in turns], medians(seconds), f"seconds at {unit}"


def _slope(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    return linear_regression(sizes, [math.log(one) for one in seconds]).slope


def measure_passages_of_the_base(repeats: int) -> Measured:
    """Search with log Z and its gradient over 1,000 to 1,000,000 passages."""
    vectors, query = world(1_000_000, 384, 32)

    def search(size: int) -> Callable[[], object]:
        index, learning = ExactIndex(vectors[:size], **NAMES), query.clone().requires_grad_()

        def run() -> None:
            found = index.search(learning, 20).log_normaliser
            assert found is not None
            found.sum().backward()

        return run

    return fit({size: search(size) for size in (1_000, 10_000, 100_000, 1_000_000)}, repeats, "passages")


def measure_passages_of_a_query(repeats: int) -> Measured:
    """Take gradients of a joint step of two questions that read 1 to 64 passages each."""
    model = make_model("seq2seq", "query", "fp32")
    return fit({count: OurStep(model, count, questions=2).gradients for count in (1, 4, 16, 64)}, repeats, "passages")


def measure_tokens(repeats: int) -> Measured:
    """Embed 32 texts of 16 to 512 tokens."""
    encoder = Encoder.open("builtin:minilm", max_tokens=512).eval()

    def embed(size: int) -> Callable[[], object]:
        texts = [" ".join(["rain"] * (size - 2))] * 32
        return lambda: encoder.embed(texts)

    works = {size: embed(size) for size in (16, 64, 256, 512)}
    return fit(works, repeats, "tokens a text")


ROWS = (
    Row("growth-base", "top 20, log Z, gradient", "size of the base", measure_passages_of_the_base, unit="exponent"),
    Row("growth-passages", "gradients of a joint step", "passages read", measure_passages_of_a_query, unit="exponent"),
    Row("growth-tokens", "embed texts", "their tokens", measure_tokens, unit="exponent"),
)
