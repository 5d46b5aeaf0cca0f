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

from retrograd.io import open_to_umask
from retrograd.limits import require_at_least
from retrograd.models.batching import length_buckets, padded, token_budget_on
from retrograd.models.choices import score_choices
from retrograd.models.fsdp import in_step
from retrograd.models.fusion import FusedIds, FusedPrompt, encoded_apart, fused_ids, model_arguments, require_encoder
from retrograd.models.generator_settings import GeneratorSettings, read_settings, write_settings
from retrograd.models.inference import forget_casts, inference, plain_search
from retrograd.models.loading import open_generator, quiet_transformers
from retrograd.models.lora import Lora, add_lora, has_lora, load_lora
from retrograd.models.output_layer import only_at
from retrograd.models.prefix_tree import Scoring
from retrograd.models.prompt_tokens import PromptTokens, TokenIds
from retrograd.models.quantisation import Quantisation, require_adapters
from retrograd.models.soft_input import SoftInput, SoftPosition, SoftSlots, inserted, room_beside
from retrograd.models.soft_prompt import SoftPrompt, SoftPromptSettings
from retrograd.models.special_tokens import end_token, input_limit, start_token
from retrograd.models.tree_decoding import TreeDecoder
from retrograd.models.vocabulary import token_log_probability
from retrograd.types import UserError

__all__ = ["Generator", "TargetScores"]

