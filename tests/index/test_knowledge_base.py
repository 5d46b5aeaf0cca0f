"""The knowledge base returns its passages by row, on disk as in memory, and reports where a source is wrong."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrograd.index import knowledge_base
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.types import Passage, UserError
from retrograd.util.fingerprints import fingerprint

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def passages_of(count):
    return [Passage(f"id{row}", f"title {row}", f"text of {row} – ünïcode 𝒳") for row in range(count)]


def lines_to(path: Path, *lines):
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(knowledge_base, "_BATCH_PASSAGES", 4)


@settings(max_examples=100)
@given(st.lists(st.builds(Passage, WORDS, WORDS, WORDS), min_size=1, max_size=15, unique_by=lambda one: one.id))
def test_what_goes_in_comes_out(passages):
    base = KnowledgeBase.from_passages(passages)
    assert len(base) == len(passages)
    assert list(base) == passages
    assert [base[row] for row in range(len(base))] == passages
    assert base.fingerprint == fingerprint(part for one in passages for part in (one.id, one.title, one.text))


@pytest.mark.parametrize("count", [1, 3, 4, 5, 11])
def test_disk_and_memory_agree(count, tmp_path: Path):
    passages = passages_of(count)
    memory = KnowledgeBase.from_passages(passages)
    disk = KnowledgeBase.from_passages(iter(passages), tmp_path / "deep" / "base.arrow")
    memory.save(tmp_path / "saved.arrow")
    for base in (
        disk,
        KnowledgeBase.open(tmp_path / "deep" / "base.arrow"),
        KnowledgeBase.open(tmp_path / "saved.arrow"),
    ):
        assert base.fingerprint == memory.fingerprint
        assert list(base) == passages
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["base.arrow", "deep", "saved.arrow"]


def test_fingerprint_ignores_batches_and_sees_everything_else(monkeypatch):
    passages = passages_of(10)
    known = KnowledgeBase.from_passages(passages).fingerprint
    monkeypatch.setattr(knowledge_base, "_BATCH_PASSAGES", 3)
    monkeypatch.setattr(knowledge_base, "_BATCH_CHARACTERS", 50)
    assert KnowledgeBase.from_passages(passages).fingerprint == known
    for other in (
        passages[:-1],
        passages[::-1],
        [*passages[:-1], Passage("id9", passages[9].title, "changed")],
        [*passages[:-1], Passage("id9", passages[9].title + "t", passages[9].text[1:])],
    ):
        assert KnowledgeBase.from_passages(other).fingerprint != known


def test_long_texts_make_small_batches(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(knowledge_base, "_BATCH_CHARACTERS", 10)
    path = tmp_path / "base.arrow"
    KnowledgeBase.from_passages((Passage(str(n), "", "x" * 9) for n in range(6)), path)
    assert len(list(pa.ipc.open_stream(path))) == 3


def test_rows_blocks_and_bounds():
    passages = passages_of(11)
    base = KnowledgeBase.from_passages(passages)
    assert base.passages([10, 0, 4, 4]) == [passages[row] for row in (10, 0, 4, 4)]
    assert [len(block) for block in base.blocks(3)] == [3, 3, 3, 2]
    assert [one for block in base.blocks(5) for one in block] == passages
    assert [one for block in base.blocks(3, start=7) for one in block] == passages[7:]
    for row in (-1, 11):
        with pytest.raises(IndexError, match=f"row {row} is not in the knowledge base; expected 0 … 10"):
            base[row]
    with pytest.raises(ValueError, match=r"rows is 0"):
        list(base.blocks(0))


def test_jsonl(tmp_path: Path):
    source = lines_to(
        tmp_path / "base.jsonl",
        {"id": "a", "title": "T", "text": "x", "more": 1},
        "",
        {"text": "y"},
        {"id": 7, "text": ""},
    )
    for path in (None, tmp_path / "base.arrow"):
        base = KnowledgeBase.from_jsonl(source, path)
        assert list(base) == [Passage("a", "T", "x"), Passage("1", "", "y"), Passage("7", "", "")]


def test_tsv_of_dpr(tmp_path: Path):
    source = lines_to(tmp_path / "psgs.tsv", "id\ttext\ttitle", '1\t"said ""hello"" to, all"\tA title', "2\tplain\tB")
    base = KnowledgeBase.from_tsv(source)
    assert list(base) == [Passage("1", "A title", 'said "hello" to, all'), Passage("2", "B", "plain")]


@pytest.mark.parametrize(
    ("lines", "advice"),
    [
        (['{"text": "x"}', "{broken"], "base.jsonl, line 2: not valid JSON"),
        (['{"text": "x"}', "", "[1]"], "line 3: expected a JSON object"),
        (['{"id": "a", "body": "x"}'], 'line 1: no field "text"; the line has id, body'),
        (['{"text": 5}'], 'line 1: "text" is int, expected a string'),
        (['{"text": "x", "title": ["t"]}'], 'line 1: "title" is list, expected a string'),
        (['{"text": "x", "id": true}'], 'line 1: "id" is bool, expected a string'),
        (['{"text": "x", "id": 1.5}'], 'line 1: "id" is float, expected a string'),
        (['{"text": "half \\ud800"}'], "line 1: half of a surrogate pair"),
        (
            ['{"id": "a", "text": "x"}', *['{"text": "y"}'] * 6, "", '{"id": "a", "text": "z"}'],
            "line 9: the id 'a' was already used at .*base.jsonl, line 1; ids must be distinct",
        ),
        (['{"text": "x"}', '{"id": "0", "text": "y"}'], "line 2: the id '0' was already used at .*, line 1"),
    ],
)
@pytest.mark.parametrize("on_disk", [False, True])
def test_bad_jsonl_says_where(lines, advice, on_disk, tmp_path: Path):
    source = lines_to(tmp_path / "base.jsonl", *lines)
    with pytest.raises(UserError, match=advice):
        KnowledgeBase.from_jsonl(source, tmp_path / "base.arrow" if on_disk else None)
    assert [path.name for path in tmp_path.iterdir()] == ["base.jsonl"]


def test_bad_tsv_says_where(tmp_path: Path):
    source = lines_to(tmp_path / "psgs.tsv", "id\ttext\ttitle", "1\tx\tt", "1\ty\tt")
    with pytest.raises(UserError, match=r"psgs.tsv, line 3: the id '1' was already used at .*psgs.tsv, line 2"):
        KnowledgeBase.from_tsv(source)
    with pytest.raises(UserError, match=r"line 1: no column 'text'"):
        KnowledgeBase.from_tsv(lines_to(tmp_path / "psgs.tsv", "id\ttitle", "1\tx"))
    with pytest.raises(UserError, match=r"line 2: 2 cells; the header has 3"):
        KnowledgeBase.from_tsv(lines_to(tmp_path / "psgs.tsv", "id\ttext\ttitle", "1\tx"))


def test_bad_passages_say_which():
    untitled = Passage("b", "", "x")
    object.__setattr__(untitled, "title", None)  # as it comes from code that no type checker read
    with pytest.raises(UserError, match=r"no passages; a knowledge base needs at least one"):
        KnowledgeBase.from_passages([])
    with pytest.raises(UserError, match=r"passage 1 .counted from 0.: title is NoneType, expected a string"):
        KnowledgeBase.from_passages([Passage("a", "", "x"), untitled])
    with pytest.raises(UserError, match=r"passage 3 .*: the id 'a' was already used at passage 0"):
        KnowledgeBase.from_passages([Passage(one, "", "x") for one in "abcab"])


def test_rows_are_selected_by_patterns(monkeypatch):
    monkeypatch.setattr("retrograd.index.knowledge_base._BATCH_PASSAGES", 2)
    base = KnowledgeBase.from_passages(
        [
            Passage("a/1", "Cups", "tea"),
            Passage("a/2", "50% off", "all\nof it"),
            Passage("b_1", "Cups", "ink"),
            Passage("bx1", "cups", "a\\b"),
            Passage("ä", "", ""),
        ]
    )
    assert base.rows_where(id="a/*") == [0, 1]
    assert base.rows_where(title="Cups") == [0, 2]
    assert base.rows_where(title="C*", id="b*") == [2]
    assert base.rows_where(title="?ups") == [0, 2, 3]
    assert base.rows_where(id="b_1") == [2]  # _ and % are themselves
    assert base.rows_where(title="50%*") == [1]
    assert base.rows_where(text="a*t") == [1]  # over line ends
    assert base.rows_where(text="a\\b") == base.rows_where(text="a\\*") == base.rows_where(text="*\\b") == [3]
    assert base.rows_where(id="?") == [4]
    assert base.rows_where(title="") == [4]
    assert base.rows_where(title="C" + "*" * 5_000) == base.rows_where(title="C*")
    with pytest.raises(UserError, match="title has 20,000 characters; at most 10,000"):
        base.rows_where(title="*?" * 10_000)
    assert base.rows_where() == [0, 1, 2, 3, 4]
    assert base.rows_where(title="nothing") == []
    with pytest.raises(UserError, match="no field 'titel'; did you mean 'title'"):
        base.rows_where(titel="Cups")
    with pytest.raises(UserError, match="no field 'self'"):
        base.rows_where(**{"self": "Cups"})


def test_a_failed_build_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "base.arrow"
    old = KnowledgeBase.from_passages(passages_of(6), path)
    with pytest.raises(UserError, match=r"already used"):
        KnowledgeBase.from_passages([*passages_of(9), *passages_of(1)], path)
    assert KnowledgeBase.open(path).fingerprint == old.fingerprint
    assert [one.name for one in tmp_path.iterdir()] == ["base.arrow"]


def test_open_refuses_damage(tmp_path: Path):
    path = tmp_path / "base.arrow"
    KnowledgeBase.from_passages(passages_of(9), path)
    whole = path.read_bytes()
    for part in (b"", b"not arrow", whole[:100], whole[:-20], whole[:-8], whole + b"more"):
        path.write_bytes(part)
        with pytest.raises(UserError, match=r"not a complete Arrow file.*build the knowledge base again"):
            KnowledgeBase.open(path)
    with pytest.raises(UserError, match=r"no such file"):
        KnowledgeBase.open(tmp_path / "absent.arrow")


def arrow_to(path: Path, format="file", **columns):  # noqa: A002
    table = pa.table(columns)
    with (pa.ipc.new_file if format == "file" else pa.ipc.new_stream)(path, table.schema) as writer:
        writer.write_table(table)
    return path


@pytest.mark.parametrize("format", ["file", "stream"])
def test_open_takes_either_format_of_arrow(format: str, tmp_path: Path):  # noqa: A002
    good = {"id": ["a", "b"], "title": ["", ""], "text": ["x", "y"]}
    base = KnowledgeBase.open(arrow_to(tmp_path / "other.arrow", format, **good))
    assert [one.text for one in base] == ["x", "y"]


def test_a_stream_that_was_cut_between_two_batches_is_refused(monkeypatch, tmp_path: Path):
    """It reads like a whole stream otherwise."""
    monkeypatch.setattr(knowledge_base, "_BATCH_PASSAGES", 3)
    path = tmp_path / "base.arrow"
    KnowledgeBase.from_passages(passages_of(9), path)
    with pa.OSFile(str(path)) as source:
        reader = pa.ipc.open_stream(source)
        reader.read_next_batch()
        cut = source.tell()
    path.write_bytes(path.read_bytes()[:cut])
    assert pa.ipc.open_stream(path).read_all().num_rows == 3
    with pytest.raises(UserError, match="its end is missing"):
        KnowledgeBase.open(path)


def test_open_takes_any_arrow_file_with_the_columns_and_no_other(tmp_path: Path):
    good = {"id": ["a", "b"], "title": ["", ""], "text": ["x", "y"]}
    base = KnowledgeBase.open(arrow_to(tmp_path / "other.arrow", **good))
    assert base.fingerprint == KnowledgeBase.from_passages([Passage("a", "", "x"), Passage("b", "", "y")]).fingerprint
    with pytest.raises(UserError, match=r"has the columns id \(int64\).*expected id, title, text"):
        KnowledgeBase.open(arrow_to(tmp_path / "other.arrow", **{**good, "id": [1, 2]}))
    with pytest.raises(UserError, match=r"holds missing values"):
        KnowledgeBase.open(arrow_to(tmp_path / "other.arrow", **{**good, "text": ["x", None]}))
    with pytest.raises(UserError, match=r"no passages"):
        KnowledgeBase.open(arrow_to(tmp_path / "other.arrow", **{name: pa.array([], pa.string()) for name in good}))
