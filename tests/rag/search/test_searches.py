"""The contract of every search, and how one is added: a class, a `SearchKind`, a line in `SEARCHES`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.rag.test_rag_model import build
from tests.rag.variants import variant

from retrograd.experiments.experiment import Experiment
from retrograd.experiments.settings import RetrieverSettings
from retrograd.objectives.functional import masked_log_softmax
from retrograd.objectives.objective import CandidateScores
from retrograd.rag import search_kinds as package
from retrograd.rag.candidates import Candidates, Pool
from retrograd.rag.rag_model import RagModel
from retrograd.rag.search import GivenRowsSearch, RetrievalOptions, SearchRequest, SearchSpace
from retrograd.rag.search_kinds import SEARCHES, SearchKind, search_kind
from retrograd.types import Example, UserError

K = 3


class FirstSearch:
    """The first passages of the base, the earlier the likelier."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space

    def candidates(self, request: SearchRequest) -> Candidates:
        whole = self.whole_base(request)
        log_prior, order = whole.scores.log_prior.sort(dim=-1, descending=True, stable=True)
        scores = CandidateScores(masked_log_softmax(log_prior[:, : request.k]))
        return Candidates(whole.rows.gather(1, order)[:, : request.k], scores)

    def whole_base(self, request: SearchRequest) -> Candidates:
        rows = torch.arange(len(self._space.base)).expand(len(request.examples), -1)
        own = (rows.unsqueeze(-1) == self._space.own_rows(request.examples).unsqueeze(1)).any(dim=-1)
        logit = (-rows).float().masked_fill(own, -torch.inf)
        return Candidates(rows.masked_fill(own, -1), CandidateScores(masked_log_softmax(logit)))

    def scores(self, examples: Sequence[Example]) -> dict[str, float]:
        return {"first": 100.0}


FIRST = SearchKind(
    "first", FirstSearch, needs_index=False, has_vectors=False, trains_retriever=False, takes_other_rows=False
)


@pytest.fixture(params=[*SEARCHES, FIRST], ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> SearchKind:
    if request.param.name == "bm25":
        pytest.importorskip("bm25s")
    return request.param


@pytest.fixture
def asked(kind: SearchKind, tiny_encoder: Path, tiny_seq2seq: Path) -> tuple[RagModel, list[Example]]:
    trained = "query" if kind.trains_retriever else "none"
    model, examples = build(tiny_encoder, tiny_seq2seq, trained=trained, posterior=False)
    return variant(model, search=kind), examples


def test_each_name_is_one_search() -> None:
    names = [kind.name for kind in SEARCHES]
    assert len(set(names)) == len(names)
    assert [search_kind(name) for name in names] == [*SEARCHES]


def test_every_search_gives_distinct_rows_none_of_them_the_querys_own(
    asked: tuple[RagModel, list[Example]],
) -> None:
    model, examples = asked
    found = model.retrieve(examples, K)
    for b, rows in enumerate(found.rows.tolist()):
        present = [row for row in rows if row >= 0]
        assert b not in present
        assert len(set(present)) == len(present) <= K
    log_prior = found.scores.log_prior
    assert ((log_prior > -torch.inf) == (found.rows >= 0)).all()
    assert (log_prior.exp().sum(dim=-1) <= 1 + 1e-5).all()


def test_every_search_ranks_the_whole_base_as_it_ranks_its_best(asked: tuple[RagModel, list[Example]]) -> None:
    model, examples = asked
    found, whole = model.retrieve(examples, K), model.retrieve_all(examples)
    for b, rows in enumerate(found.rows.tolist()):
        best = [row for _, row in sorted(zip(found.scores.log_prior[b].tolist(), rows, strict=True), reverse=True)]
        present = [row for row in best if row >= 0]
        order = whole.scores.log_prior[b].argsort(descending=True)
        assert whole.rows[b][order][: len(present)].tolist() == present


def test_every_search_is_what_it_declares_to_be(kind: SearchKind, asked: tuple[RagModel, list[Example]]) -> None:
    model, examples = asked
    found = model.retrieve(examples, K)
    assert (found.query is not None and found.vectors is not None) == kind.has_vectors
    assert found.scores.log_prior.requires_grad == kind.trains_retriever
    told = model.retrieve([replace(example, targets=examples[i - 1].targets) for i, example in enumerate(examples)], K)
    assert torch.equal(found.rows, told.rows) != kind.reads_target
    assert model.needs_index == kind.needs_index
    fresh = RagModel(model.retriever, model.generator, model.task, model.base, search=kind)
    if kind.needs_index:
        with pytest.raises(UserError, match="refresh_index"):
            fresh.retrieve(examples, K)
    else:
        assert torch.equal(fresh.retrieve(examples, K).rows, found.rows)
    if isinstance(model.retrieval, GivenRowsSearch):
        again = model.candidates_at(examples, found.rows).scores.log_prior
        torch.testing.assert_close(again, found.scores.log_prior)
    else:
        with pytest.raises(UserError, match=f'"{kind.name}" scores what it finds'):
            model.candidates_at(examples, found.rows)
    if kind.takes_other_rows:
        pool = model.retrieve(examples, K, RetrievalOptions(pool=Pool(6)), rng=torch.Generator().manual_seed(0))
        assert pool.rows.shape[1] > K


def test_a_search_answers_and_reports_its_own_scores(asked: tuple[RagModel, list[Example]]) -> None:
    model, examples = asked
    assert len(model.predict(examples, 2)) == len(examples)
    assert all(0 <= value <= 100 for value in model.retrieval.scores(examples).values())


@pytest.mark.parametrize("kind_", SEARCHES, ids=lambda kind: kind.name)
def test_settings_ask_what_a_search_can_do(kind_: SearchKind) -> None:
    def settings(trained: str = "none", **changes: object) -> RetrieverSettings:
        return replace(RetrieverSettings(trained=trained, search=kind_.name), **changes)

    for changes, fits in (
        ({"trained": "query"}, kind_.trains_retriever),
        ({"posterior": True}, kind_.trains_retriever),
        ({"null_passage": True}, kind_.has_vectors),
        ({"lexical_dimensions": 8}, kind_.has_vectors),
    ):
        if fits:
            assert settings(**changes).search_kind == kind_
        else:
            with pytest.raises(UserError, match=f'retriever.search = "{kind_.name}"'):
                settings(**changes)


def test_an_experiment_names_a_search_that_was_added(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["retriever.search=first", "retriever.trained=none"]
    with pytest.raises(UserError, match=r"retriever\.search is 'first'; expected one of 'nearest'"):
        Experiment().with_settings(wanted)
    monkeypatch.setattr(package, "SEARCHES", (*SEARCHES, FIRST))
    experiment = Experiment().with_settings(wanted)
    assert experiment.retriever.search_kind == FIRST
    with pytest.raises(UserError, match=r'"first" leaves nothing to learn'):
        experiment.with_settings(["retriever.trained=query"])
    with pytest.raises(UserError, match=r'"first" has no vectors.*training\.tail = 0'):
        experiment.with_settings(["training.tail=2"])
