"""Embed texts with one tower: a Hugging Face encoder and a pooling give each text one embedding.

Pooling "roles" is for texts whose parts have roles: the head entity, the tail entity and the context of a relation
instance. A role's vector is the mean of the hidden states h_t over the tokens that overlap its character span, scaled
to length 1, and the embedding is all three side by side, divided by √3:

    e = [r_head; r_tail; r_context] / √3,     r_c = m_c / ‖m_c‖,     m_c = mean of h_t over the tokens t of role c

So an inner product of two embeddings is the mean of three cosines, role by role: one minus the distance of ETRAG
(Makino et al. 2024, arXiv 2406.03790), and every index works unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

from retrograd.models.compute.batching import equal_length_buckets, length_buckets, token_budget_on
from retrograd.models.compute.descriptions import describe_configuration, describe_tokenizer, hash_parts
from retrograd.models.compute.inference import inference
from retrograd.models.compute.pooling import ROLES, pool, pool_roles, role_masks
from retrograd.models.compute.positions import position_limit
from retrograd.models.compute.sentence_head import SentenceHead, Side
from retrograd.models.inputs.control_tokens import ControlTokens
from retrograd.models.inputs.lexical_projection import LexicalProjection
from retrograd.models.inputs.prompt_tokens import fit_texts
from retrograd.models.loading.encoder_classes import READS_PADDING
from retrograd.models.loading.loading import open_encoder
from retrograd.models.loading.sentence_folders import SentenceFolder, read_sentence_folder, write_sentence_folder
from retrograd.models.loading.transformers_io import save_with_tokenizer
from retrograd.models.settings import Pooling, PoolingChoice, PoolingMode
from retrograd.types import ComposedText, UserError
from retrograd.util.files import open_to_umask
from retrograd.util.fingerprints import fingerprint
from retrograd.util.guards import require_at_least

__all__ = ["ROLES", "Encoder", "FindRoleSpans"]

FindRoleSpans = Callable[[str], Sequence[tuple[int, int]]]
"""A text's spans in characters, [start, end), one per role and in the order of `ROLES`."""


