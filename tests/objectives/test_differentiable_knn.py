"""RelaxedTopK against finite differences, and against sums written out."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import pytest
import torch
from tests.objectives.conftest import TableLikelihood, normal, scored
from torch import Tensor

from retrograd.objectives import CandidateScores, RelaxedTopK, Selection
from retrograd.objectives.relaxed import Operator
from retrograd.types import UserError

TIGHT = {"rtol": 1e-9, "atol": 1e-9}
OPERATORS: tuple[Operator, ...] = ("softsort", "n3", "hard", "hard_n3")
SOFT: tuple[Operator, ...] = ("softsort", "n3")
operators = pytest.mark.parametrize("operator", OPERATORS)
soft_operators = pytest.mark.parametrize("operator", SOFT)


@dataclass
class CurvedTable(TableLikelihood):
    """Likelihood that curves in the weights, with a derivative at 0; support is a table of its own."""

    supports: Tensor | None = None
    asked: Tensor | None = None

    def at_mixture(self, weight: Tensor) -> Tensor:
        self._count(len(weight), "slots")
        self.asked = weight
        said = self._tokens(torch.arange(weight.shape[2]).expand(len(weight), -1)).sum(dim=-1)
        slot = 0.5 ** torch.arange(weight.shape[1], dtype=weight.dtype)
        mixed = ((weight * said.unsqueeze(1)).sum(dim=-1) * slot).sum(dim=-1)
        return torch.nn.functional.logsigmoid(self.closed_book + mixed)

    def supports_at(self, column: Tensor) -> Tensor:
        assert self.supports is not None
        return self.supports.gather(1, column.clamp(min=0)) & (column >= 0)


def curved(here, supports: Tensor) -> CurvedTable:
    return CurvedTable(here.table, here.closed_book, here.present, supports=supports)


SUPPORTS = torch.tensor([[False, True, False, True, False, False], [True, False, False, False, False, False]])


@soft_operators
@pytest.mark.parametrize(("target", "best"), [(0.0, 0), (0.0, 4), (1.7, 0), (2.5, 5)])
def test_the_gradient_of_the_loss_is_that_of_finite_differences(
    world, operator: Operator, target: float, best: int
) -> None:
    """Checked in similarities, a learned temperature and all inputs of the likelihood, along random directions."""
    here = world(20)
    objective = RelaxedTopK(slots=3, best=best, operator=operator, perplexity=target, vote_weight=0.7)
    log_temperature = torch.tensor(math.log(0.3), dtype=torch.float64, requires_grad=True)

    def loss(similarity: Tensor, log_t: Tensor, table: Tensor, closed: Tensor) -> Tensor:
        likelihood = CurvedTable(table, closed, here.present, supports=SUPPORTS)
        return objective(scored(similarity, log_t.exp()), likelihood, torch.Generator()).loss

    leaves = ((0.3 * normal(21, 2, 6)).requires_grad_(), log_temperature, here.table, here.closed_book)
    assert torch.autograd.gradcheck(loss, leaves, fast_mode=True)


def test_the_loss_is_the_likelihood_of_the_slots_and_the_vote_written_out(world) -> None:
    here, scores = world(22), scored(0.3 * normal(23, 2, 6), 0.2)
    objective = RelaxedTopK(slots=2, best=4, operator="n3", vote_weight=0.5)
    likelihood = curved(here, SUPPORTS)
    estimate = objective(scores, likelihood, torch.Generator())
    assert likelihood.asked is not None
    torch.testing.assert_close(likelihood.asked, objective.selection(scores))
    value, shares = 0.0, []
    answered = curved(here, SUPPORTS).at_mixture(likelihood.asked)
    for b in range(2):
        p = scores.log_prior[b].exp()
        kept = p.argsort(descending=True)[:4].tolist()
        share = sum(p[k].item() for k in kept if SUPPORTS[b, k]) / sum(p[k].item() for k in kept)
        shares.append(share)
        value -= (answered[b].item() + (0.5 * math.log(share) if share else 0.0)) / 2
    assert estimate.loss.item() == pytest.approx(value, rel=1e-12)
    assert estimate.diagnostics["vote"].item() == pytest.approx(sum(shares) / 2, rel=1e-12)
    assert estimate.diagnostics["log_likelihood"].item() == pytest.approx(answered.mean().item(), rel=1e-12)


def test_the_vote_teaches_the_prior_alone_its_share_on_supporting_candidates(world) -> None:
    """d(-log Σ_S p)/d logit = p - p_S over the best M, and 0 for the others."""
    here = world(24)
    logit = normal(25, 2, 6).requires_grad_()
    scores = CandidateScores(logit.log_softmax(dim=-1))
    plain, voted = (
        RelaxedTopK(best=5, vote_weight=weight)(scores, curved(here, SUPPORTS), torch.Generator()).loss
        for weight in (0.0, 3.0)
    )
    found = torch.autograd.grad(voted - plain, (logit, here.table, here.closed_book), allow_unused=True)
    p = logit.detach().exp()
    p = p.masked_fill(p == p.amin(dim=-1, keepdim=True), 0.0)
    among = (p * SUPPORTS) / (p * SUPPORTS).sum(dim=-1, keepdim=True)
    torch.testing.assert_close(found[0], 3.0 * (p / p.sum(dim=-1, keepdim=True) - among) / 2, **TIGHT)
    assert all(one is None or not one.abs().max() > 1e-12 for one in found[1:])


@operators
def test_labels_never_move_a_weight(world, operator: Operator) -> None:
    here, scores = world(26), scored(0.3 * normal(27, 2, 6), 0.1)
    objective = RelaxedTopK(slots=3, best=4, operator=operator, perplexity=2.0, vote_weight=1.0)
    seen = []
    for supports in (SUPPORTS, ~SUPPORTS, torch.zeros_like(SUPPORTS)):
        likelihood = curved(here, supports)
        estimate = objective(scores, likelihood, torch.Generator())
        assert likelihood.asked is not None
        seen.append((likelihood.asked, estimate.diagnostics["log_likelihood"]))
    for weight, value in seen[1:]:
        assert torch.equal(weight, seen[0][0])
        assert torch.equal(value, seen[0][1])


def test_a_query_that_nobody_supports_adds_nothing_and_is_counted(world) -> None:
    here = world(28, b=4)
    similarity = 0.3 * normal(29, 4, 6)
    similarity[3] = -math.inf
    similarity = similarity.requires_grad_()
    supports = torch.ones(4, 6, dtype=torch.bool)
    supports[1] = False
    supports[2] = similarity[2].detach() <= similarity[2].detach().min()  # only the one that is not among the best
    objective = RelaxedTopK(slots=2, best=5, vote_weight=1.0)
    scores = scored(similarity, 0.1)
    with_vote = objective(scores, curved(here, supports), torch.Generator())
    without = replace(objective, vote_weight=0.0)(scores, curved(here, supports), torch.Generator())
    torch.testing.assert_close(with_vote.loss, without.loss)  # the first query's vote is unanimous, log 1
    (gradient,) = torch.autograd.grad(with_vote.loss - without.loss, similarity)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), **TIGHT)
    assert with_vote.diagnostics["unsupported_share"].item() == pytest.approx(2 / 3)
    assert with_vote.diagnostics["vote"].item() == pytest.approx(1 / 3)
    assert with_vote.diagnostics["empty_share"].item() == pytest.approx(1 / 4)
    assert "vote" not in without.diagnostics


def test_without_a_vote_nobody_asks_for_support(world) -> None:
    here = world(30)
    likelihood = CurvedTable(here.table, here.closed_book, here.present)
    assert RelaxedTopK()(here.scores(), likelihood, torch.Generator()).loss.isfinite()


def test_diagnostics_of_the_slots_written_out(world) -> None:
    here = world(31, b=3)
    here.absent[1, 1:] = True  # one slot filled: no pair to compare
    scores = here.scores()
    objective = RelaxedTopK(slots=3)
    found = objective(scores, curved(here, SUPPORTS), torch.Generator()).diagnostics
    weight = objective.selection(scores).detach()
    spread, sizes, cosines = [], [], []
    for b, filled in ((0, 3), (1, 1), (2, 3)):
        rows = weight[b, :filled]
        mean = rows.mean(dim=0)
        spread.append(1 / mean.square().sum().item())
        sizes.append(sum(1 / row.square().sum().item() for row in rows) / filled)
        pairs = list(itertools.combinations(rows, 2))
        if pairs:
            cosines.append(sum(torch.cosine_similarity(x, y, dim=0).item() for x, y in pairs) / len(pairs))
    assert found["effective_neighbours"].item() == pytest.approx(sum(spread) / 3)
    assert found["effective_sample_size"].item() == pytest.approx(sum(sizes) / 3)
    assert found["slot_similarity"].item() == pytest.approx(sum(cosines) / 2)
    hard = replace(objective, operator="hard")(scores, curved(here, SUPPORTS), torch.Generator()).diagnostics
    assert hard["slot_similarity"].item() == pytest.approx(0.0)
    assert hard["effective_neighbours"].item() == pytest.approx((3 + 1 + 3) / 3)


@pytest.mark.parametrize("kind", [Selection, RelaxedTopK])
@pytest.mark.parametrize(
    ("setting", "value", "advice"),
    [
        ("slots", 0, "slots is 0; it must be a whole number of at least 1"),
        ("best", 1, "best is 1; it must be at least slots = 2, or 0 for all"),
        ("best", -3, "best is -3"),
        ("operator", "sinkhorn", "operator is 'sinkhorn'; it must be 'softsort' or 'n3' or 'hard' or 'hard_n3'"),
        ("perplexity", 1.0, "perplexity is 1.0; it must be above 1 and finite, or 0 for the retriever's temperature"),
        ("perplexity", math.nan, "perplexity is nan"),
        ("perplexity", math.inf, "perplexity is inf"),
    ],
)
def test_impossible_settings_are_refused(kind, setting: str, value: float | str, advice: str) -> None:
    """The value is set behind the type checker of the tests, as in test_checks.py."""
    one = kind()
    object.__setattr__(one, setting, value)
    with pytest.raises(UserError, match=advice):
        one.__post_init__()


@pytest.mark.parametrize("weight", [-1.0, math.inf, math.nan])
def test_a_vote_has_a_finite_weight(weight: float) -> None:
    with pytest.raises(UserError, match=rf"vote_weight is {weight}; it must be at least 0 and finite"):
        RelaxedTopK(vote_weight=weight)
