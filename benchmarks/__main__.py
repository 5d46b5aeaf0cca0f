"""The table of speed and memory: ``python -m benchmarks [ROW …]``.

Each row runs in a process of its own, one after the other. A row is a ratio against a peer that does the same work in
the same process, in turns, or a figure with its unit: the median over the turns and its quartiles. ``--json`` keeps
all that was measured in a file, row after row; a row that it has is not measured again. ``--list`` prints the names of
the rows. Rows that run for minutes are measured by name alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.speed.measuring import Row
from rich.console import Console
from rich.table import Table

MODULES = (
    "joint_step",
    "jsa_step",
    "encoding",
    "exact_index",
    "labels",
    "language_model",
    "memory",
    "growth",
    "programs",
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    parser.add_argument("rows", nargs="*", help="names of rows, or beginnings of them; default: all but long ones")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each row")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None, help="a file for all that was measured")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    rows, long_rows = find_rows()
    if options.one:
        print(json.dumps((rows | long_rows)[options.one].run(options.repeats).record()))
        return
    chosen = choose(options.rows, rows, long_rows)
    if options.list:
        print("\n".join(f"{row.name:32}{row.work}" for row in (rows | long_rows).values()))
        return
    machine = describe_machine(options.threads)
    known = read_results(options.json, machine)
    for row in chosen:
        if row.name not in known:
            known[row.name] = measure(row, options.repeats, options.threads)
            write_results(options.json, machine, known)
    results = [known[row.name] for row in chosen]
    print_markdown(results) if options.markdown else print_table(results, machine)


def read_results(file: Path | None, machine: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the rows that a file has by name, empty without one. Ends the program for a file of another machine."""
    if file is None or not file.exists():
        return {}
    content = json.loads(file.read_text(encoding="utf-8"))
    if content["machine"] != machine:
        raise SystemExit(
            f"{file} was measured on another machine, or with other versions or threads; name another file"
        )
    return {row["row"]: row for row in content["rows"] if row["value"] is not None}


def write_results(file: Path | None, machine: dict[str, Any], results: dict[str, dict[str, Any]]) -> None:
    """Write all rows so far, whole or not at all."""
    if file is not None:
        unfinished = file.with_suffix(".unfinished")
        content = json.dumps({"machine": machine, "rows": list(results.values())}, indent=1)
        unfinished.write_text(content + "\n", encoding="utf-8")
        unfinished.replace(file)


def find_rows() -> tuple[dict[str, Row], dict[str, Row]]:
    """Return the rows by name: those of every run, and those that are measured by name alone."""
    modules = [import_module(f"benchmarks.speed.{name}") for name in MODULES]
    rows = {row.name: row for module in modules for row in module.ROWS}
    return rows, {row.name: row for module in modules for row in getattr(module, "BY_NAME", ())}


def choose(names: list[str], rows: dict[str, Row], long_rows: dict[str, Row]) -> list[Row]:
    """Return the rows that are named; all but long ones where none is. Ends the program for a name of none."""
    if not names:
        return list(rows.values())
    found: dict[str, Row] = {}
    for name in names:
        matching = {own: row for own, row in (rows | long_rows).items() if own.startswith(name)}
        if not matching:
            raise SystemExit(f"no row begins with {name!r}; --list prints their names")
        found |= matching
    return list(found.values())


def measure(row: Row, repeats: int, threads: int) -> dict[str, Any]:
    """Measure a row in a process of its own; a row that fails says why in its note."""
    print(f"{row.name} …", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "benchmarks", "--one", row.name, "--repeats", str(repeats)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    why = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return {"row": row.name, "work": row.work, "against": row.against, "value": None, "note": f"failed: {why}"}


def describe_machine(threads: int) -> dict[str, Any]:
    """Return the processor, the threads and the versions that figures depend on."""
    import torch
    import transformers

    from retrograd.models.compute.precision_cache import processor_instructions, processor_name

    return {
        "processor": processor_name(),
        "instructions": processor_instructions(),
        "threads": threads,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def print_table(results: list[dict[str, Any]], machine: dict[str, Any]) -> None:
    """Print one line a row."""
    table = Table(*("row", "work", "against", "median", "quartiles", "aim", "seconds", "note"))
    for result in results:
        if result["value"] is None:
            table.add_row(result["row"], result["work"], result["against"], "-", "-", "-", "-", result["note"])
            continue
        unit = "" if result["unit"] == "x" else f" {result['unit']}"
        seconds = ", ".join(f"{name} {value:.3g}" for name, value in (result["seconds"] or {}).items())
        verdict = "" if result["met"] is None else " met" if result["met"] else " missed"
        spread = f"{result['low']:.2f} to {result['high']:.2f}"
        cells = (result["row"], result["work"], result["against"], f"{result['value']:.2f}{unit}", spread)
        table.add_row(*cells, f"{result['aim']}{verdict}", seconds, result["note"])
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    console.print(", ".join(f"{name} {value}" for name, value in machine.items()), markup=False)


def print_markdown(results: list[dict[str, Any]]) -> None:
    """Print the table for a page."""
    print("| row | work | against | median (quartiles) | aim |\n|---|---|---|---|---|")
    for result in results:
        if result["value"] is None:
            continue
        unit = "" if result["unit"] == "x" else f" {result['unit']}"
        verdict = {None: "", True: ", met", False: ", **missed**"}[result["met"]]
        value = f"{result['value']:.2f}{unit} ({result['low']:.2f} to {result['high']:.2f})"
        print(f"| `{result['row']}` | {result['work']} | {result['against']} | {value} | {result['aim']}{verdict} |")


if __name__ == "__main__":
    main()
