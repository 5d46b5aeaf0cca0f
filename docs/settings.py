"""Write docs/settings.md, the page of all settings, from their classes and docstrings: ``python docs/settings.py``.

A setting is explained by the sentences of its class's docstring that begin with its name, or else by those that name
it; a sentence that names no setting belongs to the one before it. `tests/test_docs.py` compares the page with this.
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Literal, Union, get_args, get_origin, get_type_hints

from retrograd.experiments.data.corpus import CorpusData
from retrograd.experiments.data.kinds import KINDS
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.settings import TrainingSettings, WarmStartSettings
from retrograd.experiments.training_config import TrainingConfig
from retrograd.objectives import OBJECTIVES
from retrograd.rag.rag_model import RagModel
from retrograd.rag.search_kinds import SEARCHES
from retrograd.rag.settings import GeneratorSettings, RetrieverSettings
from retrograd.training.tracking.kinds import TRACKERS
from retrograd.training.tracking.settings import TrackSettings

PAGE = Path(__file__).with_name("settings.md")
INTRODUCTION = """# Settings

*Written by `python docs/settings.py` from the classes of the settings and their docstrings; change these.*

Every setting of an experiment stands in a section of its file and can be changed on the command line:

```
retrograd show semeval-joint                              # all settings of a recipe or a file, with their values
retrograd train semeval-joint --set training.epochs=2 --set retriever.search=bm25
```

