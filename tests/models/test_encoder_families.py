"""Every family of encoders: long texts, a training step, the way through the disk; and those that cannot serve."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from tests.conftest import build
from tests.tiny_families import POSITIONS, tiny_config, tiny_family
from tests.tolerances import assert_equal_but_rounding, assert_same_weights
from transformers import CONFIG_MAPPING, AutoModel, AutoModelForSeq2SeqLM

from retrograd.models.compute.positions import position_limit
from retrograd.models.encoder import Encoder
from retrograd.models.loading.architectures import build_encoder_shape
from retrograd.types import UserError

TEXTS = ["alpha beta gamma", "delta", "the cup holds tea in the box . what came from rain ?"]
LONG = "alpha beta gamma delta " * 30

_TO_THE_END = """
albert bart bert big_bird convbert deberta deberta-v2 distilbert electra ernie flaubert fnet gpt2 layoutlm mbart
megatron-bert mobilebert mra mvp nystromformer rembert roformer splinter squeezebert xlm yoso led
"""
_FROM_PADDING = """
camembert data2vec-text esm ibert longformer luke markuplm roberta roberta-prelayernorm xlm-roberta xlm-roberta-xl xmod
"""
ENDING = dict.fromkeys(_TO_THE_END.split(), POSITIONS) | dict.fromkeys(_FROM_PADDING.split(), POSITIONS - 1)
ENDING["mpnet"] = POSITIONS - 2
"""The longest text that a family reads where its configuration states 40 positions."""
ENDLESS = ["xlnet", "t5", "mt5", "umt5", "longt5"]
_ROTARY = """
eurobert gemma gte jina_embeddings_v3 llama mistral modernbert nomic_bert qwen3 tapas
"""
ROTARY = _ROTARY.split()
REFUSED = {
    "switch_transformers": "not supported as encoders",
    "clip": "cannot serve",
    "lxmert": "visual_feats",
    "bros": "bbox",
    "canine": "cannot serve",
    "funnel": "cannot serve",
}
ONCE = ["bert", "roberta", "mpnet", "xlnet", "t5", "fnet"]


@pytest.mark.parametrize("family", ONCE)
def test_a_family_serves(family: str, tmp_path: Path) -> None:
    require_service(family, tmp_path)


@pytest.mark.sweep
@pytest.mark.parametrize("family", [*ENDING, *ENDLESS, *ROTARY])
def test_every_family_serves(family: str, tmp_path: Path) -> None:
    require_service(family, tmp_path)


def require_service(family: str, folder: Path) -> None:
    """Read a text beyond the end, train a step, save, open again; all vectors are as they were."""
    name = str(tiny_family(folder / "model", family))
    encoder = Encoder.open(name, max_tokens=100).eval()
    assert position_limit(encoder.model.config) == ENDING.get(family, POSITIONS if family in ROTARY else None)
    assert encoder.max_tokens == (position_limit(encoder.model.config) or 100)
    cut = " ".join(LONG.split()[: encoder.max_tokens - 2])
    torch.testing.assert_close(encoder.embed([LONG]), encoder.embed([cut]))
    alone = torch.cat([encoder.embed([text]) for text in TEXTS])
    torch.testing.assert_close(encoder.embed(TEXTS), alone, rtol=1e-4, atol=1e-5)
    before = {name: weight.clone() for name, weight in encoder.named_parameters()}
    optimiser = torch.optim.SGD(encoder.parameters(), lr=0.1)
    (encoder(TEXTS) @ torch.linspace(-1, 1, encoder.dimension)).sum().backward()
    optimiser.step()
    assert any(not torch.equal(weight, before[name]) for name, weight in encoder.named_parameters())
    encoder.save(folder / "saved")
    again = Encoder.open(str(folder / "saved"), max_tokens=100)
    assert_same_weights(again, encoder)
    assert_equal_but_rounding(again.embed(TEXTS), encoder.embed(TEXTS))
    assert again.fingerprint() == encoder.fingerprint()
    shape = build_encoder_shape(name)
    assert sum(weight.numel() for weight in shape.parameters()) == sum(w.numel() for w in encoder.model.parameters())


@pytest.mark.sweep
@pytest.mark.parametrize("family", ENDING)
def test_a_longer_text_has_no_position(family: str) -> None:
    """The limit is the last length that the model itself reads, not one below."""
    model = AutoModel.from_config(tiny_config(family)).eval()
    limit = ENDING[family]
    with torch.no_grad():
        for length, reads in ((limit, True), (limit + 1, False)):
            ids = torch.full((1, length), 7)
            try:
                model(input_ids=ids, attention_mask=torch.ones_like(ids))
            except (IndexError, RuntimeError):
                assert not reads
            else:
                assert reads


def test_the_encoder_of_a_whole_t5_is_opened(tmp_path: Path) -> None:
    """A checkpoint of T5 has a decoder, GTR's and Sentence-T5's have none; both are the same encoder."""
    whole = build(tmp_path / "whole", lambda: AutoModelForSeq2SeqLM.from_config(tiny_config("t5")), "$A </s>")
    encoder = Encoder.open(str(whole))
    encoder.save(tmp_path / "alone")
    assert not any("decoder." in name for name, _ in encoder.model.named_parameters())
    assert_equal_but_rounding(Encoder.open(str(tmp_path / "alone")).embed(TEXTS), encoder.embed(TEXTS))


@pytest.mark.parametrize("family", [name for name in REFUSED if name in CONFIG_MAPPING])
def test_a_family_that_cannot_serve_is_refused_in_one_sentence(family: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=REFUSED[family]) as caught:
        Encoder.open(str(tiny_family(tmp_path, family)))
    assert re.search(r"(the family|family) [a-z_]+", str(caught.value))
    assert "\n" not in str(caught.value)
