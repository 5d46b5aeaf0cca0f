"""Implement the objectives' `Likelihood` twice: by the generator for one batch, and as the copy likelihood."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.compute.compute import Autocast, Compute, in_own_precision
from retrograd.models.generator import Generator, TargetScores
from retrograd.models.inputs.fusion import FusedPrompt
from retrograd.models.inputs.soft_input import SoftInput
from retrograd.objectives.objective import TokenLogLikelihood
from retrograd.rag.candidates import NULL_ROW
from retrograd.rag.mixture import MakeMixture, WordMixture
from retrograd.rag.remembered_scores import RememberedScores
from retrograd.tasks.task import Support, Task
from retrograd.types import Example, Passage, UserError

__all__ = ["CopyLikelihood", "CopySettings", "GeneratorLikelihood", "find_support", "join_prompt"]


class GeneratorLikelihood:
    """The likelihood log p(y|x,z) by the generator, for the candidates of one batch.

    Pairs whose prompt and target are equal as *text* are scored once, so passages that a task words alike (neighbours
    with the same label, say) cost one forward together. ``support`` is the task's cheap test, where it has one;
    ``make_mixture`` makes the content of soft slots; by default the passages' words are mixed. ``compute`` is the
    precision; by default that of the caller's autocast. Where the generator does not learn, what it has ``remembered``
    is not computed again, and none of its weights gets a gradient.
    """

    def __init__(
        self,
        generator: Generator,
        task: Task,
        base: KnowledgeBase,
        examples: Sequence[Example],
        rows: Int[Tensor, "B K"],
        support: Support | None = None,
        make_mixture: MakeMixture | None = None,
        compute: Compute | None = None,
        remembered: RememberedScores | None = None,
    ) -> None:
        self._generator = generator
        self._task = task
        self._examples = examples
        self._support = support
        self._make_mixture = make_mixture
        self._compute = compute
        self._remembered = remembered
        self._candidates = rows
        self._rows = rows.tolist()
        self._device = rows.device
        distinct = sorted({row for own in self._rows for row in own if row >= 0})
        self._passages = dict(zip(distinct, base.passages(distinct), strict=True))

    def autocast(self) -> Autocast:
        """Compute the block in the precision of the model."""
        return nullcontext() if self._compute is None else self._compute.autocast()

    @in_own_precision
    def at(self, column: Int[Tensor, "B M"]) -> Float[Tensor, "B M"]:
        """Return log p(y|x,z) in nats, the fp32 sum over target tokens; column -1 gives ``-inf``."""
        scores, where = self._score([[self._at(b, k) for k in columns] for b, columns in enumerate(column.tolist())])
        value = torch.cat([scores.value.sum(dim=-1), scores.value.new_full((1,), -torch.inf)])
        return value[where]  # -1, the padding, is the last entry

    @in_own_precision
    def tokens_at(self, column: Int[Tensor, "B M"]) -> TokenLogLikelihood:
        """Return log p(y|x,z) per target token; a padded column gives ``-inf`` at every token that is present."""
        # The prompt without passages is scored as well: it gives the tokens of a target, even where all columns are
        # padding. It is short, and the only forward pass that `at` does not need.
        pairs = [[(), *(self._at(b, k) for k in columns)] for b, columns in enumerate(column.tolist())]
        scores, where = self._score(pairs)
        present = scores.present[where[:, 0]]
        value = torch.cat([scores.value, scores.value.new_full((1, present.shape[1]), -torch.inf)])[where[:, 1:]]
        return TokenLogLikelihood(value.masked_fill(~present.unsqueeze(1), 0.0), present)

    @in_own_precision
    def together(self, column: Int[Tensor, "B M"]) -> Float[Tensor, " B"]:
        """Return log p(y|x, z_1 … z_M): all passages of the columns, in the order given, in one prompt.

        A generator with ``fusion`` reads each in a prompt of its own, which is encoded by itself.
        """
        passages = [[self._at(b, k) or () for k in columns] for b, columns in enumerate(column.tolist())]
        scores, where = self._score([[tuple(chain.from_iterable(columns))] for columns in passages])
        return scores.value.sum(dim=-1)[where.squeeze(-1)]

    @in_own_precision
    def at_mixture(self, weight: Float[Tensor, "B R K"]) -> Float[Tensor, " B"]:
        """Return log p(y|x, R soft slots) in nats: the mixture of the passages beside the prompt without passages.

        One prompt a query. A weight of 0 keeps its passage out of the input; its gradient is the effect of a little of
        the passage at the positions in use. `retrograd.rag.mixture` defines the mixture.
        """
        prompts = [self._task.prompt(example, ()) for example in self._examples]
        targets = [example.target for example in self._examples]
        return self._generator.log_likelihood(prompts, targets, self.soft_slots(weight))

    @in_own_precision
    def soft_slots(self, weight: Float[Tensor, "B R K"]) -> SoftInput:
        """Return the soft input that `at_mixture` puts beside the prompts."""
        prompts = [self._task.prompt(example, ()) for example in self._examples]
        make = self._make_mixture or partial(WordMixture, self._generator, self._task, self._candidates)
        return make(prompts, self._passages)(weight)

    def supports_at(self, column: Int[Tensor, "B M"]) -> Bool[Tensor, "B M"]:
        """Return whether each candidate supports the target: neither padding nor the null passage ever does.

        Raises `UserError` where the task has no cheap test of support.
        """
        if self._support is None:
            raise UserError(
                f"the task {self._task.name!r} has no test of support, so passages cannot vote for a target; "
                f"set objective.vote_weight = 0"
            )
        supports = find_support(self._support, self._examples, self._candidates)
        return supports.gather(1, column.clamp(min=0)) & (column >= 0)

    def _at(self, b: int, k: int) -> tuple[Passage, ...] | None:
        """Return the passages of one candidate: one, none for the null passage, None for padding."""
        row = self._rows[b][k] if k >= 0 else -1
        if row == NULL_ROW:
            return ()
        return (self._passages[row],) if row >= 0 else None

    def _score(self, pairs: Sequence[Sequence[tuple[Passage, ...] | None]]) -> tuple[TargetScores, Int[Tensor, "B M"]]:
        """Score the distinct pairs; return the number of each pair among them as well (-1 for None)."""
        number: dict[tuple[str | FusedPrompt, str], int] = {}

        def number_of(example: Example, passages: tuple[Passage, ...] | None) -> int:
            if passages is None:
                return -1
            prompt = join_prompt(self._task, example, passages, self._generator.options.fusion)
            return number.setdefault((prompt, example.target), len(number))

        where = [
            [number_of(example, passages) for passages in own]
            for example, own in zip(self._examples, pairs, strict=True)
        ]
        prompts, targets = [p for p, _ in number], [t for _, t in number]
        if self._remembered is None:
            scores = self._generator.token_log_likelihood(prompts, targets)
        else:
            scores = self._remembered.score(self._generator, prompts, targets)
        width = max((len(row) for row in where), default=0)
        return scores, torch.tensor(where, dtype=torch.long, device=self._device).view(len(where), width)


def join_prompt(task: Task, example: Example, passages: Sequence[Passage], fused: bool) -> str | FusedPrompt:
    """Return one prompt that reads all passages, or if ``fused`` one prompt for each of two or more."""
    if not fused or len(passages) < 2:
        return task.prompt(example, passages)
    return FusedPrompt(tuple(task.prompt(example, [passage]) for passage in passages))


@dataclass(frozen=True)
class CopySettings:
    """Frozen settings of p(y|x,z) = (1 - ``noise``)·[z supports y] + ``noise``·``background``, both probabilities.

    ``noise`` is the probability that a supporting passage is not evidence; ``background`` is the probability of a
    target by chance, one over the number of labels for a closed set.
    """

    noise: float = 0.05
    background: float = 0.05

    def __post_init__(self) -> None:
        for name, value in (("noise", self.noise), ("background", self.background)):
            if not 0 < value < 1:
                raise UserError(f"copy likelihood: {name} is {value}; expected a probability between 0 and 1")


class CopyLikelihood:
    """The copy likelihood of a batch: one comparison a pair without a generator, so that K may be the whole base.

    With it the retriever learns before the generator does, which breaks the circle of a generator that ignores
    passages and a retriever that gets no signal from it. It has no parameters and so no gradient.
    """

    def __init__(self, supports: Bool[Tensor, "B K"], settings: CopySettings) -> None:
        by_chance = settings.noise * settings.background
        self._supported = math.log1p(by_chance - settings.noise)
        self._unsupported = math.log(by_chance)
        self._supports = supports

    def at(self, column: Int[Tensor, "B M"]) -> Float[Tensor, "B M"]:
        """Return log p(y|x,z) in nats; column -1 gives ``-inf``."""
        return self._log(self._supports.gather(1, column.clamp(min=0))).masked_fill(column < 0, -torch.inf)

    def tokens_at(self, column: Int[Tensor, "B M"]) -> TokenLogLikelihood:
        """Return the same log-likelihood with the target as one token."""
        present = torch.ones(len(column), 1, dtype=torch.bool, device=column.device)
        return TokenLogLikelihood(self.at(column).unsqueeze(-1), present)

    def together(self, column: Int[Tensor, "B M"]) -> Float[Tensor, " B"]:
        """Return log p(y|x, z_1 … z_M): the target is supported if any of the passages supports it."""
        return self._log(self.supports_at(column).any(dim=-1))

    def at_mixture(self, weight: Float[Tensor, "B R K"]) -> Float[Tensor, " B"]:
        """Return the log of the mean, over the slots that are not empty, of Σ_k w_k p(y|x,z_k).

        Without any such slot the target is unsupported. Probabilities are mixed, because there is no input that could
        be: the result is a probability for all weights, has a derivative in them (`together`'s "any" has none), and
        one slot with one passage is `at`.
        """
        # In units of the larger probability, so that the sum neither underflows nor needs log w, which 0 has not.
        unit, other = torch.ones_like(weight[:, 0]), math.exp(self._unsupported - self._supported)
        share = (weight * torch.where(self._supports, unit, other).unsqueeze(1)).sum(dim=-1)
        filled = (weight != 0).any(dim=-1)
        empty = ~filled.any(dim=-1)
        mean = share.masked_fill(~filled, 0.0).sum(dim=-1) / filled.sum(dim=-1).clamp(min=1)
        return (mean.masked_fill(empty, 1.0).log() + self._supported).masked_fill(empty, self._unsupported)

    def supports_at(self, column: Int[Tensor, "B M"]) -> Bool[Tensor, "B M"]:
        """Return whether each candidate supports the target; False at column -1."""
        return self._supports.gather(1, column.clamp(min=0)) & (column >= 0)

    def _log(self, is_supported: Bool[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the log-likelihood of targets that are supported or not."""
        yes, no = (torch.full((), value, device=is_supported.device) for value in (self._supported, self._unsupported))
        return torch.where(is_supported, yes, no)


def find_support(support: Support, examples: Sequence[Example], rows: Int[Tensor, "B K"]) -> Bool[Tensor, "B K"]:
    """Return whether each candidate row supports its example's target. One set look-up serves the whole batch."""
    supporting = [support(example) for example in examples]
    stride = 1 + max(
        int(rows.max()) if rows.numel() else 0, max((max(own, default=0) for own in supporting), default=0)
    )
    supporting_pairs = torch.cat(
        [b * stride + torch.as_tensor(own, dtype=torch.long) for b, own in enumerate(supporting)]
    )
    keys = rows.cpu() + stride * torch.arange(len(rows)).unsqueeze(-1)
    return (torch.isin(keys, supporting_pairs) & (rows.cpu() >= 0)).to(rows.device)
