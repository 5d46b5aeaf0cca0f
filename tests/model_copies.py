"""transformers reads the files of a tiny model once a session, and every opening gets a copy of what was read.

Reading takes four times as long as copying, and most tests open a model or two.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from retrograd.models.loading import loading
from retrograd.models.loading.quantisation import Quantisation

SHARED_FOLDERS: set[str] = set()
"""The folders of models that the whole session shares. No test changes them."""


@pytest.fixture(scope="session", autouse=True)
def read_each_model_once() -> Iterator[None]:
    """Have `open_encoder` and `open_generator` copy the models of `SHARED_FOLDERS` after the first opening."""
    read_model, read_tokenizer = loading._open_with_weights, loading._tokenizer
    models: dict[tuple[str, str], PreTrainedModel] = {}
    tokenizers: dict[str, PreTrainedTokenizerBase] = {}

    def with_weights(auto: loading._Auto, name: str, quantisation: Quantisation = "none") -> PreTrainedModel:
        if name not in SHARED_FOLDERS or quantisation != "none":
            return read_model(auto, name, quantisation)
        key = (auto.__name__, name)
        if key not in models:
            models[key] = read_model(auto, name)
        return deepcopy(models[key])

    def tokenizer(name: str) -> PreTrainedTokenizerBase:
        if name not in SHARED_FOLDERS:
            return read_tokenizer(name)
        if name not in tokenizers:
            tokenizers[name] = read_tokenizer(name)
        return deepcopy(tokenizers[name])

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loading, "_open_with_weights", with_weights)
        patched.setattr(loading, "_tokenizer", tokenizer)
        yield
