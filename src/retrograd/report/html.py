"""HTML pages in one file each: styles, scripts and data are inside, and nothing is asked of any other address.

Text from data is escaped: in the page by Jinja, in embedded JSON by `embed_json`. A page's policy
(Content-Security-Policy) permits its own scripts alone, by their hashes, and no request.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from retrograd.metrics.significance import BootstrapInterval, ScoreInterval
from retrograd.util.files import atomic_file

__all__ = ["MOST_BYTES", "embed_json", "fit_page", "render", "write_page"]

MOST_BYTES = 1_000_000
"""A page about runs is smaller than this."""


def render(
    template: str, context: Mapping[str, object], scripts: Sequence[str], styles: Sequence[str], refresh: int = 0
) -> str:
    """Return the page of a template with the named scripts and styles inlined.

    With ``refresh`` it loads itself again every so many seconds.
    """
    sources = {name: _read(name).strip() for name in scripts}
    hashes = " ".join(f"'sha256-{_hash(f'{chr(10)}{source}{chr(10)}')}'" for source in sources.values())
    policy = f"default-src 'none'; script-src {hashes or chr(39) + 'none' + chr(39)}; style-src 'unsafe-inline'"
    return (
        _environment()
        .get_template(template)
        .render(
            **context,
            policy=f"{policy}; img-src data:; base-uri 'none'; form-action 'none'",
            scripts=[Markup(source) for source in sources.values()],
            style=Markup("\n".join(_read(name) for name in styles)),
            refresh=refresh,
        )
    )


def fit_page(make: Callable[[int], str], examples: int) -> str:
    """Return a page with at most so many ``examples``, and with fewer where it would be larger than `MOST_BYTES`."""
    page = make(examples)
    while len(_encode(page)) >= MOST_BYTES and examples > 0:
        examples //= 2
        page = make(examples)
    return page


def write_page(page: str, path: Path) -> None:
    """Atomically write a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.write_bytes(_encode(page))


def embed_json(value: object) -> Markup:
    """Return JSON that can stand in a script element: no character in it can end the element or begin a comment.

    A number that is not finite, for which JSON has no word, becomes null.
    """
    text = json.dumps(_plain(value), allow_nan=False, separators=(",", ":"))  # beyond ASCII everything is escaped
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _plain(value: object) -> object:
    """Return a value as JSON has it: dataclasses as objects, null for numbers that are not finite."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    raise TypeError(f"{type(value).__name__} is no JSON")


def _encode(page: str) -> bytes:
    return page.encode("utf-8", errors="replace")  # half of a surrogate pair may come from a tokenizer


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _read(name: str) -> str:
    return (files("retrograd") / "resources" / "web" / name).read_text(encoding="utf-8")


def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_read), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "number": format_number,
        "interval": format_interval,
        "setting": format_setting,
        "embed": embed_json,
    }
    return environment


def format_number(value: int | float | None, digits: int = 1, sign: str = "") -> str:
    """Return a number with so many digits after the point; a dash for None."""
    return "–" if value is None else f"{value:{sign},.{digits}f}"


def format_interval(interval: ScoreInterval | BootstrapInterval | None, sign: str = "") -> str:
    """Return an interval as ``[low, high]``; "" for None."""
    return "" if interval is None else f"[{interval.low:{sign}.1f}, {interval.high:{sign}.1f}]"


def format_setting(value: object) -> str:
    """Return a setting's value as experiments write it."""
    return "(not there)" if value is None else json.dumps(value, ensure_ascii=False)
