"""Readers of passages: the makers' dialects, streaming, and repeated ids with both lines."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.reading import Write, assert_refused, json_values, read_any

import retrograd as rg
from retrograd.data.passages import CORPUS_FORMATS, detect_corpus_format, passages_of, read_corpus
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
        (
            {"id_": "n", "embedding": None, "metadata": {"file_name": "a/b.txt"}, "text": "x"},
            Passage("n", "b.txt", "x"),
        ),
        ({"id_": "d", "metadata": {"title": "T"}, "text_resource": {"text": "x"}}, Passage("d", "T", "x")),
        ({"__data__": {"id_": "n", "metadata": {}, "text": "x"}, "__type__": "1"}, Passage("n", "", "x")),
        (
            {"page_content": "x", "metadata": {"source": "https://example.org/a/"}, "id": None, "type": "Document"},
            Passage("0", "a", "x"),
        ),
        (
            {"lc": 1, "id": ["langchain", "Document"], "kwargs": {"page_content": "x", "id": "l"}},
            Passage("l", "", "x"),
        ),
        ({"id": "h", "content": "x", "meta": {"title": " ", "file_path": "C:\\a.md"}}, Passage("h", "a.md", "x")),
    ],
    ids=[
        "plain", "BEIR", "Pyserini", "names", "no id", "LlamaIndex node", "LlamaIndex document", "LlamaIndex store",
        "LangChain", "LangChain dump", "Haystack",
    ],
)  # fmt: skip
def test_records_in_their_dialects(write: Write, record: dict[str, object], expected: Passage) -> None:
    assert list(read_corpus(write([record]))) == [expected]
    assert list(passages_of([record])) == [expected]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("record", "title"),
    [
        ({"title": "", "metadata": {"title": "no"}}, ""),
        ({"name": "N", "meta": {"title": "no"}}, "N"),
        ({"metadata": {"title": 7, "file_name": None, "file_path": " ", "source": "/s/t.md"}}, "t.md"),
        ({"metadata": {"file_name": "f.md", "source": "s.md"}}, "f.md"),
        ({"metadata": ["title"], "meta": {"title": "M"}}, "M"),
        ({"source": "s.md"}, ""),
    ],
)
def test_titles_are_the_records_or_else_of_its_metadata(write: Write, record: dict[str, object], title: str) -> None:
    assert [one.title for one in read_corpus(write([{"text": "x"} | record]))] == [title]


RECORDS = [{"id": "a", "title": "Cups", "text": "Tea."}, {"id": "b", "title": "", "text": "Rain, and more."}]
EXPECTED = [Passage(one["id"], one["title"], one["text"]) for one in RECORDS]
CSV = 'id,title,text\na,Cups,Tea.\nb,,"Rain, and more."\n'
DOCSTORE = {
    "docstore/metadata": {"a": {"doc_hash": "x"}},
    "docstore/data": {
        one["id"]: {"__data__": {"id_": one["id"], "text": one["text"], "metadata": {"title": one["title"]}}}
        for one in RECORDS
    },
    "docstore/ref_doc_info": {},
}


def parquet(records: Sequence[Mapping[str, object]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(records)), sink)
    return sink.getvalue().to_pybytes()


def arrow(records: Sequence[Mapping[str, object]]) -> bytes:
    sink, table = pa.BufferOutputStream(), pa.Table.from_pylist(list(records))
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("content", "format"),
    [
        (json.dumps(RECORDS), "json"),
        (json.dumps({"documents": RECORDS, "version": 2}, indent=1), "json"),
        (json.dumps({name: [one[name] for one in RECORDS] for name in RECORDS[0]}), "json"),
        (json.dumps({one["id"]: {"title": one["title"], "text": one["text"]} for one in RECORDS}), "json"),
        (json.dumps(DOCSTORE), "json"),
        (CSV, "csv"),
        (CSV.replace("text", "page_content", 1), "csv"),
        (CSV.replace(",", ";").replace("Rain;", "Rain,"), "csv"),
        ("title\tcontents\tid\nCups\tTea.\ta\n\tRain, and more.\tb\n", "csv"),
        ("title\ttext\tid\nCups\tTea.\ta\n\tRain, and more.\tb\n", "tsv"),
        (parquet(RECORDS), "parquet"),
        (arrow(RECORDS), "arrow"),
    ],
)
def test_records_are_read_from_every_container(tmp_path: Path, content: str | bytes, format: str) -> None:  # noqa: A002
    path = tmp_path / "passages"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert detect_corpus_format(path) == format
    assert list(read_corpus(path)) == list(read_corpus(path, format)) == EXPECTED
    assert rg.read_passages(path) == EXPECTED


def test_a_saved_dataset_is_read(tmp_path: Path) -> None:
    (tmp_path / "data-00000-of-00001.arrow").write_bytes(arrow(RECORDS))
    (tmp_path / "dataset_info.json").write_text("{}", "utf-8")
    assert detect_corpus_format(tmp_path) == "arrow"
    assert list(read_corpus(tmp_path)) == EXPECTED


def test_collections_of_ms_marco(tmp_path: Path) -> None:
    path = tmp_path / "collection.tsv"
    path.write_text('0\tThe "cup" holds tea.\nD7\t"Rain" falls.\n', "utf-8")
    assert detect_corpus_format(path) == "collection"
    assert list(read_corpus(path)) == [Passage("0", "", 'The "cup" holds tea.'), Passage("D7", "", '"Rain" falls.')]
    path.write_text("a\tTea.\nb\tRain.\textra\n\tRain.\n", "utf-8")
    refused: list[UserError] = []
    assert list(read_corpus(path, "collection", refused.append)) == [Passage("a", "", "Tea.")]
    assert [str(one).partition(": ")[2].partition(";")[0] for one in refused] == ["3 cells", "2 cells"]
    path.write_text("id\ttext\n1\tTea.\n", "utf-8")
    assert_refused(
        lambda file: read_corpus(file, "collection"), path, r'names its columns; set data.base_format = "csv"'
    )


@pytest.mark.parametrize("packed", [False, True])
def test_a_beir_folder_is_its_corpus(tmp_path: Path, packed: bool) -> None:
    lines = "".join(json.dumps({"_id": one["id"], **one} | {"id": None}) + "\n" for one in RECORDS).encode()
    name = "corpus.jsonl.gz" if packed else "corpus.jsonl"
    (tmp_path / name).write_bytes(gzip.compress(lines) if packed else lines)
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "x"}\n', "utf-8")
    (tmp_path / "README.md").write_text("# A data set\nOf tea.", "utf-8")
    assert detect_corpus_format(tmp_path) == "beir"
    assert list(read_corpus(tmp_path)) == EXPECTED
    (tmp_path / name).write_bytes(gzip.compress(lines * 2) if packed else lines * 2)
    assert_refused(read_corpus, tmp_path, r"line 3: the id 'a' is already used at corpus\.jsonl(\.gz)? line 1")


def test_a_folder_without_a_corpus_is_no_beir_folder(tmp_path: Path) -> None:
    assert_refused(lambda path: read_corpus(path, "beir"), tmp_path, "has no corpus.jsonl")


def test_documents_are_told_by_their_names_and_texts_by_their_contents(tmp_path: Path) -> None:
    for name, content, expected in (
        ("a.md", "id\ttext\n1\tx", "documents"),
        ("a.pdf", "%PDF-1.4", "documents"),
        ("a.txt", "The cup holds tea, text and all.", "documents"),
        ("b.txt", "id\ttext\n1\tx", "tsv"),
        ("c.txt", "1\tThe cup holds tea.", "collection"),
        ("d.txt", "id,text\n1,x", "csv"),
        ("e.txt", '{"text": "x"}\n{"text": "y"}', "jsonl"),
    ):
        path = tmp_path / name
        path.write_text(content, "utf-8")
        assert (name, detect_corpus_format(path)) == (name, expected)
    assert detect_corpus_format(tmp_path) == "documents"


def test_windows_and_sentences_of_ones_own_cut_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Tea is hot; rain is cold; that is all.", "utf-8")

    def by_clause(text: str) -> list[tuple[int, int]]:
        ends = [place + 1 for place, character in enumerate(text) if character in ";."]
        return list(zip([0, *ends[:-1]], ends, strict=True))

    windows = rg.Windows(words=4, overlap=0)
    texts = [one.text for one in rg.read_passages(tmp_path, windows=windows, split_sentences=by_clause)]
    assert texts == ["Tea is hot;", "rain is cold;", "that is all."]
    assert next(one.text for one in rg.read_passages(str(tmp_path), windows=windows)) == "Tea is hot; rain"


def test_a_map_says_where_the_fields_are(tmp_path: Path) -> None:
    records = [
        {"key": 7, "doc": {"body": "Tea.", "head": ["Cups"]}, "title": "no"},
        {"key": 8, "doc": {"body": "Rain."}},
    ]
    expected = [Passage("7", "Cups", "Tea."), Passage("8", "", "Rain.")]
    fields = {"text": "doc.body", "title": "doc.head[0]", "id": "key"}
    path = tmp_path / "export.json"
    path.write_text(json.dumps(records), "utf-8")
    assert rg.read_passages(path, fields=fields) == rg.read_passages(records, fields=fields) == expected
    with pytest.raises(UserError, match="fields: unknown key 'txt'; did you mean 'text'"):
        rg.read_passages(path, fields={"txt": "doc"})
    with pytest.raises(UserError, match=r'data\.base_format is "tsv", .* leave data\.base_fields out, or give records'):
        rg.read_passages(path, "tsv", fields=fields)


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
        (
            '{"title": "x"}',
            r'its records have no .text., but title; say where they have it: data.base_fields.text = "…"',
        ),
        ('{"text": "x"}\n{"title": "x"}', r"line 2: no text; the record has title, expected one of text, contents"),
        ("id,text\n1,x\n2,", r"line 3: 'text' is empty; expected the text of a passage, or no record"),
        ('[{"id": 1, "text": "x"}, {"id": 1, "text": "y"}]', r"record 2: the id '1' is already used at record 1"),
        ('{"text": 3}', r"line 1: 'text' is 3; expected a string"),
        ('{"text": "x", "id": [1]}', r"line 1: 'id' is \[1\]; expected a string or a whole number"),
        ("a\tb", r"no rows below a line of names \(a, b\)"),
        ("a\tb\nc\td", r"its records have no 'text', but a, b"),
        ("id\ttext\n1", r"line 2: 1 cells"),
    ],
)
def test_refusals_name_file_and_line(write: Write, content: str, message: str) -> None:
    assert_refused(read_corpus, write(content), message)


def test_an_unknown_format_is_refused(write: Write) -> None:
    with pytest.raises(UserError, match="did you mean 'jsonl'"):
        read_corpus(write([{"text": "x"}]), "jsonll")


JSON = json_values(["id", "_id", "text", "contents", "title", "x"], "1")


@given(st.lists(JSON.map(json.dumps) | st.text(max_size=30), min_size=1, max_size=4), st.sampled_from(CORPUS_FORMATS))
def test_any_file_gives_passages_or_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], name: str
) -> None:
    passages = read_any(lambda path: read_corpus(path, name), lines, tmp_path_factory) or []
    assert len({one.id for one in passages if isinstance(one, Passage)}) == len(passages)
