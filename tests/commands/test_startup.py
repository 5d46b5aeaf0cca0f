"""Settings are read, checked and printed without what computes: a mistake is reported before torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from retrograd.__main__ import main

HEAVY = ("torch", "transformers", "nltk", "pyarrow", "peft", "matplotlib", "scipy", "pandas")
PROGRAM = """
import sys
from retrograd.__main__ import main

sys.argv = ["retrograd", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    status = end.code or 0
else:
    status = 0
loaded = [name for name in HEAVY if name in sys.modules]
assert not loaded, loaded
sys.exit(status)
""".replace("HEAVY", repr(HEAVY))

MISTAKES = {
    ("train", "semeval-joint", "--set", "training.epoch=3"): "did you mean 'epochs'",
    ("train", "semeval-joint", "--set", "objective.kind=Jsa"): "no objective 'Jsa'",
    ("train", "semeval-joint", "--set", "training.epochs=x"): "epochs is 'x'; expected a whole number",
    ("train", "semeval-joint", "--set", "retriever.search=oracel"): "expected one of 'nearest'",
    ("train", "semeval-joint", "--set", "objective.normaliser=half"): "objective",
    ("train", "semeval-joint", "--set", "data.kind=question"): "no kind of data 'question'",
    ("train", "semeval-joint", "--set", "training.refresh=drift"): "needs refresh_drift",
    ("train", "semeval-join"): "did you mean 'semeval-joint'",
    ("train", "wrong.toml"): "unknown key 'epoch'",
    ("train",): "name a recipe",
    ("show", "semeval-join"): "did you mean 'semeval-joint'",
    ("plan", "semeval-joint", "--set", "training.epoch=3"): "did you mean 'epochs'",
    ("validate", "semeval-joint", "--set", "training.epoch=3"): "did you mean 'epochs'",
    ("lab", "semeval-joint", "--set", "training.epoch=3"): "did you mean 'epochs'",
    ("demo", "--set", "training.epoch=3"): "did you mean 'epochs'",
}
ANSWERS = {
    ("recipes",): "semeval-joint",
    ("show", "semeval-joint"): 'kind = "TopKMarginal"',
    ("show", "etrag-semeval-10"): "# published:",
    ("--help",): "synthesise",
    ("train", "--help"): "Example:",
    ("--version",): "retrograd",
}


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("words", MISTAKES, ids=" ".join)
def test_a_mistake_is_reported_before_anything_heavy_is_imported(words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text("[training]\nepoch = 3\n", encoding="utf-8")
    done = run(tmp_path, *words)
    assert done.returncode == 2, done.stderr
    assert MISTAKES[words] in done.stderr
    assert done.stderr.startswith("retrograd: ")
    assert done.stdout == ""
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "words", [("validate", "a.jsonl", "--kind", "question"), ("plan", "semeval-joint", "--hardware", "h10")]
)
def test_a_choice_that_there_is_not_is_refused_before_anything_heavy_is_imported(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    done = run(tmp_path, *words)
    assert done.returncode == 2, done.stderr
    assert f"'{words[-1]}' is not one of" in done.stderr


@pytest.mark.parametrize("words", ANSWERS, ids=" ".join)
def test_what_only_prints_settings_imports_nothing_heavy(words: tuple[str, ...], tmp_path: Path) -> None:
    done = run(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert ANSWERS[words] in done.stdout


def test_the_package_and_its_settings_import_nothing_heavy() -> None:
    code = (
        "import sys, retrograd as rg\n"
        "experiment = rg.recipe('semeval-jsa').replace(training={'epochs': 2}, objective=rg.TopKMarginal())\n"
        "experiment.to_toml(), rg.TrainingConfig, rg.UserError, rg.IndexSettings(), rg.RelaxedTopK()\n"
        f"loaded = [name for name in {(*HEAVY, 'numpy', 'jaxtyping')!r} if name in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("told", "expected"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
    ids=["nothing", "a count", "a policy"],
)
def test_waiting_threads_leave_the_processor_to_other_processes(
    told: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes of two threads on two processors held one another up; torch reads this when it is imported."""
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["retrograd", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert os.environ.get("GOMP_SPINCOUNT") == expected
