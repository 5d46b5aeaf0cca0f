"""Checks of values and files from any source: each returns a value or raises `UserError`.

Files: `require_file`, `is_file_name` and `is_within`, before anything is opened. Text: `parse_json`, `parse_json_at`,
`parse_json_line`, `peek_json_object`, `parse_toml`, `parse_toml_value` and `parse_text_list` survive any nesting, any
number of digits and half surrogate pairs. Values: `finite_number`, `is_storable`, `require_at_least`, and
`describe_value` and `suggest_name` for messages.
"""

from __future__ import annotations

import ast
import io
import json
import math
import os
import re
import stat
import tokenize
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from retrograd.types import UserError

if TYPE_CHECKING:
    JsonValue = str | int | float | bool | None | list["JsonValue"] | dict[str, "JsonValue"]
else:  # a checker at run time cannot look up an alias that names itself
    JsonValue = str | int | float | bool | None | list | dict

__all__ = [
    "JsonObject",
    "JsonValue",
    "describe_value",
    "finite_number",
    "first_line",
    "is_file_name",
    "is_storable",
    "is_within",
    "parse_json",
    "parse_json_at",
    "parse_json_line",
    "parse_text_list",
    "parse_toml",
    "parse_toml_value",
    "peek_json_object",
    "require_at_least",
    "require_file",
    "suggest_name",
]

JsonObject = dict[str, JsonValue]

# ---- files -----------------------------------------------------------------------------------------------------------


def require_file(path: Path) -> None:
    """Raise `UserError` unless ``path`` is a readable file."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"no such file: {path}; {_describe_folder(path)}") from None
    except (OSError, ValueError) as error:  # a name too long, links in a circle, a name with a NUL
        raise UserError(f"{str(path)[:200]!r} cannot be read ({error}); check the path") from None
    if stat.S_ISDIR(mode):
        raise UserError(f"{path} is a folder; expected a file")
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} is a pipe or a device, and files are read more than once; save it as a file first")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path} may not be read (permission denied); check its permissions with ls -l")


def _describe_folder(path: Path) -> str:
    """Return what is in the folder of a missing file: the nearest name, else some of the names."""
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist"
    names = sorted(entry.name for entry in path.parent.iterdir() if not entry.name.startswith("."))
    return suggest_name(path.name, names) if names else f"the folder {path.parent} is empty"


def is_file_name(name: str) -> bool:
    """Return whether ``name`` is a plain file name that cannot lead out of a folder."""
    return Path(name).name == name and name not in ("", "..") and "\0" not in name and len(name) < 256


def is_within(folder: Path, name: str) -> bool:
    """Return whether ``name``, read from a file of ``folder``, leads to something in that folder, symbolic links
    followed.
    """
    try:
        return (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a name with a NUL, links in a circle
        return False


# ---- text ------------------------------------------------------------------------------------------------------------


def parse_json(text: str, where: str) -> JsonValue:
    """Return the JSON value that a whole file is.

    Raises `UserError` with ``where``, the line and the column, also for a key that an object has twice.
    """
    try:
        value = json.loads(text, object_pairs_hook=_require_distinct_keys)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}, line {error.lineno}, column {error.colno}: not valid JSON ({error.msg})") from None
    except (ValueError, RecursionError, UserError) as error:
        raise UserError(f"{where}: {_explain(error)}") from None
    _require_whole_characters(value, text, where)
    return value


def parse_json_at(text: str, position: int, where: str) -> tuple[JsonObject, int]:
    """Return the object that begins at ``position``, and the position after it. Raises as `parse_json` does."""
    try:
        record, end = _DECODER.raw_decode(text, position)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not valid JSON ({error.msg}, line {error.lineno}, column {error.colno})") from None
    except (ValueError, RecursionError, UserError) as error:
        raise UserError(f"{where}: {_explain(error)}") from None
    return _require_object(record, text[position:end], where), end


def parse_json_line(line: str, where: str) -> JsonObject:
    """Return the JSON object that a line is; of two equal keys the last counts. Raises `UserError` with ``where``."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON ({error}); expected one object a line") from None
    return _require_object(record, line, where)


