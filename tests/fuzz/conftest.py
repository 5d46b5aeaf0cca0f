"""``--fuzz-inputs`` says how many inputs a plain reader gets; a table at the end says what became of them."""

from __future__ import annotations

from collections import Counter

import pytest

FEW = 40
TALLY = pytest.StashKey[dict[str, Counter[str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-inputs", type=int, default=FEW, help="damaged inputs for each plain reader")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = {}


@pytest.fixture
def inputs(request: pytest.FixtureRequest) -> int:
    """The suite runs few; pytest does not know the option where this folder was not named."""
    return request.config.getoption("--fuzz-inputs", FEW)


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> dict[str, Counter[str]]:
    return request.config.stash.setdefault(TALLY, {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash.get(TALLY, {})
    if not found or config.getoption("--fuzz-inputs", FEW) == FEW:
        return
    line = terminalreporter.write_line
    line(f"{'reader':<44}{'inputs':>9}{'results':>9}{'UserErrors':>12}")
    for name, seen in found.items():
        line(f"{name:<44}{seen.total():>9,}{seen['result']:>9,}{seen['UserError']:>12,}")
    whole = sum(found.values(), Counter[str]())
    line(f"{'all':<44}{whole.total():>9,}{whole['result']:>9,}{whole['UserError']:>12,}")
