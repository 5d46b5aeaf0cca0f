"""``retrograd index``: build an index on disk, check it, describe it, publish it; prune the cache of embeddings."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrograd.commands import AsJson, SourceOption, print_json
from retrograd.index.settings import ApproximateEngine, IndexSettings, PresetName, Storage
from retrograd.types import UserError

if TYPE_CHECKING:
    from retrograd.studies.index_changes import ChangedIndex

__all__ = ["index"]

IndexFolder = Annotated[Path, typer.Argument(help="The folder of an index.")]
Corpus = Annotated[Path, typer.Argument(help="Passages with their ids, as JSON Lines or DPR's tables.")]
PassagesOut = Annotated[
    Path | None,
    typer.Option("--base-out", "--passages", help="File for the changed base as JSON Lines, to train on: data.base."),
]

index = typer.Typer(
    name="index",
    no_args_is_help=True,
    help="Build an index on disk that survives being killed, check it, describe it, change its passages.\n\n"
    "Example: `retrograd index build runs/joint --out indexes/joint`",
)


@index.command()
def build(
    source: Annotated[str, typer.Argument(help="A finished run's folder, or a recipe or experiment file (untrained).")],
    out: Annotated[Path, typer.Option(help="Folder of the index; a new version is added to what is there.")],
    dtype: Annotated[Storage, typer.Option(help="How vectors are stored.")] = "fp32",
    ray: Annotated[str | None, typer.Option(help="Build by tasks of Ray: local, or the address of a cluster.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Tasks of --ray; default: one for each GPU, else as the processors allow.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Embed the whole knowledge base; after a kill, the same command goes on where it was stopped.

    Started several times, also under torchrun or on machines that share the folder, all build one index together.
    With --ray one command starts them.

    Example: `retrograd index build runs/joint --out indexes/joint --dtype bf16`
    """
    if ray is not None:
        from retrograd.studies.ray_build import build_over_ray

        built = build_over_ray(source, out, dtype, ray, workers)
    else:
        from retrograd.studies.index import build_for

        if workers is not None:
            raise UserError("--workers is for --ray; without Ray, start the command as often as workers are wanted")
        built = build_for(source, out, dtype)
    if json:
        print_json(asdict(built))
        return
    next_command = f"retrograd search {shlex.quote(str(out))} 'your query'"
    typer.echo(f"{built.passages:,} passages are in {built.version}. Next: {next_command}")


@index.command()
def check(
    folder: IndexFolder,
    run: SourceOption = None,
    json: AsJson = False,
) -> None:
    """Read every byte: checksums, finite numbers, no zeros, and the fingerprints of base and encoder.

    Example: `retrograd index check indexes/joint`
    """
    from retrograd.studies.index import check_index, checksums_are_right

    checked = check_index(folder, run)
    if json:
        print_json(asdict(checked))
        return
    typer.echo(f"{checked.folder}: {checked.rows:,} rows are finite and not all zero")
    typer.echo(checksums_are_right(checked.files))
    typer.echo(f"knowledge base and encoder are those of {checked.source}")


@index.command()
def publish(
    folder: IndexFolder,
    to: Annotated[str, typer.Option(help="A folder (faiss), a file NAME.db or a server's address (milvus).")],
    kind: Annotated[ApproximateEngine, typer.Option(help="The engine.")] = "milvus",
    preset: Annotated[PresetName, typer.Option(help="Its settings to begin with; ivf-pq is one of faiss.")] = "ivf",
    probe: Annotated[int, typer.Option(min=0, help="How hard it searches; 0: as the preset has it.")] = 0,
    collection: Annotated[str, typer.Option(help="The name of the index in Milvus.")] = "retrograd",
    json: AsJson = False,
) -> None:
    """Give an index to an approximate engine, as a new version there, and measure its recall; in one step for readers.

    Example: `retrograd index publish indexes/joint --to joint.db`
    """
    settings = IndexSettings(kind, to, collection=collection, preset=preset, probe=probe)
    from retrograd.studies.index_publish import publish_index

    published = publish_index(folder, settings)
    if json:
        print_json({"place": to, "kind": kind, "collection": collection, **asdict(published)})
        return
    typer.echo(f"{published.passages:,} passages are in {to}")
    typer.echo(f"recall@10 is {published.recall:.1%}, for rows of the base as queries")
    name = "" if collection == "retrograd" else f" --set index.collection={collection}"
    typer.echo(f"Next: retrograd train … --set index.kind={kind} --set index.path={shlex.quote(to)}{name}")


