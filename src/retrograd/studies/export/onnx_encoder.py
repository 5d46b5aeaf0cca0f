"""The retriever's towers as ONNX graphs: token ids in, embeddings out. Only this file imports onnx and its runtime.

A folder has ``model.onnx`` and the tokenizer's files, or, where the towers are separate, ``query.onnx`` and
``passage.onnx`` and the tokenizer of each in ``query/`` and ``passage/``. ``texts.json`` says how texts are made.
Inputs are ``input_ids`` and ``attention_mask``, padded on the right; the output is ``sentence_embedding``.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoTokenizer

from retrograd.models.compute.sentence_head import Side
from retrograd.models.encoder import Encoder
from retrograd.studies.export.kind import (
    Comparison,
    ExportKind,
    Source,
    largest_difference,
    write_retriever_texts,
)
from retrograd.types import UserError
from retrograd.util.optional import require_package

__all__ = ["ONNX"]

_INPUTS = ("input_ids", "attention_mask")
_OUTPUT = "sentence_embedding"
_OPSET = 17


class _TextVectors(nn.Module):
    """A tower as one function of token ids and their mask."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Int[Tensor, "b L"], attention_mask: Int[Tensor, "b L"]) -> Float[Tensor, "b D"]:
        """Return the embeddings of texts."""
        hidden = self.encoder.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        pooled = self.encoder.head(hidden, attention_mask, 0)
        return F.normalize(pooled, dim=-1) if self.encoder.normalise else pooled


@dataclass(frozen=True)
class _Part:
    """A tower, the sides that it reads, and where its graph and its tokenizer are in the folder."""

    tower: Encoder
    sides: tuple[Side, ...]
    file: str
    tokenizer: str


def _parts(source: Source) -> list[_Part]:
    """Return what is written of a retriever: one tower or two."""
    retriever = source.retriever
    if retriever.shares_tower:
        return [_Part(retriever.query_encoder, ("query", "passage"), "model.onnx", ".")]
    return [
        _Part(retriever.query_encoder, ("query",), "query.onnx", "query"),
        _Part(retriever.passage_encoder, ("passage",), "passage.onnx", "passage"),
    ]


def _require_packages() -> None:
    for package in ("onnx", "onnxruntime"):
        require_package("--to onnx", package, "onnx")


def _write(source: Source, folder: Path) -> None:
    _require_packages()
    for part in _parts(source):
        _require_graph(part)
        _export(part.tower, folder / part.file)
        part.tower.tokenizer.save_pretrained(folder / part.tokenizer)
    write_retriever_texts(source, folder)


def _require_graph(part: _Part) -> None:
    """Raise `UserError` for a tower whose vectors need more than token ids and their mask."""
    if part.tower.pooling == "roles":
        raise UserError(
            'retriever.pooling is "roles", which needs the places of entities beside the tokens; a graph of tokens '
            "alone cannot give these vectors"
        )
    head = part.tower.head
    prompt = next(filter(None, map(head.prompts.before, part.sides)), "")
    if prompt and not head.pools_prompt:
        raise UserError(
            f"the prompt {prompt!r} of the {part.sides[0]} tower is read and not pooled, which a graph of tokens alone "
            f"cannot know"
        )


def _export(encoder: Encoder, path: Path) -> None:
    module = _TextVectors(encoder).eval()
    ids = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1]], device=encoder.device)
    axes = {name: {0: "texts", 1: "tokens"} for name in _INPUTS} | {_OUTPUT: {0: "texts"}}
    # The newer exporter needs onnxscript; this one warns of that, and of each number that it takes for a constant.
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (ids, torch.ones_like(ids)),
            path,
            input_names=list(_INPUTS),
            output_names=[_OUTPUT],
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
        )


def _compare(source: Source, folder: Path) -> Comparison:
    """Compare the vectors of graphs and tokenizers as they were written with those of the towers."""
    import onnxruntime  # pyright: ignore[reportMissingImports]

    difference, count = 0.0, 0
    for part in _parts(source):
        session = onnxruntime.InferenceSession(folder / part.file, providers=["CPUExecutionProvider"])
        tokenizer = AutoTokenizer.from_pretrained(folder / part.tokenizer, trust_remote_code=False)
        for side in part.sides:
            texts = source.query_texts() if side == "query" else source.passage_texts()
            prompt = part.tower.head.prompts.before(side)
            # One by one as well as in a batch: a graph must have taken no length for a constant.
            for batch in (texts, texts[:1]):
                read = tokenizer(
                    [prompt + text for text in batch],
                    padding=True,
                    padding_side="right",
                    truncation=True,
                    max_length=part.tower.max_tokens,
                    return_tensors="np",
                )
                (found,) = session.run([_OUTPUT], {name: read[name].astype("int64") for name in _INPUTS})
                expected = part.tower.embed(batch, side)[:, : part.tower.semantic_dimension]
                difference = max(difference, largest_difference(torch.as_tensor(found), expected))
            count += len(texts)
    return Comparison(f"vectors of {count} texts in onnxruntime", difference, tuple(source.limits))


ONNX = ExportKind("onnx", _write, _compare)