Values are written as in TOML; after `--set`, text needs no quotes. A setting that is left out has its default. A recipe
has values of its own, and another `data.kind` or `objective.kind` begins with its own defaults. K is the number of
passages that a query reads; p(z|x) is the prior, q(z|x,y) the posterior retriever.
"""
_NAME = re.compile(r"``(\w+)(?:=[^`]*)?``")
_SUBJECTS = re.compile(r"(?:``\w+``(?:, and |, | and | or )?)+")
_TYPES: dict[object, str] = {str: "text", int: "whole number", float: "number", bool: "true, false"}


@dataclass(frozen=True)
class Explanation:
    """What a docstring explains: ``introduction``, and the sentences of each setting."""

    introduction: str
    sentences: dict[str, list[str]]


def page() -> str:
    """Return the text of the page."""
    parts = [INTRODUCTION, *_python_defaults(), "## At the top\n\n" + _table(Experiment, ("name", "seed"))]
    for section in fields(Experiment):
        if section.name == "data":
            parts += _data()
        elif section.name == "objective":
            parts += _objectives()
        elif section.name not in ("name", "seed"):
            kind = get_type_hints(Experiment)[section.name]
            parts.append(f"## {section.name}\n\n{_section(kind)}")
    return "\n".join(parts)


def _section(kind: type, names: tuple[str, ...] | None = None) -> str:
    introduction = _explain(kind).introduction
    return f"{_wrap(introduction)}\n\n{_table(kind, names)}" if introduction else _table(kind, names)


def _data() -> Iterator[str]:
    kinds = ", ".join(f'`"{kind.kind}"`' for kind in KINDS)
    text = f"`kind` is one of {kinds}; the first is the default. The others share most of their settings."
    yield f"## data\n\n{_wrap(text)}\n"
    shared = tuple(field.name for field in fields(CorpusData))
    for kind in KINDS:
        own = tuple(
            field.name for field in fields(kind) if not issubclass(kind, CorpusData) or field.name not in shared
        )
        yield f"### data, kind {kind.kind}\n\n{_section(kind, own)}"
    yield f"### data, of every kind with a base of its own\n\n{_section(CorpusData)}"


def _objectives() -> Iterator[str]:
    default = type(Experiment().objective).__name__
    text = (
        f"`kind` is the name of an objective; `{default}` is the default. The docstring of each class has its "
        f"equation, paper, bias, gradient and cost."
    )
    yield f"## objective\n\n{_wrap(text)}\n"
    for kind in OBJECTIVES:
        first = _plain(_sentences(_paragraphs(kind)[0])[0])
        file = Path(inspect.getfile(kind)).name
        table = _table(kind) if fields(kind) else "It has no settings.\n"
        yield f"### {kind.__name__}\n\n{_wrap(f'{first} (`objectives/{file}`)')}\n\n{table}"


def _table(kind: type, names: tuple[str, ...] | None = None) -> str:
    """Return a row for each setting: name, values, default, explanation."""
    hints, sentences = get_type_hints(kind), _explain(kind).sentences
    rows: dict[str, str] = {}  # texts that have been printed, and where
    lines = ["| setting | values | default | what it does |", "|---|---|---|---|"]
    for field in fields(kind):
        if names is None or field.name in names:
            text = " ".join(sentences.get(field.name, []))
            first = rows.setdefault(text, field.name)
            text = text if first == field.name or not text else f"see ``{first}``"
            cells = (f"`{field.name}`", _values(kind, field.name, hints[field.name]), _default(field), _plain(text))
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines).replace("|  |", "| |") + "\n"


def _values(kind: type, name: str, hint: object) -> str:
    if kind is RetrieverSettings and name == "search":
        return ", ".join(f'`"{search.name}"`' for search in SEARCHES)
    if kind is TrackSettings and name == "kinds":
        return "list of " + ", ".join(f'`"{tracker.name}"`' for tracker in TRACKERS)
    if get_origin(hint) is Literal:
        return ", ".join(f'`"{choice}"`' for choice in get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        return ", ".join(_values(kind, name, part) for part in get_args(hint))
    if isinstance(hint, type) and is_dataclass(hint):
        return "table of " + ", ".join(f"`{field.name}`" for field in fields(hint))
    return "list of texts" if get_origin(hint) is tuple else _TYPES[hint]


def _default(field: Field[object]) -> str:
    value = field.default
    return "" if value is MISSING else f"`{_toml(value)}`"


def _toml(value: object) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, float):
        return f"{value:g}" if value % 1 else f"{value:.1f}"
    return json.dumps(value, ensure_ascii=False)


def _explain(kind: type, names: Sequence[str] = ()) -> Explanation:
    """Return what the docstring of a class says, and of the class that it extends."""
    names = names or [field.name for field in fields(kind)]
    inherited = _explain(kind.__base__, names).sentences if is_dataclass(kind.__base__) else {}
    introduction: list[str] = []
    as_subject: dict[str, list[str]] = {}
    as_mention: dict[str, list[str]] = {}
    for paragraph in _paragraphs(kind):
        is_equation = paragraph.startswith("**")  # of an objective, whose parts are no explanations of settings
        subjects, mentions = list[str](), list[str]()
        for sentence in _sentences(paragraph):
            named = [name for name in dict.fromkeys(_NAME.findall(sentence)) if name in names]
            beginning = _SUBJECTS.match(sentence)
            if named:
                subjects = [name for name in named if beginning and f"``{name}``" in beginning[0]]
                mentions = named
            elif is_equation:
                continue
            if not mentions:
                introduction.append(sentence)
            for name in subjects:
                as_subject.setdefault(name, []).append(sentence)
            for name in mentions:
                if name not in as_mention or not is_equation:
                    as_mention.setdefault(name, []).append(sentence)
    return Explanation(_plain(" ".join(introduction)), {**inherited, **as_mention, **as_subject})


def _paragraphs(kind: type) -> list[str]:
    """Return the paragraphs of a docstring, each in one line, up to its example."""
    text = (inspect.getdoc(kind) or "").partition("Example::")[0]
    return [" ".join(part.split()) for part in re.split(r"\n\n|\n\* ", text) if part.strip()]


def _sentences(paragraph: str) -> list[str]:
    return re.split(r"(?<=[.])\s+(?=[A-Z`])", re.sub(r"\*\*\w+\.\*\* ", "", paragraph))


def _wrap(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False))


def _plain(text: str) -> str:
    """Return text of a docstring as Markdown."""
    return text.replace("``", "`")


def _python_defaults() -> Iterator[str]:
    """Yield the defaults of calls from Python that differ from those of experiments."""
    rows = []
    call = {name: one.default for name, one in inspect.signature(RagModel.from_pretrained).parameters.items()}
    config = {field.name: field.default for field in fields(TrainingConfig)}
    pairs = (
        ("rg.RagModel.from_pretrained", call, "retriever", RetrieverSettings, ""),
        ("rg.RagModel.from_pretrained", call, "generator", GeneratorSettings, ""),
        ("rg.TrainingConfig", config, "training", TrainingSettings, ""),
        ("rg.TrainingConfig", config, "warm_start", WarmStartSettings, "warm_start_"),
    )
    for place, arguments, section, settings, prefix in pairs:
        for field in fields(settings):
            argument = prefix + field.name
            if arguments.get(argument, "") not in ("", field.default):
                here, there = _toml(field.default), _toml(arguments[argument])
                rows.append(f"| `{section}.{field.name}` | `{here}` | `{there}`: `{place}({argument}=…)` |")
    yield (
        "Calls from Python have defaults of their own where these differ:\n\n"
        "| setting | default in an experiment | default from Python |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