def peek_json_object(line: str) -> JsonObject | None:
    """Return the JSON object that a line is; None for anything else, which the reader of the file then reports."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def parse_toml(text: str, where: str) -> dict[str, object]:
    """Return the tables of a TOML file. Raises `UserError` with ``where``, and with the line where that is known."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise UserError(f"{where}: TOML nested too deeply to be read") from None
    except ValueError as error:  # a plain one for a number of more than 4,300 digits
        raise UserError(f"{where}: not valid TOML: {error}") from None


def parse_toml_value(text: str) -> object:
    """Return the TOML value that ``text`` is, or ``text`` itself where it is not a single value."""
    try:
        tables = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return tables["value"] if len(tables) == 1 else text


def parse_text_list(text: str) -> list[str] | None:
    """Return a list of strings as JSON, Python or numpy (without commas) writes it, or None for anything else.

    No part of it is executed.
    """
    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = read(text.strip())
            if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
                "".join(value).encode()  # "\\ud800" is half a character, which no file can store: a ValueError
                return _part_strings(text.strip(), list(value))
    return None


def _part_strings(text: str, value: list[str]) -> list[str]:
    """Return the strings of a list one by one where no comma parts them, so that Python has read several as one."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    strings = [token.string for token in tokens if token.type == tokenize.STRING]
    return [ast.literal_eval(string) for string in strings] if len(strings) > len(value) else value


def _explain(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "JSON nested too deeply to be read"
    if isinstance(error, UserError):
        return str(error)
    return f"not valid JSON ({error})"  # a number of more than 4,300 digits is a plain ValueError


def _require_object(record: JsonValue, text: str, where: str) -> JsonObject:
    if not isinstance(record, dict):
        raise UserError(f"{where}: expected a JSON object, found {type(record).__name__}")
    _require_whole_characters(record, text, where)
    return record


def _require_whole_characters(value: JsonValue, text: str, where: str) -> None:
    """Raise `UserError` where a ``value`` read from ``text`` contains text that no file can store."""
    if "\\u" not in text or _HALF_PAIR.search(text) is None:
        return
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(
            f"{where}: half of a surrogate pair (\\ud800 to \\udfff) is not a character; was the text "
            f"cut within an emoji?"
        ) from None


def _require_distinct_keys(pairs: list[tuple[str, JsonValue]]) -> JsonObject:
    """Return an object's keys and values. `json` keeps the last of two equal keys without a word."""
    values = dict(pairs)
    if len(values) < len(pairs):
        earlier: set[str] = set()
        twice = next(key for key, _ in pairs if key in earlier or earlier.add(key))
        raise UserError(f"the key {twice!r} occurs twice in one object; keep one")
    return values


_HALF_PAIR = re.compile(r"\\ud[89a-f]", re.IGNORECASE)
_DECODER = json.JSONDecoder(object_pairs_hook=_require_distinct_keys)


# ---- values ----------------------------------------------------------------------------------------------------------


def require_at_least(minimum: int, values: Mapping[str, int | float]) -> None:
    """Raise `UserError` for the first of ``values``, by the names of their settings, below ``minimum`` or NaN."""
    for name, value in values.items():
        if not value >= minimum:  # NaN is in no order
            raise UserError(f"{name} is {value}; it must be at least {minimum}")


def is_storable(value: int) -> bool:
    """Return whether a whole number fits into 64 bits."""
    return -_LARGEST <= value <= _LARGEST


def finite_number(value: object) -> float | None:
    """Return a JSON number as a float; None for anything else and for a number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return float(value) if type(value) is int and is_storable(value) else None


def describe_value(value: object) -> str:
    """Return a shortened representation of a value; its type where it is too long or too deep to be written."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a whole number of more than 4,300 digits is a ValueError
        return f"of type {type(value).__name__}"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def suggest_name(name: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` where a known name is close or begins so, else the known names (at most twelve)."""
    names = list(known)
    by_key = {candidate.casefold(): candidate for candidate in names}
    longer = [candidate for candidate in names if name and candidate.casefold().startswith(name.casefold())]
    if len(longer) == 1:
        return f"did you mean {longer[0]!r}?"
    close = get_close_matches(name.casefold(), by_key, n=1, cutoff=0.6)
    if close:
        return f"did you mean {by_key[close[0]]!r}?"
    listed_names = ", ".join(repr(candidate) for candidate in names[:12])
    return f"known: {listed_names}{', …' if len(names) > 12 else ''}."


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


_LARGEST = 2**63 - 1
_MOST_SHOWN = 200