_WORD_SAMPLE = 4_096
_PromptIds = TokenIds | FusedIds


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

    Prompts longer than ``max_input_tokens`` lose what they can spare, then their end (`PromptTokens`, which counts
    both), targets longer than ``max_target_tokens`` their end; the end-of-sequence token counts as a target token.
    ``token_budget`` bounds the padded tokens of one forward pass; 0 is what suits the device. Decoder-only models read
    the prompt as a user's turn where the tokenizer has a chat template and ``chat`` is true, else ``prompt +
    separator``, and then the target.

    Soft input stands where the attribute ``soft_position`` says: "before" the prompt, or "after" it, which is between
    prompt and separator for a decoder-only model. It counts towards ``max_input_tokens``: a prompt that does not fit
    beside it is cut. ``soft_prompt``, which makes such input, is None until `add_soft_prompt`.

    A prompt may also be a `FusedPrompt`, whose parts an encoder-decoder reads one by one, each of them with
    ``max_input_tokens``. ``fusion`` (an attribute, see `fuse_passages`) says that several passages are to be read so.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_input_tokens: int = 256,
        max_target_tokens: int = 64,
        token_budget: int = 0,
        separator: str = "\n",
        chat: bool = True,
    ) -> None:
        super().__init__()
        require_at_least(1, {"max_input_tokens": max_input_tokens, "max_target_tokens": max_target_tokens})
        require_at_least(0, {"token_budget": token_budget})
        self.model = model
        self.tokenizer = tokenizer
        self.encoder_decoder = bool(model.config.is_encoder_decoder)
        self.max_input_tokens = input_limit(model, max_input_tokens, 0 if self.encoder_decoder else max_target_tokens)
        self.max_target_tokens = max_target_tokens
        self.token_budget = token_budget
        self.dropout = True
        self.separator = separator
        self.chat = chat
        self.soft_position: SoftPosition = "before"
        self.soft_prompt: SoftPrompt | None = None
        self.quantisation: Quantisation = "none"
        self.fusion = False
        self.end = end_token(model, tokenizer)
        self.prompt_tokens = PromptTokens(tokenizer, self.encoder_decoder, separator, self.end, chat)
        if self.max_input_tokens < self.prompt_tokens.least:
            raise UserError(
                f"{self.max_input_tokens} input tokens leave a prompt no room; this model needs at least "
                f"{self.prompt_tokens.least}: raise max_input_tokens, or lower max_target_tokens if the model's "
                f"positions are the limit"
            )
        self.padding = tokenizer.pad_token_id if isinstance(tokenizer.pad_token_id, int) else self.end

    @classmethod
    def open(
        cls,
        name: str,
        rng: torch.Generator,
        lora: Lora | None = None,
        max_input_tokens: int = 256,
        max_target_tokens: int = 64,
        token_budget: int = 0,
        chat: bool = True,
        quantisation: Quantisation = "none",
    ) -> Generator:
        """Open by hub name, folder or built-in name; ``rng`` draws the adapters of ``lora``.

        ``quantisation`` "nf4" keeps the linear layers under them in four bits (QLoRA). Raises `UserError` where that
        cannot be: without adapters, CUDA device or bitsandbytes.
        """
        require_adapters(quantisation, 0 if lora is None else lora.rank)
        model, tokenizer = open_generator(name, quantisation)
        if lora is not None and lora.rank > 0:
            add_lora(model, lora, rng)
        generator = cls(model, tokenizer, max_input_tokens, max_target_tokens, token_budget, chat=chat)
        generator.quantisation = quantisation
        return generator

    def add_soft_prompt(self, settings: SoftPromptSettings, rng: torch.Generator) -> SoftPrompt:
        """Give the generator a soft prompt, drawn from ``rng``, that trains and is saved with it."""
        size = self.tokenizer.vocab_size
        # An even sample: all words would be a second copy of the embeddings.
        sample = torch.linspace(0, size - 1, min(size, _WORD_SAMPLE), device=self.device).long()
        with torch.no_grad():
            words = self._embed(sample.unsqueeze(0)).squeeze(0)
        self.soft_prompt = SoftPrompt(settings, words, rng).to(self.device)
        return self.soft_prompt

    def fuse_passages(self) -> None:
        """Read passages together by fusion-in-decoder, from now on. Raises `UserError` for a decoder-only model."""
        require_encoder(self.model)
        self.fusion = True

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

    def log_likelihood(
        self, prompts: Sequence[str | FusedPrompt], targets: Sequence[str], soft: SoftInput | None = None
    ) -> Float[Tensor, " P"]:
        """log p(target | prompt) in nats per pair: the fp32 sum over target tokens, end of sequence included."""
        return self.token_log_likelihood(prompts, targets, soft).value.sum(-1)

    def token_log_likelihood(
        self, prompts: Sequence[str | FusedPrompt], targets: Sequence[str], soft: SoftInput | None = None
    ) -> TargetScores:
        """The same per token, given ``soft`` beside the prompts. Differentiable, in ``soft`` as well; pairs are run in
        micro-batches of like length. Raises `UserError` where soft input leaves a prompt no room.
        """
        if len(prompts) != len(targets):
            raise ValueError(f"{len(prompts)} prompts but {len(targets)} targets")
        return self._token_scores(self._prompt_ids(prompts, soft), self.target_ids(targets), soft)

    def word_slots(self, passages: Sequence[str], weight: Float[Tensor, "P R Z"], prompts: Sequence[str]) -> SoftSlots:
        """R soft slots beside each prompt: slot r is Σ_z weight[r, z] · (passage z, token by token).

        Passages have no special tokens of their own. The prompt is never cut for them: each slot gets an equal share of
        what it leaves of ``max_input_tokens``. Differentiable in ``weight``. Each passage's embeddings are looked up
        once, however many prompts and slots it stands in.
        """
        share = [(self.max_input_tokens - len(ids)) // max(weight.shape[1], 1) for ids in self._prompt_ids(prompts)]
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
        self, prompt_ids: list[_PromptIds], target_ids: list[TokenIds], soft: SoftInput | None
    ) -> TargetScores:
        width = max((len(ids) for ids in target_ids), default=0)
        lengths = torch.tensor([len(ids) for ids in target_ids], device=self.device)
        present = torch.arange(width, device=self.device) < lengths[:, None]
        sizes = [p + len(t) for p, t in zip(_sizes(prompt_ids, soft), target_ids, strict=True)]
        groups = length_buckets(sizes, self._budget)
        forwards = in_step(self.model, len(groups))
        if forwards == 0:
            return TargetScores(torch.zeros(0, width, device=self.device), present)
        order = torch.tensor([position for group in groups for position in group], device=self.device, dtype=torch.long)
        parts = [([prompt_ids[i] for i in g], [target_ids[i] for i in g], soft and soft.at(g)) for g in groups]
        # Where other ranks make more passes, a pair without words stands in; what it says is left out.
        of_others: list[list[_PromptIds]] = [[[self.end]]] * (forwards - len(groups))
        found = [self._score(*part) for part in parts] + [self._score(one, [[self.end]], None) for one in of_others]
        flat = torch.cat(found)[: int(lengths.sum())]
        forget_casts()
        # `flat` lists tokens pair after pair in bucket order; masked_scatter lays them out as rows of that order.
        rows = torch.zeros(present.shape, device=self.device).masked_scatter(present[order], flat)
        return TargetScores(rows[torch.argsort(order)], present)

    def _score(
        self, prompt_ids: list[_PromptIds], target_ids: list[TokenIds], soft: SoftInput | None
    ) -> Float[Tensor, " tokens"]:
        make = self._seq2seq_input if self.encoder_decoder else self._causal_input
        batch = make(prompt_ids, target_ids, soft)
        labels = torch.tensor([token for ids in target_ids for token in ids], device=self.device)
        with only_at(self.model, batch.predicts):
            logits = self.model(**batch.arguments, use_cache=False).logits
        return token_log_probability(logits, labels)

    def _seq2seq_input(
        self, prompt_ids: list[_PromptIds], target_ids: list[TokenIds], soft: SoftInput | None
    ) -> _ModelInput:
        start = start_token(self.model, self.tokenizer)
        decoder_tokens, decoder_mask = self._padded([[start, *ids[:-1]] for ids in target_ids])
        arguments: dict[str, Tensor | BaseModelOutput] = {
            **model_arguments(self._read(prompt_ids, soft)),
            "decoder_input_ids": decoder_tokens,
            "decoder_attention_mask": decoder_mask,
        }
        return _ModelInput(arguments, decoder_mask.bool())

    def _causal_input(
        self, prompt_ids: list[_PromptIds], target_ids: list[TokenIds], soft: SoftInput | None
    ) -> _ModelInput:
        read = self._read(prompt_ids, soft, [ids[:-1] for ids in target_ids])
        first = torch.tensor(_sizes(prompt_ids, soft), device=self.device) - 1
        mask = read["attention_mask"].bool()
        position = torch.arange(mask.shape[1], device=self.device)
        return _ModelInput({**read}, mask & (position >= first[:, None]))

    def _read(
        self,
        prompt_ids: list[_PromptIds],
        soft: SoftInput | None,
        written: list[TokenIds] | None = None,
        left: bool = False,
    ) -> dict[str, Tensor]:
        """Prompts, and what is written behind them, as the model reads them: beside soft input as embeddings, fused
        ones as hidden states."""
        fused = [ids for ids in prompt_ids if isinstance(ids, FusedIds)]
        if fused:  # then all are
            return encoded_apart(self.model, fused, self.padding, self._budget)
        plain = [ids for ids in prompt_ids if isinstance(ids, list)]
        ids = [p + w for p, w in zip(plain, written, strict=True)] if written else plain
        tokens, mask = self._padded(ids, left=left and soft is None)
        if soft is None:
            return {"input_ids": tokens, "attention_mask": mask}
        after = self.soft_position == "after"
        place = torch.tensor([(len(ids) - self.prompt_tokens.tail) * after for ids in plain], device=self.device)
        embeddings, mask = inserted(soft, self._embed(tokens), mask, place, left)
        return {"inputs_embeds": embeddings, "attention_mask": mask}

    # ---- answers ------------------------------------------------------------------------------------------------

    def generate(
        self,
        prompts: Sequence[str | FusedPrompt],
        max_new_tokens: int | None = None,
        beams: int = 1,
        soft: SoftInput | None = None,
    ) -> list[str]:
        """The most likely continuation of each prompt, given ``soft`` beside it: greedy, or by beam search. Never
        sampled, never with dropout. Raises `UserError` where soft input leaves a prompt no room.
        """
        return [found[0] for found in self.hypotheses(prompts, beams, max_new_tokens, soft)]

    def hypotheses(
        self,
        prompts: Sequence[str | FusedPrompt],
        beams: int,
        max_new_tokens: int | None = None,
        soft: SoftInput | None = None,
    ) -> list[list[str]]:
        """All that beam search ends with, ``beams`` texts a prompt, best first by the mean log-likelihood of their
        tokens; some may be equal as text. Otherwise as `generate`.
        """
        prompt_ids = self._prompt_ids(prompts, soft)
        found: list[list[str]] = [[] for _ in prompts]
        write = cast(Callable[..., Tensor], self.model.generate)
        start = {"decoder_start_token_id": start_token(self.model, self.tokenizer)} if self.encoder_decoder else {}
        for group in length_buckets(_sizes(prompt_ids, soft), self._budget // beams):
            chosen = [prompt_ids[i] for i in group]
            with inference(self.model), plain_search(self.model):
                read = self._read(chosen, soft and soft.at(group), left=not self.encoder_decoder)
                written = write(
                    **model_arguments(read),
                    **start,
                    max_new_tokens=max_new_tokens or self.max_target_tokens,
                    num_beams=beams,
                    num_return_sequences=beams,
                    do_sample=False,
                    eos_token_id=self.end,
                    pad_token_id=self.padding,
                )
            if not self.encoder_decoder and soft is None:  # read as embeddings, the prompt is not repeated
                written = written[:, read["input_ids"].shape[1] :]
            for n, text in enumerate(self.tokenizer.batch_decode(written, skip_special_tokens=True)):
                found[group[n // beams]].append(text.strip())
        return found

    def choice_log_likelihood(
        self,
        prompts: Sequence[str | FusedPrompt],
        choices: Sequence[Sequence[str]],
        scoring: Scoring = "sequence",
        soft: SoftInput | None = None,
    ) -> Float[Tensor, "P C"]:
        """log p(choice | prompt) in nats of each prompt's own choices, without gradient and without dropout.

        ``-inf`` where a prompt has fewer choices than another. ``scoring`` "sequence" is the likelihood of the whole
        choice, "tree" its probability among the prompt's (`prefix_tree`). A prompt is read once where its model allows
        that (`tree_decoding`). Raises `UserError` where soft input leaves a prompt no room.
        """
        if len(prompts) != len(choices) or not all(choices):
            raise ValueError(f"{len(prompts)} prompts, choices for {sum(map(bool, choices))} of them")
        prompt_ids = self._prompt_ids(prompts, soft)
        distinct = list(dict.fromkeys(text for texts in choices for text in texts))
        ids = dict(zip(distinct, self.target_ids(distinct), strict=True))
        start = start_token(self.model, self.tokenizer) if self.encoder_decoder else None

        def read(chosen: Sequence[int]) -> dict[str, Tensor]:
            return self._read([prompt_ids[i] for i in chosen], soft and soft.at(chosen))

        with inference(self.model):
            decoder = TreeDecoder(self.model, read, start, self._budget)
            own = [[ids[text] for text in texts] for texts in choices]
            return score_choices(decoder, _sizes(prompt_ids, soft), own, scoring)

    # ---- tokens -------------------------------------------------------------------------------------------------

    def _prompt_ids(self, prompts: Sequence[str | FusedPrompt], soft: SoftInput | None = None) -> list[_PromptIds]:
        """Soft input counts towards ``max_input_tokens``: a prompt is cut to what it leaves. Where any prompt is fused,
        all are.
        """
        tokens = self.prompt_tokens
        plain = [prompt for prompt in prompts if isinstance(prompt, str)]
        if len(plain) < len(prompts):
            require_encoder(self.model)
            if soft is not None:
                raise ValueError("soft input stands beside one prompt, not beside the parts of a fused one")
            return [*fused_ids(prompts, tokens, self.max_input_tokens)]
        room = room_beside(soft, len(prompts), self.max_input_tokens, tokens.least)
        return [*tokens.ids(plain, room)]

    def target_ids(self, targets: Sequence[str]) -> list[TokenIds]:
        """The tokens that are scored of each target, the end of sequence included."""
        if not targets:
            return []
        encoded = self.tokenizer(list(targets), add_special_tokens=False, verbose=False)["input_ids"]
        return [[*ids[: self.max_target_tokens - 1], self.end] for ids in encoded]

    def _padded(self, ids: list[TokenIds], left: bool = False) -> tuple[Int[Tensor, "P L"], Int[Tensor, "P L"]]:
        return padded(ids, self.padding, self.device, left)

    # ---- disk ---------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write a transformers directory, or a PEFT directory of adapters alone; beside it our settings and, if there
        is one, the soft prompt (``soft_prompt.safetensors``).
        """
        with quiet_transformers():
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        limits = (self.max_input_tokens, self.max_target_tokens, self.token_budget)
        settings = GeneratorSettings(
            *limits, self.separator, has_lora(self.model), self.soft_position, self.chat, self.quantisation, self.fusion
        )
        if self.soft_prompt is not None:
            self.soft_prompt.save_weights(folder)
        open_to_umask(folder)
        write_settings(folder, settings, self.soft_prompt and self.soft_prompt.settings)

    @classmethod
    def load(cls, folder: Path, base: str, rng: torch.Generator | None = None) -> Generator:
        """Read what `save` wrote. ``base`` names the model under the adapters, used only for a PEFT directory."""
        settings, soft_prompt = read_settings(folder)
        model, tokenizer = open_generator(base if settings.lora else str(folder), settings.quantisation)
        if settings.lora:
            load_lora(model, folder)
        limits = (settings.max_input_tokens, settings.max_target_tokens, settings.token_budget)
        generator = cls(model, tokenizer, *limits, settings.separator, settings.chat)
        generator.soft_position = settings.soft_position
        generator.quantisation = settings.quantisation
        generator.fusion = settings.fusion
        if soft_prompt is not None:
            generator.add_soft_prompt(soft_prompt, torch.Generator()).load_weights(folder)
        return generator


def _sizes(prompt_ids: list[_PromptIds], soft: SoftInput | None) -> list[int]:
    """Input positions of each prompt with its soft input."""
    taken = [0] * len(prompt_ids) if soft is None else soft.total.tolist()
    return [s + len(ids) for s, ids in zip(taken, prompt_ids, strict=True)]
