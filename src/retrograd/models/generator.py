"""The generator p(y|x,z): prompts and targets in, log-likelihoods out; and generation, free or among given choices.

Sequence-to-sequence and decoder-only models differ only in how a (prompt, target) pair becomes model input. Everything
after that is one path: the output layer is applied at target positions alone, so that [pairs, tokens, V] never exists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput

from retrograd.io import read_json, write_json
from retrograd.models.batching import length_buckets, token_budget_on
from retrograd.models.choices import only_at, score_choices
from retrograd.models.inference import inference
from retrograd.models.loading import open_generator, quiet_transformers
from retrograd.models.lora import Lora, add_lora, has_lora, load_lora
from retrograd.models.prefix_tree import PrefixTree
from retrograd.models.soft_input import SoftSlots, in_front
from retrograd.models.vocabulary import token_log_probability
from retrograd.records import read_record, record_mapping
from retrograd.types import UserError

__all__ = ["Generator", "TargetScores"]

TokenIds = list[int]

_LOGIT_ROWS = 2_048


@dataclass(frozen=True)
class TargetScores:
    """log p(y_t | x, z, y_<t) in nats, zero where ``present`` is False."""

    value: Float[Tensor, "P T"]
    present: Bool[Tensor, "P T"]


@dataclass(frozen=True)
class _ModelInput:
    """One padded micro-batch. ``predicts`` marks the output positions that predict a target token, in target order."""

    arguments: dict[str, Tensor | BaseModelOutput]
    predicts: Bool[Tensor, "P S"]


class Generator(nn.Module):
    """A Hugging Face sequence-to-sequence or decoder-only model as a conditional distribution over target texts.

    Prompts longer than ``max_input_tokens`` are cut at the end, targets longer than ``max_target_tokens`` likewise; the
    end-of-sequence token counts as a target token. ``token_budget`` bounds the padded tokens of one
    forward pass; 0 is what suits the device. Decoder-only models read ``prompt + separator + target``.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_input_tokens: int = 256,
        max_target_tokens: int = 64,
        token_budget: int = 0,
        separator: str = "\n",
    ) -> None:
        super().__init__()
        if min(max_input_tokens, max_target_tokens) < 1 or token_budget < 0:
            raise UserError("max_input_tokens and max_target_tokens must be at least 1, token_budget at least 0")
        self.model = model
        self.tokenizer = tokenizer
        self.encoder_decoder = bool(model.config.is_encoder_decoder)
        self.max_input_tokens = _input_limit(model, max_input_tokens, 0 if self.encoder_decoder else max_target_tokens)
        self.max_target_tokens = max_target_tokens
        self.token_budget = token_budget
        self.dropout = True
        self.separator = separator
        self._tail: TokenIds = (
            [] if self.encoder_decoder else tokenizer(separator, add_special_tokens=False)["input_ids"]
        )
        least = len(self._tail) + tokenizer.num_special_tokens_to_add() + 1
        if self.max_input_tokens < least:
            raise UserError(
                f"{self.max_input_tokens} input tokens leave a prompt no room; this model needs at least {least}: "
                "raise max_input_tokens, or lower max_target_tokens if the model's positions are the limit"
            )
        self.end = _end_token(model, tokenizer)
        self.padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.end

    @classmethod
    def open(
        cls,
        name: str,
        rng: torch.Generator,
        lora: Lora | None = None,
        max_input_tokens: int = 256,
        max_target_tokens: int = 64,
        token_budget: int = 0,
    ) -> Generator:
        """Open by hub name, folder or ``builtin:minilm-seq2seq``; ``rng`` draws the adapters of ``lora``."""
        model, tokenizer = open_generator(name)
        if lora is not None and lora.rank > 0:
            add_lora(model, lora, rng)
        return cls(model, tokenizer, max_input_tokens, max_target_tokens, token_budget)

    def train(self, mode: bool = True) -> Generator:
        """As for every module; without ``dropout`` (an attribute, True at first) training mode is evaluation mode."""
        return super().train(mode and self.dropout)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def _budget(self) -> int:
        return token_budget_on(self.device, self.token_budget)

    # ---- likelihood ---------------------------------------------------------------------------------------------

    def log_likelihood(self, prompts: Sequence[str], targets: Sequence[str]) -> Float[Tensor, " P"]:
        """log p(target | prompt) in nats per pair: the fp32 sum over target tokens, end of sequence included."""
        return self.token_log_likelihood(prompts, targets).value.sum(-1)

    def token_log_likelihood(self, prompts: Sequence[str], targets: Sequence[str]) -> TargetScores:
        """The same per token. Differentiable; pairs are run in micro-batches of like length."""
        if len(prompts) != len(targets):
            raise ValueError(f"{len(prompts)} prompts but {len(targets)} targets")
        return self._token_scores(self._prompt_ids(prompts), self._target_ids(targets))

    def mixture_log_likelihood(
        self, passages: Sequence[str], weight: Float[Tensor, "P R Z"], prompts: Sequence[str], targets: Sequence[str]
    ) -> Float[Tensor, " P"]:
        """log p(target | R soft slots, prompt) in nats: slot r is Σ_z weight[r, z] · (passage z, token by token).

        Passages have no special tokens of their own and stand before the prompt, which is never cut for them: each slot
        gets an equal share of what it leaves of ``max_input_tokens``. Differentiable in ``weight`` as well.
        """
        prompt_ids = self._prompt_ids(prompts)
        share = [(self.max_input_tokens - len(ids)) // max(weight.shape[1], 1) for ids in prompt_ids]
        slots = self._soft_slots(passages, weight, share)
        return self._token_scores(prompt_ids, self._target_ids(targets), slots).value.sum(-1)

    def _soft_slots(self, passages: Sequence[str], weight: Float[Tensor, "P R Z"], share: list[int]) -> SoftSlots:
        """Each passage's embeddings are looked up once, however many prompts and slots it stands in."""
        limit = {"truncation": True, "max_length": max([1, *share])}
        ids = self.tokenizer(list(passages), add_special_tokens=False, **limit)["input_ids"] if passages else []
        tokens, mask = self._padded(ids)
        room = torch.tensor(share, dtype=torch.long, device=self.device)
        return SoftSlots.of(self._embed(tokens), mask.sum(-1), weight.to(self.device), room)

    def _embed(self, tokens: Int[Tensor, "P L"]) -> Float[Tensor, "P L D"]:
        """What the model itself puts in the place of input tokens."""
        reader = cast(PreTrainedModel, self.model.get_encoder()) if self.encoder_decoder else self.model
        return reader.get_input_embeddings()(tokens)

    def _token_scores(
        self, prompt_ids: list[TokenIds], target_ids: list[TokenIds], slots: SoftSlots | None = None
    ) -> TargetScores:
        width = max((len(ids) for ids in target_ids), default=0)
        lengths = torch.tensor([len(ids) for ids in target_ids], device=self.device)
        present = torch.arange(width, device=self.device) < lengths[:, None]
        if not prompt_ids:
            return TargetScores(torch.zeros(0, width, device=self.device), present)
        before = [0] * len(prompt_ids) if slots is None else slots.total.tolist()
        sizes = [s + len(p) + len(t) for s, p, t in zip(before, prompt_ids, target_ids, strict=True)]
        groups = length_buckets(sizes, self._budget)
        order = torch.tensor([position for group in groups for position in group], device=self.device)
        chosen = [None if slots is None else slots.at(group) for group in groups]
        parts = [
            ([prompt_ids[i] for i in g], [target_ids[i] for i in g], c) for g, c in zip(groups, chosen, strict=True)
        ]
        flat = torch.cat([self._score(*part) for part in parts])
        _forget_casts()
        # `flat` lists tokens pair after pair in bucket order; masked_scatter lays them out as rows of that order.
        rows = torch.zeros(present.shape, device=self.device).masked_scatter(present[order], flat)
        return TargetScores(rows[torch.argsort(order)], present)

    def _score(
        self, prompt_ids: list[TokenIds], target_ids: list[TokenIds], slots: SoftSlots | None
    ) -> Float[Tensor, " tokens"]:
        make = self._seq2seq_input if self.encoder_decoder else self._causal_input
        batch = make(prompt_ids, target_ids, slots)
        labels = torch.tensor([token for ids in target_ids for token in ids], device=self.device)
        with only_at(self.model, batch.predicts):
            logits = self.model(**batch.arguments, use_cache=False).logits
        return token_log_probability(logits, labels)

    def _seq2seq_input(
        self, prompt_ids: list[TokenIds], target_ids: list[TokenIds], slots: SoftSlots | None
    ) -> _ModelInput:
        start = _start_token(self.model, self.tokenizer)
        decoder_tokens, decoder_mask = self._padded([[start, *ids[:-1]] for ids in target_ids])
        arguments: dict[str, Tensor | BaseModelOutput] = {
            **self._read(prompt_ids, slots),
            "decoder_input_ids": decoder_tokens,
            "decoder_attention_mask": decoder_mask,
        }
        return _ModelInput(arguments, decoder_mask.bool())

    def _causal_input(
        self, prompt_ids: list[TokenIds], target_ids: list[TokenIds], slots: SoftSlots | None
    ) -> _ModelInput:
        read = self._read([p + t[:-1] for p, t in zip(prompt_ids, target_ids, strict=True)], slots)
        first = torch.tensor([len(p) - 1 for p in prompt_ids], device=self.device)
        if slots is not None:
            first = first + slots.total
        mask = read["attention_mask"].bool()
        position = torch.arange(mask.shape[1], device=self.device)
        return _ModelInput({**read}, mask & (position >= first[:, None]))

    def _read(self, ids: list[TokenIds], slots: SoftSlots | None) -> dict[str, Tensor]:
        """The tokens that are read; behind soft slots, if there are any, as embeddings."""
        tokens, mask = self._padded(ids)
        if slots is None:
            return {"input_ids": tokens, "attention_mask": mask}
        embeddings, mask = in_front(slots, self._embed(tokens), mask)
        return {"inputs_embeds": embeddings, "attention_mask": mask}

    # ---- answers ------------------------------------------------------------------------------------------------

    def generate(self, prompts: Sequence[str], max_new_tokens: int | None = None, beams: int = 1) -> list[str]:
        """The most likely continuation of each prompt: greedy, or by beam search. Never sampled, never with dropout."""
        prompt_ids = self._prompt_ids(prompts)
        answers = [""] * len(prompts)
        write = cast(Callable[..., Tensor], self.model.generate)
        for group in length_buckets([len(ids) for ids in prompt_ids], self._budget // max(beams, 1)):
            tokens, mask = self._padded([prompt_ids[i] for i in group], left=not self.encoder_decoder)
            with inference(self.model):
                written = write(
                    input_ids=tokens,
                    attention_mask=mask,
                    max_new_tokens=max_new_tokens or self.max_target_tokens,
                    num_beams=beams,
                    do_sample=False,
                    eos_token_id=self.end,
                    pad_token_id=self.padding,
                )
            written = written if self.encoder_decoder else written[:, tokens.shape[1] :]
            for i, text in zip(group, self.tokenizer.batch_decode(written, skip_special_tokens=True), strict=True):
                answers[i] = text.strip()
        return answers

    def choice_log_likelihood(self, prompts: Sequence[str], choices: Sequence[str]) -> Float[Tensor, "P C"]:
        """log p(choice | prompt) in nats for every prompt and choice, without gradient and without dropout.

        A seq2seq encoder reads each prompt once.
        """
        with inference(self.model):
            return self._choice_log_likelihood(prompts, choices)

    def _choice_log_likelihood(self, prompts: Sequence[str], choices: Sequence[str]) -> Float[Tensor, "P C"]:
        if not self.encoder_decoder:
            pairs = [(prompt, choice) for prompt in prompts for choice in choices]
            return self.log_likelihood([p for p, _ in pairs], [c for _, c in pairs]).view(len(prompts), len(choices))
        prompt_ids, choice_ids = self._prompt_ids(prompts), self._target_ids(choices)
        tree = PrefixTree.of(choice_ids)
        result = torch.empty(len(prompts), len(choices), device=self.device)
        # The decoder's padded tokens count towards the budget as well, and so many logits over the vocabulary are made
        # at once as 2,048 tokens have (125 MB for 30,522 words in bf16).
        decoded = len(choices) * max(len(ids) for ids in choice_ids)
        most = max(1, _LOGIT_ROWS // tree.prefixes)
        start = _start_token(self.model, self.tokenizer)
        inputs, mask = self._padded([ids[:-1] for ids in choice_ids])
        for group in length_buckets([len(ids) + decoded for ids in prompt_ids], self._budget, most):
            prompt = self._padded([prompt_ids[i] for i in group])
            result[group] = score_choices(self.model, *prompt, start, choice_ids, tree, inputs, mask)
        return result

    # ---- tokens -------------------------------------------------------------------------------------------------

    def _prompt_ids(self, prompts: Sequence[str]) -> list[TokenIds]:
        if not prompts:
            return []
        limit = self.max_input_tokens - len(self._tail)
        encoded = self.tokenizer(list(prompts), truncation=True, max_length=limit)["input_ids"]
        if not self.encoder_decoder:
            # The separator survives truncation: it tells a decoder-only model that the answer begins. An
            # end-of-sequence token that the tokenizer may append would tell it the opposite.
            encoded = [(ids[:-1] if ids[-1:] == [self.end] else ids) + self._tail for ids in encoded]
        # Even an empty prompt needs one token for the first target token to follow.
        return [ids or [self.end] for ids in encoded]

    def _target_ids(self, targets: Sequence[str]) -> list[TokenIds]:
        if not targets:
            return []
        encoded = self.tokenizer(list(targets), add_special_tokens=False)["input_ids"]
        return [[*ids[: self.max_target_tokens - 1], self.end] for ids in encoded]

    def _padded(self, ids: list[TokenIds], left: bool = False) -> tuple[Int[Tensor, "P L"], Int[Tensor, "P L"]]:
        width = max((len(row) for row in ids), default=0)
        gaps = [[self.padding] * (width - len(row)) for row in ids]
        tokens = [gap + row if left else row + gap for row, gap in zip(ids, gaps, strict=True)]
        zeros_ones = [([0] * len(gap), [1] * len(row)) for row, gap in zip(ids, gaps, strict=True)]
        mask = [zeros + ones if left else ones + zeros for zeros, ones in zeros_ones]
        shape = (len(ids), width)
        as_tensor = [torch.tensor(rows, dtype=torch.long, device=self.device).view(shape) for rows in (tokens, mask)]
        return as_tensor[0], as_tensor[1]

    # ---- disk ---------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write a transformers directory, or a PEFT directory of adapters alone, and our settings beside it."""
        with quiet_transformers():
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        limits = (self.max_input_tokens, self.max_target_tokens, self.token_budget)
        settings = GeneratorSettings(*limits, self.separator, has_lora(self.model))
        write_json(folder / "generator.json", record_mapping(settings))

    @classmethod
    def load(cls, folder: Path, base: str, rng: torch.Generator | None = None) -> Generator:
        """Read what `save` wrote. ``base`` names the model under the adapters, used only for a PEFT directory."""
        path = folder / "generator.json"
        found = read_json(path)
        settings = read_record(GeneratorSettings, found if isinstance(found, dict) else {}, str(path))
        model, tokenizer = open_generator(base if settings.lora else str(folder))
        if settings.lora:
            load_lora(model, folder)
        limits = (settings.max_input_tokens, settings.max_target_tokens, settings.token_budget)
        return cls(model, tokenizer, *limits, settings.separator)


@dataclass(frozen=True)
class GeneratorSettings:
    """``generator.json``: what a transformers or PEFT directory does not say."""

    max_input_tokens: int
    max_target_tokens: int
    token_budget: int
    separator: str
    lora: bool


def _forget_casts() -> None:
    """Let autocast cast the weights anew: casts made without gradient would cut a later forward from its weights."""
    if not torch.is_grad_enabled():
        torch.clear_autocast_cache()


def _start_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    named = (model.config.decoder_start_token_id, tokenizer.cls_token_id, tokenizer.pad_token_id)
    return _first_token(named, "decoder_start_token", "the model's config.json")


def _end_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    configured = model.generation_config.eos_token_id if model.generation_config else None
    first = configured[0] if isinstance(configured, list) and configured else configured
    return _first_token((tokenizer.eos_token_id, first, tokenizer.sep_token_id), "eos_token", "tokenizer_config.json")


def _first_token(candidates: tuple[object, ...], name: str, place: str) -> int:
    for token in candidates:
        if isinstance(token, int):
            return token
    raise UserError(f"the model names no {name}; set it in {place}")


def _input_limit(model: PreTrainedModel, wanted: int, reserved: int) -> int:
    """The longest prompt, in tokens: what was asked for, or what the model's positions leave room for."""
    text = model.config.get_text_config(encoder=True) if model.config.is_encoder_decoder else model.config
    positions = getattr(text, "max_position_embeddings", None)  # T5 has none: its positions are relative
    return wanted if positions is None else max(1, min(wanted, positions - reserved))
