"""Markdown and HTML as their readers see them: text, headings, titles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from retrograd.data.documents.html import read_html
from retrograd.data.documents.markdown import read_markdown
from retrograd.data.documents.sections import Document, passage_title
from retrograd.types import UserError


def sections(document: Document) -> list[tuple[tuple[str, ...], str]]:
    """Return headings and text of the sections that have any."""
    parts = [(section.headings, section.text[section.start : section.end]) for section in document.sections]
    return [(headings, text.strip()) for headings, text in parts if text.strip()]


@pytest.fixture
def markdown(tmp_path: Path) -> Callable[[str], Document]:
    def read(text: str) -> Document:
        path = tmp_path / "page.md"
        path.write_bytes(text.encode())
        return read_markdown(path)

    return read


@pytest.fixture
def html(tmp_path: Path) -> Callable[[str | bytes], Document]:
    def read(text: str | bytes) -> Document:
        path = tmp_path / "page.html"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_html(path)

    return read


class TestMarkdown:
    def test_sections_stand_under_the_path_of_their_headings(self, markdown) -> None:
        text = "Before.\n# Kettles\nThey hold tea.\n### Care ###\nWash them.\n## Use\nPour.\n# Cups\nSmall."
        assert sections(markdown(text)) == [
            ((), "Before."),
            (("Kettles",), "They hold tea."),
            (("Kettles", "Care"), "Wash them."),
            (("Kettles", "Use"), "Pour."),
            (("Cups",), "Small."),
        ]

    def test_underlined_lines_are_headings(self, markdown) -> None:
        text = "Kettles\n=====\nThey hold tea.\n\nCare\n---\nWash.\n\n- one\n---\ntwo\nthree\n---\nfour"
        assert sections(markdown(text)) == [
            (("Kettles",), "They hold tea."),
            (("Kettles", "Care"), "Wash.\n\n- one\n---\ntwo\nthree\n---\nfour"),
        ]

    def test_fenced_code_has_no_headings(self, markdown) -> None:
        text = "# Run\n```sh\n# a remark\n~~~\n```\n~~~~\n# another\n~~~\n~~~~\nThen wait.\n#hashtag\n####### seven"
        ((headings, body),) = sections(markdown(text))
        assert headings == ("Run",)
        assert body == text.removeprefix("# Run\n")

    def test_headings_lose_their_marks(self, markdown) -> None:
        text = "# The [`cup`](cup.md) of *Ann_Lee* {#cup}\nIt holds tea."
        assert sections(markdown(text)) == [(("The cup of Ann_Lee",), "It holds tea.")]

    @pytest.mark.parametrize("matter", ['---\ntitle: "Of cups"\nauthor: x\n---\n', "+++\ntitle = 'Of cups'\n+++\n"])
    def test_front_matter_has_the_title_and_is_no_text(self, markdown, matter: str) -> None:
        document = markdown(f"{matter}# Cups\nThey hold tea.")
        assert document.title == "Of cups"
        assert sections(document) == [(("Cups",), "They hold tea.")]

    def test_rules_are_no_front_matter(self, markdown) -> None:
        assert sections(markdown("---\nThe cup holds tea.\n\n---\nRain.")) == [
            ((), "---\nThe cup holds tea.\n\n---\nRain.")
        ]

    def test_a_document_of_headings_alone_is_kept_whole(self, markdown) -> None:
        assert sections(markdown("# Cups\n## Kettles\n")) == [((), "# Cups\n## Kettles")]

    def test_places_count_the_characters_of_the_file(self, markdown, tmp_path: Path) -> None:
        document = markdown("\ufeff# Tée\r\nIt is\r\nhot.\r\n")
        *_, section = document.sections
        assert (tmp_path / "page.md").read_text("utf-8-sig")[section.start : section.end].strip() == "It is\nhot."


class TestHtml:
    def test_what_a_reader_sees_is_the_text(self, html) -> None:
        document = html(
            """<!DOCTYPE html><html><head><title>Of
            &amp; about cups</title><style>p {color: red}</style><script>if (a < b) "<p>no</p> <!--"</script></head>
            <body><nav><a>Home</a></nav><noscript>Turn it on</noscript><template><p>x</p></template>
            <p>A <b>cup</b> holds&nbsp;tea,<br>or  water.</p><ul><li>blue</li><li>red</li></ul>
            <table><tr><td>a</td><td>b</td></tr></table><svg><title>No</title><text>drawn</text></svg>
            <pre>x = 1\n  y = 2</pre><![endif]--><!-- <p>no</p> --><div>End<div>of it</div></div></body></html>"""
        )
        assert document.title == "Of & about cups"
        ((headings, text),) = sections(document)
        assert headings == ()
        assert text.split("\n\n") == [
            "A cup holds tea,\nor water.", "blue\nred", "a b", "x = 1\n  y = 2", "End", "of it",
        ]  # fmt: skip

    def test_headings_make_sections(self, html) -> None:
        text = "<h1>Cups</h1>small<h3>Of <i>tin</i> <a href='#tin'>¶</a></h3><p>old</p><h2>Use<p>pour"
        assert sections(html(text)) == [
            (("Cups",), "small"),
            (("Cups", "Of tin"), "old"),
            (("Cups", "Use"), "pour"),
        ]

    @pytest.mark.parametrize(
        "text",
        [
            "<p>a cup<!-- never ends", "<title>Tea<p>a cup</p>", "</p></nav><p>a cup",
            "<p>a cup<script>x", "a cup<![CDATA[ x", "a cup<![broken", "<p a='>'>a cup", "a cup<?php echo 1; ?>",
        ],
    )  # fmt: skip
    def test_broken_markup_keeps_the_text(self, html, text: str) -> None:
        assert sections(html(text)) == [((), "a cup")]

    @pytest.mark.parametrize(
        ("declared", "encoding"),
        [
            ('<meta charset="iso-8859-1">', "latin-1"),
            ('<meta http-equiv="Content-Type" content="text/html; charset=windows-1251">', "cp1251"),
            ('<?xml version="1.0" encoding="Shift_JIS"?>', "shift_jis"),
            ("", "utf-8"),
            ("", "utf-8-sig"),
            ("", "utf-16"),
            ('<meta charset="latin-1">', "utf-8"),
            ('<meta charset="base64">', "utf-8"),
        ],
    )
    def test_pages_are_read_in_the_encoding_that_they_name(self, html, declared: str, encoding: str) -> None:
        word = {"cp1251": "чай", "shift_jis": "茶"}.get(encoding, "thé")
        assert sections(html(f"{declared}<p>{word}</p>".encode(encoding))) == [((), word)]

    def test_other_bytes_are_refused(self, html) -> None:
        with pytest.raises(UserError, match=r"page\.html: not in utf-8; re-save"):
            html(b"<p>th\xe9</p>")
        with pytest.raises(UserError, match=r"not in utf-8 or shift_jis"):
            html(b"<meta charset=shift_jis><p>\x80\xff</p>")


@pytest.mark.parametrize(
    ("own", "headings", "title"),
    [
        ("", (), "file"),
        ("Of cups", (), "Of cups"),
        ("", ("Cups", "Tin"), "Cups > Tin"),
        ("Handbook", ("Cups", "Tin"), "Handbook > Cups > Tin"),
        ("Cups | Handbook", ("Cups", "Tin"), "Cups > Tin"),
        ("CUPS", ("Cups",), "Cups"),
    ],
)
def test_titles_are_the_document_and_its_headings(own: str, headings: tuple[str, ...], title: str) -> None:
    assert passage_title(own, headings, "file") == title
