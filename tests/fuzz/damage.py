"""Inputs that no writer meant: sound files with values retyped, and with bytes changed; drawn by hypothesis.

An edit is a few plain numbers, so that a failing input shrinks to the fewest edits, each at the first place.
"""

from __future__ import annotations

import codecs
import copy
import gzip
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

__all__ = ["damaged", "json_lines", "json_text"]


@dataclass(frozen=True)
class Raw:
    """What stands in the file as it is, though it may be no JSON."""

    text: str


_DEEP = 100_000
ODD: tuple[object, ...] = (
    None, True, False, 0, -1, 1.5, 2**63, -(2**70), Raw("9" * 400), Raw("9" * 5000), Raw("1e999"), Raw("NaN"),
    Raw("-Infinity"), Raw("1E400000000"), Raw("-0"), Raw("[" * _DEEP), Raw('{"a":' * _DEEP),
    Raw("[" * 900 + "]" * 900), Raw('"\\ud800"'), Raw('"\\udc00\\ud800"'), Raw('{"\\ud83d": 1}'), Raw(""),
    "", " ", "\t", "\n", "\u00a0", "\ufeff", "\u202e", "\u0000", "a\u0000b", "\u2028", "\U0001f600", "e\u0301",
    "\u05d0\u05d1", "x" * 70_000, " " * 70_000, "a " * 30_000, "(" * 5_000, "\\", '"', "'", "%s", "{}", "../../x",
    "/etc/passwd", "x" * 300, "nan", "1", "true", "null", "None", "[]", "['a']", "['\\ud800']",
    [], [[]], [[[[]]]], [None], [1, 2], [2, 1], [0, 0], [-1, 5], ["a", "a"], [True, False], ["a", 1], [{}],
    {}, {"": ""}, {"text": None}, {"text": "a"}, {"kind": "x"}, {"a": {"a": {"a": []}}},
)  # fmt: skip
"""Values of every type, among them those that break what reads them."""

_ODD_BYTES: tuple[bytes, ...] = (
    b"", b"\x00", b"\xff", b"\xfe\xff", b"\xed\xa0\x80", b"\xc3", b"\xf4\x90\x80\x80", b"\r", b"\r\n", b"\n\n", b"\t",
    b"\x0b", b"\x1a", b"\x7f", codecs.BOM_UTF8, codecs.BOM_UTF16, "\u2028".encode(), "\u0085".encode(), b'"', b"'",
    b"\\", b"\\u", b"\\ud800", b"\\u0000", b"{", b"}", b"[", b"]", b",", b":", b"=", b"#", b"[" * _DEEP,
    b'{"a":' * _DEEP, b"(" * 3000, b"9" * 5000, b"1e999", b"0x" + b"f" * 9000, b"NaN", b"-", b'"id": 1, "id": 2,',
    b" " * 70_000, b"a" * 140_000, b"a.a" * 3000, b"1979-05-27T07:32:00Z", b"99999-99-99", b"nan", b"'''", b'"""',
    b"<e1>", b"</e1>", b"<e2>", b"<<", b">>", b"[[", b"]]", b"Comment:", b"1\t\"", b"PK\x03\x04", b"\x1f\x8b\x08",
    b"\x80\x04\x95", b"ARROW1", b"\xff\xff\xff\xff\xff\xff\xff\x7f",
)  # fmt: skip

_EDITS = ("drop", "replace", "twice", "wrap", "rename", "longer")
_BYTE_EDITS = ("flip", "cut", "delete", "insert", "repeat", "head")

Edit = tuple[str, int, int]


def _edits(kinds: Sequence[str], values: int) -> st.SearchStrategy[list[Edit]]:
    edit = st.tuples(st.sampled_from(kinds), st.integers(0, 1 << 16), st.integers(0, values - 1))
    return st.lists(edit, min_size=1, max_size=4)


def damaged(sound: bytes, form: str) -> st.SearchStrategy[bytes]:
    """The file ``sound`` changed. ``form`` "json" and "lines" are also retyped value by value."""
    changed = _edits(_BYTE_EDITS, len(_ODD_BYTES)).map(lambda edits: _with_bytes(sound, edits))
    whole = st.sampled_from(_wholes(sound))
    if form not in ("json", "lines"):
        return st.one_of(changed, changed, changed, whole)
    parse, write = (json.loads, json_text) if form == "json" else (_parsed_lines, json_lines)
    value = parse(sound)
    typed = _edits(_EDITS, len(ODD)).map(lambda edits: write(_retyped(value, edits)))
    return st.one_of(typed, typed, changed, whole)


