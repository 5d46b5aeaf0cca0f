"""Embed a corpus, against sentence-transformers with its defaults: the same model and texts, vectors that agree."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmarks.speed.measuring import Aim, Measured, Row, compare_speed
from torch.nn.functional import cosine_similarity

from retrograd.data.relations.semeval import load_semeval
from retrograd.models.compute.compute import Compute
from retrograd.models.encoder import Encoder
from retrograd.models.settings import ComputePrecision

__all__ = ["ROWS"]

_TEXTS = 2_000
_LEAST_COSINE = 0.999


def measure_in(precision: ComputePrecision) -> Callable[[int], Measured]:
    """Return the measurement in one precision; theirs is fp32, as it comes."""

    def measure(repeats: int) -> Measured:
        from sentence_transformers import SentenceTransformer

        texts = [instance.text for instance in load_semeval("train")][:_TEXTS]
        ours, compute = Encoder.open("builtin:minilm").eval(), Compute(torch.device("cpu"), precision)
        with tempfile.TemporaryDirectory() as folder:
            ours.save(Path(folder))
            theirs: Any = SentenceTransformer(folder, device="cpu")
        theirs.max_seq_length = ours.max_tokens

        def embed() -> torch.Tensor:
            with compute.autocast():
                return ours.embed(texts)

        def embed_theirs() -> torch.Tensor:
            return theirs.encode(texts, convert_to_tensor=True, show_progress_bar=False)

        agreement = float(cosine_similarity(embed().float(), embed_theirs().float()).min())
        ratios, seconds = compare_speed(embed_theirs, embed, repeats)
        if agreement < _LEAST_COSINE:
            raise RuntimeError(f"vectors differ: the lowest cosine is {agreement:.5f}")
        return ratios, seconds, f"{_TEXTS:,} sentences, lowest cosine {agreement:.5f}"

    return measure


AIMS: dict[ComputePrecision, float] = {"fp32": 1.5, "bf16": 3.0}
ROWS = tuple(
    Row(f"encode-{one}", f"embed sentences, {one}", "sentence-transformers", measure_in(one), Aim(aim))
    for one, aim in AIMS.items()
)
