"""The passages' vectors as a file of faiss, their ids beside it: a flat index by inner product.

A query's vector comes from the retriever: of ``retrograd export --to sentence-transformers``, or `RagModel`. Its inner
products, divided by the temperature, are the model's logits.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from retrograd.index.faiss import import_faiss
from retrograd.rag.rag_model import RagModel
from retrograd.studies.export.kind import (
    LARGEST_DIFFERENCE,
    Comparison,
    ExportKind,
    Source,
    largest_difference,
    write_retriever_texts,
)
from retrograd.types import UserError

__all__ = ["FAISS"]

_FILE, _IDS = "passages.faiss", "ids.txt"
_BLOCK_ROWS = 65_536
_COMPARED = 10


def _rows(model: RagModel) -> Iterator[Float[Tensor, "b D"]]:
    """Yield the prior's passage embeddings, block by block."""
    for rows in torch.arange(len(model.base)).split(_BLOCK_ROWS):
        vectors = model.index.vectors(rows.to(model.device)).float()
        yield model.passage_side.part(vectors, "prior").cpu()


def _write(source: Source, folder: Path) -> None:
    faiss, model = import_faiss("--to faiss"), source.model
    if not model.needs_index:
        raise UserError(f"{source.name} searches by {model.search_kind.name}, and has no vectors to hand over")
    if not model.has_index:
        model.refresh_index()
    ids = model.base.ids()
    if any("\n" in id_ or "\r" in id_ for id_ in ids):
        raise UserError(f"an id of a passage has a line end, and {_IDS} has one a line; give the base other ids")
    index = faiss.IndexFlatIP(source.retriever.passage_encoder.dimension)
    for block in _rows(model):
        index.add(block.contiguous().numpy())
    faiss.write_index(index, str(folder / _FILE))
    (folder / _IDS).write_text("".join(f"{id_}\n" for id_ in ids), encoding="utf-8")
    write_retriever_texts(source, folder)


def _compare(source: Source, folder: Path) -> Comparison:
    """Compare the file with the index that was handed over, vector by vector, and search both."""
    index, model = import_faiss("--to faiss").read_index(str(folder / _FILE)), source.model
    ids = (folder / _IDS).read_text(encoding="utf-8").splitlines()
    if ids != model.base.ids() or index.ntotal != len(ids):
        return Comparison("the number of vectors and ids", float("inf"))
    with torch.no_grad(), model.autocast():
        queries = source.retriever.queries(source.query_texts()).detach().float().cpu()
        anew = source.retriever.passage_encoder.embed(source.passage_texts(), "passage").float().cpu()
    start, difference = 0, 0.0
    for block in _rows(model):
        stored = torch.as_tensor(index.reconstruct_n(start, len(block)))
        difference, start = max(difference, largest_difference(stored, block)), start + len(block)
    k = min(_COMPARED, len(ids))
    logits, rows = (torch.as_tensor(found) for found in index.search(queries.contiguous().numpy(), k))
    held = model.passage_side.part(model.index.vectors(rows.to(model.device)).float(), "prior").cpu()  # [B k D]
    expected = (held.double() @ queries.double().unsqueeze(-1)).squeeze(-1)
    # Logits are as large as 1 / T, so that their difference is measured in vectors of length 1.
    scale = float(source.retriever.temperature.detach())
    difference = max(difference, largest_difference(logits * scale, expected * scale))
    what = f"the {k} best of {len(queries)} queries in faiss, and {len(ids)} vectors"
    rounding = _describe_rounding(torch.as_tensor(index.reconstruct_n(0, len(anew))), anew)
    return Comparison(what, difference, (*source.limits, *rounding))


def _describe_rounding(stored: Float[Tensor, "n D"], anew: Float[Tensor, "n D"]) -> list[str]:
    """Say how far vectors are from those of the tower, where more than single precision lies between them."""
    apart = largest_difference(stored, anew)
    if apart <= LARGEST_DIFFERENCE:
        return []
    return [f"The vectors are as the model's index stores them: those computed anew differ by up to {apart:.2g}."]


FAISS = ExportKind("faiss", _write, _compare)
