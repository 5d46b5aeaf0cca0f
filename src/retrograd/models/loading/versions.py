"""Check the versions of transformers and peft before opening a model. ``pyproject.toml`` states the same ranges."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version

from packaging.specifiers import SpecifierSet

from retrograd.types import UserError

__all__ = ["SUPPORTED", "require_supported_versions"]

SUPPORTED = {"transformers": ">=5.17,<5.24", "peft": ">=0.21.2"}

_REASON = {
    "transformers": "4.x fails, 5.8 to 5.14 compute wrong T5 scores, and 5.24 fails every adapter with peft below 0.22",
    "peft": "adapters were not tried with an older one",
}


@cache  # reading the metadata of two packages takes longer than opening a small model
def require_supported_versions() -> None:
    """Raise `UserError` where the installed transformers or peft is outside the range that is known to work."""
    for package, supported in SUPPORTED.items():
        installed = version(package)
        if not SpecifierSet(supported).contains(installed, prereleases=True):
            requirements = " ".join(f"'{name}{bounds}'" for name, bounds in SUPPORTED.items())
            raise UserError(
                f"{package} {installed} is installed, which is not supported; expected {package}{supported} "
                f"({_REASON[package]}); install a supported version: pip install {requirements}"
            )
