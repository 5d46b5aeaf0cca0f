"""The settings of an experiment as others may read them: on a model's card, and on the server of a tracker."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from retrograd.experiments.experiment import Experiment
from retrograd.experiments.text import flatten_settings
from retrograd.models.loading.origins import find_origin

__all__ = ["settings_for_others"]

_MODELS = ("retriever.model", "retriever.query_model", "generator.model")


def settings_for_others(experiment: Experiment) -> dict[str, object]:
    """Return settings by their dotted names, without those of the trackers, and without what is this machine's own.

    A file or a folder is its last name, whether or not it exists; an address has neither user nor query.
    """
    settings, rooted = (flatten_settings(one.to_mapping()) for one in (experiment, experiment.from_root()))
    return {
        name: _for_others(name, value, is_file=rooted[name] != value)
        for name, value in settings.items()
        if not name.startswith("track.")
    }


def _for_others(name: str, value: object, is_file: bool) -> object:
    """Return a setting for others; ``is_file`` says whether it is a file that is not named from the root yet."""
    if not isinstance(value, str) or value.startswith("builtin:"):
        return value
    if "://" in value:
        return _strip_address(value)
    if is_file or Path(value).is_absolute() or (name in _MODELS and not find_origin(value).hub_name):
        return _last_name(value) or value
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
