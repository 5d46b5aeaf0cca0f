r"""Answer from passages that are mixed token by token: argmax_y Π_t Σ_z p̃(z|x) p(y_t|x,z,y_<t).

p̃ is the prior renormalised over the passages that are read. This is RAG-Token of Lewis et al. 2020 (arXiv 2005.11401,
§2.1 and §2.5). Each passage's part of an answer's likelihood is its mean responsibility over the answer's tokens.

Written answers come from one search over the mixture. "thorough" and "fast" take the most likely of its ``beams``
texts, "best" the first of them. Texts are scored as texts, by a forward pass over their tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrograd.models.constrained.token_mixture import PromptMixture
from retrograd.models.generator import Generator
from retrograd.models.inputs.fusion import FusedPrompt
from retrograd.models.settings import Scoring
from retrograd.rag.answers.manner import Marginal
from retrograd.rag.answers.written import WrittenAnswer

__all__ = ["distinct_questions", "score_by_tokens", "write_by_tokens"]


def score_by_tokens(
    generator: Generator,
    prompts: Sequence[str | FusedPrompt],
    where: Int[Tensor, "B K"],
    choices: Sequence[tuple[str, ...]],
    log_weight: Float[Tensor, "B K"],
    scoring: Scoring = "sequence",
) -> list[Float[Tensor, "K _"]]:
    """Return the log of each passage's part of each choice's likelihood; their sum over passages is the likelihood.

    ``where`` is the number of the prompt that each passage makes, ``log_weight`` is log p̃(z|x).
    """
    questions, pairs = distinct_questions(where, choices)
    scores = generator.token_mixture_scores(
        [prompts[prompt] for prompt, _ in questions],
        [own for _, own in questions],
        torch.stack(pairs),
        log_weight,
        scoring,
    )
    return [(one.value + one.log_share).cpu() for one in scores]


@torch.no_grad()
def write_by_tokens(
    generator: Generator,
    prompts: Sequence[str | FusedPrompt],
    where: Int[Tensor, "B K"],
    log_weight: Float[Tensor, "B K"],
    marginal: Marginal,
    beams: int = 1,
) -> list[WrittenAnswer]:
    """Write one answer per query by one search over the mixture of its prompts.

    A passage of weight ``-inf`` is not read.
    """
    mixtures = [
        PromptMixture(*zip(*((p, w) for p, w in zip(own, weight, strict=True) if w > -torch.inf), strict=True))
        for own, weight in zip(where.tolist(), log_weight.tolist(), strict=True)
    ]
    texts = [
        tuple(dict.fromkeys(own[:1] if marginal == "best" else own))
        for own in generator.mixture_hypotheses(prompts, mixtures, beams)
    ]
    joint = score_by_tokens(generator, prompts, where, texts, log_weight)
    answers: list[WrittenAnswer] = []
    for own, parts in zip(texts, joint, strict=True):
        total = parts.logsumexp(dim=0)
        best = int(total.argmax())
        answers.append(WrittenAnswer(own[best], parts[:, best], float(total[best])))
    return answers


def distinct_questions(
    where: Int[Tensor, "B K"], choices: Sequence[tuple[str, ...]]
) -> tuple[list[tuple[int, tuple[str, ...]]], list[Int[Tensor, " K"]]]:
    """Return the distinct (prompt, choices), and the number of the pair for each example's passages."""
    number: dict[tuple[int, tuple[str, ...]], int] = {}
    pairs = [
        torch.tensor([number.setdefault((prompt, own), len(number)) for prompt in used])
        for used, own in zip(where.tolist(), choices, strict=True)
    ]
    return list(number), pairs
