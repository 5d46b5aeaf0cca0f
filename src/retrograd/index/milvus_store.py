"""Versions of embeddings in Milvus, behind an alias. Only this file imports pymilvus.

A *place* is a file ``NAME.db``, which milvus-lite serves within this process, or the address of a server
(``http://host:19530``; ``$MILVUS_TOKEN`` logs in). Each version of an index is a collection of its own,
``NAME_v000001``, ``NAME_v000002``, …; when all its rows are in, counted and described, the alias ``NAME`` is switched
to it in one step. Who opens an index follows the alias once and stays with that collection, so that no reader sees half
of a version or two of them.
"""

from __future__ import annotations

import json
import logging.config
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrograd.index.disk.storage import Manifest, parse_record
from retrograd.types import UserError

__all__ = ["MOST_RESULTS", "MilvusStore", "stop_serving"]

MOST_RESULTS = 16_384
"""Results of one query that Milvus returns at most."""

_WIDEST = 32_768
_ROW, _VECTOR = "row", "vector"
_MANIFEST = "retrograd.manifest"
_VERSION = re.compile(r"v(\d{6,18})")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEPT_VERSIONS = 2
"""One older version stays: somebody may have followed the alias to it and not yet searched."""

_WAIT_SECONDS = 0.2
_QUERIES = 1_024
_FETCHED = 8_192
"""Queries, and rows with their vectors, of one request."""


