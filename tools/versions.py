"""Try the bounds of `pyproject.toml`: the lowest and the newest permitted versions, in fresh environments.

    python tools/versions.py lowest newest                       # on this Python
    python tools/versions.py lowest newest --python 3.12=/usr/bin/python3.12
    python tools/versions.py --table                             # what was tried, in Markdown

Each set gets an environment of its own under ``--folder``, with the extras that run anywhere, and must pass the tests
of adapters, choices, fusion, generators, folders, the public API and runs written by earlier versions (`TESTS`).
"Lowest" installs exactly the lower bound of each requirement, "newest" whatever pip takes today. torch is pinned in
both: left to pip it would be a build with several GB of CUDA packages. What runs the tests, pytest and its plugins, is
that of `constraints.txt`; warnings are no errors here, as older and newer packages have others. A result is a line of
``tools/versions.jsonl``; an earlier one of the same set is replaced.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "tools" / "versions.jsonl"
EXTRAS = ("builtin", "faiss", "gguf", "bm25", "graph", "plots")
"""Extras whose bounds are tried. Milvus, Ray, bitsandbytes, spaCy, pypdf, frameworks and trackers: as pinned alone."""
TESTS = (
    "tests/models/loading",
    "tests/models/constrained",
    "tests/models/inputs/test_fusion.py",
    "tests/models/test_generator.py",
    "tests/models/test_encoder.py",
    "tests/models/test_retriever.py",
    "tests/index/test_faiss.py",
    "tests/index/test_bm25.py",
    "tests/commands/test_cli.py",
    "tests/test_public_api.py",
    "tests/compatibility",
)
MARKS = "not sweep and not integration"
TOOLS = ("pytest", "hypothesis", "beartype", "pytest-xdist")
SHOWN = ("transformers", "peft", "tokenizers", "safetensors", "pyarrow", "numpy", "typer", "jaxtyping", "faiss-cpu")
TORCH = "2.13.0"

Record = dict[str, Any]


def main() -> None:
    """Try each named set on each named Python, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("sets", nargs="*", metavar="SET", help="lowest, newest")
    parser.add_argument("--python", nargs="+", default=[sys.executable], metavar="[NAME=]PATH")
    parser.add_argument("--folder", type=Path, default=ROOT / ".venv-versions", help="of the environments")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="try nothing, print what was tried")
    options = parser.parse_args()
    if unknown := set(options.sets) - set(SETS):
        parser.error(f"unknown set {sorted(unknown)[0]!r}; expected {' or '.join(SETS)}")
    failed = False
    for python in options.python:
        path = python.partition("=")[2] or python
        for name in [] if options.table else options.sets:
            record = try_set(name, path, options.folder)
            failed = failed or not record["passed"]
            keep(record, options.results)
    print(table(read(options.results)))
    sys.exit(failed)


def lowest() -> list[str]:
    """Return each requirement of the package and of `EXTRAS` at its lower bound."""
    pins: list[str] = []
    for requirement in requirements():
        bounds = [one.version for one in requirement.specifier if one.operator in (">=", "==", "~=")]
        pins += [f"{requirement.name}=={bounds[0]}"] if bounds else []
    return pins


def newest() -> list[str]:
    """Return no pins: pip takes the newest versions that the bounds permit."""
    return []


SETS = {"lowest": lowest, "newest": newest}


def requirements() -> list[Requirement]:
    """Return the requirements of the package and of `EXTRAS`, all but torch."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = list(project["dependencies"])
    for extra in EXTRAS:
        lines += project["optional-dependencies"][extra]
    return [one for one in map(Requirement, lines) if one.name != "torch"]


def try_set(name: str, python: str, folder: Path) -> Record:
    """Make the environment of a set anew, run `TESTS` in it, and return what was installed and whether they passed."""
    release = run([python, "-c", "import platform; print(platform.python_version())"]).strip()
    place = folder / f"{name}-{release}"
    run([python, "-m", "venv", "--clear", str(place)])
    own = str(place / "bin" / "python")
    constraints = place / "constraints.txt"
    constraints.write_text("\n".join([f"torch=={TORCH}", *SETS[name](), *pinned(TOOLS)]), encoding="utf-8")
    install = [own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    print(f"{name} on Python {release}: installing", flush=True)
    run([*install, f"torch=={TORCH}"])
    run([*install, "-c", str(constraints), "-e", f"{ROOT}[{','.join(EXTRAS)}]", *TOOLS, *TESTED_WITH])
    print(f"{name} on Python {release}: testing", flush=True)
    began = time.perf_counter()
    command = [own, "-m", "pytest", "-n", "2", "--dist", "loadfile", "-m", MARKS, "-W", "default", *TESTS]
    environment = {**os.environ, "RETROGRAD_REQUIRE": "gguf faiss bm25s rdflib networkx matplotlib"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    summary = result.stdout.strip().splitlines()[-1] if result.stdout.strip() else result.stderr.strip()
    print(result.stdout[-8000:] if result.returncode else summary, flush=True)
    record: Record = {"set": name, "python": release, "passed": result.returncode == 0, "summary": summary}
    record |= {"seconds": round(time.perf_counter() - began), "machine": platform.machine()}
    return record | {"date": time.strftime("%Y-%m-%d"), "versions": installed(own)}


TESTED_WITH = ("sentence-transformers",)
"""Peers that some tests compare with."""


def pinned(names: Sequence[str]) -> list[str]:
    """Return the lines of `constraints.txt` for the named packages."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.partition("==")[0].lower() in names]


def installed(python: str) -> Mapping[str, str]:
    """Return the version of every package of an environment."""
    listed = json.loads(run([python, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]))
    return {one["name"].lower().replace("_", "-"): one["version"] for one in listed}


def run(command: Sequence[str]) -> str:
    """Run a command and return what it printed; end with its messages where it fails."""
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{result.stdout}{result.stderr}")
    return result.stdout


# ---- results --------------------------------------------------------------------------------------------------------


def read(results: Path) -> list[Record]:
    """Return the lines of a file of results."""
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]


def keep(record: Record, results: Path) -> None:
    """Write a result in the place of the earlier one of its set and Python."""
    others = [one for one in read(results) if key(one) != key(record)]
    lines = [json.dumps(one, sort_keys=True) for one in sorted([*others, record], key=key)]
    results.write_text("\n".join(lines) + "\n", encoding="utf-8")


def key(record: Record) -> tuple[str, ...]:
    """Return the minor release of Python and the set of a result."""
    return (*record["python"].split(".")[:2], record["set"])


def table(records: Sequence[Record]) -> str:
    """Return the results as a table in Markdown."""
    lines = [f"| Python | set | {' | '.join(SHOWN)} | tests |", "|" + "---|" * (len(SHOWN) + 3)]
    for one in records:
        versions = [one["versions"].get(name, "–") for name in SHOWN]
        lines.append(f"| {one['python']} | {one['set']} | {' | '.join(versions)} | {one['summary'].strip('= ')} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
