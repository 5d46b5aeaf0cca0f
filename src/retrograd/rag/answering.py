"""Answers: argmax_y Σ_z p(z|x) p(y|x,z), or argmax_y p(y|x, soft slots), over a closed set or generated candidates.

Without a closed set each passage's own greedy answer is a candidate, scored under all K passages: "thorough decoding"
of Lewis et al. 2020 (arXiv 2005.11401), §2.5. Each distinct prompt, and each distinct (prompt, answer), is run once.
With soft slots, or all passages in one prompt, there is one greedy answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrograd.corpus.knowledge_base import KnowledgeBase
from retrograd.models.generator import Generator
from retrograd.models.prefix_tree import Scoring
from retrograd.models.soft_input import SoftInput
from retrograd.objectives.differentiable_knn import Selection
from retrograd.objectives.functional import masked_log_softmax
from retrograd.rag.candidates import Candidates
from retrograd.rag.decision import ChoiceScores, Decision
from retrograd.rag.likelihood import supported
from retrograd.tasks.task import Support, Task
from retrograd.types import Example, Prediction

__all__ = ["Manner", "Reading", "answers", "choice_scores", "soft_reading", "text_reading", "votes"]


@dataclass(frozen=True)
class Manner:
    """How a model answers: by choosing among the permitted answers, where a task has a closed set, or by writing; from
    passages read one by one, or all of them in one prompt, best first.
    """

    answers: Literal["chosen", "written"] = "chosen"
    reading: Literal["singly", "together"] = "singly"


@dataclass(frozen=True)
class Reading:
    """What is read for each query, on the CPU: passages one by one, ``together`` in one prompt, or in ``soft`` slots.

    ``log_weight`` is the log-weight of each row, log p(z|x) renormalised or its share of the slots; ``log_vote`` its
    share in a vote of the neighbours. Row -1 is no passage: with weight 0 (``-inf``) padding, else the query alone.
    A prediction lists at most ``shown`` passages, the heaviest.
    """

    rows: Int[Tensor, "B K"]
    log_weight: Float[Tensor, "B K"]
    log_vote: Float[Tensor, "B K"]
    soft: SoftInput | None = None
    together: bool = False
    shown: int | None = None


def text_reading(found: Candidates, manner: Manner) -> Reading:
    """Candidates as passages of a prompt: their weight, and their vote, is p(z|x) renormalised."""
    log_prior = masked_log_softmax(found.scores.log_prior).cpu()
    return Reading(found.rows.cpu(), log_prior, log_prior.clone(), together=manner.reading == "together")


def soft_reading(
    found: Candidates, selection: Selection, slots: Callable[[Float[Tensor, "B R K"]], SoftInput]
) -> Reading:
    """Candidates in soft slots, which ``slots`` fills: a passage's weight is the mean of its shares of them."""
    near = selection.neighbourhood(found.scores)
    weight = near.weights(selection.slots, selection.operator)
    share = weight.sum(dim=1)
    share = share / share.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)
    log_vote = near.log_vote().cpu()
    return Reading(found.rows.cpu(), share.log().cpu(), log_vote, slots(weight), shown=selection.slots)