class MilvusStore:
    """The collections at one place. Every method raises `UserError` where Milvus cannot be reached, or refuses."""

    def __init__(self, place: str) -> None:
        """Connect. Raises `UserError` without pymilvus."""
        self.place = place
        if "://" not in place:
            Path(place).resolve().parent.mkdir(parents=True, exist_ok=True)
        with self._explained():
            self._client = _pymilvus().MilvusClient(place, token=os.environ.get("MILVUS_TOKEN", ""))

    def create(self, name: str, dimension: int) -> str:
        """Create the collection of the next version of an index, which no alias names yet; return its name."""
        if not _NAME.fullmatch(name):
            raise UserError(f"index.collection is {name!r}; Milvus takes letters, digits and _, not a digit first")
        if dimension > _WIDEST:
            raise UserError(
                f"these vectors have {dimension:,} numbers, and Milvus stores at most {_WIDEST:,}; set "
                f'retriever.lexical_dimensions lower, or index.kind = "exact"'
            )
        types = _pymilvus().DataType
        schema = _pymilvus().MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(_ROW, types.INT64, is_primary=True)
        schema.add_field(_VECTOR, types.FLOAT_VECTOR, dim=dimension)
        with self._explained():
            collection = f"{name}_v{max(self._versions(name), default=0) + 1:06d}"
            self._client.create_collection(collection, schema=schema)
        return collection

    def insert(self, collection: str, blocks: Iterable[tuple[Int[Tensor, " n"], Float[Tensor, "n D"]]]) -> None:
        """Write rows with their vectors, block by block, until they are on disk."""
        with self._explained():
            for rows, vectors in blocks:
                pairs = zip(rows.tolist(), vectors.cpu().numpy(), strict=True)
                self._client.insert(collection, [{_ROW: row, _VECTOR: vector} for row, vector in pairs])
            self._client.flush(collection)

    def make_searchable(self, collection: str, index_type: str, build: Mapping[str, int], rows: int) -> None:
        """Have the rows indexed for inner products, wait until they are, and count them, strongly consistent.

        (`create_index` would wait by a call that milvus-lite lacks.) Raises `UserError` where rows are missing.
        """
        parameters = _pymilvus().MilvusClient.prepare_index_params()
        parameters.add_index(_VECTOR, index_type=index_type, metric_type="IP", params=dict(build))
        with self._explained():
            self._client.create_index(collection, parameters, sync=False)
            name = self._client.list_indexes(collection)[0]
            while (state := self._client.describe_index(collection, name)["state"]) in ("InProgress", "Unissued"):
                time.sleep(_WAIT_SECONDS)
            self._client.load_collection(collection)
            count = self._client.query(collection, output_fields=["count(*)"], consistency_level="Strong")
        counted = count[0]["count(*)"]
        if state != "Finished" or counted != rows:
            raise UserError(
                f"{self.place}, {collection}: the index is {state}, with {counted:,} of {rows:,} rows; publish it again"
            )

    def make_current(self, name: str, collection: str, manifest: Manifest) -> None:
        """Describe a finished version, switch the alias to it, and drop all versions before but the last finished one.

        What a killed process left unfinished is dropped with them; of two processes at once, the later one wins.
        """
        with self._explained():
            properties = {_MANIFEST: json.dumps(asdict(manifest))}
            self._client.alter_collection_properties(collection, properties=properties)
            if name in self._client.list_aliases()["aliases"]:
                self._client.alter_alias(collection, name)
            else:
                self._client.create_alias(collection, name)
            versions = self._versions(name)
            before = [versions[number] for number in sorted(versions, reverse=True) if versions[number] < collection]
            finished = [one for one in before if _MANIFEST in self._client.describe_collection(one)["properties"]]
            for one in before:
                if one not in finished[: _KEPT_VERSIONS - 1]:
                    self._client.drop_collection(one)

    def open_current(self, name: str) -> tuple[str, Manifest]:
        """Return the collection that the alias names, ready to be searched, and what it says of itself.

        Should two new versions come and the old one go between reading its name and opening it, the newest is opened.
        Raises `UserError` where there is none, and where its description is damaged.
        """
        with self._explained():
            while True:
                collection = self._current(name)
                try:
                    text = self._client.describe_collection(collection)["properties"].get(_MANIFEST, "{}")
                    self._client.load_collection(collection)
                    break
                except _pymilvus().MilvusException:
                    if self._current(name) == collection:
                        raise
        where = f"{self.place}, {collection}"
        try:
            return collection, parse_record(where, json.loads(text))
        except json.JSONDecodeError as error:
            raise UserError(f"{where}: its description is damaged ({error}); publish it again") from None

    def search(
        self,
        collection: str,
        query: Float[Tensor, "B D"],
        k: int,
        parameters: Mapping[str, int],
        among: Int[Tensor, " n"] | None = None,
    ) -> tuple[Int[Tensor, "B K"], Float[Tensor, "B K"]]:
        """Return rows and inner products of the k best that Milvus finds, padded (-1, ``-inf``) where it has fewer.

        ``among`` are the rows (distinct, ascending) that it may find; None: all.
        """
        row, logit = torch.full((len(query), k), -1), torch.full((len(query), k), -torch.inf)
        vectors = list(query.detach().to(device="cpu", dtype=torch.float32).numpy())
        settings = {"metric_type": "IP", "params": dict(parameters)}
        expression = "" if among is None else _expression(among)
        for first in range(0, len(vectors), _QUERIES):
            with self._explained():
                block = vectors[first : first + _QUERIES]
                found = self._client.search(collection, block, limit=k, search_params=settings, filter=expression)
            for line, hits in enumerate(found, first):
                row[line, : len(hits.ids)] = torch.tensor(hits.ids, dtype=torch.long)
                logit[line, : len(hits.ids)] = torch.tensor(hits.distances)
        return row, logit

    def fetch(self, collection: str, rows: Int[Tensor, " Z"], dimension: int) -> Float[Tensor, "Z D"]:
        """Return the stored vectors of distinct rows. Raises `UserError` where one is missing."""
        vectors = torch.zeros(len(rows), dimension)
        place = {row: i for i, row in enumerate(rows.tolist())}
        count = 0
        for part in rows.split(_FETCHED):
            with self._explained():
                records = self._client.get(collection, part.tolist(), output_fields=[_ROW, _VECTOR])
            count += len(records)
            for record in records:
                vectors[place[record[_ROW]]] = torch.tensor(record[_VECTOR])
        if count != len(rows):
            raise UserError(
                f"{self.place}, {collection} gives {count:,} of {len(rows):,} rows back; publish the index again"
            )
        return vectors

    def _versions(self, name: str) -> dict[int, str]:
        """Return the collections that are versions of an index, finished or not, by their numbers."""
        versions = {}
        for collection in self._client.list_collections():
            start, _, end = collection.rpartition("_")
            number = _VERSION.fullmatch(end)
            if start == name and number is not None:
                versions[int(number[1])] = collection
        return versions

    def _current(self, name: str) -> str:
        if name not in self._client.list_aliases()["aliases"]:
            raise UserError(
                f"{self.place} holds no index named {name!r} (index.collection); publish one: retrograd index publish "
                f"INDEX --to {self.place} --collection {name}"
            )
        return self._client.describe_alias(name)["collection_name"]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what Milvus refuses into a `UserError` that names the place."""
        try:
            yield
        except _pymilvus().MilvusException as error:
            reason = " ".join(str(error.message or error).split())[:300]
            remedy = (
                "see that the server runs and is reached"
                if "://" in self.place
                else "a file serves one process at a time: end the other, or start a server (docs/index.md)"
            )
            raise UserError(f"{self.place}: Milvus says: {reason}; {remedy}") from None


def _expression(rows: Int[Tensor, " n"]) -> str:
    """Return a filter for some rows: a range of each run of neighbouring ones, and a list of those that stand alone."""
    breaks = (rows.diff() != 1).nonzero().flatten() + 1
    runs = [(int(run[0]), int(run[-1])) for run in rows.tensor_split(breaks)]
    alone = [first for first, last in runs if first == last]
    parts = [f"({first} <= {_ROW} and {_ROW} <= {last})" for first, last in runs if first < last]
    parts += [f"{_ROW} in {alone}"] if alone else []
    return " or ".join(parts)


def stop_serving(place: str) -> None:
    """Stop serving a file in this process."""
    from milvus_lite.server_manager import server_manager_instance  # pyright: ignore[reportMissingImports]

    server_manager_instance.release_server(place)


def _pymilvus() -> ModuleType:
    """Import pymilvus without its setting up of logging, which closes the handlers of others, and with some the
    standard error.
    """
    configure = logging.config.dictConfig
    logging.config.dictConfig = lambda config: None
    try:
        import pymilvus  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError("MilvusIndex needs pymilvus; install it with: pip install 'retrograd[milvus]'") from None
    finally:
        logging.config.dictConfig = configure
    return pymilvus
