"""Examples from Python are written as the files of their kind of data, which ordinary settings name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

from retrograd.data.readers import Source, SupportsArrow
from retrograd.data.relations.instance import RelationInstance
from retrograd.types import Example, UserError
from retrograd.util.guards import JsonObject
from retrograd.util.text_files import write_jsonl

__all__ = ["ExampleSource", "write_examples"]

Item = TypeVar("Item")
ExampleSource: TypeAlias = "Source | Iterable[Example] | Iterable[RelationInstance]"
"""A file, a table, records, or examples that were read already."""


def write_examples(
    sources: Mapping[str, ExampleSource],
    folder: Path,
    item: type[Item],
    read: Callable[[Source], Sequence[Item]],
    record: Callable[[Item], JsonObject],
) -> dict[str, str]:
    """Write the examples of each part as JSON Lines, and return the names of the files by part.

    ``read`` makes examples, of class ``item``, of a source that holds something else; ``record`` returns the fields of
    one. Raises `UserError` for a source of neither examples nor records alone, and as ``read`` does.
    """
    files = {part: folder / f"{part}.jsonl" for part in sources}
    for part, source in sources.items():
        write_jsonl(files[part], map(record, _read_items(source, item, read)))
    return {part: str(file) for part, file in files.items()}


def _read_items(source: ExampleSource, item: type[Item], read: Callable[[Source], Sequence[Item]]) -> list[Item]:
    """Return the items of a source: as they are where they were read already, else as ``read`` reads them."""
    if isinstance(source, str | Path | SupportsArrow):
        return list(read(source))
    items: list[object] = list(source)  # pyright: ignore[reportArgumentType]  (a table was read above)
    ready = [entry for entry in items if isinstance(entry, item)]
    records = [entry for entry in items if isinstance(entry, Mapping)]
    if max(len(ready), len(records)) < len(items):
        kinds = sorted({type(entry).__name__ for entry in items})
        raise UserError(
            f"the examples are of the types {', '.join(kinds)}; expected {item.__name__} objects, or records, alone"
        )
    return ready or list(read(records))
