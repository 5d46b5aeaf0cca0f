"""Indexes on disk: build, check, describe and search them. Each function returns a record."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from retrograd.experiments.data.source import DataKind
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.open import read_run_task
from retrograd.experiments.run import compute_for, require_passages
from retrograd.index.changes import open_kept_base
from retrograd.index.disk.build import IndexSpec, count_remaining_rows
from retrograd.index.disk.storage import (
    MANIFEST,
    Manifest,
    find_dtype,
    read_manifest,
    read_sealed,
    read_shards,
    verify_shard,
)
from retrograd.index.disk.versions import current_version, has_versions, read_current, versions
from retrograd.index.exact import ExactIndex
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.index.restricted import restrict
from retrograd.index.settings import Storage, is_milvus_place, storage_type
from retrograd.index.shards import checked_blocks
from retrograd.models.compute.compute import Compute
from retrograd.models.retriever import Retriever
from retrograd.rag.embedding import passage_fingerprint
from retrograd.rag.index_folder import build_index_folder, index_spec
from retrograd.rag.model_folder import open_passage_side
from retrograd.rag.model_parts import build_retriever
from retrograd.rag.passage_side import PassageSide
from retrograd.recipes import RECIPES, open_experiment
from retrograd.studies.answers import SearchResult, select_rows
from retrograd.tasks.task import Task
from retrograd.training.distributed.ranks import is_first_process
from retrograd.training.run.run_directory import RunDirectory
from retrograd.types import Hit, UserError
from retrograd.util.files import find_current_or_backup
from retrograd.util.progress import bar, say, silence_output

__all__ = [
    "Builder",
    "BuiltIndex",
    "CheckedIndex",
    "IndexDescription",
    "build_for",
    "check_index",
    "describe_index",
    "find_source",
    "index_folder",
    "is_index",
    "open_source",
    "require_place",
    "search_index",
    "tell_what_is_kept",
]

_CHECKED_ROWS = 16_384
_CLASSES = {"bm25": "LexicalIndex", "faiss": "FaissIndex"}


@dataclass(frozen=True)
class Builder:
    """The retriever that builds and searches an index, with its task and its base.

    ``name`` is the recipe or the folder that `open_source` opens again. ``side`` made the index that a run was saved
    with, in which a posterior may have passage embeddings of its own.
    """

    name: str
    retriever: Retriever
    side: PassageSide
    data: DataKind
    task: Task
    base: KnowledgeBase
    compute: Compute

    def side_of(self, manifest: Manifest) -> PassageSide:
        """Return what embedded the passages of this index: the retriever, or for the run's own index its ``side``."""
        return self.side if manifest.dimension == self.side.dimension else PassageSide(self.retriever)

    def index_spec(self, dtype: Storage) -> IndexSpec:
        """Return the description of the index that it builds; called, as `build` is, under its autocast."""
        return index_spec(self.retriever, self.task, self.base, storage_type(dtype), self.name)

    def build(self, root: Path, spec: IndexSpec) -> BuiltIndex:
        """Build, or go on building, the index of a description in ``root``."""
        return BuiltIndex(build_index_folder(self.retriever, self.task, self.base, root, spec), len(self.base))

    def over_base_of(self, path: Path, manifest: Manifest) -> Builder:
        """Return the builder over the base that an index keeps beside it, where its passages were changed."""
        base = open_kept_base(path, manifest.base_fingerprint)
        return self if base is None else replace(self, base=base)


@dataclass(frozen=True)
class BuiltIndex:
    """A finished build: the folder of the new or current version, and the number of its passages."""

    version: Path
    passages: int


@dataclass(frozen=True)
class CheckedIndex:
    """An index without a fault: ``folder`` holds ``rows`` rows in ``files`` files, embedded by ``source``."""

    folder: Path
    rows: int
    files: int
    source: str