def _wholes(sound: bytes) -> list[bytes]:
    """The file as a whole said otherwise."""
    text = sound.decode("utf-8", "replace")
    said = [sound, b"", b"\n", b" ", b"null", b"[]", b"{}", b"0", b'""', b"[{}]", b"\x00" * 1000, codecs.BOM_UTF8]
    said += [text.encode("utf-16"), text.encode("utf-32"), codecs.BOM_UTF8 + sound, sound.replace(b"\n", b"\r\n")]
    said += [
        sound.replace(b"\n", b"\r"),
        sound * 2,
        sound.rstrip(),
        b"[" * _DEEP,
        b'{"a":' * _DEEP,
        gzip.compress(sound),
    ]
    return [*said, b"9" * 5000, b"{" + b'"a":1,' * 1000, b"\x1f\x8b\x08" + b"\x00" * 20, b"\n" * 10_000 + sound]


# ---- values ----------------------------------------------------------------------------------------------------------


def _retyped(value: object, edits: Sequence[Edit]) -> object:
    changed = [copy.deepcopy(value)]  # in a list, so that the whole has a parent as well
    for kind, place, odd in edits:
        places = list(_places(changed))
        parent, key = places[place % len(places)]
        _edit(parent, key, kind, copy.deepcopy(ODD[odd]))  # or the next edit changes ODD
        if not changed:
            return Raw("")
    return changed[0]


def _places(value: object) -> list[tuple[list | dict, int | str]]:
    """(parent, key) of every value inside, breadth first."""
    found: list[tuple[list | dict, int | str]] = []
    layer = [value]
    while layer:
        below = []
        for one in layer:
            if isinstance(one, (list, dict)):
                keys = list(one) if isinstance(one, dict) else list(range(len(one)))
                found += [(one, key) for key in keys]
                below += [one[key] for key in keys]
        layer = below
    return found


def _edit(parent: list | dict, key: int | str, kind: str, odd: object) -> None:
    value = parent[key]  # pyright: ignore[reportCallIssue, reportArgumentType]
    if kind == "drop":
        del parent[key]  # pyright: ignore[reportCallIssue, reportArgumentType]
    elif kind == "twice" and isinstance(parent, list):
        parent.append(copy.deepcopy(value))
    elif kind == "twice":
        parent[f"{key}{_TWICE}"] = odd
    elif kind == "rename" and isinstance(parent, dict):
        parent[odd if isinstance(odd, str) else f"{key}x"] = parent.pop(str(key))
    else:
        changed = {"wrap": [value], "longer": value * 3 if isinstance(value, (str, list)) else odd}.get(kind, odd)
        parent[key] = changed  # pyright: ignore[reportCallIssue, reportArgumentType]


_TWICE = "@@twice"
_RAW = re.compile(r'"@@raw(\d+)"')


def json_text(value: object) -> bytes:
    """As JSON, but for what `Raw` says and for keys that stand twice."""
    raws: list[str] = []

    def said(raw: object) -> str:
        assert isinstance(raw, Raw)
        raws.append(raw.text)
        return f"@@raw{len(raws) - 1}"

    text = json.dumps(value, default=said, ensure_ascii=False)
    text = _RAW.sub(lambda match: raws[int(match[1])], text)
    return re.sub(rf"(?:{_TWICE})+\"", '"', text).encode("utf-8", "surrogatepass")


def json_lines(value: object) -> bytes:
    """A list as one value a line."""
    return b"".join(json_text(one) + b"\n" for one in (value if isinstance(value, list) else [value]))


def _parsed_lines(sound: bytes) -> list[object]:
    return [json.loads(line) for line in sound.splitlines()]


# ---- bytes -----------------------------------------------------------------------------------------------------------


def _with_bytes(sound: bytes, edits: Sequence[Edit]) -> bytes:
    found = bytearray(sound)
    for kind, place, odd in edits:
        at = place % (len(found) + 1)
        value = _ODD_BYTES[odd]
        if kind == "flip" and at < len(found):
            found[at] ^= 1 << odd % 8
        elif kind == "cut":
            del found[at:]
        elif kind == "head":
            del found[:at]
        elif kind == "delete":
            del found[at : at + 1 + odd]
        elif kind == "insert":
            found[at:at] = value
        elif kind == "repeat":
            found[at:at] = found[at : at + 40] * 3
    return bytes(found)
