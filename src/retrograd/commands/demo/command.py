"""The options of ``retrograd demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from retrograd.commands import SettingsOption, load_experiment

__all__ = ["demo"]


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the runs; made anew.")] = Path("runs/demo"),
    model: Annotated[
        Literal["builtin", "smollm2"],
        typer.Option("--with", help="Generator: a small built-in one, or a language model (`make lm` installs it)."),
    ] = "builtin",
    seed: Annotated[int, typer.Option(help="Seed of data, models and training.")] = 0,
    changes: SettingsOption = None,
) -> None:
    """Train three models on SemEval-2010 Task 8 and compare them: a few minutes on a laptop, no download.

    Changes of settings hold for all three. With a language model it is one system that answers questions with
    citations, before and after training.

    Example: `retrograd demo --out runs/demo --set training.precision=fp32`
    """
    load_experiment("semeval-joint" if model == "builtin" else "smollm2-questions-joint", changes)  # mistakes first
    if model == "smollm2":
        from retrograd.commands.demo.language_model import run_language_model_demo

        run_language_model_demo(out, seed, changes)
        return
    from retrograd.commands.demo.demonstration import run_demo

    run_demo(out, seed, changes)
