"""The generator p(y|x,z): score targets after prompts, and generate answers, freely or among given choices.

Sequence-to-sequence and decoder-only models differ only in how a (prompt, target) pair becomes model input
(`retrograd.models.generator_input`). Everything after that is one path: the output layer is applied at target positions
alone, so that [pairs, tokens, V] never exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from retrograd.models.compute.batching import equal_length_buckets, lay_out_rows, length_buckets, mark_present
from retrograd.models.compute.fsdp import count_forwards
from retrograd.models.compute.inference import forget_casts, inference, plain_search
from retrograd.models.compute.output_layer import only_at
from retrograd.models.compute.positions import left_padding_moves
from retrograd.models.compute.shared_beginning import read_beginning_once
from retrograd.models.compute.streaming import FollowText, TextStreamer
from retrograd.models.compute.training_layers import checkpoint_layers
from retrograd.models.compute.vocabulary import token_log_probability
from retrograd.models.constrained.choices import MixtureScores, score_choices, score_token_mixtures
from retrograd.models.constrained.token_mixture import MixTokens, PromptMixture
from retrograd.models.constrained.tree_decoding import TreeDecoder
from retrograd.models.generator_input import GeneratorInput, PromptIds, draw_soft_prompt, input_sizes
from retrograd.models.generator_settings import GeneratorOptions, SavedGenerator, read_settings, write_settings
from retrograd.models.inputs.fusion import FusedPrompt, model_arguments, require_encoder
from retrograd.models.inputs.prompt_tokens import PromptTokens, TokenIds, input_limit, start_token, target_limit
from retrograd.models.inputs.soft_input import SoftInput, SoftSlots
from retrograd.models.inputs.soft_prompt import SoftPrompt, SoftPromptOptions
from retrograd.models.loading.loading import open_generator
from retrograd.models.loading.lora import Lora, add_lora, has_lora, load_lora, state_base
from retrograd.models.loading.quantisation import require_adapters
from retrograd.models.loading.transformers_io import save_with_tokenizer
from retrograd.models.settings import Scoring
from retrograd.types import UserError
from retrograd.util.files import open_to_umask

__all__ = ["Generator", "TargetScores"]

_DEFAULT = GeneratorOptions()


@dataclass(frozen=True)
class TargetScores:
    """The scores log p(y_t | x, z, y_<t) in nats, zero where ``present`` is False."""

    value: Float[Tensor, "P T"]
    present: Bool[Tensor, "P T"]


class Generator(nn.Module):
    """A Hugging Face sequence-to-sequence or decoder-only model as a conditional distribution over target texts.

    ``options`` says how it reads and writes. The attribute has the limits of this model: ``max_input_tokens`` is
    at most what the model's positions leave room for. The end-of-sequence token counts as a target token.

    ``soft_prompt`` makes soft input; it is a part of the generator, trained and saved with it (`draw_soft_prompt`).
    A prompt may also be a `FusedPrompt`, whose parts an encoder-decoder reads one by one, each of them with
    ``max_input_tokens``. Raises `UserError` for options that this model cannot follow.

    Example::

        generator = rg.Generator.open("builtin:minilm-seq2seq", torch.Generator().manual_seed(0))
        print(generator.log_likelihood(["what holds tea ?"], ["cup"]))
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        options: GeneratorOptions = _DEFAULT,
        soft_prompt: SoftPrompt | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.soft_prompt = soft_prompt
        self.encoder_decoder = bool(model.config.is_encoder_decoder)
        reserved = 0 if self.encoder_decoder else options.max_target_tokens
        limit = input_limit(model, options.max_input_tokens, reserved)
        self.options = replace(
            options, max_input_tokens=limit, max_target_tokens=target_limit(model.config, options.max_target_tokens)
        )
        self._input = GeneratorInput(model, tokenizer, self.options)
        self.end = self._input.end
        self._follow: FollowText | None = None
        if options.fusion:
            require_encoder(model)
        if options.gradient_checkpointing:
            checkpoint_layers(model)

    @classmethod
    def open(
        cls,
        name: str,
        rng: torch.Generator,
        lora: Lora | None = None,
        options: GeneratorOptions = _DEFAULT,
        soft_prompt: SoftPromptOptions | None = None,
    ) -> Generator:
        """Open by hub name, folder or built-in name; ``rng`` draws the adapters of ``lora``, then a soft prompt.

        Quantisation "nf4" keeps the linear layers under the adapters in four bits (QLoRA). Raises `UserError` where
        that cannot be: without adapters, CUDA device or bitsandbytes.
        """
        require_adapters(options.quantisation, 0 if lora is None else lora.rank)
        model, tokenizer = open_generator(name, options.quantisation)
        if lora is not None and lora.rank > 0:
            add_lora(model, lora, rng)
        soft_prompt_module = None if soft_prompt is None else draw_soft_prompt(model, tokenizer, soft_prompt, rng)
        return cls(model, tokenizer, options, soft_prompt_module)

    def train(self, mode: bool = True) -> Generator:
        """Set training mode, as for every module; without the option ``dropout`` it is evaluation mode."""
        return super().train(mode and self.options.dropout)

    @property
    def device(self) -> torch.device:
        """Return the device of the model."""
        return self._input.device

    @property
    def prompt_tokens(self) -> PromptTokens:
        """The tokenisation of prompts, with the counts of those that were cut."""
        return self._input.prompt_tokens

    # ---- likelihood ---------------------------------------------------------------------------------------------

    def log_likelihood(
        self, prompts: Sequence[str | FusedPrompt], targets: Sequence[str], soft: SoftInput | None = None
    ) -> Float[Tensor, " P"]:
        """Return log p(target | prompt) in nats per pair: the fp32 sum over target tokens, end of sequence included."""
        return self.token_log_likelihood(prompts, targets, soft).value.sum(-1)

    def token_log_likelihood(
        self, prompts: Sequence[str | FusedPrompt], targets: Sequence[str], soft: SoftInput | None = None
    ) -> TargetScores:
        """Return log p per target token in nats, given ``soft`` beside the prompts.

        Differentiable, in ``soft`` as well. Pairs are run in micro-batches of like length. Raises `UserError` where
        soft input leaves a prompt no room.
        """
        if len(prompts) != len(targets):
            raise ValueError(f"{len(prompts)} prompts but {len(targets)} targets")
        return self._token_scores(self._input.prompt_ids(prompts, soft), self.target_ids(targets), soft)

    def target_ids(self, targets: Sequence[str]) -> list[TokenIds]:
        """Return the tokens that are scored of each target, the end of sequence included."""
        return self._input.target_ids(targets)

    def word_slots(self, passages: Sequence[str], weight: Float[Tensor, "P R Z"], prompts: Sequence[str]) -> SoftSlots:
        """Return R soft slots beside each prompt: slot r is Σ_z weight[r, z] · (passage z, token by token).

        Passages have no special tokens of their own. The prompt is never cut for them: each slot gets an equal share of
        what it leaves of ``max_input_tokens``. Differentiable in ``weight``. Each passage's embeddings are looked up
        once, however many prompts and slots it stands in.
        """
        return self._input.word_slots(passages, weight, prompts)

    def _token_scores(
        self, prompt_ids: list[PromptIds], target_ids: list[TokenIds], soft: SoftInput | None
    ) -> TargetScores:
        """Score pairs in micro-batches of like length, as many on each rank as on the one with the most."""
        present = mark_present(target_ids, self.device)  # [P T]
        sizes = [p + len(t) for p, t in zip(input_sizes(prompt_ids, soft), target_ids, strict=True)]
        groups = length_buckets(sizes, self._input.budget)
        forwards = count_forwards(self.model, len(groups))
        if forwards == 0:
            return TargetScores(torch.zeros(present.shape, device=self.device), present)
        scores = [  # each [tokens of the group]
            self._score([prompt_ids[i] for i in group], [target_ids[i] for i in group], soft and soft.at(group))
            for group in groups
        ]
        # Where other ranks make more passes, a pair without words stands in; its score is left out below.
        scores += [self._score([[self.end]], [[self.end]], None) for _ in range(forwards - len(groups))]
        forget_casts()
        order = torch.tensor([i for group in groups for i in group], dtype=torch.long, device=self.device)  # [P]
        return TargetScores(lay_out_rows(torch.cat(scores), order, present), present)

    def _score(
        self, prompt_ids: list[PromptIds], target_ids: list[TokenIds], soft: SoftInput | None
    ) -> Float[Tensor, " tokens"]:
        """Return log p of each target token of one micro-batch, pair after pair."""
        batch = self._input.for_scoring(prompt_ids, target_ids, soft)
        labels = torch.tensor([token for ids in target_ids for token in ids], device=self.device)  # [tokens]
        arguments, skipped = read_beginning_once(self.model, batch.arguments, input_sizes(prompt_ids, soft))
        with only_at(self.model, batch.predicts[:, skipped:]):
            logits = self.model(**arguments, use_cache=False).logits  # [tokens V]
        return token_log_probability(logits, labels)

    # ---- answers ------------------------------------------------------------------------------------------------

    def generate(
        self,
        prompts: Sequence[str | FusedPrompt],
        max_new_tokens: int | None = None,
        beams: int = 1,
        soft: SoftInput | None = None,
    ) -> list[str]:
        """Return the most likely continuation of each prompt, given ``soft`` beside it: greedy, or by beam search.

        Never sampled, never with dropout. A text has at most ``max_new_tokens`` tokens beside its end; by default as
        many as targets have, so that what is written is what `log_likelihood` scores, token for token. Raises
        `UserError` where soft input leaves a prompt no room.
        """
        return [texts[0] for texts in self.hypotheses(prompts, beams, max_new_tokens, soft)]

    def hypotheses(
        self,
        prompts: Sequence[str | FusedPrompt],
        beams: int,
        max_new_tokens: int | None = None,
        soft: SoftInput | None = None,
    ) -> list[list[str]]:
        """Return the results of beam search, ``beams`` texts a prompt, best first by mean log-likelihood per token.

        Some may be equal as text. Otherwise as `generate`.
        """
        # The last token of a target is its end, which a text that is cut there does not have of its own.
        most = max_new_tokens or self.options.max_target_tokens - 1
        if most == 0:
            return [[""] * beams for _ in prompts]
        prompt_ids = self._input.prompt_ids(prompts, soft)
        texts: list[list[str]] = [[] for _ in prompts]
        buckets = equal_length_buckets if left_padding_moves(self.model) else length_buckets
        for group in buckets(input_sizes(prompt_ids, soft), self._input.budget // beams):
            chosen = [prompt_ids[i] for i in group]
            written = self._write(chosen, soft and soft.at(group), beams, most)
            for n, text in enumerate(self.tokenizer.batch_decode(written, skip_special_tokens=True)):
                texts[group[n // beams]].append(
                    text.strip() if max_new_tokens else self._input.scored_text(text.strip())
                )
        return texts

    def mixture_hypotheses(
        self, prompts: Sequence[str | FusedPrompt], mixtures: Sequence[PromptMixture], beams: int
    ) -> list[list[str]]:
        """Return the results of one beam search a query, over the mixture of its prompts token by token, best first.

        All prompts of a query are read side by side and continued by the same tokens. Otherwise as `hypotheses`.
        """
        most = self.options.max_target_tokens - 1
        if most == 0:
            return [[""] * beams for _ in mixtures]
        prompt_ids = self._input.prompt_ids(prompts, None)
        lengths = input_sizes(prompt_ids, None)
        sizes = [len(one.prompts) * max(lengths[p] for p in one.prompts) for one in mixtures]
        if left_padding_moves(self.model) and len(set(lengths)) > 1:
            kind = type(self.model).__name__
            raise UserError(f"{kind} cannot read prompts of different lengths side by side; set form to 'sequence'")
        texts: list[list[str]] = [[] for _ in mixtures]
        for group in length_buckets(sizes, self._input.budget // beams):
            own = [mixtures[i] for i in group]
            processor = MixTokens(own, beams)
            rows = [prompt_ids[p] for mixture in own for p in mixture.prompts]
            written = self._write(rows, None, beams, most, processor)[processor.first_rows]
            for n, text in enumerate(self.tokenizer.batch_decode(written, skip_special_tokens=True)):
                texts[group[n // beams]].append(self._input.scored_text(text.strip()))
        return texts

    def _write(
        self,
        prompt_ids: list[PromptIds],
        soft: SoftInput | None,
        beams: int,
        max_new_tokens: int,
        mix: MixTokens | None = None,
    ) -> Int[Tensor, "PB T"]:
        """Return the tokens of ``beams`` continuations of each prompt, one prompt's after the other's.

        ``mix`` replaces the distributions of each next token.
        """
        write = cast(Callable[..., Tensor], self.model.generate)
        start = {"decoder_start_token_id": start_token(self.model, self.tokenizer)} if self.encoder_decoder else {}
        with inference(self.model), plain_search(self.model):
            read = self._input.read(prompt_ids, soft, left=not self.encoder_decoder)
            tokens = write(
                **model_arguments(read),
                **start,
                max_new_tokens=max_new_tokens,
                num_beams=beams,
                num_return_sequences=beams,
                do_sample=False,
                eos_token_id=self.end,
                pad_token_id=self._input.padding,
                logits_processor=LogitsProcessorList([mix] if mix else []),
                streamer=None if self._follow is None else TextStreamer(self.tokenizer, self._follow),
            )
        if self.encoder_decoder or soft is not None:  # read as embeddings, the prompt is not repeated
            return tokens
        return tokens[:, read["input_ids"].shape[1] :]

    @contextmanager
    def followed_by(self, follow: FollowText) -> Iterator[None]:
        """Call ``follow`` with all that has been written, after each token of a text that is written in the block.

        One prompt at a time, by greedy search: transformers raises `ValueError` for several, or for beams.
        """
        self._follow = follow
        try:
            yield
        finally:
            self._follow = None

    def choice_log_likelihood(
        self,
        prompts: Sequence[str | FusedPrompt],
        choices: Sequence[Sequence[str]],
        scoring: Scoring = "sequence",
        soft: SoftInput | None = None,
    ) -> Float[Tensor, "P C"]:
        """Return log p(choice | prompt) in nats of each prompt's own choices, without gradient and without dropout.

        ``-inf`` where a prompt has fewer choices than another. ``scoring`` "sequence" is the likelihood of the whole
        choice, "tree" its probability among the prompt's (`prefix_tree`). A prompt is read once where its model allows
        that (`tree_decoding`). Raises `UserError` where soft input leaves a prompt no room.
        """
        prompt_ids = self._input.prompt_ids(prompts, soft)
        with inference(self.model):
            decoder, choice_ids = self._tree_decoder(prompt_ids, soft), self._choice_ids(prompts, choices)
            return score_choices(decoder, input_sizes(prompt_ids, soft), choice_ids, scoring)

    def token_mixture_scores(
        self,
        prompts: Sequence[str | FusedPrompt],
        choices: Sequence[Sequence[str]],
        where: Int[Tensor, "B K"],
        log_weight: Float[Tensor, "B K"],
        scoring: Scoring = "sequence",
    ) -> list[MixtureScores]:
        """Return Σ_t log Σ_k p̃(z_k|x) p(y_t|x,z_k,y_<t) in nats of each query's choices, and each passage's share.

        Query b mixes the prompts numbered ``where[b]`` by ``log_weight[b]``, log p̃(z|x); these prompts have the same
        choices. Otherwise as `choice_log_likelihood`.
        """
        prompt_ids = self._input.prompt_ids(prompts, None)
        with inference(self.model):
            decoder, choice_ids = self._tree_decoder(prompt_ids, None), self._choice_ids(prompts, choices)
            sizes = input_sizes(prompt_ids, None)
            return score_token_mixtures(decoder, sizes, choice_ids, where, log_weight, scoring)

    def _choice_ids(
        self, prompts: Sequence[str | FusedPrompt], choices: Sequence[Sequence[str]]
    ) -> list[list[TokenIds]]:
        """Return the tokens of each prompt's choices. Raises `ValueError` for a prompt without choices."""
        if len(prompts) != len(choices) or not all(choices):
            raise ValueError(f"{len(prompts)} prompts but choices for {sum(map(bool, choices))} of them")
        distinct = list(dict.fromkeys(text for texts in choices for text in texts))
        ids = dict(zip(distinct, self.target_ids(distinct), strict=True))
        return [[ids[text] for text in texts] for texts in choices]

    def _tree_decoder(self, prompt_ids: list[PromptIds], soft: SoftInput | None) -> TreeDecoder:
        """Return a decoder of the prefix trees that follow the prompts."""

        def read(chosen: Sequence[int]) -> dict[str, Tensor]:
            return self._input.read([prompt_ids[i] for i in chosen], soft and soft.at(chosen))

        start = start_token(self.model, self.tokenizer) if self.encoder_decoder else None
        return TreeDecoder(self.model, read, start, self._input.budget)

    # ---- disk ---------------------------------------------------------------------------------------------------

    def save(self, folder: Path, base: str = "") -> None:
        """Write a transformers directory, or a PEFT directory of adapters alone, which names ``base`` as their model
        ("": the name that it was opened by).

        Beside it are the options and, if there is one, the soft prompt (``soft_prompt.safetensors``).
        """
        save_with_tokenizer(self.model, self.tokenizer, folder)
        if has_lora(self.model):
            state_base(self.model, folder, base)
        if self.soft_prompt is not None:
            self.soft_prompt.save_weights(folder)
        open_to_umask(folder)
        soft_prompt = None if self.soft_prompt is None else self.soft_prompt.options
        write_settings(folder, SavedGenerator(self.options, has_lora(self.model), soft_prompt))

    @classmethod
    def load(cls, folder: Path, base: str) -> Generator:
        """Read what `save` wrote. ``base`` names the model under the adapters, used only for a PEFT directory."""
        saved = read_settings(folder)
        model, tokenizer = open_generator(base if saved.lora else str(folder), saved.options.quantisation)
        if saved.lora:
            load_lora(model, folder)
        soft_prompt = None
        if saved.soft_prompt is not None:
            soft_prompt = draw_soft_prompt(model, tokenizer, saved.soft_prompt, torch.Generator())
            soft_prompt.load_weights(folder)
        return cls(model, tokenizer, saved.options, soft_prompt)
