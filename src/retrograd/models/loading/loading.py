"""Open Hugging Face models by hub name, local folder or built-in name: safetensors only, no remote code."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForTextEncoding,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from retrograd.models.loading.builtin import (
    BUILTIN_ENCODER,
    BUILTIN_GENERATORS,
    BUILTIN_SEQ2SEQ,
    minilm_folder,
    minilm_pointer,
    minilm_seq2seq,
)
from retrograd.models.loading.dpr import dpr_class, extract_bert
from retrograd.models.loading.encoder_classes import encoder_class, require_hidden_states
from retrograd.models.loading.folder_checks import require_model_files
from retrograd.models.loading.generator_checks import require_family, require_left_to_right
from retrograd.models.loading.gguf import BUILTIN_LANGUAGE_MODEL, unpack_if_gguf
from retrograd.models.loading.quantisation import nf4_config, require_quantisable
from retrograd.models.loading.transformers_io import drop_empty_pooler, quiet_transformers
from retrograd.models.loading.versions import require_supported_versions
from retrograd.models.pointer import COPY_LAYERS, PointerGenerator, generator_class
from retrograd.models.settings import Quantisation
from retrograd.types import UserError
from retrograd.util.guards import first_line

__all__ = ["open_encoder", "open_generator"]

_BUILTIN = f"{BUILTIN_ENCODER} to retrieve, {', '.join(BUILTIN_GENERATORS)} and {BUILTIN_LANGUAGE_MODEL} to generate"


def open_encoder(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Open a text encoder with fp32 weights, and its tokenizer. Raises `UserError` with the remedy if it cannot."""
    require_supported_versions()
    if name == BUILTIN_ENCODER:
        return open_encoder(str(minilm_folder()))
    if Path(name).suffix.lower() == ".gguf" and Path(name).is_file():
        raise UserError(f"{name} is a GGUF file, which can be a generator alone; give a folder or hub name to retrieve")
    _refuse_unknown_builtin(name)
    require_model_files(name)
    with quiet_transformers(), _explain_errors(name):
        tokenizer = _tokenizer(name)
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        kind = dpr_class(config)
        model = _open_with_weights(kind or encoder_class(config), name)
        model = model if kind is None else extract_bert(model)
        require_hidden_states(name, model, tokenizer)
        return model, tokenizer


def open_generator(name: str, quantisation: Quantisation = "none") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Open a seq2seq or decoder-only generator, and its tokenizer. Weights are fp32, but for the linear layers of a
    quantised one, which stands on the CUDA device from the start. Raises `UserError` with the remedy if it cannot be
    had.
    """
    require_supported_versions()
    if quantisation == "nf4":
        require_quantisable(name)
    if name in BUILTIN_GENERATORS:
        with quiet_transformers():
            return minilm_seq2seq() if name == BUILTIN_SEQ2SEQ else minilm_pointer()
    name = unpack_if_gguf(name)
    _refuse_unknown_builtin(name)
    require_model_files(name)
    with quiet_transformers(), _explain_errors(name):
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        require_family(config)
        tokenizer = _tokenizer(name)
        model = _open_with_weights(generator_class(config), name, quantisation)
        drop_empty_pooler(model)
        require_left_to_right(name, model)
        return model, tokenizer


def _tokenizer(name: str) -> PreTrainedTokenizerBase:
    folder = Path(name)
    # Where a folder has none, transformers makes up a tokenizer without words.
    if folder.is_dir() and not any(file for kind in ("tokenizer*", "vocab*", "*.model") for file in folder.glob(kind)):
        raise OSError(f"{folder} has no tokenizer.")
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    if not isinstance(tokenizer.model_max_length, int | float) or tokenizer.model_max_length < 1:
        raise ValueError(f"its tokenizer's model_max_length is {str(tokenizer.model_max_length)[:40]}.")
    return tokenizer


_Auto = (
    type[AutoModel]
    | type[AutoModelForCausalLM]
    | type[AutoModelForSeq2SeqLM]
    | type[AutoModelForTextEncoding]
    | type[PreTrainedModel]
)


def _open_with_weights(auto: _Auto, name: str, quantisation: Quantisation = "none") -> PreTrainedModel:
    """Open a model all weights of which are in its files. Raises `UserError` if it lacks more than a pooler."""
    # Without trust_remote_code = False transformers would ask at the terminal whether to run what the folder brings.
    options = {"use_safetensors": True, "trust_remote_code": False, "dtype": torch.float32, "output_loading_info": True}
    if quantisation == "nf4":  # what it leaves alone (embeddings, norms, output layer) keeps fp32, as QLoRA wants it
        options["quantization_config"] = nf4_config()
    with torch.random.fork_rng(devices=[]):  # lacking weights would be drawn from the global random state
        loaded = auto.from_pretrained(name, **options)
    model, report = cast(tuple[PreTrainedModel, dict[str, Collection[str]]], loaded)
    poolers = {weight.partition("pooler.")[0] for weight in report["missing_keys"] if "pooler." in weight}
    for parent in poolers:
        # Nothing here reads a pooler, and a random one would give each opening another fingerprint.
        model.get_submodule(parent.rstrip(".")).register_module("pooler", None)
    if any(layer in weight for weight in report["unexpected_keys"] for layer in COPY_LAYERS):
        raise UserError(
            f"the model {name!r} has weights of a {PointerGenerator.__name__}, which its config.json does not name; "
            f'correct it: "architectures": ["{PointerGenerator.__name__}"]'
        )
    lacking = sorted(weight for weight in report["missing_keys"] if "pooler." not in weight)
    if lacking:
        raise UserError(
            f"the model {name!r} lacks {len(lacking)} of its weights ({', '.join(lacking[:3])}), which would be "
            "random; name a model that was trained for this role: an encoder to retrieve, a language model to generate"
        )
    return model


def _refuse_unknown_builtin(name: str) -> None:
    """Raise `UserError` for a name that begins as a built-in one but does not exist."""
    if name.startswith("builtin:"):
        raise UserError(f"there is no built-in model {name!r} for this role; expected {_BUILTIN}")


@contextmanager
def _explain_errors(name: str) -> Iterator[None]:
    """Turn any error of opening a model into a `UserError` with the remedy."""
    try:
        yield
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a wrong value in a configuration may end in any error, wherever it is first used
        where = "folder" if Path(name).exists() else "hub name"
        raise UserError(
            f"the model {name!r} ({where}) could not be opened: {first_line(error)} "
            f"Give a folder with config.json, a tokenizer and *.safetensors weights, a hub name that is reachable "
            f"from here, or a built-in model ({_BUILTIN})."
        ) from error
