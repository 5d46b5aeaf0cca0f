"""The options of a `Generator`, and ``generator.json``, the file that keeps them beside its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from retrograd.models.inputs.soft_prompt import SoftPromptOptions
from retrograd.models.settings import Quantisation, SoftPosition
from retrograd.types import UserError
from retrograd.util.guards import require_at_least
from retrograd.util.records import read_record, read_value, record_mapping
from retrograd.util.text_files import read_json, write_json

__all__ = ["GeneratorOptions", "SavedGenerator", "read_settings", "write_settings"]

_FILE = "generator.json"
_SOFT_PROMPT, _LORA = "soft_prompt", "lora"
_ALWAYS_WRITTEN = ("max_input_tokens", "max_target_tokens", "token_budget", "separator", _LORA)
_BEFORE_CHAT = {"chat": False}
"""Options that a file without them has: it was written before chat templates were supported."""


@dataclass(frozen=True)
class GeneratorOptions:
    """Frozen options of a `Generator`, beside its model, its tokenizer and its soft prompt.

    Prompts longer than ``max_input_tokens`` lose what they can spare, then their end; targets longer than
    ``max_target_tokens`` their end. ``token_budget`` bounds the padded tokens of one forward pass; 0 chooses what suits
    the device. Decoder-only models read the prompt as a user's turn where the tokenizer has a chat template and
    ``chat`` is true, else ``prompt + separator``. Soft input is put at ``soft_position``: "before" the prompt, or
    "after" it, which is between prompt and separator for a decoder-only model.

    ``quantisation`` is how the model under the adapters is held. ``fusion`` reads several passages by
    fusion-in-decoder. Without ``dropout`` training mode is evaluation mode. ``gradient_checkpointing`` computes layers
    again in the backward pass, which saves memory. Raises `UserError` for numbers out of range.
    """

    max_input_tokens: int = 256
    max_target_tokens: int = 64
    token_budget: int = 0
    separator: str = "\n"
    soft_position: SoftPosition = "before"
    chat: bool = True
    quantisation: Quantisation = "none"
    fusion: bool = False
    dropout: bool = True
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        tokens = {"max_input_tokens": self.max_input_tokens, "max_target_tokens": self.max_target_tokens}
        require_at_least(1, tokens)
        require_at_least(0, {"token_budget": self.token_budget})


@dataclass(frozen=True)
class SavedGenerator:
    """The content of ``generator.json``. With ``lora`` the folder holds adapters alone."""

    options: GeneratorOptions
    lora: bool
    soft_prompt: SoftPromptOptions | None = None


def write_settings(folder: Path, saved: SavedGenerator) -> None:
    """Write the file; the options of a soft prompt, if there is one, are a table of their own in it."""
    table = {} if saved.soft_prompt is None else {_SOFT_PROMPT: record_mapping(saved.soft_prompt)}
    write_json(folder / _FILE, record_mapping(saved.options) | {_LORA: saved.lora} | table)


def read_settings(folder: Path) -> SavedGenerator:
    """Read what `write_settings` wrote. Raises `UserError` for a missing file or wrongly edited settings."""
    path = folder / _FILE
    content = read_json(path)
    values: dict[str, object] = dict(content) if isinstance(content, dict) else {}
    missing = [name for name in _ALWAYS_WRITTEN if name not in values]
    table = values.pop(_SOFT_PROMPT, None)
    lora = read_value(bool, values.pop(_LORA, False), f"{path}: {_LORA}")
    options = read_record(GeneratorOptions, _BEFORE_CHAT | values, str(path))
    if missing:
        raise UserError(f"{path}: needs {', '.join(repr(name) for name in missing)}")
    soft_prompt = None if table is None else read_value(SoftPromptOptions, table, f"{path}: {_SOFT_PROMPT}")
    return SavedGenerator(options, cast(bool, lora), cast(SoftPromptOptions | None, soft_prompt))
