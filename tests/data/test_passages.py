"""Readers of passages: the makers' dialects, streaming, and repeated ids with both lines."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.reading import Write, assert_refused, json_values, read_any

from retrograd.data.passages import CORPUS_FORMATS, read_corpus
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.types import Passage, UserError


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"id": "a", "title": "T", "text": "x"}, Passage("a", "T", "x")),
        ({"_id": "a", "title": "", "text": "x", "metadata": {}}, Passage("a", "", "x")),
        ({"id": 7, "contents": "x"}, Passage("7", "", "x")),
        ({"docid": "d", "name": "T", "body": "x"}, Passage("d", "T", "x")),
        ({"text": "x", "title": None}, Passage("0", "", "x")),
    ],
    ids=["plain", "BEIR", "Pyserini", "names", "no id"],
)
def test_json_lines_in_their_dialects(write: Write, record: dict[str, object], expected: Passage) -> None:
    assert list(read_corpus(write([record]))) == [expected]


def test_tables_of_dpr(write: Write, tmp_path: Path) -> None:
    table = 'id\ttext\ttitle\n1\t"He said ""no""."\tTides\n2\tMoon\tMoon\n'
    expected = [Passage("1", "Tides", 'He said "no".'), Passage("2", "Moon", "Moon")]
    assert list(read_corpus(write(table))) == expected
    packed = tmp_path / "psgs_w100.tsv.gz"
    packed.write_bytes(gzip.compress(table.encode()))
    assert list(KnowledgeBase.from_passages(read_corpus(packed))) == expected
    assert list(read_corpus(write("text\tid\nx\t1"))) == [Passage("1", "", "x")]


def test_passages_come_one_at_a_time(write: Write) -> None:
    path = write('{"text": "a"}\n{"text": "b"}\nbroken')
    assert [one.text for one in itertools.islice(read_corpus(path), 2)] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"id": "a", "text": "x"}\n\n{"id": "b", "text": "x"}\n{"id": "a", "text": "y"}',
            r"line 4: the id 'a' is already used at line 1",
        ),
        ("id\ttext\n1\tx\n1\ty", r"line 3: the id '1' is already used at line 2"),
        ('{"title": "x"}', r"line 1: no text; the record has title, expected one of text, contents"),
        ('{"text": 3}', r"line 1: 'text' is 3; expected a string"),
        ('{"text": "x", "id": [1]}', r"line 1: 'id' is \[1\]; expected a string or a whole number"),
        ("a\tb", r"line 1: neither a JSON object nor a header"),
        ("id\ttext\n1", r"line 2: 1 cells"),
    ],
)
def test_refusals_name_file_and_line(write: Write, content: str, message: str) -> None:
    assert_refused(read_corpus, write(content), message)


def test_an_unknown_format_is_refused(write: Write) -> None:
    with pytest.raises(UserError, match="did you mean 'jsonl'"):
        read_corpus(write([{"text": "x"}]), "json")


JSON = json_values(["id", "_id", "text", "contents", "title", "x"], "1")


@given(st.lists(JSON.map(json.dumps) | st.text(max_size=30), min_size=1, max_size=4), st.sampled_from(CORPUS_FORMATS))
def test_any_file_gives_passages_or_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], name: str
) -> None:
    passages = read_any(lambda path: read_corpus(path, name), lines, tmp_path_factory) or []
    assert len({one.id for one in passages if isinstance(one, Passage)}) == len(passages)