class Encoder(nn.Module):
    """Texts in, embeddings [B D] out: hidden states pooled over tokens, then scaled to length 1 if ``normalise``.

    ``max_tokens`` is the longest input read; longer texts are cut at the end, and a `Prompt` first in its spare part.
    ``token_budget`` bounds the padded tokens of one forward pass and with it the memory; 0 chooses what suits the
    device. Without ``dropout`` training mode is evaluation mode.

    Pooling "roles" (see above) needs ``role_spans``, which return the spans of a text's roles and are never written to
    disk. A role without a token, because its span is empty or was cut off, gets the mean over the whole text;
    ``roles_missed`` counts how often since the encoder was opened. Then ``normalise`` scales each role's vector;
    without it an inner product is the mean of three inner products.

    The name of a control token such as ``[SEP]`` in a text is nothing but text, unless the text's task wrote it
    (`retrograd.types.ComposedText`) or it stands in a prompt of the model.

    With ``lexical`` the numbers of that projection follow those of the model, neither scaled nor trained. `Retriever`
    weighs them.

    ``head`` is what a folder of sentence-transformers declares beside its transformer, as `open` reads it: pooling
    modes side by side, Dense and Normalize modules, which are trained and saved with the model, and prompts.

    Raises `UserError` for settings out of range, and for "roles" with a tokenizer without character offsets or with a
    head that has layers.

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
        head: SentenceHead | None = None,
    ) -> None:
        super().__init__()
        if pooling not in get_args(Pooling):
            raise UserError(f"pooling is {pooling!r}; expected one of {', '.join(get_args(Pooling))}")
        self.head = _make_head(pooling) if head is None else head
        if pooling == "roles" and len(self.head.layers):
            raise UserError(
                "pooling 'roles' gives a vector to each role, and the Dense modules of this model read one for the "
                "whole text; choose pooling 'auto', or a model without them"
            )
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
        self.control = ControlTokens(tokenizer)
        self.pooling: Pooling = pooling
        self.normalise = normalise
        self.max_tokens = min(max_tokens, tokenizer.model_max_length, position_limit(model.config) or max_tokens)
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
        pooling: PoolingChoice = "auto",
        normalise: bool | Literal["auto"] = "auto",
        max_tokens: int = 256,
        token_budget: int = 0,
        *,
        dropout: bool = True,
        role_spans: FindRoleSpans | None = None,
        lexical: LexicalProjection | None = None,
        with_task_prompts: bool = True,
    ) -> Encoder:
        """Open by hub name, folder or ``builtin:minilm``.

        "auto" is what a folder of sentence-transformers declares, and for any other model mean pooling to length 1.
        Such a folder's Dense modules and prompts are used with any setting; ``max_tokens`` is not read from it.
        Without ``with_task_prompts`` the prefixes that `save` wrote into the prompts are left out.
        Raises `UserError` when the model cannot be had, and for a setting that contradicts its folder.
        """
        declared = read_sentence_folder(name, with_task_prompts)
        model, tokenizer = open_encoder(name if declared is None else declared.model)
        head = None
        if declared is not None:
            declared.lower(tokenizer)
            head = declared.open_head(int(model.config.hidden_size))
        return cls(
            model,
            tokenizer,
            _choose_pooling(pooling, declared),
            _choose_length(normalise, pooling, declared),
            max_tokens,
            token_budget,
            dropout=dropout,
            role_spans=role_spans,
            lexical=lexical,
            head=head,
        )

    @property
    def dimension(self) -> int:
        """D, the width of an embedding."""
        return self.semantic_dimension + (0 if self.lexical is None else self.lexical.dimension)

    @property
    def semantic_dimension(self) -> int:
        """The number of an embedding's first entries that are the model's."""
        return self.width * len(ROLES) if self.pooling == "roles" else self.head.width(self.width)

    @property
    def width(self) -> int:
        """The width of a hidden state, and so of one role's vector."""
        return int(self.model.config.hidden_size)

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.model.parameters()).device

    def forward(self, texts: Sequence[str], side: Side | None = None) -> Float[Tensor, "B D"]:
        """Return embeddings in fp32, differentiable with respect to the weights, in the order given.

        Where the model has prompts, that of the ``side`` stands before each text; without a side, its default prompt.
        Raises `UserError` for pooling "roles" without ``role_spans``.
        """
        semantic = self._embed_semantic(texts, self.head.prompts.before(side))
        if self.lexical is None:
            return semantic
        return torch.cat([semantic, self.lexical(texts).to(semantic.device)], dim=-1)

    def embed(self, texts: Sequence[str], side: Side | None = None) -> Float[Tensor, "B D"]:
        """Return embeddings without gradient and without dropout."""
        with inference(self):
            return self(texts, side)

    @property
    def batch_tokens(self) -> tuple[int, ...]:
        """The most padded tokens of a batch."""
        return (token_budget_on(self.device, self.token_budget),)

    def embed_passages(self, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        """Return embeddings for an index: `embed` on the side of passages."""
        return self.embed(texts, "passage")

    def mean_vectors(self, texts: Sequence[str]) -> Float[Tensor, "B width"]:
        """Return mean-pooled vectors of length 1, with gradient, whatever the pooling: phrases have no roles."""
        if not texts:
            return torch.zeros(0, self.width, device=self.device)
        return self._in_groups(texts, lambda group: F.normalize(pool(group.hidden, group.mask, "mean"), dim=-1))

    def _embed_semantic(self, texts: Sequence[str], prompt: str) -> Float[Tensor, "B _"]:
        """Embed texts with the model and its head alone."""
        if not texts:
            return torch.zeros(0, self.semantic_dimension, device=self.device)
        if self.pooling == "roles":  # whose spans are those of the whole text
            read = [ComposedText(prompt, text) for text in texts]
            spans = self._role_spans(texts)
            return self._in_groups(read, lambda group: self._pool_roles(group, spans, len(prompt)), by_role=True)
        skipped = 0 if self.head.pools_prompt or not prompt else self._count_tokens(prompt)

        def vectors(group: _Group) -> Float[Tensor, "b _"]:
            pooled = self.head(group.hidden, group.mask, skipped)
            return F.normalize(pooled, dim=-1) if self.normalise else pooled

        return self._in_groups(fit_texts(self.control, prompt, texts, self.max_tokens), vectors)

    def _in_groups(
        self, texts: Sequence[str], vectors: Callable[[_Group], Float[Tensor, "b _"]], by_role: bool = False
    ) -> Float[Tensor, "B _"]:
        """Return the ``vectors`` of all texts, read in micro-batches of like length, in the order given."""
        encoded = self.control.encode(texts, self.max_tokens, offsets=by_role)
        offsets = encoded.pop("offset_mapping") if by_role else []
        lengths = [len(ids) for ids in encoded["input_ids"]]
        buckets = equal_length_buckets if self.model.config.model_type in READS_PADDING else length_buckets
        groups = buckets(lengths, token_budget_on(self.device, self.token_budget))
        rows = []
        for group in groups:
            hidden, mask = self._run_model(encoded, group)
            rows.append(vectors(_Group(group, hidden, mask, [offsets[i] for i in group] if by_role else [])))
        order = torch.tensor([position for group in groups for position in group], device=self.device)
        return torch.cat(rows)[torch.argsort(order)]

    def _pool_roles(
        self, group: _Group, spans: Sequence[Sequence[tuple[int, int]]], shift: int
    ) -> Float[Tensor, "b _"]:
        """Return the vectors of roles, whose spans begin ``shift`` characters later in what was read."""
        own = [[(start + shift, end + shift) for start, end in spans[i]] for i in group.positions]
        roles = role_masks(group.offsets, own, group.hidden.shape[1])
        self.roles_missed += int((~roles.any(dim=-1)).sum())
        return pool_roles(group.hidden, group.mask, roles.to(group.hidden.device), self.normalise)

    def _count_tokens(self, prompt: str) -> int:
        """Return the tokens of a prompt in front of a text, special tokens at its beginning included."""
        ids = self.tokenizer(prompt)["input_ids"]
        return len(ids) - (ids[-1] in self.tokenizer.all_special_ids)

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
        described = [used, describe_configuration(self.model), describe_tokenizer(self.tokenizer)]
        lexical = [] if self.lexical is None else [self.lexical.fingerprint]
        head = self.head.describe()
        more = [head, *hash_parts(self.head)] if head else []
        return fingerprint([*described, *lexical, *hash_parts(self.model), *more])

    def save(self, folder: Path, prefixes: Mapping[Side, str] | None = None) -> None:
        """Write a sentence-transformers directory, which `open` also reads.

        ``prefixes`` are what the task of a retriever puts before the texts of the sides that the tower reads: they are
        written as prompts.

        Such a directory cannot express roles: for pooling "roles" it states "mean", and sentence-transformers returns
        what `mean_vectors` does. The caller of `open` passes the pooling; `Retriever` writes it beside the towers, with
        ``lexical``, ``dropout`` and ``token_budget``, which the directory does not hold either.
        """
        save_with_tokenizer(self.model, self.tokenizer, folder)
        open_to_umask(folder)
        write_sentence_folder(folder, self.head, self.normalise, self.max_tokens, self.width, prefixes)


@dataclass(frozen=True)
class _Group:
    """Texts that are read together: their positions in the list, hidden states, mask and offsets of tokens."""

    positions: Sequence[int]
    hidden: Float[Tensor, "b L width"]
    mask: Int[Tensor, "b L"]
    offsets: Sequence[Sequence[tuple[int, int]]]


def _make_head(pooling: Pooling) -> SentenceHead:
    """Return the head of a model that declares none; a directory that is written for roles states the mean."""
    if pooling == "concatenated":
        raise UserError(
            "pooling is 'concatenated', which only a folder that declares several poolings has; choose one of them"
        )
    return SentenceHead(("mean" if pooling == "roles" else cast(PoolingMode, pooling),))


def _choose_pooling(choice: PoolingChoice, declared: SentenceFolder | None) -> Pooling:
    """Return the pooling that setting and folder agree on. Raises `UserError` where they do not."""
    if declared is None:
        return "mean" if choice == "auto" else choice
    own: Pooling = declared.modes[0] if len(declared.modes) == 1 else "concatenated"
    if choice not in ("auto", "roles", own):
        raise UserError(
            f"pooling (retriever.pooling) is {choice!r}, but the folder of {declared.name!r} declares "
            f"{' + '.join(declared.modes)}; leave it out or set 'auto', or give a folder without modules.json"
        )
    return "roles" if choice == "roles" else own


def _choose_length(choice: bool | Literal["auto"], pooling: PoolingChoice, declared: SentenceFolder | None) -> bool:
    """Return whether embeddings have length 1, by setting and folder; a folder says nothing of roles.

    Raises `UserError` where they contradict each other.
    """
    if declared is None or pooling == "roles":
        return choice is not False
    if choice not in ("auto", declared.normalise):
        how = "ends with" if declared.normalise else "has no"
        raise UserError(
            f"normalise (retriever.normalise) is {str(choice).lower()}, but the folder of {declared.name!r} {how} "
            f"Normalize in its modules.json; leave it out or set 'auto', or give a folder without modules.json"
        )
    return declared.normalise
