"""A recipe as TOML in which every setting that is known to differ from the paper is marked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import tomli_w

from retrograd.experiments.experiment import Experiment

__all__ = ["annotated"]

_SECTION = re.compile(r"\[(\w+)\]")
_SETTING = re.compile(r"(\w+) = ")
_INTRODUCTION = "# Marked lines differ from the paper. What it does not say is not marked. No setting says that:"


def annotated(experiment: Experiment, published: Mapping[str, object], deviations: Sequence[str]) -> str:
    """`Experiment.to_toml`, which `train` reads, with comments.

    A setting whose value is not that of ``published`` (by ``section.name``) has the published one beside it;
    ``deviations``, what no setting can express, come first.
    """
    values, section = experiment.to_mapping(), ""
    lines = [_INTRODUCTION, *(f"#   {deviation}" for deviation in deviations)]
    for line in experiment.to_toml().splitlines():
        if found := _SECTION.fullmatch(line):
            section = found[1]
        setting = _SETTING.match(line)
        lines.append(line + _remark(values.get(section), f"{section}.{setting[1]}", published) if setting else line)
    return "\n".join(lines) + "\n"


def _remark(values: object, name: str, published: Mapping[str, object]) -> str:
    """Nothing where the setting is the published one, or the paper says none."""
    own = values.get(name.rpartition(".")[2]) if isinstance(values, Mapping) else None
    theirs = published.get(name, own)
    if own == theirs:
        return ""
    return f"  # published: {', '.join(theirs) if isinstance(theirs, list) else _toml(theirs)}"


def _toml(value: object) -> str:
    return tomli_w.dumps({"value": value}).removeprefix("value = ").strip()
