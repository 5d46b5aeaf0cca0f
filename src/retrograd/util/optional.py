"""Find optional packages, and say how to install one that is missing: each is imported in the one file that uses it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from retrograd.types import UserError

__all__ = ["find_module_file", "is_installed", "missing_package", "require_package"]


def find_module_file(module: str) -> Path | None:
    """Return the file of a module, such as ``faiss`` or ``llama_index.core``, without importing it; None without one.

    A folder of that name which is no package, as trackers leave behind, is not taken for the module. The parents of a
    dotted name are imported.
    """
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:  # a parent is missing
        return None
    return None if spec is None or spec.origin is None else Path(spec.origin)


def is_installed(module: str) -> bool:
    """Return whether a module could be imported; as `find_module_file`."""
    return find_module_file(module) is not None


def missing_package(what: str, package: str, command: str, instead: str = "") -> UserError:
    """Return the error that ``what`` needs a package, which ``command`` installs; ``instead`` is another way out."""
    otherwise = f", or {instead}" if instead else ""
    return UserError(f"{what} needs {package}, which is not installed: {command}{otherwise}")


def require_package(what: str, package: str, extra: str, module: str = "", instead: str = "") -> None:
    """Raise `UserError` where a package is not installed that ``what`` needs and an extra of retrograd brings.

    ``module`` is the name that it is imported by, where that is not the package's own with underscores.
    """
    if not is_installed(module or package.replace("-", "_")):
        raise missing_package(what, package, f"pip install 'retrograd[{extra}]'", instead)