def answers(
    generator: Generator,
    task: Task,
    base: KnowledgeBase,
    examples: Sequence[Example],
    reading: Reading,
    scoring: Scoring,
    decision: Decision,
    support: Support | None,
    closed: bool = True,
) -> list[Prediction]:
    """One prediction per example with its passages, heaviest first under p(z|x, answer).

    A closed set is what the task permits for each example; ``scoring`` says how its answers are compared
    (`retrograd.models.prefix_tree`), ``decision`` which of them is taken; ``support`` lets passages vote. Without
    ``closed`` answers are written, whatever the task permits.
    """
    prompts, where = _prompts(task, base, examples, reading)
    choices = _permitted(task, examples) if closed else None
    if choices is not None:
        joint = _joint(generator, prompts, where, choices, reading, scoring)
        scores = _choice_scores(task, examples, choices, joint, reading, support if decision.vote_weight > 0 else None)
        decided = [(decision(one), decision.chosen(one)) for one in scores]
        return [
            _prediction(base, example, choices[b][best], joint[b][:, best], float(log_p[best]), reading, b)
            for b, (example, (log_p, best)) in enumerate(zip(examples, decided, strict=True))
        ]
    written = generator.generate(prompts, soft=reading.soft)
    possible = reading.log_weight > -torch.inf
    candidates = [
        list(dict.fromkeys(written[prompt] for prompt, open_ in zip(found, usable, strict=True) if open_))
        for found, usable in zip(where.tolist(), possible.tolist(), strict=True)
    ]
    score = _score_pairs(generator, prompts, where, candidates, reading.soft)
    found = []
    for b, example in enumerate(examples):
        joint = reading.log_weight[b].unsqueeze(-1) + score[b]
        total = joint.logsumexp(dim=0)
        best = int(total.argmax())
        found.append(_prediction(base, example, candidates[b][best], joint[:, best], float(total[best]), reading, b))
    return found


def choice_scores(
    generator: Generator,
    task: Task,
    base: KnowledgeBase,
    examples: Sequence[Example],
    reading: Reading,
    scoring: Scoring,
    support: Support | None,
) -> list[ChoiceScores] | None:
    """What speaks for each permitted answer, the vote included; None where the set of answers is open."""
    choices = _permitted(task, examples)
    if choices is None:
        return None
    prompts, where = _prompts(task, base, examples, reading)
    joint = _joint(generator, prompts, where, choices, reading, scoring)
    return _choice_scores(task, examples, choices, joint, reading, support)


def votes(
    support: Support,
    examples: Sequence[Example],
    choices: Sequence[Sequence[str]],
    rows: Int[Tensor, "B K"],
    log_vote: Float[Tensor, "B K"],
) -> list[Float[Tensor, " _"]]:
    """For each example and choice the share of the vote on passages that support it."""
    asked = [replace(e, targets=(choice,)) for e, own in zip(examples, choices, strict=True) for choice in own]
    sizes = [len(own) for own in choices]
    repeated = torch.repeat_interleave(torch.arange(len(examples)), torch.tensor(sizes))
    share = supported(support, asked, rows[repeated]) * log_vote[repeated].exp()
    return list(share.sum(dim=-1).split(sizes))


def _permitted(task: Task, examples: Sequence[Example]) -> list[tuple[str, ...]] | None:
    found = [own for own in map(task.choices_for, examples) if own is not None]
    return found if len(found) == len(examples) else None


def _joint(
    generator: Generator,
    prompts: list[str],
    where: Int[Tensor, "B K"],
    choices: list[tuple[str, ...]],
    reading: Reading,
    scoring: Scoring,
) -> list[Float[Tensor, "K _"]]:
    """log p(z|x) p(choice|x,z) for each example; with soft slots every row reads the same prompt."""
    asked, pairs = _distinct_questions(where, choices)
    score = generator.choice_log_likelihood(
        [prompts[prompt] for prompt, _ in asked], [own for _, own in asked], scoring, reading.soft
    ).cpu()
    return [reading.log_weight[b].unsqueeze(-1) + score[pairs[b], : len(own)] for b, own in enumerate(choices)]


def _choice_scores(
    task: Task,
    examples: Sequence[Example],
    choices: list[tuple[str, ...]],
    joint: list[Float[Tensor, "K _"]],
    reading: Reading,
    support: Support | None,
) -> list[ChoiceScores]:
    """``support`` None leaves the vote out."""
    voted = [torch.zeros(len(own)) for own in choices]
    if support is not None:
        voted = votes(support, examples, choices, reading.rows, reading.log_vote)
    negative = [task.negative_for(example) for example in examples]
    return [
        ChoiceScores(own, one.logsumexp(dim=0).log_softmax(dim=0), vote, own.index(no) if no in own else None)
        for own, one, vote, no in zip(choices, joint, voted, negative, strict=True)
    ]


