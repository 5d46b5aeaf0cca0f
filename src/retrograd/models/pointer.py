r"""Write each token of an answer from the vocabulary, or copy it from the prompt: an encoder-decoder that can copy.

Pointer-generator (See et al. 2017, arXiv 1704.04368, equations 8 and 9). With h_t the decoder's last hidden state, H_i
the encoder's, x_i the prompt's tokens and E the word embeddings,

.. math::

    a_{ti} &= \operatorname{softmax}_i \; \langle Q h_t, K H_i \rangle / \sqrt D, \qquad
    g_t = \sigma(w^\top h_t + b), \\
    p(y_t = v) &= (1 - g_t) \, \operatorname{softmax}(E f(h_t) + c)_v + g_t \sum_{i:\, x_i = v} a_{ti}.

The copy's own attention is the one thing added (there, the decoder's is used); Q and K begin as the identity, w and b
at zero, so that nothing is drawn. The prompt's special tokens are tokens like others; its last one can be the end of an
answer. It lets a small model that was not trained to write learn to read: 100 steps of 16 questions, each beside the
sentence that answers it, leave 12.0 nats an answer, and 33.0 without it.

The tokens to copy must go wherever hidden states go: to beams, to rows that share a prompt, to a decoder that reads
several prompts. So the encoder's hidden states have two numbers more than D, which give the token at each position:
its id plus one, as high and low byte, which every float type holds exactly; two zeros mean no token. Soft input is
never copied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BertConfig,
    BertLMHeadModel,
    BertModel,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    PretrainedConfig,
)
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions

from retrograd.types import UserError

__all__ = ["COPY_LAYERS", "PointerGenerator", "add_copy_layers", "generator_class"]

COPY_LAYERS = ("copy_query", "copy_key", "copy_gate")
"""Names of the layers that copy. If they cannot learn, half of each token is copied for ever."""

_BYTE = 256
_TOKEN_NUMBERS = 2
_SMALLEST_SHARE = 1e-30


@dataclass(frozen=True)
class _CopyStates:
    """The input of the output layer at each position: a hidden state, and the distribution of copies.

    ``first`` is true if i is the first place of its token; there ``share`` is Σ_j a_j [x_j = x_i], all copies of it.
    ``copies`` is the logit of g, -inf if there is nothing to copy.
    """

    hidden: Float[Tensor, "*at D"]
    share: Float[Tensor, "*at L"]
    copies: Float[Tensor, " *at"]
    token: Int[Tensor, "*at L"]
    first: Bool[Tensor, "*at L"]

    def __getitem__(self, place: Any) -> _CopyStates:
        """Return some positions, as of a tensor [P S …]."""
        return _CopyStates(
            hidden=self.hidden[place],
            share=self.share[place],
            copies=self.copies[place],
            token=self.token[place],
            first=self.first[place],
        )


class _CopyingLinear(nn.Linear):
    """The output layer: logits of the vocabulary mixed with copies, as log p over the vocabulary."""

    def forward(self, states: _CopyStates) -> Float[Tensor, "*at V"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return log p over the vocabulary at each position, in nats."""
        written = super().forward(states.hidden).float().log_softmax(-1)
        logit = states.copies.unsqueeze(-1)
        written = written + nn.functional.logsigmoid(-logit)
        copied = nn.functional.logsigmoid(logit) + states.share.clamp_min(_SMALLEST_SHARE).log()
        # log(e^b + e^c) = b + softplus(c - b), at the tokens of the prompt alone, and once for each of them.
        more = nn.functional.softplus(copied - written.gather(-1, states.token))
        return written.scatter_add(-1, states.token, torch.where(states.first, more, 0.0))


