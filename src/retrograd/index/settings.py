"""Settings of an index: which engine searches, where the embeddings lie, and how they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from retrograd.deferred import torch
from retrograd.types import UserError
from retrograd.util.guards import require_at_least

__all__ = [
    "DEFAULT_ESTIMATION",
    "ApproximateEngine",
    "EngineName",
    "IndexSettings",
    "NormaliserEstimation",
    "PresetName",
    "Storage",
    "is_milvus_place",
    "storage_type",
]

ApproximateEngine = Literal["faiss", "milvus"]
EngineName = Literal["exact", ApproximateEngine]
Storage = Literal["fp32", "bf16", "fp16"]
PresetName = Literal["flat", "ivf", "ivf-sq8", "ivf-pq", "hnsw"]


def storage_type(name: Storage) -> torch.dtype:
    """Return the type in which embeddings are stored, by the name that settings and commands use."""
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def is_milvus_place(where: str) -> bool:
    """Return whether this is a file of milvus-lite or the address of a server, and not a folder."""
    return "://" in where or where.endswith(".db")


@dataclass(frozen=True)
class IndexSettings:
    """Settings of the index of a model, which holds the embedding of each passage. A search by words needs none.

    ``kind`` is the engine that searches: "exact" compares a query with every passage and knows the normaliser over the
    base; "faiss" (`pip install 'retrograd[faiss]'`) and "milvus" (`pip install 'retrograd[milvus]'`) are approximate.

    ``path`` is an index of this base by this retriever: a folder that `retrograd index build` or `publish` wrote, or,
    for Milvus, a file ``NAME.db`` or a server's address, where ``collection`` names it. It is never changed. With ""
    the base is embedded when a run begins. An engine that finds exact embeddings there makes its own index of them.
    ``storage`` is the type of the numbers of embeddings that are made here; those of a given index stay as they are.
    ``cache`` keeps them in the user's cache folder, so that a later run over the same passages with the same passage
    tower embeds nothing.

    ``preset`` are settings of the approximate engine to begin with (`FaissIndex.preset`, `MilvusIndex.preset`), and
    ``probe`` is how hard it searches (0: as the preset has it). ``factory`` names a structure of faiss in the place of
    the preset's, and ``rerank`` how many times K are put in order there by exact vectors (0: as the preset has it).

    Example::

        settings = rg.IndexSettings(kind="exact", storage="bf16")
        print(settings.path or "embedded at the beginning")
    """

    kind: EngineName = "exact"
    path: str = ""
    storage: Storage = "fp32"
    cache: bool = True
    collection: str = "retrograd"
    preset: PresetName = "ivf"
    factory: str = ""
    probe: int = 0
    rerank: int = 0

    def __post_init__(self) -> None:
        require_at_least(0, {"index.probe": self.probe, "index.rerank": self.rerank})
        for name, value, kinds in (
            ("factory", self.factory, ("faiss",)),
            ("rerank", self.rerank, ("faiss",)),
            ("probe", self.probe, ("faiss", "milvus")),
            ("collection", self.collection if self.collection != "retrograd" else "", ("milvus",)),
        ):
            if value and self.kind not in kinds:
                raise UserError(
                    f"index.{name} is {value!r}, which is a setting of {' and '.join(kinds)}, and index.kind is "
                    f'"{self.kind}"; set index.kind = "{kinds[0]}", or leave index.{name} out'
                )
        if self.kind == "milvus" and self.preset == "ivf-pq":
            raise UserError('index.preset = "ivf-pq" is one of faiss; for Milvus set index.preset = "ivf-sq8"')
        if self.kind != "milvus" and is_milvus_place(self.path):
            raise UserError(
                f'index.path is {self.path!r}, which Milvus serves, and index.kind is "{self.kind}"; set index.kind = '
                f'"milvus", or give a folder'
            )

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of the numbers of embeddings that are made here."""
        return storage_type(self.storage)


@dataclass(frozen=True)
class NormaliserEstimation:
    """Settings of an estimated log Z: ``draws`` of rows for a query (0: no estimate), ``least_recall`` of the index.

    An interval of 95 % cannot hold where the search misses a heavy row of more than 5 % of the queries, so that an
    index with a measured recall below 0.95 is not estimated from unless a setting accepts it.
    """

    draws: int = 512
    least_recall: float = 0.95

    def __post_init__(self) -> None:
        if self.draws < 0 or self.draws == 1:
            raise UserError(
                f"normaliser_draws is {self.draws}; expected 0 (no estimate), or at least 2, of which an error can be "
                f"estimated"
            )
        if not 0.0 <= self.least_recall <= 1.0:
            raise UserError(f"normaliser_recall is {self.least_recall:g}; expected a share, from 0 to 1")


DEFAULT_ESTIMATION = NormaliserEstimation()
"""The settings of an estimate where nothing else is said."""
