"""Draws of every kind of data are nested, come from one order, and are refused where they ask for too much."""

from __future__ import annotations

import random

import pytest

from retrograd.experiments.data.draws import Draws, draw_seed, require_draws, shuffle
from retrograd.types import UserError

WHOLE = list(range(20))


def test_a_smaller_draw_is_the_beginning_of_a_larger_one() -> None:
    draws = Draws(3, "examples", shuffle)
    order = random.Random(3).sample(WHOLE, len(WHOLE))
    assert draws.take(WHOLE, "train", "t.jsonl", 7) == order[:7]
    assert draws.take(WHOLE, "train", "t.jsonl", 0, share=0.25) == order[:5]
    assert draws.take(WHOLE, "train", "t.jsonl", 0, share=0.001) == order[:1]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_examples_stay_in_their_order(share: float) -> None:
    assert Draws(3, "examples", shuffle).take(WHOLE, "train", "t.jsonl", 0, share) == WHOLE


def test_what_is_held_out_and_the_rest_are_the_whole() -> None:
    rest, held = Draws(3, "examples", shuffle, held_out=4).hold_out(WHOLE, "t.jsonl")
    assert (len(rest), len(held)) == (16, 4)
    assert sorted(rest + held) == WHOLE
    assert Draws(3, "examples", shuffle).hold_out(WHOLE, "t.jsonl") == (WHOLE, [])


def test_too_much_is_refused_with_the_file() -> None:
    draws = Draws(3, "questions", shuffle, held_out=20)
    with pytest.raises(UserError, match=r"data.dev_from_train is 20, but t.jsonl holds 20 questions; leave some"):
        draws.hold_out(WHOLE, "t.jsonl")
    with pytest.raises(UserError, match=r"data.train_count is 21, .* 20 questions beside .*dev_from_train"):
        draws.take(WHOLE, "train", "t.jsonl", 21)
    with pytest.raises(UserError, match=r"data.test_count is 21, but data.test holds 20 questions; set it to 0"):
        draws.take(WHOLE, "test", "", 21)


def test_settings_of_draws_are_checked() -> None:
    with pytest.raises(UserError, match=r"data.dev_count is -1; expected 0 or more"):
        require_draws({"train_count": 0, "dev_count": -1}, 0)
    with pytest.raises(UserError, match=r"data.seed is -2; expected 0 or more, or -1"):
        require_draws({}, -2)
    assert (draw_seed(-1, 5), draw_seed(0, 5)) == (5, 0)
