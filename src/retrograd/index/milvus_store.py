"""Versions of embeddings in Milvus, behind an alias. Only this file imports pymilvus.

An *address* is a file ``NAME.db`` (a folder, in truth), which milvus-lite serves within this process, or that of a
server (``http://host:19530``; ``$MILVUS_TOKEN`` logs in). Each version of an index is a collection of its own,
``NAME_v000001_…``, ``NAME_v000002_…``, …; when all its rows are in, counted and described, the alias ``NAME`` is
switched to it in one step. A reader follows the alias once, when it opens the index, and stays with that collection, so
that none sees half of a version or two of them. The end of a collection's name is drawn at random: a server takes the
creation of a collection that exists for done, and two processes would write into one.
"""

from __future__ import annotations

import json
import logging.config
import os
import re
import secrets
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from types import ModuleType

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrograd.index.disk.storage import Manifest, parse_record
from retrograd.types import UserError
from retrograd.util.optional import is_installed, require_package

__all__ = ["MOST_RESULTS", "MilvusStore", "stop_serving"]

MOST_RESULTS = 16_384
"""Results of one query that Milvus returns at most."""

_WIDEST = 32_768
_ROW, _VECTOR = "row", "vector"
_MANIFEST = "retrograd.manifest"
_VERSION = re.compile(r"(.+)_v(\d{6,18})_[0-9a-f]{8}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WAIT_SECONDS = 0.2
_QUERIES, _HIT_BYTES = 1_024, 16
_ANSWER_BYTES = 2**26
"""Bytes that one answer holds at most: a server refuses more than 100 MB."""

_MOST_FILTERED = 100_000
"""Rows that a filter lists at most: it is sent as text, and read again for every request."""

_IMPORTING = Lock()


class MilvusStore:
    """The collections at one address. Every method raises `UserError` where Milvus cannot be reached, or refuses."""

    def __init__(self, address: str) -> None:
        """Connect. Raises `UserError` without pymilvus."""
        self.address = address
        if "://" not in address:
            Path(address).resolve().parent.mkdir(parents=True, exist_ok=True)
        pymilvus = _pymilvus()
        try:
            self._client = pymilvus.MilvusClient(address, token=os.environ.get("MILVUS_TOKEN", ""))
        except pymilvus.MilvusException as error:
            remedy = (
                "see that the server runs and can be reached"
                if "://" in address
                else "one process at a time serves a file: end the other, or start a server (docs/index.md)"
            )
            raise UserError(f"{address} cannot be opened ({_reason(error)}); {remedy}") from None

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
            latest = max((number for number, _ in self._versions(name)), default=0)
            collection = f"{name}_v{latest + 1:06d}_{secrets.token_hex(4)}"
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
                f"{self.address}, {collection}: the index is {state}, with {counted:,} of {rows:,} rows; publish again"
            )

    def make_current(self, name: str, collection: str, manifest: Manifest) -> None:
        """Describe a finished version, switch the alias to it, and drop those before it.

        The one that was current stays, for readers that have opened it. What a killed process left is dropped; of two
        processes at once, the later one wins, and the other's version goes with the next.
        """
        with self._explained():
            properties = {_MANIFEST: json.dumps(asdict(manifest))}
            self._client.alter_collection_properties(collection, properties=properties)
            previous = self._find_current(name)
            if previous is None:
                self._client.create_alias(collection, name)
            else:
                self._client.alter_alias(collection, name)
            versions = self._versions(name)
            own = next(number for number, one in versions if one == collection)
            for number, one in versions:
                if number < own and one != previous:
                    self._client.drop_collection(one)

    def current_name(self, name: str) -> str:
        """Return the collection that the alias names. Raises `UserError` where there is none."""
        with self._explained():
            return self._current(name)

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
        where = f"{self.address}, {collection}"
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
        step = max(1, min(_QUERIES, _ANSWER_BYTES // (_HIT_BYTES * k)))
        for first in range(0, len(vectors), step):
            with self._explained():
                block = vectors[first : first + step]
                answer = self._client.search(collection, block, limit=k, search_params=settings, filter=expression)
            for line, hits in enumerate(answer, first):
                row[line, : len(hits.ids)] = torch.tensor(hits.ids, dtype=torch.long)
                logit[line, : len(hits.ids)] = torch.tensor(hits.distances)
        return row, logit

    def fetch(self, collection: str, rows: Int[Tensor, " Z"], dimension: int) -> Float[Tensor, "Z D"]:
        """Return the stored vectors of distinct rows. Raises `UserError` where one is missing."""
        vectors = torch.zeros(len(rows), dimension)
        position = {row: i for i, row in enumerate(rows.tolist())}
        count = 0
        for part in rows.split(max(1, _ANSWER_BYTES // (4 * dimension))):
            with self._explained():
                records = self._client.get(collection, part.tolist(), output_fields=[_ROW, _VECTOR])
            count += len(records)
            for record in records:
                vectors[position[record[_ROW]]] = torch.tensor(record[_VECTOR])
        if count != len(rows):
            raise UserError(
                f"{self.address}, {collection} gives {count:,} of {len(rows):,} rows back; publish the index again"
            )
        return vectors

    def _versions(self, name: str) -> list[tuple[int, str]]:
        """Return number and collection of each version of an index, finished or not."""
        matches = [_VERSION.fullmatch(collection) for collection in self._client.list_collections()]
        return [(int(match[2]), match[0]) for match in matches if match is not None and match[1] == name]

    def _find_current(self, name: str) -> str | None:
        if name not in self._client.list_aliases()["aliases"]:
            return None
        return self._client.describe_alias(name)["collection_name"]

    def _current(self, name: str) -> str:
        current = self._find_current(name)
        if current is None:
            raise UserError(
                f"{self.address} holds no index named {name!r} (index.collection); publish one: "
                f"retrograd index publish INDEX --to {self.address} --collection {name}"
            )
        return current

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what Milvus refuses into a `UserError` that names the address."""
        try:
            yield
        except _pymilvus().MilvusException as error:
            raise UserError(f"{self.address}: Milvus refused: {_reason(error)}") from None


def _expression(rows: Int[Tensor, " n"]) -> str:
    """Return a filter for some rows: a range where they are one, else a list.

    (Ranges joined by "or" would be shorter, and servers fail on some thousands of them.) Raises `UserError` for too
    many.
    """
    first, last = int(rows[0]), int(rows[-1])
    if last - first + 1 == len(rows):
        return f"{first} <= {_ROW} and {_ROW} <= {last}"
    if len(rows) > _MOST_FILTERED:
        raise UserError(
            f"the filter leaves {len(rows):,} passages, and of at most {_MOST_FILTERED:,} their rows are sent to "
            f"Milvus; tighten it, or search the exact index"
        )
    return f"{_ROW} in {rows.tolist()}"


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "message", "") or error).split())[:300]


def stop_serving(address: str) -> None:
    """Stop serving a file in this process, if it does."""
    if not is_installed("milvus_lite"):
        return
    from milvus_lite.server_manager import server_manager_instance  # pyright: ignore[reportMissingImports]

    server_manager_instance.release_server(address)


def _pymilvus() -> ModuleType:
    """Import pymilvus without its setting up of logging, which closes the handlers of others, and with some the
    standard error.
    """
    require_package("an index of Milvus", "pymilvus", "milvus")
    with _IMPORTING:
        configure = logging.config.dictConfig
        if "pymilvus" not in sys.modules:
            # Connections to milvus-lite are closed for pinging too often, and opened again: gRPC prints lines of it.
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")
            logging.config.dictConfig = lambda config: None
        try:
            import pymilvus  # pyright: ignore[reportMissingImports]
        finally:
            logging.config.dictConfig = configure
    return pymilvus
