"""Read the documents of a folder, or one document, as passages.

All files of the kinds in `READERS` are read, in the order of their names, those of inner folders too, with symbolic
links followed; hidden ones (``.git``, ``.x.md``) and other kinds are not. A passage's id says where it is from: path,
page and characters (``guide/install.md#120-870``, ``paper.pdf#page=3:0-812``). One file is in memory at a time.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from retrograd.data.documents.html import read_html
from retrograd.data.documents.markdown import read_markdown
from retrograd.data.documents.pdf import read_pdf, require_pypdf
from retrograd.data.documents.plain import read_plain
from retrograd.data.documents.sections import Document, passage_title
from retrograd.data.documents.windows import Windows, window_spans
from retrograd.data.sentences import SplitSentences
from retrograd.types import Passage, UserError
from retrograd.util.guards import require_file
from retrograd.util.progress import say
from retrograd.util.text_files import Refuse, raise_error

__all__ = ["READERS", "folder_bytes", "is_document", "read_documents"]

_MOST_NAMED = 3
_DEFAULT = Windows()

READERS: Mapping[str, Callable[[Path, Refuse], Document]] = {
    **dict.fromkeys((".txt", ".text"), lambda path, _: read_plain(path)),
    **dict.fromkeys((".md", ".markdown"), lambda path, _: read_markdown(path)),
    **dict.fromkeys((".html", ".htm", ".xhtml"), lambda path, _: read_html(path)),
    ".pdf": read_pdf,
}
"""How documents are read, by the endings of their names in small letters."""


def is_document(path: Path) -> bool:
    """Return whether a file is of a kind that is read, judged by its name."""
    return path.suffix.lower() in READERS


def read_documents(
    path: Path,
    windows: Windows = _DEFAULT,
    refuse: Refuse = raise_error,
    split_sentences: SplitSentences | None = None,
) -> Iterator[Passage]:
    """Yield the passages of all documents of a folder, or of one file.

    Files and pages that cannot be read go to ``refuse``, with the path. At the end it is said what was passed over.
    ``split_sentences`` takes the place of the rule of ``windows.language``. Raises `UserError` for a folder without
    documents, and where a PDF is to be read and pypdf is missing.
    """
    files, others = _find(path, refuse)
    if any(map(_is_pdf, files)):
        require_pypdf(path)  # before anything is read
    without_text: list[str] = []
    for file in files:
        name = path.name if file == path else file.relative_to(path).as_posix()
        document = _open(file, name, refuse)
        if document is None:
            continue
        has_text = False
        for passage in _passages(document, file.stem, name, windows, split_sentences):
            has_text = True
            yield passage
        if not has_text:
            without_text.append(name)
    _report(path, others, without_text)


def folder_bytes(folder: Path) -> int:
    """Return the size of all files of a folder, hidden ones apart."""
    return sum(file.stat().st_size for file in _walk(folder, lambda _: None) if os.path.exists(file))


def _open(file: Path, name: str, refuse: Refuse) -> Document | None:
    """Return a document; None, and its fault to ``refuse``, where it cannot be read."""
    try:
        name.encode()
        return READERS[file.suffix.lower()](file, refuse)
    except UnicodeEncodeError:
        refuse(UserError(f"{str(file)!a}: the name is not UTF-8; rename the file"))
    except UserError as error:
        refuse(error)
    return None


def _passages(
    document: Document, stem: str, name: str, windows: Windows, split_sentences: SplitSentences | None
) -> Iterator[Passage]:
    for section in document.sections:
        title = passage_title(document.title, section.headings, stem)
        text = section.text[section.start : section.end]
        for start, end in window_spans(text, windows, split_sentences):
            place = f"{section.place}{section.start + start}-{section.start + end}"
            yield Passage(f"{name}#{place}", title, text[start:end])


def _is_pdf(file: Path) -> bool:
    return file.suffix.lower() == ".pdf"


def _find(path: Path, refuse: Refuse) -> tuple[list[Path], Counter[str]]:
    """Return the documents of a folder, or the one file, and how many files there are of each other kind.

    Raises `UserError` where there are no documents.
    """
    if not os.path.isdir(path):
        require_file(path)
        if not is_document(path):
            raise UserError(f"{path} is no document, judged by its name; expected one of {', '.join(READERS)}")
        return [path], Counter()
    files: list[Path] = []
    others: Counter[str] = Counter()
    for file in _walk(path, refuse):
        if is_document(file):
            files.append(file)
        else:
            others[file.suffix.lower() or "without an ending"] += 1
    if not files:
        there_are = f"; there are {_count_kinds(others)}" if others else ""
        raise UserError(
            f"{path} holds no document, hidden ones apart ({', '.join(READERS)}){there_are}; give a folder that has "
            f"some, or a file of passages"
        )
    return files, others


def _walk(folder: Path, refuse: Refuse) -> Iterator[Path]:
    """Yield the files of a folder and its inner folders, by their names, and then what symbolic links lead to besides.

    No folder is read twice, so that links in a circle end.
    """
    visited: set[tuple[int, int]] = set()
    left, links = [folder], list[Path]()
    while left or links:
        path = left.pop() if left else links.pop(0)
        try:
            status = path.stat()
        except OSError:
            yield path  # a link that leads nowhere, which its reader refuses
            continue
        place = (status.st_dev, status.st_ino)
        is_new = place not in visited
        visited.add(place)
        if not stat.S_ISDIR(status.st_mode):
            if is_new or not path.is_symlink():
                yield path
        elif is_new:
            inner = [path / name for name in _visible_names(path, refuse)]
            links += [one for one in inner if one.is_symlink()]
            left += [one for one in reversed(inner) if not one.is_symlink()]


def _visible_names(folder: Path, refuse: Refuse) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        refuse(UserError(f"{folder} cannot be read ({error.strerror}); check its permissions with ls -l"))
        return []


def _report(path: Path, others: Counter[str], without_text: list[str]) -> None:
    """Say what was passed over."""
    if others:
        say(f"{path}: files of other kinds are not read: {_count_kinds(others)}")
    if without_text:
        names = ", ".join(without_text[:_MOST_NAMED]) + (" …" if len(without_text) > _MOST_NAMED else "")
        remedy = ""
        if any(_is_pdf(Path(name)) for name in without_text):
            remedy = "; a PDF of scanned pages needs a text layer first (ocrmypdf IN OUT)"
        count = f"{len(without_text):,} documents: " if len(without_text) > 1 else ""
        say(f"{path}: no text in {count}{names}{remedy}")


def _count_kinds(kinds: Counter[str]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items(), key=lambda one: (-one[1], one[0])))
