"""Turn prompts into tokens: apply the chat template or the separator, and cut a prompt that is too long.

The name of a control token in a prompt, such as ``</s>``, is nothing but text; so is, in a chat, that of a token by
which the template marks turns.

The spare part (`retrograd.types.Prompt`) is cut first, from its end; only then the rest of the prompt, from its end.
Both are counted. Here are also the tokens that begin and end a target, and the longest input of a model.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from retrograd.models.compute.positions import position_limit
from retrograd.models.inputs.control_tokens import ControlTokens
from retrograd.types import ComposedText, Prompt, UserError

__all__ = [
    "PromptCounts",
    "PromptTokens",
    "TokenIds",
    "end_token",
    "fit_texts",
    "input_limit",
    "start_token",
    "target_limit",
]

TokenIds = list[int]


def fit_texts(control: ControlTokens, instruction: str, texts: Sequence[str], max_tokens: int) -> list[str]:
    """Return texts behind an instruction, as a retriever reads them: `Prompt.core` shortened where it has no room.

    All else is cut at its end by the tokenizer, as it comes: plain strings, what `Prompt.rest` is, and a core whose
    spare part does not suffice.
    """
    read: list[str] = [ComposedText(instruction, text) for text in texts]
    cores = {position: text.core for position, text in enumerate(texts) if isinstance(text, Prompt)}
    if cores:
        encoded = control.encode([ComposedText(instruction, core) for core in cores.values()])["input_ids"]
        for (position, core), ids in zip(cores.items(), encoded, strict=True):
            if len(ids) > max_tokens:
                shortened = _shorten_core(control, instruction, core, max_tokens)
                read[position] = read[position] if shortened == core else ComposedText(instruction, shortened)
    return read


def _shorten_core(control: ControlTokens, instruction: str, core: Prompt, max_tokens: int) -> Prompt:
    """Return a text with as much of its spare part as there is room for."""
    while (over := len(control.encode([ComposedText(instruction, core)])["input_ids"][0]) - max_tokens) > 0:
        start, end = core.spare
        if start == end:
            break
        core = core.shorten(_shortened_length(control.tokenizer, core[start:end], over))
    return core


def _shortened_length(tokenizer: PreTrainedTokenizerBase, spare: str, tokens: int) -> int:
    """Return the length in characters of a spare part without its last ``tokens``; less than it is."""
    if not tokenizer.is_fast:
        count = len(tokenizer(spare, add_special_tokens=False, verbose=False)["input_ids"])
        return min(len(spare) - 1, len(spare) * max(count - tokens, 0) // max(count, 1))
    whole = tokenizer(spare, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    offsets = whole["offset_mapping"]
    return min(len(spare) - 1, offsets[-tokens][0] if tokens <= len(offsets) else 0)


class PromptCounts(NamedTuple):
    """The numbers of prompts ``read``, of those ``shortened`` in their spare part, and of those ``cut`` elsewhere.

    ``tokens`` are those of all prompts, as they were read.
    """

    read: int
    shortened: int
    cut: int
    tokens: int = 0


class PromptTokens:
    """The tokenisation of prompts for one model.

    A decoder-only model reads a prompt as a user's turn in the tokenizer's chat template where it has one and ``chat``
    is true, otherwise followed by ``separator``; either way the last tokens, ``tail`` of them, mark the beginning of
    the answer, and are never cut. ``read``, ``shortened``, ``cut`` and ``tokens`` count, as in `PromptCounts`.
    ``control`` are the control tokens of all texts of the model.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, encoder_decoder: bool, separator: str, end: int, chat: bool
    ) -> None:
        self._tokenizer = tokenizer
        self._encoder_decoder = encoder_decoder
        self._end = end
        self.chat = chat and not encoder_decoder and bool(getattr(tokenizer, "chat_template", None))
        self.control = ControlTokens(tokenizer, end)
        self._separator: TokenIds = []
        if not encoder_decoder and not self.chat:
            self._separator = tokenizer(separator, add_special_tokens=False)["input_ids"]
        self._turn_control = self.control
        # What the template puts around a turn, without the turn, is what a prompt takes at the least.
        frame = self._apply_template([""])[0] if self.chat else []
        self._frame = len(frame)
        if self.chat:
            self._turn_control = ControlTokens(tokenizer, end, [id_ for id_ in frame if _is_special(tokenizer, id_)])
        self.tail = self._count_tail() if self.chat else len(self._separator)
        self.minimum = (self._frame or len(self._separator) + tokenizer.num_special_tokens_to_add()) + 1
        self.read = self.shortened = self.cut = self.tokens = 0

    @property
    def counts(self) -> PromptCounts:
        """The numbers of prompts that were read, and that were shortened or cut, and of their tokens."""
        return PromptCounts(self.read, self.shortened, self.cut, self.tokens)

    def resume_counts(self, counts: PromptCounts) -> None:
        """Continue from the counts of another process, or of an attempt that failed."""
        self.read, self.shortened, self.cut, self.tokens = counts

    def ids(self, prompts: Sequence[str], max_tokens: Sequence[int]) -> list[TokenIds]:
        """Return at most ``max_tokens`` tokens of each prompt, its tail included; an empty prompt has at least one.

        No prompt fits into fewer than ``minimum`` tokens.
        """
        self.read += len(prompts)
        whole = self._all_ids(prompts)
        read = [
            ids if len(ids) <= limit else self._shorten_to_fit(prompt, limit)
            for prompt, ids, limit in zip(prompts, whole, max_tokens, strict=True)
        ]
        self.tokens += sum(map(len, read))
        return read

    def _shorten_to_fit(self, prompt: str, max_tokens: int) -> TokenIds:
        """Shorten the spare part until the prompt fits; if it does not suffice, cut the rest."""
        if isinstance(prompt, Prompt) and prompt.spare[0] < prompt.spare[1]:
            self.shortened += 1
            while True:
                (ids,) = self._all_ids([prompt])
                if len(ids) <= max_tokens:
                    return ids
                start, end = prompt.spare
                if start == end:
                    break
                length = _shortened_length(self._tokenizer, prompt[start:end], len(ids) - max_tokens)
                prompt = prompt.shorten(length)
        self.cut += 1
        return self._cut(prompt, max_tokens)

    def _cut(self, prompt: str, max_tokens: int) -> TokenIds:
        """Return the prompt's first tokens, then its tail."""
        if self.chat:
            text = self._turn_control.encode([prompt], special=False)["input_ids"][0]
            # The text of the first tokens may be tokenised otherwise: take fewer until it fits.
            for limit in range(max_tokens - self._frame, -1, -1):
                (ids,) = self._apply_template([str(self._tokenizer.decode(text[:limit]))])
                if len(ids) <= max_tokens:
                    return ids
        limit = max_tokens - len(self._separator)
        return self._append_separator(self.control.encode([prompt], limit)["input_ids"])[0]

    def _all_ids(self, prompts: Sequence[str]) -> list[TokenIds]:
        """Return the token ids of whole prompts, with template or separator."""
        if not prompts:
            return []
        if self.chat:
            return self._apply_template(prompts)
        return self._append_separator(self.control.encode(prompts)["input_ids"])

    def _append_separator(self, encoded: list[TokenIds]) -> list[TokenIds]:
        """Append the separator, after which a decoder-only model answers, in the place of an end-of-sequence token."""
        if not self._encoder_decoder:
            encoded = [(ids[:-1] if ids[-1:] == [self._end] else ids) + self._separator for ids in encoded]
        # Even an empty prompt needs one token for the first target token to follow.
        return [ids or [self._end] for ids in encoded]

    def _apply_template(self, prompts: Sequence[str]) -> list[TokenIds]:
        """Return the ids of each prompt as a user's turn, with the tokens that begin the answer."""
        pieces = [[piece.text for piece in self._turn_control.pieces(prompt)] for prompt in prompts]
        # A prompt that names control tokens keeps the cuts in these names through the template by a sign of its own.
        signs = [_unused_sign(prompt) for prompt in prompts]
        turns = [[{"role": "user", "content": sign.join(own)}] for sign, own in zip(signs, pieces, strict=True)]
        chats = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        texts = [str(chat).split(sign) for chat, sign in zip(chats, signs, strict=True)]
        flat = [text for own in texts for text in own]
        ids = iter(self._tokenizer(flat, add_special_tokens=False, verbose=False)["input_ids"])
        return [[id_ for _ in own for id_ in next(ids)] for own in texts]

    def _count_tail(self) -> int:
        """Return the number of tokens after a turn: the last tokens that two different turns have in common."""
        first, second = (reversed(ids) for ids in self._apply_template(["turn", "0"]))
        return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))))


