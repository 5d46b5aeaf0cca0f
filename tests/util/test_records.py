"""Mappings become records strictly, and records become mappings again."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from retrograd.types import UserError
from retrograd.util.guards import finite_number, suggest_name
from retrograd.util.records import read_record, read_toml, read_value, record_mapping


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    kind: Literal["mean", "cls"] = "mean"

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise UserError(f"rate is {self.rate}; expected a positive number")


@dataclass(frozen=True)
class Outer:
    name: str
    count: int
    inner: Inner = field(default_factory=Inner)
    on: bool = True
    modules: tuple[str, ...] = ()
    derived: int = field(init=False, default=3)


NEEDED = {"name": "x", "count": 1}


def read(**values):
    return read_record(Outer, NEEDED | values, "run.toml")


def test_fields_left_out_keep_their_defaults():
    assert read() == Outer("x", 1, Inner(), True, ())


def test_every_kind_of_leaf():
    found = read(inner={"rate": 2, "kind": "cls"}, on=False, modules=["q", "v"])
    assert found == Outer("x", 1, Inner(2.0, "cls"), False, ("q", "v"))
    assert type(found.inner.rate) is float


@pytest.mark.parametrize(
    "record", [Outer("x", 1), Outer("é", -2, Inner(math.pi, "cls"), False, ("q", "v")), Inner(1e-300)]
)
def test_round_trip(record):
    assert read_record(type(record), record_mapping(record), "here") == record


def test_what_is_derived_is_neither_written_nor_read():
    assert "derived" not in record_mapping(Outer("x", 1))
    with pytest.raises(UserError, match="unknown key 'derived'"):
        read(derived=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cuont": 2}, "run.toml: unknown key 'cuont'; did you mean 'count'"),
        ({"inner": {"knd": "cls"}}, "run.toml: inner: unknown key 'knd'; did you mean 'kind'"),
        ({"zzzz": 2}, "unknown key 'zzzz'; known: 'name', 'count', 'inner', 'on', 'modules'"),
        ({"count": 1.0}, "run.toml: count is 1.0; expected a whole number"),
        ({"count": True}, "count is True; expected a whole number"),
        ({"count": "1"}, "count is '1'; expected a whole number"),
        ({"name": 1}, "name is 1; expected text in quotes"),
        ({"name": None}, "name is None; expected text in quotes"),
        ({"on": 1}, "on is 1; expected true or false"),
        ({"inner": 1}, "inner is 1; expected a table of settings"),
        ({"inner": {"rate": "fast"}}, "inner: rate is 'fast'; expected a number"),
        ({"inner": {"rate": True}}, "inner: rate is True; expected a number"),
        ({"inner": {"kind": "max"}}, "inner: kind is 'max'; expected one of 'mean', 'cls'"),
        ({"inner": {"kind": ["mean"]}}, "expected one of 'mean', 'cls'"),
        ({"modules": "q"}, "modules is 'q'; expected a list of strings"),
        ({"modules": [1]}, r"modules is \[1\]; expected a list of strings"),
        ({"inner": {"rate": -1}}, r"run.toml: inner: rate is -1.0; expected a positive number"),
    ],
)
def test_errors_say_where_what_and_what_instead(values, message):
    with pytest.raises(UserError, match=message):
        read(**values)


def test_missing_keys_are_those_without_default():
    with pytest.raises(UserError, match=r"^run.toml: needs 'name', 'count'$"):
        read_record(Outer, {"on": False}, "run.toml")


def test_an_error_of_the_record_itself_is_not_mistaken_for_a_missing_key():
    @dataclass(frozen=True)
    class Broken:
        size: int = 1

        def __post_init__(self) -> None:
            raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        read_record(Broken, {}, "run.toml")


def test_a_single_value():
    assert read_value(float, 3, "--set x") == 3.0
    with pytest.raises(UserError, match="--set x is 'a'; expected a number"):
        read_value(float, "a", "--set x")


@pytest.mark.parametrize("value", [3, Outer])
def test_only_records_become_mappings(value):
    with pytest.raises(TypeError, match="is not a record"):
        record_mapping(value)


class TestAdvice:
    def test_the_nearest_name(self):
        assert suggest_name("semeval_jiont", ["quickstart", "semeval-joint"]) == "did you mean 'semeval-joint'?"

    def test_case_does_not_matter(self):
        assert suggest_name("COUNT", ["Count", "other"]) == "did you mean 'Count'?"

    def test_where_none_is_near_the_known_ones(self):
        assert suggest_name("xyz", ["alpha", "beta"]) == "known: 'alpha', 'beta'."

    def test_at_most_twelve(self):
        names = [f"name-{letter}" for letter in "abcdefghijklmn"]
        assert suggest_name("?", names).count("name-") == 12
        assert suggest_name("?", names).endswith("'name-l', ….")


@pytest.mark.parametrize("rate", [10**400, -(2**63), pytest.param(1 << 40_000, id="long"), math.inf, math.nan])
def test_a_number_that_no_computation_could_use(rate: float) -> None:
    with pytest.raises(UserError, match=r"rate is .*; expected a number"):
        read(inner={"rate": rate})


def test_a_whole_number_of_more_than_64_bits() -> None:
    assert read(count=2**63 - 1).count == 2**63 - 1
    with pytest.raises(UserError, match="count is 9223372036854775808; expected a number of at most 64 bits"):
        read(count=2**63)


def test_a_value_too_long_to_be_shown_is_shortened() -> None:
    with pytest.raises(UserError, match=r"^run.toml: count is .{200}…; expected a whole number$"):
        read(count="x" * 70_000)


def test_what_counts_as_a_finite_number() -> None:
    found = [finite_number(value) for value in (1, 1.5, True, "1", None, math.nan, math.inf, 10**400)]
    assert found == [1.0, 1.5, None, None, None, None, None, None]


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, f"a = {'9' * 5000}", "a = 1979-13-40", "a = 'x"])
def test_what_is_no_toml_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(UserError, match=r"a\.toml: .*TOML"):
        read_toml(tmp_path / "a.toml")
