"""Read the records of a file or folder, whatever they are written in: each is an object of field names and values.

``jsonl``    one JSON object a line.
``json``     one JSON list of objects; or one object, of which these are read: a list of objects in it (``{"data":
             […]}``), columns by name (``{"question": […]}``, or by name and row, as pandas and MS MARCO write them),
             and objects by id (``{"q1": {…}}``), which get the field ``id``.
``csv``      a table of text whose first line names the columns, parted by commas, semicolons, tabs or ``|``: whichever
             the first line has most of. Cells may be quoted, and hold line ends then. An empty cell is no value.
``parquet``  Parquet.
``arrow``    an Arrow file or stream, or a folder that Hugging Face's ``datasets`` has saved (``save_to_disk``).

Columns that ``datasets`` keeps as numbers of classes (``ClassLabel``) are read as the names of these. Lists of JSON,
Parquet and Arrow are read a part at a time; an object of JSON is read whole.
"""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from retrograd.data.record_fields import Records, name_type, number_records
from retrograd.deferred import pa
from retrograd.types import UserError
from retrograd.util import text_files
from retrograd.util.guards import JsonObject, JsonValue, first_line, peek_json_object, require_file
from retrograd.util.text_files import Refuse, raise_error

__all__ = [
    "ROW_KINDS",
    "RowKind",
    "first_rows",
    "is_saved_dataset",
    "name_class",
    "plain_value",
    "read_rows",
    "row_kind",
    "split_header",
    "table_records",
]

RowKind = Literal["jsonl", "json", "csv", "parquet", "arrow"]
ROW_KINDS: tuple[RowKind, ...] = get_args(RowKind)

_DELIMITERS = ",;\t|"
_BATCH_ROWS = 1_024
_LONGEST_CELL = 1 << 30
_BINARY: Mapping[bytes, RowKind] = {b"PAR1": "parquet", b"ARROW1": "arrow", b"\xff\xff\xff\xff": "arrow"}


def row_kind(path: Path) -> RowKind:
    """Return what the records of a file are written in, judged by its beginning; text that is no JSON is a table.

    Raises `UserError` for a folder that is no saved dataset, and for a file that is missing or empty.
    """
    if os.path.isdir(path):
        _arrow_files(path)
        return "arrow"
    require_file(path)
    with path.open("rb") as file:
        beginning = file.read(8)
    for mark, kind in _BINARY.items():
        if beginning.startswith(mark):
            return kind
    _, line = text_files.first_line(path, "records")
    start = line.lstrip()
    if start.startswith("["):
        return "json"
    if start.startswith("{"):
        return "json" if peek_json_object(line) is None or _may_hold_many(path) else "jsonl"
    return "csv"


def read_rows(path: Path, names: Sequence[str] = (), refuse: Refuse = raise_error, kind: str | None = None) -> Records:
    """Return place, number and value of every record, in order; what is malformed goes to ``refuse``.

    ``names`` are fields that records may have: by them an object of columns is told from one of objects by id.
    ``kind`` is one of `ROW_KINDS`; None is what the file seems to be. Raises `UserError` for a file that holds no
    records.
    """
    return _READERS[kind or row_kind(path)](path, names, refuse)


def is_saved_dataset(folder: Path) -> bool:
    """Return whether a folder is one that Hugging Face's ``datasets`` has saved, whole or as several splits."""
    return any((folder / name).exists() for name in ("dataset_info.json", "dataset_dict.json"))


def first_rows(path: Path, names: Sequence[str] = (), count: int = 1, kind: str | None = None) -> list[JsonObject]:
    """Return the first records, without what is malformed; fewer where there are fewer."""
    rows = read_rows(path, names, lambda _: None, kind)
    return [record for _, _, record in itertools.islice(rows, count)]