def _unused_sign(text: str) -> str:
    """Return a character for private use that the text does not have."""
    return next(sign for sign in map(chr, range(0xE000, 0xF900)) if sign not in text)


def _is_special(tokenizer: PreTrainedTokenizerBase, token: int) -> bool:
    added = tokenizer.added_tokens_decoder.get(token)
    return added is not None and added.special


def start_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token before the first target token of a decoder. Raises `UserError` if none is named."""
    generation = model.generation_config.decoder_start_token_id if model.generation_config else None
    configured = getattr(model.config, "decoder_start_token_id", None)  # T5's configuration need not have one
    named = (configured, generation, tokenizer.cls_token_id, tokenizer.pad_token_id)
    return _first_token(named, "decoder_start_token", "the model's config.json")


def end_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that ends a target. Raises `UserError` if none is named."""
    configured = model.generation_config.eos_token_id if model.generation_config else None
    first = configured[0] if isinstance(configured, list) and configured else configured
    return _first_token((tokenizer.eos_token_id, first, tokenizer.sep_token_id), "eos_token", "tokenizer_config.json")


def _first_token(candidates: tuple[object, ...], name: str, place: str) -> int:
    """Return the first candidate that is a token id."""
    for token in candidates:
        if isinstance(token, int):
            return token
    raise UserError(f"the model has no {name}; set it in {place}")


def input_limit(model: PreTrainedModel, setting: int, reserved: int) -> int:
    """Return the longest input in tokens: ``setting``, or what the model's positions leave beside ``reserved``.

    Raises `UserError` where they leave nothing.
    """
    positions = position_limit(model.config)
    if positions is not None and reserved >= positions:
        raise UserError(
            f"max_target_tokens is {reserved}, and the model has {positions} positions for prompt and target; lower it"
        )
    return setting if positions is None else min(setting, positions - reserved)


def target_limit(config: PretrainedConfig, setting: int) -> int:
    """Return the longest target in tokens: ``setting``, or as many as a decoder beside an encoder has positions."""
    positions = position_limit(config, "decoder") if config.is_encoder_decoder else None
    return setting if positions is None else min(setting, positions)
