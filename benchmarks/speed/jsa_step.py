"""A JSA step, against the released algorithm at equal error of the gradient.

The released algorithm proposes 50 passages of each question, one question at a time, scores every proposal, repeated
ones too, and restarts its chain at each visit; both retrievers are normalised over the candidates. Ours scores each
candidate once, for all questions together, and takes exact weights over them. The reference is the gradient of the
exact responsibilities over the whole base. Independent steps that are averaged divide the squared error by their
number, so the seconds that an error costs are seconds · squared error; the value is their ratio. Where most of an error
is bias, averaging does not help, and the ratio favours whoever has less of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import mean, median

import torch
from benchmarks.speed.joint_step import OurStep, make_model, texts
from benchmarks.speed.measuring import Aim, Measured, Row

from retrograd.evaluation.laboratory.measure import Estimator
from retrograd.evaluation.laboratory.tabulate import Bench, tabulate
from retrograd.evaluation.laboratory.training_step import reference_step, training_step
from retrograd.objectives.jsa import JointStochasticApproximation
from retrograd.rag.rag_model import RagModel

__all__ = ["ROWS"]

_QUESTIONS, _PASSAGES, _DRAWS, _STEPS = 4, 5, 50, 20
_BUDGET = 2_000
_OURS = Estimator("exact weights", JointStochasticApproximation(), _PASSAGES)
_RELEASED = Estimator(
    "released",
    JointStochasticApproximation(
        sampler="metropolis", draws=_DRAWS, chain="cold", normaliser="candidates", kept_mass=1.0
    ),
    _PASSAGES,
)


def measure_part(part: str) -> Callable[[int], Measured]:
    """Return the measurement of the gradient of one part of the model."""

    def measure(repeats: int) -> Measured:
        model = make_model("seq2seq", "query", "fp32", posterior=True)
        warm = OurStep(model, _PASSAGES, _QUESTIONS)
        for _ in range(_STEPS):
            warm.step()
        model.refresh_index()
        model.eval()
        bench = tabulate(model, texts()[1][:_QUESTIONS], _PASSAGES, _BUDGET)
        reference = reference_step(model, bench, _QUESTIONS)
        ways = {
            "ours": partial(training_step, model, bench, _OURS, micro_batch=_QUESTIONS),
            "released": partial(training_step, model, bench, _RELEASED, micro_batch=1),
        }
        errors: dict[str, list[float]] = {name: [] for name in ways}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for seed in range(max(8, repeats)):
            for name, step in ways.items():
                done = step(torch.Generator().manual_seed(seed))
                error = done.error(reference, part)
                assert error is not None
                errors[name].append(error)
                seconds[name].append(done.seconds + (_score_repeated(model, bench, seed) if name == "released" else 0))
        cost = {name: median(seconds[name]) * mean(errors[name]) for name in ways}
        note = (
            f"squared error {mean(errors['ours']):.2g} against {mean(errors['released']):.2g}; {_QUESTIONS} questions, "
            f"{_PASSAGES} + {_PASSAGES} candidates of {len(model.base)} passages, after {_STEPS} steps"
        )
        return [cost["released"] / cost["ours"]], {name: median(own) for name, own in seconds.items()}, note

    return measure


@torch.no_grad()
def _score_repeated(model: RagModel, bench: Bench, seed: int) -> float:
    """Return the seconds of scoring repeated proposals, question by question; distinct ones are in the step."""
    rng, seconds = torch.Generator().manual_seed(seed), 0.0
    column = bench.tables.best(_PASSAGES, with_posterior=True)
    assert bench.tables.log_posterior is not None
    for number, example in enumerate(bench.examples):
        own = column[number][column[number] >= 0]
        share = bench.tables.log_posterior[number][own].softmax(-1)
        drawn = own[torch.multinomial(share, _DRAWS + 1, replacement=True, generator=rng)].tolist()
        repeated = [one for place, one in enumerate(drawn) if one in drawn[:place]]
        rows = [int(bench.rows[number][one]) for one in repeated]
        prompts = [model.task.prompt(example, [passage]) for passage in model.base.passages(rows)]
        began = time.perf_counter()
        model.generator.log_likelihood(prompts, [example.target] * len(prompts))
        seconds += time.perf_counter() - began
    return seconds


ROWS = tuple(
    Row(
        f"jsa-{part}",
        f"gradient of the {part} by a JSA step, at equal error",
        "released: 50 proposals, one by one",
        measure_part(part),
        Aim(5.0),
    )
    for part in ("prior", "generator")
)
