"""Check a model's folder before any library opens it: it may name files of its own, and no program."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from retrograd.types import UserError
from retrograd.util.guards import is_file_name, require_file
from retrograd.util.text_files import read_json

__all__ = ["ADAPTER_CONFIG", "ADAPTER_WEIGHTS", "require_adapters_alone", "require_model_files"]

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
_IMPORTING = ("auto_mapping", "megatron_config", "layer_replication", "runtime_config")
"""Settings of adapters that make peft import modules by name, or build more than the file holds; `save` sets none."""


def require_model_files(name: str) -> None:
    """Raise `UserError` for a folder with an unreadable file, with shards listed elsewhere, or with adapters.

    With adapters beside a model transformers would open whatever model they name instead.
    """
    folder = Path(name)
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.is_file():
            require_file(path)  # what may not be read is "not found" to the libraries
    if (folder / ADAPTER_CONFIG).exists():
        raise UserError(f"{folder} holds adapters ({ADAPTER_CONFIG}), not a model; give the model that they belong to")
    for path in folder.glob("*.index.json"):
        content = read_json(path)
        files = content.get("weight_map") if isinstance(content, dict) else None
        for file in files.values() if isinstance(files, dict) else [None]:
            if not isinstance(file, str) or not is_file_name(file):
                raise UserError(
                    f"{path}: weights are in {str(file)[:80]!r}, expected a file of this folder; replace it"
                )


def require_adapters_alone(folder: Path) -> None:
    """Raise `UserError` unless the adapters of ``folder`` are LoRA in safetensors, of the rank that they state."""
    path = folder / ADAPTER_CONFIG
    config = read_json(path)
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise UserError(f"{path}: expected the settings of LoRA adapters; copy them again")
    for name in _IMPORTING:
        if config.get(name):
            raise UserError(f"{path}: {name} is set, and is never used here; set it to null")
    weights = folder / ADAPTER_WEIGHTS
    require_file(weights)
    try:
        with safe_open(weights, framework="pt") as file:
            ranks = {file.get_slice(key).get_shape()[0] for key in file.keys() if ".lora_A." in key}  # noqa: SIM118
    except (SafetensorError, OSError, IndexError) as error:
        raise UserError(f"{weights} cannot be read ({error}); copy it again") from None
    if sorted(ranks) != [config.get("r")] or config.get("rank_pattern"):
        raise UserError(f"{path}: r is {str(config.get('r'))[:20]}, but {weights.name} has rank {sorted(ranks)}")
