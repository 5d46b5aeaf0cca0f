"""Read what this disk has of a model: tokenizer, configuration, names of weights. Nothing is ever downloaded."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from retrograd.models.loading.builtin import BUILTIN_ENCODER, BUILTIN_GENERATORS, minilm_folder
from retrograd.models.loading.gguf import unpack_if_gguf
from retrograd.models.loading.sentence_folders import SentenceFolder, read_sentence_folder, transformer_folder
from retrograd.models.loading.transformers_io import quiet_transformers
from retrograd.types import UserError
from retrograd.util.guards import first_line

__all__ = ["local_config", "local_declaration", "local_folder", "local_tokenizer", "weight_names"]


def local_folder(name: str) -> Path | None:
    """Return a model's folder on this disk: the built-in one, the folder itself, or the hub's cache; else None.

    Of a folder of sentence-transformers, that is where its transformer lies; of a GGUF file, where it is unpacked.
    Raises `UserError` as `find_gguf_file` and `unpack` do.
    """
    if name in (BUILTIN_ENCODER, *BUILTIN_GENERATORS):
        return minilm_folder()
    name = unpack_if_gguf(name)
    if Path(name).is_dir():
        return transformer_folder(Path(name))
    try:
        cached = try_to_load_from_cache(name, "config.json")
    except ValueError:  # not a name that the hub could have
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def local_config(name: str) -> PretrainedConfig | None:
    """Return the configuration of a model, or None if this disk has none. Raises `UserError` for a broken one."""
    folder = local_folder(name)
    if folder is None or not (folder / "config.json").is_file():
        return None
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a wrong value may end in any error
        raise UserError(
            f"{folder / 'config.json'} could not be read ({first_line(error)}); correct or replace it"
        ) from None


def local_declaration(name: str) -> SentenceFolder | None:
    """Return what the folder of an encoder declares beside its transformer, or None if this disk has nothing of it."""
    folder = Path(name) if Path(name).is_dir() else local_folder(name)
    return None if folder is None else read_sentence_folder(str(folder))


def local_tokenizer(name: str) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer of a model, or None if this disk has none."""
    folder = local_folder(name)
    if folder is None or not any(file for kind in ("tokenizer*", "vocab*", "*.model") for file in folder.glob(kind)):
        return None
    try:
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception:  # a damaged one may end in any error; opening the model reports it
        return None


def weight_names(name: str) -> frozenset[str]:
    """Return the names of the weights in a model's safetensors files; empty if this disk has no such files."""
    folder = local_folder(name)
    names: set[str] = set()
    for path in folder.glob("*.safetensors") if folder else ():
        try:
            with safe_open(path, framework="pt") as file:
                names.update(file.keys())
        except (OSError, SafetensorError):  # half a download; opening the model reports it
            continue
    return frozenset(names)
