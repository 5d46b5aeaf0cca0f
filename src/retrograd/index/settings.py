"""Settings of an index: which engine searches, where the embeddings lie, and how they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from retrograd.types import UserError
from retrograd.util.guards import require_at_least

__all__ = ["STORAGE_TYPES", "EngineName", "FaissPresetName", "IndexSettings", "Storage"]

EngineName = Literal["exact", "faiss"]
Storage = Literal["fp32", "bf16", "fp16"]
FaissPresetName = Literal["flat", "ivf", "ivf-sq8", "ivf-pq", "hnsw"]

STORAGE_TYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The types in which embeddings are stored, by the names that settings and commands use."""


@dataclass(frozen=True)
class IndexSettings:
    """Settings of the index of a model, which holds the embedding of each passage. A search by words needs none.

    ``kind`` is the engine that searches: "exact" compares a query with every passage and knows the normaliser over the
    base; "faiss" is approximate (`pip install 'retrograd[faiss]'`).

    ``path`` is the folder of an index of this base by this retriever, which `retrograd index build` writes; it is
    mapped, not read, and never changed. With "" the base is embedded when a run begins.
    ``storage`` is the type of the numbers of embeddings that are made here; those of a given index stay as they are.
    ``cache`` keeps them in the user's cache folder, so that a later run over the same passages with the same passage
    tower embeds nothing.

    ``preset`` are settings of faiss to begin with (`FaissIndex.preset`); ``factory`` names a structure of its own in
    the place of the preset's, ``probe`` is how hard it searches and ``rerank`` how many times K are put in order by
    exact vectors; 0 leaves both as the preset has them.

    Example::

        settings = rg.IndexSettings(kind="exact", storage="bf16")
        print(settings.path or "embedded at the beginning")
    """

    kind: EngineName = "exact"
    path: str = ""
    storage: Storage = "fp32"
    cache: bool = True
    preset: FaissPresetName = "ivf"
    factory: str = ""
    probe: int = 0
    rerank: int = 0

    def __post_init__(self) -> None:
        require_at_least(0, {"index.probe": self.probe, "index.rerank": self.rerank})
        of_faiss = {"factory": self.factory, "probe": self.probe, "rerank": self.rerank}
        given = next((name for name, value in of_faiss.items() if value), None)
        if self.kind != "faiss" and given is not None:
            raise UserError(
                f'index.{given} is {of_faiss[given]!r}, which is a setting of faiss, and index.kind is "{self.kind}"; '
                f'set index.kind = "faiss", or leave index.{given} out'
            )

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of the numbers of embeddings that are made here."""
        return STORAGE_TYPES[self.storage]
