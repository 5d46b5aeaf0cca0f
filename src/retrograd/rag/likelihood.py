"""Two implementations of the objectives' `Likelihood`: the generator bound to one batch, and the copy likelihood."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

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
from retrograd.tasks.task import Support, Task
from retrograd.types import Example, Passage, UserError

__all__ = ["CopyLikelihood", "CopySettings", "GeneratorLikelihood", "joint_prompt", "supported"]


class GeneratorLikelihood:
    """log p(y|x,z) by the generator, for the candidates of one batch.

    Pairs whose prompt and target are equal as *text* are scored once, so passages that a task words alike (neighbours
    with the same label, say) cost one forward together. ``support`` is the task's cheap test, where it has one;
    ``make_mixture`` says what soft slots hold; by default the passages' words are mixed. ``compute`` says in which
    precision; by default the one that is being computed in.
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
    ) -> None:
        self._generator = generator
        self._task = task
        self._examples = examples
        self._support = support
        self._make_mixture = make_mixture
        self._compute = compute
        self._candidates = rows
        self._rows = rows.tolist()
        self._device = rows.device
        distinct = sorted({row for found in self._rows for row in found if row >= 0})
        self._passages = dict(zip(distinct, base.passages(distinct), strict=True))

    def autocast(self) -> Autocast:
        """Compute the block in the precision of the model."""
        return nullcontext() if self._compute is None else self._compute.autocast()

    @in_own_precision
    def at(self, column: Int[Tensor, "B M"]) -> Float[Tensor, "B M"]:
        """log p(y|x,z) in nats, the fp32 sum over target tokens; column -1 gives ``-inf``."""
        scores, where = self._score([[self._at(b, k) for k in columns] for b, columns in enumerate(column.tolist())])
        value = torch.cat([scores.value.sum(dim=-1), scores.value.new_full((1,), -torch.inf)])
        return value[where]  # -1, the padding, is the last entry

    @in_own_precision
    def tokens_at(self, column: Int[Tensor, "B M"]) -> TokenLogLikelihood:
        """The same per target token; a padded column gives ``-inf`` at every token that is present."""
        # The prompt without passages is asked for as well: it says which tokens a target has, even where all columns
        # are padding. It is short, and the only forward that `at` does not pay.
        asked = [[(), *(self._at(b, k) for k in columns)] for b, columns in enumerate(column.tolist())]
        scores, where = self._score(asked)
        present = scores.present[where[:, 0]]
        value = torch.cat([scores.value, scores.value.new_full((1, present.shape[1]), -torch.inf)])[where[:, 1:]]
        return TokenLogLikelihood(value.masked_fill(~present.unsqueeze(1), 0.0), present)

    @in_own_precision
    def together(self, column: Int[Tensor, "B M"]) -> Float[Tensor, " B"]:
        """log p(y|x, z_1 … z_M): all passages of the columns, in the order given, in one prompt; of a generator whose
        ``fusion`` is on, each in a prompt of its own that is encoded by itself."""
        chosen = [[self._at(b, k) or () for k in columns] for b, columns in enumerate(column.tolist())]
        scores, where = self._score([[tuple(one for found in row for one in found)] for row in chosen])
        return scores.value.sum(dim=-1)[where.squeeze(-1)]

    @in_own_precision
    def at_mixture(self, weight: Float[Tensor, "B R K"]) -> Float[Tensor, " B"]:
        """log p(y|x, R soft slots) in nats: the mixture of the passages beside the prompt without passages.

        One prompt a query. A weight of 0 keeps its passage out of the input; its own gradient is what a little of the
        passage would change at the positions that are in use. `retrograd.rag.mixture` says what is mixed.
        """
        prompts = [self._task.prompt(example, ()) for example in self._examples]
        targets = [example.target for example in self._examples]
        return self._generator.log_likelihood(prompts, targets, self.soft_slots(weight))

    @in_own_precision
    def soft_slots(self, weight: Float[Tensor, "B R K"]) -> SoftInput:
        """What `at_mixture` puts beside the prompts."""
        prompts = [self._task.prompt(example, ()) for example in self._examples]
        make = self._make_mixture or partial(WordMixture, self._generator, self._task, self._candidates)
        return make(prompts, self._passages)(weight)

    def supports_at(self, column: Int[Tensor, "B M"]) -> Bool[Tensor, "B M"]:
        """Which candidates support the targets: neither padding nor the null passage ever does.

        Raises `UserError` where the task has no cheap test of support.
        """
        if self._support is None:
            raise UserError(
                f"the task {self._task.name!r} has no cheap test of support, so passages cannot vote for a target; "
                f"set objective.vote_weight = 0"
            )
        found = supported(self._support, self._examples, self._candidates)
        return found.gather(1, column.clamp(min=0)) & (column >= 0)

    def _at(self, b: int, k: int) -> tuple[Passage, ...] | None:
        """The passages of one candidate: one, none for the null passage, None for padding."""
        row = self._rows[b][k] if k >= 0 else -1
        if row == NULL_ROW:
            return ()
        return (self._passages[row],) if row >= 0 else None

    def _score(self, asked: Sequence[Sequence[tuple[Passage, ...] | None]]) -> tuple[TargetScores, Int[Tensor, "B M"]]:
        """Scores of the distinct pairs, and where each asked one stands among them (-1 for None)."""
        number: dict[tuple[str | FusedPrompt, str], int] = {}
        task, fused = self._task, self._generator.options.fusion
        where = [
            [
                -1
                if passages is None
                else number.setdefault((joint_prompt(task, example, passages, fused), example.target), len(number))
                for passages in row
            ]
            for example, row in zip(self._examples, asked, strict=True)
        ]
        scores = self._generator.token_log_likelihood([p for p, _ in number], [t for _, t in number])
        width = max((len(row) for row in where), default=0)
        return scores, torch.tensor(where, dtype=torch.long, device=self._device).view(len(where), width)


