"""Answer queries: argmax_y Σ_z p(z|x) p(y|x,z), or argmax_y p(y|x, soft slots), over a closed set or written texts.

A model that was trained to mix passages token by token is asked for argmax_y Π_t Σ_z p(z|x) p(y_t|x,z,y_<t) instead
(`retrograd.rag.answers.token_mixture`).
Without a closed set the generator writes an answer from each passage, and one of them is taken
(`retrograd.rag.answers.written`). Each distinct prompt, and each distinct (prompt, answer), is run once. With soft
slots, or all passages in one prompt, there is one answer, the first that beam search finds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.generator import Generator
from retrograd.models.inputs.fusion import FusedPrompt
from retrograd.models.inputs.soft_input import SoftInput
from retrograd.models.settings import Scoring
from retrograd.objectives.differentiable_knn import Selection
from retrograd.objectives.functional import masked_log_softmax
from retrograd.rag.answers.decision import ChoiceScores, Decision
from retrograd.rag.answers.manner import Manner
from retrograd.rag.answers.token_mixture import distinct_questions, score_by_tokens, write_by_tokens
from retrograd.rag.answers.written import WrittenAnswer, write_answers
from retrograd.rag.candidates import Candidates
from retrograd.rag.likelihood import find_support, join_prompt
from retrograd.tasks.judging import cannot_answer
from retrograd.tasks.task import Support, Task
from retrograd.types import ConfidenceKind, Example, Prediction, WeightKind

__all__ = [
    "DEFAULT_ANSWERING",
    "Answering",
    "Reading",
    "choice_scores",
    "choose_answers",
    "count_votes",
    "read_alone",
    "read_as_slots",
    "read_as_text",
    "read_candidates",
    "withhold_unsure",
]


@dataclass(frozen=True)
class Answering:
    """The settings by which a model turns candidates into an answer.

    ``selection`` fills soft slots with them; with None they are read as text, in the ``manner``. ``decision`` takes one
    of the permitted answers. ``passages`` is how many are read where a caller does not say, and ``scoring`` how the
    answers of a closed set are compared. An answer whose log p(y|x), in nats, is less than ``abstain_below`` is
    withheld (`withhold_unsure`); None withholds none.
    """

    manner: Manner = field(default_factory=Manner)
    selection: Selection | None = None
    decision: Decision = field(default_factory=Decision)
    passages: int = 5
    scoring: Scoring = "sequence"
    abstain_below: float | None = None


DEFAULT_ANSWERING = Answering()


@dataclass(frozen=True)
class Reading:
    """The passages that are read for each query, on the CPU: as text in the ``manner``, or in ``soft`` slots.

    ``log_weight`` is the log-weight of each row, log p(z|x) renormalised or its share of the slots; ``log_vote`` its
    share in a vote of the neighbours. Row -1 is not a passage: with weight 0 (``-inf``) it is padding, else the query
    alone. A prediction lists at most ``shown_passages`` passages, the heaviest.
    """

    rows: Int[Tensor, "B K"]
    log_weight: Float[Tensor, "B K"]
    log_vote: Float[Tensor, "B K"]
    soft: SoftInput | None = None
    manner: Manner = field(default_factory=Manner)
    shown_passages: int | None = None

    @property
    def mixes_tokens(self) -> bool:
        """True if passages are mixed token by token; in soft slots they are one prompt."""
        return self.soft is None and self.manner.mixes_tokens


def read_alone(queries: int, manner: Manner) -> Reading:
    """Read the queries without a passage, with certainty."""
    absent = torch.full((queries, 1), -torch.inf)
    return _read_empty_rows_alone(Reading(torch.full((queries, 1), -1), absent.clone(), absent, manner=manner))


def read_candidates(
    candidates: Candidates, answering: Answering, slots: Callable[[Float[Tensor, "B R K"]], SoftInput]
) -> Reading:
    """Read candidates as ``answering`` says; a query without a candidate is read alone, with certainty."""
    if answering.selection is None:
        return _read_empty_rows_alone(read_as_text(candidates, answering.manner))
    return _read_empty_rows_alone(read_as_slots(candidates, answering.selection, slots, answering.manner))


def _read_empty_rows_alone(reading: Reading) -> Reading:
    empty = (reading.rows == -1).all(dim=-1)
    log_weight = reading.log_weight.clone()
    log_weight[empty, 0] = 0.0
    return replace(reading, log_weight=log_weight)


def read_as_text(candidates: Candidates, manner: Manner) -> Reading:
    """Read candidates as passages of a prompt: their weight, and their vote, is p(z|x) renormalised."""
    log_prior = masked_log_softmax(candidates.scores.log_prior).cpu()
    return Reading(candidates.rows.cpu(), log_prior, log_prior.clone(), manner=manner)


def read_as_slots(
    candidates: Candidates, selection: Selection, slots: Callable[[Float[Tensor, "B R K"]], SoftInput], manner: Manner
) -> Reading:
    """Read candidates in soft slots, which ``slots`` fills: a passage's weight is the mean of its shares of them."""
    neighbourhood = selection.neighbourhood(candidates.scores)
    weight = neighbourhood.weights(selection.slots, selection.operator)
    share = weight.sum(dim=1)
    share = share / share.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)
    log_vote = neighbourhood.log_vote().cpu()
    return Reading(candidates.rows.cpu(), share.log().cpu(), log_vote, slots(weight), manner, selection.slots)


