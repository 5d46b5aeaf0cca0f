"""Describe all that decides what a model computes, for fingerprints: configuration, tokenizer and weights."""

from __future__ import annotations

import json
from collections.abc import Iterator

from safetensors.torch import save
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

__all__ = ["describe_configuration", "describe_tokenizer", "hash_parts"]

_VOLATILE = {"architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}


def hash_parts(module: nn.Module) -> Iterator[str | bytes]:
    """Yield names and bytes of all weights, in the order of the names."""
    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    for name in sorted(state):
        yield name
        yield save({"": state[name]})


def describe_configuration(model: PreTrainedModel) -> str:
    """Return the settings of a model that decide what it computes, as JSON."""
    return json.dumps(_select_decisive(json.loads(model.config.to_json_string())), sort_keys=True)


def _select_decisive(settings: dict[str, object]) -> dict[str, object]:
    """Leave out settings of a model that may vary while it computes the same.

    None and False are left out as well: later versions of transformers add settings with these values to every model.
    """
    return {
        name: _select_decisive(value) if isinstance(value, dict) else value
        for name, value in settings.items()
        if not (name.startswith("_") or name in _VOLATILE or value is None or value is False)
    }


def describe_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return how texts become ids, without truncation and padding, which a tokenizer keeps from its last call.

    A tokenizer written in Python is described by its class, its vocabulary and its special tokens.
    """
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        state = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    else:
        special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
        state = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab(), "special": special}
    return json.dumps([state, tokenizer.model_input_names], sort_keys=True)
