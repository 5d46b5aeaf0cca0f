"""An index in Milvus, for a base that outgrows a process: in a local file, on a server, on a cluster.

Only this file imports pymilvus. A *place* is a file ``NAME.db``, which milvus-lite serves within this process, or the
address of a server (``http://host:19530``; ``$MILVUS_TOKEN`` logs in). Each version of an index is a collection of its
own, ``NAME_v000001``, ``NAME_v000002``, …; when all its rows are in, counted, searched and described, the alias
``NAME`` is switched to it in one step. Who opens an index follows the alias once and stays with that collection, so
that no reader sees half of a version or two of them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrograd.index.approximate import count_lists, drop_rows, measure_recall
from retrograd.index.disk.storage import Manifest, parse_record, require_same
from retrograd.index.exact import ExactIndex
from retrograd.index.protocol import LogNormaliser, Neighbours, require_query, require_rows
from retrograd.types import UserError
from retrograd.util.guards import suggest_name

if TYPE_CHECKING:
    from pymilvus import MilvusClient

__all__ = ["MilvusIndex", "MilvusPreset"]

_ROW, _VECTOR = "row", "vector"
_MANIFEST = "retrograd.manifest"
_VERSION = re.compile(r"v(\d{6,18})")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEPT_VERSIONS = 2
"""One older version stays: somebody may have followed the alias to it and not yet searched."""

_INSERTED_BYTES = 2**24
_SEGMENT_ROWS = 100_000
"""Rows of a segment, which has an index of its own: at most this in milvus-lite; a server chooses by bytes."""

_MOST_RESULTS = 16_384
"""Results of one query that Milvus returns at most."""

_WIDEST = 32_768
_WAIT_SECONDS = 0.2
_QUERIES = 1_024
_FETCHED = 8_192
"""Queries, and rows with their vectors, of one request."""


@dataclass(frozen=True)
class MilvusPreset:
    """An index of Milvus, with how it is built and how hard it searches: ``probe`` lists (IVF) or ``ef`` (HNSW)."""

    index_type: str
    build: dict[str, int]
    probe: int = 0

    def search_params(self, results: int) -> dict[str, int]:
        """Return the parameters of a search for so many results."""
        if self.index_type == "HNSW":
            return {"ef": max(self.probe, results)}
        return {"nprobe": self.probe} if self.probe else {}


class MilvusIndex:
    """Embeddings [N D] in one collection of Milvus, searched by inner product.

    Made by `publish`, `open`, or `build` (a local file that goes with the index). ``recall`` is the share of the exact
    top 10 that the top 10 held when it was published; ``embeddings`` are those it was made of, where they are at hand:
    vectors are then read there, and not asked of Milvus.
    """

    log_z: LogNormaliser = "estimated"
    samples_exactly = False
    moves_rows = False
    keeps_embeddings = True
    is_spread = False
    saves_with_model = False

    def __init__(
        self, client: MilvusClient, place: str, collection: str, manifest: Manifest, embeddings: ExactIndex | None
    ) -> None:
        """Keep an opened collection; use `publish`, `open` or `build`."""
        self._client = client
        self._embeddings = embeddings
        self._manifest = manifest
        self.place = place
        self.collection = collection
        self.base_fingerprint = manifest.base_fingerprint
        self.encoder_fingerprint = manifest.encoder_fingerprint
        self.dimension = manifest.dimension
        self.recall = manifest.recall or 0.0
        self._preset = MilvusPreset(manifest.factory or "FLAT", {}, manifest.probe or 0)

    @staticmethod
    def preset(name: str, rows: int, probe: int = 0) -> MilvusPreset:
        """Return an index of Milvus to begin with, by the names of `FaissIndex.preset`: "flat", "ivf", "ivf-sq8",
        "hnsw"; ``probe`` other than 0 takes the place of its own.

        Milvus builds one for each segment of rows, so the number of lists is that of a segment. (milvus-lite 3.2 reads
        none of this and takes 128 lists, or M = 16; ``probe`` it reads.) Raises `UserError` for another name.
        """
        lists, own_probe = count_lists(min(rows, _SEGMENT_ROWS))
        presets = {
            "flat": MilvusPreset("FLAT", {}),
            "ivf": MilvusPreset("IVF_FLAT", {"nlist": lists}, probe or own_probe),
            "ivf-sq8": MilvusPreset("IVF_SQ8", {"nlist": lists}, probe or own_probe),
            "hnsw": MilvusPreset("HNSW", {"M": 32, "efConstruction": 200}, probe or 128),
        }
        if name not in presets:
            raise UserError(f"Milvus has no preset {name!r}; {suggest_name(name, list(presets))}")
        return presets[name]

    @classmethod
    def publish(
        cls,
        exact: ExactIndex,
        place: str,
        name: str = "retrograd",
        preset: MilvusPreset | None = None,
        *,
        queries: Float[Tensor, "Q D"] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> MilvusIndex:
        """Write exact embeddings into a new collection and switch the alias ``name`` to it; return the index.

        Rows are sent in blocks of 16 MiB, which ``progress`` counts; of mapped embeddings no more is read at once. The
        recall is measured with ``queries``, else with rows of the base, as by `FaissIndex`. Two versions stay. Killed
        at any moment, the version before stays the current one, and what was left is dropped by the next call; of two
        calls at once for one name the later one wins.

        Raises `UserError` without pymilvus, where Milvus cannot be reached or refuses, and for vectors wider than it
        stores.
        """
        preset = preset or cls.preset("ivf", len(exact))
        if not _NAME.fullmatch(name):
            raise UserError(f"index.collection is {name!r}; Milvus takes letters, digits and _, not a digit first")
        if exact.dimension > _WIDEST:
            raise UserError(
                f"these vectors have {exact.dimension:,} numbers, and Milvus stores at most {_WIDEST:,}; set "
                f'retriever.lexical_dimensions lower, or index.kind = "exact"'
            )
        _make_folder(place)
        client = _connect(place)
        with _explain(place):
            collection = _next_collection(client, name)
            _create(client, collection, exact.dimension)
            _insert(client, collection, exact, progress)
            _make_searchable(client, collection, preset)
            _require_count(client, collection, len(exact))
            fingerprints = exact.base_fingerprint, exact.encoder_fingerprint
            shape = len(exact), exact.dimension
            manifest = Manifest("milvus", *fingerprints, "F32", *shape, preset.index_type, preset.probe or None)
            index = cls(client, place, collection, manifest, exact)
            index.recall = measure_recall(index, exact, queries)
            index._manifest = replace(manifest, recall=index.recall)
            properties = {_MANIFEST: json.dumps(asdict(index._manifest))}
            client.alter_collection_properties(collection, properties=properties)
            _switch(client, name, collection)
            _drop_older(client, name, collection)
        return index

    @classmethod
    def build(cls, exact: ExactIndex, preset: MilvusPreset | None = None) -> MilvusIndex:
        """Return an index of exact embeddings in a local file of its own, which goes when the index does."""
        folder = tempfile.mkdtemp(prefix="retrograd-milvus-")
        try:
            index = cls.publish(exact, str(Path(folder) / "index.db"), preset=preset)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        weakref.finalize(index, _remove, folder)
        return index

    @classmethod
    def open(
        cls,
        place: str,
        name: str = "retrograd",
        *,
        base_fingerprint: str | None = None,
        encoder_fingerprint: str | None = None,
        probe: int = 0,
    ) -> MilvusIndex:
        """Open the current version of an index; ``probe`` other than 0 takes the place of that of its preset, with
        which its recall was measured.

        Raises `UserError` where there is none, where Milvus cannot be reached, and if a fingerprint given is not its
        own.
        """
        if "://" not in place and not Path(place).exists():
            raise UserError(f"{place} does not exist; write it with: retrograd index publish INDEX --to {place}")
        client = _connect(place)
        with _explain(place):
            collection, manifest = _open_current(client, place, name)
        where = f"{place}, {collection}"
        require_same(where, "knowledge base", manifest.base_fingerprint, base_fingerprint)
        require_same(where, "encoder", manifest.encoder_fingerprint, encoder_fingerprint)
        return cls(client, place, collection, replace(manifest, probe=probe or manifest.probe), None)

    def __len__(self) -> int:
        return self._manifest.rows

    @property
    def held_rows(self) -> range:
        """Return all rows of the base."""
        return range(len(self))

    def search(self, query: Float[Tensor, "B D"], k: int, exclude: Int[Tensor, "B E"] | None = None) -> Neighbours:
        """Return approximately the k best rows per query, never one of ``exclude``; padded (-1, ``-inf``) where Milvus
        found fewer.

        Takes k + E from Milvus and drops the excluded ones: one request serves queries that exclude different rows,
        which one filter cannot. Logits are fp32; ``log_normaliser`` is None. Raises as `ExactIndex.search` does, and
        `UserError` for more results than Milvus returns.
        """
        if k < 1:
            raise ValueError(f"k is {k}; expected at least 1")
        require_query(query, exclude, len(self), self.dimension)
        asked = min(k + (0 if exclude is None else exclude.shape[1]), len(self))
        if asked > _MOST_RESULTS:
            raise UserError(
                f"{k:,} passages are asked for and {asked - k:,} excluded; Milvus returns at most {_MOST_RESULTS:,}: "
                f"ask for fewer"
            )
        vectors = query.detach().to(device="cpu", dtype=torch.float32)
        row, logit = torch.full((len(query), asked), -1), torch.full((len(query), asked), -torch.inf)
        for first in range(0, len(query), _QUERIES):
            for line, hits in enumerate(self._search(vectors[first : first + _QUERIES], asked), first):
                row[line, : len(hits.ids)] = torch.tensor(hits.ids, dtype=torch.long)
                logit[line, : len(hits.ids)] = torch.tensor(hits.distances)
        return drop_rows(row.to(query.device), logit.to(query.device), exclude, k)

    def vectors(self, row: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape D"]:
        """Return the stored embeddings, fp32; row -1 gives zeros. Each distinct row is asked of Milvus once.

        Raises `ValueError` for a row that does not exist.
        """
        require_rows(row, len(self))
        if self._embeddings is not None:
            return self._embeddings.vectors(row)
        distinct, place = row.reshape(-1).cpu().unique(return_inverse=True)
        stored = torch.zeros(len(distinct), self.dimension)
        position = {number: i for i, number in enumerate(distinct.tolist()) if number >= 0}
        numbers = list(position)
        for first in range(0, len(numbers), _FETCHED):
            for record in self._fetch(numbers[first : first + _FETCHED]):
                stored[position[record[_ROW]]] = torch.tensor(record[_VECTOR])
        return stored[place].view(*row.shape, self.dimension).to(row.device)

    def _search(self, vectors: Float[Tensor, "B D"], asked: int) -> Sequence[_Hits]:
        parameters = {"metric_type": "IP", "params": self._preset.search_params(asked)}
        with _explain(self.place):
            return self._client.search(self.collection, list(vectors.numpy()), limit=asked, search_params=parameters)

    def _fetch(self, rows: list[int]) -> list[dict]:
        with _explain(self.place):
            records = self._client.get(self.collection, rows, output_fields=[_ROW, _VECTOR])
        if len(records) != len(rows):
            raise UserError(
                f"{self.place}, {self.collection} gives {len(records):,} of {len(rows):,} rows back; publish it again"
            )
        return records


class _Hits(Sequence):
    """What pymilvus returns for one query."""

    ids: list[int]
    distances: list[float]


def _connect(place: str) -> MilvusClient:
    try:
        from pymilvus import MilvusClient
    except ImportError:
        raise UserError("MilvusIndex needs pymilvus; install it with: pip install 'retrograd[milvus]'") from None
    with _explain(place):
        return MilvusClient(place, token=os.environ.get("MILVUS_TOKEN", ""))


@contextmanager
def _explain(place: str) -> Iterator[None]:
    """Turn what Milvus refuses into a `UserError` that names the place."""
    from pymilvus import MilvusException

    try:
        yield
    except MilvusException as error:
        reason = " ".join(str(error.message or error).split())[:300]
        remedy = (
            "see that the server runs and is reached"
            if "://" in place
            else "a file serves one process at a time: end the other, or start a server (docs/index.md)"
        )
        raise UserError(f"{place}: Milvus says: {reason}; {remedy}") from None


def _make_folder(place: str) -> None:
    if "://" not in place:
        Path(place).resolve().parent.mkdir(parents=True, exist_ok=True)


def _remove(folder: str) -> None:
    """Stop serving the file in a folder, and remove the folder."""
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(str(Path(folder) / "index.db"))
    shutil.rmtree(folder, ignore_errors=True)


def _versions(client: MilvusClient, name: str) -> dict[int, str]:
    """Return the collections that are versions of an index, finished or not, by their numbers."""
    found = {}
    for collection in client.list_collections():
        start, _, end = collection.rpartition("_")
        number = _VERSION.fullmatch(end)
        if start == name and number is not None:
            found[int(number[1])] = collection
    return found


def _next_collection(client: MilvusClient, name: str) -> str:
    return f"{name}_v{max(_versions(client, name), default=0) + 1:06d}"


def _create(client: MilvusClient, collection: str, dimension: int) -> None:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(_ROW, DataType.INT64, is_primary=True)
    schema.add_field(_VECTOR, DataType.FLOAT_VECTOR, dim=dimension)
    client.create_collection(collection, schema=schema)


def _insert(client: MilvusClient, collection: str, exact: ExactIndex, progress: Callable[[int], None] | None) -> None:
    step = max(1, _INSERTED_BYTES // (4 * exact.dimension))
    for first in range(0, len(exact), step):
        rows = torch.arange(first, min(first + step, len(exact)))
        vectors = exact.vectors(rows).cpu().numpy()
        client.insert(
            collection, [{_ROW: row, _VECTOR: vector} for row, vector in zip(rows.tolist(), vectors, strict=True)]
        )
        if progress is not None:
            progress(len(rows))
    client.flush(collection)


def _make_searchable(client: MilvusClient, collection: str, preset: MilvusPreset) -> None:
    """Have the rows indexed, and wait until they are. (`create_index` waits by a call that milvus-lite lacks.)"""
    parameters = client.prepare_index_params()
    parameters.add_index(_VECTOR, index_type=preset.index_type, metric_type="IP", params=preset.build)
    client.create_index(collection, parameters, sync=False)
    name = client.list_indexes(collection)[0]
    while (described := client.describe_index(collection, name))["state"] in ("InProgress", "Unissued"):
        time.sleep(_WAIT_SECONDS)
    if described["state"] != "Finished":
        raise UserError(f"Milvus could not index {collection}: {described['state']}; see the server's log")
    client.load_collection(collection)


def _require_count(client: MilvusClient, collection: str, rows: int) -> None:
    """Raise `UserError` unless all rows are there, as a strongly consistent count sees them."""
    counted = client.query(collection, output_fields=["count(*)"], consistency_level="Strong")[0]["count(*)"]
    if counted != rows:
        raise UserError(f"{collection} holds {counted:,} of {rows:,} rows; publish it again")


def _switch(client: MilvusClient, name: str, collection: str) -> None:
    """Let the alias name this version."""
    if name in client.list_aliases()["aliases"]:
        client.alter_alias(collection, name)
    else:
        client.create_alias(collection, name)


def _drop_older(client: MilvusClient, name: str, collection: str) -> None:
    """Drop all versions before this one but the last finished ones, `_KEPT_VERSIONS` with it."""
    versions = _versions(client, name)
    before = [versions[number] for number in sorted(versions, reverse=True) if versions[number] < collection]
    finished = [one for one in before if _is_finished(client, one)]
    for one in before:
        if one not in finished[: _KEPT_VERSIONS - 1]:
            client.drop_collection(one)


def _is_finished(client: MilvusClient, collection: str) -> bool:
    return _MANIFEST in client.describe_collection(collection)["properties"]


def _open_current(client: MilvusClient, place: str, name: str) -> tuple[str, Manifest]:
    """Return the collection that the alias names, ready to be searched, and what it says of itself.

    Should two new versions come and the old one go between reading its name and opening it, the newest is opened.
    """
    from pymilvus import MilvusException

    while True:
        collection = _find_current(client, place, name)
        try:
            manifest = _describe(client, place, collection)
            client.load_collection(collection)
        except MilvusException:
            if _find_current(client, place, name) == collection:
                raise
        else:
            return collection, manifest


def _find_current(client: MilvusClient, place: str, name: str) -> str:
    if name not in client.list_aliases()["aliases"]:
        raise UserError(
            f"{place} holds no index named {name!r} (index.collection); publish one: retrograd index publish INDEX "
            f"--to {place} --collection {name}"
        )
    return client.describe_alias(name)["collection_name"]


def _describe(client: MilvusClient, place: str, collection: str) -> Manifest:
    text = client.describe_collection(collection)["properties"].get(_MANIFEST, "{}")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{place}, {collection}: its description is damaged ({error}); publish it again") from None
    return parse_record(f"{place}, {collection}", value)
