r"""Answers that a generator writes from several passages: whose text to give, argmax_y Σ_z p(z|x) p(y|x,z) over what
was written.

Lewis et al. 2020 (arXiv 2005.11401) §2.5 write from each passage by itself and marginalise afterwards. What a way of
deciding costs, beside the writing, of K passages with C different texts written from them:

==========  =============================================================================  =====================
thorough    Σ over all K passages; p(y|x,z) is computed where z did not generate y         K·C pairs scored
fast        Σ over the passages that y was written from; elsewhere p(y|x,z) counts as 0    the texts written
best        max over z of p(z|x) exp(log p(y_z|x,z) / T_z), y_z being z's own answer and   K pairs scored
            T_z its tokens, the end of sequence included
==========  =============================================================================  =====================

All texts of a prompt are scored at one reading of it, where its model allows that
(`retrograd.models.constrained.tree_decoding`).
"fast" is a lower bound of "thorough" for every text. "best" is what the released code of JSA-RAG (arXiv 2508.18168)
does; it is no marginal: passages that agree do not add up, and the mean per token favours long answers. "thorough" and
"fast" take all texts that beam search ends with, "best" the first of them. Texts are scored as texts, by a forward pass
over their tokens: what the search saw may have been other tokens of the same text, and ends where it was cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrograd.models.generator import Generator
from retrograd.models.inputs.fusion import FusedPrompt
from retrograd.models.inputs.soft_input import SoftInput

__all__ = ["Marginal", "Written", "written_answers"]

Marginal = Literal["thorough", "fast", "best"]


@dataclass(frozen=True)
class Written:
    """An answer; ``joint`` is log p(z|x) p(answer|x,z), ``-inf`` where the manner counts no likelihood;
    ``log_probability`` is the log of its sum, in nats, a lower bound but for "thorough"."""

    answer: str
    joint: Float[Tensor, " K"]
    log_probability: float


@torch.no_grad()
def written_answers(
    generator: Generator,
    prompts: Sequence[str | FusedPrompt],
    where: Int[Tensor, "B K"],
    log_weight: Float[Tensor, "B K"],
    marginal: Marginal,
    beams: int = 1,
    soft: SoftInput | None = None,
) -> list[Written]:
    """One answer per query. ``where`` says which of the distinct prompts each passage makes, ``log_weight`` is
    log p(z|x); a passage of weight ``-inf`` neither writes nor is read.
    """
    wrote = [list(dict.fromkeys(found)) for found in generator.hypotheses(prompts, beams, soft=soft)]
    if marginal == "best":
        wrote = [found[:1] for found in wrote]
    read = [
        [prompt if weight > -torch.inf else -1 for prompt, weight in zip(own, weights, strict=True)]
        for own, weights in zip(where.tolist(), log_weight.tolist(), strict=True)
    ]
    texts = [list(dict.fromkeys(text for prompt in own if prompt >= 0 for text in wrote[prompt])) for own in read]
    asked = [
        [[prompt >= 0 and (marginal == "thorough" or text in wrote[prompt]) for text in found] for prompt in own]
        for own, found in zip(read, texts, strict=True)
    ]
    scores = _scores(generator, prompts, read, texts, asked, soft)
    return [
        _decided(generator, found, weight, score, marginal)
        for found, weight, score in zip(texts, log_weight, scores, strict=True)
    ]


def _decided(
    generator: Generator,
    texts: list[str],
    log_weight: Float[Tensor, " K"],
    score: Float[Tensor, "K C"],
    marginal: Marginal,
) -> Written:
    joint = log_weight.unsqueeze(-1) + score
    total = joint.logsumexp(dim=0)
    if marginal == "best":
        tokens = torch.tensor([len(ids) for ids in generator.target_ids(texts)])
        best = int((log_weight.unsqueeze(-1) + score / tokens).amax(dim=0).argmax())
    else:
        best = int(total.argmax())
    return Written(texts[best], joint[:, best], float(total[best]))


def _scores(
    generator: Generator,
    prompts: Sequence[str | FusedPrompt],
    read: list[list[int]],
    texts: list[list[str]],
    asked: list[list[list[bool]]],
    soft: SoftInput | None,
) -> list[Float[Tensor, "K C"]]:
    """log p(text | prompt), ``-inf`` where not asked; each distinct pair scored once."""
    under: dict[int, dict[str, float]] = {}
    for own, found, wanting in zip(read, texts, asked, strict=True):
        for prompt, row in zip(own, wanting, strict=True):
            for text, wanted in zip(found, row, strict=True):
                if wanted:
                    under.setdefault(prompt, {})[text] = 0.0
    chosen = list(under)
    scores = generator.choice_log_likelihood(
        [prompts[p] for p in chosen], [list(found) for found in under.values()], soft=soft and soft.at(chosen)
    )
    for found, row in zip(under.values(), scores.tolist(), strict=True):
        found.update(zip(found, row, strict=False))  # rows are as long as the longest
    return [
        torch.tensor(
            [
                [under[prompt][text] if wanted else -torch.inf for text, wanted in zip(found, row, strict=True)]
                for prompt, row in zip(own, wanting, strict=True)
            ]
        )
        for own, found, wanting in zip(read, texts, asked, strict=True)
    ]
