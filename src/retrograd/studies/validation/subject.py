"""What the words of ``retrograd validate`` name, an experiment or bare files of data, read without torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from retrograd.data.hub import HUB_PREFIX
from retrograd.experiments.experiment import Experiment
from retrograd.recipes import RECIPES, open_experiment
from retrograd.types import UserError
from retrograd.util.text_files import read_json

__all__ = ["read_subject"]


def read_subject(names: Sequence[str], changes: Sequence[str], kind: str | None, format: str) -> Experiment | None:  # noqa: A002
    """Return the experiment of a recipe or an experiment file, with ``changes``; None where ``names`` are bare files.

    A file of JSON is an experiment where it has the section "retriever". Raises `UserError` for changes of bare files
    that are not of their reading, and as `open_experiment` does.
    """
    if kind is not None or len(names) > 1 or _is_data(names[0]):
        stray = next((one for one in changes if not one.lstrip().startswith("data.")), None)
        if stray is not None:
            raise UserError(
                f"--set {stray} is for an experiment, and {names[-1]} is data; only data. can be set for it"
            )
        return None
    if format != "auto":
        raise UserError("--format is for data files; an experiment has data.format")
    return open_experiment(names[0]).with_settings(changes)


def _is_data(name: str) -> bool:
    """Return whether a name is that of a file or folder, or of the hub, and neither a recipe's nor an experiment's."""
    if name.startswith(HUB_PREFIX):
        return True
    path = Path(name)
    if name in RECIPES or path.suffix == ".toml" or not os.path.exists(name):
        return False
    if path.suffix != ".json" or path.is_dir():
        return True
    try:
        content = read_json(path)
    except UserError:
        return True
    return not isinstance(content, dict) or not isinstance(content.get("retriever"), dict)
