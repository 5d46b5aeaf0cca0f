"""A number below its minimum is refused with its name and value."""

import re

import pytest

from retrograd.types import UserError
from retrograd.util.guards import require_at_least


def test_what_is_large_enough_passes() -> None:
    require_at_least(0, {"epochs": 0, "clip": 0.5})


@pytest.mark.parametrize(("value", "shown"), [(-1, "-1"), (-0.5, "-0.5"), (float("nan"), "nan")])
def test_the_first_that_is_not_is_named_with_its_value(value: float, shown: str) -> None:
    message = re.escape(f"clip is {shown}; it must be at least 0")
    with pytest.raises(UserError, match=f"^{message}$"):
        require_at_least(0, {"epochs": 0, "clip": value, "micro_batch": -3})
