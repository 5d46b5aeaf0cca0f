"""Where a model's weights come from, as far as this disk knows: its name on the Hugging Face hub, and its licence."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from retrograd.models.loading.builtin import BUILTIN_ENCODER, BUILTIN_POINTER, BUILTIN_SEQ2SEQ
from retrograd.models.loading.gguf import BUILTIN_LANGUAGE_MODEL
from retrograd.models.loading.local_files import local_folder
from retrograd.types import UserError

__all__ = ["Origin", "find_origin"]

_CARD = "README.md"
_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_FRONT_MATTER = re.compile(r"\A---\n(.*?)^---$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Origin:
    """The name of a model as given, its name on the hub, and its licence; "" where that is not known."""

    given: str
    hub_name: str = ""
    licence: str = ""

    @property
    def label(self) -> str:
        """Return a name for everybody to read: without the path of a folder."""
        return self.hub_name or (self.given if ":" in self.given else Path(self.given).name) or "not recorded"


_MINILM = ("sentence-transformers/all-MiniLM-L6-v2", "apache-2.0")
_BUILTIN = {
    **{name: Origin(name, *_MINILM) for name in (BUILTIN_ENCODER, BUILTIN_SEQ2SEQ, BUILTIN_POINTER)},
    BUILTIN_LANGUAGE_MODEL: Origin(BUILTIN_LANGUAGE_MODEL, "HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0"),
}


def find_origin(name: str) -> Origin:
    """Return where the model of this name comes from; nothing is downloaded."""
    if not name or name in _BUILTIN:
        return _BUILTIN.get(name, Origin(name))
    is_local = Path(name).exists()
    hub_name = name if not is_local and _HUB_NAME.fullmatch(name) else ""
    try:
        folder = local_folder(name)
    except UserError:  # a file that cannot be read any more; its card is all that was wanted
        folder = None
    return Origin(name, hub_name, "" if folder is None else _read_licence(folder / _CARD))


def _read_licence(card: Path) -> str:
    """Return the licence that a model's card states in its front matter; "" where it states none."""
    try:
        matter = _FRONT_MATTER.search(card.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return ""
    stated = re.search(r"^license: *([\w.+-]+) *$", matter[1], re.MULTILINE) if matter else None
    return stated[1] if stated else ""
