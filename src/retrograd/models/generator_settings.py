"""``generator.json``: what the folder of a generator's weights does not say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from retrograd.io import read_json, write_json
from retrograd.models.quantisation import Quantisation
from retrograd.models.soft_input import SoftPosition
from retrograd.models.soft_prompt import SoftPromptSettings
from retrograd.records import read_record, read_value, record_mapping

__all__ = ["GeneratorSettings", "read_settings", "write_settings"]

_FILE = "generator.json"
_SOFT_PROMPT = "soft_prompt"


@dataclass(frozen=True)
class GeneratorSettings:
    """What `Generator` is made with beside model and tokenizer, and whether the folder holds adapters alone.

    ``quantisation`` is that of the model under the adapters; ``fusion`` reads several passages by fusion-in-decoder.
    """

    max_input_tokens: int
    max_target_tokens: int
    token_budget: int
    separator: str
    lora: bool
    soft_position: SoftPosition = "before"
    chat: bool = False
    quantisation: Quantisation = "none"
    fusion: bool = False


def write_settings(folder: Path, settings: GeneratorSettings, soft_prompt: SoftPromptSettings | None) -> None:
    """Write the file; the settings of a soft prompt, if there is one, are a table of their own in it."""
    table = {} if soft_prompt is None else {_SOFT_PROMPT: record_mapping(soft_prompt)}
    write_json(folder / _FILE, record_mapping(settings) | table)


def read_settings(folder: Path) -> tuple[GeneratorSettings, SoftPromptSettings | None]:
    """Read what `write_settings` wrote. Raises `UserError` for a missing file or wrongly edited settings."""
    path = folder / _FILE
    found = read_json(path)
    values = dict(found) if isinstance(found, dict) else {}
    table = values.pop(_SOFT_PROMPT, None)
    settings = read_record(GeneratorSettings, values, str(path))
    if table is None:
        return settings, None
    return settings, cast(SoftPromptSettings, read_value(SoftPromptSettings, table, f"{path}: {_SOFT_PROMPT}"))
