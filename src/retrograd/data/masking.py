"""Training examples made from a corpus alone: a sentence with a masked name, date or number asks for it.

Salient span masking of REALM (Guu et al. 2020, "REALM: Retrieval-Augmented Language Model Pre-Training", arXiv
2002.08909): what names the world has to be looked up, where a masked function word is guessed from its neighbours.
There a tagger finds names; here rules for English do, or whatever the caller brings. As there, a sentence must not be
answered from the passage it stands in: its source is part of the example.
"""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrograd.data.offsets import Offsets, read_offsets
from retrograd.data.record_fields import locate_errors, name_type, read_string, require_fields
from retrograd.data.sentences import ABBREVIATIONS, SplitSentences, english_sentence_spans, sentence_spans
from retrograd.metrics.words import MARKS
from retrograd.types import Example, Passage, UserError
from retrograd.util.guards import JsonValue
from retrograd.util.text_files import read_jsonl

__all__ = [
    "MASK",
    "SpanExample",
    "SpanFile",
    "SpanMasking",
    "Spans",
    "excluded_passages",
    "read_spans",
    "salient_spans",
    "span_examples",
]

MASK = "[MASK]"
"""Replacement of a masked span, unless a `SpanMasking` sets another."""

Spans = Callable[[Passage], Iterable[tuple[int, int]]]
"""Function from a passage to the spans to mask, characters [start, end): a tagger's names, for example."""

_MONTH = (
    "(?:January|February|March|April|May|June|July|August|September|October|November|December|"
    r"(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.)"
)
_DAY = r"(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?"
_YEAR = r"(?:1\d{3}|20\d{2})"
_DATE = re.compile(
    rf"\b(?:{_DAY} {_MONTH}(?:,? {_YEAR})?|{_MONTH} {_DAY}(?:, {_YEAR})?|{_MONTH} {_YEAR}|"
    rf"{_YEAR}-\d\d-\d\d|{_YEAR}s?)(?![\w]|[.,]\d)"
)
_NUMBER = re.compile(
    r"(?<![\w.,-])(?:[$€£¥]\s?)?\d+(?:[.,]\d+)*(?:\s?%|\s(?:percent|per cent|thousand|million|billion|trillion)\b)?"
    r"(?![\w-]|[.,]\d)"
)
_RUN = rf"(?:[^\W_][{MARKS}]*)+"
_WORD = re.compile(rf"(?:[^\W\d_]\.){{2,}}|{_RUN}(?:[-&]{_RUN}|['’](?!s\b){_RUN})*")
_JOINING = frozenset(
    {"of", "de", "da", "di", "del", "della", "der", "den", "van", "von", "la", "le", "du", "al", "ibn"}
)
_OPENING = """
a about after all also although among an and another any are as at because before both but by can despite did do does
during each even every few first following for four from further had has have he her here his how however i if in
instead into is it its last later like many more most much my near neither new no none not now of on once one only or
other our over perhaps please she should since so some such that the their then there these they this those three
though through thus to two under unlike until upon was we were what when where whether which while who whose why will
with within without would yes yet you your
"""
_OPENERS = frozenset(_OPENING.split())
"""Words that are capitals only because they begin a sentence, or that are no name anywhere."""

_TITLE_CASE = 0.6
"""A sentence without a mark at its end is a heading from this share of capitalised words on."""


@dataclass(frozen=True, slots=True)
class SpanExample(Example):
    """A sentence with a mask as query, the masked text as target, and the passage it was taken from.

    ``excluded`` are the ids of passages that must not be retrieved for it: the source, unless it may be.
    """

    source: str = ""
    excluded: tuple[str, ...] = ()


def excluded_passages(example: Example) -> tuple[str, ...]:
    """Return the ids of the passages that must not be retrieved for an example, beside those with its own text."""
    return example.excluded if isinstance(example, SpanExample) else ()


@dataclass(frozen=True)
class SpanMasking:
    """Frozen settings of how examples are made from passages.

    ``mask`` stands for what is hidden. Of each passage at most ``most_per_passage`` examples are drawn, from sentences
    of at least ``least_words`` words: a shorter one says too little to retrieve by. ``may_see_source`` lets the source
    be retrieved. ``split_sentences`` finds sentences, by default those of English. Raises `UserError` for a blank mask,
    and for counts below 1.
    """

    mask: str = MASK
    most_per_passage: int = 1
    least_words: int = 8
    may_see_source: bool = False
    split_sentences: SplitSentences = english_sentence_spans

    def __post_init__(self) -> None:
        if not self.mask.strip():
            raise UserError(f"mask is {self.mask!r}; expected visible text that shows where something is missing")
        for name, value in (("most_per_passage", self.most_per_passage), ("least_words", self.least_words)):
            if value < 1:
                raise UserError(f"{name} is {value}; expected 1 or more")


def span_examples(
    passages: Iterable[Passage], masking: SpanMasking, rng: random.Random, spans: Spans | None = None
) -> Iterator[SpanExample]:
    """Yield examples of passages in the order of the passages; ``spans`` replaces `salient_spans`, made for English.

    Their ids are ``passage:start-end`` in characters of the passage's text. A span that its own sentence has a second
    time, or that does not lie in one sentence, is left out. Raises `UserError` for a span outside the text.
    """
    for passage in passages:
        candidates = salient_spans(passage.text) if spans is None else spans(passage)
        examples = list(_mask_spans(passage, masking, sorted(set(candidates))))
        positions = sorted(rng.sample(range(len(examples)), min(masking.most_per_passage, len(examples))))
        for position in positions:
            yield examples[position]


