"""What the scores say of the temperature, and the likelihoods of support, on tiny random models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from retrograd.evaluation.laboratory.tables import TabulatedLikelihood, candidate_scores
from retrograd.evaluation.laboratory.tabulate import tabulate
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.retriever import Retriever, TrainedTowers
from retrograd.objectives import CandidateScores, Likelihood
from retrograd.rag.likelihood import CopyLikelihood, CopySettings, GeneratorLikelihood
from retrograd.rag.rag_model import RagModel
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.types import Example, Passage, UserError

SENTENCES = [
    ("the @ cup @ holds # tea # .", "Content-Container(e2,e1)"),
    ("the @ tea @ is in the # cup # .", "Content-Container(e1,e2)"),
    ("the @ box @ holds # tea # .", "Content-Container(e2,e1)"),
    ("the @ rain @ caused the # flood # .", "Cause-Effect(e1,e2)"),
]
Build = Callable[..., tuple[RagModel, list[Example]]]


@pytest.fixture
def build(tiny_encoder: Path, tiny_seq2seq: Path) -> Build:
    def made(
        trained: TrainedTowers = "query", learn_temperature: bool = False, null: bool = False
    ) -> tuple[RagModel, list[Example]]:
        task = RelationExtraction.semeval("marked", "labelled")
        examples = [Example(str(i), text, (task.verbalise(label),)) for i, (text, label) in enumerate(SENTENCES)]
        base = KnowledgeBase.from_passages(Passage(e.id, e.target, e.query) for e in examples)
        tower = Encoder.open(str(tiny_encoder))
        retriever = Retriever(tower, tower, 0.1, trained, learn_temperature)
        generator = Generator.open(
            str(tiny_seq2seq), torch.Generator().manual_seed(0), None, GeneratorOptions(max_target_tokens=8)
        )
        posterior = Retriever(Encoder.open(str(tiny_encoder)), tower, 0.1, trained)
        model = RagModel(retriever, generator, task, base, posterior, null)
        model.eval().refresh_index()
        return model, examples

    return made


def in_units_of_the_similarity(scores: CandidateScores) -> Tensor:
    assert scores.temperature is not None
    return scores.temperature * scores.log_prior.masked_fill(scores.log_prior == -torch.inf, 0.0)


@pytest.mark.parametrize("whole_base", [True, False])
def test_the_temperature_undoes_the_scale_of_the_prior(build: Build, whole_base: bool) -> None:
    """T·log p differs between two candidates by what their similarities differ by, whatever T is."""
    model, examples = build()
    found = model.retrieve_all(examples) if whole_base else model.retrieve(examples, 3)
    rows = found.rows.clamp(min=0)
    query = model.retriever.query_encoder.embed([model.task.query_text(example) for example in examples])
    similarity = (query.unsqueeze(1) * model.index.vectors(rows)).sum(-1)
    away = (in_units_of_the_similarity(found.scores) - similarity).masked_fill(found.rows < 0, torch.nan)
    spread = away.nan_to_num(nan=-torch.inf).amax(-1) - away.nan_to_num(nan=torch.inf).amin(-1)
    torch.testing.assert_close(spread, torch.zeros(4), rtol=0, atol=1e-5)


def test_a_learned_temperature_comes_with_its_gradient_and_a_fixed_one_without(build: Build) -> None:
    for learned in (True, False):
        model, examples = build(learn_temperature=learned)
        scores = model.retrieve(examples, 3).scores
        assert scores.temperature is not None
        assert scores.temperature.item() == pytest.approx(0.1)
        assert scores.temperature.requires_grad is learned
    frozen, examples = build(trained="none", learn_temperature=True)
    found = frozen.retrieve(examples, 3).scores.temperature
    assert found is not None
    assert not found.requires_grad


def test_the_generators_likelihood_knows_what_supports_a_target(build: Build) -> None:
    model, examples = build(null=True)
    rows = torch.tensor([[2, 1, -2, -1], [0, 2, 3, -2], [3, 0, -1, -2], [0, 1, 2, -2]])
    bound = model.likelihood(examples, model.candidates_at(examples, rows))
    assert isinstance(bound, Likelihood)
    column = torch.tensor([[0, 1, 2, 3, -1]]).expand(4, -1)
    yes, no = True, False
    expected = [[yes, no, no, no, no], [no] * 5, [no, yes, no, no, no], [no] * 5]
    assert bound.supports_at(column).tolist() == expected
    assert bound.supports_at(column[:, :0]).shape == (4, 0)


def test_without_a_cheap_test_the_way_out_is_named(build: Build) -> None:
    model, examples = build()
    bound = GeneratorLikelihood(model.generator, model.task, model.base, examples, torch.tensor([[1], [2], [3], [0]]))
    with pytest.raises(UserError, match=r"no test of support.*set objective\.vote_weight = 0"):
        bound.supports_at(torch.zeros(4, 1, dtype=torch.long))


def test_the_copy_likelihood_is_made_of_the_test() -> None:
    bound = CopyLikelihood(torch.tensor([[True, False], [False, True]]), CopySettings())
    assert isinstance(bound, Likelihood)
    assert bound.supports_at(torch.tensor([[0, 1, -1], [1, 0, -1]])).tolist() == [[True, False, False]] * 2


def test_tables_hold_both(build: Build) -> None:
    model, examples = build()
    tables = tabulate(model, examples, 2, budget=1_000).tables
    columns = torch.tensor([[2, 1, -1], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
    assert candidate_scores(tables, columns.repeat(2, 1), 2, None).temperature == model.retriever.temperature
    bound = TabulatedLikelihood(tables, columns.repeat(2, 1), copies=2)
    assert isinstance(bound, Likelihood)
    column = torch.tensor([[0, 1, 2, -1]]).expand(8, -1)
    expected = [[True, False, False, False], [False] * 4, [True, False, False, False], [False] * 4]
    assert bound.supports_at(column).tolist() == expected * 2
