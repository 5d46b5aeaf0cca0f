"""The command line. Each command imports what it needs when it runs, so that ``--help`` answers at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrograd.laboratory_cli import laboratory_app
from retrograd.preflight_cli import Set, preflight_app, root
from retrograd.types import UserError

if TYPE_CHECKING:
    from retrograd.experiments.experiment import Experiment
    from retrograd.studies.analyse import Split

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    callback=root,
    help="Gradients through retrieval: train retriever and generator of a RAG model as one model.\n\n"
    "Example: `retrograd demo`",
)

index_app = typer.Typer(
    no_args_is_help=True,
    help="Build an index on disk that survives being killed, check it, describe it.\n\n"
    "Example: `retrograd index build runs/joint --out indexes/joint`",
)
app.add_typer(index_app, name="index")
app.add_typer(preflight_app)  # without a name: its commands stand among the others
app.add_typer(laboratory_app)

_RECIPE = typer.Argument(help="A recipe's name (see `retrograd recipes`), or a .toml or .json file.")
Recipe = Annotated[str, _RECIPE]
Run = Annotated[Path, typer.Argument(help="The folder of a finished run.")]
IndexFolder = Annotated[Path, typer.Argument(help="The folder of an index.")]
Patch = Annotated[
    Path | None, typer.Option(help="Corrected labels for the data: a patch in TACREV's or Re-TACRED's format.")
]
OfRun = Annotated[
    str | None, typer.Option("--run", help="The run or experiment it belongs to; default: the one that built it.")
]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the runs; made anew.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed of data, models and training.")] = 0,
    changes: Set = None,
) -> None:
    """Train three models on SemEval-2010 Task 8 and compare them: a few minutes on a laptop, no download.

    Changes of settings hold for all three.

    Example: `retrograd demo --out runs/demo --set training.precision=fp32`
    """
    from retrograd.commands.demo import run_demo

    run_demo(out, seed, changes)


@app.command()
def recipes() -> None:
    """List the recipes.

    Example: `retrograd recipes`
    """
    from retrograd.recipes import RECIPES

    width = max(len(name) for name in RECIPES)
    for name, recipe in RECIPES.items():
        typer.echo(f"{name:<{width}}  {recipe.summary}")
    typer.echo("\nLook at one with `retrograd show NAME`, run it with `retrograd train NAME --out runs/NAME`.")


@app.command()
def show(
    recipe: Recipe,
    changes: Set = None,
    json: Annotated[bool, typer.Option("--json", help="JSON instead of TOML.")] = False,
) -> None:
    """Print an experiment with every setting resolved, as TOML that `train` reads.

    Recipes of a paper mark what differs from it.

    Example: `retrograd show semeval-joint > mine.toml`
    """
    experiment = _experiment(recipe, changes)
    from retrograd.commands.show import annotated
    from retrograd.recipes import RECIPES

    named = RECIPES.get(recipe)
    if json:
        typer.echo(experiment.to_json(), nl=False)
    elif named is None or not named.published:
        typer.echo(experiment.to_toml(), nl=False)
    else:
        typer.echo(annotated(experiment, named.published, named.deviations), nl=False)


@app.command()
def train(
    recipe: Annotated[str | None, _RECIPE] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the run; default runs/NAME.")] = None,
    changes: Set = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run, which was stopped; no recipe then.")] = None,
    controls: Annotated[
        bool, typer.Option("--controls", help="Train closed book, random, frozen and oracle as well.")
    ] = False,
    seeds: Annotated[str, typer.Option(help="With --controls: such as 0,1,2; default: the experiment's.")] = "",
) -> None:
    """Train an experiment, save the model, and evaluate it on the test data. Ctrl-C saves and stops; --resume goes on.

    Example: `retrograd train semeval-joint --out runs/joint --set training.epochs=2`

    With controls: `retrograd train semeval-joint --controls --seeds 0,1,2`
    """
    from retrograd.commands.train import start
    from retrograd.training.run.interrupts import Interrupted

    try:
        said = start(recipe, out, changes or [], resume, controls, seeds)
        typer.echo(said, nl=bool(said))
    except Interrupted as stopped:
        if os.environ.get("RANK", "0") == "0":
            typer.secho(f"retrograd: {stopped}", err=True)
        raise typer.Exit(130) from None


@app.command()
def evaluate(
    run: Run,
    data: Annotated[Path | None, typer.Option(help="Labelled examples; default: the run's own test data.")] = None,
    patch: Patch = None,
    passages: Annotated[
        int | None, typer.Option(min=0, help="Passages per query, 0 for none; default: the run's.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for predictions.jsonl and scores.json.")] = None,
) -> None:
    """Score a finished run: official answer scores and neighbour scores; of a study (`train --controls`) its verdict.

    Example: `retrograd evaluate runs/joint --data mine.jsonl --out runs/joint/mine`
    """
    from retrograd.studies.use import evaluate_run

    typer.echo(evaluate_run(run, data, patch, passages, out))


@app.command()
def predict(
    run: Run,
    data: Annotated[Path, typer.Argument(help="Examples, with or without answers, in any format `train` reads.")],
    patch: Patch = None,
    out: Annotated[Path | None, typer.Option(help="File for the answers as JSON Lines; default: the screen.")] = None,
) -> None:
    """Answer new examples, each answer with its passages and their weights.

    Example: `retrograd predict runs/joint new.jsonl --out answers.jsonl`
    """
    from retrograd.studies.use import predict_file

    typer.echo(predict_file(run, data, patch, out), nl=False)


@app.command()
def extract(
    run: Run,
    data: Annotated[
        Path, typer.Argument(help="Marked pairs in any format `train` reads, or text with a list of entities.")
    ],
    out: Annotated[Path, typer.Option(help="File for the triples: .jsonl, .nt (N-Triples) or .graphml.")],
    threshold: Annotated[float, typer.Option(help="Leave out triples less probable than this.")] = 0.0,
    base: Annotated[
        str, typer.Option(help="What IRIs begin with in N-Triples, such as https://example.org/.")
    ] = "urn:retrograd:",
) -> None:
    """Read text and write a knowledge graph: triples with their score, sentence and the neighbours that were read.

    Example: `retrograd extract runs/joint pages.jsonl --out graph.graphml`
    """
    from retrograd.report.graph import require_writable, write_triples
    from retrograd.studies.extract import extract as extracted

    require_writable(out, base)
    triples, asked = extracted(run, data, threshold)
    write_triples(triples, out, base)
    typer.echo(f"{len(triples)} triples from {asked} pairs of entities in {out}")


@app.command()
def search(
    place: Annotated[Path, typer.Argument(help="The folder of a finished run, or of an index.")],
    query: Annotated[
        str, typer.Argument(help="A question, or text with marked entities: `'The <e1>cup</e1> holds <e2>tea</e2>.'`")
    ],
    k: Annotated[int, typer.Option("-k", min=1, help="How many passages.")] = 5,
    run: OfRun = None,
) -> None:
    """Show what the trained retriever finds for a text and, for a run, what the model answers.

    Example: `retrograd search runs/joint 'The <e1>kettle</e1> is full of <e2>tea</e2>.'`
    """
    from retrograd.studies.index import is_index, search_index
    from retrograd.studies.use import search_run

    if is_index(place):
        typer.echo(search_index(place, query, k, run))
    elif not place.is_dir():
        what = "is a file" if place.is_file() else "does not exist"
        raise UserError(f"{place} {what}; give the folder of a finished run, or of an index")
    elif run is not None:
        raise UserError(f"--run is for an index, and {place} is none; give an index's folder, or leave it out")
    else:
        typer.echo(search_run(place, query, k))


@app.command()
def compare(
    baseline: Run,
    system: Annotated[Path, typer.Argument(help="Another finished run with the same test data.")],
    resamples: Annotated[int, typer.Option(min=100, help="Of the bootstrap and of the permutation test.")] = 1_000,
) -> None:
    """Compare the scores of two runs on the same test data: difference, interval, p, and what it comes from.

    Example: `retrograd compare runs/demo/semeval-frozen runs/demo/semeval-joint`
    """
    from rich.console import Console

    from retrograd.report.comparison import print_comparison
    from retrograd.studies.compare import compare as compared

    names = (baseline.resolve().name, system.resolve().name)  # "." has none
    names = names if names[0] != names[1] else (str(baseline), str(system))
    print_comparison(compared(baseline, system, resamples), names, Console(width=None if sys.stdout.isatty() else 110))


@app.command()
def report(
    run: Run,
    controls: Annotated[
        list[Path] | None, typer.Argument(help="Other finished runs with the same test data, to stand beside it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.md, report.json and slices.png; default: RUN/report.")
    ] = None,
    no_vote: Annotated[
        bool, typer.Option("--no-vote", help="Leave out the vote of the run's neighbours; no model is opened then.")
    ] = False,
    resamples: Annotated[int, typer.Option(min=100, help="Of bootstraps and permutation tests.")] = 1_000,
) -> None:
    """Write one honest page about a run: official score, trivial answer, controls, confusions, slices.

    Example: `retrograd report runs/demo/semeval-joint runs/demo/semeval-frozen --out report`
    """
    from rich.console import Console

    from retrograd.report.figures import require_matplotlib
    from retrograd.report.page import print_report, save_page
    from retrograd.studies.report import report_run

    require_matplotlib()
    place = out or run / "report"
    found = report_run(run, controls or [], place, not no_vote, resamples)
    save_page(found, place)
    print_report(found, Console(width=None if sys.stdout.isatty() else 120))
    typer.echo(f"\nThe page is {place / 'report.md'}.")


@app.command()
def analyse(
    runs: Annotated[list[Path], typer.Argument(help="The folder of a finished run; with --runs several.")],
    compare: Annotated[
        bool, typer.Option("--runs", help="Compare the scores of several runs over k instead; opens no model.")
    ] = False,
    split: Annotated[str, typer.Option(help="Whose queries: test, dev or train.")] = "test",
    limit: Annotated[int, typer.Option(min=0, help="So many queries, stratified by label; 0 for all.")] = 0,
    k: Annotated[
        list[int] | None, typer.Option("-k", min=1, help="Neighbours looked at. Repeatable; default: the run's.")
    ] = None,
    over: Annotated[
        str, typer.Option(help="With --runs: the setting to draw scores over, such as data.train_count; default: k.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Folder for the results; default: RUN/analysis.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw of queries.")] = 0,
) -> None:
    """Show what a run retrieves: whether neighbours share label or entities, against chance, and how few carry it.

    Example: `retrograd analyse runs/joint -k 1 -k 5`

    Several runs: `retrograd analyse --runs runs/k1-seed0 runs/k1-seed1 runs/k5-seed0 runs/k5-seed1`
    """
    if split not in ("test", "dev", "train"):
        raise UserError(f"--split {split}: expected test, dev or train")
    if compare and (split != "test" or limit or k):
        raise UserError("--runs reads scores that are there; --split, --limit and -k belong to a single run")
    if not compare and len(runs) > 1:
        raise UserError(f"{len(runs)} runs; analyse one at a time, or compare their scores with --runs")
    if not compare and over:
        raise UserError("--over is for comparing runs; add --runs")
    from retrograd.report.figures import require_matplotlib

    require_matplotlib()
    place = out or runs[0] / "analysis"
    if compare:
        _compare_runs(runs, place, over)
    else:
        _analyse_run(runs[0], split, limit, k or [], place, seed)
    typer.echo(f"\nFigures and pictures are in {place}.")


def _compare_runs(runs: list[Path], place: Path, over: str) -> None:
    from rich.console import Console

    from retrograd.report.curves import draw_curves, print_curves, save_curve_text
    from retrograd.studies.curves import compare_runs

    curves = compare_runs(runs, place, over)
    save_curve_text(curves, place / "curves.txt")
    draw_curves(curves, place / "curves.png")
    print_curves(curves, Console(width=None if sys.stdout.isatty() else 110))


def _analyse_run(run: Path, split: Split, limit: int, ks: list[int], place: Path, seed: int) -> None:
    from rich.console import Console

    from retrograd.report.analysis import draw_analysis, print_analysis, save_text
    from retrograd.studies.analyse import analyse_run

    found = analyse_run(run, split, limit, ks, place, seed)
    save_text(found, place / "analysis.txt")
    draw_analysis(found, place)
    print_analysis(found, Console(width=None if sys.stdout.isatty() else 110))


@index_app.command("build")
def index_build(
    source: Annotated[str, typer.Argument(help="A finished run's folder, or a recipe or experiment file (untrained).")],
    out: Annotated[Path, typer.Option(help="Folder of the index; a new version is added to what is there.")],
    dtype: Annotated[str, typer.Option(help="How vectors are stored: fp32, bf16 or fp16.")] = "fp32",
) -> None:
    """Embed the whole knowledge base; after a kill, the same command goes on where it was stopped.

    Example: `retrograd index build runs/joint --out indexes/joint --dtype bf16`
    """
    from retrograd.studies.index import build_for

    typer.echo(build_for(source, out, dtype))


@index_app.command("check")
def index_check(folder: IndexFolder, run: OfRun = None) -> None:
    """Read every byte: checksums, finite numbers, no zeros, and the fingerprints of base and encoder.

    Example: `retrograd index check indexes/joint`
    """
    from retrograd.studies.index import check_index

    typer.echo(check_index(folder, run))


@index_app.command("info")
def index_info(folder: IndexFolder) -> None:
    """Say what an index holds, what it was built from, and how.

    Example: `retrograd index info indexes/joint`
    """
    from retrograd.studies.index import describe_index

    typer.echo(describe_index(folder))


def _experiment(recipe: str, changes: list[str] | None) -> Experiment:
    from retrograd.recipes import named_experiment

    return named_experiment(recipe).with_settings(changes or [])


def main() -> None:
    """Run the command line; what the user can mend is one sentence on stderr and exit status 2.

    Of several processes of one run each says which it is.
    """
    name = "retrograd" if os.environ.get("RANK", "0") == "0" else f"retrograd, process {os.environ['RANK']}"
    try:
        app()
    except UserError as error:
        typer.secho(f"{name}: {error}", err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:
            raise
        typer.secho(f"{name}: {error.filename}: {error.strerror}; check the path and its permissions", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
