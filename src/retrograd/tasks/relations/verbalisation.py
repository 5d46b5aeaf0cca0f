"""Relations in words: a short phrase for every label and, optionally, a sentence template with both entities.

The sentence is what SuRE (Lu et al. 2022, "Summarization as Indirect Supervision for Relation Extraction") generates;
the wording in ``data/templates`` is our own. A file of templates is TOML, one table a label:

    ["org:founded_by"]
    phrase = "created by founder"
    template = "{subject} owes its founding to {object}"

A filled template may be the beginning of another one: scoring appends the end-of-sequence token to each, so that none
is a prefix of another any more.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

from retrograd.metrics.words import MARKS, fold
from retrograd.types import UserError
from retrograd.util.guards import JsonObject, suggest_name
from retrograd.util.records import read_toml

__all__ = [
    "BUILTIN_TEMPLATES",
    "Verbalisation",
    "derive_phrases",
    "open_verbalisation",
    "semeval_verbalisation",
    "words_of",
]

BUILTIN_TEMPLATES = ("builtin:semeval2010_task8", "builtin:tacred", "builtin:retacred")
"""The files of ``data/templates`` in the package, by the names that `open_verbalisation` knows."""

_DIRECTED = re.compile(r"(.+)\((e[12]),(e[12])\)")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_BETWEEN_WORDS = re.compile(rf"(?:_|(?![{MARKS}])\W)+")
_SLOT = re.compile(r"\{(.*?)\}")
_SLOTS: tuple[str, ...] = ("subject", "object")
_KEYS = ("phrase", "template")


class Verbalisation:
    """Phrases and templates by label; templates for all labels or for none.

    Phrases are one to one after case and spaces are levelled, and so are templates; runs of spaces in templates become
    one. Each template has ``{subject}`` (the head) and ``{object}`` (the tail) once. Both are copied; two with equal
    words are equal. Raises `UserError` where something of this is not so.
    """

    def __init__(self, phrases: Mapping[str, str], templates: Mapping[str, str] | None = None) -> None:
        self.phrases: Mapping[str, str] = dict(phrases)
        self.templates: Mapping[str, str] = {label: _spaced(text) for label, text in (templates or {}).items()}
        if not self.phrases:
            raise UserError("relation extraction without labels; give at least one label with its phrase")
        self._relations = _labels_by_text(self.phrases, "phrase")
        # Words and slots in turn: filling is concatenation, done for every label of every example.
        self._pieces = {label: _SLOT.split(text) for label, text in self.templates.items()}
        if self.templates:
            self._check_templates()

    def _check_templates(self) -> None:
        for label in self.templates:
            if label not in self.phrases:
                raise UserError(f"the template of {label!r} has no phrase; {suggest_name(label, self.phrases)}")
        for label in self.phrases:
            if label not in self.templates:
                raise UserError(f"{label!r} has a phrase and no template; give every label one, or none")
            _check_slots(label, self.templates[label])
        _labels_by_text(self.templates, "template")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Verbalisation):
            return NotImplemented
        return (self.phrases, self.templates) == (other.phrases, other.templates)

    def __repr__(self) -> str:
        return f"Verbalisation(phrases={self.phrases!r}, templates={self.templates!r})"

    def relation_of(self, phrase: str) -> str | None:
        """Return the label of a phrase, exact but for case and spaces; None for other words."""
        return self._relations.get(fold(phrase))

    def sentences(self, subject: str, object_: str) -> dict[str, str]:
        """Return every label's template with both names filled in, all different; templates without exception are
        needed.

        Where two labels' sentences are equal for these names (``{subject} leads {object}`` and ``{object} leads
        {subject}`` for equal names) both are identified by their phrases instead. Names are taken literally, whatever
        signs they hold; runs of spaces in them become one.
        """
        names = {"subject": _spaced(subject), "object": _spaced(object_)}
        filled = {
            label: f"{before}{names[first]}{between}{names[second]}{after}"
            for label, (before, first, between, second, after) in self._pieces.items()
        }
        count = Counter(sentence.casefold() for sentence in filled.values())
        return {
            label: sentence if count[sentence.casefold()] == 1 else self.phrases[label]
            for label, sentence in filled.items()
        }

    def require(self, labels: Iterable[str], where: str, *, exactly: bool = False) -> None:
        """Raise `UserError`, beginning with ``where``, for a label without words or, ``exactly``, one too many."""
        required = dict.fromkeys(labels)
        for label in required:
            if label not in self.phrases:
                raise UserError(
                    f"{where}: the label {label!r} is missing; {suggest_name(label, self.phrases)} "
                    f'Add a table ["{label}"] with phrase and template'
                )
        for label in self.phrases if exactly else ():
            if label not in required:
                raise UserError(
                    f"{where}: unknown label {label!r}; {suggest_name(label, required)} Remove or rename it"
                )

    def to_record(self) -> JsonObject:
        """Return the plain mapping from which `from_record` makes an equal value, the order of labels kept."""
        return {
            label: {"phrase": phrase, "template": self.templates[label]} if self.templates else {"phrase": phrase}
            for label, phrase in self.phrases.items()
        }

    @classmethod
    def from_record(cls, record: object, where: str) -> Verbalisation:
        """Return the value of a mapping with ``phrase`` and ``template`` by label.

        Raises `UserError`, beginning with ``where``, for all else.
        """
        if not isinstance(record, Mapping):
            raise UserError(f"{where}: expected one table a label, with phrase and template")
        phrases: dict[str, str] = {}
        templates: dict[str, str] = {}
        for label, words in record.items():
            label_words = _words_of_label(words, f"{where}: {label!r}")
            phrases[label] = label_words["phrase"]
            if "template" in label_words:
                templates[label] = label_words["template"]
        try:
            return cls(phrases, templates)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None


def open_verbalisation(source: str) -> Verbalisation:
    """Open phrases and templates of one of `BUILTIN_TEMPLATES` or of a TOML file, which has a template for every label.

    Raises `UserError` with file and line for what is not TOML, with file and label for what is missing or wrong.
    """
    if not source.startswith("builtin:"):
        return _read_file(Path(source))
    if source not in BUILTIN_TEMPLATES:
        raise UserError(f"no built-in templates {source!r}; {suggest_name(source, BUILTIN_TEMPLATES)}")
    return _packaged(source.removeprefix("builtin:"))


def semeval_verbalisation() -> Verbalisation:
    """Return phrases and templates of the 19 labels of SemEval-2010 Task 8, as in the package.

    All first words of the phrases differ: a generator decides the label with its first token, and the prefix tree of
    the phrases branches only at the root.
    """
    return open_verbalisation("builtin:semeval2010_task8")


@cache
def _packaged(name: str) -> Verbalisation:
    with as_file(files("retrograd").joinpath("resources", "templates", f"{name}.toml")) as path:
        return _read_file(path)


def _read_file(path: Path) -> Verbalisation:
    verbalisation = Verbalisation.from_record(read_toml(path), str(path))
    if not verbalisation.templates:
        raise UserError(f'{path}: no label has a template; write one as template = "{{subject}} … {{object}}"')
    return verbalisation


def _words_of_label(words: object, where: str) -> dict[str, str]:
    """Return phrase and, where there is one, template of one label."""
    if not isinstance(words, Mapping):
        raise UserError(f"{where} is {words!r}; expected a table with phrase and template")
    for key, value in words.items():
        if key not in _KEYS:
            raise UserError(
                f"{where}: unknown key {key!r}; {suggest_name(str(key), _KEYS)} Quote a label that holds a dot"
            )
        if not isinstance(value, str):
            raise UserError(f"{where}: {key} is {value!r}; expected text in quotes")
    if "phrase" not in words:
        raise UserError(f'{where}: no phrase; give it a few words, as phrase = "born in city"')
    return dict(words)


def _check_slots(label: str, template: str) -> None:
    """Raise `UserError` unless each slot appears once, and no other."""
    slots = _SLOT.findall(template)
    for name in slots:
        if name not in _SLOTS:
            raise UserError(f"the template of {label!r} has an unknown slot {{{name}}}; {suggest_name(name, _SLOTS)}")
    for name in _SLOTS:
        if slots.count(name) != 1:
            raise UserError(
                f"the template of {label!r} has {{{name}}} {slots.count(name)} times in {template!r}; write it once"
            )


def _labels_by_text(words: Mapping[str, str], kind: str) -> dict[str, str]:
    """Return the label of each normalised phrase or template.

    Raises `UserError` unless none is empty and all are different.
    """
    relations: dict[str, str] = {}
    for relation, text in words.items():
        key = fold(text)
        if not key:
            raise UserError(f"the {kind} of {relation!r} is empty; give it words that a model can generate")
        if key in relations:
            raise UserError(f"{relations[key]!r} and {relation!r} share the {kind} {text!r}; make them different")
        relations[key] = relation
    return relations


def _spaced(text: str) -> str:
    return " ".join(text.split())


def derive_phrases(labels: Iterable[str]) -> dict[str, str]:
    """Return a phrase for every label, one to one: its words in lower case, "reversed" for the direction (e2,e1), and a
    number where another label has the same words.
    """
    phrases: dict[str, str] = {}
    used: set[str] = set()
    for label in sorted(set(labels)):
        words = phrase = _directed_words(label) or "relation"
        number = 1
        while phrase in used:
            number += 1
            phrase = f"{words} {number}"
        used.add(phrase)
        phrases[label] = phrase
    return phrases


def _directed_words(label: str) -> str:
    directed = _DIRECTED.fullmatch(label)
    if directed is None:
        return words_of(label)
    words = words_of(directed[1])
    if directed[2] == directed[3]:
        return f"{words} {directed[2]} {directed[3]}".strip()
    return f"{words} reversed".strip() if directed[2] == "e2" else words


def words_of(name: str) -> str:
    """Return the words of a name in lower case: ``STATE_OR_PROVINCE`` is "state or province", ``bornIn`` "born in"."""
    return " ".join(_BETWEEN_WORDS.sub(" ", _CAMEL.sub(" ", name)).casefold().split())
