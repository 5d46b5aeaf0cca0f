"""Options that all commands share: -h, --json, --quiet and --verbose before and after the command, completion."""

from __future__ import annotations

import inspect
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import get_args

import pytest
import typer
from tests.commands.test_cli import RECORDS, command, data_file, experiment_file
from typer.models import OptionInfo
from typer.testing import CliRunner

from retrograd.__main__ import app
from retrograd.cli import COMMANDS
from retrograd.commands import FileKind
from retrograd.commands.plan import HardwareName
from retrograd.commands.recipes import TaskName
from retrograd.experiments.data.kinds import file_kinds, kind_names
from retrograd.studies.planning.hardware import HARDWARE
from retrograd.types import UserError
from retrograd.util import progress

WITHOUT_RECORD = ("demo", "serve", "tour")
"""Commands that print a story, or run until they are stopped, and have no result."""


def every_command() -> dict[str, Callable[..., object]]:
    """All functions of the command line by the words that call them."""
    found: dict[str, Callable[..., object]] = {}
    for one in COMMANDS:
        if isinstance(one, typer.Typer):
            found |= {
                f"{one.info.name} {inner.callback.__name__}": inner.callback
                for inner in one.registered_commands
                if inner.callback is not None
            }
        else:
            found[one.__name__] = one
    return found


EVERY = every_command()


@pytest.fixture(autouse=True)
def _progress_as_before() -> Iterator[None]:
    yield
    progress.show_log(False)
    progress.show_progress()


@pytest.mark.parametrize("name", EVERY)
def test_results_can_be_had_as_json(name: str) -> None:
    options = [
        option
        for parameter in inspect.signature(EVERY[name], eval_str=True).parameters.values()
        for annotation in get_args(parameter.annotation)
        if isinstance(annotation, OptionInfo)
        for option in (annotation.default, *(annotation.param_decls or ()))
    ]
    assert ("--json" in options) == (name not in WITHOUT_RECORD)


@pytest.mark.parametrize("name", EVERY)
def test_every_command_has_short_help_and_the_options_of_output(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command(*name.split(), "-h")
    shown = capsys.readouterr().out
    for option in ("--help", "--quiet", "-q", "--verbose", "-v"):
        assert option in shown


@pytest.mark.parametrize("words", [("-q", "recipes"), ("recipes", "-q"), ("recipes", "--quiet")])
def test_quiet_is_taken_before_and_after_the_command(words: tuple[str, ...], capsys: pytest.CaptureFixture) -> None:
    command(*words)
    progress.say("embedding")
    printed = capsys.readouterr()
    assert "semeval-joint" in printed.out
    assert printed.err == ""


@pytest.mark.parametrize("words", [("-v", "recipes"), ("recipes", "-v")])
def test_verbose_shows_the_log_once(words: tuple[str, ...], capsys: pytest.CaptureFixture) -> None:
    command(*words)
    logging.getLogger("retrograd.test").debug("a detail")
    progress.say("embedding")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["DEBUG retrograd.test: a detail", "embedding"]
    command("recipes")
    logging.getLogger("retrograd.test").debug("another detail")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "words",
    [
        ("-q", "-v", "recipes"),
        ("recipes", "-q", "-v"),
        ("-q", "recipes", "-v"),
        ("-v", "recipes", "-q"),
        ("-q", "index", "build", "x", "--out", "y", "-v"),
    ],
    ids=" ".join,
)
def test_quiet_and_verbose_exclude_each_other_wherever_they_stand(words: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="leave one of them out"):
        command(*words)


def test_the_tasks_of_recipes_are_the_kinds_of_data() -> None:
    assert set(get_args(TaskName)) == set(kind_names())


def test_the_choices_of_validate_and_plan_are_all_that_there_are() -> None:
    assert get_args(FileKind) == file_kinds()
    assert get_args(HardwareName) == tuple(HARDWARE)


