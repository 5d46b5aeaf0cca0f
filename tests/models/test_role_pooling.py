"""Role vectors against a slow twin: one text, tokens counted by hand, means taken in a loop."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from tests.conftest import CLS, SEP, UNK, VOCABULARY
from tests.tolerances import assert_equal_but_rounding
from torch import Tensor
from transformers import AutoModel, ByT5Tokenizer

from retrograd.models.encoder import Encoder
from retrograd.models.loading.builtin import BUILTIN_ENCODER
from retrograd.models.retriever import Retriever
from retrograd.types import UserError

TEXTS = [
    "the @ rain @ caused the # flood # .",
    "the # car # has a wide @ wheel @ .",
    "a @ cup @ # box #",
    "in the beginning the @ tea @ is kept inside of a large # container # and some of it holds",
]
WIDTH = 16


def spans(text: str) -> list[tuple[int, int]]:
    """Head between the @, tail between the #, context from the first mark to the last."""
    head, tail = (re.search(f"{mark} (.+?) {mark}", text) for mark in "@#")
    assert head
    assert tail
    marks = [i for i, letter in enumerate(text) if letter in "@#"]
    return [head.span(1), tail.span(1), (marks[0], marks[-1] + 1)]


def opened(folder: Path, **settings) -> Encoder:
    return Encoder.open(str(folder), "roles", **({"role_spans": spans} | settings)).eval()


def words_between(text: str, mark: str) -> list[int]:
    """Numbers of the words between two marks, one token a word, counting [CLS]."""
    words = text.split(" ")
    first, last = (i for i, word in enumerate(words) if word == mark)
    return list(range(first + 2, last + 1))


def roles_by_hand(text: str) -> list[list[int]]:
    words = text.split(" ")
    marks = [i for i, word in enumerate(words) if word in "@#"]
    return [words_between(text, "@"), words_between(text, "#"), list(range(marks[0] + 1, marks[-1] + 2))]


def slow_roles(folder: Path, text: str) -> Tensor:
    """Three unit vectors [3, width]."""
    model = AutoModel.from_pretrained(folder).eval()
    words = [VOCABULARY.index(word) if word in VOCABULARY else UNK for word in text.split(" ")]
    hidden = model(torch.tensor([[CLS, *words, SEP]])).last_hidden_state[0]
    means = [torch.stack([hidden[t] for t in tokens]).sum(0) / len(tokens) for tokens in roles_by_hand(text)]
    return torch.stack([mean / mean.square().sum().sqrt() for mean in means])


def test_equals_the_slow_twin(tiny_encoder):
    encoder = opened(tiny_encoder)
    expected = torch.stack([slow_roles(tiny_encoder, text).flatten() / 3**0.5 for text in TEXTS])
    torch.testing.assert_close(encoder.embed(TEXTS), expected)
    assert (encoder.dimension, encoder.width) == (3 * WIDTH, WIDTH)
    assert encoder.roles_missed == 0


def test_an_inner_product_is_the_mean_of_three_cosines(tiny_encoder):
    encoder = opened(tiny_encoder)
    roles = [slow_roles(tiny_encoder, text) for text in TEXTS]
    expected = torch.stack([torch.stack([(a * b).sum(-1).mean() for b in roles]) for a in roles])
    found = encoder.embed(TEXTS)
    torch.testing.assert_close(found @ found.T, expected)
    raw = opened(tiny_encoder, normalise=False).embed(TEXTS).view(-1, 3, WIDTH)
    torch.testing.assert_close(torch.nn.functional.normalize(raw, dim=-1) / 3**0.5, found.view(-1, 3, WIDTH))


@pytest.mark.parametrize("token_budget", [2, 30, 1_000])
def test_neighbours_in_the_batch_padding_and_order_do_not_matter(tiny_encoder, token_budget):
    encoder = opened(tiny_encoder, token_budget=token_budget)
    alone = torch.cat([encoder.embed([text]) for text in TEXTS])
    encoder.tokenizer.padding_side = "left"
    torch.testing.assert_close(encoder.embed(TEXTS), alone)
    torch.testing.assert_close(encoder.embed(TEXTS[::-1]), alone.flip(0))


def test_spans_hit_exactly_the_entitys_word_pieces():
    """MiniLM cuts words into pieces; the marks beside an entity are not its own."""
    text = "the @ Ridgeback @ uprises from the # Indo-Gangetic plain # ."
    encoder = Encoder.open(BUILTIN_ENCODER, "roles", role_spans=spans).eval()
    pieces = encoder.tokenizer.tokenize(text, add_special_tokens=True)
    at = [i for i, piece in enumerate(pieces) if piece in "@#"]
    with torch.no_grad():
        hidden = encoder.model(**encoder.tokenizer(text, return_tensors="pt")).last_hidden_state[0]
    tokens = [range(at[0] + 1, at[1]), range(at[2] + 1, at[3]), range(at[0], at[3] + 1)]
    assert len(tokens[0]) > 1  # one word, several pieces
    assert len(tokens[1]) > 4
    means = torch.stack([hidden[list(one)].mean(0) for one in tokens])
    expected = torch.nn.functional.normalize(means, dim=-1).flatten() / 3**0.5
    torch.testing.assert_close(encoder.embed([text])[0], expected)


