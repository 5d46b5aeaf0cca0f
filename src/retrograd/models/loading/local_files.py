"""What of a model lies on this disk: tokenizer, configuration, names of weights. Nothing is ever downloaded."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from retrograd.models.loading.builtin import BUILTIN_ENCODER, BUILTIN_GENERATORS, minilm_folder
from retrograd.models.loading.loading import quiet_transformers
from retrograd.types import UserError

__all__ = ["local_config", "local_folder", "local_tokenizer", "weight_names"]


def local_folder(name: str) -> Path | None:
    """The folder of a model on this disk: of a built-in one, the folder itself, or the cache of the hub; else None."""
    if name in (BUILTIN_ENCODER, *BUILTIN_GENERATORS):
        return minilm_folder()
    if Path(name).is_dir():
        return Path(name)
    try:
        cached = try_to_load_from_cache(name, "config.json")
    except ValueError:  # no name that the hub could have
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def local_config(name: str) -> PretrainedConfig | None:
    """The configuration of a model, or None where there is none on this disk. Raises `UserError` for a broken one."""
    folder = local_folder(name)
    if folder is None or not (folder / "config.json").is_file():
        return None
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a wrong value may end in any error
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{folder / 'config.json'} could not be read ({first}); mend or replace it") from None


def local_tokenizer(name: str) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a model, or None where there is none on this disk."""
    folder = local_folder(name)
    if folder is None or not any(file for kind in ("tokenizer*", "vocab*", "*.model") for file in folder.glob(kind)):
        return None
    try:
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception:  # a damaged one may end in any error; opening the model says so
        return None


def weight_names(name: str) -> frozenset[str]:
    """The names of the weights in a model's safetensors files; none where there are no such files here."""
    folder = local_folder(name)
    names: set[str] = set()
    for path in folder.glob("*.safetensors") if folder else ():
        try:
            with safe_open(path, framework="pt") as file:
                names.update(file.keys())
        except (OSError, SafetensorError):  # half a download; opening the model will say so
            continue
    return frozenset(names)
