"""Check the versions of transformers and peft before opening a model. ``pyproject.toml`` states the same ranges."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version

from packaging.specifiers import SpecifierSet

from retrograd.types import UserError

__all__ = ["SUPPORTED", "describe_unsupported", "require_supported_versions"]

SUPPORTED = {"transformers": ">=5.17,<5.24", "peft": ">=0.21.2"}

_REASON = {
    "transformers": "4.x fails, 5.8 to 5.14 compute wrong T5 scores, and 5.24 fails every adapter with peft below 0.22",
    "peft": "adapters were not tried with an older one",
}


@cache  # reading the metadata of two packages takes longer than opening a small model
def require_supported_versions() -> None:
    """Raise `UserError` where the installed transformers or peft is outside the range that is known to work."""
    for sentence in describe_unsupported({package: version(package) for package in SUPPORTED}):
        raise UserError(sentence)


def describe_unsupported(installed: Mapping[str, str]) -> list[str]:
    """Return a sentence for each package of `SUPPORTED` whose version, by name, is outside the range that works."""
    requirements = " ".join(f"'{name}{bounds}'" for name, bounds in SUPPORTED.items())
    return [
        f"{package} {installed[package]} is installed, which is not supported; expected {package}{supported} "
        f"({_REASON[package]}); install a supported version: pip install {requirements}"
        for package, supported in SUPPORTED.items()
        if installed.get(package) and not SpecifierSet(supported).contains(installed[package], prereleases=True)
    ]
