"""The options of ``retrograd demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrograd.commands import SettingsOption

__all__ = ["demo"]


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the runs; made anew.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed of data, models and training.")] = 0,
    changes: SettingsOption = None,
) -> None:
    """Train three models on SemEval-2010 Task 8 and compare them: a few minutes on a laptop, no download.

    Changes of settings hold for all three.

    Example: `retrograd demo --out runs/demo --set training.precision=fp32`
    """
    from retrograd.commands.demo.demonstration import run_demo

    run_demo(out, seed, changes)
