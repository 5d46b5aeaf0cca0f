"""README, CONTRIBUTING, PAPERS and docs name modules, files, commands, options and settings that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path

import pytest
import typer.main
from typer.core import TyperGroup
from typer.testing import CliRunner

from retrograd.__main__ import app
from retrograd.experiments.data.kinds import KINDS
from retrograd.experiments.experiment import Experiment
from retrograd.objectives import OBJECTIVES
from retrograd.recipes import RECIPES
from retrograd.types import UserError

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "retrograd"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "PAPERS.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
EXAMPLES = {"hard_em.py", "card_data.py", "sorting.py", "first.py", "count.py", "question_blocks.py"}
"""Files that CONTRIBUTING.md asks the reader to make."""

COMMANDS = typer.main.get_command(app)
SECTIONS = {one.name for one in fields(Experiment)} - {"name", "seed"}

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def _settings(section: str) -> set[str]:
    """Return the names of the settings of a section; of data and of the objective those of every kind."""
    if section in ("data", "objective"):
        records = KINDS if section == "data" else OBJECTIVES
        return {"kind", *(one.name for record in records for one in fields(record))}  # pyright: ignore[reportArgumentType]
    return set(vars(getattr(Experiment(), section)))


@pages
def test_modules_and_what_they_define_exist(page: Path) -> None:
    wrong = []
    for dotted in re.findall(r"\bretrograd(?:\.\w+)+", page.read_text(encoding="utf-8")):
        parts = dotted.split(".")
        module = 1
        while module < len(parts) and find_spec(".".join(parts[: module + 1])) is not None:
            module += 1
            if not hasattr(_imported(".".join(parts[:module])), "__path__"):
                break
        if f"{parts[-1]}.py" in EXAMPLES:
            continue
        value: object = _imported(".".join(parts[:module]))
        for name in parts[module:]:
            if not hasattr(value, name):
                wrong.append(dotted)
                break
            value = getattr(value, name)
    assert not wrong


def _imported(name: str) -> object:
    """Import a module; one of a framework that is not installed here refuses, and stands for itself."""
    try:
        return import_module(name)
    except UserError:
        return name


@pages
def test_files_of_the_project_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w/.…-])((?:[\w-]+/)*\w+\.py)\b", text))
    named |= set(re.findall(r"\b((?:docs|examples|benchmarks|src|tests)/[\w./-]*\w)", text))
    wrong = [one for one in named if not (ROOT / one).exists() and not any((ROOT / "src").rglob(one))]
    assert not [one for one in wrong if Path(one).name not in EXAMPLES]


def test_functions_stand_in_the_files_that_papers_names() -> None:
    wrong = []
    for line in (ROOT / "PAPERS.md").read_text(encoding="utf-8").splitlines():
        for file, name in re.findall(r"`([\w/]+\.py)` `(\w+)", line):
            if not re.search(rf"^ *(?:class|def) {name}\b|^{name}\b", (SOURCE / file).read_text("utf-8"), re.MULTILINE):
                wrong.append(f"{file} {name}")
    assert not wrong


@pages
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        linked = page.parent / file if file else page
        if not linked.exists() or (anchor and anchor not in _anchors(linked)):
            wrong.append(target)
    assert not wrong


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pages
def test_commands_and_their_options_exist(page: Path) -> None:
    wrong = []
    for line in _command_lines(page.read_text(encoding="utf-8")):
        words = line.split()
        command = COMMANDS
        while words and isinstance(command, TyperGroup) and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        if words and isinstance(command, TyperGroup) and not words[0].startswith("-"):
            wrong.append(line)
            continue
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        unknown = [word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word) and word not in known]
        wrong += [f"{line}: {word}" for word in unknown]
    assert not wrong


def _command_lines(text: str) -> Iterator[str]:
    """Yield what follows ``retrograd`` at the beginning of a line of code, or of code within a sentence."""
    text = text.replace("\\\n", " ")
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            found = re.match(r"(?:\.venv/bin/)?(?:torchrun .*? -m )?retrograd (.+)", line)
            if found:
                yield re.sub(r"'[^']*'|\"[^\"]*\"| #.*| {3,}.*", "", found[1])
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"`retrograd ([^`]+)`", prose)


@pages
def test_settings_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    wrong = [
        f"{section}.{name}"
        for section, name in re.findall(rf"(?<![\w./])({'|'.join(SECTIONS)})\.([a-z_0-9]+)\b(?![/(])", text)
        if name not in _settings(section) | {"py", "json", "jsonl", "toml", "md", "txt"}
    ]
    sections = SECTIONS | {"section"}  # as in `--set section.setting=value`
    wrong += [f"{section}.*" for section in re.findall(r"--set (\w+)\.", text) if section not in sections]
    assert not wrong


def test_the_page_of_settings_is_what_its_script_writes() -> None:
    written = run_path(str(ROOT / "docs" / "settings.py"))["page"]()
    committed = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert committed == written, "settings or their docstrings have changed; run: python docs/settings.py"


def test_the_questions_of_the_readme_are_valid_as_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    names = ("passages.jsonl", "train.jsonl", "test.jsonl", "questions.toml")
    for name in names:
        block = re.search(rf"^`{name}`.*?\n```\w+\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
        assert block, name
        (tmp_path / name).write_text(block[1], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["validate", "questions.toml"])
    assert done.exit_code == 0, done.stdout
    assert "nothing found" in done.stdout
    assert all(name in (ROOT / "docs" / "questions.md").read_text(encoding="utf-8") for name in names)


@pages
def test_recipes_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"retrograd (?:train|show|plan|validate) ([a-z][\w-]*)(?= |`|$)", text)
    named += re.findall(r'rg\.recipe\("([\w-]+)"\)', text)
    assert [one for one in named if one not in RECIPES] == []


@pages
def test_targets_of_make_exist(page: Path) -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = re.findall(r"(?:`|^)make (\w+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert [one for one in named if one not in targets] == []


def test_objectives_take_the_settings_that_papers_names() -> None:
    text = (ROOT / "PAPERS.md").read_text(encoding="utf-8")
    calls = re.findall(rf"`((?:{'|'.join(one.__name__ for one in OBJECTIVES)})\([^`…]+\))`", text)
    assert len(calls) > 5
    for call in calls:
        eval(call, {one.__name__: one for one in OBJECTIVES})  # raises for what an objective does not have
