"""``retrograd synthesise``: questions with answers for a corpus that has none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrograd.commands import AsJson, print_json
from retrograd.data.passages import CorpusFormat
from retrograd.types import UserError

if TYPE_CHECKING:
    from retrograd.studies.synthesis.synthesise import Yield

__all__ = ["synthesise"]


def synthesise(
    corpus: Annotated[Path, typer.Argument(help="Passages in any format that a knowledge base is read from.")],
    out: Annotated[Path, typer.Option(help="File for the pairs, JSON Lines that `data.train` reads.")],
    generator: Annotated[
        str, typer.Option(help="The model that writes and answers: a built-in name, a folder or a hub name.")
    ] = "builtin:smollm2",
    passages: Annotated[
        int, typer.Option("--sample", "--passages", help="How many passages, drawn by --seed; 0 is all.")
    ] = 0,
    per_passage: Annotated[int, typer.Option(help="Most questions written for a passage.")] = 3,
    max_passages_with_answer: Annotated[
        int, typer.Option(help="Keep only answers that stand in at most so many other passages.")
    ] = 40,
    min_f1: Annotated[
        float, typer.Option(help="Least token F1 of the answer that the model gives when it reads the passage.")
    ] = 0.6,
    min_gain: Annotated[
        float, typer.Option(help="Least gain in the answer's log-likelihood by its passage, in nats.")
    ] = 0.0,
    max_overlap: Annotated[
        float, typer.Option(help="Leave out a question that shares more of its words with an earlier one; 1 is none.")
    ] = 0.8,
    seed: Annotated[int, typer.Option(help="Seed of the draws of passages and sentences.")] = 0,
    format: Annotated[CorpusFormat, typer.Option(help="Format of the corpus.")] = "auto",  # noqa: A002
    json: AsJson = False,
) -> None:
    """Write questions with short answers for passages, and keep those on which a round trip agrees.

    Questions are asked about sentences with a name, a date or a number. After a kill, the same command goes on where
    it was stopped.

    Example: `retrograd synthesise passages.jsonl --out pairs.jsonl --sample 1000`
    """
    from retrograd.studies.synthesis.synthesise import Synthesis, rejected_file
    from retrograd.studies.synthesis.synthesise import synthesise as synthesise_pairs

    settings = Synthesis(
        generator=generator,
        passages=passages,
        per_passage=per_passage,
        max_passages_with_answer=max_passages_with_answer,
        min_f1=min_f1,
        min_gain=min_gain,
        max_overlap=max_overlap,
        seed=seed,
        format=format,
    )
    result = synthesise_pairs(corpus, out, settings)
    if not json:
        typer.echo(_describe(result))
    rejected = rejected_file(out)
    if not result.drafts:
        raise UserError(
            f"{corpus} has no sentence to ask about: one needs six words beside a name, a date or a number that the "
            f"title does not hold (the rules are for English)"
        )
    if not result.kept:
        raise UserError(
            f"none of {result.drafts} questions was kept; {rejected} has each with its reason. Name a model that "
            "writes better with --generator, or lower --min-f1"
        )
    if json:
        print_json({"file": out, "rejected": rejected, **result.record()})
        return
    typer.echo(f"\nThe pairs are in {out}, the other questions with their reasons in {rejected}. Next:\n")
    typer.echo(f"retrograd validate {out} --kind questions")


def _describe(result: Yield) -> str:
    """Return counts, reasons and examples."""
    from retrograd.studies.synthesis.drafts import REASONS

    lines = [
        f"{result.drafts:,} questions written about {result.passages:,} of {result.corpus:,} passages, "
        f"{result.kept:,} kept ({result.share:.1%}), in {result.seconds:,.0f} s",
    ]
    lines += [f"{count:8,}  {name:<16}  {REASONS[name]}" for name, count in result.left_out.items()]
    if result.examples:
        lines += ["", "Examples:"]
        lines += [f"  {one.question}  [{one.answer}]  {one.passage}" for one in result.examples]
    return "\n".join(lines)
