"""The temperature, who gets gradient, and a round trip through the disk to the last bit."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from tests.tolerances import assert_equal_but_rounding

from retrograd.models.compute.sentence_head import Side
from retrograd.models.encoder import Encoder
from retrograd.models.retriever import Retriever
from retrograd.types import UserError

QUERIES = ["who is alpha", "what"]
PASSAGES = ["alpha beta", "gamma", "delta epsilon zeta"]


def towers(folder, shared: bool) -> tuple[Encoder, Encoder]:
    query = Encoder.open(str(folder)).eval()
    return query, query if shared else Encoder.open(str(folder)).eval()


def logits(retriever: Retriever):
    return retriever.queries(QUERIES) @ retriever.passages(PASSAGES).T


def learns(module: torch.nn.Module) -> bool:
    return any(weight.grad is not None and bool(weight.grad.any()) for weight in module.parameters())


@pytest.mark.parametrize("temperature", [0.05, 1.0, 3.0])
def test_queries_are_divided_by_the_temperature_and_passages_are_not(tiny_encoder, temperature):
    query, passage = towers(tiny_encoder, shared=False)
    retriever = Retriever(query, passage, temperature)
    expected = query.embed(QUERIES) @ passage.embed(PASSAGES).T / temperature
    torch.testing.assert_close(logits(retriever), expected)
    torch.testing.assert_close(retriever.temperature, torch.tensor(temperature))


@pytest.mark.parametrize(
    ("trained", "query_learns", "passage_learns"),
    [("both", True, True), ("query", True, False), ("none", False, False)],
)
class TestTrained:
    def test_separate_towers(self, tiny_encoder, trained, query_learns, passage_learns):
        query, passage = towers(tiny_encoder, shared=False)
        retriever = Retriever(query, passage, trained=trained)
        if query_learns:
            logits(retriever).square().sum().backward()
        assert retriever.queries(QUERIES).requires_grad == query_learns
        assert retriever.passages(PASSAGES).requires_grad == passage_learns
        assert (learns(query), learns(passage)) == (query_learns, passage_learns)
        assert retriever.passages_move == passage_learns
        expected = [*query.parameters()] * query_learns + [*passage.parameters()] * passage_learns
        assert set(retriever.trained_parameters()) == set(expected)

    def test_a_shared_tower(self, tiny_encoder, trained, query_learns, passage_learns):
        retriever = Retriever(*towers(tiny_encoder, shared=True), trained=trained)
        assert retriever.shares_tower
        assert retriever.queries(QUERIES).requires_grad == query_learns
        assert retriever.passages(PASSAGES).requires_grad == passage_learns
        # A shared tower that learns from queries alone moves passages too, at the next refresh.
        assert retriever.passages_move == (trained != "none")
        assert len(retriever.trained_parameters()) == query_learns * len(list(retriever.query_encoder.parameters()))

    def test_no_gradient_is_no_gradient(self, tiny_encoder, trained, query_learns, passage_learns):
        retriever = Retriever(*towers(tiny_encoder, shared=True), trained=trained)
        with torch.no_grad():
            assert not logits(retriever).requires_grad


def test_a_shared_tower_learns_from_both_sides_or_from_queries_alone(tiny_encoder):
    """Its gradient is the sum of what separate towers get, or the query's part of it."""
    query, passage = towers(tiny_encoder, shared=False)
    logits(Retriever(query, passage)).square().sum().backward()
    for trained, parts in (("both", (query, passage)), ("query", (query,))):
        shared, _ = towers(tiny_encoder, shared=True)
        logits(Retriever(shared, shared, trained=trained)).square().sum().backward()
        for weights in zip(shared.parameters(), *(part.parameters() for part in parts), strict=True):
            if weights[0].grad is not None:
                expected = sum((weight.grad for weight in weights[1:]), torch.zeros(()))
                torch.testing.assert_close(weights[0].grad, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("trained", ["both", "query", "none"])
@pytest.mark.parametrize("learn_temperature", [True, False])
def test_the_temperature_learns_only_if_asked(tiny_encoder, trained, learn_temperature):
    retriever = Retriever(*towers(tiny_encoder, True), 0.5, trained, learn_temperature)
    learns = any(weight is retriever.log_temperature for weight in retriever.trained_parameters())
    assert learns == (learn_temperature and trained != "none")
    if learns:
        found = logits(retriever)
        (gradient,) = torch.autograd.grad(found.sum(), [retriever.log_temperature])
        torch.testing.assert_close(gradient, -found.sum().detach())  # d/d log T of s / T is -s / T


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("trained", ["both", "query", "none"])
def test_saved_and_loaded_is_the_same_to_the_last_bit(tiny_encoder, tmp_path, shared, trained):
    query, passage = towers(tiny_encoder, shared)
    first = Retriever(query, passage, 0.07, trained, learn_temperature=True)
    with torch.no_grad():
        first.log_temperature.add_(1e-3)
        next(passage.model.parameters()).mul_(1.5)
    first.save(tmp_path)
    again = Retriever.load(tmp_path).eval()
    assert torch.equal(again.log_temperature, first.log_temperature)
    assert_equal_but_rounding(logits(again), logits(first))
    assert (again.shares_tower, again.trained) == (shared, trained)
    assert len(again.trained_parameters()) == len(first.trained_parameters())
    assert (tmp_path / "passage").exists() == (not shared)
    assert len({path.stat().st_mode for path in tmp_path.rglob("*") if path.is_file()}) == 1


def test_tower_settings_survive_the_disk(tiny_encoder, tmp_path):
    tower = Encoder.open(str(tiny_encoder), "cls", normalise=False, max_tokens=5)
    Retriever(tower, tower).save(tmp_path)
    again = Retriever.load(tmp_path).query_encoder
    assert (again.pooling, again.normalise, again.max_tokens) == ("cls", False, 5)
    assert again.fingerprint() == tower.fingerprint()


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_is_positive_and_finite(tiny_encoder, temperature):
    with pytest.raises(UserError, match=r"temperature is .*expected a positive number, usually 0\.01 to 0\.1"):
        Retriever(*towers(tiny_encoder, True), temperature)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "cls"}, "differ in pooling: 'mean' for queries, 'cls' for passages"),
        ({"normalise": False}, "differ in normalise: True for queries, False for passages"),
        ({"max_tokens": 9}, "differ in max_tokens: 128 for queries, 9 for passages"),
    ],
)
def test_towers_that_read_differently_are_refused(tiny_encoder, settings, message):
    with pytest.raises(UserError, match=message):
        Retriever(Encoder.open(str(tiny_encoder)), Encoder.open(str(tiny_encoder), **settings))