def plain_value(value: object) -> JsonValue:
    """Return a value with lists and dicts for other sequences and mappings; the readers refuse what is left."""
    if isinstance(value, Mapping):
        return {str(name): plain_value(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(item) for item in value]
    return value  # pyright: ignore[reportReturnType]  (each field says what it expects)


# ---- JSON ------------------------------------------------------------------------------------------------------------


def _may_hold_many(path: Path) -> bool:
    """Return whether a file has one line alone, which `_read_json` takes for a record or for many, unless it is named
    for lines."""
    if ".jsonl" in path.suffixes:
        return False
    lines = (line for _, line in text_files.read_lines(path, lambda _: None) if line.strip())
    return len(list(itertools.islice(lines, 2))) == 1


def _read_jsonl(path: Path, _: Sequence[str], refuse: Refuse) -> Records:
    return number_records("line", text_files.read_jsonl(path, refuse))


def _read_json(path: Path, names: Sequence[str], refuse: Refuse) -> Records:
    _, line = text_files.first_line(path, "records")
    if line.lstrip().startswith("["):
        return (
            (f"line {row}, record {number}", number, record) for number, row, record in text_files.read_json_list(path)
        )
    content = text_files.read_json(path)
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} is {name_type(content)}; expected records")
    return _read_object(path, content, names, refuse)


def _read_object(path: Path, content: JsonObject, names: Sequence[str], refuse: Refuse) -> Records:
    """Return the records of one object, as the module says; an object of no such kind is a record itself."""
    if any(name in content for name in names):
        columns = _columns(content)
        return [("line 1", 1, content)] if columns is None else number_records("row", enumerate(columns, start=1))
    lists = [name for name, value in content.items() if _is_list_of_objects(value)]
    if len(lists) == 1:
        return _read_entries(path, lists[0], content[lists[0]], refuse)
    if all(isinstance(value, dict) for value in content.values()):
        records = ({"id": id_, **value} for id_, value in content.items() if isinstance(value, dict))
        return number_records("record", enumerate(records, start=1))
    if len(lists) > 1:
        raise UserError(f"{path} is an object with the lists {', '.join(lists)}; save the list of records alone")
    return [("line 1", 1, content)]


def _columns(content: JsonObject) -> Iterator[JsonObject] | None:
    """Return the rows of columns, each a list or an object by row; None for anything else."""
    columns: dict[str, dict[str, JsonValue]] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            columns[name] = value
        elif isinstance(value, list) and len(content) > 1:
            columns[name] = {str(row): item for row, item in enumerate(value)}
        else:
            return None
    rows = next(iter(columns.values())).keys()
    if not rows or any(column.keys() != rows for column in columns.values()):
        return None
    return ({name: column[row] for name, column in columns.items()} for row in rows)


def _is_list_of_objects(value: JsonValue) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(isinstance(entry, dict) for entry in value)


def _read_entries(path: Path, name: str, entries: JsonValue, refuse: Refuse) -> Records:
    for number, entry in enumerate(entries if isinstance(entries, list) else [], start=1):
        if isinstance(entry, dict):
            yield f"{name} {number}", number, entry
        else:
            refuse(UserError(f"{path}, {name} {number}: {name_type(entry)}; expected an object"))


# ---- tables ----------------------------------------------------------------------------------------------------------


def _read_csv(path: Path, names: Sequence[str], refuse: Refuse) -> Records:
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_CELL))
    _, first = text_files.first_line(path, "a line that names the columns")
    delimiter = _delimiter(first)
    lines = (f"{line}\n" for _, line in text_files.read_lines(path, refuse))
    rows = csv.reader(itertools.dropwhile(lambda line: not line.strip(), lines), delimiter=delimiter, strict=True)
    try:
        header = [cell.strip() for cell in next(rows, [])]
    except csv.Error as error:
        raise UserError(f"{path}, line 1: {error}; expected the names of columns") from None
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}, line 1: two columns are named {twice!r}; give each a name of its own")
    is_empty = True
    while True:
        number = rows.line_num + 1
        try:
            cells = next(rows, None)
        except csv.Error as error:
            refuse(UserError(f"{path}, line {number}: {error}; close the quotation mark of a cell before its end"))
            is_empty = False
            continue
        if cells is None:
            break
        if not any(cell.strip() for cell in cells):
            continue
        is_empty = False
        if len(cells) != len(header):
            expected = f"the first line names {len(header)} columns; quote a cell that holds {delimiter!r}"
            refuse(UserError(f"{path}, line {number}: {len(cells)} cells, and {expected}"))
            continue
        named = zip(header, cells, strict=True)
        yield f"line {number}", number, {name: cell if cell.strip() else None for name, cell in named}
    if is_empty:
        raise UserError(f"{path}: no rows below a line of names ({', '.join(header)[:60]}); expected some")


