"""Embeddings against a slow twin that reads one text at a time, and a round trip through the disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.conftest import CLS, SEP, bert_config, word_tokenizer
from tests.tolerances import assert_equal_but_rounding
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, ByT5Tokenizer, PreTrainedTokenizerFast

from retrograd.models.encoder import Encoder
from retrograd.types import UserError

TEXTS = ["alpha beta gamma", "", "delta", "alpha beta gamma delta epsilon zeta eta", "what is kappa ?", "delta"]


def slow_embedding(folder: Path, text: str, pooling: str, normalise: bool, max_tokens: int = 64):
    """One text, no padding, the hidden states pooled by hand."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    words = tokenizer.convert_tokens_to_ids(text.split())
    ids = torch.tensor([[CLS, *words[: max_tokens - 2], SEP]])
    hidden = model(ids).last_hidden_state[0]
    pooled = hidden[0] if pooling == "cls" else hidden.sum(0) / len(hidden)
    return pooled / pooled.square().sum().sqrt() if normalise else pooled


@pytest.fixture
def encoder(tiny_encoder) -> Encoder:
    return Encoder.open(str(tiny_encoder), max_tokens=64)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("normalise", [True, False])
def test_equals_the_slow_twin(tiny_encoder, pooling, normalise):
    encoder = Encoder.open(str(tiny_encoder), pooling, normalise)
    expected = torch.stack([slow_embedding(tiny_encoder, text, pooling, normalise) for text in TEXTS])
    torch.testing.assert_close(encoder.embed(TEXTS), expected)


def test_gradient_equals_the_slow_twins(tiny_encoder):
    encoder = Encoder.open(str(tiny_encoder)).eval()
    weight = torch.linspace(-1, 1, 16)
    (encoder(TEXTS) @ weight).sum().backward()
    twin = AutoModel.from_pretrained(tiny_encoder).eval()
    tokenizer = encoder.tokenizer
    for text in TEXTS:
        hidden = twin(torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state[0].mean(0)
        (hidden / hidden.norm() @ weight).backward()
    for (name, ours), theirs in zip(encoder.model.named_parameters(), twin.parameters(), strict=True):
        if theirs.grad is None:
            assert ours.grad is None, name
        else:
            torch.testing.assert_close(ours.grad, theirs.grad, msg=name)


@pytest.mark.parametrize("token_budget", [2, 10, 1_000])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_neighbours_in_the_batch_padding_and_order_do_not_matter(tiny_encoder, token_budget, pooling):
    opened = Encoder.open(str(tiny_encoder), pooling)
    encoder = Encoder(opened.model, opened.tokenizer, pooling, token_budget=token_budget)
    alone = torch.cat([encoder.embed([text]) for text in TEXTS])
    torch.testing.assert_close(encoder.embed(TEXTS), alone)
    torch.testing.assert_close(encoder.embed(TEXTS[::-1]), alone.flip(0))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_tokenizer_that_prefers_the_left_side_changes_nothing(tiny_encoder, pooling):
    encoder = Encoder.open(str(tiny_encoder), pooling)
    expected = encoder.embed(TEXTS)
    encoder.tokenizer.padding_side = "left"
    torch.testing.assert_close(encoder.embed(TEXTS), expected)


def test_length_is_one(encoder):
    torch.testing.assert_close(encoder.embed(TEXTS).norm(dim=-1), torch.ones(len(TEXTS)))


def test_no_texts(encoder):
    assert encoder.embed([]).shape == (0, 16)
    assert encoder([]).dtype == torch.float32


def test_longer_texts_are_cut_at_the_end(tiny_encoder):
    encoder = Encoder.open(str(tiny_encoder), max_tokens=5)
    found = encoder.embed(["alpha beta gamma delta epsilon", "alpha beta gamma"])
    torch.testing.assert_close(found[0], found[1])


def test_never_longer_than_the_models_positions(tiny_encoder):
    encoder = Encoder.open(str(tiny_encoder), max_tokens=4_096)
    assert encoder.max_tokens == 128
    torch.testing.assert_close(encoder.embed(["alpha " * 500]), encoder.embed(["alpha " * 126]))


def test_embed_has_neither_dropout_nor_gradient_and_leaves_the_mode(encoder):
    expected = encoder.eval().embed(TEXTS)
    encoder.train()
    found = encoder.embed(TEXTS)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert not found.requires_grad
    assert encoder.training
    assert encoder.model.training
    assert not torch.equal(encoder(TEXTS), expected)  # dropout


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("normalise", [True, False])
def test_saved_and_opened_again_is_the_same(tiny_encoder, tmp_path, pooling, normalise):
    first = Encoder.open(str(tiny_encoder), pooling, normalise, max_tokens=6)
    first.save(tmp_path)
    again = Encoder.open(str(tmp_path), pooling, normalise, max_tokens=6)
    assert_equal_but_rounding(again.embed(TEXTS), first.embed(TEXTS))
    assert again.fingerprint() == first.fingerprint()
    assert not list(tmp_path.rglob("*.bin"))


def test_the_fingerprint_changes_with_a_weight_and_with_each_setting(tiny_encoder):
    settings = [("mean", True, 32), ("cls", True, 32), ("mean", False, 32), ("mean", True, 31)]
    encoders = [Encoder.open(str(tiny_encoder), *setting) for setting in settings]
    moved = Encoder.open(str(tiny_encoder), *settings[0])
    with torch.no_grad():
        next(moved.model.parameters())[7, 3] += 1e-6
    assert len({encoder.fingerprint() for encoder in [*encoders, moved]}) == 5
    assert encoders[0].fingerprint() == Encoder.open(str(tiny_encoder), *settings[0]).fingerprint()


def test_the_fingerprint_changes_with_the_tokenizer(tiny_encoder, tmp_path):
    """The same weights that read other ids are another encoder, be it two words exchanged or one token not added."""
    first = Encoder.open(str(tiny_encoder))
    state = json.loads(first.tokenizer.backend_tokenizer.to_str())
    words = state["model"]["vocab"]
    words["alpha"], words["beta"] = words["beta"], words["alpha"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    exchanged = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), pad_token="[PAD]")
    for tokenizer in (exchanged, word_tokenizer("[CLS] $A"), ByT5Tokenizer(), ByT5Tokenizer(extra_ids=7)):
        other = Encoder(first.model, tokenizer)
        assert other.fingerprint() != first.fingerprint()
        first = other


