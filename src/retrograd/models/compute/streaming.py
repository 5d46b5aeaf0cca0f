"""Follow a generator while it writes: the tokens of one text, each as soon as it is decoded."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

__all__ = ["FollowText", "TextStreamer"]

FollowText = Callable[[str], None]
"""A function that receives all of a text that has been written so far, once for every token."""

_UNFINISHED = "\ufffd"
"""The sign for bytes that are no character yet: the rest of it is in the next tokens."""


class TextStreamer(BaseStreamer):
    """Decode the tokens that transformers' ``generate`` hands over, and pass the text so far on."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, follow: FollowText) -> None:
        self._tokenizer = tokenizer
        self._follow = follow
        self._tokens: list[int] = []
        self._is_begun = False

    def put(self, value: Tensor) -> None:
        """Take the next tokens; the first call has what the model was given to read, or to begin with."""
        if not self._is_begun:
            self._is_begun = True
            return
        self._tokens += value.flatten().tolist()
        text = str(self._tokenizer.decode(self._tokens, skip_special_tokens=True)).strip()
        self._follow(text.rstrip(_UNFINISHED))

    def end(self) -> None:
        """Do nothing: whoever called ``generate`` knows that it has returned."""