def joint_prompt(task: Task, example: Example, passages: Sequence[Passage], fused: bool) -> str | FusedPrompt:
    """What reads all of the passages: one prompt, or ``fused`` one for each; a single prompt is as good either way."""
    if not fused or len(passages) < 2:
        return task.prompt(example, passages)
    return FusedPrompt(tuple(task.prompt(example, [passage]) for passage in passages))


@dataclass(frozen=True)
class CopySettings:
    """p(y|x,z) = (1 - ``noise``)·[z supports y] + ``noise``·``background``, a probability each.

    ``noise`` is how often a supporting passage is no evidence; ``background`` is how likely a target is by chance,
    one over the number of labels for a closed set.
    """

    noise: float = 0.05
    background: float = 0.05

    def __post_init__(self) -> None:
        for name, value in (("noise", self.noise), ("background", self.background)):
            if not 0 < value < 1:
                raise UserError(f"copy likelihood: {name} is {value}; expected a probability between 0 and 1")


class CopyLikelihood:
    """The copy likelihood of a batch: no generator, one comparison a pair, so that K may be the whole base.

    With it the retriever learns before the generator does, which breaks the circle of a generator that ignores
    passages and a retriever that gets no signal from it. It has no parameters and so no gradient.
    """

    def __init__(self, supports: Bool[Tensor, "B K"], settings: CopySettings) -> None:
        by_chance = settings.noise * settings.background
        self._supported = math.log1p(by_chance - settings.noise)
        self._unsupported = math.log(by_chance)
        self._supports = supports

    def at(self, column: Int[Tensor, "B M"]) -> Float[Tensor, "B M"]:
        """log p(y|x,z) in nats; column -1 gives ``-inf``."""
        return self._log(self._supports.gather(1, column.clamp(min=0))).masked_fill(column < 0, -torch.inf)

    def tokens_at(self, column: Int[Tensor, "B M"]) -> TokenLogLikelihood:
        """The target as one token."""
        one = torch.ones(len(column), 1, dtype=torch.bool, device=column.device)
        return TokenLogLikelihood(self.at(column).unsqueeze(-1), one)

    def together(self, column: Int[Tensor, "B M"]) -> Float[Tensor, " B"]:
        """Supported if any of the passages supports the target."""
        found = self._supports.gather(1, column.clamp(min=0)) & (column >= 0)
        return self._log(found.any(dim=-1))

    def at_mixture(self, weight: Float[Tensor, "B R K"]) -> Float[Tensor, " B"]:
        """log of the mean, over the slots that hold something, of Σ_k w_k p(y|x,z_k); nothing held supports nothing.

        A mixture of probabilities, because there is no input that could be mixed: it is a probability for all weights,
        has a derivative in them (`together`'s "any" has none), and one slot with one passage is `at`.
        """
        # In units of the larger probability, so that the sum neither underflows nor needs log w, which 0 has not.
        unit, other = torch.ones_like(weight[:, 0]), math.exp(self._unsupported - self._supported)
        share = (weight * torch.where(self._supports, unit, other).unsqueeze(1)).sum(dim=-1)
        filled = (weight != 0).any(dim=-1)
        empty = ~filled.any(dim=-1)
        mean = share.masked_fill(~filled, 0.0).sum(dim=-1) / filled.sum(dim=-1).clamp(min=1)
        return (mean.masked_fill(empty, 1.0).log() + self._supported).masked_fill(empty, self._unsupported)

    def supports_at(self, column: Int[Tensor, "B M"]) -> Bool[Tensor, "B M"]:
        """The test that the likelihood is made of; False at column -1."""
        return self._supports.gather(1, column.clamp(min=0)) & (column >= 0)

    def _log(self, supported: Bool[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        yes, no = (torch.full((), value, device=supported.device) for value in (self._supported, self._unsupported))
        return torch.where(supported, yes, no)


def supported(support: Support, examples: Sequence[Example], rows: Int[Tensor, "B K"]) -> Bool[Tensor, "B K"]:
    """Which candidate rows support each example's target. One set look-up per batch, not one per pair."""
    found = [support(example) for example in examples]
    stride = 1 + max(int(rows.max()) if rows.numel() else 0, max((max(f, default=0) for f in found), default=0))
    wanted = torch.cat([b * stride + torch.as_tensor(f, dtype=torch.long) for b, f in enumerate(found)])
    keys = rows.cpu() + stride * torch.arange(len(rows)).unsqueeze(-1)
    return (torch.isin(keys, wanted) & (rows.cpu() >= 0)).to(rows.device)
