"""``retrograd search``: the passages that a trained retriever returns for a text, and the model's answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrograd.commands import AsJson, SourceOption, format_hits, print_json
from retrograd.types import Prediction, UserError

__all__ = ["search"]

_CITATIONS = 3
_LEAST_CITED = 0.0005  # which is printed as 0.1 %


def search(
    place: Annotated[Path, typer.Argument(help="The folder of a finished run, or of an index.")],
    query: Annotated[
        str, typer.Argument(help="A question, or text with marked entities: `'The <e1>cup</e1> holds <e2>tea</e2>.'`")
    ],
    k: Annotated[int, typer.Option("-k", "--passages", min=1, help="How many passages.")] = 5,
    run: SourceOption = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=PATTERN", help="Only passages whose id, title or text match: `title=Cups*`."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Show what the trained retriever finds for a text and, for a run, what the model answers and what it cites.

    Example: `retrograd search runs/joint 'The <e1>kettle</e1> is full of <e2>tea</e2>.'`
    """
    from retrograd.studies.answers import search_run
    from retrograd.studies.index import is_index, search_index

    if is_index(place):
        result = search_index(place, query, k, run, where or ())
    elif not place.is_dir():
        what = "is a file" if place.is_file() else "does not exist"
        raise UserError(f"{place} {what}; give the folder of a finished run, or of an index")
    elif run is not None:
        raise UserError(f"--run is for an index, and {place} is not an index; give an index's folder, or leave it out")
    else:
        result = search_run(place, query, k, where or ())
    if json:
        print_json(result.record())
        return
    if result.answer is not None:
        typer.echo(_format_answer(result.answer, result.label) + "\n")
    typer.echo(format_hits(result.hits))


def _format_answer(answer: Prediction, label: str | None) -> str:
    """Return the answer with its probability, and the passages that it cites with p(z|x,y), the best first."""
    label_note = "" if label in (None, answer.answer) else f" ({label})"
    line = f"answer: {answer.answer or '(empty)'}{label_note}, probability {_format_share(answer.confidence)}"
    if answer.withheld is not None:
        line = (
            f"answer: {answer.answer}{label_note}; withheld, as below the run's threshold: "
            f"{answer.withheld or '(empty)'}, probability {_format_share(answer.confidence)}"
        )
    texts = {passage.id: f"{passage.id} [{passage.title}] {passage.text}" for passage in answer.passages}
    cited = [one for one in answer.citations[:_CITATIONS] if one.probability >= _LEAST_CITED]
    lines = [f"{citation.probability:8.1%}  {texts[citation.passage_id]}" for citation in cited]
    return "\n".join([line, *(["p(z|x,y)  cited passage", *lines] if lines else [])])


def _format_share(probability: float) -> str:
    """Return a probability in percent; a smaller one, as whole texts have, as a number."""
    return f"{probability:.0%}" if probability >= 0.01 else f"{probability:.1g}"
