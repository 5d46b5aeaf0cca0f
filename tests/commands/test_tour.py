"""The tour, on tiny models: real training, shown in lines and live."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from retrograd.commands.tour.lesson import run_tour
from retrograd.experiments.open import open_run
from retrograd.types import UserError


@pytest.fixture
def small(tiny_encoder: Path, tiny_seq2seq: Path) -> list[str]:
    models = [f"retriever.model={tiny_encoder}", f"generator.model={tiny_seq2seq}", "training.precision=fp32"]
    return [
        *models,
        "data.train_count=48",
        "data.dev_from_train=24",
        "warm_start.batch_size=16",
        "training.log_every=2",
    ]


def run(folder: Path, seed: int, changes: list[str], terminal: bool = False) -> tuple[Path, str]:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120, soft_wrap=True, color_system=None)
    return run_tour(folder, seed, changes, console), text.getvalue()


def test_it_shows_neighbours_before_during_and_after_and_leaves_a_run_that_searches(
    small: list[str], tmp_path: Path
) -> None:
    folder, text = run(tmp_path / "tour [bold] [/]", 0, small)  # no markup in a name is followed
    queries = re.findall(r"^  (\S.*)  \((.*)\)$", text, flags=re.MULTILINE)
    assert len(queries) == 10
    assert queries[:5] == queries[5:]
    assert len({relation for _, relation in queries[:5]}) == 5
    assert len(re.findall(r"^    [+-] \[", text, flags=re.MULTILINE)) == 30
    assert [int(step) for step in re.findall(r"^step +(\d+) of 6: right for", text, flags=re.MULTILINE)] == [2, 4, 6]
    assert f"retrograd search {folder} " in text
    assert len(open_run(folder).model.search("The <e1>kettle</e1> was full of <e2>tea</e2>.", k=3)) == 3


def test_what_it_says_at_the_end_is_what_it_has_shown(small: list[str], tmp_path: Path) -> None:
    _, text = run(tmp_path / "tour", 0, small)
    before, after = re.search(r"from\s(\d+)% to (\d+)%", text).groups()  # pyright: ignore
    assert f"Before training the nearest neighbour is right for {before}% of 24 new sentences." in text
    assert (before, after) != ("0", "0")


def test_the_seed_changes_it_and_an_older_run_stays(small: list[str], tmp_path: Path) -> None:
    (first, one), (second, other), (_, again) = (run(tmp_path / "tour", seed, small) for seed in (0, 1, 0))
    assert (first.name, second.name) == ("tour", "tour-2")
    shown = [text.split("\nIn ")[0] for text in (one, other, again)]
    assert shown[0] == shown[2] != shown[1]


def test_a_terminal_is_redrawn_in_place(small: list[str], tmp_path: Path) -> None:
    _, text = run(tmp_path / "tour", 0, small, terminal=True)
    frames = text.split("nearest neighbour right: ")[1:]
    assert len(frames) >= 5  # before, three steps, after; what stays at the end is drawn once more
    assert all(frame.count("before  ") == 5 and frame.count("now  ") == 5 for frame in frames)
    assert [step for step in (2, 4, 6) if f"step {step} of 6" in text] == [2, 4, 6]
    assert "after training" in text


def test_it_refuses_to_show_nothing(small: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="set it to 200"):
        run(tmp_path / "tour", 0, [*small, "data.dev_from_train=0"])
    assert not (tmp_path / "tour").exists()
