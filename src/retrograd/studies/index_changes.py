"""Change the passages of an index on disk: a new version, in which only what is new is embedded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from retrograd.data.passages import read_corpus
from retrograd.index.changes import ChangedBase, add_passages, keep_base, remove_passages, update_passages
from retrograd.index.disk.build import Encode, build_version
from retrograd.index.disk.storage import find_dtype, read_manifest
from retrograd.index.disk.versions import has_versions
from retrograd.index.exact import ExactIndex
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.rag.embedding import BLOCK_ROWS, embed_rows, passage_fingerprint
from retrograd.rag.index_folder import index_spec
from retrograd.studies.index import Builder, find_source, index_folder, open_source
from retrograd.types import UserError
from retrograd.util.progress import bar
from retrograd.util.text_files import read_lines, write_jsonl

__all__ = ["ChangedIndex", "add_to_index", "remove_from_index", "update_index"]

Change = Callable[[KnowledgeBase], ChangedBase]


@dataclass(frozen=True)
class ChangedIndex:
    """A new version of an index: its folder, the passages that it holds, and how many of them were embedded."""

    version: Path
    passages: int
    embedded: int


def add_to_index(root: Path, file: Path, source: str | None = None, passages: Path | None = None) -> ChangedIndex:
    """Add the passages of a file, in any format of corpora, behind those of an index.

    ``source`` is the run or experiment of the index (None: the one that it names). The changed base is kept beside the
    index and, with ``passages``, written as JSON Lines too, for ``data.base``. Raises `UserError` for ids that are
    there already, and for an index that cannot be changed.
    """
    added = list(read_corpus(file))
    return _change(root, source, passages, lambda base: add_passages(base, added, str(file)))


def update_index(root: Path, file: Path, source: str | None = None, passages: Path | None = None) -> ChangedIndex:
    """Give passages of an index the texts that a file has for their ids, as `add_to_index`.

    Raises `UserError` for ids that are not there.
    """
    updated = list(read_corpus(file))
    return _change(root, source, passages, lambda base: update_passages(base, updated, str(file)))


def remove_from_index(root: Path, file: Path, source: str | None = None, passages: Path | None = None) -> ChangedIndex:
    """Remove from an index the passages whose ids a file has, one a line; otherwise as `add_to_index`."""
    ids = [line.strip() for _, line in read_lines(file) if line.strip()]
    return _change(root, source, passages, lambda base: remove_passages(base, ids, str(file)))


def _change(root: Path, source: str | None, passages: Path | None, change: Change) -> ChangedIndex:
    folder = index_folder(root)
    if not has_versions(root):
        raise UserError(f"{root} has no versions, so none can be added; give a folder of `retrograd index build --out`")
    if passages is not None and passages.exists():
        raise UserError(f"{passages} exists; choose another file for the passages, or remove it first")
    manifest = read_manifest(folder, "exact")
    name = find_source(root, manifest, source)
    builder = open_source(name).over_base_of(root, manifest)
    tower = builder.retriever.passage_encoder
    if tower.lexical is not None:
        raise UserError(
            f"{root} is hybrid: what a word weighs depends on all passages, so a change moves every vector; build it "
            f"again: retrograd index build"
        )
    old = ExactIndex.load(
        folder,
        base_fingerprint=builder.base.fingerprint,
        encoder_fingerprint=passage_fingerprint(tower, builder.task, builder.base),
    )
    changed = change(builder.base)
    with builder.compute.autocast():
        spec = index_spec(builder.retriever, builder.task, changed.base, find_dtype(manifest.dtype), name)
        if manifest.encoding is not None and spec.encoding != manifest.encoding:
            raise UserError(
                f"{root} was built by {manifest.encoding}, and this would be {spec.encoding}; set training.precision "
                f"of {name}, or build the index again"
            )
        keep_base(root, changed.base)
        with bar("changing the index", len(changed.base), "passages") as advance:
            version = build_version(root, spec, _encoder(builder, changed, old), advance)
    keep_base(root, changed.base)  # the versions that the build removed need theirs no more
    if passages is not None:
        write_jsonl(passages, ({"id": one.id, "title": one.title, "text": one.text} for one in changed.base))
    return ChangedIndex(version, len(changed.base), changed.new_rows)


def _encoder(builder: Builder, changed: ChangedBase, old: ExactIndex) -> Encode:
    """Return the function that gives the vectors of rows: those of the old index, where it has them."""

    def encode(first: int, stop: int) -> Iterator[Float[Tensor, "n D"]]:
        for start in range(first, stop, BLOCK_ROWS):
            yield _block(builder, changed, old, range(start, min(start + BLOCK_ROWS, stop)))

    return encode


def _block(builder: Builder, changed: ChangedBase, old: ExactIndex, rows: Sequence[int]) -> Float[Tensor, "n D"]:
    old_rows = torch.tensor([changed.old_row[row] for row in rows])
    vectors = old.vectors(old_rows)  # widened, and narrowed again without loss; zeros for new ones
    new = [position for position, row in enumerate(old_rows.tolist()) if row < 0]
    if new:
        embedder = builder.retriever.passage_encoder
        fresh = embed_rows(embedder, builder.task, changed.base, [rows[position] for position in new])
        vectors[torch.tensor(new)] = fresh.to(vectors)
    return vectors
