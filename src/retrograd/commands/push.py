"""``retrograd push``: a run's model to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrograd.commands import AsJson, print_json

__all__ = ["push"]


def push(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run, or of a saved model.")],
    repo: Annotated[str, typer.Argument(help="The repository: OWNER/NAME.")],
    public: Annotated[bool, typer.Option("--public", help="For everybody to see; else the repository is private.")] = (
        False
    ),
    json: AsJson = False,
) -> None:
    """Upload a model with its card, task and knowledge base, whose passages are then on the hub, too.

    The token comes from HF_TOKEN or from `hf auth login`.

    Example: `retrograd push runs/joint me/my-rag`
    """
    from retrograd.studies.push import push as upload

    pushed = upload(run, repo, public)
    if json:
        print_json(pushed.record())
        return
    who = "private" if pushed.private else "public"
    typer.echo(f"{pushed.url} ({who}): {len(pushed.files)} files, the passages of the knowledge base among them")
