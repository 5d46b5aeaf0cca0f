"""Embed texts with one tower: a Hugging Face encoder and a pooling give each text one embedding.

Pooling "roles" is for texts whose parts have roles: the head entity, the tail entity and the context of a relation
instance. A role's vector is the mean of the hidden states h_t over the tokens that overlap its character span, scaled
to length 1, and the embedding is all three side by side, divided by √3:

    e = [r_head; r_tail; r_context] / √3,     r_c = m_c / ‖m_c‖,     m_c = mean of h_t over the tokens t of role c

So an inner product of two embeddings is the mean of three cosines, role by role: one minus the distance of ETRAG
(Makino et al. 2024, arXiv 2406.03790), and every index works unchanged.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from retrograd.models.compute.batching import length_buckets, token_budget_on
from retrograd.models.compute.inference import inference
from retrograd.models.compute.precision import full_precision
from retrograd.models.inputs.lexical_projection import LexicalProjection
from retrograd.models.loading.loading import open_encoder, quiet_transformers
from retrograd.types import UserError
from retrograd.util.files import open_to_umask
from retrograd.util.fingerprints import fingerprint
from retrograd.util.guards import require_at_least
from retrograd.util.text_files import write_json

__all__ = ["ROLES", "Encoder", "FindRoleSpans", "Pooling"]

Pooling = Literal["mean", "cls", "roles"]

ROLES = ("head", "tail", "context")

FindRoleSpans = Callable[[str], Sequence[tuple[int, int]]]
"""A text's spans in characters, [start, end), one per role and in the order of `ROLES`."""