def test_a_role_cut_off_or_empty_is_the_mean_over_the_text_and_counted(tiny_encoder):
    encoder = opened(tiny_encoder, max_tokens=7)  # "the @ rain @ caused": the tail is cut off
    whole = encoder.mean_vectors(TEXTS[:1]).detach()
    found = encoder.embed(TEXTS[:1]).view(3, WIDTH) * 3**0.5
    torch.testing.assert_close(found[1], whole[0])
    assert not torch.allclose(found[0], whole[0])
    assert encoder.roles_missed == 1
    odd = [(6, 6), (4, 10), (900, 950)]  # empty inside a word; a word; beyond the end
    encoder = opened(tiny_encoder, max_tokens=7, role_spans=lambda _: odd)
    found = encoder.embed(TEXTS[:1]).view(3, WIDTH) * 3**0.5
    torch.testing.assert_close(found[[0, 2]], whole.expand(2, -1))
    assert encoder.roles_missed == 2


def test_gradient_reaches_the_encoder_from_every_role(tiny_encoder):
    for role in range(3):
        encoder = opened(tiny_encoder)
        (encoder(TEXTS).view(-1, 3, WIDTH)[:, role] @ torch.linspace(-1, 1, WIDTH)).sum().backward()
        missing = [n for n, w in encoder.model.named_parameters() if "pooler" not in n and w.grad is None]
        assert not missing
        assert any(bool(w.grad.any()) for w in encoder.model.parameters() if w.grad is not None)


def test_means_are_taken_in_fp32_under_autocast(tiny_encoder, monkeypatch):
    encoder = opened(tiny_encoder)
    hidden = torch.randn(1, 12, WIDTH, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(encoder, "_run_model", lambda *_: (hidden, torch.ones(1, 12, dtype=torch.long)))
    expected = encoder(TEXTS[:1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(encoder(TEXTS[:1]), expected)


@pytest.mark.parametrize("pooling", ["mean", "cls", "roles"])
def test_mean_vectors_whatever_the_pooling(tiny_encoder, pooling):
    encoder = Encoder.open(str(tiny_encoder), pooling, normalise=False).eval()
    found = encoder.mean_vectors(TEXTS)
    assert_equal_but_rounding(found, Encoder.open(str(tiny_encoder)).eval()(TEXTS))
    assert found.requires_grad
    assert encoder.mean_vectors([]).shape == (0, WIDTH)


def test_no_texts(tiny_encoder):
    assert opened(tiny_encoder).embed([]).shape == (0, 3 * WIDTH)


def test_without_role_spans_the_error_says_what_to_set(tiny_encoder):
    encoder = Encoder.open(str(tiny_encoder), "roles")
    with pytest.raises(UserError, match=r"needs role_spans.*make the Encoder with"):
        encoder.embed(TEXTS)
    encoder = opened(tiny_encoder, role_spans=lambda _: [(0, 1)])
    with pytest.raises(ValueError, match=r"role_spans gave 1 spans for 'the @ rain.*expected head, tail, context"):
        encoder.embed(TEXTS)


def test_a_tokenizer_without_characters_is_refused_with_the_remedy(tiny_encoder):
    model = Encoder.open(str(tiny_encoder)).model
    with pytest.raises(UserError, match=r"ByT5Tokenizer does not give; name a model with a fast tokenizer"):
        Encoder(model, ByT5Tokenizer(), "roles")
    assert Encoder(model, ByT5Tokenizer(), "mean").pooling == "mean"


def test_the_fingerprint_covers_the_pooling(tiny_encoder):
    encoders = [Encoder.open(str(tiny_encoder), pooling) for pooling in ("mean", "cls", "roles")]
    assert len({encoder.fingerprint() for encoder in encoders}) == 3


@pytest.mark.parametrize("shared", [True, False])
def test_a_retriever_keeps_the_pooling_on_disk_and_takes_the_spans_when_loaded(tiny_encoder, tmp_path, shared):
    query = opened(tiny_encoder)
    first = Retriever(query, query if shared else opened(tiny_encoder))
    first.save(tmp_path)
    assert Retriever.load(tmp_path).query_encoder.role_spans is None
    again = Retriever.load(tmp_path, spans).eval()
    assert again.passage_encoder.pooling == "roles"
    assert_equal_but_rounding(
        again.queries(TEXTS) @ again.passages(TEXTS).T, first.queries(TEXTS) @ first.passages(TEXTS).T
    )
    assert again.query_encoder.fingerprint() == first.query_encoder.fingerprint()


@pytest.mark.filterwarnings("ignore")
def test_sentence_transformers_reads_the_folder_as_mean_vectors(tiny_encoder, tmp_path):
    library = pytest.importorskip("sentence_transformers")
    encoder = opened(tiny_encoder)
    encoder.save(tmp_path)
    theirs = library.SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(theirs, encoder.mean_vectors(TEXTS).detach())
