"""Indexes on disk for the command line: build, check, describe, search. Each function returns what a person reads."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import torch

from retrograd.experiments.build import build_retriever
from retrograd.experiments.data.source import DataKind
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.open import saved_task
from retrograd.experiments.run import compute_for, require_passages
from retrograd.index.disk.build import remaining_rows
from retrograd.index.disk.plan import readable_bytes
from retrograd.index.disk.storage import (
    MANIFEST,
    Manifest,
    dtype_named,
    read_manifest,
    read_sealed,
    read_shards,
    verify_shard,
)
from retrograd.index.disk.versions import current_version, has_versions, opened, versions
from retrograd.index.exact import ExactIndex
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.index.shards import checked_blocks
from retrograd.models.compute.compute import Compute
from retrograd.models.retriever import Retriever
from retrograd.rag.embedding import passage_fingerprint
from retrograd.rag.index_folder import build_index_folder, index_spec
from retrograd.rag.model_folder import passage_side_of
from retrograd.rag.passage_side import PassageSide
from retrograd.recipes import RECIPES, named_experiment
from retrograd.tasks.task import Task
from retrograd.training.run.run_directory import RunDirectory
from retrograd.types import UserError
from retrograd.util.files import standing
from retrograd.util.guards import advice
from retrograd.util.progress import bar, say

__all__ = ["DTYPES", "build_for", "check_index", "describe_index", "is_index", "search_index"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_CHECKED_ROWS = 16_384
_CLASSES = {"bm25": "LexicalIndex", "faiss": "FaissIndex"}


@dataclass(frozen=True)
class Builder:
    """What an index is built by and searched by: a retriever, its task and its base. ``name`` finds it again. ``side``
    made the index that a run was saved with, in which a posterior may have passage embeddings of its own."""

    name: str
    retriever: Retriever
    side: PassageSide
    data: DataKind
    task: Task
    base: KnowledgeBase
    compute: Compute

    def side_of(self, manifest: Manifest) -> PassageSide:
        """What made this index: the retriever alone, or, for one so wide, what made the run's own."""
        return self.side if manifest.dimension == self.side.dimension else PassageSide(self.retriever)


def open_source(name: str) -> Builder:
    """A finished run's retriever, or the untrained one of a recipe or an experiment file; no generator is opened.

    Raises `UserError` if ``name`` is none of these.
    """
    folder, run = Path(name), None
    if (folder / "experiment.toml").exists():
        run = RunDirectory.open(folder)
        experiment = Experiment.load(run.experiment)
        task, base = saved_task(experiment, run), KnowledgeBase.open(run.base)
        retriever = Retriever.load(run.model / "retriever", task.role_spans)
        side = passage_side_of(run.model, retriever, task)
    elif folder.is_dir():
        raise UserError(f"{folder} is no run (it has no experiment.toml); give a folder that `retrograd train` wrote")
    else:
        experiment = named_experiment(name)
        data = experiment.data.load(experiment.seed)
        task, base = data.task, data.base
        retriever = build_retriever(experiment, task, base)
        side = PassageSide(retriever)
    known = name if name in RECIPES else str(folder.resolve())
    compute = compute_for(experiment, "encoding", run)
    for one in side.retrievers:
        one.to(compute.device).eval()
    return Builder(known, retriever, side, experiment.data, task, base, compute)


def _exists(source: str) -> bool:
    """Whether what an index names as its source is still there."""
    try:
        return source in RECIPES or Path(source).exists()
    except OSError:  # a name too long for a file
        return False


def build_for(source: str, root: Path, dtype: str) -> str:
    """Build, or go on building, the index of a run's or an experiment's base; says where it is.

    Interrupted, it says how much is kept.
    """
    if dtype not in DTYPES:
        raise UserError(f"--dtype is {dtype!r}; {advice(dtype, DTYPES)}")
    occupied = next((place for place in (root, *root.parents) if place.exists()), root)
    if occupied.is_file():
        raise UserError(f"{occupied} is a file; give a folder with --out")
    if (root / MANIFEST).exists() or (root / "experiment.toml").exists():
        raise UserError(f"{root} is an index or a run itself; give a folder of its own for the index with --out")
    found = open_source(source)
    task, base = found.task, found.base
    with found.compute.autocast():
        spec = index_spec(found.retriever, task, base, DTYPES[dtype], found.name)
        try:
            version = build_index_folder(found.retriever, task, base, root, spec)
        except KeyboardInterrupt:
            kept = spec.rows - remaining_rows(root, spec)
            say(f"stopped; {kept:,} of {spec.rows:,} rows are kept, and the same command goes on from there")
            raise
    place = shlex.quote(str(root))
    return f"{len(base):,} passages are in {version}. Next: retrograd search {place} 'your query'"


def is_index(path: Path) -> bool:
    """Whether a folder is an index, or a folder of versions of one, be the first still unfinished."""
    return has_versions(path) or (standing(path) / MANIFEST).is_file() or bool(_unfinished(path))


def _unfinished(path: Path) -> list[Path]:
    return sorted(path.glob(".v*.build"))