class _Reader(BertModel):
    """An encoder whose hidden states carry the ids of their tokens."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **arguments: Any,
    ) -> Any:
        """Run `BertModel`; hidden states are [P L D+2]. (`generate` passes on only what is named here.)"""
        named: dict[str, Any] = arguments | {"return_dict": True}
        output = cast(Any, super().forward(input_ids, attention_mask, inputs_embeds=inputs_embeds, **named))
        hidden: Tensor = output.last_hidden_state
        numbers = hidden.new_zeros(*hidden.shape[:-1], _TOKEN_NUMBERS)
        if input_ids is not None:
            numbers[..., 0] = (input_ids + 1) // _BYTE
            numbers[..., 1] = (input_ids + 1) % _BYTE
        output.last_hidden_state = torch.cat([hidden, numbers], dim=-1)
        return output


class _Writer(BertLMHeadModel):
    """A decoder that attends to hidden states, and copies the tokens that their last two numbers give."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        size = config.hidden_size
        self.cls.predictions.decoder = _CopyingLinear(size, config.vocab_size)
        self.copy_query, self.copy_key = nn.Linear(size, size), nn.Linear(size, size)
        self.copy_gate = nn.Linear(size, 1)
        self.post_init()

    def begin_copying(self) -> None:
        """Set Q and K to the identity and the gate to a half, so that half of each token is copied."""
        for layer in (self.copy_query, self.copy_key, self.copy_gate):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (self.copy_query, self.copy_key):
            nn.init.eye_(layer.weight)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input_ids: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        **arguments: Any,
    ) -> CausalLMOutputWithCrossAttentions:
        """Run `BertLMHeadModel` on hidden states [P L D+2] of this file's encoder; ``logits`` are log p, in fp32."""
        if encoder_hidden_states is None:
            raise ValueError("this decoder copies from an encoder's hidden states; pass encoder_hidden_states")
        read, numbers = encoder_hidden_states.split([self.config.hidden_size, _TOKEN_NUMBERS], dim=-1)
        output = self.bert(
            input_ids,
            encoder_hidden_states=read,
            encoder_attention_mask=encoder_attention_mask,
            **(arguments | {"return_dict": True}),
        )
        states = self._copy_states(output.last_hidden_state, read, numbers, encoder_attention_mask)
        return CausalLMOutputWithCrossAttentions(
            logits=self.cls.predictions.decoder(states),
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            cross_attentions=output.cross_attentions,
        )

    def _copy_states(
        self,
        hidden: Float[Tensor, "P S D"],
        read: Float[Tensor, "P L D"],
        numbers: Float[Tensor, "P L 2"],
        mask: Int[Tensor, "P L"] | None,
    ) -> _CopyStates:
        token = (numbers[..., 0].long() * _BYTE + numbers[..., 1].long()) - 1
        there = (token >= 0) if mask is None else (token >= 0) & mask.bool()
        token = token.clamp_min(0)
        score = self.copy_query(hidden) @ self.copy_key(read).transpose(1, 2) / math.sqrt(self.config.hidden_size)
        score = score.float().masked_fill(~there.unsqueeze(1), torch.finfo(torch.float32).min)
        place = torch.arange(token.shape[1], device=token.device).expand_as(token)
        beyond = token.shape[1]
        first_of = token.new_full((len(token), self.config.vocab_size), beyond)
        first_of = first_of.scatter_reduce(1, token, place.masked_fill(~there, beyond), "amin").gather(1, token)
        share = (score.softmax(-1) * there.unsqueeze(1)).float()
        into = first_of.clamp_max(beyond - 1).unsqueeze(1).expand_as(share)
        gate = self.copy_gate(hidden).squeeze(-1).float()
        steps = (-1, hidden.shape[1], -1)
        return _CopyStates(
            hidden=self.cls.predictions.transform(hidden),
            share=torch.zeros_like(share).scatter_add(-1, into, share),
            copies=gate.masked_fill(~there.any(-1, keepdim=True), -torch.inf),
            token=token.unsqueeze(1).expand(steps),
            first=(there & (first_of == place)).unsqueeze(1).expand(steps),
        )


class PointerGenerator(EncoderDecoderModel):
    """An encoder-decoder that copies, saved as any model of transformers and opened by its class (`generator_class`).

    Raises `UserError` unless it consists of two BERTs of one width and one vocabulary, of 65,535 tokens at most.
    """

    def __init__(self, config: EncoderDecoderConfig) -> None:
        read, written = config.encoder, config.decoder
        if not isinstance(read, BertConfig) or not isinstance(written, BertConfig):
            kinds = " and ".join(type(part).__name__ for part in (read, written))
            raise UserError(f"a pointer generator is made of two BERTs, not of {kinds}; name another generator")
        if read.vocab_size >= _BYTE**2:
            raise UserError(
                f"a pointer generator supports up to {_BYTE**2 - 1} tokens, and the vocabulary has {read.vocab_size}; "
                f"name another model"
            )
        if (read.hidden_size, read.vocab_size) != (written.hidden_size, written.vocab_size):
            raise UserError(
                f"the encoder has {read.vocab_size} tokens and width {read.hidden_size}, the decoder "
                f"{written.vocab_size} and {written.hidden_size}; a pointer generator needs equal ones; name "
                f"another model"
            )
        super().__init__(config, _Reader(read, add_pooling_layer=False), _Writer(written))

    @classmethod
    def copy_from(cls, model: EncoderDecoderModel) -> PointerGenerator:
        """Make a pointer generator with the weights of ``model``, two BERTs. Nothing is drawn."""
        with torch.random.fork_rng(devices=[]):
            pointer = cls(model.config)
        pointer.load_state_dict(model.state_dict(), strict=False)
        cast(_Writer, pointer.decoder).begin_copying()
        pointer.tie_weights()
        return pointer


def add_copy_layers(model: nn.Module, modules: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of layers to adapt, with those that copy, which must learn wherever a named layer does."""
    own = {part for name, _ in model.named_modules() for part in (name, name.rpartition(".")[2])}
    return (*modules, *(name for name in COPY_LAYERS if name in own and not own.isdisjoint(modules)))


def generator_class(
    config: PretrainedConfig,
) -> type[PointerGenerator] | type[AutoModelForSeq2SeqLM] | type[AutoModelForCausalLM]:
    """Return the class that opens a generator of this configuration."""
    if isinstance(config, EncoderDecoderConfig) and config.architectures == [PointerGenerator.__name__]:
        return PointerGenerator
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
