"""Folders of documents: what is read in which order, ids that say where, and what is said and refused."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from pypdf import PageObject
from tests.data.documents.pdf_files import encrypted, pdf

from retrograd.data.documents.folder import read_documents
from retrograd.data.documents.windows import Windows
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.types import Passage, UserError

Fill = Callable[[Mapping[str, str | bytes]], Path]


@pytest.fixture
def fill(tmp_path: Path) -> Fill:
    """Return a function that writes files by their names into a folder, and returns it."""

    def write(files: Mapping[str, str | bytes]) -> Path:
        folder = tmp_path / "handbook"
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder

    return write


def ids(folder: Path) -> list[str]:
    return [passage.id for passage in read_documents(folder)]


def test_documents_of_all_kinds_become_passages_that_say_where_they_are_from(fill: Fill) -> None:
    folder = fill(
        {
            "guide/install.md": "# Install\nRun it.\n## Later\nRun it again.",
            "notes.txt": " The cup holds tea.\n",
            "page.HTML": "<title>Rain</title><h2>Floods</h2><p>Rain fell.</p>",
            "paper.pdf": pdf([["The kettle holds tea."], [], ["Cars have wheels."]], "Of kettles"),
        }
    )
    assert list(read_documents(folder)) == [
        Passage("guide/install.md#10-17", "Install", "Run it."),
        Passage("guide/install.md#27-40", "Install > Later", "Run it again."),
        Passage("notes.txt#1-19", "notes", "The cup holds tea."),
        Passage("page.HTML#8-18", "Rain > Floods", "Rain fell."),
        Passage("paper.pdf#page=1:0-21", "Of kettles", "The kettle holds tea."),
        Passage("paper.pdf#page=3:0-17", "Of kettles", "Cars have wheels."),
    ]


def test_one_document_is_read_as_a_folder_of_one(fill: Fill) -> None:
    folder = fill({"notes.txt": "The cup holds tea.", "other.dat": "x"})
    assert list(read_documents(folder / "notes.txt")) == [Passage("notes.txt#0-18", "notes", "The cup holds tea.")]
    with pytest.raises(UserError, match=r"other\.dat is no document, judged by its name; expected one of \.txt"):
        list(read_documents(folder / "other.dat"))
    with pytest.raises(UserError, match=r"no such file: .*none\.txt"):
        list(read_documents(folder / "none.txt"))


def test_windows_overlap_within_a_section_and_have_distinct_ids(fill: Fill) -> None:
    folder = fill({"a.md": "# A\n" + "Cups hold tea. " * 4 + "\n# B\nRain falls."})
    passages = list(read_documents(folder, Windows(6, 3)))
    assert [passage.title for passage in passages] == ["A", "A", "A", "B"]
    assert {passage.text for passage in passages[:3]} == {"Cups hold tea. Cups hold tea."}
    assert [passage.id for passage in passages] == ["a.md#4-33", "a.md#19-48", "a.md#34-63", "a.md#69-80"]
    text = (folder / "a.md").read_text("utf-8")
    places = [passage.id.rpartition("#")[2].split("-") for passage in passages]
    assert [text[int(start) : int(end)] for start, end in places] == [passage.text for passage in passages]


def test_files_are_read_by_their_names_and_hidden_ones_are_not(fill: Fill) -> None:
    folder = fill(dict.fromkeys(("b.txt", "B.txt", "a/z.txt", "a/b/c.txt", ".git/x.txt", "a/.y.txt"), "Tea."))
    assert ids(folder) == ["B.txt#0-4", "a/b/c.txt#0-4", "a/z.txt#0-4", "b.txt#0-4"]


def test_links_are_followed_and_nothing_is_read_twice(fill: Fill, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "o.txt").write_text("Rain.", "utf-8")
    folder = fill({"z/in.txt": "Tea."})
    (folder / "a_loop").symlink_to(folder, target_is_directory=True)
    (folder / "z" / "up").symlink_to("..", target_is_directory=True)
    (folder / "b_same.txt").symlink_to(folder / "z" / "in.txt")
    (folder / "c_out").symlink_to(tmp_path / "outside", target_is_directory=True)
    assert ids(folder) == ["z/in.txt#0-4", "c_out/o.txt#0-5"]


def test_other_kinds_are_counted_and_documents_without_text_named(fill: Fill, caplog: pytest.LogCaptureFixture) -> None:
    folder = fill(
        {"a.txt": "Tea.", "empty.md": "", "scan.pdf": pdf([[], []])}
        | dict.fromkeys(("x.PNG", "y.png", "z.docx", "Makefile"), "?")
    )
    with caplog.at_level(logging.INFO, "retrograd"):
        assert ids(folder) == ["a.txt#0-4"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder}: files of other kinds are not read: 2 .png, 1 .docx, 1 without an ending",
        f"{folder}: no text in 2 documents: empty.md, scan.pdf; a PDF of scanned pages needs a text layer first "
        f"(ocrmypdf IN OUT)",
    ]


def test_a_folder_without_documents_is_refused(fill: Fill) -> None:
    with pytest.raises(UserError, match=r"handbook holds no document.*; there are 2 \.csv; give a folder"):
        ids(fill({"a.csv": "x", "b.csv": "y"}))


def test_what_cannot_be_read_is_refused_by_name_and_the_rest_is_read(fill: Fill) -> None:
    sound = pdf([["The kettle holds tea."]])
    folder = fill(
        {
            "a.txt": "Tea.",
            "broken.pdf": sound[:200],
            "latin.md": "Thé.\nThé.".encode("latin-1"),
            "odd.html": b"<p>th\xe9",
            "secret.pdf": encrypted(sound, "tea"),
            "z.txt": "Rain.",
        }
    )
    (folder / "gone.md").symlink_to(folder / "nowhere.md")
    refused: list[UserError] = []
    passages = list(read_documents(folder, refuse=refused.append))
    assert [passage.id for passage in passages] == ["a.txt#0-4", "z.txt#0-5"]
    expected = [
        "broken.pdf is no PDF, or a broken one",
        "latin.md, line 1: not UTF-8",
        "odd.html: not in utf-8",
        "secret.pdf is encrypted; save it without a password",
        "no such file: ",
    ]
    assert len(refused) == len(expected)
    assert all(part in str(error) for part, error in zip(expected, refused, strict=True))
    with pytest.raises(UserError, match=r"broken\.pdf is no PDF"):
        list(read_documents(folder))


def test_a_pdf_that_asks_for_no_password_is_read(fill: Fill) -> None:
    folder = fill({"open.pdf": encrypted(pdf([["The kettle holds tea."]]), "")})
    assert ids(folder) == ["open.pdf#page=1:0-21"]


def test_a_page_that_cannot_be_read_is_refused_and_the_others_are_read(
    fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract = PageObject.extract_text

    def fail_at_two(page: PageObject) -> str:
        text = extract(page)
        if "Two." in text:
            raise KeyError("/Contents")
        return text

    monkeypatch.setattr(PageObject, "extract_text", fail_at_two)
    refused: list[UserError] = []
    passages = list(read_documents(fill({"a.pdf": pdf([["One."], ["Two."], ["Three."]])}), refuse=refused.append))
    assert [passage.id for passage in passages] == ["a.pdf#page=1:0-4", "a.pdf#page=3:0-6"]
    (error,) = refused
    assert "a.pdf, page 2: cannot be read ('/Contents'); print it" in str(error)


def test_where_pypdf_is_missing_the_extra_is_named_before_anything_is_read(
    fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fill({"a.txt": "Tea.", "b.pdf": pdf([["Tea."]])})
    monkeypatch.setitem(sys.modules, "pypdf", None)
    with pytest.raises(UserError, match=r"reading PDFs needs pypdf, .* pip install 'retrograd\[documents\]', or take"):
        next(iter(read_documents(folder)))


@pytest.mark.skipif(sys.platform == "darwin", reason="names of files are Unicode there")
def test_a_name_that_is_no_text_is_refused(fill: Fill) -> None:
    folder = fill({"a.txt": "Tea."})
    Path(os.fsdecode(os.fsencode(folder) + b"/th\xe9.txt")).write_text("Tea.", "utf-8")
    refused: list[UserError] = []
    assert [passage.id for passage in read_documents(folder, refuse=refused.append)] == ["a.txt#0-4"]
    assert "the name is not UTF-8; rename the file" in str(refused[0])
    assert str(refused[0]).encode()


@pytest.mark.skipif(os.geteuid() == 0, reason="everything may be read by root")
def test_a_folder_that_may_not_be_read_is_refused(fill: Fill) -> None:
    folder = fill({"a.txt": "Tea.", "closed/b.txt": "Tea."})
    (folder / "closed").chmod(0)
    refused: list[UserError] = []
    try:
        assert [passage.id for passage in read_documents(folder, refuse=refused.append)] == ["a.txt#0-4"]
    finally:
        (folder / "closed").chmod(0o755)
    assert "check its permissions" in str(refused[0])


def test_halves_of_characters_in_a_pdf_are_replaced(fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PageObject, "extract_text", lambda self: "A \ud800 cup \ud83d\ude00.")
    (passage,) = KnowledgeBase.from_passages(read_documents(fill({"a.pdf": pdf([["x"]])})))
    assert passage.text == "A \ufffd cup \U0001f600."


def test_remarks_of_pypdf_are_not_printed(fill: Fill, capfd: pytest.CaptureFixture[str]) -> None:
    content = pdf([["Tea."]]).replace(b"startxref\n", b"startxref\n1")
    list(read_documents(fill({"a.pdf": content})))
    assert capfd.readouterr().err == ""
