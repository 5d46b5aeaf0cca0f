"""What a kind of export is: it writes a folder, opens it as its users do, and compares what comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from retrograd.experiments.open import OpenRun
from retrograd.models.compute.sentence_head import Side
from retrograd.models.generator import Generator
from retrograd.models.retriever import Retriever
from retrograd.rag.rag_model import RagModel
from retrograd.rag.retriever_texts import TEXTS_FILE, describe_texts, find_limits, texts_record
from retrograd.types import Example, Passage, UserError
from retrograd.util.text_files import write_json

__all__ = [
    "LARGEST_DIFFERENCE",
    "Comparison",
    "ExportKind",
    "Source",
    "compare_logits",
    "largest_difference",
    "write_retriever_texts",
]

LARGEST_DIFFERENCE = 1e-4
"""What single precision and another order of sums can make of a vector of length 1 is a thousandth of it."""

_COMPARED = 8


@dataclass(frozen=True)
class Source:
    """The model that is handed over, the run it comes from (None: a folder of ``save_pretrained``), and its name.

    ``generator_name`` is the model under adapters, as given; ``out`` is where the folder will be, which is written
    elsewhere first. ``passages`` is how many a ranking holds.
    """

    model: RagModel
    name: str
    run: OpenRun | None
    generator_name: str
    out: Path
    passages: int

    @property
    def retriever(self) -> Retriever:
        """The retriever p(z|x)."""
        return self.model.retriever

    @property
    def limits(self) -> list[str]:
        """Return sentences about what the vectors alone do not give (`find_limits`)."""
        return find_limits(describe_texts(self.model.task), self.retriever, self.model.search_kind)

    def test_examples(self) -> list[Example]:
        """Return the examples that the run was scored on. Raises `UserError` where there are none."""
        examples = [] if self.run is None else self.run.data.test
        if not examples:
            raise UserError(
                f"{self.name} has no test data to rank passages for; give a run whose experiment names data.test"
            )
        return examples

    def some_passages(self) -> list[Passage]:
        """Return a few passages to compare vectors of."""
        return [self.model.base[row] for row in range(min(_COMPARED, len(self.model.base)))]

    def some_queries(self) -> list[Example]:
        """Return a few queries: test examples, or the texts of passages where there are none."""
        if self.run is not None and self.run.experiment.data.test:
            return self.run.data.test[:_COMPARED]
        return [Example(passage.id, passage.text) for passage in self.some_passages()]

    def query_texts(self) -> list[str]:
        """Return what the query tower reads of a few queries."""
        return [self.model.task.query_text(example) for example in self.some_queries()]

    def passage_texts(self) -> list[str]:
        """Return what the passage tower reads of a few passages."""
        return [self.model.task.passage_text(passage) for passage in self.some_passages()]


@dataclass(frozen=True)
class Comparison:
    """Result of comparing a written export with its model.

    ``compared`` names the values, ``difference`` is the largest one, and ``limits`` are sentences about what the export
    leaves out.
    """

    compared: str
    difference: float
    limits: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportKind:
    """A kind of export: its name, and two functions: to write a folder, and to open and compare it."""

    name: str
    write: Callable[[Source, Path], None]
    compare: Callable[[Source, Path], Comparison]


def write_retriever_texts(source: Source, folder: Path) -> None:
    """Write ``texts.json``: how the texts of queries and passages are made."""
    task, sides = source.model.task, get_args(Side)
    write_json(folder / TEXTS_FILE, texts_record(task, describe_texts(task), source.retriever, source.limits, sides))


def largest_difference(found: Float[Tensor, "*shape"], expected: Float[Tensor, "*other"]) -> float:
    """Return the largest absolute difference; infinity where shapes differ or a value is not a number."""
    if found.shape != expected.shape:
        return float("inf")
    difference = (found.detach().cpu().double() - expected.detach().cpu().double()).abs()
    return float(difference.nan_to_num(float("inf")).max()) if difference.numel() else 0.0


def compare_logits(source: Source, theirs: torch.nn.Module, what: str) -> Comparison:
    """Compare the logits that two models give at each place of a few prompts, in units of a prompt's largest."""
    generator = source.model.generator
    prompts = [str(source.model.task.prompt(example, source.some_passages()[:2])) for example in source.some_queries()]
    difference = 0.0
    for prompt in prompts[: _COMPARED // 2]:
        ours = _logits(generator.model, generator, prompt)
        scale = float(ours.nan_to_num(0.0, 0.0, 0.0).abs().max()) or 1.0
        difference = max(difference, largest_difference(_logits(theirs, generator, prompt), ours) / scale)
    limits = () if generator.soft_prompt is None else ("The soft prompt stays with retrograd: this folder has none.",)
    count = len(prompts[: _COMPARED // 2])
    return Comparison(f"{what}, logits of {count} prompts as shares of the largest", difference, limits)


def _logits(model: torch.nn.Module, generator: Generator, prompt: str) -> Float[Tensor, "L V"]:
    device = next(model.parameters()).device
    limit = generator.options.max_input_tokens
    read = generator.tokenizer(prompt, truncation=True, max_length=limit, return_tensors="pt").to(device)
    arguments = {name: read[name] for name in ("input_ids", "attention_mask")}
    if generator.encoder_decoder:
        arguments["decoder_input_ids"] = read["input_ids"][:, :4]
    model.eval()
    with torch.no_grad():
        return model(**arguments).logits[0].float()
