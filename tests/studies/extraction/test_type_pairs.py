"""Pairs of types that training shows, and those that it does not."""

from __future__ import annotations

import pytest

from retrograd.studies.extraction.type_pairs import TypePairs

SHOWN = frozenset({("PERSON", "CITY"), ("PERSON", ""), ("", "DATE")})


@pytest.mark.parametrize(
    ("head", "tail", "in_order", "in_any_order"),
    [
        ("PERSON", "CITY", True, True),
        ("CITY", "PERSON", False, True),
        ("CITY", "SHIP", False, False),
        ("PERSON", "SHIP", True, True),  # an unknown type of training fits every type
        ("SHIP", "DATE", True, True),
        ("DATE", "SHIP", False, True),
        ("", "CITY", True, True),  # and so does one of the recogniser
        ("CITY", "", True, True),  # both unknown, on one side each
        ("", "", True, True),
    ],
)
def test_types_fit_in_order_unless_labels_say_the_direction(
    head: str, tail: str, in_order: bool, in_any_order: bool
) -> None:
    assert TypePairs(SHOWN).permits(head, tail) == in_order
    assert TypePairs(SHOWN, in_any_order=True).permits(head, tail) == in_any_order


def test_training_without_types_permits_all() -> None:
    assert TypePairs(frozenset()).permits("ANY", "OTHER")
    assert TypePairs(SHOWN).types == ("CITY", "DATE", "PERSON")
