"""The files of a model as they are uploaded: those that it consists of, without the names of this machine's folders."""

from __future__ import annotations

import shutil
from pathlib import Path

from retrograd.experiments.card import write_recorded_cards
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.open import read_run_task
from retrograd.models.loading.origins import find_origin
from retrograd.rag.model_folder import BASE_FILE, TASK_FILE, open_saved_base, open_saved_task
from retrograd.tasks.saved_tasks import write_task
from retrograd.training.run.run_directory import RunDirectory
from retrograd.types import UserError
from retrograd.util.guards import JsonValue
from retrograd.util.text_files import read_json, write_json

__all__ = ["collect_files"]

_CARD = "README.md"
_MODEL, _ADAPTERS = "model.json", "generator/adapter_config.json"
_FILES = (_CARD, _MODEL, TASK_FILE, BASE_FILE)
_FOLDERS = ("retriever", "posterior", "generator", "index")
_ENDINGS = (".json", ".safetensors", ".model", ".jinja")
_NAMES = (_CARD, "vocab.txt", "merges.txt")
"""Files of these names or endings are a model's, in its folders; whatever else lies there is not uploaded."""


def collect_files(folder: Path, temporary: Path) -> dict[str, Path]:
    """Return the files to upload by their names there; what differs from this disk is written to ``temporary``.

    Of a run these are its model, with its task and base, and cards written from what it has recorded. Raises
    `UserError` for a folder that is no whole model, and for adapters of a model that only this machine has.
    """
    if (folder / "experiment.toml").exists():
        run = RunDirectory.open(folder)
        files = _files_of_model(run.model)
        _require_open_base(files)
        experiment = Experiment.load(run.experiment)
        task = read_run_task(experiment, run)
        write_task(task, temporary / TASK_FILE)
        write_recorded_cards(run, experiment, task, temporary)
        files |= {BASE_FILE: run.base}
    else:
        open_saved_task(folder)
        open_saved_base(folder)
        files = _files_of_model(folder)
        _require_open_base(files)
    for name in files.keys() & {_MODEL, _ADAPTERS}:
        _write_without_folders(files[name], temporary / name)
    written = (path for path in temporary.rglob("*") if path.is_file())
    return files | {path.relative_to(temporary).as_posix(): path for path in written}


def _files_of_model(folder: Path) -> dict[str, Path]:
    files = {name: folder / name for name in _FILES if (folder / name).is_file()}
    for path in (path for part in _FOLDERS for path in (folder / part).rglob("*")):
        name = path.relative_to(folder)
        is_hidden = any(part.startswith(".") for part in name.parts)
        if path.is_file() and not is_hidden and (path.suffix in _ENDINGS or path.name in _NAMES):
            files[name.as_posix()] = path
    return files


def _require_open_base(files: dict[str, Path]) -> None:
    """Raise `UserError` for adapters whose model is a folder of this machine."""
    if _ADAPTERS not in files:
        return
    names = [_get(read_json(files[_ADAPTERS]), "base_model_name_or_path")]
    if _MODEL in files:
        names.append(_get(read_json(files[_MODEL]), "built_from", "generator", "model"))
    local = next((name for name in names if isinstance(name, str) and _is_local(name)), None)
    if local is not None:
        raise UserError(
            f"the generator is adapters of {local}, which only this machine has, so that nobody could open the "
            f"upload; train on a model that has a name on the hub, or write the generator with its adapters merged in: "
            f"retrograd export RUN --to merged --out FOLDER"
        )


def _write_without_folders(path: Path, out: Path) -> None:
    """Write a copy of a JSON file in which models that are folders are named ``./NAME``."""
    record = read_json(path)
    settings = _get(record, "built_from")
    places = [(_get(settings, "retriever"), "model"), (_get(settings, "retriever"), "query_model")]
    places += [(_get(settings, "generator"), "model"), (record, "base_model_name_or_path")]
    for table, key in places:
        name = _get(table, key)
        if isinstance(table, dict) and isinstance(name, str) and _is_local(name):
            table[key] = f"./{find_origin(name).label}"
    out.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(record, dict):
        write_json(out, record)
    else:
        shutil.copy(path, out)


def _get(value: JsonValue, *keys: str) -> JsonValue:
    """Return what is under these keys in nested tables; None where there is nothing."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _is_local(name: str) -> bool:
    """Return whether a model is named by a folder or a file, and not as the hub or the package does."""
    return bool(name) and not name.startswith("builtin:") and not find_origin(name).hub_name
