"""Check one of several answers per visit: drawn from the stage's own source, counted, and kept by the chains."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.training.test_loop import build, run, stage

from retrograd.objectives import JointStochasticApproximation, TopKMarginal
from retrograd.training.run.run_directory import TIMES
from retrograd.training.sampling.targets import Targets
from retrograd.types import Example, UserError

EXAMPLES = [Example("a", "q", ("one",)), Example("b", "q", ("one", "two", "three")), Example("c", "q", ("x", "y"))]


def test_the_first_takes_nothing_from_the_source_of_randomness() -> None:
    rng = torch.Generator().manual_seed(0)
    before = rng.get_state()
    targets = Targets(EXAMPLES, "first")
    assert targets.draw(torch.arange(3), rng).tolist() == [0, 0, 0]
    assert torch.equal(rng.get_state(), before)
    assert targets.visits() == {}
    assert targets.visits_of_each() == []
    assert targets.choices.tolist() == [1, 1, 1]


def test_all_answers_are_equally_likely_and_are_counted() -> None:
    targets = Targets(EXAMPLES, "sampled")
    visits, rng = 6_000, torch.Generator().manual_seed(0)
    drawn = targets.draw(torch.ones(visits, dtype=torch.long), rng)
    counts = drawn.bincount()
    assert len(counts) == 3
    assert ((counts / visits - 1 / 3).abs() < 5 * (2 / 9 / visits) ** 0.5).all()
    assert targets.visits() == {f"visits_of_target_{i}": int(n) for i, n in enumerate(counts)}
    assert targets.visits_of_each() == [[0], counts.tolist(), [0, 0]]
    assert (targets.draw(torch.zeros(50, dtype=torch.long), rng) == 0).all()
    again = Targets(EXAMPLES, "sampled")
    again.load(targets.state())
    assert again.visits_of_each() == [[50], counts.tolist(), [0, 0]]
    assert again.visits()["visits_of_target_0"] == 50 + counts[0]


def test_the_drawn_target_is_the_one_that_is_trained_on() -> None:
    chosen = Targets.first(EXAMPLES, torch.tensor([0, 2, 1]))
    assert [example.target for example in chosen] == ["one", "three", "y"]
    assert chosen[1].targets == ("three", "one", "two")
    assert chosen[0] is EXAMPLES[0]


def test_an_example_without_a_target_says_so() -> None:
    with pytest.raises(UserError, match="'d' has no target"):
        Targets([Example("d", "q")], "sampled")


@pytest.mark.parametrize("micro_batch", [0, 3])
def test_a_stage_writes_how_often_each_answer_was_trained_on(
    micro_batch: int, tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq, "query", posterior=True)
    labels = [example.target for example in examples[::4]]
    several = [replace(example, targets=(example.target, *labels)) for example in examples]
    objective = JointStochasticApproximation("metropolis", draws=2)
    what = replace(stage(objective, epochs=3, micro_batch=micro_batch), targets="sampled", save_every=2)
    log = run(model, several, what, tmp_path / "run")
    visits = [log[-1][f"visits_of_target_{position}"] for position in range(4)]
    assert sum(visits) == 3 * len(examples)
    assert min(visits) > 0
    told = [json.loads(line) for line in (tmp_path / "run" / "targets" / "training.jsonl").read_text().splitlines()]
    assert [line["id"] for line in told] == [example.id for example in several]
    assert all(sum(line["visits"]) == 3 for line in told)
    assert [sum(line["visits"][position] for line in told) for position in range(4)] == visits
    saved = load_file(tmp_path / "run" / "chains" / "training.safetensors")
    assert saved["targets"].tolist() == [4] * len(examples)
    # As many chains as different pairs were visited: no more than visits, and more than examples.
    assert len(examples) < int((saved["row"] != -1).sum()) <= 3 * len(examples)
    last = load_file(tmp_path / "run" / "checkpoints" / "0003-training-step-0000006" / "chains.safetensors")
    assert torch.equal(last["row"], saved["row"])


def test_what_is_drawn_does_not_depend_on_how_a_batch_is_split(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    logs = []
    for micro_batch in (0, 3):
        model, examples = build(tiny_encoder, tiny_seq2seq, "query")
        several = [replace(example, targets=(example.target, examples[0].target)) for example in examples]
        what = replace(stage(TopKMarginal(), micro_batch=micro_batch), targets="sampled")
        line = run(model, several, what, tmp_path / f"run{micro_batch}")[-1]
        logs.append({name: value for name, value in line.items() if name not in TIMES})
    assert logs[0] == logs[1]
    assert "visits_of_target_1" in logs[0]
