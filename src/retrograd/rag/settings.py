"""The settings of a model's parts: its retrievers, its generator and its soft prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from retrograd.models.settings import LearningTowers, PoolingChoice, Quantisation, SoftPosition, TrainedTowers
from retrograd.rag.search_kinds import SearchKind, search_kind
from retrograd.types import UserError

__all__ = ["GeneratorSettings", "RetrieverSettings", "SoftPromptSettings"]


@dataclass(frozen=True)
class RetrieverSettings(LearningTowers):
    """Settings of the retrievers: the prior p(z|x) and, where there is one, the posterior q(z|x,y).

    ``model`` is a hub name, a folder or ``builtin:minilm``; it reads ``max_tokens`` of a text.
    ``separate_towers`` gives passages their own encoder; ``query_model`` is then what the query side begins with, where
    that is another model: DPR has two. ``pooling`` and ``normalise`` "auto" are what a folder of sentence-transformers
    declares; for any other model, mean and length 1.

    ``posterior`` adds q(z|x,y); its ``posterior_passages`` are embedded by the prior's tower ("shared") or by its
    "own", which makes the index twice as wide. ``null_passage`` makes reading nothing one of the candidates.
    ``temperature`` divides the inner products of embeddings; ``learn_temperature`` trains it. ``trained``: both towers,
    the query side, or none. ``dropout`` false leaves the model's dropout out of training: a
    quarter of the time of a small encoder on a CPU. ``search`` "bm25" finds passages by their words instead (needs
    bm25s). Two are controls: "random", neighbours of some passage that has nothing to do with the query, and "oracle",
    which knows the target: the nearest among passages that support it, at test time too.

    ``lexical_dimensions`` makes search hybrid: so many numbers behind each embedding give BM25 as an inner product
    (`retrograd.models.inputs.lexical_projection`); 2048 is a good number, 0 is none. ``lexical_weight`` is what a
    point of BM25 is worth at first, in nats; where the retriever is trained, that is learned.
    """

    model: str = "builtin:minilm"
    pooling: PoolingChoice = "auto"
    normalise: bool | Literal["auto"] = "auto"
    max_tokens: int = 128
    temperature: float = 0.05
    learn_temperature: bool = False
    trained: TrainedTowers = "query"
    separate_towers: bool = False
    query_model: str = ""
    posterior: bool = False
    posterior_passages: Literal["shared", "own"] = "shared"
    null_passage: bool = False
    dropout: bool = True
    search: str = "nearest"
    lexical_dimensions: int = 0
    lexical_weight: float = 1.0

    @property
    def shares_tower(self) -> bool:
        """Return whether queries and passages have one tower."""
        return not self.separate_towers

    @property
    def search_kind(self) -> SearchKind:
        """Return the search that ``search`` names. Raises `UserError` if there is no such search."""
        return search_kind(self.search)

    @property
    def learns_scales(self) -> bool:
        """Return whether training moves the temperature or the lexical weight."""
        return self.is_trained and (self.learn_temperature or self.lexical_dimensions > 0)

    def __post_init__(self) -> None:
        if self.query_model and not self.separate_towers:
            raise UserError(
                f"retriever.query_model is {self.query_model!r}, but queries and passages share one tower; set "
                f"retriever.separate_towers = true"
            )
        if self.lexical_weight < 0:
            raise UserError(
                f"retriever.lexical_weight is {self.lexical_weight:g}, which looks for passages without the query's "
                f"words; set it to 0 or more"
            )
        if self.lexical_dimensions < 0 or self.lexical_dimensions % 4:
            raise UserError(
                f"retriever.lexical_dimensions is {self.lexical_dimensions}; expected a multiple of 4, 2048 say, or 0"
            )
        kind = self.search_kind
        if self.lexical_dimensions > 0 and not kind.has_vectors:
            raise UserError(f'retriever.search = "{kind.name}" has no vectors; set retriever.lexical_dimensions = 0')
        if not kind.trains_retriever and (self.is_trained or self.posterior):
            raise UserError(
                f'retriever.search = "{self.search}" leaves nothing to learn about retrieval; set '
                f'retriever.trained = "none" and posterior = false'
            )
        if self.null_passage and not kind.has_vectors:
            raise UserError(
                f'retriever.search = "{kind.name}" has no vectors, and the null passage is one; set '
                f"retriever.null_passage = false"
            )


@dataclass(frozen=True)
class GeneratorSettings:
    """Settings of the generator: the model, the lengths that it reads and writes, its adapters and its memory.

    ``model`` is a hub name, a folder, a GGUF file, ``builtin:minilm-seq2seq``, ``builtin:minilm-pointer``, which can
    copy from its prompt (not beside a soft prompt), or ``builtin:smollm2``, a language model. ``max_input_tokens``
    bounds a prompt, ``max_target_tokens`` an answer with its end.

    ``lora_rank`` 0 trains all weights; above 0 these rest, and adapters of that rank learn. ``lora_alpha``,
    ``lora_dropout`` and ``lora_modules`` are those of `Lora`: scale, dropout, and the layers that have adapters (none
    named: all linear layers but the output).

    ``token_budget`` bounds the padded tokens of one forward pass; 0 is what suits the device. ``dropout`` false leaves
    the model's dropout out of training. ``chat`` puts the prompt of a decoder-only model into the tokenizer's chat
    template, where it has one. ``quantisation`` "nf4" holds the linear layers under adapters in four bits (QLoRA), on a
    CUDA device. ``gradient_checkpointing`` computes layers again in the backward pass, which saves memory. ``fusion``
    lets objectives that read passages together read them by fusion-in-decoder instead of in one prompt
    (`retrograd.models.inputs.fusion`); for encoder-decoder models. ``fsdp`` spreads the layers over the processes
    that train, for a generator that one device cannot hold (`retrograd.models.compute.fsdp`); one process alone has
    all.
    """

    model: str = "builtin:minilm-seq2seq"
    max_input_tokens: int = 256
    max_target_tokens: int = 16
    token_budget: int = 0
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0
    lora_modules: tuple[str, ...] = ()
    dropout: bool = True
    chat: bool = True
    quantisation: Quantisation = "none"
    gradient_checkpointing: bool = False
    fusion: bool = False
    fsdp: bool = False

    def __post_init__(self) -> None:
        if self.gradient_checkpointing and not self.dropout:
            raise UserError(
                "gradient checkpointing needs dropout: set generator.dropout = true or "
                "generator.gradient_checkpointing = false"
            )
        if self.fsdp and self.quantisation != "none":
            raise UserError('generator.fsdp spreads no 4-bit weights; set quantisation = "none", or fsdp = false')
        if self.fsdp and self.fusion:
            raise UserError("generator.fsdp cannot read by fusion-in-decoder; set fusion = false, or fsdp = false")


@dataclass(frozen=True)
class SoftPromptSettings:
    """Settings of what soft slots hold, where the objective fills them.

    ``form`` is the ``words`` of passages, mixed token by token, or the retriever's
    vectors of instances through a learned map, ``improved`` or as ``published``
    (`retrograd.models.inputs.soft_prompt`).

    ``position`` is where they stand, ``gain`` where the improved form's learned gain starts. With retriever.pooling
    "roles" an instance has a vector for head, tail and context, else one for all; the label's is added to them, except
    with data.key_style "published".
    """

    form: Literal["words", "improved", "published"] = "words"
    position: SoftPosition = "before"
    gain: float = 0.1
