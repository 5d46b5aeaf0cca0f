"""Answers by marginalisation: argmax_y Σ_z p(z|x) p(y|x,z) over a closed set of choices, or over generated candidates.

Without a closed set each passage's own greedy answer is a candidate, scored under all K passages: "thorough decoding"
of Lewis et al. 2020 (arXiv 2005.11401), §2.5. Each distinct prompt, and each distinct (prompt, answer), is run once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrograd.corpus.knowledge_base import KnowledgeBase
from retrograd.models.generator import Generator
from retrograd.models.prefix_tree import Scoring
from retrograd.tasks.task import Task
from retrograd.types import Example, Prediction

__all__ = ["answer"]


def answer(
    generator: Generator,
    task: Task,
    base: KnowledgeBase,
    examples: Sequence[Example],
    rows: Int[Tensor, "B K"],
    log_prior: Float[Tensor, "B K"],
    scoring: Scoring = "sequence",
) -> list[Prediction]:
    """One prediction per example with its passages, heaviest first under p(z|x, answer). Row -1: the query alone.

    A closed set is what the task permits for each example; ``scoring`` says how its answers are compared
    (`retrograd.models.prefix_tree`).
    """
    prompts, where = _prompts(task, base, examples, rows)
    permitted = [task.choices_for(example) for example in examples]
    choices = [list(found) for found in permitted if found is not None]
    if len(choices) == len(examples):
        asked, pairs = _distinct_questions(prompts, where, choices)
        score = generator.choice_log_likelihood(
            [prompts[prompt] for prompt, _ in asked], [list(found) for _, found in asked], scoring
        ).cpu()
        joint = [log_prior[b].unsqueeze(-1) + score[pairs[b], : len(found)] for b, found in enumerate(choices)]
        return [
            _prediction(base, example, choices[b], joint[b], rows[b], closed=True) for b, example in enumerate(examples)
        ]
    written = generator.generate(prompts)
    possible = log_prior > -torch.inf
    answers = [
        list(dict.fromkeys(written[prompt] for prompt, open_ in zip(found, usable, strict=True) if open_))
        for found, usable in zip(where.tolist(), possible.tolist(), strict=True)
    ]
    score = _score_pairs(generator, prompts, where, answers)
    return [
        _prediction(base, example, answers[b], log_prior[b].unsqueeze(-1) + score[b], rows[b])
        for b, example in enumerate(examples)
    ]


def _prompts(
    task: Task, base: KnowledgeBase, examples: Sequence[Example], rows: Int[Tensor, "B K"]
) -> tuple[list[str], Int[Tensor, "B K"]]:
    """Distinct prompts, and which of them each (example, row) uses."""
    distinct = sorted({row for found in rows.tolist() for row in found if row >= 0})
    passages = dict(zip(distinct, base.passages(distinct), strict=True))
    number: dict[str, int] = {}
    where = [
        [number.setdefault(task.prompt(example, [passages[row]] if row >= 0 else []), len(number)) for row in found]
        for example, found in zip(examples, rows.tolist(), strict=True)
    ]
    return list(number), torch.tensor(where)


def _distinct_questions(
    prompts: list[str], where: Int[Tensor, "B K"], choices: list[list[str]]
) -> tuple[list[tuple[int, tuple[str, ...]]], list[Int[Tensor, " K"]]]:
    """Distinct (prompt, choices), and which of them each example's passages ask."""
    number: dict[tuple[int, tuple[str, ...]], int] = {}
    pairs = [
        torch.tensor([number.setdefault((prompt, tuple(found)), len(number)) for prompt in used])
        for used, found in zip(where.tolist(), choices, strict=True)
    ]
    return list(number), pairs


def _score_pairs(
    generator: Generator, prompts: list[str], where: Int[Tensor, "B K"], answers: list[list[str]]
) -> list[Float[Tensor, "K C"]]:
    """log p(answer | prompt) of every example's prompts and candidate answers, each distinct pair once."""
    number: dict[tuple[int, str], int] = {}
    asked = [
        [[number.setdefault((prompt, text), len(number)) for text in texts] for prompt in found]
        for found, texts in zip(where.tolist(), answers, strict=True)
    ]
    score = generator.log_likelihood([prompts[prompt] for prompt, _ in number], [text for _, text in number]).cpu()
    return [score[torch.tensor(pairs)] for pairs in asked]


def _prediction(
    base: KnowledgeBase,
    example: Example,
    answers: list[str],
    joint: Float[Tensor, "K C"],
    rows: Int[Tensor, " K"],
    closed: bool = False,
) -> Prediction:
    """The best of the answers; of a closed set, with its probability among that set."""
    total = joint.logsumexp(dim=0)
    best = int(total.argmax())
    log_probability = total.log_softmax(dim=0) if closed else total
    weight = (joint[:, best] - total[best]).exp()
    order = [k for k in weight.argsort(descending=True, stable=True).tolist() if rows[k] >= 0]
    found = [int(rows[k]) for k in order]
    return Prediction(
        id=example.id,
        answer=answers[best],
        log_probability=float(log_probability[best]),
        rows=tuple(found),
        passage_ids=tuple(passage.id for passage in base.passages(found)),
        weights=tuple(float(weight[k]) for k in order),
    )
