"""Read the text of PDF files by pypdf, page by page: the optional extra ``documents``.

A page is a section; places count characters of its text, as `pypdf.PageObject.extract_text` returns it. What a scan
shows is no text: a PDF without a text layer has none.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from retrograd.data.documents.sections import Document, Section
from retrograd.types import UserError
from retrograd.util.guards import first_line, require_file
from retrograd.util.optional import require_package
from retrograd.util.text_files import Refuse

if TYPE_CHECKING:
    from pypdf import PdfReader

__all__ = ["read_pdf", "require_pypdf"]


def require_pypdf(path: Path) -> None:
    """Raise `UserError` where what reads a PDF is not installed."""
    require_package(f"{path}: reading PDFs", "pypdf", "documents", instead="take them out of the folder")


def read_pdf(path: Path, refuse: Refuse) -> Document:
    """Return a PDF. Pages that cannot be read go to ``refuse``, with file and page, while the sections are read.

    Raises `UserError` for a PDF that is encrypted or broken, and where pypdf is missing.
    """
    require_pypdf(path)
    require_file(path)
    with _open(path) as reader:
        title = _title(reader)
    return Document(title, _pages(path, refuse))


def _pages(path: Path, refuse: Refuse) -> Iterator[Section]:
    with _open(path) as reader:
        number = 0
        while True:
            number += 1
            try:
                if number > len(reader.pages):
                    return
                text = _whole_characters(reader.pages[number - 1].extract_text())
            except Exception as error:  # pypdf raises errors of every kind for damaged pages
                refuse(UserError(f"{path}, page {number}: cannot be read ({first_line(error)[:200]}); {_REMEDY}"))
                continue
            yield Section(text, 0, len(text), place=f"page={number}:")


_REMEDY = "print it to a new PDF, or take it out"


@contextmanager
def _open(path: Path) -> Iterator[PdfReader]:
    """Open a PDF. Raises `UserError` for one that is encrypted or broken."""
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, FileNotDecryptedError

    with path.open("rb") as file, _quiet():
        try:
            reader = PdfReader(file)
            _ = len(reader.pages)  # which asks for the password where there is one
        except (FileNotDecryptedError, DependencyError):
            raise UserError(f"{path} is encrypted; save it without a password (qpdf --decrypt IN OUT)") from None
        except Exception as error:  # as above
            raise UserError(f"{path} is no PDF, or a broken one ({first_line(error)[:200]}); {_REMEDY}") from None
        yield reader


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep pypdf's remarks on what it repairs from stderr, where nobody handles them; those who do get them."""
    handler = logging.NullHandler()
    logger = logging.getLogger("pypdf")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _title(reader: PdfReader) -> str:
    try:
        title = None if reader.metadata is None else reader.metadata.title
    except Exception:  # a damaged title is none
        return ""
    return _whole_characters(title) if isinstance(title, str) else ""


def _whole_characters(text: str) -> str:
    """Return a text with the sign of a replaced character where it has half a surrogate pair."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
