"""Apply deliberate faults to the package, one at a time, and count how many of them its tests catch.

    python benchmarks/faults.py --out benchmarks/results/faults.jsonl
    python benchmarks/faults.py --table benchmarks/results/faults-*.jsonl
    python benchmarks/faults.py --check

`faults.toml` lists the faults: for each a function or class by its qualified name, wherever it lies, and a small
replacement in its body. A fault that no longer applies is an error, not skipped (``--check`` looks at that alone).

The tree (``--tree``, this one by default) is copied and only the copy is changed. For each fault the tests of the
changed module's package run with ``pytest -x`` (all of them, or those of ``--marks``): first the file that mirrors the
module, then those that the fault names, then the rest of the package in order. A fault is *caught* when a test fails
(one that passes without the fault: all that caught something are tried at the end), *survived* when all tests pass,
*time-out* when the limit comes first. The limit is in seconds of processor time, of each process by itself, because
wall-clock time depends on what else the machine does. Libraries are imported once, before, and do not count; the
package and its tests are imported each time. A run of ten times the limit by the clock is a time-out too.

Every run is alike: one process, one thread, the checks of shapes by jaxtyping and beartype left off, hypothesis without
deadlines and from a fixed seed.

``--out`` is written after each fault, so that a run that is stopped goes on where it was; delete a line to run its
fault again.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import importlib
import json
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import pytest
from source_edits import Fault, find_change, read_faults

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_name("faults.toml")
_NO_LIMIT, _PAUSE = 3_600, 0.1  # seconds
_LEFT_BEHIND = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "runs", "results")
_OPTIONS = ("--strict-markers", "--import-mode=importlib")
_LIBRARIES = (
    *("torch", "torch.distributed.fsdp", "peft", "safetensors.torch", "pyarrow.parquet", "numpy"),
    *("sacrebleu.metrics.bleu", "rouge_score.rouge_scorer", "typer.testing", "rich.progress"),
    *("matplotlib.pyplot", "networkx", "rdflib", "bm25s", "faiss", "tokenizers", "tomli_w"),
    *(f"transformers:{kind}ForConditionalGeneration" for kind in ("Bart", "T5")),
    *(f"transformers:{name}" for name in ("LlamaForCausalLM", "BertModel", "EncoderDecoderModel", "AutoModel")),
    *(f"transformers:{name}" for name in ("PreTrainedTokenizerFast", "AutoTokenizer", "AutoModelForCausalLM")),
)
_PLUGIN = """
from hypothesis import HealthCheck, settings

