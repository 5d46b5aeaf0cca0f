"""The knowledge base: N passages addressed by row number, in a file of Arrow that is memory-mapped, never loaded.

The file is plain Arrow (columns id, title, text) in the streaming format, which Hugging Face's ``Dataset.from_file``
reads as well; a file in Arrow's random access format, as versions before 0.2.0 wrote, opens too.

Its fingerprint is SHA-256 over the passages in order (`retrograd.util.fingerprints.fingerprint` of id, title, text, id,
title, …), whatever the batches. It is known only after the last passage, when the schema has long been written; so each
record batch carries, as its custom metadata, the fingerprint of all passages up to its own end, and the last one's is
the base's.
"""

from __future__ import annotations

import hashlib
import re
import string
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path

from retrograd.deferred import np, pa, pc
from retrograd.types import Passage, UserError
from retrograd.util.files import atomic_file
from retrograd.util.fingerprints import fingerprint
from retrograd.util.guards import JsonValue, require_file, suggest_name
from retrograd.util.text_files import read_jsonl, read_tsv

__all__ = ["KnowledgeBase"]

_COLUMNS = ("id", "title", "text")
_LONGEST_PATTERN = 10_000
_FINGERPRINT = b"fingerprint"
_RANDOM_ACCESS = b"ARROW1"
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"
# A batch is held in memory while it is written, and a string column may not exceed 2 GB.
_BATCH_PASSAGES = 4096
_BATCH_CHARACTERS = 1 << 24

_Numbered = Iterable[tuple[int, Passage]]
_Where = Callable[[int], str]


