"""Readers: what a file says is what comes out, and every refusal names file, line and remedy."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.reading import Write

from retrograd.data.record_fields import locate_tokens
from retrograd.data.relations.formats import read_relations
from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.readers.jsonl import read_jsonl
from retrograd.data.relations.readers.markers import parse_markers, read_markers
from retrograd.data.relations.readers.semeval import read_semeval
from retrograd.types import Span, UserError

CHEMPROT = Path(__file__).parents[3] / ".." / "shared" / "data" / "chemprot"

LAMP = {"text": "The lamp lit the hall.", "head": [4, 8], "tail": [17, 21]}


# Marker text


WORDS = st.text(alphabet="ab<>[] é", min_size=1, max_size=8).filter(
    lambda text: text.strip() == text and not any(sign in text for sign in ("<<", ">>", "[[", "]]", "<e", "</e"))
)
GAPS = WORDS.map(lambda text: f" {text} ")


@pytest.mark.parametrize(
    ("head", "tail"),
    [
        (("<e1>", "</e1>"), ("<e2>", "</e2>")),
        (("<< ", " >>"), ("[[ ", " ]]")),
        (("<e1> ", " </e1>"), ("<e2>", "</e2>")),
    ],
    ids=["tags", "brackets", "spaced tag"],
)
@given(before=GAPS, first=WORDS, between=GAPS, second=WORDS, after=GAPS, head_first=st.booleans())
def test_parse_markers_recovers_the_spans(
    head: tuple[str, str],
    tail: tuple[str, str],
    before: str,
    first: str,
    between: str,
    second: str,
    after: str,
    head_first: bool,
) -> None:
    one, two = (head, tail) if head_first else (tail, head)
    marked = f"{before}{one[0]}{first}{one[1]}{between}{two[0]}{second}{two[1]}{after}"
    instance = parse_markers(marked, "1", "likes")
    assert instance.text == before + first + between + second + after
    entities = (instance.head.of(instance.text), instance.tail.of(instance.text))
    assert entities == ((first, second) if head_first else (second, first))
    assert instance.relation == "likes"


@pytest.mark.parametrize(
    ("marked", "text", "head", "tail"),
    [
        ("a <e1>red <e2>car</e2></e1> b", "a red car b", "red car", "car"),
        ("<< red [[ car ]] >> b", "red car b", "red car", "car"),
        ("[[ red << car >> ]]", "red car", "car", "red car"),
        # A literal without the inner space is text, as in chemical names and orders of potency.
        ("x[[1]y] >> z binds << p >> and [[ q ]], r>>s", "x[[1]y] >> z binds p and q, r>>s", "p", "q"),
        ("<<p>> binds [[q]]", "p binds q", "p", "q"),
    ],
)
def test_nested_and_literal_marks(marked: str, text: str, head: str, tail: str) -> None:
    instance = parse_markers(marked, "1", None)
    assert instance.text == text
    assert (instance.head.of(text), instance.tail.of(text)) == (head, tail)


@pytest.mark.parametrize(
    ("marked", "advice"),
    [
        ("no marks here", r"no entity is marked in 'no marks here'; mark both"),
        ("an <e1>owl</e1> flew", r"no mark '<e2>'.*<e2>entity</e2>"),
        ("an <e2>owl</e2> flew", r"no mark '<e1>'"),
        ("<< an owl >> flew", r"no mark '\[\['"),
        ("<e1>owl</e1> <e1>elk</e1> <e2>fox</e2>", r"2 marks '<e1>'"),
        ("<e1>owl <e2>fox</e2>", r"'<e1>' is never closed.*write '</e1>' after the entity"),
        ("owl</e1> <e1>elk <e2>fox</e2>", r"'<e1>' is never closed"),
        ("<e1>owl</e1> elk</e1> <e2>fox</e2>", r"2 marks '</e1>'.*keep the one after the entity"),
        ("<< owl >> << elk >> [[ fox ]]", r"2 marks '<<'"),
        ("<< owl >> and [[ fox", r"'\[\[' is never closed"),
        ("<e1></e1> <e2>fox</e2>", "covers no visible character"),
        ("<e1><e2>fox</e2></e1>", "two different entities"),
        ("<e1>red <e2>fox</e1> cub</e2>", "overlap in part"),
        ("<< [[ >> ]]", "marks touch"),
    ],
)
def test_wrong_markers_are_refused(marked: str, advice: str) -> None:
    with pytest.raises(UserError, match=advice):
        parse_markers(marked, "1", None)


# SemEval layout


def test_semeval_with_labels_comments_and_windows_line_ends(write: Write) -> None:
    path = write(
        '1\t"The <e1>baker</e1> sold <e2>bread</e2>."\r\nProduct-Producer(e2,e1)\r\nComment: clear\r\n\r\n'
        '2\t"An <e1>owl</e1> saw a <e2>fox</e2>."\r\nOther\r\nComment:\r\n\r\n'
    )
    first, second = read_semeval(path)
    assert first == RelationInstance("1", "The baker sold bread.", Span(4, 9), Span(15, 20), "Product-Producer(e2,e1)")
    assert (second.id, second.relation) == ("2", "Other")


def test_semeval_without_labels_and_blank_lines(write: Write) -> None:
    path = write('8\t"An <e1>owl</e1> saw a <e2>fox</e2>."\n9\t" A <e1> cub </e1> of a <e2> fox </e2> "')
    assert [(i.id, i.text, i.relation) for i in read_semeval(path)] == [
        ("8", "An owl saw a fox.", None),
        ("9", "A cub of a fox", None),
    ]


SENTENCE = '1\t"An <e1>owl</e1> saw a <e2>fox</e2>."'


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        ("Other\n" + SENTENCE, "line 1: expected a number, a tab and a sentence.*found 'Other'"),
        (SENTENCE + "\nnot a label", "line 2: expected a number, a tab and a sentence.*found 'not a label'"),
        (SENTENCE.replace("\t", " "), "line 1: expected a number, a tab"),
        (SENTENCE + "\nOther\nCause", "line 3: a second label 'Cause' for the sentence of line 1, already 'Other'"),
        (SENTENCE + "\nOther\n\n" + SENTENCE, "line 4: id '1' is already used at line 1"),
        (SENTENCE.replace("<e1>", ""), "line 1: no mark '<e1>'"),
        ("\n\n", "holds no sentence"),
    ],
)
def test_semeval_errors(write: Write, content: str, advice: str) -> None:
    path = write(content)
    with pytest.raises(UserError, match=advice) as error:
        list(read_semeval(path))
    assert str(path) in str(error.value)


def test_compressed_files_read_the_same_and_damaged_ones_say_so(tmp_path: Path) -> None:
    path = tmp_path / "data.txt.gz"
    path.write_bytes(gzip.compress(SENTENCE.encode()))
    assert [instance.text for instance in read_semeval(path)] == ["An owl saw a fox."]
    for damaged in (b"\x80 not compressed", path.read_bytes()[:-12]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"damaged after line .*compress it again"):
            list(read_semeval(path))


# JSON Lines


def test_jsonl_characters_and_tokens(write: Write) -> None:
    tokens = {"tokens": ["The", "lamp", "lit", "it", "."], "head": [1, 2], "tail": [3, 5]}
    more = {"id": 7, "relation": "lights", "head_type": "THING", "tail_type": "PLACE", "metadata": {"page": 3}}
    plain, by_token = read_jsonl(write([LAMP, tokens | more]))
    assert plain == RelationInstance("1", "The lamp lit the hall.", Span(4, 8), Span(17, 21), None)
    assert by_token == RelationInstance("7", "The lamp lit it .", Span(4, 8), Span(13, 17), "lights", "THING", "PLACE")
    assert by_token.tail.of(by_token.text) == "it ."


@given(st.data(), st.lists(st.text(alphabet="ab é", min_size=1, max_size=4), min_size=1, max_size=8))
def test_token_spans_are_the_tokens_joined(data: st.DataObject, tokens: list[str]) -> None:
    first = data.draw(st.integers(0, len(tokens) - 1))
    last = data.draw(st.integers(first + 1, len(tokens)))
    assert locate_tokens(tokens, (first, last), "head").of(" ".join(tokens)) == " ".join(tokens[first:last])


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"head": [4, 80]}, r"head \[4, 80\) lies outside the text of 22 characters"),
        ({"head": [4, 4]}, "covers no visible character"),
        ({"head": [17, 21]}, "two different entities"),
        ({"head": [15, 19]}, "overlap in part"),
        ({"head": [True, 8]}, r"'head' is \[true, 8\]; expected two whole numbers"),
        ({"head": [4.0, 8]}, r"'head' is \[4.0, 8\]; expected two whole numbers"),
        ({"head": [4]}, r"'head' is \[4\]; expected two whole numbers \[start, end\]"),
        ({"head": 4}, "'head' is 4; expected two whole numbers"),
        ({"head": " "}, "'head' is blank; expected the words of the entity, or two whole numbers"),
        (
            {"head": "lam"},
            r"head 'lam' stands nowhere in the text, as whole words; give its offsets, as \[start, end\]",
        ),
        ({"realtion": "lights"}, "unknown field 'realtion'; did you mean 'relation'?.*under 'metadata'"),
        ({"zzz": 1}, "unknown field 'zzz'; known: 'text', 'head'"),
        ({"relation": 3}, "'relation' is a number; expected a string"),
        ({"text": None}, "'text' is null; expected a string"),
        ({"text": ["The"]}, "'text' is a list; expected a string"),
        ({"head_type": {}}, "'head_type' is an object; expected a string"),
        ({"id": True}, "'id' is a boolean; expected a string or a whole number"),
        ({"id": None}, "'id' is null; expected a string or a whole number"),
        ({"tokens": ["The", "lamp"]}, "unknown field 'text'"),
    ],
)
def test_jsonl_errors(write: Write, change: dict[str, object], advice: str) -> None:
    path = write([LAMP, LAMP | change])
    with pytest.raises(UserError, match=rf"data\.txt, line 2: .*{advice}"):
        list(read_jsonl(path))


@pytest.mark.parametrize(
    ("record", "advice"),
    [
        ({"tokens": ["a", "b"], "head": [0, 1], "tail": [1, 3]}, r"tail \[1, 3\) lies outside the 2 tokens"),
        ({"tokens": ["a", "b"], "head": [0, 1], "tail": [1, 1]}, r"tail \[1, 1\) covers no token; the end is excl"),
        ({"tokens": ["a", ""], "head": [0, 1], "tail": [1, 2]}, "token 1 is an empty string; expected a non-empty"),
        ({"tokens": ["a", 5.0], "head": [0, 1], "tail": [1, 2]}, "token 1 is a number"),
        ({"tokens": "a b", "head": [0, 1], "tail": [1, 2]}, "'tokens' is a string; expected a list"),
        ({"tokens": ["a", "b"], "head": [0, 1]}, "no field 'tail'; the record has tokens, head"),
        ({"head": [0, 1], "tail": [1, 2]}, "no field 'text'; the record has head, tail"),
        ({}, "no field 'text'; the record has no fields"),
    ],
)
def test_jsonl_record_errors(write: Write, record: dict[str, object], advice: str) -> None:
    with pytest.raises(UserError, match=rf"data\.txt, line 1: {advice}"):
        list(read_jsonl(write([record])))


def test_a_repeated_id_names_both_lines(write: Write) -> None:
    with pytest.raises(UserError, match="line 2: id 'a' is already used at line 1"):
        list(read_jsonl(write([LAMP | {"id": "a"}, LAMP | {"id": "a"}])))


def test_markers_as_json_lines(write: Write) -> None:
    path = write(
        [
            {"text": "<< X >> stops [[ Y ]].", "label": "INHIBITOR", "metadata": []},
            {"text": "<e1>X</e1> stops <e2>Y</e2>.", "relation": "INHIBITOR", "id": "b"},
            {"text": "<< X >> stops [[ Y ]]."},
        ]
    )
    assert [(i.id, i.text, i.relation) for i in read_markers(path)] == [
        ("1", "X stops Y.", "INHIBITOR"),
        ("b", "X stops Y.", "INHIBITOR"),
        ("3", "X stops Y.", None),
    ]


@pytest.mark.parametrize(
    ("record", "advice"),
    [
        ({"text": "<< X >> [[ Y ]]", "label": "A", "relation": "A"}, "both 'label' and 'relation' are given; keep one"),
        ({"text": "<< X >> Y"}, r"no mark '\[\['"),
        ({"text": "<< X >> [[ Y ]]", "lable": "A"}, "unknown field 'lable'; did you mean 'label'?"),
        ({"label": "A"}, "no field 'text'"),
    ],
)
def test_markers_errors(write: Write, record: dict[str, object], advice: str) -> None:
    with pytest.raises(UserError, match=rf"data\.txt, line 1: {advice}"):
        list(read_markers(write([record])))


# Choosing a reader


@pytest.mark.parametrize(
    ("content", "format"),
    [
        ("\n" + SENTENCE, "semeval"),
        ([{"tokens": ["An", "owl", "saw", "a", "fox."], "head": [1, 2], "tail": [4, 5]}], "jsonl"),
        ([{"text": "An owl saw a fox.", "head": [3, 6], "tail": [13, 16]}], "jsonl"),
        ([{"text": "An << owl >> saw a [[ fox ]]."}], "markers"),
    ],
)
def test_auto_finds_the_format(write: Write, content: str | list[dict[str, object]], format: str) -> None:  # noqa: A002
    path = write(content)
    (instance,) = read_relations(path)
    assert instance.text == "An owl saw a fox."
    assert [instance] == list(read_relations(path, format))


def test_unknown_and_undetectable_formats(write: Write) -> None:
    path = write("some prose\n")
    with pytest.raises(UserError, match="unknown relation format 'jsnl'; did you mean 'jsonl'"):
        read_relations(path, "jsnl")
    with pytest.raises(UserError, match=r"neither text of SemEval .* name the format: semeval, jsonl, markers"):
        read_relations(path)
    with pytest.raises(UserError, match="only blank lines"):
        read_relations(write("\n\n"))


@pytest.mark.skipif(not CHEMPROT.is_dir(), reason="the ChemProt files are not on this machine; they are not shipped")
@pytest.mark.parametrize(("split", "count"), [("train", 4169), ("dev", 2427), ("test", 3469)])
def test_every_chemprot_line_is_read(split: str, count: int) -> None:
    instances = list(read_relations(CHEMPROT / f"{split}.jsonl"))
    assert len(instances) == count
    for instance in instances:
        for entity in (instance.head.of(instance.text), instance.tail.of(instance.text)):
            assert entity == entity.strip()
            assert ">>" not in entity


def test_a_number_of_too_many_digits_is_no_format(write: Write) -> None:
    with pytest.raises(UserError, match="name the format"):
        list(read_relations(write("9" * 5000)))


def test_a_line_of_spaces_takes_no_longer_than_others(write: Write) -> None:
    """The test would take minutes if the search were quadratic."""
    with pytest.raises(UserError, match="name the format"):
        list(read_relations(write("1\t" + " " * 300_000)))