_VOLATILE = {"architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}


class Encoder(nn.Module):
    """Texts in, embeddings [B D] out: hidden states pooled over tokens, then scaled to length 1 if ``normalise``.

    ``max_tokens`` is the longest input read; longer texts are cut at the end. ``token_budget`` bounds the padded tokens
    of one forward pass and with it the memory; 0 chooses what suits the device. Without ``dropout`` training mode is
    evaluation mode.

    Pooling "roles" (see above) needs ``role_spans``, which return the spans of a text's roles and are never written to
    disk. A role without a token, because its span is empty or was cut off, gets the mean over the whole text;
    ``roles_missed`` counts how often since the encoder was opened. Then ``normalise`` scales each role's vector;
    without it an inner product is the mean of three inner products.

    With ``lexical`` the numbers of that projection follow those of the model, neither scaled nor trained. `Retriever`
    weighs them.

    Raises `UserError` for settings out of range, and for "roles" with a tokenizer without character offsets.

    Example::

        encoder = rg.Encoder.open("builtin:minilm", max_tokens=64)
        print(encoder.embed(["the cup holds tea ."]).shape)
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        pooling: Pooling = "mean",
        normalise: bool = True,
        max_tokens: int = 256,
        token_budget: int = 0,
        *,
        dropout: bool = True,
        role_spans: FindRoleSpans | None = None,
        lexical: LexicalProjection | None = None,
    ) -> None:
        super().__init__()
        if pooling not in get_args(Pooling):
            raise UserError(f"pooling is {pooling!r}; expected one of {', '.join(get_args(Pooling))}")
        require_at_least(2, {"max_tokens": max_tokens})
        require_at_least(0, {"token_budget": token_budget})
        if tokenizer.pad_token_id is None:
            raise UserError(
                "the tokenizer has no padding token, which texts of unequal length need; set pad_token in the model's "
                "tokenizer_config.json"
            )
        if pooling == "roles" and not tokenizer.is_fast:
            raise UserError(
                f"pooling 'roles' needs character offsets of tokens, which {type(tokenizer).__name__} does not give; "
                "name a model with a fast tokenizer (its folder has a tokenizer.json), or choose pooling 'mean'"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.pooling: Pooling = pooling
        self.normalise = normalise
        positions = getattr(model.config, "max_position_embeddings", None)  # None where positions are relative
        self.max_tokens = min(max_tokens, tokenizer.model_max_length, positions or max_tokens)
        self.token_budget = token_budget
        self.dropout = dropout
        self.role_spans = role_spans
        self.roles_missed = 0
        self.lexical = lexical

    def train(self, mode: bool = True) -> Encoder:
        """Set training mode, as for every module; without ``dropout`` it is evaluation mode."""
        return super().train(mode and self.dropout)

    @classmethod
    def open(
        cls,
        name: str,
        pooling: Pooling = "mean",
        normalise: bool = True,
        max_tokens: int = 256,
        token_budget: int = 0,
        *,
        dropout: bool = True,
        role_spans: FindRoleSpans | None = None,
        lexical: LexicalProjection | None = None,
    ) -> Encoder:
        """Open by hub name, folder or ``builtin:minilm``. Raises `UserError` when the model cannot be had."""
        model, tokenizer = open_encoder(name)
        return cls(
            model,
            tokenizer,
            pooling,
            normalise,
            max_tokens,
            token_budget,
            dropout=dropout,
            role_spans=role_spans,
            lexical=lexical,
        )

    @property
    def dimension(self) -> int:
        """D, the width of an embedding."""
        return self.semantic_dimension + (0 if self.lexical is None else self.lexical.dimension)

    @property
    def semantic_dimension(self) -> int:
        """The number of an embedding's first entries that are the model's."""
        return self.width * (len(ROLES) if self.pooling == "roles" else 1)

    @property
    def width(self) -> int:
        """The width of a hidden state, and so of one role's vector."""
        return int(self.model.config.hidden_size)

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.model.parameters()).device

    def forward(self, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        """Return embeddings in fp32, differentiable with respect to the weights, in the order given.

        Raises `UserError` for pooling "roles" without ``role_spans``.
        """
        semantic = self._embed_semantic(texts, self.pooling, self.normalise)
        if self.lexical is None:
            return semantic
        return torch.cat([semantic, self.lexical(texts).to(semantic.device)], dim=-1)

    def embed(self, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        """Return embeddings without gradient and without dropout, for an index."""
        with inference(self):
            return self(texts)

    def mean_vectors(self, texts: Sequence[str]) -> Float[Tensor, "B width"]:
        """Return mean-pooled vectors of length 1, with gradient, whatever the pooling: phrases have no roles."""
        return self._embed_semantic(texts, "mean", normalise=True)

    def _embed_semantic(self, texts: Sequence[str], pooling: Pooling, normalise: bool) -> Float[Tensor, "B _"]:
        """Embed texts with the model alone, in micro-batches of like length."""
        if not texts:
            width = self.semantic_dimension if pooling == self.pooling else self.width
            return torch.zeros(0, width, device=self.device)
        by_role = pooling == "roles"
        spans = self._role_spans(texts) if by_role else []
        limit = {"truncation": True, "max_length": self.max_tokens}
        encoded = self.tokenizer(list(texts), return_offsets_mapping=by_role, **limit)
        offsets = encoded.pop("offset_mapping") if by_role else []
        lengths = [len(ids) for ids in encoded["input_ids"]]
        groups = length_buckets(lengths, token_budget_on(self.device, self.token_budget))
        rows = []
        for group in groups:
            hidden, mask = self._run_model(encoded, group)
            if by_role:
                roles = _role_masks([offsets[i] for i in group], [spans[i] for i in group], hidden.shape[1])
                self.roles_missed += int((~roles.any(dim=-1)).sum())
                rows.append(_pool_roles(hidden, mask, roles.to(hidden.device), normalise))
            else:
                pooled = _pool(hidden, mask, pooling)
                rows.append(F.normalize(pooled, dim=-1) if normalise else pooled)
        order = torch.tensor([position for group in groups for position in group], device=self.device)
        return torch.cat(rows)[torch.argsort(order)]

    def _role_spans(self, texts: Sequence[str]) -> list[Sequence[tuple[int, int]]]:
        """Return the spans of each text's roles."""
        if self.role_spans is None:
            raise UserError(
                "pooling 'roles' needs role_spans, which return the spans of a text's roles; make the Encoder with the "
                "role_spans of a task that has them, or choose pooling 'mean'"
            )
        spans = [self.role_spans(text) for text in texts]
        for text, own in zip(texts, spans, strict=True):
            if len(own) != len(ROLES):
                raise ValueError(f"role_spans gave {len(own)} spans for {text!r}; expected {', '.join(ROLES)}")
        return spans

    def _run_model(
        self, encoded: BatchEncoding, group: Sequence[int]
    ) -> tuple[Float[Tensor, "b L width"], Int[Tensor, "b L"]]:
        """Return the last hidden states of a group of texts in fp32, and their mask."""
        columns = {name: [values[i] for i in group] for name, values in encoded.items()}
        # On the right whatever the tokenizer prefers: the first token is the one that "cls" pooling takes.
        batch = self.tokenizer.pad(columns, padding_side="right", return_tensors="pt").to(self.device)
        return self.model(**batch).last_hidden_state.float(), batch["attention_mask"]

    def fingerprint(self) -> str:
        """Return the SHA-256 of all that decides an embedding: weights, configuration, tokenizer, and pooling options.

        Paths and versions are left out; a model saved and opened again keeps its fingerprint.
        """
        used = f"{self.pooling} {self.normalise} {self.max_tokens}"
        state = {name: value.detach().cpu().contiguous() for name, value in self.model.state_dict().items()}
        weights = (part for name in sorted(state) for part in (name, save({"": state[name]})))
        lexical = [] if self.lexical is None else [self.lexical.fingerprint]
        settings = [used, _describe_configuration(self.model), _describe_tokenizer(self.tokenizer)]
        return fingerprint([*settings, *lexical, *weights])

    def save(self, folder: Path) -> None:
        """Write a sentence-transformers directory, which `open` also reads.

        Such a directory cannot express roles: for pooling "roles" it states "mean", and sentence-transformers returns
        what `mean_vectors` does. The caller of `open` passes the pooling; `Retriever` writes it beside the towers, with
        ``lexical``, ``dropout`` and ``token_budget``, which the directory does not hold either.
        """
        with quiet_transformers():
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        open_to_umask(folder)
        pooling = {"word_embedding_dimension": self.width}
        modes = {"pooling_mode_cls_token": self.pooling == "cls", "pooling_mode_mean_tokens": self.pooling != "cls"}
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


def _describe_configuration(model: PreTrainedModel) -> str:
    """Return the settings of a model that decide what it computes, as JSON."""
    return json.dumps(_select_decisive(json.loads(model.config.to_json_string())), sort_keys=True)


def _select_decisive(settings: dict[str, object]) -> dict[str, object]:
    """Leave out settings of a model that may vary while it computes the same.

    None and False are left out as well: later versions of transformers add settings with these values to every model.
    """
    return {
        name: _select_decisive(value) if isinstance(value, dict) else value
        for name, value in settings.items()
        if not (name.startswith("_") or name in _VOLATILE or value is None or value is False)
    }


def _describe_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return how texts become ids, without truncation and padding, which a tokenizer keeps from its last call.

    A tokenizer written in Python is described by its class, its vocabulary and its special tokens.
    """
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        state = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    else:
        special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
        state = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab(), "special": special}
    return json.dumps([state, tokenizer.model_input_names], sort_keys=True)


def _pool(hidden: Float[Tensor, "b L D"], mask: Int[Tensor, "b L"], pooling: Pooling) -> Float[Tensor, "b D"]:
    """Pool hidden states to one vector per text; padding tokens never count."""
    if pooling == "cls":
        return hidden[:, 0]
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1)


def _role_masks(
    offsets: Sequence[Sequence[tuple[int, int]]], spans: Sequence[Sequence[tuple[int, int]]], width: int
) -> Bool[Tensor, "b roles L"]:
    """Return whether each token overlaps each role's span, in characters [start, end); special tokens never do."""
    special = [(0, 0)]  # the offsets that a tokenizer gives to a token that it has added
    token = torch.tensor([[*row, *special * (width - len(row))] for row in offsets]).view(len(offsets), 1, width, 2)
    span = torch.tensor([[*own] for own in spans]).view(len(spans), len(ROLES), 1, 2)
    overlaps = (token[..., 0] < span[..., 1]) & (span[..., 0] < token[..., 1])
    return overlaps & (span[..., 0] < span[..., 1])


def _pool_roles(
    hidden: Float[Tensor, "b L width"], mask: Int[Tensor, "b L"], roles: Bool[Tensor, "b roles L"], normalise: bool
) -> Float[Tensor, "b D"]:
    """Return masked means side by side, divided by √3; a role without a token gets the mean over the whole text."""
    weight = torch.where(roles.any(dim=-1, keepdim=True), roles, mask.bool().unsqueeze(1)).float()
    with full_precision(hidden.device):
        mean = (weight / weight.sum(dim=-1, keepdim=True)) @ hidden
    each = F.normalize(mean, dim=-1) if normalise else mean
    return each.flatten(1) / math.sqrt(len(ROLES))
