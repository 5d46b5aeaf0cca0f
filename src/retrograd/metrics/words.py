"""Words of a text, for search, evidence and scores alike, and a folded form to compare texts by.

All of the project splits texts here, by one rule for every script of Unicode:

* A word is a run of letters and numbers with the marks that stand on them: vowel signs of Hindi, points of Hebrew.
* In scripts that are written without spaces (Chinese, Japanese, Thai, Khmer, Burmese …) each character is a word: a
  letter with its marks, and with what is stacked under it.
* An emoji is a word: a flag, a person with a skin tone, and several joined into one picture, too.
* Invisible signs inside a word do not count: joiners, soft hyphens, marks of direction. A zero-width space parts words.
* Any other visible sign is a sign.

Search and evidence compare words in two forms, which differ in English as well, so neither takes the other's place:
`words` has Unicode's compatibility form (NFKC) without case, `words_and_signs` that of DPR.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from retrograd.types import UserError

__all__ = [
    "CHARACTER",
    "MARKS",
    "WORDS_VERSION",
    "NonWords",
    "cuts_word",
    "fold",
    "is_unspaced",
    "require_same_words",
    "space_characters",
    "token_spans",
    "words",
    "words_and_signs",
    "words_without_signs",
]

_MARK_BLOCKS = ((0x300, 0x3100), (0xA66F, 0xAC00), (0xFB1E, 0xFE30), (0x101FD, 0x11FFF), (0x16AF0, 0x17000))
_MARK_BLOCKS = (*_MARK_BLOCKS, (0x1BC9D, 0x1BC9F), (0x1CF00, 0x1CF50), (0x1D165, 0x1D245), (0x1DA00, 0x1E950))


def _join_ranges(codes: Iterator[int]) -> str:
    """Return ascending code points as ranges of a character class."""
    ranges: list[list[int]] = []
    for code in codes:
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


MARKS = _join_ranges(
    code for first, end in _MARK_BLOCKS for code in range(first, end) if unicodedata.category(chr(code))[0] == "M"
)
"""The combining marks of all scripts, as the inside of a character class: ``re`` knows letters, but not marks."""

_UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf"  # Thai and Lao, without their digits
    "\u1000-\u103f\u1050-\u108f\u109a-\u109d\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa76\uaa7a-\uaa7f"  # Burmese
    "\u1780-\u17d3\u17d7\u17dc-\u17dd"  # Khmer
    "\u1950-\u1974\u1980-\u19c9\u1a00-\u1a1b\u1a20-\u1a7c\uaa80-\uaadd"  # Tai Le, Tai Lue, Buginese, Tai Tham, Tai Viet
    "\u1b00-\u1b4c\ua980-\ua9c0"  # Balinese, Javanese
    "\u3005-\u3007\u3021-\u3029\u3038-\u303c\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9d\U0001aff0-\U0001b16f"  # kana
    "\u3105-\u312f\u31a0-\u31bf\ua000-\ua48c"  # Bopomofo, Yi
    "\U00012000-\U00012399\U00012400-\U0001246e\U00013000-\U0001342f\U00017000-\U00018cff\U00018d00-\U00018d08\U0001b170-\U0001b2fb"
)
_STACKERS = "\u1039\u17d2\u1a60\u1b44\ua9c0"
"""Marks by which Burmese, Khmer, Tai Tham, Balinese and Javanese put the next letter under the one before."""

_PICTURES = "\U0001f000-\U0001f0ff\U0001f18e\U0001f191-\U0001f19a\U0001f200-\U0001faff"
_COLOURED = (
    "\u231a\u231b\u23e9-\u23ec\u23f0\u23f3\u25fd\u25fe\u2614\u2615\u2648-\u2653\u267f\u2693\u26a1\u26aa\u26ab\u26bd"
    "\u26be\u26c4\u26c5\u26ce\u26d4\u26ea\u26f2\u26f3\u26f5\u26fa\u26fd\u2705\u270a\u270b\u2728\u274c\u274e"
    "\u2753-\u2755\u2757\u2795-\u2797\u27b0\u27bf\u2b1b\u2b1c\u2b50\u2b55"
)
_SYMBOLS = "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u2bff\u3030\u303d\u3297\u3299"
"""Signs that are emoji only where U+FE0F asks for colour; of those in ``_COLOURED`` it need not."""

_PICTURE = f"(?:[{_PICTURES}{_COLOURED}]|[{_SYMBOLS}]\ufe0f)[\U0001f3fb-\U0001f3ff\ufe0f\U000e0020-\U000e007f]*"
_EMOJI = f"[\U0001f1e6-\U0001f1ff]{{2}}|{_PICTURE}(?:\u200d(?:{_PICTURE}|[{_SYMBOLS}]))*"
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u180b-\u180f\u200c\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufe00-\ufe0e\ufeff"
    f"\U000e0001\U000e0100-\U000e01ef]+|\u200d(?![{_PICTURES}{_SYMBOLS}])|(?<![{_PICTURES}{_SYMBOLS}])\ufe0f"
)
_WIDTHS = {code: unicodedata.normalize("NFKC", chr(code)) for code in range(0xFF01, 0xFFEF)}
"""The signs of full and half width that Chinese and Japanese texts write Latin letters, digits and kana in."""

_PLAIN_WORD = re.compile(r"\w+")
_ASCII_WORD_OR_SIGN = re.compile(r"[a-z0-9]+|[!-/:-@\[-`{-~]")
CHARACTER = f"[{_UNSPACED}](?:[{_STACKERS}][{_UNSPACED}]|[{MARKS}])*"
"""The pattern of one character of a script without spaces, with all that stands on it."""

_ONE_CHARACTER = re.compile(CHARACTER)
_NOT_PLAIN = re.compile(f"[{MARKS}{_UNSPACED}{_PICTURES}{_COLOURED}\U0001f1e6-\U0001f1ff\ufe0f]")


@cache
def _pattern(underscore_joins: bool) -> re.Pattern[str]:
    """Return the pattern whose groups are emoji, characters of unspaced scripts, words, and any single sign."""
    apart = "" if underscore_joins else "_"
    return re.compile(
        rf"(?P<word>(?:[^\W{apart}{_UNSPACED}]+|[{MARKS}])+)"
        f"|(?P<character>{CHARACTER})|(?P<emoji>{_EMOJI})|(?P<sign>.)",
        re.DOTALL,
    )


def words(text: str, stop_words: frozenset[str] = frozenset()) -> list[str]:
    """Return the words that lexical search counts, in NFKC and case-folded, without ``stop_words``. No stemming.

    An underscore joins. In scripts without spaces each pair of neighbouring characters is a word besides: single ones
    are in too many texts to search by.
    """
    text = unicodedata.normalize("NFKC", text if text.isascii() else _INVISIBLE.sub("", text)).casefold()
    tokens = _PLAIN_WORD.findall(text) if _NOT_PLAIN.search(text) is None else list(_words_and_pairs(text))
    return [word for word in tokens if word not in stop_words]


def _words_and_pairs(text: str) -> Iterator[str]:
    before: re.Match[str] | None = None
    for match in _pattern(True).finditer(text):
        if match.lastgroup == "character":
            yield match[0]
            if before is not None and before.end() == match.start():
                yield before[0] + match[0]
            before = match
        elif match.lastgroup != "sign":
            yield match[0].replace("\ufe0f", "")


def words_and_signs(text: str) -> list[str]:
    """Return the words of a text in order, signs among them; lower case, decomposed (NFD). An underscore is a sign."""
    return [token for token, _ in _read(text)]


def words_without_signs(text: str) -> list[str]:
    """Return `words_and_signs` without the signs."""
    return [token for token, is_word in _read(text) if is_word]


def _read(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the words and signs of a text, with whether each is a word."""
    if not text.isascii():
        text = unicodedata.normalize("NFD", _INVISIBLE.sub("", text).translate(_WIDTHS))
    text = text.lower()
    for part in (text,) if text.isascii() else text.split():
        if part.isascii():
            for token in _ASCII_WORD_OR_SIGN.findall(part):
                yield token, token.isalnum()
            continue
        for match in _pattern(False).finditer(part):
            if match.lastgroup != "sign":
                yield match[0].replace("\ufe0f", ""), True
            elif _is_visible(match[0]):
                yield match[0], False


