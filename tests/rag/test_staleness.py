"""Staleness on tiny models: nothing where nothing changed, known numbers where something did, brute-force rankings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from retrograd.index.exact import ExactIndex
from retrograd.index.faiss import FaissIndex
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.index.restricted import RestrictedIndex
from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.retriever import Retriever
from retrograd.rag.embedding import MIXED
from retrograd.rag.rag_model import RagModel
from retrograd.rag.staleness import (
    Probe,
    cosine_drift,
    describe_index_fault,
    measure_drift,
    measure_staleness,
    overlap_at,
)
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.types import Example, Passage, UserError

NOUNS = ("cup", "rain", "wheel", "box")


def build(encoder: Path, generator: Path) -> tuple[RagModel, list[Example]]:
    task = RelationExtraction.semeval("marked", "labelled")
    target = task.verbalise("Content-Container(e2,e1)")
    examples = [
        Example(f"{noun}{i}", f"the @ {noun} @ holds # tea # number {i} .", (target,))
        for noun in NOUNS
        for i in range(5)
    ]
    base = KnowledgeBase.from_passages(Passage(e.id, e.target, e.query) for e in examples)
    tower = Encoder.open(str(encoder))
    generating = Generator.open(
        str(generator), torch.Generator().manual_seed(0), None, GeneratorOptions(max_target_tokens=8)
    )
    model = RagModel(Retriever(tower, tower, 0.1, "query"), generating, task, base).eval()
    model.refresh_index()
    return model, examples


def whole(model: RagModel, examples: list[Example], k: int = 4) -> Probe:
    return Probe(torch.arange(len(model.base)), tuple(examples), k)


def disturb(model: RagModel, scale: float) -> None:
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.retriever.passage_encoder.parameters():
            weight += scale * torch.randn(weight.shape, generator=rng)


def test_nothing_is_stale_where_nothing_changed(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq)
    found = measure_staleness(model, whole(model, examples))
    assert (found.cosine_drift, found.overlap) == (0.0, 1.0)
    some = Probe(torch.tensor([1, 7, 12]), tuple(examples[:3]), 1)
    assert measure_staleness(model, some).cosine_drift < 1e-10  # another batch rounds otherwise


def test_a_tower_turned_round_has_drifted_by_two(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    """The last layer ends in a scale and a shift: with both negated every embedding is its opposite, cosine -1."""
    model, examples = build(tiny_encoder, tiny_seq2seq)
    last = model.retriever.passage_encoder.model.encoder.layer[-1].output.LayerNorm
    with torch.no_grad():
        last.weight.neg_()
        last.bias.neg_()
    assert measure_staleness(model, whole(model, examples)).cosine_drift == pytest.approx(2, abs=1e-6)


def test_drift_is_the_mean_distance_of_old_and_new(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq)
    texts = [model.task.passage_text(passage) for passage in model.base]
    before = model.retriever.passage_encoder.embed(texts)
    disturb(model, 0.05)
    after = model.retriever.passage_encoder.embed(texts)
    expected = float((1 - F.cosine_similarity(before.double(), after.double())).mean())
    assert expected > 1e-3
    assert measure_staleness(model, whole(model, examples)).cosine_drift == pytest.approx(expected, abs=1e-7)
    assert measure_drift(model, torch.arange(len(model.base))) == pytest.approx(expected, abs=1e-7)


def test_a_turn_by_an_angle_and_rows_of_zeros() -> None:
    stored = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    turned = torch.tensor([[0.6, 0.8], [0.0, 5.0]])
    assert cosine_drift(stored, turned) == pytest.approx(0.4 / 2)
    assert cosine_drift(stored, torch.zeros(2, 2)) == 1.0
    assert cosine_drift(torch.zeros(2, 2), torch.zeros(2, 2)) == 0.0


def test_overlap_is_that_of_the_two_rankings(rng: torch.Generator) -> None:
    """Against sets, query by query, with passages that do not compete."""
    query, stored = torch.randn(20, 6, generator=rng), torch.randn(30, 6, generator=rng)
    fresh = stored + 0.7 * torch.randn(30, 6, generator=rng)
    hidden = torch.rand(20, 30, generator=rng) < 0.2
    shares = []
    for b in range(20):
        allowed = [n for n in range(30) if not hidden[b, n]]
        best = [
            set(sorted(allowed, key=lambda n, b=b, side=side: -float(query[b] @ side[n]))[:5])
            for side in (stored, fresh)
        ]
        shares.append(len(best[0] & best[1]) / 5)
    assert 0.2 < sum(shares) / 20 < 0.95
    assert overlap_at(5, query, stored, fresh, hidden) == pytest.approx(sum(shares) / 20)


def test_copies_of_a_text_and_short_rankings_are_no_staleness(rng: torch.Generator) -> None:
    query = torch.randn(3, 4, generator=rng)
    copies = torch.randn(1, 4, generator=rng).expand(6, -1)
    assert overlap_at(2, query, copies, copies.flip(0), torch.zeros(3, 6, dtype=torch.bool)) == 1.0
    vectors = torch.randn(6, 4, generator=rng)
    hidden = torch.ones(3, 6, dtype=torch.bool)
    hidden[0, :2] = False  # two left for the first query, none for the others
    assert overlap_at(4, query, vectors, -vectors, hidden) == 1.0


def test_an_examples_own_passage_does_not_compete(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    """It would be the best of every query, and only its drift would be seen."""
    model, examples = build(tiny_encoder, tiny_seq2seq)
    probe = Probe(torch.arange(len(model.base)), (examples[6],), 3)
    assert isinstance(model.index, ExactIndex)
    model.index.replace(torch.tensor([6]), -model.embed_rows(torch.tensor([6])), MIXED)
    found = measure_staleness(model, probe)
    assert found.overlap == 1.0
    assert found.cosine_drift == pytest.approx(2 / len(model.base))


def test_a_probe_is_a_sample_that_its_seed_decides(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    _, examples = build(tiny_encoder, tiny_seq2seq)
    one, same, other = (
        Probe.draw(range(1_000_000), examples, 50, 8, 10, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one.rows, same.rows)
    assert one.queries == same.queries
    assert not torch.equal(one.rows, other.rows)
    assert len(set(one.rows.tolist())) == 50
    assert len(set(one.queries)) == 8
    small = Probe.draw(range(5), examples[:2], 50, 8, 10, torch.Generator())
    assert (small.rows.tolist(), len(small.queries), small.k) == ([0, 1, 2, 3, 4], 2, 2)


def test_some_rows_embedded_anew_leave_a_mixed_index_that_is_not_saved(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    model, _ = build(tiny_encoder, tiny_seq2seq)
    assert model.index_is_current()
    before = model.index.vectors(torch.arange(20))
    disturb(model, 0.05)
    assert not model.index_is_current()
    rows = torch.tensor([17, 3, 4])
    model.refresh_rows(rows)
    after = model.index.vectors(torch.arange(20))
    assert torch.equal(after[rows], model.embed_rows(rows))
    others = [row for row in range(20) if row not in rows.tolist()]
    assert torch.equal(after[others], before[others])
    assert model.index.encoder_fingerprint == MIXED
    model.save(tmp_path / "model")
    assert not (tmp_path / "model" / "index").exists()
    loaded = RagModel.load(tmp_path / "model", model.task, model.base, "")
    assert not loaded.has_index
    assert not loaded.index_is_current()
    model.refresh_index()
    model.save(tmp_path / "model")
    assert RagModel.load(tmp_path / "model", model.task, model.base, "").index_is_current()


def test_rows_of_a_mapped_index_are_replaced_in_memory_alone(tmp_path: Path, rng: torch.Generator) -> None:
    vectors = torch.randn(9, 4, generator=rng)
    ExactIndex(vectors, base_fingerprint="base", encoder_fingerprint="old").save(tmp_path / "index")
    bytes_of = {path: path.read_bytes() for path in (tmp_path / "index").iterdir()}
    index = ExactIndex.load(tmp_path / "index")
    index.replace(torch.tensor([8, 0]), torch.tensor([[1.0] * 4, [2.0] * 4]), "new")
    expected = vectors.clone()
    expected[8], expected[0] = 1.0, 2.0
    assert torch.equal(index.vectors(torch.arange(9)), expected)
    query = torch.randn(2, 4, generator=rng)
    torch.testing.assert_close(index.log_normaliser(query), (query @ expected.T).logsumexp(-1))
    assert {path: path.read_bytes() for path in (tmp_path / "index").iterdir()} == bytes_of
    with pytest.raises(UserError, match="not finite"):
        index.replace(torch.tensor([1]), torch.full((1, 4), torch.nan), "new")
    with pytest.raises(ValueError, match="rows span"):
        index.replace(torch.tensor([9]), torch.ones(1, 4), "new")


def test_an_index_that_does_not_hold_its_passages_is_found_out(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    """Right fingerprints, wrong content: zeros everywhere, or one vector that is another's opposite."""
    model, _ = build(tiny_encoder, tiny_seq2seq)
    assert describe_index_fault(model) is None
    good = model.index.vectors(torch.arange(20))
    turned = good.clone()
    turned[19] *= -1
    for bad, row in ((torch.zeros(20, 16), 0), (turned, 19)):
        assert isinstance(model.index, ExactIndex)
        model.index.replace(torch.arange(20), bad, model.passage_fingerprint())
        assert model.index_is_current()
        fault = describe_index_fault(model)
        assert fault is not None
        assert f"row {row} is not the embedding of its passage" in fault


