"""What a recogniser of entities is: text in, entities with their types out, from whatever source.

A function of one's own is one: ``function_recogniser(find)``, where ``find(text)`` yields entities as `Entity` or as
``(start, end, type)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from retrograd.data.relations.instance import check_span
from retrograd.types import Span, UserError

__all__ = ["Entity", "FindEntities", "FunctionRecogniser", "Recognised", "Recogniser"]


@dataclass(frozen=True, slots=True)
class Entity:
    """An entity that a text mentions: its characters, and its type, "" where that is not known."""

    span: Span
    kind: str = ""


@dataclass(frozen=True)
class Recognised:
    """The entities of a text and, from a recogniser that finds them, its sentences; None is one that does not."""

    entities: tuple[Entity, ...]
    sentences: tuple[Span, ...] | None = None


@runtime_checkable
class Recogniser(Protocol):
    """Finds the entities of texts."""

    @property
    def language(self) -> str:
        """Return the code of the language that it is made for, such as "en"; "" where it does not say."""
        ...

    def recognise(self, text: str) -> Recognised:
        """Return the entities of a text. Raises `UserError` for a text that it cannot read."""
        ...


FindEntities = Callable[[str], Iterable[Entity | tuple[int, int, str]]]
"""A function of one's own: the entities of a text."""


@dataclass(frozen=True)
class FunctionRecogniser:
    """A recogniser that asks a function.

    Raises `UserError` for spans that lie outside the text or cover nothing visible, and for what is no entity.
    """

    find: FindEntities
    language: str = ""

    def recognise(self, text: str) -> Recognised:
        """Return what the function finds."""
        entities = tuple(_check_entity(value, place, text) for place, value in enumerate(self.find(text)))
        return Recognised(entities)


def _check_entity(value: object, place: int, text: str) -> Entity:
    if isinstance(value, tuple) and len(value) == 3:
        start, end, kind = value
        if type(start) is int and type(end) is int and isinstance(kind, str):
            value = Entity(Span(start, end), kind)
    if not isinstance(value, Entity):
        raise UserError(
            f"the recogniser's entity {place} is {value!r}; expected Entity(Span(0, 3), 'PERSON') or (0, 3, 'PERSON')"
        )
    check_span(value.span, f"the recogniser's entity {place}", text)
    return value
