"""The laboratory against what can be known beforehand: exact estimators, added noise of known size, real models."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from tests.training.test_loop import build_over_faiss
from torch import Tensor

from retrograd.evaluation.laboratory.measure import Component, Estimator, measure
from retrograd.evaluation.laboratory.tables import Tables, TabulatedLikelihood, union_of_best
from retrograd.evaluation.laboratory.tabulate import tabulate
from retrograd.evaluation.laboratory.training_step import reference_step, training_step
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.retriever import Retriever
from retrograd.objectives import (
    CandidateScores,
    Distillation,
    Estimate,
    FrozenRetriever,
    Goal,
    JointStochasticApproximation,
    Likelihood,
    Reads,
    ScoreFunction,
    StochasticTopK,
    TopKMarginal,
    Variational,
    Vimco,
    WakeSleep,
)
from retrograd.rag.rag_model import RagModel
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.types import Example, Passage, UserError

EXACT = JointStochasticApproximation(kept_mass=1.0)


def tables(seed: int = 0, b: int = 3, n: int = 7, t: int = 2) -> Tables:
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    present = torch.ones(b, t, dtype=torch.bool)
    present[0, -1] = False
    return Tables(
        normal(b, n).log_softmax(-1), normal(b, n).log_softmax(-1), -normal(b, n, t).abs(), present, whole_base=True
    )


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def is_exact(component: Component | None) -> bool:
    return component is not None and component.error < 1e-12 and component.cosine == pytest.approx(1.0)


def test_exact_weights_over_everything_are_exact() -> None:
    found = measure(Estimator("exact", EXACT, 2, "all"), tables(), 5, seeded())
    assert is_exact(found.prior)
    assert is_exact(found.posterior)
    assert is_exact(found.generator)


def test_the_marginal_over_everything_is_exact_and_sends_the_posterior_nothing() -> None:
    found = measure(Estimator("marginal", TopKMarginal(), 7), tables(), 2, seeded())
    assert is_exact(found.prior)
    assert is_exact(found.generator)
    assert found.posterior is None


def test_a_frozen_retriever_sends_the_prior_nothing() -> None:
    found = measure(Estimator("frozen", FrozenRetriever(), 3), tables(), 2, seeded())
    assert found.prior is None
    assert found.generator is not None


def test_truncation_is_a_bias_without_variance_and_is_the_one_written_out() -> None:
    here = tables()
    found = measure(Estimator("top 3", TopKMarginal(), 3), here, 4, seeded()).prior
    columns = union_of_best([here.log_prior], 3)
    joint = (here.log_prior + here.log_likelihood).exp()
    kept = torch.zeros_like(joint).scatter(1, columns, joint.gather(1, columns))
    estimate = here.log_prior.exp() - kept / kept.sum(-1, keepdim=True)
    exact = here.log_prior.exp() - joint / joint.sum(-1, keepdim=True)
    assert found is not None
    assert (found.relative_variance, found.trace) == (0.0, 0.0)
    assert found.relative_bias == pytest.approx(float((estimate - exact).norm() / exact.norm()))
    assert found.cosine == pytest.approx(float((estimate * exact).sum() / estimate.norm() / exact.norm()))


def enumerate_goal(objective: ScoreFunction | TopKMarginal | Variational, here: Tables) -> tuple[Tensor, Tensor]:
    """Return minus the gradient of a goal written out passage by passage and token by token: logits and tokens."""
    logits = here.log_prior.clone().requires_grad_()
    tokens = here.token_log_likelihood.clone().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for query in range(here.queries):
        prior = logits[query].softmax(-1)
        own = tokens[query][:, here.present[query]]
        if isinstance(objective, TopKMarginal):
            for t in range(own.shape[1]):
                total = total + (prior * own[:, t].exp()).sum().log()
        elif isinstance(objective, Variational) or objective.reward == "elbo":
            assert here.log_posterior is not None
            q = here.log_posterior[query].exp()
            total = total + (q * (prior.log() + own.sum(-1) - q.log())).sum()
        else:
            earned = own.sum(-1) if objective.reward == "log_likelihood" else own.sum(-1).exp()
            total = total + (prior * earned).sum()
    return torch.autograd.grad(-total, (logits, tokens))


@pytest.mark.parametrize(
    "objective",
    [
        TopKMarginal(form="token"),
        Variational(kept_mass=1.0),
        ScoreFunction(),
        ScoreFunction(reward="likelihood"),
        ScoreFunction(reward="elbo"),
    ],
)
def test_objectives_with_another_goal_are_measured_against_the_gradient_of_it(
    objective: ScoreFunction | TopKMarginal | Variational,
) -> None:
    here = tables(seed=2)
    prior, tokens = enumerate_goal(objective, here)
    reference = here.exact_for(objective.goal)
    torch.testing.assert_close(reference.prior, prior)
    torch.testing.assert_close(reference.generator, tokens)
    redraws = 20_000 if isinstance(objective, ScoreFunction) else 2
    found = measure(Estimator("all", objective, 7, "all"), here, redraws, seeded())
    assert found.prior is not None
    assert found.prior.relative_bias > 0.1  # the marginal's gradient is another
    for part in ("prior", "generator", *["posterior"] * objective.needs_posterior):
        component = found.own[part]
        assert component is not None
        # Squared, the mean of the draws is off by variance / redraws, which is taken away, up to a few times itself.
        assert component.relative_bias**2 <= 1e-12 + 5 * component.relative_variance / redraws, part
    if objective.needs_posterior:
        assert found.posterior is not None
        assert found.posterior.relative_bias > 0.1  # that of the other KL


def test_the_marginal_and_goals_that_no_table_holds_have_no_reference_of_their_own() -> None:
    for objective in (TopKMarginal(), EXACT, WakeSleep(), FrozenRetriever(), Vimco(), Variational(form="published")):
        assert measure(Estimator("one", objective, 7, "all"), tables(), 2, seeded()).own == {}
    with pytest.raises(ValueError, match="not enumerated"):
        tables().exact_for(Goal.OTHER)


def test_absent_passages_have_no_part_in_the_gradient_of_a_goal() -> None:
    here = tables(seed=4)
    absent = torch.zeros(3, 7, dtype=torch.bool)
    absent[1, 5:] = True
    prior = here.log_prior.masked_fill(absent, -torch.inf).log_softmax(-1)
    posterior = tables(seed=5).log_prior.masked_fill(absent, -torch.inf).log_softmax(-1)
    here = replace(here, log_prior=prior, log_posterior=posterior)
    fewer = Tables(
        prior[1:2, :5], posterior[1:2, :5], here.token_log_likelihood[1:2, :5], here.present[1:2], whole_base=True
    )
    for goal in (Goal.TOKEN_MARGINAL, Goal.EXPECTED_LOG_LIKELIHOOD, Goal.EXPECTED_LIKELIHOOD, Goal.ELBO):
        wide, narrow = here.exact_for(goal), fewer.exact_for(goal)
        assert wide.posterior is not None
        assert narrow.posterior is not None
        for own, other in ((wide.prior, narrow.prior), (wide.posterior, narrow.posterior)):
            torch.testing.assert_close(own[1], torch.cat([other[0], torch.zeros(2, dtype=torch.float64)]))
        torch.testing.assert_close(wide.generator[1, :5], narrow.generator[0])
        assert not wide.generator[1, 5:].any()


@dataclass(frozen=True)
class Noisy:
    """The exact estimate plus noise of known variance on every log-prior, and a known shift: to be measured back."""

    noise: float
    shift: float
    trains_retriever = True
    trains_generator = True
    needs_posterior = True
    reads = Reads.SEPARATELY
    selection = None
    leaves_one_out = False
    mixes_tokens = False
    goal = Goal.MARGINAL
    needs_log_normaliser = False

    def __call__(self, scores: CandidateScores, likelihood: Likelihood, rng: torch.Generator) -> Estimate:
        estimate = EXACT(scores, likelihood, rng)
        drawn = torch.randn(scores.log_prior.shape, generator=rng, dtype=torch.float64)
        centred = drawn - drawn.mean(dim=-1, keepdim=True)  # adds nothing to Σ g, so logits get the noise itself
        tilt = torch.linspace(-1, 1, scores.log_prior.shape[1], dtype=torch.float64)
        added = ((self.noise * centred + self.shift * tilt) * scores.log_prior).sum() / len(scores.log_prior)
        return Estimate(estimate.loss + added, estimate.diagnostics)


def test_noise_and_shift_of_known_size_are_measured_back() -> None:
    here = tables(b=3, n=7)
    redraws = 4_000
    found = measure(Estimator("noisy", Noisy(0.3, 0.2), 7, "all"), here, redraws, seeded())
    assert found.prior is not None
    scale = float(here.exact().prior.square().sum())
    variance = 0.3**2 * 3 * 6  # three queries, seven coordinates of which one is lost to centring
    squared_shift = 3 * 0.2**2 * float(torch.linspace(-1, 1, 7).square().sum())
    # The sum of 18 squared normals has the relative spread sqrt(2 / 18) a draw; five standard errors are allowed.
    assert found.prior.relative_variance * scale == pytest.approx(variance, rel=5 * math.sqrt(2 / 18 / redraws))
    allowed = 5 * 2 * math.sqrt(squared_shift * 0.3**2 / redraws) + 5 * variance / redraws
    assert found.prior.relative_bias**2 * scale == pytest.approx(squared_shift, abs=allowed)
    assert is_exact(found.generator)


def test_a_carried_chain_is_measured_after_earlier_visits() -> None:
    """Two draws a visit: cold, the bias of the start shows; carried, the chain has forgotten it."""
    here = tables(seed=3)
    fair = (here.log_prior + 0.3 * here.log_likelihood).log_softmax(-1)  # biases of 0.10 and 0.02, each to 0.01 or so
    here = replace(here, log_posterior=fair)
    cold, carried = (
        measure(
            Estimator(chain, JointStochasticApproximation("metropolis", 2, chain, kept_mass=1.0), 7, "all"),
            here,
            20_000,
            seeded(),
        ).prior
        for chain in ("cold", "carried")
    )
    assert cold is not None
    assert carried is not None
    assert carried.relative_bias < 0.5 * cold.relative_bias


def test_joint_prompts_without_a_generator_say_so() -> None:
    with pytest.raises(ValueError, match="several passages in one prompt"):
        measure(Estimator("reader", Distillation(), 3), tables(), 2, seeded())
    with pytest.raises(ValueError, match="at least 2"):
        measure(Estimator("one", EXACT, 3), tables(), 1, seeded())


class Prompts:
    """Joint prompts that count: the value depends on the query and on the columns in order."""

    def __init__(self) -> None:
        self.asked = 0

    def together(self, column: Tensor) -> Tensor:
        self.asked += int((column >= 0).any(-1).sum())
        power = torch.arange(1, column.shape[1] + 1)
        return -(column.clamp(min=0) * power).sum(-1).double() - torch.arange(len(column))

    def at_mixture(self, weight: Tensor, column: Tensor) -> Tensor:
        return -(weight * column.unsqueeze(1)).sum((1, 2)).float()


def test_joint_prompts_are_asked_once_for_all_copies() -> None:
    prompts = Prompts()
    here = tables()
    here = replace(here, joint_prompts=prompts)
    columns = union_of_best([here.log_prior], 3)
    likelihood = TabulatedLikelihood(here, columns.repeat(4, 1), copies=4)
    order = torch.tensor([[2, 0, 1]]).expand(12, -1).clone()
    order[3:6] = torch.tensor([1, 2, 0])  # the second copy asks in another order
    found = likelihood.together(order)
    wide = columns.repeat(4, 1).gather(1, order)
    expected = -(wide * torch.tensor([1, 2, 3])).sum(-1).double() - torch.arange(3).repeat(4)
    torch.testing.assert_close(found, expected)
    assert prompts.asked == 6
    weight = torch.rand(12, 2, 3, dtype=torch.float64)
    mixed = -(weight * columns.repeat(4, 1).unsqueeze(1)).sum((1, 2))
    torch.testing.assert_close(likelihood.at_mixture(weight), mixed, rtol=1e-6, atol=1e-6)


# ---- on a model -----------------------------------------------------------------------------------------------------

SENTENCES = [
    ("the @ cup @ holds # tea # .", "Content-Container(e2,e1)"),
    ("the @ tea @ is in the # cup # .", "Content-Container(e1,e2)"),
    ("the @ rain @ caused the # flood # .", "Cause-Effect(e1,e2)"),
    ("the @ flood @ came from # rain # .", "Cause-Effect(e2,e1)"),
    ("the @ box @ holds # tea # .", "Content-Container(e2,e1)"),
    ("the @ wheel @ of the # car # .", "Component-Whole(e1,e2)"),
]


@pytest.fixture(scope="module")
def model(tiny_encoder: Path, tiny_seq2seq: Path) -> tuple[RagModel, list[Example]]:
    task = RelationExtraction.semeval("marked", "labelled")
    examples = [Example(str(i), text, (task.verbalise(label),)) for i, (text, label) in enumerate(SENTENCES)]
    base = KnowledgeBase.from_passages(Passage(e.id, e.target, e.query) for e in examples)
    tower = Encoder.open(str(tiny_encoder))
    retriever = Retriever(tower, tower, 0.1, "query")
    posterior = Retriever(Encoder.open(str(tiny_encoder)), tower, 0.1, "query")
    generator = Generator.open(str(tiny_seq2seq), seeded(), None, GeneratorOptions(max_target_tokens=8))
    found = RagModel(retriever, generator, task, base, posterior)
    found.eval().refresh_index()
    return found, examples


def test_tables_hold_what_the_model_says(model: tuple[RagModel, list[Example]]) -> None:
    rag, examples = model
    bench = tabulate(rag, examples, 2, budget=1_000)
    assert bench.tables.whole_base
    assert bench.prompts == 6 * 5
    with torch.no_grad():
        candidates = rag.retrieve_all(examples, with_posterior=True)
        every = torch.arange(6).expand(6, -1).masked_fill(candidates.rows < 0, -1)
        expected = rag.likelihood(examples, candidates).at(every)
    torch.testing.assert_close(bench.tables.log_likelihood.float(), expected)
    torch.testing.assert_close(bench.tables.log_prior.float(), candidates.scores.log_prior)


def test_a_small_budget_takes_the_best_passages(model: tuple[RagModel, list[Example]]) -> None:
    rag, examples = model
    bench = tabulate(rag, examples, 1, budget=24)
    assert not bench.tables.whole_base
    assert bench.rows.shape[1] <= 4
    assert (bench.tables.log_prior.exp().sum(-1) < 1).all()


def test_a_real_step_of_the_exact_estimator_is_the_reference(model: tuple[RagModel, list[Example]]) -> None:
    rag, examples = model
    bench = tabulate(rag, examples, 2, budget=1_000)
    before = [weight.clone() for weight in rag.parameters()]
    reference = reference_step(rag, bench, micro_batch=4)
    step = training_step(rag, bench, Estimator("exact", EXACT, 2, "all"), seeded(), micro_batch=3)
    for part in ("prior", "posterior", "generator"):
        cosine = step.cosine(reference, part)
        assert cosine is not None
        assert cosine > 0.999, part  # the reference leaves out a thousandth of the responsibilities
    other = training_step(rag, bench, Estimator("top 1", TopKMarginal(normaliser="candidates"), 1), seeded(), 6)
    assert other.cosine(reference, "posterior") is None
    assert all(torch.equal(a, b) for a, b in zip(before, rag.parameters(), strict=True))


def test_objectives_with_joint_prompts_are_measured_on_a_model(model: tuple[RagModel, list[Example]]) -> None:
    rag, examples = model
    bench = tabulate(rag, examples, 3, budget=1_000)
    for objective in (Distillation(target="loop_kl_target_prior"), StochasticTopK(slots=2)):
        found = measure(Estimator("one", objective, 3, redraws=3), bench.tables, 5, seeded())
        assert found.prior is not None
        assert found.generator is None  # it learns from prompts that the tables do not list
        assert math.isfinite(found.prior.error)
    assert all(weight.requires_grad for weight in rag.generator.parameters())


def test_redraws_of_one_seed_are_equal(model: tuple[RagModel, list[Example]]) -> None:
    rag, examples = model
    bench = tabulate(rag, examples, 3, budget=1_000)
    first, second = (measure(Estimator("rws", WakeSleep(draws=4), 3), bench.tables, 10, seeded(7)) for _ in range(2))
    assert first == second
    assert json.dumps(first.diagnostics)


def test_a_sampled_tail_trades_the_bias_of_truncation_for_variance() -> None:
    """Where many passages explain the target, neither normaliser of the best three is right; a few draws are."""
    here = tables(seed=1, b=4, n=60)
    # A third of the passages support the target, as neighbours with the right label do.
    supports = torch.arange(60).remainder(3) == 0
    said = torch.where(supports, -0.25, -3.0).double().view(1, -1, 1).expand(4, -1, 2)
    here = replace(here, token_log_likelihood=said)
    found = {}
    for name, tail, normaliser in (("full", 0, "full"), ("renormalised", 0, "candidates"), ("tail", 12, "full")):
        estimator = Estimator(name, TopKMarginal(normaliser=normaliser), 3, tail=tail)
        component = measure(estimator, here, 2_000, seeded()).prior
        assert component is not None
        found[name] = component
    assert found["tail"].relative_bias < 0.2 * min(found[name].relative_bias for name in ("full", "renormalised"))
    assert found["tail"].relative_variance > 0.0


def test_an_index_that_estimates_log_z_is_no_reference(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    pytest.importorskip("faiss")
    model, examples = build_over_faiss(tiny_encoder, tiny_seq2seq, "query", posterior=True)
    with pytest.raises(UserError, match=r"a FaissIndex does not know log Z over the base; give the model an exact"):
        tabulate(model, examples[:2], 3, budget=1_000)


def test_a_tail_from_a_posterior_that_knows_has_less_variance_and_no_more_bias() -> None:
    here = tables(seed=2, b=4, n=60)
    here = replace(here, token_log_likelihood=3 * here.token_log_likelihood)
    log_joint = here.log_prior + here.log_likelihood
    off = 0.3 * torch.randn(log_joint.shape, generator=seeded(1), dtype=log_joint.dtype)
    here = replace(here, log_posterior=(log_joint + off).log_softmax(-1))
    found = []
    for share in (0.0, 0.5):
        estimator = Estimator("tail", EXACT, 2, tail=6, tail_posterior_share=share)
        component = measure(estimator, here, 4_000, seeded()).prior
        assert component is not None
        found.append(component)
    assert found[1].relative_variance < 0.7 * found[0].relative_variance
    assert found[1].relative_bias < found[0].relative_bias


def test_passages_of_one_prompt_are_one_to_the_generator() -> None:
    """With all passages worded alike the best two alone give the generator the exact gradient, the prior another."""
    here = replace(tables(), prompt=torch.zeros(3, 7, dtype=torch.long))
    said = here.token_log_likelihood[:, :1].expand(-1, 7, -1).contiguous()
    found = measure(
        Estimator("two", TopKMarginal(), 2),
        replace(here, token_log_likelihood=said),
        2,
        seeded(),
    )
    assert is_exact(found.generator)
    assert found.prior is not None
    assert found.prior.error > 0.1


@pytest.fixture
def nullable(tiny_encoder: Path, tiny_seq2seq: Path, model: tuple[RagModel, list[Example]]) -> RagModel:
    rag, _ = model
    found = RagModel(rag.retriever, rag.generator, rag.task, rag.base, rag.posterior, null_passage=True).eval()
    found.use_index(rag.index)
    return found


def test_the_null_passage_has_its_own_likelihood_and_is_always_a_candidate(
    nullable: RagModel, model: tuple[RagModel, list[Example]]
) -> None:
    _, examples = model
    bench = tabulate(nullable, examples, 2, budget=1_000)
    with torch.no_grad():
        candidates = nullable.retrieve_all(examples)
        closed_book = nullable.likelihood(examples, candidates).together(torch.empty(6, 0, dtype=torch.long))
    torch.testing.assert_close(bench.tables.log_likelihood[:, -1].float(), closed_book)
    columns, _ = Estimator("best", TopKMarginal(), 2).draw_candidates(bench.tables, 1, seeded())
    assert (columns[:, -1] == 6).all()
    assert columns.shape[1] == 3
    reference = reference_step(nullable, bench, micro_batch=3)
    step = training_step(nullable, bench, Estimator("exact", EXACT, 2, "all"), seeded(), micro_batch=3)
    for part in ("prior", "posterior", "generator"):
        cosine = step.cosine(reference, part)
        assert cosine is not None
        assert cosine > 0.999, part


def test_with_both_towers_trained_the_posterior_sends_the_prior_nothing(
    tiny_encoder: Path, tiny_seq2seq: Path, model: tuple[RagModel, list[Example]]
) -> None:
    """The reference of the prior is the marginal's gradient, whatever towers the posterior shares with it."""
    rag, examples = model
    query, passage = Encoder.open(str(tiny_encoder)), Encoder.open(str(tiny_encoder))
    with torch.no_grad():
        for weight in passage.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=seeded(1))
    retriever = Retriever(query, passage, 0.1, "both")
    posterior = Retriever(Encoder.open(str(tiny_encoder)), passage, 0.1, "both")
    both = RagModel(retriever, rag.generator, rag.task, rag.base, posterior).eval()
    both.refresh_index()
    bench = tabulate(both, examples, 6, budget=1_000)
    reference = reference_step(both, bench, micro_batch=6)
    step = training_step(both, bench, Estimator("all", TopKMarginal(), 6), seeded(), micro_batch=6)
    cosine = step.cosine(reference, "prior")
    assert cosine is not None
    assert cosine > 0.99


def test_a_carried_chain_is_stepped_after_earlier_visits(model: tuple[RagModel, list[Example]]) -> None:
    rag, examples = model
    bench = tabulate(rag, examples, 3, budget=1_000)
    seen = []

    @dataclass(frozen=True)
    class Watching(JointStochasticApproximation):
        def __call__(self, scores: CandidateScores, likelihood: Likelihood, rng: torch.Generator) -> Estimate:
            seen.append(scores.previous)
            return super().__call__(scores, likelihood, rng)

    training_step(rag, bench, Estimator("jsa", Watching("metropolis", 2), 3), seeded(), micro_batch=6)
    assert seen[0] is None
    assert len(seen) == 4 + 2
    assert all(previous is not None and (previous >= 0).all() for previous in seen[1:])