def test_the_fingerprint_hears_of_other_words_for_some_of_the_passages(
    tiny_encoder: Path, tiny_seq2seq: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wording may depend on the passage: the first one alone says nothing of the others."""
    model, _ = build(tiny_encoder, tiny_seq2seq)
    before = model.passage_fingerprint()
    real = RelationExtraction.passage_text
    monkeypatch.setattr(
        RelationExtraction,
        "passage_text",
        lambda task, passage: real(task, passage) + " ." * passage.id.startswith("box"),
    )
    assert model.passage_fingerprint() != before


@pytest.mark.parametrize("gather", [True, False])
def test_a_restricted_index_is_looked_at_where_it_has_rows(
    gather: bool, tiny_encoder: Path, tiny_seq2seq: Path
) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq)
    whole = model.index
    assert isinstance(whole, ExactIndex)
    kept = torch.tensor([3, 4, 9, 17])
    model.use_index(RestrictedIndex(whole, kept, gather=gather))
    assert list(model.index.held_rows) == kept.tolist()
    assert describe_index_fault(model) is None
    probe = Probe.draw(model.index.held_rows, examples, 8, 4, 2, torch.Generator())
    assert probe.rows.tolist() == kept.tolist()
    assert measure_staleness(model, probe).cosine_drift < 1e-10
    whole.replace(torch.tensor([9]), -whole.vectors(torch.tensor([9])), model.passage_fingerprint())
    model.use_index(RestrictedIndex(whole, kept, gather=gather))
    assert "row 9 is not the embedding" in (describe_index_fault(model) or "")


def test_nothing_is_said_of_vectors_that_are_stored_approximately(
    tiny_encoder: Path, tiny_seq2seq: Path, rng: torch.Generator
) -> None:
    """The error of a quantiser is neither damage nor staleness. Here it keeps each number's sign, and nothing else."""
    pytest.importorskip("faiss")
    model, examples = build(tiny_encoder, tiny_seq2seq)
    fingerprints = {"base_fingerprint": model.base.fingerprint, "encoder_fingerprint": model.passage_fingerprint()}
    model.use_index(FaissIndex(model.index.vectors(torch.arange(20)).sign(), "Flat", **fingerprints))
    assert cosine_drift(model.index.vectors(torch.arange(20)), model.embed_rows(torch.arange(20))) > 0.01
    assert model.index_is_current()
    assert describe_index_fault(model) is None
    with pytest.raises(UserError, match=r"FaissIndex.*ExactIndex"):
        measure_staleness(model, whole(model, examples))
    with pytest.raises(UserError, match=r"FaissIndex.*ExactIndex"):
        measure_drift(model, torch.arange(3))