def test_nothing_to_load(tmp_path):
    with pytest.raises(UserError, match=r"no such file: .*retriever\.json"):
        Retriever.load(tmp_path)


def test_wrongly_edited_settings(tiny_encoder, tmp_path):
    Retriever(*towers(tiny_encoder, True)).save(tmp_path)
    path = tmp_path / "retriever.json"
    path.write_text(path.read_text().replace('"both"', '"all"'))
    with pytest.raises(UserError, match=r"retriever\.json: trained is 'all'; expected one of 'both', 'query', 'none'"):
        Retriever.load(tmp_path)


def test_a_frozen_tower_has_no_dropout_in_training(tiny_encoder):
    """Or a frozen retriever would find other passages while the generator learns than when it answers."""
    tower = Encoder.open(str(tiny_encoder))
    texts = ["the cup holds tea", "rain"]
    for trained, moves in (("none", False), ("query", True)):
        retriever = Retriever(tower, tower, trained=trained).train()
        seen = [retriever.queries(texts).detach() for _ in range(2)]
        assert torch.equal(*seen) is not moves
        assert torch.equal(retriever.passages(texts), retriever.passages(texts))
        assert tower.training


def test_dropout_can_be_left_out_of_training(tiny_encoder):
    tower = Encoder.open(str(tiny_encoder), dropout=False)
    retriever = Retriever(tower, tower, trained="both").train()
    assert torch.equal(retriever.queries(["the cup"]), retriever.queries(["the cup"]))
    assert retriever.queries(["the cup"]).requires_grad


class TestRememberingQueries:
    """Within the block each text is embedded once, unless the retriever is learning."""

    def count_embedded(self, retriever: Retriever, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        embedded: list[str] = []
        forward = Encoder.forward

        def count(encoder: Encoder, texts: Sequence[str], side: Side | None = None) -> torch.Tensor:
            embedded.extend(texts)
            return forward(encoder, texts, side)

        monkeypatch.setattr(Encoder, "forward", count)
        return embedded

    def test_each_text_is_embedded_once_to_the_same_vector(self, tiny_encoder, monkeypatch):
        retriever = Retriever(*towers(tiny_encoder, shared=True)).eval()
        with torch.no_grad():
            expected = retriever.queries(["tea", "cup", "tea"])
            embedded = self.count_embedded(retriever, monkeypatch)
            with retriever.remembering_queries():
                first, second = retriever.queries(["tea", "cup", "tea"]), retriever.queries(["cup", "flood", "tea"])
                assert retriever.queries([]).shape == (0, expected.shape[1])
            assert embedded == ["tea", "cup", "flood"]
            torch.testing.assert_close(first, expected)
            assert torch.equal(second[[0, 2]], first[[1, 0]])
            retriever.queries(["tea"])
        assert embedded == ["tea", "cup", "flood", "tea"]

    def test_nothing_is_taken_from_memory_where_it_learns(self, tiny_encoder, monkeypatch):
        retriever = Retriever(*towers(tiny_encoder, shared=True))
        with retriever.remembering_queries():
            with torch.no_grad():
                retriever.eval().queries(["tea"])
            embedded = self.count_embedded(retriever, monkeypatch)
            assert retriever.queries(["tea"]).requires_grad
            with torch.no_grad():
                retriever.train().queries(["tea"])
        assert embedded == ["tea", "tea"]
