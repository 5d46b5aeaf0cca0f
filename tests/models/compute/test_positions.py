"""The end of a model's positions, by families that state it in their own ways."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.conftest import build
from tests.tiny_families import POSITIONS, tiny_config
from transformers import AutoModelForSeq2SeqLM, BertConfig, EncoderDecoderConfig, LEDConfig, MptConfig, RobertaConfig

from retrograd.models.compute.positions import position_limit
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions


def test_each_side_of_an_encoder_decoder_has_its_own_end() -> None:
    led = LEDConfig(max_encoder_position_embeddings=100, max_decoder_position_embeddings=30)
    assert (position_limit(led), position_limit(led, "decoder")) == (100, 30)
    reader, writer = RobertaConfig(max_position_embeddings=50, pad_token_id=1), BertConfig(max_position_embeddings=20)
    composed = EncoderDecoderConfig.from_encoder_decoder_configs(reader, writer)
    assert (position_limit(composed), position_limit(composed, "decoder")) == (48, 20)
    assert position_limit(MptConfig(max_seq_len=70)) == 70


@pytest.mark.parametrize("family", ["bart", "led"])
def test_targets_and_prompts_are_cut_where_the_positions_end(family: str, tmp_path: Path) -> None:
    config = tiny_config(family, decoder_start_token_id=2)
    folder = build(tmp_path, lambda: AutoModelForSeq2SeqLM.from_config(config), "$A </s>")
    options = GeneratorOptions(max_input_tokens=200, max_target_tokens=200)
    generator = Generator.open(str(folder), torch.Generator(), options=options)
    assert (generator.options.max_input_tokens, generator.options.max_target_tokens) == (POSITIONS, POSITIONS)
    long = "alpha beta " * 60
    assert generator.log_likelihood([long], [long]).isfinite().all()
