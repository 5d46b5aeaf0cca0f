"""Data sets of the Hugging Face hub by their names, through the package ``datasets``; only this file imports it.

``hf:NAME:SPLIT``, or ``hf:NAME:CONFIGURATION:SPLIT`` where a data set has several: ``hf:squad:validation``. Fetched
once, and again when the hub has another version, it is kept as a saved folder in the user's cache, which
`retrograd.data.rows` reads like any other.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

from retrograd.types import UserError
from retrograd.util.files import atomic_directory, cache_folder
from retrograd.util.guards import first_line
from retrograd.util.optional import require_package
from retrograd.util.progress import say

if TYPE_CHECKING:
    from datasets import Dataset  # pyright: ignore[reportMissingImports]

__all__ = ["HUB_PREFIX", "data_path"]

HUB_PREFIX = "hf:"


def data_path(name: str) -> Path:
    """Return the file or folder that a setting names; a data set of the hub is fetched first.

    Raises `UserError` for a name without a split, where ``datasets`` is not installed, and for what it cannot fetch.
    """
    if not name.startswith(HUB_PREFIX):
        return Path(name)
    parts = name.removeprefix(HUB_PREFIX).split(":")
    if len(parts) not in (2, 3) or not all(parts):
        raise UserError(
            f"{name!r} names no split; write hf:NAME:SPLIT or hf:NAME:CONFIGURATION:SPLIT, as hf:squad:train"
        )
    require_package(name, "datasets", "hub")
    dataset = _load(name, parts[0], parts[1] if len(parts) == 3 else None, parts[-1])
    words = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(parts)).strip("-")
    folder = cache_folder() / "hub" / f"{words}-{dataset._fingerprint}"  # the package has no other name for a version
    if not folder.exists():
        with atomic_directory(folder) as unfinished:
            dataset.save_to_disk(str(unfinished))
        say(f"{name}: {len(dataset):,} records, kept in {folder}")
    return folder


def _load(name: str, dataset: str, configuration: str | None, split: str) -> Dataset:
    from datasets import Dataset, load_dataset  # pyright: ignore[reportMissingImports]

    try:
        loaded = load_dataset(dataset, configuration, split=split)
    except Exception as error:  # of many kinds: no network, no such name, split or configuration, no permission
        raise UserError(f"{name} could not be fetched: {first_line(error)}") from None
    if not isinstance(loaded, Dataset):
        raise UserError(f"{name} holds no records ({type(loaded).__name__})")
    return cast("Dataset", loaded)
