"""One text tower: a Hugging Face encoder and a pooling give each text one embedding."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from retrograd.io import fingerprint, write_json
from retrograd.models.batching import length_buckets, token_budget_on
from retrograd.models.inference import inference
from retrograd.models.loading import open_encoder, quiet_transformers
from retrograd.types import UserError

__all__ = ["Encoder", "Pooling"]

Pooling = Literal["mean", "cls"]

_VOLATILE = {"architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}


class Encoder(nn.Module):
    """Texts in, embeddings [B D] out: hidden states pooled over tokens, then scaled to length 1 if ``normalise``.

    ``max_tokens`` is the longest input read; longer texts are cut at the end. ``token_budget`` bounds the padded tokens
    of one forward pass and with it the memory.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        pooling: Pooling = "mean",
        normalise: bool = True,
        max_tokens: int = 256,
        token_budget: int = 0,
    ) -> None:
        super().__init__()
        if pooling not in get_args(Pooling):
            raise UserError(f"pooling is {pooling!r}; expected one of {', '.join(get_args(Pooling))}")
        if max_tokens < 2 or token_budget < 0:
            raise UserError(f"max_tokens ({max_tokens}) must be at least 2, token_budget ({token_budget}) at least 0")
        self.model = model
        self.tokenizer = tokenizer
        self.pooling: Pooling = pooling
        self.normalise = normalise
        positions = getattr(model.config, "max_position_embeddings", None)  # None where positions are relative
        self.max_tokens = min(max_tokens, tokenizer.model_max_length, positions or max_tokens)
        self.token_budget = token_budget
        self.dropout = True

    def train(self, mode: bool = True) -> Encoder:
        """As for every module; without ``dropout`` (an attribute, True at first) training mode is evaluation mode."""
        return super().train(mode and self.dropout)

    @classmethod
    def open(cls, name: str, pooling: Pooling = "mean", normalise: bool = True, max_tokens: int = 256) -> Encoder:
        """Open by hub name, folder or ``builtin:minilm``. Raises `UserError` when the model cannot be had."""
        model, tokenizer = open_encoder(name)
        return cls(model, tokenizer, pooling, normalise, max_tokens)

    @property
    def dimension(self) -> int:
        """D, the width of an embedding."""
        return int(self.model.config.hidden_size)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def forward(self, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        """Embeddings in fp32, differentiable with respect to the weights, in the order given."""
        if not texts:
            return torch.zeros(0, self.dimension, device=self.device)
        encoded = self.tokenizer(list(texts), truncation=True, max_length=self.max_tokens)
        lengths = [len(ids) for ids in encoded["input_ids"]]
        groups = length_buckets(lengths, token_budget_on(self.device, self.token_budget))
        rows = torch.cat([self._pooled(encoded, group) for group in groups])
        order = torch.tensor([position for group in groups for position in group], device=rows.device)
        return rows[torch.argsort(order)]

    def embed(self, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        """The same without gradient and without dropout, for an index."""
        with inference(self):
            return self(texts)

    def _pooled(self, encoded: BatchEncoding, group: Sequence[int]) -> Float[Tensor, "b D"]:
        columns = {name: [values[i] for i in group] for name, values in encoded.items()}
        # On the right whatever the tokenizer prefers: the first token is the one that "cls" pooling takes.
        batch = self.tokenizer.pad(columns, padding_side="right", return_tensors="pt").to(self.device)
        hidden = self.model(**batch).last_hidden_state.float()
        pooled = _pool(hidden, batch["attention_mask"], self.pooling)
        return F.normalize(pooled, dim=-1) if self.normalise else pooled

    def fingerprint(self) -> str:
        """SHA-256 over what decides an embedding: weights, the model's configuration, tokenizer, and how it is used.

        Paths and versions do not count; a model saved and opened again keeps it.
        """
        used = f"{self.pooling} {self.normalise} {self.max_tokens}"
        state = {name: value.detach().cpu().contiguous() for name, value in self.model.state_dict().items()}
        weights = (part for name in sorted(state) for part in (name, save({"": state[name]})))
        return fingerprint([used, _configuration(self.model), _tokenization(self.tokenizer), *weights])

    def save(self, folder: Path) -> None:
        """Write a sentence-transformers directory, which `open` also reads."""
        with quiet_transformers():
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        pooling = {"word_embedding_dimension": self.dimension}
        modes = {"pooling_mode_cls_token": self.pooling == "cls", "pooling_mode_mean_tokens": self.pooling == "mean"}
        write_json(folder / "1_Pooling" / "config.json", pooling | modes)
        names = ["Transformer", "Pooling"] + ["Normalize"] * self.normalise
        paths = ["", "1_Pooling", "2_Normalize"]
        modules = [
            {"idx": i, "name": str(i), "path": paths[i], "type": f"sentence_transformers.models.{name}"}
            for i, name in enumerate(names)
        ]
        write_json(folder / "modules.json", list(modules))
        write_json(folder / "sentence_bert_config.json", {"max_seq_length": self.max_tokens, "do_lower_case": False})
        if self.normalise:
            (folder / "2_Normalize").mkdir(exist_ok=True)


def _configuration(model: PreTrainedModel) -> str:
    return json.dumps(_decisive(json.loads(model.config.to_json_string())), sort_keys=True)


def _decisive(settings: dict[str, object]) -> dict[str, object]:
    """Settings of a model without those that vary while it computes the same.

    None and False are left out: a later version of transformers adds settings, mostly one of these, to every model.
    """
    return {
        name: _decisive(value) if isinstance(value, dict) else value
        for name, value in settings.items()
        if not (name.startswith("_") or name in _VOLATILE or value is None or value is False)
    }


def _tokenization(tokenizer: PreTrainedTokenizerBase) -> str:
    """How texts become ids, without truncation and padding, which a tokenizer keeps from its last call.

    A tokenizer written in Python has no such form: its class, its vocabulary and its special tokens stand for it.
    """
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        state = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    else:
        special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
        state = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab(), "special": special}
    return json.dumps([state, tokenizer.model_input_names], sort_keys=True)


def _pool(hidden: Float[Tensor, "b L D"], mask: Int[Tensor, "b L"], pooling: Pooling) -> Float[Tensor, "b D"]:
    """One vector per text; padding tokens never count."""
    if pooling == "cls":
        return hidden[:, 0]
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1)
