"""Every option of a model comes back from its folder: a field that is forgotten there fails here."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch
from tests.tolerances import assert_equal_but_rounding

from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions, SavedGenerator, read_settings, write_settings
from retrograd.models.inputs.lexical_projection import LexicalProjection, WordStatistics
from retrograd.models.inputs.soft_prompt import SoftPromptOptions
from retrograd.models.retriever import Retriever, SavedRetriever
from retrograd.types import UserError
from retrograd.util.text_files import read_json

OPTIONS = GeneratorOptions(
    max_input_tokens=20,
    max_target_tokens=5,
    token_budget=40,
    separator=" ? ",
    soft_position="after",
    chat=False,
    quantisation="nf4",
    fusion=True,
    dropout=False,
    gradient_checkpointing=True,
)
SOFT_PROMPT = SoftPromptOptions(width=16, slots=2, query_roles=1, value_roles=2, form="published", gain=0.2, null=True)
TEXTS = ["alpha beta", "the cup holds tea"]


def test_the_examples_of_this_file_are_no_defaults() -> None:
    """Or a forgotten field would come back by chance."""
    for example, usual in ((OPTIONS, GeneratorOptions()), (SOFT_PROMPT, SoftPromptOptions(width=8))):
        left, right = asdict(example), asdict(usual)
        assert [name for name in left if left[name] == right[name]] == []


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("soft_prompt", [None, SOFT_PROMPT])
def test_the_file_of_a_generator_keeps_every_option(
    lora: bool, soft_prompt: SoftPromptOptions | None, tmp_path: Path
) -> None:
    saved = SavedGenerator(OPTIONS, lora, soft_prompt)
    write_settings(tmp_path, saved)
    assert read_settings(tmp_path) == saved


def test_a_generator_keeps_its_options_and_its_scores(tiny_seq2seq: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, quantisation="none")
    first = Generator.open(str(tiny_seq2seq), torch.Generator().manual_seed(0), None, options, SOFT_PROMPT)
    first.save(tmp_path)
    again = Generator.load(tmp_path, "unused")
    assert again.options == first.options == options
    assert_equal_but_rounding(again.log_likelihood(TEXTS, TEXTS), first.log_likelihood(TEXTS, TEXTS))


def test_the_file_of_an_older_version_is_read(tiny_causal: Path, tmp_path: Path) -> None:
    """Format 1 held five values; what came later is as it was then."""
    Generator.open(str(tiny_causal), torch.Generator()).save(tmp_path)
    path = tmp_path / "generator.json"
    old = {"max_input_tokens": 9, "max_target_tokens": 4, "token_budget": 0, "separator": "\n", "lora": False}
    path.write_text(json.dumps(old))
    assert read_settings(tmp_path) == SavedGenerator(GeneratorOptions(9, 4, chat=False), lora=False)
    for name in old:
        path.write_text(json.dumps({key: value for key, value in old.items() if key != name}))
        with pytest.raises(UserError, match=rf"generator\.json: needs '{name}'"):
            read_settings(tmp_path)


def test_the_file_of_a_retriever_has_a_place_for_every_argument() -> None:
    """But for what other files hold, and the spans, which a task gives."""
    elsewhere = {"self", "model", "tokenizer", "head", "role_spans", "query_encoder", "passage_encoder", "temperature"}
    named = set(inspect.signature(Encoder.__init__).parameters) | set(inspect.signature(Retriever.__init__).parameters)
    assert named - elsewhere <= {field.name for field in fields(SavedRetriever)}


@pytest.mark.parametrize("shared", [True, False])
def test_a_retriever_keeps_every_setting(shared: bool, tiny_encoder: Path, tmp_path: Path) -> None:
    words = LexicalProjection(WordStatistics.of(TEXTS), 32)
    query, passage = (
        Encoder.open(str(tiny_encoder), "cls", False, 5, 30, dropout=False, lexical=words) for _ in range(2)
    )
    first = Retriever(query, query if shared else passage, 0.3, "query", learn_temperature=True, lexical_weight=0.7)
    first.save(tmp_path / "first")
    again = Retriever.load(tmp_path / "first")
    again.save(tmp_path / "again")
    written, same = (read_json(tmp_path / name / "retriever.json") for name in ("first", "again"))
    assert written == same
    assert isinstance(written, dict)
    assert written.keys() == {field.name for field in fields(SavedRetriever)}
    usual = {"trained": "both", "learn_temperature": False, "pooling": "mean", "normalise": True, "max_tokens": 256}
    usual |= {"lexical": False, "lexical_weight": 1.0, "token_budget": 0, "dropout": True}
    assert [name for name, value in usual.items() if written[name] == value] == []
    for one, other in ((first.query_encoder, again.query_encoder), (first.passage_encoder, again.passage_encoder)):
        assert (other.token_budget, other.dropout, other.max_tokens) == (one.token_budget, one.dropout, one.max_tokens)
    assert_equal_but_rounding(again.train().queries(TEXTS), first.train().queries(TEXTS))


def test_a_retriever_takes_the_passage_tower_of_another(tiny_encoder: Path, tmp_path: Path) -> None:
    tower = Encoder.open(str(tiny_encoder))
    Retriever(Encoder.open(str(tiny_encoder)), tower).save(tmp_path)
    again = Retriever.load(tmp_path, passage_encoder=tower)
    assert again.passage_encoder is tower
    assert again.query_encoder is not tower
