"""The settings by which bare files of data are read: files that no experiment names."""

from __future__ import annotations

from collections.abc import Sequence

from retrograd.experiments.data.kinds import file_settings
from retrograd.experiments.data.source import DataKind
from retrograd.experiments.experiment import Experiment
from retrograd.types import UserError

__all__ = ["bare_settings"]

_OF_BASES = ("data.base_", "data.split_")


def bare_settings(kind: str, format: str, changes: Sequence[str]) -> DataKind:  # noqa: A002 (the field's word)
    """Return the settings of files of a ``kind``, one of `file_kinds`, with ``changes``: ``data.setting=value``.

    Raises `UserError` as `file_settings`, and for a change that does not matter to passages where the files hold them.
    """
    settings = file_settings(kind, format)
    stray = next((one for one in changes if not one.lstrip().startswith(_OF_BASES)), None)
    if stray is not None and settings.kind != kind:
        raise UserError(f"--set {stray}: passages are read by {', '.join(_OF_BASES)}… alone; leave it out")
    return Experiment(data=settings).with_settings(changes).data
