"""Check that a step that finds no memory is repeated with half as many queries, as if these had been asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.untimed import untimed_lines

from retrograd.index.exchange import ran_out_of_memory
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.retriever import Retriever
from retrograd.objectives import JointStochasticApproximation
from retrograd.rag.rag_model import RagModel
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.training.distributed import micro_batches
from retrograd.training.loop import train
from retrograd.training.refresh.policies import EverySteps
from retrograd.training.run.run_directory import RunDirectory
from retrograd.training.stage import GeneratorEvidence, Pace, Stage
from retrograd.types import Example, Passage, UserError

GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory")


def trained(encoder: Path, generator: Path, folder: Path, micro_batch: int = 0) -> tuple[RagModel, str]:
    """Train two epochs of two batches with chains, dropout and a tail, all that draws; return weights and log."""
    task = RelationExtraction.semeval("marked", "labelled")
    labels = ("Content-Container(e2,e1)", "Cause-Effect(e1,e2)")
    examples = [
        Example(f"e{i}", f"the @ cup @ holds # tea # number {i} .", (task.verbalise(labels[i % 2]),)) for i in range(12)
    ]
    base = KnowledgeBase.from_passages(Passage(e.id, e.target, e.query) for e in examples)
    tower, rng = Encoder.open(str(encoder)), torch.Generator().manual_seed(0)
    posterior = Retriever(Encoder.open(str(encoder)), tower, 0.1, "both")
    reader = Generator.open(str(generator), rng, None, GeneratorOptions(max_target_tokens=8))
    model = RagModel(Retriever(tower, tower, 0.1, "both"), reader, task, base, posterior)
    evidence = GeneratorEvidence(3, distraction=0.3, prior_only=0.3)
    objective = JointStochasticApproximation(sampler="metropolis", draws=3)
    stage = Stage("training", objective, evidence, Pace(2, 8, 1e-2, 1e-2, micro_batch=micro_batch), EverySteps(1), 1)
    torch.manual_seed(0)
    run = RunDirectory.create(folder, "", "no")
    train(model, examples, stage, run, torch.Generator().manual_seed(0))
    return model, untimed_lines(folder / "metrics.jsonl")


@pytest.fixture(scope="module")
def trained_with(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], tuple[RagModel, str]]:
    """Return what training gives that was asked for a micro-batch of some size from the start."""
    return functools.cache(
        lambda size: trained(tiny_encoder, tiny_seq2seq, tmp_path_factory.mktemp("asked") / "run", size)
    )


@pytest.mark.parametrize(
    ("place", "error", "failing", "size"),
    [
        ("token_log_likelihood", GPU, {2}, 4),  # of the first step, with gradient: a pass without came before
        ("token_log_likelihood", CPU, {1, 2, 5}, 1),  # three times: at 8, at 4, and in the second part of two
        ("backward", GPU, {1}, 4),
        ("retrieve", GPU, {1}, 4),
    ],
)
def test_the_rest_is_as_if_the_smaller_micro_batch_had_been_asked_for(
    place: str,
    error: Exception,
    failing: set[int],
    size: int,
    trained_with: Callable[[int], tuple[RagModel, str]],
    tiny_encoder: Path,
    tiny_seq2seq: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rest is equal to the last bit, dropout, chains and the log included."""
    wanted, log = trained_with(size)
    owner = {"backward": torch.Tensor, "retrieve": RagModel}.get(place, Generator)
    real, calls, messages = getattr(owner, place), [], []
    monkeypatch.setattr(micro_batches, "say", messages.append)

    def scarce(*arguments: object, **options: object) -> object:
        calls.append(1)
        if len(calls) in failing:
            if place == "backward":
                real(*arguments)  # gradients that must be forgotten again
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(owner, place, scarce)
    repeated, repeated_log = trained(tiny_encoder, tiny_seq2seq, tmp_path / "repeated")
    assert repeated_log == log
    for (name, weight), other in zip(wanted.named_parameters(), repeated.parameters(), strict=True):
        assert torch.equal(weight, other), name
    assert len(messages) == len(failing)
    assert "with 8 queries at once" in messages[0]
    assert f"training.micro_batch = {size} next time" in messages[-1]


def test_where_one_query_is_too_much_the_remedies_are_named(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scarce(*arguments: object) -> object:
        raise GPU

    monkeypatch.setattr(Generator, "token_log_likelihood", scarce)
    with pytest.raises(UserError, match=r"one query; lower training\.passages .*gradient_checkpointing.*lora_rank"):
        trained(tiny_encoder, tiny_seq2seq, tmp_path / "run")


def test_other_errors_are_no_want_of_memory(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> object:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(Generator, "token_log_likelihood", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        trained(tiny_encoder, tiny_seq2seq, tmp_path / "run")


def test_what_torch_says_on_this_machine_is_understood() -> None:
    with pytest.raises(RuntimeError) as found:
        torch.empty(2**60, dtype=torch.uint8)
    assert ran_out_of_memory(found.value)