@index.command()
def add(
    folder: IndexFolder,
    file: Corpus,
    run: SourceOption = None,
    passages: PassagesOut = None,
    json: AsJson = False,
) -> None:
    """Add passages behind those of an index, as a new version; no other passage is embedded.

    Example: `retrograd index add indexes/joint new.jsonl`
    """
    from retrograd.studies.index_changes import add_to_index

    _print_change(add_to_index(folder, file, run, passages), json)


@index.command()
def update(
    folder: IndexFolder,
    file: Corpus,
    run: SourceOption = None,
    passages: PassagesOut = None,
    json: AsJson = False,
) -> None:
    """Give passages of an index other texts, by their ids, as a new version; no other passage is embedded.

    Example: `retrograd index update indexes/joint corrected.jsonl`
    """
    from retrograd.studies.index_changes import update_index

    _print_change(update_index(folder, file, run, passages), json)


@index.command()
def remove(
    folder: IndexFolder,
    file: Annotated[Path, typer.Argument(help="Ids of passages, one a line.")],
    run: SourceOption = None,
    passages: PassagesOut = None,
    json: AsJson = False,
) -> None:
    """Remove passages from an index, as a new version; none is embedded.

    Example: `retrograd index remove indexes/joint ids.txt`
    """
    from retrograd.studies.index_changes import remove_from_index

    _print_change(remove_from_index(folder, file, run, passages), json)


def _print_change(changed: ChangedIndex, json: bool) -> None:
    if json:
        print_json(asdict(changed))
    else:
        typer.echo(
            f"{changed.passages:,} passages are in {changed.version}; {changed.embedded:,} of them were embedded"
        )


@index.command()
def prune(
    to: Annotated[
        str | None, typer.Option(help="What may stay, such as 5GB, or 0; default: $RETROGRAD_CACHE_SIZE, else 20GB.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Remove embeddings that runs keep in the user's cache, those first whose last use is longest ago.

    Example: `retrograd index prune --to 5GB`
    """
    from retrograd.studies.index_cache import prune_cache
    from retrograd.util.machine import readable_bytes

    pruned = prune_cache(to)
    if json:
        print_json(asdict(pruned))
        return
    typer.echo(f"removed {pruned.removed} of the embeddings of {pruned.removed + pruned.left} bases", nl=False)
    typer.echo(
        f" ({readable_bytes(pruned.removed_bytes)}); {readable_bytes(pruned.left_bytes)} stay in {pruned.folder}"
    )
    if pruned.left_bytes > pruned.limit:
        typer.echo("The others are in use.")


@index.command()
def info(folder: IndexFolder, json: AsJson = False) -> None:
    """Describe what an index holds, what it was built from, and how.

    Example: `retrograd index info indexes/joint`
    """
    from retrograd.studies.index import describe_index
    from retrograd.util.machine import readable_bytes

    description = describe_index(folder)
    dtype = str(description.dtype).removeprefix("torch.")
    if json:
        print_json({**asdict(description), "dtype": dtype, "bytes": description.bytes})
        return
    facts = {
        "folder": str(description.folder),
        "passages": f"{description.rows:,}",
        "vectors": f"{description.dimension} numbers each, {dtype}, {readable_bytes(description.bytes)}",
        "files": f"{description.files}",
        "encoding": description.encoding or "not recorded",
        "knowledge base": description.base_fingerprint,
        "encoder": description.encoder_fingerprint,
        "built by": description.source or "saved from Python or within a run, without the name of the run",
    }
    if description.versions:
        facts["versions"] = ", ".join(description.versions)
    typer.echo("\n".join(f"{name:<15} {value}" for name, value in facts.items()))
