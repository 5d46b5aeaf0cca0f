"""The retriever's towers as ONNX graphs: token ids in, embeddings out. Only this file imports onnx and its runtime.

A folder has ``model.onnx``, or ``query.onnx`` and ``passage.onnx`` where the towers are separate, the tokenizer, and
``texts.json``, which says how texts are made. Inputs are ``input_ids`` and ``attention_mask``, padded on the right; the
output is ``sentence_embedding``.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

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


def _towers(source: Source) -> dict[str, tuple[Encoder, Side]]:
    """Return the file of each tower with the tower and a side that it reads."""
    retriever = source.retriever
    if retriever.shares_tower:
        return {"model.onnx": (retriever.query_encoder, "query")}
    return {
        "query.onnx": (retriever.query_encoder, "query"),
        "passage.onnx": (retriever.passage_encoder, "passage"),
    }


def _require_packages() -> None:
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UserError(f"--to onnx needs {' and '.join(missing)}; install with: pip install 'retrograd[onnx]'")


def _write(source: Source, folder: Path) -> None:
    _require_packages()
    encoder = source.retriever.query_encoder
    if encoder.pooling == "roles":
        raise UserError(
            'retriever.pooling is "roles", which needs the places of entities beside the tokens; a graph of tokens '
            "alone cannot give these vectors"
        )
    if not encoder.head.pools_prompt:
        raise UserError("the model's prompt is read and not pooled, which a graph of tokens alone cannot know")
    for file, (tower, _) in _towers(source).items():
        _export(tower, folder / file)
    encoder.tokenizer.save_pretrained(folder)
    write_retriever_texts(source, folder)


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
    import onnxruntime  # pyright: ignore[reportMissingImports]

    difference, count = 0.0, 0
    for file, (tower, side) in _towers(source).items():
        texts = source.query_texts() if side == "query" else source.passage_texts()
        session = onnxruntime.InferenceSession(folder / file, providers=["CPUExecutionProvider"])
        prompt = tower.head.prompts.before(side)
        # One by one as well as in a batch: a graph must have taken no length for a constant.
        for batch in (texts, texts[:1]):
            read = tower.tokenizer(
                [prompt + text for text in batch],
                padding=True,
                padding_side="right",
                truncation=True,
                max_length=tower.max_tokens,
                return_tensors="np",
            )
            (found,) = session.run([_OUTPUT], {name: read[name].astype("int64") for name in _INPUTS})
            expected = tower.embed(batch, side)[:, : tower.semantic_dimension]
            difference = max(difference, largest_difference(torch.as_tensor(found), expected))
        count += len(texts)
    return Comparison(f"vectors of {count} texts in onnxruntime", difference, tuple(source.limits))


ONNX = ExportKind("onnx", "the retriever's towers as ONNX graphs, with the tokenizer", _write, _compare)
