"""Provoke each alarm, and check that it is silent just before its threshold and sounds once in a run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tests.training.test_loop import build, run, stage

from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.objectives import FrozenRetriever, TopKMarginal
from retrograd.objectives.objective import CandidateScores, Estimate
from retrograd.rag.candidates import Candidates
from retrograd.training.monitoring.alarms import ALARMS, Alarms
from retrograd.training.monitoring.health import Visit
from retrograd.training.run.run_directory import RunDirectory
from retrograd.training.stage import Stage
from retrograd.types import Example, UserError
from retrograd.util.guards import JsonObject
from retrograd.util.text_files import read_jsonl

K = 4


def visit(best: list[int]) -> Visit:
    """Return a micro-batch whose queries have the passages ``best`` as their best."""
    rows = torch.tensor([[row, 900, 901, 902] for row in best])
    scores = CandidateScores(torch.tensor([[0.7, 0.1, 0.1, 0.1]]).log().expand(len(best), -1))
    return Visit([], Candidates(rows, scores, None, None), Estimate(torch.zeros(()), {}))


def heard(folder: Path, values: dict[str, float], best: list[int], what: Stage | None = None) -> list[str]:
    """Return the names of the alarms that sounded after five lines."""
    run = RunDirectory(folder)
    alarms = Alarms(run, what or stage(TopKMarginal()), 100, 1_000)
    for step in range(50, 55):
        alarms.check(step, values, visit(best))
    return [str(line["alarm"]) for line in sounded(folder)]


def sounded(folder: Path) -> list[JsonObject]:
    file = folder / "metrics.jsonl"
    return [line for _, line in read_jsonl(file) if "alarm" in line] if file.exists() else []


SPREAD = list(range(32))
FLAT = math.log(K)
CASES = [
    ("retrieval collapse", {}, [7] * 9 + SPREAD[:23], {}, [7] * 7 + SPREAD[:25]),
    ("prior flat", {"prior_entropy": 0.99 * FLAT}, SPREAD, {"prior_entropy": 0.97 * FLAT}, SPREAD),
    (
        "temperature too low",
        {"prior_entropy": 0.04, "kl_responsibilities_prior": 0.6},
        SPREAD,
        {"prior_entropy": 0.04, "kl_responsibilities_prior": 0.4},
        SPREAD,
    ),
    ("candidates hold too little", {"candidate_mass": 0.04}, SPREAD, {"candidate_mass": 0.06}, SPREAD),
    ("log Z uncertain", {"log_z_error": 0.31}, SPREAD, {"log_z_error": 0.29}, SPREAD),
    (
        "posterior far off",
        {"kl_responsibilities_posterior": 2.1},
        SPREAD,
        {"kl_responsibilities_posterior": 1.9},
        SPREAD,
    ),
    ("acceptance too low", {"acceptance": 0.04}, SPREAD, {"acceptance": 0.06}, SPREAD),
    (
        "effective sample size too low",
        {"importance_efficiency": 0.09},
        SPREAD,
        {"importance_efficiency": 0.11},
        SPREAD,
    ),
    ("index stale", {"staleness_overlap": 0.69}, SPREAD, {"staleness_overlap": 0.71}, SPREAD),
    ("queries cut", {"prompts_cut": 0.06}, SPREAD, {"prompts_cut": 0.04}, SPREAD),
    ("passages cut", {"prompts_shortened": 0.6}, SPREAD, {"prompts_shortened": 0.4}, SPREAD),
]


def test_every_alarm_has_a_case() -> None:
    assert [case[0] for case in CASES] == [alarm.name for alarm in ALARMS]


@pytest.mark.parametrize(("name", "loud", "best", "quiet", "others"), CASES, ids=lambda one: str(one)[:24])
def test_an_alarm_sounds_beyond_its_threshold_and_not_before(
    name: str, loud: dict[str, float], best: list[int], quiet: dict[str, float], others: list[int], tmp_path: Path
) -> None:
    (tmp_path / "loud").mkdir()
    (tmp_path / "quiet").mkdir()
    assert heard(tmp_path / "loud", loud, best) == [name]
    assert heard(tmp_path / "quiet", quiet, others) == []


def test_an_alarm_sounds_once_in_a_stage_resumed_or_not_with_place_value_and_remedy(tmp_path: Path) -> None:
    values = {"acceptance": 0.01, "candidate_mass": 0.9}
    whole = Alarms(RunDirectory(tmp_path), stage(TopKMarginal()), 100, 1_000)
    for step in range(50, 53):
        whole.check(step, values, visit(SPREAD))
    for _ in range(2):
        part = Alarms(RunDirectory(tmp_path), stage(TopKMarginal()), 100, 1_000)
        part.load(json.loads(json.dumps(whole.state())))
        for step in range(53, 60):
            part.check(step, values, visit(SPREAD))
        whole = part
    (found,) = sounded(tmp_path)
    assert (found["stage"], found["step"], found["alarm"]) == ("training", 54, "acceptance too low")
    assert "1.0% of the chain's proposals" in str(found["says"])
    assert "proposal_share" in str(found["remedy"])


def test_nothing_sounds_at_the_beginning_nor_of_a_retriever_that_rests(tmp_path: Path) -> None:
    alarms = Alarms(RunDirectory(tmp_path), stage(TopKMarginal()), 1_000, 1_000)
    for step in range(1, 100):
        alarms.check(step, {"candidate_mass": 0.01}, visit(SPREAD))
    assert heard(tmp_path, {"candidate_mass": 0.01}, [7] * 32, stage(FrozenRetriever())) == []
    assert heard(tmp_path, {"candidate_mass": math.nan}, SPREAD) == []


def test_training_sounds_what_it_meets(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq, "query")
    model.retriever.temperature.data.fill_(1e4)
    generator = model.generator
    model.generator = Generator(generator.model, generator.tokenizer, GeneratorOptions(max_input_tokens=4))
    run(model, examples, stage(TopKMarginal(), epochs=4), tmp_path / "run")
    assert {"prior flat", "queries cut"} <= {line["alarm"] for line in sounded(tmp_path / "run")}


def test_a_likelihood_that_is_not_a_number_ends_training_and_keeps_its_batch(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq, "query")
    next(model.generator.parameters()).data.fill_(torch.nan)
    with pytest.raises(UserError, match=r"training, step 1: the log-likelihood contains NaN.*failed-batch.jsonl"):
        run(model, examples, stage(FrozenRetriever()), tmp_path)
    kept = [line for _, line in read_jsonl(tmp_path / "failed-batch.jsonl")]
    assert len(kept) == 8
    assert {str(line["id"]) for line in kept} <= {one.id for one in examples}
    assert kept[0].keys() == {"id", "query", "targets"}


def test_a_gradient_that_is_not_finite_keeps_its_batch_too(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "run", "", "no")
    directory.require_finite(1.0, [Example("a", "b", ("c",))], "training", 4)
    with pytest.raises(UserError, match=r"training, step 5: the gradient is not finite; the batch is kept in"):
        directory.require_finite(math.inf, [Example("a", "b", ("c",))], "training", 4)
    assert [line["id"] for _, line in read_jsonl(tmp_path / "run" / "failed-batch.jsonl")] == ["a"]