def check_index(path: Path, source: str | None) -> str:
    """Read every byte of an index and compare it with its manifest, and its fingerprints with their source's.

    ``source`` is a run or an experiment; None takes the one that the index names, where it names one. Raises
    `UserError` for the first thing that is wrong, and if not everything could be checked.
    """
    folder = _folder(path)
    manifest = read_manifest(folder, "exact")
    for shard in manifest.shards:
        verify_shard(folder, shard)
    with bar("checking the index", manifest.rows, "rows") as advance:
        first_row = 0
        for stored in read_shards(folder, manifest):
            blocks = stored.split(_CHECKED_ROWS)
            for block in checked_blocks(blocks, len(stored), stored.dtype, first_row):
                advance(len(block))
            first_row += len(stored)
    checked = [f"{manifest.rows:,} rows are finite and not all zero"]
    if not manifest.shards:
        raise UserError(f"{folder}: {checked[0]}, but there are no checksums to compare; build the index again")
    files = len(manifest.shards)
    checked.append("the checksum is right" if files == 1 else f"the checksums of {files} files are right")
    name = source or manifest.source
    if name is None or not (source or _exists(name)):
        raise UserError(
            f"{folder}: {', '.join(checked)}, but the fingerprints of base and encoder are not compared: "
            f"{_origin(name)}; name its run or experiment with --run"
        )
    found = open_source(name)
    encoder = passage_fingerprint(found.side_of(manifest), found.task, found.base)
    read_manifest(folder, "exact", found.base.fingerprint, encoder)
    return "\n".join([f"{folder}: {checked[0]}", checked[1], f"knowledge base and encoder are those of {name}"])


def _origin(recorded: str | None) -> str:
    """Why an index's source cannot be opened."""
    if recorded is None:
        return "it was saved from Python or within a run, without the name of the run"
    return f"it was built by {recorded}, which is not here"


def describe_index(path: Path) -> str:
    """What an index is, from its manifest alone."""
    folder = _folder(path)
    manifest = read_manifest(folder, "exact")
    dtype = dtype_named(manifest.dtype)
    size = manifest.rows * manifest.dimension * dtype.itemsize
    facts = {
        "folder": str(folder),
        "passages": f"{manifest.rows:,}",
        "vectors": f"{manifest.dimension} numbers each, {str(dtype).removeprefix('torch.')}, {readable_bytes(size)}",
        "files": f"{max(1, len(manifest.shards))}",
        "encoding": manifest.encoding or "not recorded",
        "knowledge base": manifest.base_fingerprint,
        "encoder": manifest.encoder_fingerprint,
        "built by": manifest.source or "saved from Python or within a run, without the name of the run",
    }
    if has_versions(path):
        facts["versions"] = ", ".join(version.name for version in versions(path))
    return "\n".join(f"{name:<15} {value}" for name, value in facts.items())


def _folder(path: Path) -> Path:
    """The plain index folder. Raises `UserError` if there is none, or one of another kind."""
    if not is_index(path):
        raise _no_index(path)
    if _unfinished(path) and not has_versions(path):
        raise UserError(f"the index in {path} is not finished; go on with the same `retrograd index build` as before")
    folder = current_version(path) if has_versions(path) else standing(path)
    kind = read_sealed(folder / MANIFEST).get("kind")
    if kind in _CLASSES:
        raise UserError(f"{folder} holds a {kind!r} index, which this command cannot read; use {_CLASSES[kind]}.load")
    return folder


def _no_index(path: Path) -> UserError:
    """What is there instead of an index, and the command that makes one of it."""
    folder = shlex.quote(str(Path("indexes") / path.stem))
    build = f"retrograd index build {shlex.quote(str(path))} --out {folder}"
    if (path / "experiment.toml").is_file():
        own = standing(path / "model") / "index"
        there = f"the one that it was saved with is {own}; " if own.is_dir() else ""
        return UserError(f"{path} is a run, not an index; {there}build one with: {build}")
    if path.is_file():
        remedy = f"build one with: {build}" if path.suffix in (".toml", ".json") else "give the folder of an index"
        return UserError(f"{path} is a file, not an index; {remedy}")
    if path.is_dir():
        return UserError(
            f"{path} holds no index; build one with: retrograd index build RUN --out {shlex.quote(str(path))}"
        )
    if str(path) in RECIPES:
        return UserError(f"{path} is a recipe, not an index; build one with: {build}")
    return UserError(f"{path} does not exist; give the folder of an index, or build one: retrograd index build --help")


def search_index(path: Path, query: str, k: int, source: str | None) -> str:
    """The k best passages of an index with p(z|x) over the whole base; no generator is asked.

    Raises `UserError` if base or encoder of ``source`` (None: the one that the index names) are not the index's own.
    """
    manifest: Manifest = opened(_folder(path), lambda folder: read_manifest(folder, "exact"))
    name = source or manifest.source
    if name is None or not (source or _exists(name)):
        raise UserError(f"{path} needs its retriever, and {_origin(name)}; name a run with --run")
    found = open_source(name)
    task, base = found.task, found.base
    require_passages(base, "-k", k)
    side = found.side_of(manifest)
    index = ExactIndex.load(
        path,
        base_fingerprint=base.fingerprint,
        encoder_fingerprint=passage_fingerprint(side, task, base),
        device=found.compute.device,
    )
    example = found.data.parse_query(query, task)
    with found.compute.autocast(), torch.no_grad():
        asked = side.placed(found.retriever.queries([task.query_text(example)]), "prior")
    neighbours = index.search(asked, k)
    assert neighbours.log_normaliser is not None  # the index is exact
    share = (neighbours.logit - neighbours.log_normaliser[:, None])[0].exp().tolist()
    rows = [row for row in neighbours.row[0].tolist() if row >= 0]
    lines = [f"{share[i]:6.1%}  [{passage.title}] {passage.text}" for i, passage in enumerate(base.passages(rows))]
    return "\n".join(["p(z|x)  passage", *lines])
