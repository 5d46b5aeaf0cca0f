"""Train with two real gloo processes, each with a share of every layer, and compare with one that has all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import VOCABULARY
from tests.tolerances import plain_descent, rounding
from tests.training.distributed.test_ranks import DEPTH, LOGGED, NORM, RATE, TOLERANCE, build, same_weights
from tests.training.distributed.test_ranks import Case as RankCase
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.fsdp import fully_shard

from retrograd.models.compute.fsdp import (
    count_forwards,
    find_stacks,
    gather_weights,
    gradient_norm,
    is_own_share,
    is_spread,
    list_spread_weights,
    put,
    require_spreadable,
    spread_layers,
)
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.loading.lora import Lora
from retrograd.objectives import JointStochasticApproximation, Objective, TopKMarginal
from retrograd.rag.indexed_model import gather_model
from retrograd.training.distributed.ranks import Ranks, explain_lost_process
from retrograd.training.loop import train
from retrograd.training.refresh.policies import EverySteps
from retrograd.training.run.checkpoints import Checkpoints
from retrograd.training.run.interrupts import Interrupted, Interrupts
from retrograd.training.run.run_directory import RunDirectory
from retrograd.training.stage import GeneratorEvidence, Pace, Stage
from retrograd.types import UserError

ROOT = Path(__file__).parents[3]
PROMPTS = ("who holds tea ?", "what is in the box ?", "rain caused the flood .", "alpha beta gamma delta")
TARGETS = ("cup", "a wheel of the car", "yes", "tea in the box")
CPU = torch.device("cpu")
BF16_UNIT = 2.0**-8
"""The unit roundoff of bfloat16."""


@dataclass(frozen=True)
class Case:
    """A tiny model, and what of it learns. Ranks differ in their number of passes of at most ``budget`` tokens."""

    model: str
    objective: Objective
    lora: int = 0
    recomputed: bool = False
    micro_batch: int = 0
    budget: int = 60


CASES = {
    "encoder-decoder": Case("seq2seq", TopKMarginal()),
    "recomputed": Case("seq2seq", TopKMarginal(), recomputed=True, micro_batch=2),
    "decoder-only": Case("causal", JointStochasticApproximation()),
    "adapters": Case("causal", TopKMarginal(), lora=4),
    "adapters, recomputed": Case("causal", TopKMarginal(), lora=4, recomputed=True),
    "with biases": Case("bart", TopKMarginal()),
    "copying": Case("pointer", TopKMarginal()),
}


def opened(folder: Path, case: Case) -> Generator:
    source = torch.Generator().manual_seed(0)
    options = GeneratorOptions(
        max_target_tokens=8,
        token_budget=case.budget,
        dropout=case.recomputed,  # layers are computed again in training mode alone; these models drop nothing
        gradient_checkpointing=case.recomputed,
    )
    found = Generator.open(str(folder), source, Lora(case.lora), options)
    for part in found.model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        elif isinstance(getattr(part, "dropout", None), float):
            part.dropout = 0.0
    return found


def trained(
    models: Path, case: Case, folder: Path, spread: bool, interrupts: Interrupts | None = None, resume: bool = False
) -> Generator:
    model, examples = build(models / "encoder", models / "seq2seq", RankCase(case.objective, "both"))
    model.generator = opened(models / case.model, case)
    if spread:
        spread_layers(model.generator.model, CPU)
    torch.manual_seed(0)
    pace = Pace(2, 8, RATE, RATE, weight_decay=0.0, warmup=0.0, clip=NORM / 2, micro_batch=case.micro_batch)
    stage = Stage("training", case.objective, GeneratorEvidence(3), pace, EverySteps(1), log_every=1, probe_passages=4)
    rng = torch.Generator().manual_seed(0)
    run = RunDirectory(folder, is_writer=False)
    if Ranks().first or (interrupts is None and not resume):  # else the folder is that of both
        run = RunDirectory.open(folder) if resume else RunDirectory.create(folder, "", "no")
    saves = Checkpoints(run, model, rng, interrupts=interrupts)
    if resume:
        saves.restore()
    train(model, examples, stage, run, rng, None, saves)
    with gather_model(model):
        if Ranks().first:
            learned = {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}
            save_file(learned, folder / "weights.safetensors")
            model.generator.save(folder / "generator")
    return model.generator


def answers(generator: Generator) -> dict[str, list[str] | list[list[float]]]:
    chosen = generator.choice_log_likelihood(PROMPTS, [("cup", "box", "tea in")] * len(PROMPTS))
    return {"written": generator.generate(PROMPTS), "chosen": [line.tolist() for line in chosen]}


# ---- in each of the processes ----------------------------------------------------------------------------------------


def train_all_cases(rank: int, folder: Path, models: Path) -> None:
    for name, case in CASES.items():
        with plain_descent():
            generator = trained(models, case, folder / f"{name}.{rank}", spread=True)
        generator.eval()
        (folder / f"{name}.{rank}" / "answers.json").write_text(json.dumps(answers(generator)))
        held = sum(weight.to_local().numel() for weight in generator.parameters() if is_own_share(weight))
        assert held == pytest.approx(sum(w.numel() for w in generator.parameters() if is_own_share(w)) / 2, rel=0.2)


def score_unequal_numbers_of_pairs(rank: int, folder: Path, models: Path) -> None:
    """Give rank 0 no pair, or one in one pass, and rank 1 three in three passes: the gradient is the sum."""
    case = Case("seq2seq", TopKMarginal(), budget=1)
    for own, other in ((0, 3), (1, 3)):
        spread, whole = opened(models / case.model, case), opened(models / case.model, case)
        spread_layers(spread.model, CPU)
        number = other if rank else own
        found = spread.log_likelihood(PROMPTS[:number], TARGETS[:number])
        found.sum().backward()
        expected = whole.log_likelihood(PROMPTS[:number], TARGETS[:number])
        torch.testing.assert_close(found, expected, rtol=rounding(len(VOCABULARY), DEPTH), atol=0)
        of_both = sum(whole.log_likelihood(PROMPTS[:n], TARGETS[:n]).sum() for n in (own, other))
        assert isinstance(of_both, Tensor)
        of_both.backward()
        Ranks().sum_gradients([weight for weight in spread.parameters() if weight.requires_grad])
        torch.testing.assert_close(gradient_norm([*spread.parameters()]), gradient_norm([*whole.parameters()]))
        for (name, weight), wanted in zip(spread.named_parameters(), whole.parameters(), strict=True):
            assert weight.grad is not None
            assert wanted.grad is not None
            torch.testing.assert_close(gathered(weight.grad), wanted.grad, msg=lambda m, name=name: f"{name}: {m}")
        assert count_forwards(spread, rank) == 1
        assert count_forwards(whole, rank) == rank


def compute_in_bfloat16(rank: int, folder: Path, models: Path) -> None:
    """Compute as autocast does: the gradient is as near to that of fp32, and autocast has nothing to keep."""
    for case in CASES.values():
        spread, cast, exact = (opened(models / case.model, case) for _ in range(3))
        spread_layers(spread.model, CPU, torch.bfloat16)
        seen = []
        layer = next(
            part for part in spread.model.modules() if isinstance(part, nn.Linear) and is_own_share(part.weight)
        )
        layer.register_forward_pre_hook(lambda part, _, seen=seen: seen.append(part.weight.dtype))
        for model in (spread, cast, exact):
            with torch.autocast("cpu", torch.bfloat16, enabled=model is not exact):
                loss = model.log_likelihood(PROMPTS, TARGETS).sum()
            loss.backward()
        assert set(seen) == {torch.bfloat16}
        here = [is_own_share(weight) and weight.requires_grad for weight in spread.parameters()]
        gradients = [
            torch.cat([gathered(w.grad).flatten() for w, own in zip(model.parameters(), here, strict=True) if own])
            for model in (spread, cast, exact)
        ]
        assert gradients[0].dtype == torch.float32
        got, autocast, wanted = gradients[0] / 2, *gradients[1:]  # both ranks scored the same pairs
        distance, usual = ((one - wanted).norm() / wanted.norm() for one in (got, autocast))
        # Each of the two rounds what enters a product, and what leaves it, to bfloat16: three numbers a product.
        assert 0 < distance < usual + 3 * DEPTH * BF16_UNIT


def gathered(value: Tensor) -> Tensor:
    return value.full_tensor() if is_own_share(value) else value


def put_whole_weights_in_their_place(rank: int, folder: Path, models: Path) -> None:
    case = Case("causal", TopKMarginal())
    spread, whole = opened(models / case.model, case), opened(models / case.model, case)
    spread_layers(spread.model, CPU)
    with torch.no_grad():
        for wanted in whole.parameters():
            wanted.mul_(2).add_(1)
        for weight, wanted in zip(spread.parameters(), whole.parameters(), strict=True):
            put(wanted, weight)
    with gather_weights(spread):
        if rank == 0:
            for (name, weight), wanted in zip(spread.named_parameters(), whole.parameters(), strict=True):
                assert torch.equal(weight, wanted), name
    assert sum(is_own_share(weight) for weight in spread.parameters()) > 0, "spread again"


def go_on_from_a_checkpoint(rank: int, folder: Path, models: Path) -> None:
    """Stop a run after its first step: it ends with the weights of one that was not stopped, to the last bit."""
    case, whole, out = CASES["adapters"], folder / f"whole.{rank}", folder / "stopped"
    trained(models, case, whole, spread=True)
    stop = Interrupts()
    stop.is_requested = True
    with pytest.raises(Interrupted, match="after step 1 of training"):
        trained(models, case, out, spread=True, interrupts=stop)
    generator = trained(models, case, out, spread=True, resume=True)
    with gather_weights(generator):
        if rank == 0:
            wanted = load_file(whole / "weights.safetensors")
            learned = {name: weight for name, weight in generator.named_parameters() if weight.requires_grad}
            for name, weight in learned.items():
                assert torch.equal(weight, wanted[f"generator.{name}"]), name


def find_unequal_models(rank: int, folder: Path, models: Path) -> None:
    """Give the ranks two models, whose halves would make a third."""
    generator = opened(models / "causal", CASES["decoder-only"])
    with torch.no_grad():
        next(list_spread_weights(generator.model)).add_(rank)
    with pytest.raises(UserError, match="weights of process 1 are not those of process 0"):
        Ranks().require_equal([*generator.parameters()])


def move_one_layer_after_the_other(rank: int, folder: Path, models: Path) -> None:
    """Free each whole layer before the next is moved, so that a device need not hold all of them."""
    generator = opened(models / "causal", CASES["decoder-only"])
    ((_, layers),) = find_stacks(generator.model)
    whole = [[weakref.ref(weight) for weight in layer.parameters() if weight.dim() > 1] for layer in layers]
    left: list[int] = []

    def watched(module: nn.Module, **options: object) -> object:
        left.append(sum(ref() is not None for layer in whole for ref in layer))
        return fully_shard(module, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("retrograd.models.compute.fsdp.fully_shard", watched)
        spread_layers(generator.model, CPU)
    assert left == [2 * len(whole[0]), len(whole[0]), 0]


def say_what_is_too_much(rank: int, folder: Path, models: Path) -> None:
    """Where one rank finds no memory between two layers, nobody can tell the other, who waits for it: both end. Comes
    last, for afterwards no rank hears of another."""
    model, examples = build(models / "encoder", models / "seq2seq", RankCase(TopKMarginal()))
    spread_layers(model.generator.model, CPU)
    stage = Stage("training", TopKMarginal(), GeneratorEvidence(3), Pace(1, 8, 1e-2, 1e-2), EverySteps(1))
    run = RunDirectory.create(folder / f"memory.{rank}", "", "no")

    def failing(*_: object) -> object:
        raise torch.OutOfMemoryError("here")

    says = "with 4 queries at once.* generator.fsdp .* training.micro_batch = 2"
    with pytest.MonkeyPatch.context() as patched:
        if rank == 1:
            patched.setattr(Generator, "token_log_likelihood", failing)
        with (
            pytest.raises(UserError, match=says if rank == 1 else "another process of this run has ended"),
            explain_lost_process(),
        ):
            train(model, examples, stage, run, torch.Generator().manual_seed(0))
    (folder / f"ended.{rank}").touch()


CHECKS: list[Callable[[int, Path, Path], None]] = [
    score_unequal_numbers_of_pairs,
    compute_in_bfloat16,
    put_whole_weights_in_their_place,
    train_all_cases,
    go_on_from_a_checkpoint,
    find_unequal_models,
    move_one_layer_after_the_other,
    say_what_is_too_much,
]


def run_rank(folder: Path, models: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    for check in CHECKS:
        try:
            check(rank, folder, models)
        except BaseException:
            (folder / f"failed.{check.__name__}.{rank}").write_text(traceback.format_exc())
            raise
    os._exit(0)  # as a process that ends, without waiting for the other


# ---- here ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(
    tiny_encoder: Path,
    tiny_seq2seq: Path,
    tiny_causal: Path,
    tiny_bart: Path,
    tiny_pointer: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny = {"encoder": tiny_encoder, "seq2seq": tiny_seq2seq, "causal": tiny_causal, "bart": tiny_bart}
    tiny["pointer"] = tiny_pointer
    for name, model in tiny.items():
        (folder / name).symlink_to(model)
    return folder


@pytest.fixture(scope="module")
def two(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which two processes wrote their results."""
    folder = tmp_path_factory.mktemp("spread")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", __name__]
    done = subprocess.run([*launch, str(folder), str(models)], cwd=ROOT, check=False, timeout=300)
    failures = [path.read_text() for path in sorted(folder.glob("failed.*"))]
    assert not failures, "\n".join(failures)
    assert done.returncode == 0
    assert len(list(folder.glob("ended.*"))) == 2
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_halves_train_what_one_process_trains(name: str, two: Path, models: Path, tmp_path: Path) -> None:
    with plain_descent():
        alone = trained(models, CASES[name], tmp_path / "alone", spread=False)
    found = load_file(two / f"{name}.0" / "weights.safetensors")
    same_weights(load_file(tmp_path / "alone" / "weights.safetensors"), found, TOLERANCE)
    lines = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (two / f"{name}.0", tmp_path / "alone")]
    norms = [[json.loads(line)["gradient_norm_generator"] for line in text] for text in lines]
    assert norms[0] == pytest.approx(norms[1], rel=LOGGED, abs=LOGGED)
    said = [json.loads((two / f"{name}.{rank}" / "answers.json").read_text()) for rank in range(2)]
    alone.eval()
    wanted = answers(alone)
    assert said[0]["written"] == said[1]["written"] == wanted["written"]
    torch.testing.assert_close(
        torch.tensor(said[0]["chosen"]), torch.tensor(wanted["chosen"]), rtol=LOGGED, atol=LOGGED
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_what_was_spread_is_saved_whole(name: str, two: Path, models: Path) -> None:
    """A saved model opens where nothing is spread."""
    case = CASES[name]
    saved = Generator.load(two / f"{name}.0" / "generator", str(models / case.model))
    assert not is_spread(saved)
    kept = load_file(two / f"{name}.0" / "weights.safetensors")
    weights = {f"generator.{key}": w.detach() for key, w in saved.named_parameters() if w.requires_grad}
    same_weights(weights, {key: weight for key, weight in kept.items() if key.startswith("generator.")}, 0.0)


def test_a_model_that_drops_layers_is_named(tiny_bart: Path) -> None:
    model = opened(tiny_bart, CASES["with biases"]).model
    model.model.decoder.layerdrop = 0.1
    with pytest.raises(UserError, match=r"BartForConditionalGeneration drops whole layers .* decoder_layerdrop to 0"):
        spread_layers(model, CPU)
    require_spreadable(model, dropout=False)  # then it is never in training mode


def test_a_model_without_layers_is_named() -> None:
    with pytest.raises(UserError, match=r"generator.fsdp is true, but Linear has no list of layers"):
        spread_layers(nn.Linear(2, 2), CPU)


if __name__ == "__main__":  # as torchrun starts it
    run_rank(*map(Path, sys.argv[1:]))