def _prompts(
    task: Task, base: KnowledgeBase, examples: Sequence[Example], reading: Reading
) -> tuple[list[str], Int[Tensor, "B K"]]:
    """Prompts, and which of them each (example, row) uses: distinct ones or, of passages together or beside soft slots,
    one an example."""
    if reading.soft is not None:  # it belongs to the example, so equal prompts are not one
        return [task.prompt(example, ()) for example in examples], _one_each(reading)
    rows = reading.rows.tolist()
    distinct = sorted({row for found in rows for row in found if row >= 0})
    passages = dict(zip(distinct, base.passages(distinct), strict=True))
    if reading.together:
        best_first = reading.rows.gather(1, reading.log_weight.argsort(dim=-1, descending=True, stable=True)).tolist()
        read = [[passages[row] for row in found if row >= 0] for found in best_first]
        return [task.prompt(example, own) for example, own in zip(examples, read, strict=True)], _one_each(reading)
    number: dict[str, int] = {}
    where = [
        [number.setdefault(task.prompt(example, [passages[row]] if row >= 0 else []), len(number)) for row in found]
        for example, found in zip(examples, rows, strict=True)
    ]
    return list(number), torch.tensor(where)


def _one_each(reading: Reading) -> Int[Tensor, "B K"]:
    """Every row of an example reads the example's one prompt."""
    return torch.arange(len(reading.rows)).unsqueeze(-1).expand_as(reading.rows)


def _distinct_questions(
    where: Int[Tensor, "B K"], choices: list[tuple[str, ...]]
) -> tuple[list[tuple[int, tuple[str, ...]]], list[Int[Tensor, " K"]]]:
    """Distinct (prompt, choices), and which of them each example's passages ask."""
    number: dict[tuple[int, tuple[str, ...]], int] = {}
    pairs = [
        torch.tensor([number.setdefault((prompt, own), len(number)) for prompt in used])
        for used, own in zip(where.tolist(), choices, strict=True)
    ]
    return list(number), pairs


def _score_pairs(
    generator: Generator,
    prompts: list[str],
    where: Int[Tensor, "B K"],
    candidates: list[list[str]],
    soft: SoftInput | None,
) -> list[Float[Tensor, "K _"]]:
    """log p(answer | prompt) of every example's prompts and candidate answers, each distinct pair once."""
    number: dict[tuple[int, str], int] = {}
    asked = [
        [[number.setdefault((prompt, text), len(number)) for text in texts] for prompt in found]
        for found, texts in zip(where.tolist(), candidates, strict=True)
    ]
    chosen = [prompt for prompt, _ in number]
    score = generator.log_likelihood(
        [prompts[prompt] for prompt in chosen], [text for _, text in number], soft and soft.at(chosen)
    ).cpu()
    return [score[torch.tensor(pairs)] for pairs in asked]


def _prediction(
    base: KnowledgeBase,
    example: Example,
    answer: str,
    joint: Float[Tensor, " K"],
    log_probability: float,
    reading: Reading,
    b: int,
) -> Prediction:
    """``joint`` is log p(z|x) p(answer|x,z), up to a constant; ``b`` is the place of the example."""
    rows, weight = reading.rows[b], joint.softmax(dim=0)
    order = [k for k in weight.argsort(descending=True, stable=True).tolist() if rows[k] >= 0][: reading.shown]
    found = [int(rows[k]) for k in order]
    return Prediction(
        id=example.id,
        answer=answer,
        log_probability=log_probability,
        rows=tuple(found),
        passage_ids=tuple(passage.id for passage in base.passages(found)),
        weights=tuple(float(weight[k]) for k in order),
    )
