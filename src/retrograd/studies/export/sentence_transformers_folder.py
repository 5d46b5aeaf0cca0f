"""A folder of sentence-transformers that gives plain texts the vectors of the run. Only this file imports it.

Separate towers become one model with a router: ``encode_query`` uses one, ``encode_document`` the other.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from retrograd.models.compute.sentence_head import Side
from retrograd.models.encoder import Encoder
from retrograd.models.loading.transformers_io import quiet_transformers
from retrograd.rag.retriever_texts import describe_texts
from retrograd.studies.export.kind import (
    Comparison,
    ExportKind,
    Source,
    largest_difference,
    write_retriever_texts,
)
from retrograd.util.optional import require_package

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["SENTENCE_TRANSFORMERS"]


def _open(folder: Path) -> SentenceTransformer:
    require_package("--to sentence-transformers", "sentence-transformers", "sentence-transformers")
    from sentence_transformers import SentenceTransformer

    with quiet_transformers():
        return SentenceTransformer(str(folder), device="cpu", trust_remote_code=False)


def _write(source: Source, folder: Path) -> None:
    retriever, prefixes = source.retriever, describe_texts(source.model.task).prefixes
    if retriever.shares_tower:
        retriever.query_encoder.save(folder, prefixes)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            retriever.save(Path(temporary), prefixes)
            _write_router(Path(temporary), folder)
    write_retriever_texts(source, folder)


def _write_router(towers: Path, folder: Path) -> None:
    """Join two folders into one model that routes texts by their side."""
    query, passage = _open(towers / "query"), _open(towers / "passage")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router

    router = Router.for_query_document(
        query_modules=list(query.children()),  # pyright: ignore[reportArgumentType]
        document_modules=list(passage.children()),  # pyright: ignore[reportArgumentType]
        default_route="document",
    )
    before = passage.prompts["document"] or ""
    prompts = {"query": query.prompts["query"] or "", "document": before, "passage": before}
    whole = SentenceTransformer(modules=[router], prompts=prompts, similarity_fn_name="dot", device="cpu")
    with quiet_transformers():
        whole.save(str(folder), create_model_card=False)


def _compare(source: Source, folder: Path) -> Comparison:
    theirs, texts, limits = _open(folder), describe_texts(source.model.task), source.limits
    queries = [example.query for example in source.some_queries()]
    passages = [texts.passage_of(passage) for passage in source.some_passages()]
    sides: list[tuple[Side, Encoder, list[str], list[str]]] = [
        ("query", source.retriever.query_encoder, source.query_texts(), queries),
        ("passage", source.retriever.passage_encoder, source.passage_texts(), passages),
    ]
    differences = []
    for side, encoder, rendered, plain in sides:
        encode = theirs.encode_query if side == "query" else theirs.encode_document
        if limits:  # what no prefix can say is left out: texts as the task makes them, and no prompt
            found, expected = encode(rendered, prompt=""), _behind_the_task(encoder, rendered)
        else:
            found, expected = encode(plain), encoder.embed(rendered, side)
        if encoder.pooling == "roles":
            found = F.normalize(torch.as_tensor(found), dim=-1)
        differences.append(largest_difference(torch.as_tensor(found), expected))
    what = f"vectors of {len(queries) + len(passages)} texts in sentence-transformers"
    return Comparison(what, max(differences), tuple(limits))


def _behind_the_task(encoder: Encoder, texts: Sequence[str]) -> Float[Tensor, "B D"]:
    """Return the vectors that a folder can give of texts as they are: without words, and of roles the mean."""
    if encoder.pooling == "roles":
        return encoder.mean_vectors(texts)
    return encoder.embed(texts)[:, : encoder.semantic_dimension]


SENTENCE_TRANSFORMERS = ExportKind("sentence-transformers", _write, _compare)