@pytest.mark.parametrize(
    ("words", "choices"),
    [(("validate", "x.jsonl", "--kind", "question"), FileKind), (("plan", "x", "--hardware", "h10"), HardwareName)],
)
def test_choices_stand_in_the_help_and_no_other_is_taken(
    words: tuple[str, ...], choices: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    command(words[0], "--help")
    shown = capsys.readouterr().out
    refused = CliRunner().invoke(app, [*words])
    assert refused.exit_code == 2
    assert f"'{words[-1]}' is not one of" in refused.output
    assert [name for name in get_args(choices) if name not in shown] == []


def recipes(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict]:
    command("recipes", "--json", *words)
    return json.loads(capsys.readouterr().out)["recipes"]


def test_recipes_can_be_chosen_by_task_and_by_what_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    every = recipes(capsys)
    questions = recipes(capsys, "--task", "questions")
    assert questions == [one for one in every if one["task"] == "questions"] != []
    here = recipes(capsys, "--here")
    assert here == [one for one in every if not one["missing_models"]]
    assert [one["name"] for one in every if "mistral" in one["summary"].lower() and not one["missing_models"]] == []


def test_a_model_in_the_cache_of_the_hub_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    missing = {name for one in recipes(capsys) for name in one["missing_models"] if not name.startswith("builtin:")}
    model = min(missing)
    folder = tmp_path / f"models--{model.replace('/', '--')}"
    snapshot = folder / "snapshots" / "0123456"
    for path, text in ((folder / "refs" / "main", "0123456"), (snapshot / "config.json", "{}")):
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
    assert any(model in one["missing_models"] for one in recipes(capsys))  # a configuration without weights
    (snapshot / "model.safetensors").write_bytes(b"")
    now = recipes(capsys)
    assert not any(model in one["missing_models"] for one in now)
    assert {name for one in now for name in one["missing_models"]} >= missing - {model}


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("train semeval-j", {"semeval-joint", "semeval-jsa"}),
        ("train semeval-jsa --set objective.kept", {"objective.kept_mass="}),
        ("train --set training.ep", {"training.epochs="}),
        ("index publish x --kind f", {"faiss"}),
    ],
)
def test_the_shell_completes_recipes_settings_and_choices(words: str, completed: set[str]) -> None:
    code = (
        "import sys\nsys.argv = ['retrograd']\nfrom retrograd.__main__ import app\n"
        "try:\n    app(prog_name='retrograd')\nfinally:\n    assert 'torch' not in sys.modules\n"
    )
    typed = f"retrograd {words}"
    environment = {"_RETROGRAD_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert set(done.stdout.split()) == completed, done.stderr


@pytest.mark.slow
def test_every_command_prints_one_json_object_alone(
    tiny_encoder: Path,
    tiny_seq2seq: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """One after the other on a tiny run; those that need a language model or a server are tried by their parameters."""
    monkeypatch.chdir(tmp_path)
    file = experiment_file(tmp_path, data_file(tmp_path), tiny_encoder, tiny_seq2seq)
    query = "the <e1>cup</e1> holds <e2>tea</e2> ."
    pairs = [{key: value for key, value in record.items() if key != "relation"} for record in RECORDS[:2]]
    (tmp_path / "new").mkdir()
    new = data_file(tmp_path / "new", pairs)
    (tmp_path / "ids.txt").write_text("1\n", encoding="utf-8")
    cases: dict[str, tuple[object, ...]] = {
        "recipes": (),
        "show": (file,),
        "convert": (data_file(tmp_path), "own.jsonl"),
        "validate": (file,),
        "plan": (file, "--no-probe"),
        "train": (file, "--out", "run"),
        "evaluate": ("run",),
        "predict": ("run", new),
        "search": ("run", query, "-k", 2),
        "compare": ("run", "run", "--resamples", 100),
        "report": ("run", "--resamples", 100),
        "analyse": ("run", "-k", 2),
        "extract": ("run", new, "--out", "triples.jsonl"),
        "index build": ("run", "--out", "index"),
        "index check": ("index",),
        "index info": ("index",),
        "index remove": ("index", "ids.txt"),
        "index prune": ("--to", "100GB"),
        "lab": ("run", "--queries", 4, "--redraws", 2, "--objectives", "RLOO"),
        "export": ("run", "--to", "sentence-transformers", "--out", "encoder"),
        "doctor": (),
    }
    untried = {"demo", "serve", "tour", "synthesise", "push", "index publish", "index add", "index update"}
    assert {*cases} | untried == {*EVERY}
    for name, words in cases.items():
        capsys.readouterr()
        with suppress(typer.Exit):  # with a status that says something about the result
            command(*name.split(), *map(str, words), "--json")
        printed = capsys.readouterr().out
        assert isinstance(json.loads(printed), dict), (name, printed)
