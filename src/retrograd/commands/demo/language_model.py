"""The demonstration with a language model: questions about invented islands, answered before and after training.

Retriever and generator learn from questions and answers alone, by JSA with exact weights; that each question has one
right passage is used to score, and to nothing else.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from retrograd.commands.demo.islands import invent_islands
from retrograd.data.examples import GroundedExample
from retrograd.evaluation.evaluate import Evaluation
from retrograd.experiments.data.source import Data
from retrograd.experiments.run import train_and_score
from retrograd.recipes.smollm2 import questions_joint
from retrograd.tasks.judging import judge_answers
from retrograd.util.files import unused_folder

__all__ = ["run_language_model_demo"]

_FILES = {"base": "passages", "train": "train", "test": "test"}
_FILES = {"base": "passages", "train": "train", "test": "test"}
_TRAIN_PLACES, _TEST_PLACES = 24, 8
_SHOWN = 8
_SCORES = {
    "exact_match": "exact match",
    "f1": "F1",
    "gold_recall@1": "best passage is right",
    "citation_precision@1": "first citation is right",
    "citation_prior_precision@1": "… without the answer",
    "citation_chance": "… by chance",
}
_SETTINGS = ["data.train_count=0", "data.test_count=0", "training.epochs=2", "training.retriever_learning_rate=1e-4"]
_SETTINGS += ["generator.max_target_tokens=12"]


def run_language_model_demo(out: Path, seed: int, changes: list[str] | None = None) -> list[Evaluation]:
    """Answer the test questions with the untrained model, train it, answer them again; print both with citations.

    ``changes`` are ``section.setting=value`` assignments. An existing ``out`` is left alone and a numbered folder
    beside it is used. Returns both evaluations.
    """
    console = Console(soft_wrap=True)
    began = time.perf_counter()
    folder = unused_folder(out)
    files = [f"data.{part}={folder / 'data' / name}.jsonl" for part, name in _FILES.items()]
    trained = replace(questions_joint(), name="trained", seed=seed)
    trained = trained.with_settings([*files, *_SETTINGS, *(changes or [])])
    invent_islands(seed, _TRAIN_PLACES, _TEST_PLACES).save(folder / "data")
    untrained = replace(trained, name="untrained", training=replace(trained.training, epochs=0))
    data = trained.data.load(seed)
    console.print(_introduction(data), highlight=False)
    evaluations = [
        train_and_score(experiment, data, folder / experiment.name).required_evaluation
        for experiment in (untrained, trained)
    ]
    _print_answers(console, data, *evaluations)
    _print_scores(console, *evaluations)
    console.print(
        f"\nAll of it took {time.perf_counter() - began:.0f} s. The runs are in {folder}.\nNext:\n"
        f"  retrograd search {folder / 'trained'} {data.test[0].query!r}\n"
        f"  retrograd evaluate {folder / 'trained'} --confidence\n"
        f"  retrograd synthesise PASSAGES --out pairs.jsonl   # questions about passages of your own",
        highlight=False,
        markup=False,
    )
    return evaluations


def _introduction(data: Data) -> str:
    return (
        f"Questions about invented islands, which no model can know: {len(data.base)} passages, {len(data.train)} "
        f"questions with answers to train on,\n{len(data.test)} about other places to test on. No question says which "
        f"passage answers it.\nSmolLM2-135M-Instruct answers from two passages; then it and the retriever learn as "
        f"one.\n"
    )


def _print_answers(console: Console, data: Data, before: Evaluation, after: Evaluation) -> None:
    """Print the first test questions with both answers, and what each cites: + is right, - is wrong."""
    rows = [_describe(data, evaluation) for evaluation in (before, after)]
    for example, *lines in list(zip(data.test, *rows, strict=True))[:_SHOWN]:
        console.print(f"{example.query}  ({example.target})", highlight=False, markup=False)
        for name, line in zip(("before", "after"), lines, strict=True):
            console.print(f"  {name:<6} {line}", highlight=False, markup=False)


def _describe(data: Data, evaluation: Evaluation) -> list[str]:
    """Return each answer with its first citation, its probability and two marks."""
    judged = judge_answers(data.task, data.test, [prediction.answer for prediction in evaluation.predictions])
    lines: list[str] = []
    for example, prediction, right in zip(data.test, evaluation.predictions, judged.correctness, strict=True):
        cited = prediction.citations[0]
        gold = isinstance(example, GroundedExample) and cited.passage_id in example.gold_passages
        lines.append(
            f"{'+' if right else '-'} {prediction.answer}   {'+' if gold else '-'} [{cited.passage_id}, "
            f"{cited.probability:.0%}]"
        )
    return lines


def _print_scores(console: Console, before: Evaluation, after: Evaluation) -> None:
    table = Table(title=f"All {len(before.predictions)} test questions, in percent", title_justify="left")
    table.add_column("")
    for heading in ("before", "after"):
        table.add_column(heading, justify="right")
    for name, words in _SCORES.items():
        table.add_row(words, *(f"{evaluation.scores[name]:.1f}" for evaluation in (before, after)))
    console.print(table)
