"""The settings of an experiment as others may read them: on a model's card, and on the server of a tracker."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

from retrograd.experiments.experiment import Experiment
from retrograd.experiments.text import flatten_settings
from retrograd.models.loading.origins import find_origin

__all__ = ["settings_for_others"]

_MODELS = ("retriever.model", "retriever.query_model", "generator.model")
_FILES = frozenset(
    {
        "index.path",
        "masking.spans",
        *(f"data.{part}" for part in ("base", "train", "dev", "test", "qrels", "templates")),
        *(f"data.{part}_patch" for part in ("train", "dev", "test")),
    }
)


def settings_for_others(experiment: Experiment) -> dict[str, object]:
    """Return settings by their dotted names, without those of the trackers, and without what is this machine's own.

    A file or a folder is its last name, whether or not it exists; an address has neither user nor query.
    """
    settings = flatten_settings(experiment.to_mapping())
    return {name: _for_others(name, value) for name, value in settings.items() if not name.startswith("track.")}


def _for_others(name: str, value: object) -> object:
    if not isinstance(value, str) or value.startswith("builtin:"):
        return value
    if "://" in value:
        return _strip_address(value)
    if name in _FILES or (name in _MODELS and not find_origin(value).hub_name):
        return _last_name(value)
    return value


def _strip_address(address: str) -> str:
    """Return an address without user, password, query and fragment."""
    try:
        parts = urlsplit(address)
    except ValueError:  # brackets that are no address; nothing is known to be harmless in it
        return ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _last_name(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]