@dataclass(frozen=True)
class SpanFile:
    """The spans of a file: ``pairs`` [start, end) in units of ``offsets``, by the id of their passage.

    It is one of `Spans`, and then in characters. A passage that the file does not name has none.
    """

    pairs: dict[str, list[tuple[int, int]]]
    offsets: Offsets

    def __call__(self, passage: Passage) -> list[tuple[int, int]]:
        """Return a passage's spans in characters. Raises `UserError` for an offset outside it."""
        name = f"span of passage {passage.id!r}"
        read = [read_offsets(passage.text, pair, self.offsets, name) for pair in self.pairs.get(passage.id, ())]
        return [(span.start, span.end) for span in read]


def read_spans(path: Path, offsets: Offsets = "characters") -> SpanFile:
    """Read spans, such as a tagger may have written, from a file.

    It has JSON Lines of ``id``, that of a passage of the base, and ``spans``, a list of ``[start, end]`` in characters
    of its text, or in other units of ``offsets``.

    Raises `UserError` with file and line.
    """
    spans: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for number, record in read_jsonl(path):
        with locate_errors(path, f"line {number}"):
            require_fields(record, ("id", "spans"))
            spans[read_string(record, "id")] += _read_pairs(record["spans"])
    return SpanFile(dict(spans), offsets)


def _read_pairs(value: JsonValue) -> list[tuple[int, int]]:
    if not isinstance(value, list):
        raise UserError(f"'spans' is {name_type(value)}; expected a list of [start, end]")
    pairs: list[tuple[int, int]] = []
    for pair in value:
        match pair:
            case [int(start), int(end)] if not isinstance(start, bool) and not isinstance(end, bool):
                pairs.append((start, end))
            case _:
                raise UserError(f"'spans' holds {json.dumps(pair)[:40]}; expected [start, end], two whole numbers")
    return pairs


def _mask_spans(passage: Passage, masking: SpanMasking, spans: Sequence[tuple[int, int]]) -> Iterator[SpanExample]:
    text = passage.text
    for start, end in spans:
        if not 0 <= start < end <= len(text):
            raise UserError(
                f"span [{start}, {end}) of passage {passage.id!r} lies outside its text of {len(text)} characters; "
                'offsets count characters from 0 and the end is exclusive ("offsets" is for other units)'
            )
    excluded = () if masking.may_see_source else (passage.id,)
    for first, last in masking.split_sentences(text):
        if len(text[first:last].split()) < masking.least_words:
            continue
        for start, end in spans:
            if first <= start and end <= last and not _occurs_again(text[first:last], text[start:end]):
                query = " ".join(f"{text[first:start]}{masking.mask}{text[end:last]}".split())
                target = " ".join(text[start:end].split())
                yield SpanExample(f"{passage.id}:{start}-{end}", query, (target,), passage.id, excluded)


def _occurs_again(sentence: str, span: str) -> bool:
    return sentence.casefold().count(span.casefold()) > 1


def salient_spans(text: str) -> list[tuple[int, int]]:
    """Return disjoint spans of dates, numbers (two digits, or with a unit) and names, as characters [start, end).

    The rules are for English: its months and units, its use of capitals.

    A name is a run of capitalised words ("University of Oxford", "NATO"). The word that begins a sentence is part of
    one only if another capitalised word follows; headings (mostly capitals, no mark at the end) have no names.
    """
    candidates: list[tuple[int, int]] = [match.span() for match in _DATE.finditer(text)]
    candidates += [match.span() for match in _NUMBER.finditer(text) if len(match[0]) > 1]
    for start, end in sentence_spans(text):
        candidates += _find_names(text, start, end)
    disjoint: list[tuple[int, int]] = []
    for start, end in sorted(candidates, key=lambda span: (span[0], -span[1])):
        if not disjoint or start >= disjoint[-1][1]:
            disjoint.append((start, end))
    return disjoint


def _find_names(text: str, first: int, last: int) -> Iterator[tuple[int, int]]:
    """Yield the spans of the names in one sentence."""
    tokens = [token for token in _WORD.finditer(text, first, last) if token[0][0].isalpha()]
    capitals = sum(_is_capitalised(token[0]) for token in tokens)
    if text[last - 1].isalnum() and capitals > _TITLE_CASE * len(tokens):
        return
    run: list[re.Match[str]] = []
    for token in tokens:
        if run and not _continues(text, run[-1], token):
            yield from _trim_name(run, tokens[0])
            run = []
        if run or (_is_capitalised(token[0]) and token[0].casefold() not in _OPENERS):
            run.append(token)
    yield from _trim_name(run, tokens[0] if tokens else None)


def _trim_name(run: list[re.Match[str]], opening: re.Match[str] | None) -> Iterator[tuple[int, int]]:
    """Yield a run of words cut after its last capital, unless it is one letter or just the first word of a sentence."""
    while run and not _is_capitalised(run[-1][0]):
        run = run[:-1]
    if len(run) > 1 or (run and run[0] is not opening and len(run[0][0]) > 1):
        yield run[0].start(), run[-1].end()


def _continues(text: str, before: re.Match[str], word: re.Match[str]) -> bool:
    """Return whether a name continues: "Charles V", "Robert J. Shiller", "St. John", "Tiffany & Co"."""
    gap = text[before.end() : word.start()]
    shortened = len(before[0]) == 1 or before[0].casefold() in ABBREVIATIONS
    if gap == " & " or (gap == ". " and shortened):
        return _is_capitalised(word[0])
    joins = word[0] in _JOINING or (word[0] == "the" and before[0] == "of")
    return gap == " " and (joins or _is_capitalised(word[0]))


def _is_capitalised(word: str) -> bool:
    return word[0].isupper()
