"""Turn prompts and targets into the input of a generator: token ids, padded micro-batches, soft input beside them.

Letters beyond the legend of `retrograd.types`: P prompts, L input tokens, S positions of the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput

from retrograd.models.compute.batching import pad_ids, token_budget_on
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.inputs.fusion import (
    FusedIds,
    FusedPrompt,
    encode_separately,
    fused_ids,
    model_arguments,
    require_encoder,
)
from retrograd.models.inputs.prompt_tokens import PromptTokens, TokenIds, end_token, start_token
from retrograd.models.inputs.soft_input import SoftInput, SoftSlots, insert_soft_input, remaining_tokens
from retrograd.models.inputs.soft_prompt import SoftPrompt, SoftPromptOptions
from retrograd.types import UserError

__all__ = ["GeneratorInput", "ModelInput", "PromptIds", "draw_soft_prompt", "embed_tokens", "input_sizes"]

PromptIds = TokenIds | FusedIds

_WORD_SAMPLE = 4_096


@dataclass(frozen=True)
class ModelInput:
    """One padded micro-batch. ``predicts`` marks the output positions that predict a target token, in target order."""

    arguments: dict[str, Tensor | BaseModelOutput]
    predicts: Bool[Tensor, "P S"]


class GeneratorInput:
    """Turn prompts, targets and soft input into the arguments of one model.

    Soft input counts towards ``max_input_tokens``: a prompt that does not fit beside it is cut. Raises `UserError`
    where ``max_input_tokens`` is too small for any prompt.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, options: GeneratorOptions) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._options = options
        self._encoder_decoder = bool(model.config.is_encoder_decoder)
        self.end = end_token(model, tokenizer)
        self.padding = tokenizer.pad_token_id if isinstance(tokenizer.pad_token_id, int) else self.end
        self.prompt_tokens = PromptTokens(tokenizer, self._encoder_decoder, options.separator, self.end, options.chat)
        if options.max_input_tokens < self.prompt_tokens.minimum:
            raise UserError(
                f"max_input_tokens is {options.max_input_tokens}, and this model needs at least "
                f"{self.prompt_tokens.minimum} for a prompt: raise max_input_tokens, or lower max_target_tokens if the "
                f"model's positions are the limit"
            )

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self._model.parameters()).device

    @property
    def budget(self) -> int:
        """The largest number of padded tokens of one forward pass."""
        return token_budget_on(self.device, self._options.token_budget)

    # ---- token ids ----------------------------------------------------------------------------------------------

    def prompt_ids(self, prompts: Sequence[str | FusedPrompt], soft: SoftInput | None = None) -> list[PromptIds]:
        """Return each prompt's token ids, cut to what ``soft`` leaves of ``max_input_tokens``.

        Where any prompt is fused, all are. Raises `UserError` where soft input leaves a prompt no room.
        """
        plain = [prompt for prompt in prompts if isinstance(prompt, str)]
        if len(plain) < len(prompts):
            require_encoder(self._model)
            if soft is not None:
                raise ValueError("soft input is not supported beside a fused prompt; pass plain prompts")
            return [*fused_ids(prompts, self.prompt_tokens, self._options.max_input_tokens)]
        limits = remaining_tokens(soft, len(prompts), self._options.max_input_tokens, self.prompt_tokens.minimum)
        return [*self.prompt_tokens.ids(plain, limits)]

    def target_ids(self, targets: Sequence[str]) -> list[TokenIds]:
        """Return the tokens that are scored of each target, the end of sequence included.

        The name of a control token in a target, such as ``</s>``, is nothing but text, and does not end it.
        """
        most = self._options.max_target_tokens - 1
        distinct = [*dict.fromkeys(targets)]  # a query's target stands beside each of its passages
        ids = dict(zip(distinct, self._tokenise(distinct), strict=True))
        return [[*ids[text][:most], self.end] for text in targets]

    def scored_text(self, text: str) -> str:
        """Return the text, or as much of its beginning as `target_ids` has tokens for.

        A text that was written in few tokens may be tokenised into more.
        """
        most = self._options.max_target_tokens - 1
        (ids,) = self._tokenise([text])
        if len(ids) <= most:
            return text
        shorter = (
            str(self._tokenizer.decode(ids[:count], skip_special_tokens=True)).strip() for count in range(most, 0, -1)
        )
        return next((words for words in shorter if len(self._tokenise([words])[0]) <= most), "")

    def _tokenise(self, texts: Sequence[str], max_tokens: int | None = None) -> list[TokenIds]:
        """Return the tokens of texts without those around them."""
        return self.prompt_tokens.control.encode(texts, max_tokens, special=False)["input_ids"] if texts else []

    def word_slots(self, passages: Sequence[str], weight: Float[Tensor, "P R Z"], prompts: Sequence[str]) -> SoftSlots:
        """Return R soft slots beside each prompt; see `Generator.word_slots`."""
        remaining = [self._options.max_input_tokens - len(ids) for ids in self.prompt_ids(prompts)]
        share = [tokens // max(weight.shape[1], 1) for tokens in remaining]
        tokens, mask = self._pad(self._tokenise(passages, max([1, *share])))
        limits = torch.tensor(share, dtype=torch.long, device=self.device)
        return SoftSlots.of(embed_tokens(self._model, tokens), mask.sum(-1), weight.to(self.device), limits)

    # ---- arguments of the model ---------------------------------------------------------------------------------

    def for_scoring(
        self, prompt_ids: list[PromptIds], target_ids: list[TokenIds], soft: SoftInput | None
    ) -> ModelInput:
        """Return one micro-batch of prompts with their targets."""
        if self._encoder_decoder:
            return self._encoder_decoder_input(prompt_ids, target_ids, soft)
        return self._decoder_only_input(prompt_ids, target_ids, soft)

    def _encoder_decoder_input(
        self, prompt_ids: list[PromptIds], target_ids: list[TokenIds], soft: SoftInput | None
    ) -> ModelInput:
        start = start_token(self._model, self._tokenizer)
        tokens, mask = self._pad([[start, *ids[:-1]] for ids in target_ids])  # [P T], [P T]
        arguments: dict[str, Tensor | BaseModelOutput] = {
            **model_arguments(self.read(prompt_ids, soft)),
            "decoder_input_ids": tokens,
            "decoder_attention_mask": mask,
        }
        return ModelInput(arguments, mask.bool())

    def _decoder_only_input(
        self, prompt_ids: list[PromptIds], target_ids: list[TokenIds], soft: SoftInput | None
    ) -> ModelInput:
        read = self.read(prompt_ids, soft, [ids[:-1] for ids in target_ids])
        mask = read["attention_mask"].bool()  # [P L]
        position = torch.arange(mask.shape[1], device=self.device)  # [L]
        first = torch.tensor(input_sizes(prompt_ids, soft), device=self.device) - 1  # [P], the prompt's last token
        return ModelInput({**read}, mask & (position >= first[:, None]))

    def read(
        self,
        prompt_ids: list[PromptIds],
        soft: SoftInput | None,
        written: list[TokenIds] | None = None,
        left: bool = False,
    ) -> dict[str, Tensor]:
        """Return prompts, followed by ``written`` tokens, as the model reads them.

        They are padded on the ``left``, or on the right. Beside soft input they are embeddings; fused
        prompts are hidden states.
        """
        fused = [ids for ids in prompt_ids if isinstance(ids, FusedIds)]
        if fused:  # then all are
            return encode_separately(self._model, fused, self.padding, self.budget)
        plain = [ids for ids in prompt_ids if isinstance(ids, list)]
        ids = [p + w for p, w in zip(plain, written, strict=True)] if written else plain
        tokens, mask = self._pad(ids, left=left and soft is None)
        if soft is None:
            return {"input_ids": tokens, "attention_mask": mask}
        after = self._options.soft_position == "after"
        place = torch.tensor([(len(ids) - self.prompt_tokens.tail) * after for ids in plain], device=self.device)
        embeddings, mask = insert_soft_input(soft, embed_tokens(self._model, tokens), mask, place, left)
        return {"inputs_embeds": embeddings, "attention_mask": mask}

    def _pad(self, ids: list[TokenIds], left: bool = False) -> tuple[Int[Tensor, "P L"], Int[Tensor, "P L"]]:
        return pad_ids(ids, self.padding, self.device, left)


def embed_tokens(model: PreTrainedModel, tokens: Int[Tensor, "P L"]) -> Float[Tensor, "P L D"]:
    """Return the model's own embeddings of input tokens."""
    reader = cast(PreTrainedModel, model.get_encoder()) if model.config.is_encoder_decoder else model
    return reader.get_input_embeddings()(tokens)


def input_sizes(prompt_ids: list[PromptIds], soft: SoftInput | None) -> list[int]:
    """Return how many input positions each prompt takes with its soft input."""
    soft_lengths = [0] * len(prompt_ids) if soft is None else soft.total.tolist()
    return [s + len(ids) for s, ids in zip(soft_lengths, prompt_ids, strict=True)]


def draw_soft_prompt(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, options: SoftPromptOptions, rng: torch.Generator
) -> SoftPrompt:
    """Draw a soft prompt for a generator from ``rng``, on the model's device."""
    device, size = next(model.parameters()).device, tokenizer.vocab_size
    # An even sample: all words would be a second copy of the embeddings.
    sample = torch.linspace(0, size - 1, min(size, _WORD_SAMPLE), device=device).long()  # [V]
    with torch.no_grad():
        words = embed_tokens(model, sample.unsqueeze(0)).squeeze(0)  # [V D]
    return SoftPrompt(options, words, rng).to(device)
