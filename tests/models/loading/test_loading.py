"""What cannot be opened says so in one line with the remedy; pickled weights are never read."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import DPRConfig, DPRContextEncoder, DPRQuestionEncoder, T5ForConditionalGeneration
from transformers.utils import logging as transformers_logging

from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.loading.architectures import build_encoder_shape
from retrograd.models.loading.loading import open_encoder, open_generator
from retrograd.models.loading.transformers_io import quiet_transformers
from retrograd.types import UserError

OPENERS = [open_encoder, open_generator]
REMEDY = r"could not be opened: .*Give a folder with config\.json, a tokenizer and \*\.safetensors weights"


def refused(open_model, name: object) -> str:
    with pytest.raises(UserError) as caught:
        open_model(str(name))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("open_model", OPENERS)
def test_names_that_lead_nowhere(open_model, tmp_path):
    for name, place in ((tmp_path, "folder"), ("nobody/nothing", "hub name"), (tmp_path / "no" / "where", "hub name")):
        message = refused(open_model, name)
        assert f"the model {str(name)!r} ({place})" in message
        with pytest.raises(UserError, match=REMEDY):
            open_model(str(name))


@pytest.mark.parametrize("open_model", OPENERS)
def test_weights_that_may_not_be_read(open_model, tiny_encoder, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, _: path.suffix != ".safetensors")  # root may read everything
    assert "model.safetensors may not be read (permission denied)" in refused(open_model, tiny_encoder)


@pytest.mark.parametrize("open_model", OPENERS)
def test_unknown_builtin(open_model):
    message = refused(open_model, "builtin:minilmm")
    assert "there is no built-in model 'builtin:minilmm'" in message
    assert (
        "builtin:minilm to retrieve, builtin:minilm-seq2seq, builtin:minilm-pointer and builtin:smollm2 to generate"
        in message
    )


def test_a_builtin_of_the_other_role():
    assert "for this role" in refused(open_encoder, "builtin:minilm-seq2seq")
    assert "for this role" in refused(open_generator, "builtin:minilm")


@pytest.mark.parametrize("kind", ["tiny_encoder", "tiny_causal", "tiny_seq2seq"])
def test_pickled_weights_are_refused(kind, request, tmp_path):
    folder = shutil.copytree(request.getfixturevalue(kind), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"a pickle is a program")
    message = refused(open_encoder if kind == "tiny_encoder" else open_generator, folder)
    assert "safetensors" in message


def test_damaged_weights(tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny_encoder, tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=REMEDY):
        open_encoder(str(folder))


def test_damaged_config(tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny_encoder, tmp_path / "model")
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=REMEDY):
        open_encoder(str(folder))


def test_no_tokenizer(tiny_seq2seq, tmp_path):
    T5ForConditionalGeneration.from_pretrained(tiny_seq2seq).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=REMEDY):
        open_generator(str(tmp_path))


def test_an_encoder_is_no_generator(tiny_encoder):
    message = refused(open_generator, tiny_encoder)
    assert "of its weights (cls.predictions" in message
    assert "name a model that was trained for this role" in message


@pytest.mark.parametrize("kind", ["tiny_encoder", "tiny_causal", "tiny_seq2seq", "tiny_bart", "tiny_pointer"])
def test_opening_draws_nothing_and_gives_fp32_weights(kind, request):
    name = str(request.getfixturevalue(kind))
    before = torch.get_rng_state()
    model = Encoder.open(name).model if kind == "tiny_encoder" else Generator.open(name, torch.Generator()).model
    assert torch.equal(torch.get_rng_state(), before)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_half_precision_weights_are_widened(tiny_causal, tmp_path):
    model, tokenizer = open_generator(str(tiny_causal))
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert {weight.dtype for weight in open_generator(str(tmp_path))[0].parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", [DPRContextEncoder, DPRQuestionEncoder])
def test_encoders_of_dpr_are_the_berts_inside_them(kind, tiny_encoder, tmp_path):
    """Their embedding is DPR's own, and stays so where they are saved and opened again."""
    bert, tokenizer = open_encoder(str(tiny_encoder))
    known = DPRConfig().to_dict()
    config = DPRConfig(**{name: value for name, value in bert.config.to_dict().items() if name in known})
    original = kind(config).eval()
    original.save_pretrained(tmp_path / "dpr")
    tokenizer.save_pretrained(tmp_path / "dpr")
    ids = tokenizer(["the cup holds tea", "rain"], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = original(**ids).pooler_output
    encoder = Encoder.open(str(tmp_path / "dpr"), "cls", normalise=False)
    torch.testing.assert_close(encoder.embed(["the cup holds tea", "rain"]), expected)
    encoder.save(tmp_path / "again")
    again = Encoder.open(str(tmp_path / "again"), "cls", normalise=False)
    assert again.fingerprint() == encoder.fingerprint()
    with FakeTensorMode():
        planned = build_encoder_shape(str(tmp_path / "dpr"))
        assert {name: value.shape for name, value in planned.named_parameters()} == {
            name: value.shape for name, value in encoder.model.named_parameters()
        }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"projection_dim": 8}, "projection_dim 8 is not supported"),
        ({"architectures": ["DPRReader"]}, "name a DPRContextEncoder"),
    ],
)
def test_other_models_of_dpr_are_refused(changes, expected, tiny_encoder, tmp_path):
    _, tokenizer = open_encoder(str(tiny_encoder))
    config = DPRConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=99)
    DPRQuestionEncoder(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(written | changes))
    assert expected in refused(open_encoder, tmp_path)


@pytest.mark.parametrize("bars", [True, False])
def test_quiet_gives_back_what_it_found(bars):
    verbosity, was = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    (transformers_logging.enable_progress_bar if bars else transformers_logging.disable_progress_bar)()
    try:
        with pytest.raises(KeyError):
            _fail_quietly()
        assert transformers_logging.get_verbosity() == verbosity
        assert transformers_logging.is_progress_bar_enabled() == bars
    finally:
        (transformers_logging.enable_progress_bar if was else transformers_logging.disable_progress_bar)()


def _fail_quietly() -> None:
    with quiet_transformers():
        assert not transformers_logging.is_progress_bar_enabled()
        assert transformers_logging.get_verbosity() == transformers_logging.ERROR
        raise KeyError