@dataclass(frozen=True)
class IndexDescription:
    """Facts of an index from its manifest alone; ``versions`` are the names of those on disk, if it has any."""

    folder: Path
    rows: int
    dimension: int
    dtype: torch.dtype
    files: int
    encoding: str | None
    base_fingerprint: str
    encoder_fingerprint: str
    source: str | None
    versions: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Return the size of the vectors in bytes."""
        return self.rows * self.dimension * self.dtype.itemsize


def open_source(name: str) -> Builder:
    """Open a finished run's retriever, or the untrained one of a recipe or experiment file; no generator is opened.

    Raises `UserError` if ``name`` is neither a run nor a recipe nor an experiment file.
    """
    folder, run = Path(name), None
    if (folder / "experiment.toml").exists():
        run = RunDirectory.open(folder)
        experiment = Experiment.load(run.experiment)
        task, base = read_run_task(experiment, run), KnowledgeBase.open(run.base)
        retriever = Retriever.load(run.model / "retriever", task.role_spans)
        side = open_passage_side(run.model, retriever, task)
    elif folder.is_dir():
        raise UserError(
            f"{folder} is not a run (it has no experiment.toml); give a folder that `retrograd train` wrote"
        )
    else:
        experiment = open_experiment(name)
        data = experiment.data.load(experiment.seed)
        task, base = data.task, data.base
        retriever = build_retriever(experiment.retriever, task, base)
        side = PassageSide(retriever)
    source = name if name in RECIPES else str(folder.resolve())
    compute = compute_for(experiment, "encoding", run)
    for part in side.retrievers:
        part.to(compute.device).eval()
    return Builder(source, retriever, side, experiment.data, task, base, compute)


def _source_exists(source: str) -> bool:
    """Return whether the source that an index names is still there."""
    try:
        return source in RECIPES or Path(source).exists()
    except OSError:  # a name too long for a file
        return False


def build_for(source: str, root: Path, dtype: Storage) -> BuiltIndex:
    """Build, or go on building, the index of a run's or an experiment's base, in ``root``.

    Interrupted, it reports how many rows are kept. Each of several processes, those of ``torchrun`` too, is a worker of
    one build.
    """
    if not is_first_process():
        silence_output()
    require_place(root)
    builder = open_source(source)
    with builder.compute.autocast():
        spec = builder.index_spec(dtype)
        with tell_what_is_kept(root, spec):
            return builder.build(root, spec)


def require_place(root: Path) -> None:
    """Raise `UserError` where no index can be built in ``root``."""
    if is_milvus_place(str(root)):
        raise UserError(f"--out is {root}; give a folder, and then: retrograd index publish FOLDER --to {root}")
    occupied = next((place for place in (root, *root.parents) if place.exists()), root)
    if occupied.is_file():
        raise UserError(f"{occupied} is a file; give a folder with --out")
    if (root / MANIFEST).exists() or (root / "experiment.toml").exists():
        raise UserError(f"{root} is an index or a run itself; give a folder of its own for the index with --out")


@contextmanager
def tell_what_is_kept(root: Path, spec: IndexSpec) -> Iterator[None]:
    """Say how many rows an interrupted build of the block keeps."""
    try:
        yield
    except KeyboardInterrupt:
        kept_rows = spec.rows - count_remaining_rows(root, spec)
        say(f"stopped; {kept_rows:,} of {spec.rows:,} rows are kept, and the same command goes on from there")
        raise


def is_index(path: Path) -> bool:
    """Return whether a folder is an index or holds versions of one, the first of which may be unfinished."""
    return has_versions(path) or (find_current_or_backup(path) / MANIFEST).is_file() or bool(_unfinished(path))


def _unfinished(path: Path) -> list[Path]:
    return sorted(path.glob(".v*.build"))


def check_index(path: Path, source: str | None = None) -> CheckedIndex:
    """Read every byte of an index; compare it with its manifest, and its fingerprints with those of its source.

    ``source`` is a run or an experiment; None takes the one that the index names, where it names one. Raises
    `UserError` for the first fault, and if not everything could be checked.
    """
    folder = index_folder(path)
    manifest = read_manifest(folder, "exact")
    _check_rows(folder, manifest)
    checked = f"{manifest.rows:,} rows are finite and not all zero"
    if not manifest.shards:
        raise UserError(f"{folder}: {checked}, but there are no checksums to compare; build the index again")
    name = source or manifest.source
    if name is None or not (source or _source_exists(name)):
        raise UserError(
            f"{folder}: {checked}, {checksums_are_right(len(manifest.shards))}, but the fingerprints of base and "
            f"encoder are not compared: {_origin(name)}; name its run or experiment with --run"
        )
    builder = open_source(name).over_base_of(path, manifest)
    encoder = passage_fingerprint(builder.side_of(manifest), builder.task, builder.base)
    read_manifest(folder, "exact", builder.base.fingerprint, encoder)
    return CheckedIndex(folder, manifest.rows, len(manifest.shards), name)


def _check_rows(folder: Path, manifest: Manifest) -> None:
    """Raise `UserError` for a wrong checksum, and for a row that is not finite or all zero."""
    for shard in manifest.shards:
        verify_shard(folder, shard)
    with bar("checking the index", manifest.rows, "rows") as advance:
        first_row = 0
        for stored in read_shards(folder, manifest):
            blocks = stored.split(_CHECKED_ROWS)
            for block in checked_blocks(blocks, len(stored), stored.dtype, first_row):
                advance(len(block))
            first_row += len(stored)


def checksums_are_right(files: int) -> str:
    """Return the clause that the checksums of so many files are right."""
    return "the checksum is right" if files == 1 else f"the checksums of {files} files are right"


def _origin(source: str | None) -> str:
    """Return why the source of an index cannot be opened."""
    if source is None:
        return "it was saved from Python or within a run, without the name of the run"
    return f"it was built by {source}, which is not here"


def describe_index(path: Path) -> IndexDescription:
    """Return the facts of an index, from its manifest alone."""
    folder = index_folder(path)
    manifest = read_manifest(folder, "exact")
    return IndexDescription(
        folder=folder,
        rows=manifest.rows,
        dimension=manifest.dimension,
        dtype=find_dtype(manifest.dtype),
        files=max(1, len(manifest.shards)),
        encoding=manifest.encoding,
        base_fingerprint=manifest.base_fingerprint,
        encoder_fingerprint=manifest.encoder_fingerprint,
        source=manifest.source,
        versions=tuple(version.name for version in versions(path)) if has_versions(path) else (),
    )


def index_folder(path: Path) -> Path:
    """Return the folder of the current version. Raises `UserError` if there is no index, or one of another kind."""
    if not is_index(path):
        raise _not_an_index(path)
    if _unfinished(path) and not has_versions(path):
        raise UserError(f"the index in {path} is not finished; go on with the same `retrograd index build` as before")
    folder = current_version(path) if has_versions(path) else find_current_or_backup(path)
    kind = read_sealed(folder / MANIFEST).get("kind")
    if kind in _CLASSES:
        raise UserError(f"{folder} holds a {kind!r} index, which this command cannot read; use {_CLASSES[kind]}.load")
    return folder


def _not_an_index(path: Path) -> UserError:
    """Return an error that names what is there instead of an index, and the command that makes one of it."""
    folder = shlex.quote(str(Path("indexes") / path.stem))
    build = f"retrograd index build {shlex.quote(str(path))} --out {folder}"
    if (path / "experiment.toml").is_file():
        own_index = find_current_or_backup(path / "model") / "index"
        hint = f"the one that it was saved with is {own_index}; " if own_index.is_dir() else ""
        return UserError(f"{path} is a run, not an index; {hint}build one with: {build}")
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


def find_source(path: Path, manifest: Manifest, source: str | None) -> str:
    """Return what has the retriever of an index: ``source``, or the run or experiment that the index names.

    Raises `UserError` where that is not there.
    """
    name = source or manifest.source
    if name is None or not (source or _source_exists(name)):
        raise UserError(f"{path} needs its retriever, and {_origin(name)}; name a run with --run")
    return name


def search_index(
    path: Path, query: str, k: int = 5, source: str | None = None, where: Sequence[str] = ()
) -> SearchResult:
    """Return the k best passages of an index with p(z|x) over the whole base, or over what matches ``where``
    (`select_rows`); no generator answers.

    Raises `UserError` if base or encoder of ``source`` (None: the one that the index names) are not the index's own.
    """
    manifest: Manifest = read_current(index_folder(path), lambda folder: read_manifest(folder, "exact"))
    builder = open_source(find_source(path, manifest, source)).over_base_of(path, manifest)
    task, base = builder.task, builder.base
    require_passages(base, "-k", k)
    side = builder.side_of(manifest)
    index = ExactIndex.load(
        path,
        base_fingerprint=base.fingerprint,
        encoder_fingerprint=passage_fingerprint(side, task, base),
        device=builder.compute.device,
    )
    example = task.parse_query(query)
    with builder.compute.autocast(), torch.no_grad():
        query_embedding = side.pad_to_row(builder.retriever.queries([task.query_text(example)]), "prior")
    rows = select_rows(base, where)
    searched = index if rows is None else restrict(index, torch.tensor(rows))
    neighbours = searched.search(query_embedding, k)
    assert neighbours.log_normaliser is not None  # the index is exact
    probability = (neighbours.logit - neighbours.log_normaliser[:, None])[0].exp().tolist()
    rows = [row for row in neighbours.row[0].tolist() if row >= 0]
    passages = base.passages(rows)
    return SearchResult(tuple(Hit(row, passages[i], probability[i]) for i, row in enumerate(rows)))