@cache
def _is_visible(sign: str) -> bool:
    """Return whether a sign is neither a separator nor a control character."""
    return unicodedata.category(sign)[0] not in "ZC"


def cuts_word(text: str, position: int) -> bool:
    """Return whether a position lies inside a word: behind its first character, and before its end.

    In scripts without spaces that is inside a character with its marks; an emoji is a word. An underscore joins.
    """
    if not 0 < position < len(text) or text[position - 1].isspace() or text[position].isspace():
        return False
    start = max((text.rfind(space, 0, position) for space in " \n\t"), default=-1) + 1
    for match in _pattern(True).finditer(text, start):
        if match.end() >= position:
            return match.lastgroup != "sign" and match.start() < position < match.end()
    return False


def token_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield the characters [start, end) of every word and every visible sign, in order, cut as `cuts_word` has it."""
    for match in _pattern(True).finditer(text):
        if match.lastgroup != "sign" or _is_visible(match[0]):
            yield match.span()


def is_unspaced(text: str) -> bool:
    """Return whether a text holds characters of a script that is written without spaces."""
    return not text.isascii() and _ONE_CHARACTER.search(text) is not None


def space_characters(text: str) -> str:
    """Return a text with a space on either side of every character of a script without spaces."""
    return text if text.isascii() else _ONE_CHARACTER.sub(r" \g<0> ", text)


WORDS_VERSION = 2
"""The version of the rule of `words`: 1 cut words at combining marks, and parted no characters."""


def require_same_words(version: int, held: Iterable[str], where: str) -> None:
    """Raise `UserError` where ``held``, the words of a file, may differ today: of an earlier version, and of scripts
    beyond Latin, Greek and Cyrillic."""
    if version < WORDS_VERSION:
        other = next((word for word in held if word and max(word) > "\u052f"), None)
        if other is not None:
            raise UserError(
                f"{where} holds words such as {other!r} as retrograd 0.1.0 cut them, and this version cuts words of "
                "such scripts otherwise; build it again, or use it with 0.1.0"
            )


def fold(text: str) -> str:
    """Return a text with its case folded and runs of spaces collapsed, to compare texts and answers."""
    return " ".join(text.casefold().split())


@dataclass(frozen=True, slots=True)
class NonWords:
    """Parts of the texts that retrievers read which are not words, so that search by words leaves them out.

    ``prefixes`` begin a text: an instruction to an encoder. ``marks`` stand anywhere: what parts two texts, or shows
    where something is missing.
    """

    prefixes: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()

    def remove_from(self, text: str) -> str:
        """Return the text without the first prefix that it begins with, and with a space for every mark."""
        text = text.removeprefix(next((prefix for prefix in self.prefixes if prefix and text.startswith(prefix)), ""))
        for mark in self.marks:
            if mark:
                text = text.replace(mark, " ")
        return text
