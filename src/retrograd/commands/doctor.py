"""``retrograd doctor``: what is installed here, and whether it works."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from retrograd.commands import AsJson, print_json

if TYPE_CHECKING:
    from retrograd.studies.doctor import Examination

__all__ = ["doctor"]


def doctor(json: AsJson = False) -> None:
    """Print versions, extras, devices, memory, cache and built-in weights, and what does not work.

    Exit status 1 where something that is needed is missing, outside the range that was tried, or known not to work.

    Example: `retrograd doctor`
    """
    from retrograd.studies.doctor import examine

    examination = examine()
    if json:
        print_json(examination.record())
    else:
        typer.echo("\n".join(_lines(examination)))
    if not examination.is_sound:
        raise typer.Exit(1)


def _lines(examination: Examination) -> list[str]:
    """Return the examination as text, a heading above each part."""
    from retrograd.util.machine import readable_bytes

    lines = [f"{name} {number or '(not installed as a package)'}" for name, number in examination.versions.items()]
    lines += ["", "Packages"]
    lines += [
        f"  {one.name:<14} {one.installed or '-':<12} {one.state:<24} {one.required}" for one in examination.packages
    ]
    lines += ["", "Extras"]
    for extra in examination.extras:
        state = "installed" if extra.is_installed else f"missing or too old: {extra.command}"
        lines.append(f"  {extra.name:<14} {state}")
    lines += ["", "Devices", *(f"  {line}" for line in examination.devices)]
    memory = examination.free_memory
    lines.append(f"  free memory: {'unknown' if memory is None else readable_bytes(memory)}")
    lines += ["", f"Cache: {examination.cache}, {readable_bytes(examination.cache_bytes)}", "", "Built-in weights"]
    lines += [f"  {model:<16} {number or 'not installed'}" for model, number in examination.weights.items()]
    if examination.problems:
        lines += ["", "Problems", *(f"  {line}" for line in examination.problems)]
    return lines
