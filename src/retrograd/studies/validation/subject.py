"""What the words of ``retrograd validate`` name, an experiment or bare files of data, read without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from retrograd.experiments.data.kinds import file_kinds
from retrograd.experiments.experiment import Experiment
from retrograd.recipes import RECIPES, open_experiment
from retrograd.types import UserError
from retrograd.util.guards import suggest_name

__all__ = ["read_subject"]


def read_subject(names: Sequence[str], changes: Sequence[str], kind: str, format: str) -> Experiment | None:  # noqa: A002
    """Return the experiment of a recipe or an experiment file, with ``changes``; None where ``names`` are bare files.

    Raises `UserError` for names of both sorts at once, for bare files without a ``kind``, one of `file_kinds`, and as
    `open_experiment` does.
    """
    kinds = file_kinds()
    if kind:
        if kind not in kinds:
            raise UserError(f"--kind {kind}: {suggest_name(kind, kinds)}")
        if changes:
            raise UserError("--set changes an experiment, and --kind says that these are data; leave one out")
        return None
    is_experiment = names[0] in RECIPES or Path(names[0]).suffix in (".toml", ".json")
    if len(names) > 1 or (not is_experiment and Path(names[0]).is_file()):
        raise UserError(f"{names[-1]} is taken for data; say what it holds: --kind {'|'.join(kinds)}")
    if format != "auto":
        raise UserError("--format is for data files; an experiment has data.format")
    try:
        experiment = open_experiment(names[0])
    except UserError as error:
        raise UserError(f"{error} (a file of data needs --kind {'|'.join(kinds)})") from None
    return experiment.with_settings(changes)
