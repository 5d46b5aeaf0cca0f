"""The index in a plan: its bytes, whether it is there already, and what that saves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from retrograd.experiments.experiment import Experiment
from retrograd.index.disk.storage import Manifest, find_dtype, read_manifest
from retrograd.index.disk.versions import read_current
from retrograd.index.kinds import holds_index, require_engine, say_how_to_write, stored_kind
from retrograd.index.settings import is_milvus_place
from retrograd.studies.planning.data import DataFacts
from retrograd.types import UserError

__all__ = ["IndexFacts", "collect_index_facts"]

_ROW_BYTES = {
    "faiss": {"flat": (4.0, 0), "ivf": (4.0, 8), "ivf-sq8": (1.0, 8), "ivf-pq": (4.125, 8), "hnsw": (4.0, 256)},
    "milvus": {"flat": (4.0, 8), "ivf": (8.0, 16), "ivf-sq8": (5.0, 16), "hnsw": (8.0, 264)},
}
"""Bytes of a row with each preset: for each number, and beside them (`FaissIndex.preset`). Milvus, served by this
process, keeps the rows themselves beside its index of them.
"""


@dataclass(frozen=True)
class IndexFacts:
    """Facts of the index: ``row_bytes`` for a row of D numbers, ``number_bytes`` for each and ``more_bytes`` beside.

    ``is_ready`` says that the embeddings that a run begins with are there; ``is_mapped`` that they are read from the
    disk as they are needed, and not held in memory. ``note`` says what is there, or is not; "" where nothing is.
    """

    number_bytes: float
    more_bytes: int = 0
    is_ready: bool = False
    is_mapped: bool = False
    note: str = ""

    def row_bytes(self, dimension: int) -> float:
        """Return the bytes of a row of so many numbers."""
        return self.number_bytes * dimension + self.more_bytes


def collect_index_facts(experiment: Experiment, facts: DataFacts) -> IndexFacts:
    """Return the facts of an experiment's index, from its settings and, where one is given, from its manifest.

    Raises `UserError` for a given index that training would refuse, as far as the manifest tells.
    """
    settings = experiment.index
    if settings.path and experiment.retriever.search_kind.needs_index:
        return _given_facts(experiment, facts)
    if settings.kind == "exact":
        return IndexFacts(float(settings.dtype.itemsize))
    number, more = _ROW_BYTES[settings.kind][settings.preset]
    return IndexFacts(4.0, more) if settings.factory else IndexFacts(number, more)


def _given_facts(experiment: Experiment, facts: DataFacts) -> IndexFacts:
    path, settings = experiment.index.path, experiment.index
    if not holds_index(path):
        note = f"index.path: {path} is not there yet; write it with: {say_how_to_write(path)}"
        return IndexFacts(float(settings.dtype.itemsize), note=note)
    base = None if facts.data is None else facts.data.base.fingerprint
    if is_milvus_place(path):
        served = "by a server" if "://" in path else "by this process, which holds it"
        number, more = (0.0, 0) if "://" in path else _ROW_BYTES["milvus"][settings.preset]
        return IndexFacts(number, more, is_ready=True, note=f"the index is given: {path}, served {served}")
    try:
        kind = stored_kind(path)
        require_engine(settings, kind)
        manifest = read_current(Path(path), lambda folder: read_manifest(folder, kind, base))
    except UserError as error:
        raise UserError(f"index.path: {error}") from None
    number, more = _stored_bytes(experiment, manifest)
    # What training moves is written anew, and what faiss makes of exact embeddings is held.
    is_mapped = settings.kind == manifest.kind == "exact"
    return IndexFacts(number, more, is_ready=True, is_mapped=is_mapped, note=f"the index is given: {path}")


def _stored_bytes(experiment: Experiment, manifest: Manifest) -> tuple[float, int]:
    if experiment.index.kind == "exact" == manifest.kind:
        return float(find_dtype(manifest.dtype).itemsize), 0
    return _ROW_BYTES[experiment.index.kind][experiment.index.preset]
