"""A recipe as TOML in which every setting that differs from the paper is marked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import tomli_w

from retrograd.recipes.experiment import Experiment

__all__ = ["annotated"]

_SECTION = re.compile(r"\[(\w+)\]")
_SETTING = re.compile(r"(\w+) = ")


def annotated(experiment: Experiment, published: Experiment, notes: Sequence[str]) -> str:
    """`Experiment.to_toml`, which `train` reads, with comments.

    Settings unlike ``published`` have its value beside them; ``notes``, what no setting can express, come first.
    """
    theirs, section = published.to_mapping(), ""
    lines = ["# As published but for the lines marked so, and:", *(f"#   {note}" for note in notes)]
    for line in experiment.to_toml().splitlines():
        if found := _SECTION.fullmatch(line):
            section = found[1]
        setting = _SETTING.match(line)
        lines.append(line + _remark(experiment.to_mapping(), theirs, section, setting[1]) if setting else line)
    return "\n".join(lines) + "\n"


def _remark(ours: Mapping[str, object], theirs: Mapping[str, object], section: str, setting: str) -> str:
    """Nothing where the setting is the published one, or only says which run it is."""
    own, other = ours.get(section), theirs.get(section)
    if not isinstance(own, Mapping) or not isinstance(other, Mapping) or own[setting] == other.get(setting):
        return ""
    if setting not in other:
        return "  # no setting of the published objective"
    value = other[setting]
    return f"  # published: {', '.join(value) or 'none' if isinstance(value, (list, tuple)) else _toml(value)}"


def _toml(value: object) -> str:
    return tomli_w.dumps({"value": value}).removeprefix("value = ").strip()
