"""Prompts as tokens: the chat template, the separator, and what is cut where a prompt is too long.

What may be spared goes first (`retrograd.types.Prompt`), from its end; only then the rest of the prompt, from its end.
Both are counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from retrograd.types import Prompt

__all__ = ["PromptCounts", "PromptTokens", "TokenIds"]

TokenIds = list[int]


class PromptCounts(NamedTuple):
    """Numbers of prompts: all that were ``read``, those ``shortened`` in their spare part, those ``cut`` elsewhere."""

    read: int
    shortened: int
    cut: int


class PromptTokens:
    """Token ids of prompts for one model.

    A decoder-only model reads a prompt as a user's turn in the tokenizer's chat template where it has one and ``chat``
    is true, otherwise followed by ``separator``; either way the last tokens, ``tail`` of them, tell it that the answer
    begins, and are never cut. ``read``, ``shortened`` and ``cut`` count prompts since the beginning, as `PromptCounts`.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, encoder_decoder: bool, separator: str, end: int, chat: bool
    ) -> None:
        self._tokenizer = tokenizer
        self._encoder_decoder = encoder_decoder
        self._end = end
        self.chat = chat and not encoder_decoder and bool(getattr(tokenizer, "chat_template", None))
        self._separator: TokenIds = []
        if not encoder_decoder and not self.chat:
            self._separator = tokenizer(separator, add_special_tokens=False)["input_ids"]
        # What the template puts around a turn, without the turn, is what a prompt takes at the least.
        self._frame = len(self._templated([""])[0]) if self.chat else 0
        self.tail = self._behind_a_turn() if self.chat else len(self._separator)
        self.least = (self._frame or len(self._separator) + tokenizer.num_special_tokens_to_add()) + 1
        self.read = self.shortened = self.cut = 0

    @property
    def counts(self) -> PromptCounts:
        """How many prompts were read, and how many of them lost something."""
        return PromptCounts(self.read, self.shortened, self.cut)

    def resume_counts(self, counts: PromptCounts) -> None:
        """Go on counting from what another process, or an attempt that failed, had counted."""
        self.read, self.shortened, self.cut = counts

    def ids(self, prompts: Sequence[str], most: Sequence[int]) -> list[TokenIds]:
        """Of each prompt at most so many tokens, its tail included; an empty one has one token at least.

        Nothing fits into fewer than ``least`` tokens.
        """
        self.read += len(prompts)
        found = self._all_ids(prompts)
        return [
            ids if len(ids) <= room else self._fitting(prompt, room)
            for prompt, ids, room in zip(prompts, found, most, strict=True)
        ]

    def _fitting(self, prompt: str, most: int) -> TokenIds:
        """Less and less of the spare part, then the beginning of what is left."""
        if isinstance(prompt, Prompt) and prompt.spare[0] < prompt.spare[1]:
            self.shortened += 1
            while True:
                (ids,) = self._all_ids([prompt])
                if len(ids) <= most:
                    return ids
                start, end = prompt.spare
                if start == end:
                    break
                prompt = prompt.shortened(self._less(prompt[start:end], len(ids) - most))
        self.cut += 1
        return self._cut(prompt, most)

    def _less(self, spare: str, tokens: int) -> int:
        """How many characters of the spare part are left without its last ``tokens``; fewer than there are."""
        if not self._tokenizer.is_fast:
            count = len(self._tokenizer(spare, add_special_tokens=False, verbose=False)["input_ids"])
            return min(len(spare) - 1, len(spare) * max(count - tokens, 0) // max(count, 1))
        whole = self._tokenizer(spare, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        offsets = whole["offset_mapping"]
        return min(len(spare) - 1, offsets[-tokens][0] if tokens <= len(offsets) else 0)

    def _cut(self, prompt: str, most: int) -> TokenIds:
        """The prompt's first tokens, then its tail."""
        if self.chat:
            text = self._tokenizer(str(prompt), add_special_tokens=False, verbose=False)["input_ids"]
            # Tokens of a text that is cut may join otherwise: a few fewer until it fits.
            for room in range(most - self._frame, -1, -1):
                (ids,) = self._templated([str(self._tokenizer.decode(text[:room]))])
                if len(ids) <= most:
                    return ids
        limit = {"truncation": True, "max_length": most - len(self._separator)}
        return self._closed(self._tokenizer([str(prompt)], **limit)["input_ids"])[0]

    def _all_ids(self, prompts: Sequence[str]) -> list[TokenIds]:
        if not prompts:
            return []
        if self.chat:
            return self._templated(prompts)
        return self._closed(self._tokenizer([str(prompt) for prompt in prompts], verbose=False)["input_ids"])

    def _closed(self, encoded: list[TokenIds]) -> list[TokenIds]:
        """With the separator, which tells a decoder-only model that the answer begins; an end-of-sequence token that
        the tokenizer may append would tell it the opposite."""
        if not self._encoder_decoder:
            encoded = [(ids[:-1] if ids[-1:] == [self._end] else ids) + self._separator for ids in encoded]
        # Even an empty prompt needs one token for the first target token to follow.
        return [ids or [self._end] for ids in encoded]

    def _templated(self, prompts: Sequence[str]) -> list[TokenIds]:
        """Each as a user's turn, and what begins the answer."""
        turns = [[{"role": "user", "content": str(prompt)}] for prompt in prompts]
        made = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return self._tokenizer([str(text) for text in made], add_special_tokens=False, verbose=False)["input_ids"]

    def _behind_a_turn(self) -> int:
        """Tokens that two turns have behind them alike: their end, and what begins the answer. Not every template has a
        part for the latter alone; some end each turn with it."""
        first, second = (reversed(ids) for ids in self._templated(["turn", "0"]))
        return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))))
