"""Faults as small replacements in functions that are found by their qualified names: `faults.py` applies them."""

from __future__ import annotations

import ast
import contextlib
import io
import tokenize
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Change", "Edit", "Fault", "find_change", "read_faults"]

_WILDCARD = "ANY_"
_LAYOUT = {tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT, tokenize.ENDMARKER}


@dataclass(frozen=True)
class Edit:
    """Replace ``old`` by ``new`` in the function or class of the qualified name ``where``."""

    where: str
    old: str
    new: str


@dataclass(frozen=True)
class Fault:
    """One fault, as alternative edits; ``also`` are names of test files that run early."""

    name: str
    area: str
    edits: tuple[Edit, ...]
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Change:
    """What a fault makes of one file."""

    path: Path
    where: str
    source: str


def read_faults(path: Path) -> list[Fault]:
    """Return the faults of a file in their order."""
    return [
        Fault(
            entry["name"],
            entry["area"],
            tuple(Edit(edit["in"], edit["old"], edit["new"]) for edit in entry["edits"]),
            tuple(entry.get("also", ())),
        )
        for entry in tomllib.loads(path.read_text(encoding="utf-8"))["fault"]
    ]


def find_change(fault: Fault, tree: Path) -> Change:
    """Return what the first edit that applies makes of its file. Raises `ValueError` for no place and for several."""
    for edit in fault.edits:
        changes = [change for path in sorted((tree / "src").rglob("*.py")) for change in _changes(edit, path)]
        if len(changes) > 1:
            places = ", ".join(str(change.path.relative_to(tree)) for change in changes)
            raise ValueError(f"{fault.name!r}: {edit.old!r} stands {len(changes)} times in {edit.where}: {places}")
        if changes:
            compile(changes[0].source, str(changes[0].path), "exec")
            return changes[0]
    tried = "; ".join(f"{edit.old!r} in {edit.where}" for edit in fault.edits)
    raise ValueError(f"{fault.name!r} applies nowhere: found no {tried}; add an alternative")


def _changes(edit: Edit, path: Path) -> Iterator[Change]:
    source = path.read_text(encoding="utf-8")
    if edit.where.rpartition(".")[2] not in source:
        return
    for first, last in _definitions(ast.parse(source), edit.where):
        for changed in _replacements(source, first, last, edit):
            yield Change(path, edit.where, changed)


def _definitions(tree: ast.Module, name: str) -> Iterator[tuple[int, int]]:
    """The first and last line of each function or class of that qualified name."""
    level: list[tuple[str, ast.stmt]] = [("", node) for node in tree.body]
    while level:
        prefix, node = level.pop(0)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            qualified = prefix + node.name
            if qualified == name:
                yield node.lineno, node.end_lineno or node.lineno
            level += [(f"{qualified}.", child) for child in node.body]


def _replacements(source: str, first: int, last: int, edit: Edit) -> Iterator[str]:
    """The source with each place between the lines ``first`` and ``last`` changed where the old tokens stand."""
    tokens = [token for token in _tokens(source) if first <= token.start[0] and token.end[0] <= last]
    wanted = _tokens(edit.old)
    lines = source.splitlines(keepends=True)
    for at in range(len(tokens) - len(wanted) + 1):
        here = tokens[at : at + len(wanted)]
        names = _match(wanted, here)
        if names is None:
            continue
        (row, column), (end_row, end_column) = here[0].start, here[-1].end
        before = "".join(lines[: row - 1]) + lines[row - 1][:column]
        after = lines[end_row - 1][end_column:] + "".join(lines[end_row:])
        new = edit.new
        for name in sorted(names, key=len, reverse=True):
            new = new.replace(name, names[name])
        yield before + new + after


def _tokens(source: str) -> list[tokenize.TokenInfo]:
    """Tokens without layout and without commas before a closing bracket; a fragment may leave brackets open."""
    tokens: list[tokenize.TokenInfo] = []
    with contextlib.suppress(tokenize.TokenError):  # raised at the end, for brackets that are still open
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type in _LAYOUT:
                continue
            if token.string in (")", "]", "}") and tokens and tokens[-1].string == ",":
                tokens.pop()
            tokens.append(token)
    return tokens


def _match(wanted: Sequence[tokenize.TokenInfo], here: Sequence[tokenize.TokenInfo]) -> dict[str, str] | None:
    """What each wildcard stands for; None where the tokens differ."""
    names: dict[str, str] = {}
    for pattern, token in zip(wanted, here, strict=True):
        if pattern.string.startswith(_WILDCARD):
            if token.type != tokenize.NAME or names.setdefault(pattern.string, token.string) != token.string:
                return None
        elif pattern.string != token.string:
            return None
    return names
