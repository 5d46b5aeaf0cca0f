"""Name the setting of a file's layout where the file has another one, instead of the first fault that this makes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from retrograd.data.passages import detect_corpus_format
from retrograd.types import UserError
from retrograd.util.text_files import Refuse, first_line, read_lines

__all__ = ["Layout", "detect_base_layout", "read_in_layout"]

T = TypeVar("T")

_LINES = 50
"""Lines at the beginning of a file in which the keys of SQuAD's and Doc2Dial's layouts are looked for."""
_ARTICLES = re.compile(r'"data"\s*:\s*\[')
_DOMAINS = re.compile(r'"doc_data"\s*:\s*\{')


@dataclass(frozen=True)
class Layout:
    """A setting of a file's layout: its name, its value, all values, and the function that tells a file's layout.

    ``detect`` raises `UserError` where it knows none. Values of ``by_auto`` are what "auto" reads.
    """

    setting: str
    value: str
    formats: tuple[str, ...]
    detect: Callable[[Path], str]
    by_auto: tuple[str, ...]


class _MisfitError(Exception):
    """The file has another layout than its setting says; no reader takes this for the fault of a record."""


def read_in_layout(path: Path, layout: Layout, read: Callable[[Refuse], Iterable[T]], refuse: Refuse) -> Iterator[T]:
    """Yield what ``read`` yields. Where its first record is at fault and the file has another layout than the setting
    says, reading ends with a `UserError` that names the setting and the layout.
    """
    is_checked = False

    def explain_first(error: UserError) -> UserError:
        nonlocal is_checked
        explained = error if is_checked else _explain(path, layout, error)
        is_checked = True
        return explained

    try:
        for record in read(lambda error: refuse(explain_first(error))):
            is_checked = True
            yield record
    except _MisfitError as misfit:
        raise UserError(str(misfit)) from None
    except UserError as error:
        if is_checked:
            raise
        raise _explain_all(path, layout, error) from None


def _explain_all(path: Path, layout: Layout, error: UserError) -> UserError:
    """Return the error of `_explain`, or the other layout as one."""
    try:
        return _explain(path, layout, error)
    except _MisfitError as misfit:
        return UserError(str(misfit))


def _explain(path: Path, layout: Layout, error: UserError) -> UserError:
    """Return the error, with the values of the setting where the layout is not known.

    Raises `_MisfitError` for another layout.
    """
    try:
        found = layout.detect(path)
    except UserError:
        if not _is_text(path):
            return error  # missing, empty or damaged: no layout at all
        what, _, remedy = str(error).partition("; ")
        values = f'{layout.setting} is "{layout.value}", of {", ".join(layout.formats)}'
        return UserError(f"{what}; {remedy} ({values})" if remedy else f"{what}; {values}")
    if found in (layout.by_auto if layout.value == "auto" else (layout.value,)):
        return error
    formats = ", ".join(layout.formats)
    if found in layout.formats:
        remedy = f'set {layout.setting} = "{found}" (there are {formats})'
    else:
        remedy = f"these data are not read from such files; give a file in one of {formats}"
    raise _MisfitError(f'{path}: {layout.setting} is "{layout.value}", and the file is laid out as "{found}"; {remedy}')


def _is_text(path: Path) -> bool:
    try:
        first_line(path, "a record")
    except UserError:
        return False
    return True


def detect_base_layout(path: Path) -> str:
    """Return the layout of a file of passages: a corpus format, "squad" or "doc2dial". Raises `UserError` for others.

    Only the beginning of the file is read.
    """
    found = detect_corpus_format(path)
    if found not in ("jsonl", "json"):
        return found
    start = "\n".join(line for _, line in islice(read_lines(path), _LINES)).lstrip()
    if start.startswith("{") and _DOMAINS.search(start):
        return "doc2dial"
    return "squad" if start.startswith("{") and _ARTICLES.search(start) else found
