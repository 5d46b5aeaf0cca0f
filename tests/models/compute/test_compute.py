"""Autocast is entered in one place, and every method of a model that runs a network enters it by itself."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import retrograd
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.compute.compute import Compute, choose_device
from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.retriever import Retriever
from retrograd.models.settings import ComputePrecision
from retrograd.rag.rag_model import RagModel
from retrograd.rag.staleness import Probe, measure_staleness
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.types import Example, Passage, UserError

CPU = torch.device("cpu")


def build(encoder: Path, generator: Path, precision: ComputePrecision) -> tuple[RagModel, list[Example]]:
    task = RelationExtraction.semeval("marked", "labelled")
    labels = ("Content-Container(e2,e1)", "Cause-Effect(e1,e2)")
    examples = [
        Example(f"e{i}", f"the @ cup @ holds # tea # number {i} .", (task.verbalise(labels[i % 2]),)) for i in range(6)
    ]
    base = KnowledgeBase.from_passages(Passage(e.id, e.target, e.query) for e in examples)
    tower, rng = Encoder.open(str(encoder)), torch.Generator().manual_seed(0)
    retriever = Retriever(tower, tower, 0.1, "both")
    reader = Generator.open(str(generator), rng, options=GeneratorOptions(max_target_tokens=8))
    model = RagModel(retriever, reader, task, base, precision=precision)
    return model.eval(), examples


OPERATIONS: dict[str, Callable[[RagModel, list[Example]], object]] = {
    "retrieve": lambda model, examples: model.retrieve(examples, 3).scores.log_prior,
    "retrieve_all": lambda model, examples: model.retrieve_all(examples).scores.log_prior,
    "candidates_at": lambda model, examples: (
        model.candidates_at(examples, torch.tensor([[0, 1]]).expand(6, 2)).scores.log_prior
    ),
    "likelihood": lambda model, examples: model.likelihood(examples, model.retrieve(examples, 3)).at(
        torch.zeros(6, 1, dtype=torch.long)
    ),
    "answer": lambda model, examples: model.predict(examples, 3),
    "choice_scores": lambda model, examples: [one.log_probability for one in model.choice_scores(examples, 3) or []],
    "embedded": lambda model, _: model.embed_rows(torch.arange(3)),
    "measure_staleness": lambda model, examples: measure_staleness(model, Probe(torch.arange(6), tuple(examples), 2)),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_model_in_bf16_computes_what_autocast_around_one_in_fp32_computes(
    operation: str, tiny_encoder: Path, tiny_seq2seq: Path
) -> None:
    """Nobody who calls a method has to know the model's precision; to the last bit."""
    run = OPERATIONS[operation]
    model, examples = build(tiny_encoder, tiny_seq2seq, "bf16")
    plain, _ = build(tiny_encoder, tiny_seq2seq, "fp32")
    model.refresh_index()
    with torch.autocast("cpu", torch.bfloat16):
        plain.refresh_index()
        wanted = run(plain, examples)
    assert equal(run(model, examples), wanted)
    if operation in ("retrieve", "likelihood", "embedded"):  # or the comparison would show nothing
        assert not equal(run(plain, examples), wanted)


def equal(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def test_fp32_enters_nothing_and_bf16_casts_matrix_products() -> None:
    one = torch.ones(2, 2)
    with Compute(CPU, "bf16").autocast():
        assert (one @ one).dtype == torch.bfloat16
        with Compute(CPU).autocast():  # a model in fp32 inside a step in bf16 changes nothing
            assert (one @ one).dtype == torch.bfloat16
    with Compute(CPU).autocast():
        assert (one @ one).dtype == torch.float32
    assert (Compute(CPU, "bf16").dtype, Compute(CPU).dtype) == (torch.bfloat16, torch.float32)


def test_only_compute_enters_autocast() -> None:
    """Elsewhere torch.autocast is only suspended."""
    entered = [
        path.name
        for path in Path(retrograd.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "torch.autocast"
        and "enabled=False" not in ast.unparse(node)
    ]
    assert entered == ["compute.py"]


class TestDevice:
    def test_the_variable_names_the_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RETROGRAD_DEVICE", "cpu")
        assert choose_device() == CPU

    def test_without_it_the_device_is_the_one_there_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("RETROGRAD_DEVICE", raising=False)
        assert choose_device().type == ("cuda" if torch.cuda.is_available() else "cpu")

    @pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta", "mps:3", "cpu:1"])
    def test_a_device_that_is_not_there_is_refused_with_advice(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RETROGRAD_DEVICE", name)
        with pytest.raises(UserError, match=f"RETROGRAD_DEVICE={name}: .*expected cpu, cuda, cuda:NUMBER or mps"):
            choose_device()

    def test_no_other_file_asks_which_device_there_is(self) -> None:
        """One place decides; the state of a run has the random state of each GPU, the one that computes or not."""
        source = Path(retrograd.__file__).parent
        asking = {
            path.relative_to(source).as_posix()
            for path in source.rglob("*.py")
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Attribute) and ast.unparse(node).endswith("cuda.is_available")
        }
        assert asking == {"models/compute/compute.py", "training/run/saved_state.py"}