settings.register_profile("faults", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("faults")
"""


@dataclass(frozen=True)
class Result:
    """What the tests made of one fault; ``seconds`` is processor time."""

    fault: str
    area: str
    place: str
    result: str
    test: str = ""
    seconds: float = 0.0


# ---- running tests ---------------------------------------------------------------------------------------------------


class TreeCopy:
    """A copy of a tree in a temporary folder, in which faults are applied and tests run."""

    def __init__(self, tree: Path, folder: Path, limit: int, marks: str) -> None:
        self.tree = folder / "tree"
        self._folder = folder
        self._limit = limit
        self._marks = marks
        self._writes = 0
        shutil.copytree(tree, self.tree, ignore=_LEFT_BEHIND)
        (folder / "faults_plugin.py").write_text(_PLUGIN, encoding="utf-8")

    def try_fault(self, fault: Fault, skipped: Collection[str] = ()) -> Result:
        """Apply a fault, run the tests of its package but for those ``skipped``, and take the fault back."""
        try:
            change = find_change(fault, self.tree)
            files = self._test_files(change.path, fault.also)
        except (ValueError, SyntaxError) as error:
            return Result(fault.name, fault.area, "", f"error: {error}")
        place = f"{change.path.relative_to(self.tree / 'src')}: {change.where}"
        whole = change.path.read_text(encoding="utf-8")
        try:
            self._write(change.path, change.source)
            arguments = ["-x", *files, *(f"--deselect={test}" for test in sorted(skipped))]
            code, seconds, output = self._pytest(arguments, self._limit)
        finally:
            self._write(change.path, whole)
        failed = failed_tests(output)
        if code is None or seconds > self._limit:
            return Result(fault.name, fault.area, place, "time-out", "", seconds)
        if code == 0:
            return Result(fault.name, fault.area, place, "survived", "", seconds)
        if not failed:
            return Result(fault.name, fault.area, place, f"error: pytest said {code}: {output[-300:]}", "", seconds)
        return Result(fault.name, fault.area, place, "caught", failed[0], seconds)

    def failing(self, tests: Sequence[str]) -> list[str]:
        """Those of the tests that fail without any fault."""
        if not tests:
            return []
        code, _, output = self._pytest(tests, _NO_LIMIT)
        if code not in (0, 1):
            sys.exit(f"pytest said {code} of the tests that caught something: {output[-1_000:]}")
        return failed_tests(output)

    def _write(self, path: Path, source: str) -> None:
        """Write a module with a time of its own: cached bytecode is found by size and seconds alone."""
        path.write_text(source, encoding="utf-8")
        self._writes += 1
        os.utime(path, (time.time(), time.time() + self._writes))

    def _test_files(self, module: Path, also: Sequence[str]) -> list[str]:
        """The test files of a module's package, those likely to catch a fault first."""
        tests = self.tree / "tests"
        package = tests / module.relative_to(self.tree / "src" / "retrograd").parts[0]
        of_package = sorted(package.rglob("test_*.py"))
        named = [path for path in sorted(tests.rglob("test_*.py")) if any(fnmatch.fnmatch(path.name, n) for n in also)]
        mirror = [path for path in of_package if path.name == f"test_{module.stem}.py"]
        if not of_package:
            raise ValueError(f"{module.relative_to(self.tree)} has no tests in {package.relative_to(self.tree)}")
        return [str(path.relative_to(self.tree)) for path in dict.fromkeys([*mirror, *named, *of_package])]

    def _pytest(self, arguments: Sequence[str], limit: int) -> tuple[int | None, float, str]:
        """Exit code (None at the limit), seconds of processor time, and output."""
        output = self._folder / "output.txt"
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            self._become_pytest(arguments, output, limit)
        waited, code, used = 0.0, None, None
        while used is None:
            pid, status, usage = os.wait4(child, os.WNOHANG)
            if pid:
                code, used = os.waitstatus_to_exitcode(status), usage
            elif waited > 10 * limit:
                os.killpg(child, signal.SIGKILL)
            waited += _PAUSE
            time.sleep(_PAUSE)  # counted, not read off a clock: all of this may be suspended for a while
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # whatever the tests have left behind
        text = output.read_text(encoding="utf-8", errors="replace")
        stopped = code in (-signal.SIGXCPU, -signal.SIGKILL)
        return None if stopped else code, round(used.ru_utime + used.ru_stime, 1), text

    def _become_pytest(self, arguments: Sequence[str], output: Path, limit: int) -> NoReturn:
        """In a process of its own: run pytest in the copy, under the limit, and end."""
        code = 3
        try:
            os.setsid()
            file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 1)
            os.dup2(file, 2)
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
            os.chdir(self.tree)
            path = [str(self.tree / "src"), str(self._folder)]
            os.environ["PYTHONPATH"] = os.pathsep.join(path)  # for the processes that tests start
            sys.path[:0] = path
            options = ["-m", self._marks, "-q", "--tb=no", "-rfE", "-p", "no:cacheprovider", "-p", "faults_plugin"]
            options += ["--hypothesis-seed=0"]
            options += ["-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
            code = int(pytest.main([*options, "-o", f"addopts={' '.join(_OPTIONS)}", *arguments]))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def import_libraries() -> None:
    """Import once what every run needs, for the processes that are forked from here."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # as tests/conftest.py does, before transformers is imported
    for name in _LIBRARIES:
        module, _, attribute = name.partition(":")
        with contextlib.suppress(ImportError):
            loaded = importlib.import_module(module)
            if attribute:
                getattr(loaded, attribute)  # transformers imports a model's module when the name is asked for
    if "retrograd" in sys.modules:
        sys.exit("retrograd is imported already, and not from the copy")


def failed_tests(output: str) -> list[str]:
    """The tests that pytest's summary names as failed, in order."""
    lines = (line.partition(" ") for line in output.splitlines())
    return [rest.partition(" - ")[0].strip() for kind, _, rest in lines if kind in ("FAILED", "ERROR") and "::" in rest]


# ---- results ---------------------------------------------------------------------------------------------------------


def describe_run(tree: Path, limit: int, marks: str) -> dict[str, str | int]:
    """What the results depend on: commit, machine, versions, limit, and which tests run."""
    git = ["git", "-C", str(tree)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    changed = subprocess.run(
        [*git, "status", "--porcelain", "src", "tests"], capture_output=True, text=True, check=True
    ).stdout.strip()
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return {
        "commit": commit + ("+changes" if changed else ""),
        "machine": f"{os.cpu_count()} x {models[0].partition(': ')[2] if models else platform.machine()}",
        "python": platform.python_version(),
        "torch": version("torch"),
        "limit": limit,
        "marks": marks,
    }


def read_results(path: Path) -> tuple[dict[str, str | int], list[Result]]:
    """What a run depended on, and its results so far."""
    first, *rest = path.read_text(encoding="utf-8").splitlines()
    return json.loads(first), [Result(**json.loads(line)) for line in rest]


def run_faults(faults: Sequence[Fault], tree: Path, out: Path, limit: int, marks: str) -> None:
    """Try every fault that ``out`` has no result of, and append each result there.

    Exits where ``out`` is of another commit. At the end all tests that caught something run without a fault; what a
    test caught that fails there is tried again without it.
    """
    run = describe_run(tree, limit, marks)
    if not out.exists():
        write_results(out, run, [])
    earlier, results = read_results(out)
    if earlier["commit"] != run["commit"]:
        sys.exit(f"{out} holds results of {earlier['commit']}, and {tree} is at {run['commit']}; give another --out")
    import_libraries()
    skipped: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        copy = TreeCopy(tree, Path(folder), limit, marks)
        while True:
            known = {result.fault for result in results}
            for fault in [fault for fault in faults if fault.name not in known]:
                result = copy.try_fault(fault, skipped)
                results.append(result)
                write_results(out, run, results)
                print(f"{result.result:<9} {result.seconds:6.1f} s  {result.fault}  {result.test}", flush=True)
            unfit = copy.failing([result.test for result in results if result.test])
            if not unfit:
                return
            print(f"fail without a fault: {', '.join(unfit)}", flush=True)
            skipped |= {*unfit}
            results = [result for result in results if result.test not in skipped]


def write_results(path: Path, run: dict[str, str | int], results: Sequence[Result]) -> None:
    """Write what a run depends on, and its results so far, a line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(run), *(json.dumps(asdict(result), ensure_ascii=False) for result in results)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def print_table(paths: Sequence[Path]) -> None:
    """One line a fault, with a column for each file of results, and the share caught."""
    runs = [read_results(path) for path in paths]
    of_runs = [{result.fault: result for result in results} for _, results in runs]
    names = list(dict.fromkeys(name for results in of_runs for name in results))
    for path, (run, _) in zip(paths, runs, strict=True):
        print(f"{path.name}: {', '.join(f'{key} {value}' for key, value in run.items())}")
    print("\n| area | fault |" + "".join(f" {path.stem} |" for path in paths))
    print("|---|---|" + "---|" * len(paths))
    for name in names:
        area = next(results[name].area for results in of_runs if name in results)
        print(f"| {area} | {name} |" + "".join(f" {_cell(results.get(name))} |" for results in of_runs))
    for path, results in zip(paths, of_runs, strict=True):
        caught = sum(result.result == "caught" for result in results.values())
        print(f"\n{path.stem}: {caught} of {len(results)} caught ({100 * caught / max(len(results), 1):.0f} %)")


def _cell(result: Result | None) -> str:
    if result is None:
        return "not run"
    if result.result != "caught":
        return f"**{result.result}** ({result.seconds:.0f} s)"
    test = re.sub(
        r"\[.{20,}\]$", "[…]", result.test.partition("::")[0].rpartition("/")[2] + result.test[result.test.find("::") :]
    )
    return f"{test} ({result.seconds:.0f} s)"


def check_faults(faults: Sequence[Fault], tree: Path) -> int:
    """Print where each fault applies; the number of those that do not."""
    wrong = 0
    for fault in faults:
        try:
            change = find_change(fault, tree)
            print(f"{fault.area:<10} {fault.name}: {change.path.relative_to(tree)}, {change.where}")
        except (ValueError, SyntaxError) as error:
            wrong += 1
            print(f"error: {error}")
    return wrong


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout to test (default: this one)")
    parser.add_argument("--out", type=Path, help="the file of results, JSON Lines, to begin or to go on with")
    parser.add_argument("--only", default="", help="only faults whose area or name contains this")
    parser.add_argument("--limit", type=int, default=90, help="seconds of processor time for a fault (default: 90)")
    parser.add_argument("--marks", default="", help='which tests run, as for pytest -m: "not sweep" is `make test`')
    parser.add_argument("--check", action="store_true", help="only say where each fault applies")
    parser.add_argument("--table", type=Path, nargs="+", metavar="FILE", help="print results side by side")
    arguments = parser.parse_args()
    faults = [fault for fault in read_faults(LIST) if arguments.only in f"{fault.area}: {fault.name}"]
    if arguments.table:
        print_table(arguments.table)
    elif arguments.check:
        sys.exit(1 if check_faults(faults, arguments.tree.resolve()) else 0)
    elif arguments.out is None:
        parser.error("give --out FILE, --check or --table FILE")
    else:
        run_faults(faults, arguments.tree.resolve(), arguments.out, arguments.limit, arguments.marks)


if __name__ == "__main__":
    main()