def choose_answers(
    generator: Generator,
    task: Task,
    base: KnowledgeBase,
    examples: Sequence[Example],
    reading: Reading,
    scoring: Scoring,
    decision: Decision,
    support: Support | None,
) -> list[Prediction]:
    """Return one prediction per example with its passages, heaviest first under p(z|x, answer).

    A closed set is what the task permits for each example; ``scoring`` says how its answers are compared
    (`retrograd.models.constrained.prefix_tree`), ``decision`` which of them is taken; ``support`` lets passages
    vote. Without a closed set, or with the manner "written", answers are written.
    """
    prompts, where = _prompts(task, base, examples, reading)
    manner = reading.manner
    choices = _permitted_answers(task, examples) if manner.answers == "chosen" else None
    if choices is not None:
        joint = _joint(generator, prompts, where, choices, reading, scoring)
        scores = _choice_scores(task, examples, choices, joint, reading, support if decision.vote_weight > 0 else None)
        decisions = [(decision(own), decision.choose(own)) for own in scores]
        return [
            _prediction(
                base, example, WrittenAnswer(choices[b][best], joint[b][:, best], float(log_p[best])), reading, b, True
            )
            for b, (example, (log_p, best)) in enumerate(zip(examples, decisions, strict=True))
        ]
    drafts = _write(generator, prompts, where, reading)
    return [
        _prediction(base, example, answer, reading, b, False)
        for b, (example, answer) in enumerate(zip(examples, drafts, strict=True))
    ]


def _write(
    generator: Generator, prompts: Sequence[str | FusedPrompt], where: Int[Tensor, "B K"], reading: Reading
) -> list[WrittenAnswer]:
    """Return one written answer for each query, as the reading says."""
    manner = reading.manner
    if reading.mixes_tokens:
        return write_by_tokens(generator, prompts, where, reading.log_weight, manner.marginal, manner.beams)
    # With one prompt there is nothing to marginalise: its first answer is taken.
    marginal = "best" if reading.soft is not None or manner.one_prompt else manner.marginal
    return write_answers(generator, prompts, where, reading.log_weight, marginal, manner.beams, reading.soft)


def withhold_unsure(
    task: Task, examples: Sequence[Example], predictions: Sequence[Prediction], abstain_below: float | None
) -> list[Prediction]:
    """Return the predictions with "cannot answer", in the task's words, for answers of a log-probability below
    ``abstain_below``.
    """
    if abstain_below is None:
        return list(predictions)
    return [
        replace(prediction, answer=cannot_answer(task, example), withheld=prediction.answer)
        if prediction.log_probability < abstain_below
        else prediction
        for example, prediction in zip(examples, predictions, strict=True)
    ]


def choice_scores(
    generator: Generator,
    task: Task,
    base: KnowledgeBase,
    examples: Sequence[Example],
    reading: Reading,
    scoring: Scoring,
    support: Support | None,
) -> list[ChoiceScores] | None:
    """Return the scores of each permitted answer, the vote included; None if the set of answers is open."""
    choices = _permitted_answers(task, examples)
    if choices is None:
        return None
    prompts, where = _prompts(task, base, examples, reading)
    joint = _joint(generator, prompts, where, choices, reading, scoring)
    return _choice_scores(task, examples, choices, joint, reading, support)


def count_votes(
    support: Support,
    examples: Sequence[Example],
    choices: Sequence[Sequence[str]],
    rows: Int[Tensor, "B K"],
    log_vote: Float[Tensor, "B K"],
) -> list[Float[Tensor, " _"]]:
    """Return, for each example and choice, the share of the vote on passages that support it."""
    claims = [replace(e, targets=(choice,)) for e, own in zip(examples, choices, strict=True) for choice in own]
    sizes = [len(own) for own in choices]
    repeated = torch.repeat_interleave(torch.arange(len(examples)), torch.tensor(sizes))
    share = find_support(support, claims, rows[repeated]) * log_vote[repeated].exp()
    return list(share.sum(dim=-1).split(sizes))


def _permitted_answers(task: Task, examples: Sequence[Example]) -> list[tuple[str, ...]] | None:
    """Return each example's permitted answers, or None if any example's set is open."""
    choices = [own for own in map(task.choices_for, examples) if own is not None]
    return choices if len(choices) == len(examples) else None


