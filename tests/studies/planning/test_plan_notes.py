"""What a plan says of masked sentences (steps as in the run, or an estimate that is called one) and of many draws."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from retrograd.experiments.experiment import Experiment
from retrograd.experiments.settings import MaskingSettings
from retrograd.experiments.stages import count_masked, masked_examples
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.studies.planning.hardware import Hardware
from retrograd.studies.planning.plan import plan_experiment
from retrograd.types import Passage, UserError

BIG = Hardware("big", 10**12, 1e12, 0.5, bf16=False)


def write(path: Path, records: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.fixture
def masked(tmp_path: Path, tiny_encoder: Path, tiny_seq2seq: Path) -> Experiment:
    """Twelve passages, two of three of which have a number."""
    ends = [f"{i + 10} cups of tea" if i % 3 else "many cups" for i in range(12)]
    base = [{"id": f"p{i}", "text": f"the box in the rain on the car holds {end} ."} for i, end in enumerate(ends)]
    train = [{"question": f"which cup is number {i} ?", "answers": ["tea"]} for i in range(6)]
    settings = [
        "data.kind=questions",
        f"data.base={write(tmp_path / 'base.jsonl', base)}",
        f"data.train={write(tmp_path / 'train.jsonl', train)}",
        f"retriever.model={tiny_encoder}",
        f"generator.model={tiny_seq2seq}",
        "training.batch_size=3",
        "training.passages=2",
        "training.precision=fp32",
        "warm_start.epochs=0",
        "masking.epochs=2",
    ]
    return Experiment().with_settings(settings)


def test_masked_sentences_are_counted_where_the_base_is_read(masked: Experiment) -> None:
    plan = plan_experiment(masked, BIG)
    base = masked.data.load(0).base
    count = len(masked_examples(base, masked.masking, torch.Generator()))
    assert count == 8
    by_name = {cost.stage.name: cost for cost in plan.stages}
    assert by_name["masking"].stage.steps == 2 * math.ceil(count / 3)
    assert by_name["masking"].seconds is not None
    assert plan.seconds is not None
    assert not any("mask" in note for note in plan.notes)


def test_what_is_not_known_of_masking_is_said(masked: Experiment, tmp_path: Path) -> None:
    some = plan_experiment(masked.with_settings(["masking.passages=6"]), BIG)
    assert some.stages[0].stage.steps == 2 * math.ceil(round(8 / 12 * 6) / 3)
    assert any("steps of masking are estimates" in note for note in some.notes)
    more = plan_experiment(masked, BIG, passages=12_000)
    assert more.stages[0].stage.examples == 8_000
    assert any("steps of masking are estimates" in note for note in more.notes)
    elsewhere = masked.with_settings([f"data.base={tmp_path / 'nowhere.jsonl'}"])
    unknown = plan_experiment(elsewhere, BIG, examples=6, passages=12)
    assert unknown.stages[0].stage.steps is None
    assert unknown.seconds is None
    assert any("steps and time of masking are left out" in note for note in unknown.notes)


def test_a_plan_refuses_masking_as_training_would(masked: Experiment, tmp_path: Path) -> None:
    spans = write(tmp_path / "spans.jsonl", [{"id": "another", "spans": [[0, 3]]}])
    with pytest.raises(UserError, match="none of its 1 ids is in a passage of the base"):
        plan_experiment(masked.with_settings([f"masking.spans={spans}"]), BIG)


@pytest.mark.parametrize(
    ("more", "is_told"),
    [
        ((), True),
        (("objective.draws=2",), False),
        (("objective.chain=cold",), False),
        (("objective.sampler=exact",), False),
    ],
)
def test_many_draws_of_a_carried_chain_are_remarked_on(
    masked: Experiment, more: tuple[str, ...], is_told: bool
) -> None:
    jsa = ["objective.kind=JointStochasticApproximation", "objective.sampler=metropolis", "retriever.posterior=true"]
    notes = plan_experiment(masked.with_settings([*jsa, *more]), BIG).notes
    assert any("objective.draws is 50" in note and "set objective.draws = 2" in note for note in notes) == is_told


def test_a_large_base_is_counted_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrograd.experiments.stages._MOST_COUNTED", 50)
    base = KnowledgeBase.from_passages(
        Passage(str(i), "", f"the box in the rain on the car holds {i + 100} cups .") for i in range(200)
    )
    assert count_masked(base, MaskingSettings(epochs=1), 200, 0) == (200, False)
    assert count_masked(base, MaskingSettings(epochs=1, passages=70), 200, 0) == (70, False)


@pytest.mark.slow
def test_the_probe_of_masked_sentences_needs_no_file_of_spans(masked: Experiment, tmp_path: Path) -> None:
    """The few passages of a probe need not be those that the file names."""
    spans = write(tmp_path / "spans.jsonl", [{"id": "p0", "spans": [[4, 7]]}])
    for more in ([f"masking.spans={spans}"], []):
        plan = plan_experiment(masked.with_settings(more))
        assert plan.probed
        assert plan.seconds is not None
