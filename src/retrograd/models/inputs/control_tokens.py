"""Encode texts in which the name of a control token, such as ``</s>`` or ``[SEP]``, is nothing but text.

A tokenizer reads such a name, wherever it stands, as the token: a passage about Markdown strikes or about language
models would end in the middle. Here a text with a name is cut inside the name, and its pieces are tokenised one by one:
cut elsewhere, many vocabularies would still know the name as a whole word. All other texts get the ids that the
tokenizer gives them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from transformers import BatchEncoding, PreTrainedTokenizerBase

from retrograd.types import ComposedText

__all__ = ["ControlTokens", "Piece"]

_Cell = int | tuple[int, int]
"""What an encoding says of a token: an id, a type, a mask, or characters."""


class Piece(NamedTuple):
    """A piece of a text: its first character's place, and whether the text's task wrote any of it."""

    start: int
    text: str
    is_of_task: bool


class ControlTokens:
    """The control tokens of a tokenizer: those that begin, end, part and pad texts, ``end`` and ``others``.

    ``ids`` are theirs. Not among them are the mask and sentinels, which texts name to be read as tokens, and tokens
    named by an ordinary sign or word: some models pad with "!".
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end: int | None = None, others: Iterable[int] = ()) -> None:
        self.tokenizer = tokenizer
        t = tokenizer
        ids = (end, t.eos_token_id, t.bos_token_id, t.pad_token_id, t.sep_token_id, t.cls_token_id, *others)
        names = {id_: t.convert_ids_to_tokens(id_) for id_ in ids if isinstance(id_, int) and id_ != t.unk_token_id}
        named = {id_: name for id_, name in names.items() if isinstance(name, str) and _is_control(name)}
        self.ids = frozenset((*named, *(id_ for id_ in names if id_ == end)))
        longest_first = sorted(named.values(), key=lambda name: (-len(name), name))
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._in_empty_text = self._count(self._tokenise([""], special=True)["input_ids"][0])

    def encode(
        self, texts: Sequence[str], max_tokens: int | None = None, *, special: bool = True, offsets: bool = False
    ) -> BatchEncoding:
        """Return what the tokenizer returns, in lists, with control tokens only where it or the text's task puts them.

        ``max_tokens`` is where texts are cut, ``special`` adds the tokens around a text, and ``offsets`` the characters
        of each token. The task's parts of a text are those of `retrograd.types.ComposedText`.
        """
        named = {row for row, text in enumerate(texts) if self._is_named(text)}
        encoded = self._tokenise(
            ["" if row in named else text for row, text in enumerate(texts)], max_tokens, special, offsets
        )
        most = self._in_empty_text if special else 0
        for row, text in enumerate(texts):
            # A name may also arise as the tokenizer normalises the text: one in letters of full width.
            arises = self._pattern.search(text) is None and self._count(encoded["input_ids"][row]) > most
            if row in named or arises:
                for name, values in self._read_as_text(text, max_tokens, special, offsets).items():
                    encoded[name][row] = values
        return encoded

    def pieces(self, text: str) -> list[Piece]:
        """Return the text, cut behind the first character of each name outside the parts of its task."""
        of_task = text.task_parts if isinstance(text, ComposedText) else ()
        cuts = [
            match.start() + 1
            for match in self._pattern.finditer(text)
            if not any(start <= match.start() and match.end() <= end for start, end in of_task)
        ]
        ends = [*cuts, len(text)]
        return [
            Piece(start, str(text[start:end]), any(first < end and start < last for first, last in of_task))
            for start, end in zip([0, *cuts], ends, strict=True)
        ]

    def _tokenise(
        self, texts: Sequence[str], max_tokens: int | None = None, special: bool = False, offsets: bool = False
    ) -> BatchEncoding:
        limit = {} if max_tokens is None else {"truncation": True, "max_length": max_tokens}
        wanted = {"return_offsets_mapping": True} if offsets else {}
        # Not every tokenizer takes a subclass of str.
        return self.tokenizer(
            [str(text) for text in texts], add_special_tokens=special, verbose=False, **wanted, **limit
        )

    def _count(self, ids: Iterable[int]) -> int:
        return sum(id_ in self.ids for id_ in ids)

    def _is_named(self, text: str) -> bool:
        """Return whether others than the task named a control token in a text, and the tokenizer would read it so."""
        if self._pattern.search(text) is None or len(self.pieces(text)) == 1:
            return False
        return self._count(self._tokenise([text])["input_ids"][0]) > 0

    def _read_as_text(self, text: str, max_tokens: int | None, special: bool, offsets: bool) -> dict[str, list[_Cell]]:
        """Return the columns of the encoding of one text, read in pieces, of which control tokens are left out."""
        frame, before, after = self._frame(special, offsets)
        inside: defaultdict[str, list[_Cell]] = defaultdict(list)
        for piece in self.pieces(text):
            read = {name: values[0] for name, values in self._tokenise([piece.text], offsets=offsets).items()}
            if offsets:
                read["offset_mapping"] = [
                    (piece.start + first, piece.start + last) for first, last in read["offset_mapping"]
                ]
            kept = [n for n, id_ in enumerate(read["input_ids"]) if piece.is_of_task or id_ not in self.ids]
            for name, column in read.items():
                inside[name] += [column[n] for n in kept]
        count = len(inside["input_ids"])
        length = count if max_tokens is None else min(count, max(max_tokens - before - after, 0))
        first = count - length if self.tokenizer.truncation_side == "left" else 0
        return {
            name: [*column[:before], *inside[name][first : first + length], *column[len(column) - after :]]
            for name, column in frame.items()
        }

    def _frame(self, special: bool, offsets: bool) -> tuple[dict[str, list[_Cell]], int, int]:
        """Return the columns of a short text, and the numbers of tokens that the tokenizer puts before and after it."""
        columns = {name: values[0] for name, values in self._tokenise(["a"], special=special, offsets=offsets).items()}
        whole, bare = columns["input_ids"], self._tokenise(["a"])["input_ids"][0]
        extra = len(whole) - len(bare)
        before = next((place for place in range(extra + 1) if whole[place : place + len(bare)] == bare), 0)
        return columns, before, extra - before


def _is_control(name: str) -> bool:
    """Return whether a token's name is no ordinary sign or word."""
    return len(name) > 1 and not name.isalnum()