def _joint(
    generator: Generator,
    prompts: Sequence[str | FusedPrompt],
    where: Int[Tensor, "B K"],
    choices: list[tuple[str, ...]],
    reading: Reading,
    scoring: Scoring,
) -> list[Float[Tensor, "K _"]]:
    """Return log p(z|x) p(choice|x,z) for each example; with soft slots every row reads the same prompt.

    Where passages are mixed token by token it is each passage's part of the choice's likelihood (`score_by_tokens`).
    """
    if reading.mixes_tokens:
        return score_by_tokens(generator, prompts, where, choices, reading.log_weight, scoring)
    questions, pairs = distinct_questions(where, choices)
    score = generator.choice_log_likelihood(
        [prompts[prompt] for prompt, _ in questions], [own for _, own in questions], scoring, reading.soft
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
    """Return the scores of each example's choices; without ``support`` there is no vote."""
    shares = [torch.zeros(len(own)) for own in choices]
    if support is not None:
        shares = count_votes(support, examples, choices, reading.rows, reading.log_vote)
    negative = [task.negative_for(example) for example in examples]
    return [
        ChoiceScores(own, own_joint.logsumexp(dim=0).log_softmax(dim=0), vote, own.index(no) if no in own else None)
        for own, own_joint, vote, no in zip(choices, joint, shares, negative, strict=True)
    ]


def _prompts(
    task: Task, base: KnowledgeBase, examples: Sequence[Example], reading: Reading
) -> tuple[Sequence[str | FusedPrompt], Int[Tensor, "B K"]]:
    """Return prompts, and the number of the prompt that each (example, row) uses.

    Passages that are read singly give distinct prompts; read together, or beside soft slots, one for each example.
    """
    if reading.soft is not None:  # it belongs to the example, so equal prompts stay separate
        return [task.prompt(example, ()) for example in examples], _one_prompt_each(reading)
    rows = reading.rows.tolist()
    distinct = sorted({row for own in rows for row in own if row >= 0})
    passages = dict(zip(distinct, base.passages(distinct), strict=True))
    if reading.manner.one_prompt:
        best_first = reading.rows.gather(1, reading.log_weight.argsort(dim=-1, descending=True, stable=True)).tolist()
        read = [[passages[row] for row in own if row >= 0] for own in best_first]
        fused = reading.manner.reading == "fused"
        prompts = [join_prompt(task, example, own, fused) for example, own in zip(examples, read, strict=True)]
        return prompts, _one_prompt_each(reading)
    number: dict[str, int] = {}
    where = [
        [number.setdefault(task.prompt(example, [passages[row]] if row >= 0 else []), len(number)) for row in own]
        for example, own in zip(examples, rows, strict=True)
    ]
    return list(number), torch.tensor(where)


def _one_prompt_each(reading: Reading) -> Int[Tensor, "B K"]:
    """Return the number of the example's one prompt for each of its rows."""
    return torch.arange(len(reading.rows)).unsqueeze(-1).expand_as(reading.rows)


def _prediction(
    base: KnowledgeBase, example: Example, answer: WrittenAnswer, reading: Reading, b: int, is_chosen: bool
) -> Prediction:
    """Make a prediction of example ``b``, whose answer was chosen among the permitted ones, or written."""
    rows, weight, prior = reading.rows[b], answer.joint.softmax(dim=0), reading.log_vote[b].exp()
    order = [k for k in weight.argsort(descending=True, stable=True).tolist() if rows[k] >= 0][: reading.shown_passages]
    read = [int(rows[k]) for k in order]
    return Prediction(
        id=example.id,
        answer=answer.answer,
        log_probability=answer.log_probability,
        rows=tuple(read),
        passage_ids=tuple(passage.id for passage in base.passages(read)),
        weights=tuple(float(weight[k]) for k in order),
        prior_weights=tuple(float(prior[k]) for k in order),
        confidence_kind="among permitted answers" if is_chosen else _written_confidence(reading),
        weight_kind=_weight_kind(reading, is_chosen),
    )


def _is_partial(reading: Reading) -> bool:
    """Return whether a written answer's likelihood is computed for some of the passages alone: those that wrote it."""
    marginalises = reading.soft is None and not reading.manner.one_prompt and not reading.mixes_tokens
    return marginalises and reading.manner.marginal != "thorough"


def _written_confidence(reading: Reading) -> ConfidenceKind:
    return "of the whole text, at least" if _is_partial(reading) else "of the whole text"


def _weight_kind(reading: Reading, is_chosen: bool) -> WeightKind:
    """Return what the weights of passages are under their joint log-probability with the answer."""
    if reading.soft is not None:  # one prompt, of one likelihood: the weights are what they were before
        return "shares of slots"
    if reading.manner.one_prompt:
        return "p(z|x)"
    if reading.mixes_tokens:
        return "p(z|x,y), mean over tokens"
    return "p(z|x,y), of passages that wrote y" if not is_chosen and _is_partial(reading) else "p(z|x,y)"
