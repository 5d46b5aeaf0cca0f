"""What is installed here, and whether retrograd can work with it: versions, extras, devices, memory, cache, weights."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from retrograd.models.loading.versions import describe_unsupported
from retrograd.recipes.here import BUILTIN_PACKAGES
from retrograd.types import UserError
from retrograd.util.files import cache_folder
from retrograd.util.guards import JsonObject, JsonValue
from retrograd.util.machine import free_memory
from retrograd.util.text_files import read_json

__all__ = ["Examination", "Extra", "InstalledPackage", "examine", "judge_version"]

State = Literal["ok", "outside the tried range", "missing"]
_DISTRIBUTION = "retrograd"
_NOT_FOR_USERS = ("dev",)


@dataclass(frozen=True)
class InstalledPackage:
    """A package that is needed: the range that was tried, and the version that is here ("" where it is missing)."""

    name: str
    required: str
    installed: str
    state: State


@dataclass(frozen=True)
class Extra:
    """An extra of the package: its packages that are missing, and the command that installs it."""

    name: str
    packages: tuple[InstalledPackage, ...]
    command: str

    @property
    def is_installed(self) -> bool:
        """Return whether all of its packages are here, in versions that were tried."""
        return all(package.state == "ok" for package in self.packages)


@dataclass(frozen=True)
class Examination:
    """Facts about this machine and what is installed on it.

    ``devices`` are sentences. ``cache_bytes`` is the size of the cache folder. ``weights`` says of each built-in model
    which version of its package is here ("" where none is). ``problems`` are sentences about what does not work.
    """

    versions: dict[str, str]
    packages: tuple[InstalledPackage, ...]
    extras: tuple[Extra, ...]
    devices: tuple[str, ...]
    free_memory: int | None
    cache: str
    cache_bytes: int
    weights: dict[str, str]
    problems: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """Return whether all that is needed is here, in versions that work."""
        return not self.problems and all(package.state == "ok" for package in self.packages)

    def record(self) -> JsonObject:
        """Return the examination as JSON."""
        extras: list[JsonValue] = [{**asdict(extra), "is_installed": extra.is_installed} for extra in self.extras]
        return {**asdict(self), "extras": extras, "is_sound": self.is_sound}


def examine() -> Examination:
    """Examine what is installed here. Raises nothing for what is missing: it says so."""
    needed, extras = _requirements()
    packages = tuple(_look_up(one) for one in needed)
    return Examination(
        versions={_DISTRIBUTION: _version(_DISTRIBUTION), "python": platform.python_version()},
        packages=packages,
        extras=tuple(
            Extra(name, tuple(map(_look_up, own)), f"pip install '{_DISTRIBUTION}[{name}]'")
            for name, own in extras.items()
        ),
        devices=_devices(),
        free_memory=free_memory(),
        cache=str(cache_folder()),
        cache_bytes=_size_of_cache(),
        weights={model: _version(packages[0]) for model, packages in BUILTIN_PACKAGES.items()},
        problems=_describe_problems(packages),
    )


def _describe_problems(packages: Sequence[InstalledPackage]) -> tuple[str, ...]:
    """Return what keeps retrograd from working, whatever is installed."""
    if not packages:
        return (
            "retrograd is not installed as a package, so that its ranges of versions are not known: pip install -e .",
        )
    problems = describe_unsupported({package.name: package.installed for package in packages})
    try:
        from retrograd.models.compute.compute import choose_device

        choose_device()
    except UserError as error:
        problems.append(str(error))
    except (ImportError, OSError) as error:
        problems.append(f"torch cannot be imported ({error}); install it again")
    return tuple(problems)


def judge_version(required: str, installed: str) -> State:
    """Return whether an installed version ("" for none) is within a range, such as ">=5.17,<5.24"."""
    if not installed:
        return "missing"
    return "ok" if _is_within(installed, required) else "outside the tried range"


def _is_within(installed: str, bounds: str) -> bool:
    return SpecifierSet(bounds).contains(Version(installed), prereleases=True)


def _requirements() -> tuple[list[Requirement], dict[str, list[Requirement]]]:
    """Return what the package's metadata ask for: always, and by extra."""
    try:
        lines = requires(_DISTRIBUTION) or []
    except PackageNotFoundError:
        lines = []
    needed: list[Requirement] = []
    extras: dict[str, list[Requirement]] = {}
    for requirement in map(Requirement, lines):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            needed.append(requirement)
            continue
        for extra in _extras_of(requirement):
            if extra not in _NOT_FOR_USERS:
                extras.setdefault(extra, []).append(requirement)
    return needed, extras


def _extras_of(requirement: Requirement) -> list[str]:
    """Return the extras that a requirement belongs to: those that its marker names."""
    marker = str(requirement.marker)
    return [part.split('"')[1] for part in marker.split("extra == ")[1:]]


def _look_up(requirement: Requirement) -> InstalledPackage:
    installed = _version(requirement.name)
    bounds = str(requirement.specifier)
    return InstalledPackage(requirement.name, bounds, installed, judge_version(bounds, installed))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _devices() -> tuple[str, ...]:
    """Return a sentence for each device that torch can compute on."""
    cores = f"{os.cpu_count()} cores"
    try:
        import torch

        from retrograd.models.compute.precision_cache import processor_name
    except (ImportError, OSError):
        return (f"CPU with {cores}; torch is missing or broken",)

    lines = [f"CPU {processor_name()}, {cores}, {torch.get_num_threads()} threads; {_remembered_speed()}"]
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        lines.append(f"CUDA {number}: {properties.name}, {properties.total_memory / 1e9:.0f} GB")
    if torch.backends.mps.is_available():
        lines.append("MPS: untried, so that models stay on the CPU unless RETROGRAD_DEVICE=mps is set")
    return tuple(lines)


def _remembered_speed() -> str:
    """Return what was measured of bf16 on this processor; `precision = "auto"` measures it when a model is opened."""
    from retrograd.models.compute.precision_cache import processor_name

    ratios = []
    for path in sorted((cache_folder() / "precision").glob("*.json")):
        try:
            record = read_json(path)
        except UserError:
            continue  # it is measured again when it is needed
        match record:
            case {"processor": str(name), "seconds": {"fp32": float(fp32), "bf16": float(bf16)}}:
                if name == processor_name() and bf16 > 0:
                    ratios.append(f"{path.stem.rpartition('-')[0]}: {fp32 / bf16:.2g}")
            case _:
                pass
    if not ratios:
        return "bf16 not timed yet"
    return f"bf16 so many times as fast as fp32: {', '.join(ratios)}"


def _size_of_cache() -> int:
    return sum(path.stat().st_size for path in cache_folder().rglob("*") if path.is_file() and not path.is_symlink())
