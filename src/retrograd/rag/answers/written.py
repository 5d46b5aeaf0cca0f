r"""Choose among answers that a generator writes from several passages: argmax_y Σ_z p(z|x) p(y|x,z) over them.

Lewis et al. 2020 (arXiv 2005.11401) §2.5 write from each passage by itself and marginalise afterwards. The ways to
decide, with their cost beside the writing, for K passages with C different texts written from them:

==========  =============================================================================  =====================
thorough    Σ over all K passages; p(y|x,z) is computed where z did not generate y         K·C pairs scored
fast        Σ over the passages that y was written from; elsewhere p(y|x,z) counts as 0    the texts written
best        max over z of p(z|x) exp(log p(y_z|x,z) / T_z), y_z being z's own answer and   K pairs scored
            T_z its tokens, the end of sequence included
==========  =============================================================================  =====================

All texts of a prompt are scored at one reading of it, where its model allows that
(`retrograd.models.constrained.tree_decoding`). "fast" is a lower bound of "thorough" for every text. "best" is what the
released code of JSA-RAG (arXiv 2508.18168) does; it is not a marginal: passages that agree do not add up, and the mean
per token favours long answers. "thorough" and "fast" take all texts that beam search ends with, "best" the first of
them. Texts are scored as texts, by a forward pass over their tokens: beam search may have used other tokens of the same
text, and its texts may be cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrograd.models.generator import Generator
from retrograd.models.inputs.fusion import FusedPrompt
from retrograd.models.inputs.soft_input import SoftInput
from retrograd.rag.answers.manner import Marginal

__all__ = ["WrittenAnswer", "write_answers"]


@dataclass(frozen=True)
class WrittenAnswer:
    """A written answer and its scores.

    ``joint`` is log p(z|x) p(answer|x,z), ``-inf`` where the marginal counts no likelihood. ``log_probability`` is the
    log of its sum, in nats; a lower bound except for "thorough".
    """

    answer: str
    joint: Float[Tensor, " K"]
    log_probability: float


@dataclass(frozen=True)
class _Draft:
    """One query: the prompt of each of its K passages, -1 for a passage of weight 0, and the C texts they wrote."""

    prompts: list[int]
    texts: list[str]


@torch.no_grad()
def write_answers(
    generator: Generator,
    prompts: Sequence[str | FusedPrompt],
    where: Int[Tensor, "B K"],
    log_weight: Float[Tensor, "B K"],
    marginal: Marginal,
    beams: int = 1,
    soft: SoftInput | None = None,
) -> list[WrittenAnswer]:
    """Write one answer per query.

    ``where`` is the number of the distinct prompt that each passage makes, ``log_weight`` is log p(z|x). A passage of
    weight ``-inf`` neither writes nor is read.
    """
    hypotheses = [list(dict.fromkeys(texts)) for texts in generator.hypotheses(prompts, beams, soft=soft)]
    if marginal == "best":
        hypotheses = [texts[:1] for texts in hypotheses]
    used = where.masked_fill(log_weight == -torch.inf, -1).tolist()
    drafts = [_Draft(own, _join_texts(own, hypotheses)) for own in used]
    pairs = _pairs_to_score(drafts, hypotheses, marginal)
    score = _score_pairs(generator, prompts, pairs, soft)
    answers: list[WrittenAnswer] = []
    for draft, weight in zip(drafts, log_weight, strict=True):
        rows = [[score.get((prompt, text), -torch.inf) for text in draft.texts] for prompt in draft.prompts]
        answers.append(_choose_text(generator, draft.texts, weight, torch.tensor(rows, dtype=torch.float64), marginal))
    return answers


def _join_texts(prompts: list[int], hypotheses: list[list[str]]) -> list[str]:
    """Return the distinct texts written from a query's prompts, in the order of its passages."""
    return list(dict.fromkeys(text for prompt in prompts if prompt >= 0 for text in hypotheses[prompt]))


def _pairs_to_score(
    drafts: Sequence[_Draft], hypotheses: list[list[str]], marginal: Marginal
) -> dict[int, dict[str, None]]:
    """Return the distinct texts to score after each prompt: all of a query's, or those that the prompt wrote."""
    pairs: dict[int, dict[str, None]] = {}
    for draft in drafts:
        for prompt in draft.prompts:
            if prompt >= 0:
                own = pairs.setdefault(prompt, {})
                allowed = set(draft.texts if marginal == "thorough" else hypotheses[prompt])
                own.update(dict.fromkeys(text for text in draft.texts if text in allowed))
    return pairs


def _score_pairs(
    generator: Generator,
    prompts: Sequence[str | FusedPrompt],
    pairs: dict[int, dict[str, None]],
    soft: SoftInput | None,
) -> dict[tuple[int, str], float]:
    """Return log p(text | prompt) in nats of each pair; all texts of a prompt are scored at one reading of it."""
    prompt_numbers = list(pairs)
    texts = [list(own) for own in pairs.values()]
    scores = generator.choice_log_likelihood(
        [prompts[p] for p in prompt_numbers], texts, soft=soft and soft.at(prompt_numbers)
    )
    return {
        (prompt, text): value
        for prompt, own, row in zip(prompt_numbers, texts, scores.tolist(), strict=True)
        for text, value in zip(own, row, strict=False)  # rows are as long as the longest
    }


def _choose_text(
    generator: Generator,
    texts: list[str],
    log_weight: Float[Tensor, " K"],
    score: Float[Tensor, "K C"],
    marginal: Marginal,
) -> WrittenAnswer:
    """Choose the best of a query's texts by the ``marginal``."""
    joint = log_weight.unsqueeze(-1) + score
    total = joint.logsumexp(dim=0)
    if marginal == "best":
        tokens = torch.tensor([len(ids) for ids in generator.target_ids(texts)])
        best = int((log_weight.unsqueeze(-1) + score / tokens).amax(dim=0).argmax())
    else:
        best = int(total.argmax())
    return WrittenAnswer(texts[best], joint[:, best], float(total[best]))
