"""Hand a finished run, or a saved model, over to another program, and check what was written.

A new kind is a file of this folder and a line in `EXPORTS`.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from retrograd.experiments.from_python import Run
from retrograd.experiments.open import open_run
from retrograd.rag.rag_model import RagModel
from retrograd.studies.export.faiss_file import FAISS
from retrograd.studies.export.generators import MERGED, PEFT
from retrograd.studies.export.kind import LARGEST_DIFFERENCE, Comparison, ExportKind, Source
from retrograd.studies.export.onnx_encoder import ONNX
from retrograd.studies.export.rankings import TREC
from retrograd.studies.export.sentence_transformers_folder import SENTENCE_TRANSFORMERS
from retrograd.types import UserError
from retrograd.util.files import atomic_directory, open_to_umask
from retrograd.util.guards import JsonObject, suggest_name

__all__ = ["EXPORTS", "Export", "export"]

EXPORTS: tuple[ExportKind, ...] = (SENTENCE_TRANSFORMERS, PEFT, MERGED, ONNX, TREC, FAISS)
"""The kinds, in the order of the help."""


@dataclass(frozen=True)
class Export:
    """A finished export: its kind, folder and files, and the comparison of what was written with the model."""

    kind: str
    folder: Path
    files: tuple[str, ...]
    comparison: Comparison

    def record(self) -> JsonObject:
        """Return all of it as JSON has it."""
        return {
            "kind": self.kind,
            "folder": str(self.folder),
            "files": [*self.files],
            "compared": self.comparison.compared,
            "largest_difference": self.comparison.difference,
            "limits": [*self.comparison.limits],
        }


def export(run: Run | str | Path, kind: str, out: str | Path, passages: int = 100) -> Export:
    """Write the model of a finished run, or of a folder of `RagModel.save_pretrained`, for another program.

    ``kind`` is one of ``sentence-transformers``, ``peft``, ``merged``, ``onnx``, ``trec`` and ``faiss``; ``out`` is a
    new folder. It is then opened as that program does, and compared with the model. ``passages`` are those of each
    query in a ranking (``trec``).

    Raises `UserError` for a folder with something in it, a kind that does not fit the model, a missing package, and
    where what was written differs from the model by more than 1e-4; then nothing is left of it.

    Example::

        written = rg.export("runs/nq", "trec", "ranking")
        print(written.comparison.compared, written.comparison.difference)
    """
    chosen = next((one for one in EXPORTS if one.name == kind), None)
    if chosen is None:
        raise UserError(f"there is no export {kind!r}; {suggest_name(kind, [one.name for one in EXPORTS])}")
    folder = Path(out)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; choose another folder with --out, or remove it first")
    source = _open_source(run.path if isinstance(run, Run) else Path(run), folder, passages)
    with atomic_directory(folder) as temporary:
        chosen.write(source, temporary)
        open_to_umask(temporary)
    comparison = _compare(chosen, source, folder)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return Export(kind, folder, tuple(files), comparison)


def _compare(kind: ExportKind, source: Source, folder: Path) -> Comparison:
    """Compare what was written with the model; remove it and raise `UserError` where it differs."""
    try:
        comparison = kind.compare(source, folder)
        if not comparison.difference <= LARGEST_DIFFERENCE:
            raise UserError(
                f"what was written for {kind.name} is not the model: {comparison.compared} differ by up to "
                f"{comparison.difference:.2g}, and {LARGEST_DIFFERENCE:g} is allowed; nothing was kept. Please report "
                f"it with the experiment.toml of the run"
            )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return comparison


def _open_source(path: Path, out: Path, passages: int) -> Source:
    """Open a run, or a folder of a saved model. Raises `UserError` for anything else."""
    if path.is_dir() and not (path / "experiment.toml").exists() and (path / "model.json").exists():
        model = RagModel.from_pretrained(path)
        name = model.settings.generator.model if model.settings else model.generator.model.name_or_path or ""
        return Source(model, path.name, None, name, out, passages)
    opened = open_run(path)
    return Source(opened.model, opened.experiment.name, opened, opened.experiment.generator.model, out, passages)