class KnowledgeBase:
    """N passages in a fixed order; ``base[row]`` is a `Passage`, row 0 … N-1 (-1 is padding and an `IndexError`).

    Made by `from_passages`, `from_jsonl`, `from_tsv` (streaming: one batch of text and 16 bytes a passage in memory) or
    `open`. Without a ``path`` the same Arrow bytes are kept in memory, and the fingerprint is the same.

    Example::

        base = rg.KnowledgeBase.from_passages([rg.Passage("p1", "Cups", "the cup holds tea .")])
        print(len(base), base[0].title)
    """

    def __init__(self, batches: Sequence[pa.RecordBatch], fingerprint: str | None) -> None:
        """Keep batches of passages; use the class methods. A ``fingerprint`` of None is computed at its first use."""
        self._batches = tuple(batches)
        self._starts = tuple(accumulate((batch.num_rows for batch in self._batches), initial=0))
        self._known_fingerprint = fingerprint

    @classmethod
    def from_passages(cls, passages: Iterable[Passage], path: Path | None = None) -> KnowledgeBase:
        """Build a base from passages in their order.

        Raises `UserError` for none, a non-string field or a repeated id.
        """
        return cls._write_base(enumerate(passages), lambda number: f"passage {number} (counted from 0)", path)

    @classmethod
    def from_jsonl(cls, source: str | Path, path: Path | None = None) -> KnowledgeBase:
        """Build a base from JSON Lines: "text" (required), "title" (default ""), "id" (default: the row number).

        Raises `UserError`, with file and line, for a malformed line, a missing field, a wrong type or a repeated id.
        """
        source = Path(source)
        numbered = (
            (number, _from_json(source, number, row, record)) for row, (number, record) in enumerate(read_jsonl(source))
        )
        return cls._write_base(numbered, lambda number: f"{source}, line {number}", path)

    @classmethod
    def from_tsv(cls, source: str | Path, path: Path | None = None) -> KnowledgeBase:
        """Build a base from a tab-separated file with the header id, text, title (the Wikipedia passages of DPR).

        Raises `UserError`, with file and line, for a missing column, a malformed row or a repeated id.
        """
        source = Path(source)
        numbered = (
            (number, Passage(row["id"], row["title"], row["text"]))
            for number, row in read_tsv(source, ("id", "text", "title"))
        )
        return cls._write_base(numbered, lambda number: f"{source}, line {number}", path)

    @classmethod
    def open(cls, path: str | Path) -> KnowledgeBase:
        """Map a file that `save` or a ``from_…`` method wrote. Reads 12 bytes a passage, not the texts.

        Raises `UserError` for a missing, truncated or foreign file.
        """
        path = Path(path)
        require_file(path)
        try:
            return _read(pa.memory_map(str(path)), str(path))
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            raise UserError(
                f"{path} is not a complete Arrow file ({error}); build the knowledge base again from its source"
            ) from None

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, row: int) -> Passage:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} is not in the knowledge base; expected 0 … {len(self) - 1}")
        return self._between(row, row + 1)[0]

    def __iter__(self) -> Iterator[Passage]:
        for block in self.blocks(_BATCH_PASSAGES):
            yield from block

    def passages(self, rows: Sequence[int]) -> list[Passage]:
        """Return the passages of the rows, in that order."""
        return [self[row] for row in rows]

    def ids(self) -> list[str]:
        """Return the ids of all passages, in their order."""
        return [id_ for batch in self._batches for id_ in batch.column("id").to_pylist()]

    def rows_where(self, /, **patterns: str) -> list[int]:
        """Return the rows of passages whose id, title and text match patterns: * is any text, ? one character.

        Raises `UserError` for another field, and a pattern of more than 10,000 characters.

        Example::

            base = rg.KnowledgeBase.from_passages([rg.Passage("a/1", "Cups", "tea"), rg.Passage("b/1", "Cups", "ink")])
            print(base.rows_where(id="a/*", title="Cups"))
        """
        unknown = next((name for name in patterns if name not in _COLUMNS), None)
        if unknown is not None:
            raise UserError(f"passages have no field {unknown!r}; {suggest_name(unknown, _COLUMNS)}")
        rows = np.ones(len(self), dtype=bool)
        for name, pattern in patterns.items():
            if len(pattern) > _LONGEST_PATTERN:
                raise UserError(f"the pattern of {name} has {len(pattern):,} characters; at most {_LONGEST_PATTERN:,}")
            expression = pc.MatchSubstringOptions(_regular_expression(pattern))
            columns = [batch.column(name) for batch in self._batches]
            matches = [pc.call_function("match_substring_regex", [column], expression) for column in columns]
            rows &= np.concatenate([match.to_numpy(zero_copy_only=False) for match in matches])
        return np.flatnonzero(rows).tolist()

    def blocks(self, rows: int, start: int = 0, stop: int | None = None) -> Iterator[list[Passage]]:
        """Yield consecutive passages ``start`` … ``stop`` - 1 (None: to the end), ``rows`` at a time (fewer in the
        last).
        """
        if rows < 1:
            raise ValueError(f"rows is {rows}; expected at least 1")
        end = len(self) if stop is None else min(stop, len(self))
        for first in range(start, end, rows):
            yield self._between(first, min(first + rows, end))

    @cached_property
    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the content: equal for equal passages in equal order, in memory or on disk."""
        return self._known_fingerprint or fingerprint(
            part for passage in self for part in (passage.id, passage.title, passage.text)
        )

    def save(self, path: Path) -> None:
        """Atomically write the base as an Arrow file, batch by batch."""
        with atomic_file(path) as temporary, pa.OSFile(str(temporary), "wb") as sink, _writer(sink) as writer:
            for batch in self._batches[:-1]:
                writer.write_batch(batch)
            writer.write_batch(self._batches[-1], custom_metadata={_FINGERPRINT: self.fingerprint})

    def _between(self, first: int, stop: int) -> list[Passage]:
        passages: list[Passage] = []
        for number in range(bisect_right(self._starts, first) - 1, len(self._batches)):
            start = self._starts[number]
            if start >= stop:
                break
            offset = max(first - start, 0)
            part = self._batches[number].slice(offset, stop - start - offset)
            try:
                passages.extend(map(Passage, *(part.column(name).to_pylist() for name in _COLUMNS)))
            except UnicodeDecodeError as error:
                raise UserError(
                    f"passages {first} … {stop - 1} of the knowledge base are damaged ({error}); build it again from "
                    f"its source"
                ) from None
        return passages

    @classmethod
    def _write_base(cls, numbered: _Numbered, where: _Where, path: Path | None) -> KnowledgeBase:
        if path is None:
            sink = pa.BufferOutputStream()
            hashes, numbers = _write(numbered, where, sink)
            base = _read(pa.BufferReader(sink.getvalue()), "the passages")
            _require_distinct(base, hashes, numbers, where)
            return base
        with atomic_file(path) as temporary:
            with pa.OSFile(str(temporary), "wb") as sink:
                hashes, numbers = _write(numbered, where, sink)
            _require_distinct(_read(pa.memory_map(str(temporary)), "the source"), hashes, numbers, where)
        return cls.open(path)


def _regular_expression(pattern: str) -> str:
    """Return a pattern of names of files as a regular expression for the whole of a text."""
    signs = {"*": ".*", "?": "."}
    literal = {sign: f"\\{sign}" for sign in string.punctuation}
    short = re.sub(r"\*+", "*", pattern)
    return "(?s)^" + "".join(signs.get(sign) or literal.get(sign, sign) for sign in short) + "$"


def _from_json(source: Path, number: int, row: int, record: Mapping[str, JsonValue]) -> Passage:
    key, title, text = (record.get(name) for name in _COLUMNS)
    if text is None:
        raise UserError(f'{source}, line {number}: no field "text"; the line has {", ".join(record) or "no fields"}')
    if isinstance(key, int) and not isinstance(key, bool):
        key = str(key)
    fields = {"id": str(row) if key is None else key, "title": "" if title is None else title, "text": text}
    for name, value in fields.items():
        if not isinstance(value, str):
            raise UserError(f'{source}, line {number}: "{name}" is {type(value).__name__}, expected a string')
    return Passage(**fields)  # pyright: ignore[reportArgumentType]  (checked above)


def _schema() -> pa.Schema:
    return pa.schema([(name, pa.string()) for name in _COLUMNS])


def _writer(sink: pa.NativeFile) -> pa.RecordBatchStreamWriter:
    return pa.ipc.new_stream(sink, _schema())


def _write(numbered: _Numbered, where: _Where, sink: pa.NativeFile) -> tuple[array[int], array[int]]:
    """Write all passages, and return hash(id) and number of each row, to find repeated ids without holding the ids."""
    digest, hashes, numbers = hashlib.sha256(), array("q"), array("q")
    schema = _schema()
    with _writer(sink) as writer:
        for group in _groups(numbered):
            for number, passage in group:
                _absorb(digest, passage, number, where)
                hashes.append(hash(passage.id))
                numbers.append(number)
            ids, titles, texts = zip(*((passage.id, passage.title, passage.text) for _, passage in group), strict=True)
            batch = pa.record_batch([pa.array(column, pa.string()) for column in (ids, titles, texts)], schema=schema)
            writer.write_batch(batch, custom_metadata={_FINGERPRINT: digest.hexdigest()})
    return hashes, numbers


def _groups(numbered: _Numbered) -> Iterator[list[tuple[int, Passage]]]:
    group: list[tuple[int, Passage]] = []
    characters = 0
    for number, passage in numbered:
        group.append((number, passage))
        characters += len(passage.text)
        if len(group) == _BATCH_PASSAGES or characters >= _BATCH_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group


def _absorb(digest: hashlib._Hash, passage: Passage, number: int, where: _Where) -> None:
    """Feed a passage to the digest, framed as `retrograd.util.fingerprints.fingerprint` frames its parts."""
    for name, value in (("id", passage.id), ("title", passage.title), ("text", passage.text)):
        if not isinstance(value, str):
            raise UserError(f"{where(number)}: {name} is {type(value).__name__}, expected a string")
        try:
            raw = value.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"{where(number)}: {name} holds half a surrogate pair, which is no text; re-export the source as UTF-8"
            ) from None
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)


def _read(source: pa.NativeFile, name: str) -> KnowledgeBase:
    """Open the base of an Arrow file.

    Raises `UserError` for foreign columns, nulls or no passages; Arrow's errors pass.
    """
    schema, batches, fingerprint = _read_batches(source)
    if not schema.equals(_schema()):
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise UserError(
            f"{name} has the columns {columns}; expected id, title, text (string): build it with KnowledgeBase"
        )
    if sum(batch.num_rows for batch in batches) == 0:
        raise UserError(f"{name}: no passages; a knowledge base needs at least one")
    for batch in batches:
        batch.validate()
        if any(column.null_count for column in batch.columns):
            raise UserError(f"{name} holds missing values; build it with KnowledgeBase, which names the line")
        if not all(_in_order(column) for column in batch.columns):
            raise UserError(f"{name} is damaged: its texts do not follow each other; build it again from its source")
    return KnowledgeBase(batches, fingerprint.decode("ascii") if fingerprint else None)


def _read_batches(source: pa.NativeFile) -> tuple[pa.Schema, list[pa.RecordBatch], bytes | None]:
    """Return the schema and the batches of a file of Arrow, and the fingerprint that the last one has, if it has one.

    Raises `ValueError` for a stream without its end.
    """
    start = source.read(len(_RANDOM_ACCESS))
    source.seek(0)
    if start == _RANDOM_ACCESS:
        reader = pa.ipc.open_file(source)
        records = [reader.get_batch_with_custom_metadata(number) for number in range(reader.num_record_batches)]
    else:
        # A stream that was cut between two batches reads like a whole one.
        source.seek(max(0, source.size() - len(_STREAM_END)))
        if source.read() != _STREAM_END:
            raise ValueError("its end is missing")
        source.seek(0)
        reader = pa.ipc.open_stream(source)
        records = list(reader.iter_batches_with_custom_metadata())
    last = (records[-1].custom_metadata if records else None) or {}
    return reader.schema, [record.batch for record in records], last.get(_FINGERPRINT)


def _in_order(column: pa.StringArray) -> bool:
    """Return whether each text begins where the one before it ends.

    `validate` looks at the first and the last offset alone, and Arrow reads whatever memory the others lead to.
    """
    raw = column.buffers()[1]
    if len(column) == 0 or raw is None:
        return len(column) == 0
    ends = np.frombuffer(raw, dtype=np.int32, count=len(column) + 1, offset=4 * column.offset)
    return bool((ends[:-1] <= ends[1:]).all())


def _require_distinct(base: KnowledgeBase, hashes: array[int], numbers: array[int], where: _Where) -> None:
    """Raise `UserError` for a repeated id. Only rows whose hash occurs twice are compared by id."""
    order = np.argsort(np.frombuffer(hashes, dtype=np.int64), kind="stable")
    ordered = np.frombuffer(hashes, dtype=np.int64)[order]
    repeated = np.flatnonzero(ordered[1:] == ordered[:-1])
    rows = sorted({int(row) for place in repeated for row in order[place : place + 2]})
    first_rows: dict[str, int] = {}
    for row in rows:
        key = base[row].id
        if key in first_rows:
            raise UserError(
                f"{where(numbers[row])}: the id {key!r} was already used at {where(numbers[first_rows[key]])}; "
                "ids must be distinct (leave them out to number the passages)"
            )
        first_rows[key] = row