def split_header(line: str) -> list[str]:
    """Return the names of columns in the first line of a table; one name alone where it has no delimiter."""
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=_delimiter(line), strict=True))]
    except csv.Error:
        return [line]


def _delimiter(header: str) -> str:
    return max(_DELIMITERS, key=header.count)


def _read_parquet(path: Path, _: Sequence[str], refuse: Refuse) -> Records:
    from pyarrow.parquet import ParquetFile

    with _explain_damage(path), ParquetFile(path) as file:
        yield from _number_batches(file.iter_batches(batch_size=_BATCH_ROWS))


def _read_arrow(path: Path, _: Sequence[str], refuse: Refuse) -> Records:
    def batches() -> Iterator[pa.RecordBatch]:
        for file in _arrow_files(path) if path.is_dir() else (path,):
            with pa.memory_map(str(file)) as source:
                yield from _open_arrow(source)

    with _explain_damage(path):
        yield from _number_batches(batches())


def _open_arrow(source: pa.NativeFile) -> Iterable[pa.RecordBatch]:
    """Return the batches of an Arrow file, or of a stream."""
    is_file = source.read(6) == b"ARROW1"
    source.seek(0)
    if not is_file:
        return pa.ipc.open_stream(source)
    file = pa.ipc.open_file(source)
    return (file.get_batch(number) for number in range(file.num_record_batches))


def _number_batches(batches: Iterable[pa.RecordBatch]) -> Records:
    return number_records("row", enumerate(table_records(batches), start=1))


def table_records(batches: Iterable[pa.RecordBatch]) -> Iterator[JsonObject]:
    """Yield the rows of batches as records. Raises `pa.ArrowException` for offsets that lead outside of one."""
    for batch in batches:
        batch.validate(full=True)
        classes = _class_names(batch.schema)
        for start in range(0, len(batch), _BATCH_ROWS):
            for record in batch.slice(start, _BATCH_ROWS).to_pylist():
                yield {name: name_class(classes.get(name), plain_value(value)) for name, value in record.items()}


def _class_names(schema: pa.Schema) -> dict[str, list[JsonValue]]:
    """Return the names of classes that ``datasets`` notes beside a table, by the column that holds their numbers."""
    noted = (schema.metadata or {}).get(b"huggingface", b"{}")
    info = (peek_json_object(noted.decode("utf-8", errors="replace")) or {}).get("info")
    features = info.get("features") if isinstance(info, dict) else None
    named: dict[str, list[JsonValue]] = {}
    for column, feature in features.items() if isinstance(features, dict) else ():
        names = feature.get("names") if isinstance(feature, dict) else None
        if isinstance(names, list):
            named[column] = names
    return named


def name_class(names: list[JsonValue] | None, value: JsonValue) -> JsonValue:
    """Return the name of a class by its number; other values, and -1 for none, as they are."""
    if not names or not isinstance(value, int) or isinstance(value, bool):
        return value
    return names[value] if 0 <= value < len(names) else value


@contextmanager
def _explain_damage(path: Path) -> Iterator[None]:
    """Report what pyarrow cannot read as a fault of the file."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:  # a ValueError for a name that is no text
        raise UserError(f"{path}: damaged ({first_line(error)}); fetch it or write it again") from None


def _arrow_files(folder: Path) -> list[Path]:
    """Return the files of a saved dataset, in order.

    Raises `UserError` for a folder that is none, and for one of several splits, with their names.
    """
    splits = sorted(entry.parent.name for entry in folder.glob("*/dataset_info.json"))
    if splits and (folder / "dataset_dict.json").exists():
        raise UserError(f"{folder} holds the splits {', '.join(splits)}; give one of them, as {folder / splits[0]}")
    files = sorted(folder.glob("*.arrow"))
    if not files or not (folder / "dataset_info.json").exists():
        raise UserError(f"{folder} is a folder, and no dataset that was saved with save_to_disk; expected a file")
    return files


_READERS: Mapping[str, Callable[[Path, Sequence[str], Refuse], Records]] = {
    "jsonl": _read_jsonl,
    "json": _read_json,
    "csv": _read_csv,
    "parquet": _read_parquet,
    "arrow": _read_arrow,
}
"""How each of `ROW_KINDS` is read."""