@pytest.mark.parametrize("setting", [{"hidden_act": "relu"}, {"layer_norm_eps": 0.1}, {"num_attention_heads": 4}])
def test_the_fingerprint_changes_with_what_the_model_does_with_its_weights(tiny_encoder, setting):
    first = Encoder.open(str(tiny_encoder))
    model = BertModel(BertConfig(**bert_config().to_dict() | setting))
    model.load_state_dict(first.model.state_dict())
    other = Encoder(model, first.tokenizer)
    assert not torch.equal(other.embed(TEXTS), first.embed(TEXTS))
    assert other.fingerprint() != first.fingerprint()


def test_the_fingerprint_is_none_of_paths_versions_and_earlier_texts(tiny_encoder, tmp_path):
    """A call leaves its truncation and padding in the tokenizer, and saving writes both."""
    first = Encoder.open(str(tiny_encoder), max_tokens=6)
    before = first.fingerprint()
    first.embed(TEXTS)
    assert first.fingerprint() == before
    first.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"transformers_version": "4.0", "_name_or_path": "x"}))
    assert Encoder.open(str(tmp_path), max_tokens=6).fingerprint() == before


def test_the_builtin_encoder_keeps_its_fingerprint_on_disk(tmp_path):
    first = Encoder.open("builtin:minilm", max_tokens=64)
    first.embed(TEXTS)
    first.save(tmp_path)
    assert Encoder.open(str(tmp_path), max_tokens=64).fingerprint() == first.fingerprint()


def test_a_folder_without_the_unused_pooler_has_one_fingerprint(tmp_path):
    BertModel(bert_config(), add_pooling_layer=False).save_pretrained(tmp_path)
    word_tokenizer("[CLS] $A [SEP]").save_pretrained(tmp_path)
    first, second = Encoder.open(str(tmp_path)), Encoder.open(str(tmp_path))
    assert first.fingerprint() == second.fingerprint()
    assert_equal_but_rounding(first.embed(TEXTS), second.embed(TEXTS))
    first.save(tmp_path / "again")
    assert Encoder.open(str(tmp_path / "again")).fingerprint() == first.fingerprint()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_sentence_transformers_reads_what_we_write(tiny_encoder, tmp_path, pooling, normalise):
    library = pytest.importorskip("sentence_transformers")
    encoder = Encoder.open(str(tiny_encoder), pooling, normalise, max_tokens=6)
    encoder.save(tmp_path)
    theirs = library.SentenceTransformer(str(tmp_path), device="cpu")
    texts = TEXTS[:1] + TEXTS[2:]
    torch.testing.assert_close(theirs.encode(texts, convert_to_tensor=True), encoder.embed(texts))


@pytest.mark.parametrize(
    ("settings", "advice"),
    [({"max_tokens": 1}, "max_tokens is 1; it must be at least 2"), ({"token_budget": -1}, "token_budget")],
)
def test_bad_settings(encoder, settings, advice):
    with pytest.raises(UserError, match=advice):
        Encoder(encoder.model, encoder.tokenizer, **settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"pad_token": None}, "no padding token"), ({"model_max_length": []}, "model_max_length is")],
)
def test_a_tokenizer_that_cannot_be_used(tiny_encoder, tmp_path, change, message):
    folder = shutil.copytree(tiny_encoder, tmp_path / "model")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        Encoder.open(str(folder))
