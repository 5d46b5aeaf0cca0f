"""Propose where records have what is looked for, a question or the text of a passage, where no name of it is known.

The first records are looked at: what ends in question marks, what is short, what stands in a longer text, what is an
id. A proposal is a sentence in an error, for a person to judge; nothing is read by it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrograd.data.field_maps import DialogueFields, FieldMap, PassageFields, QuestionFields
from retrograd.data.passage_records import PASSAGE_NAMES
from retrograd.data.rows import ROW_KINDS, first_rows, row_kind
from retrograd.types import UserError
from retrograd.util.guards import JsonObject, JsonValue

__all__ = [
    "format_proposal",
    "mapped_kind",
    "propose_dialogue_fields",
    "propose_passage_fields",
    "propose_question_fields",
    "require_field",
]

_SAMPLE = 20
_QUESTION_WORDS = re.compile(
    r"quest|quer|input|prompt|ask|instruction|frage|pregunta|domanda|vraag|вопрос|问题|質問", re.I
)
_ANSWER_WORDS = re.compile(
    r"answ|output|target|respon|complet|repl|solut|gold|refer|antwort|respuesta|risposta|antwoord|ответ|答案|回答", re.I
)
_TEXT_WORDS = re.compile(
    r"text|content|body|passage|paragraph|abstract|article|document|inhalt|texte|cuerpo|正文|内容|本文|текст", re.I
)
_TITLE_WORDS = re.compile(
    r"titl|titre|titel|título|titolo|name|head|subject|topic|caption|标题|題名|見出し|заголовок", re.I
)
_ID_WORDS = re.compile(r"(?:^|_|(?<=[a-z])(?=[IKNU]))(?:id|key|nr|no|num|number|code|uid|url|uri|编号|番号)s?$", re.I)
_TURN_WORDS = re.compile(r"hist|turn|dialog|convers|messag|utter|chat|context", re.I)
_QUESTION_MARKS = ("?", "？", "؟", "՞", ";")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_ID = re.compile(r"[!-~]*\d[!-~]*|https?://\S+|[0-9a-f-]{8,}")


def mapped_kind(path: Path, told: str, setting: str = "data.format", fields: str = "data.fields") -> str:
    """Return what the records of a file are written in, as ``told`` by a setting or as found; their fields are mapped.

    Raises `UserError` for a format that has no such fields.
    """
    if told == "auto":
        return row_kind(path)
    if told in ROW_KINDS:
        return told
    raise UserError(
        f'{path}: {setting} is "{told}", which has no fields to be mapped; leave {fields} out, or give records in one '
        f"of {', '.join(ROW_KINDS)}"
    )


def require_field(
    path: Path,
    kind: str,
    names: Sequence[str],
    has_field: Callable[[JsonObject], bool],
    field: str,
    propose: Callable[[Sequence[JsonObject]], FieldMap],
    setting: str = "data.fields",
) -> None:
    """Raise `UserError`, once for the whole file, where none of the first records has a field; with a proposal.

    ``kind`` is what the records are written in, ``names`` are the fields that are known.
    """
    sample = first_rows(path, names, _SAMPLE, kind)
    if not sample or any(map(has_field, sample)):
        return
    found = list(dict.fromkeys(name for record in sample for name in record))
    proposal = format_proposal(propose(sample), field, setting)
    raise UserError(f"{path}: its records have no {field!r}, but {', '.join(found) or 'no fields'}; {proposal}")


def format_proposal(proposed: FieldMap, field: str, setting: str) -> str:
    """Return a proposed map as a remedy: what looks like what, and the settings that say so."""
    paths = proposed.paths
    if field not in paths:
        return f'say where they have it: {setting}.{field} = "…"'
    looks = [f"`{path}` looks like the {name}" for name, path in paths.items()]
    settings = [f'{setting}.{name} = "{path}"' for name, path in paths.items()]
    return f"{' and '.join(looks)}: set {' and '.join(settings)}"


def propose_question_fields(sample: Sequence[JsonObject]) -> QuestionFields:
    """Return where records seem to have the question and its answers; empty paths where nothing looks like them."""
    columns = _columns(sample)
    question = _best(columns, len(sample), _rate_question)
    rest = [column for column in columns if column.path != question]
    texts = [column for column in rest if column.words > 25]
    return QuestionFields(question, _best(rest, len(sample), lambda column: _rate_answers(column, texts)))


def propose_dialogue_fields(sample: Sequence[JsonObject]) -> DialogueFields:
    """Return where records seem to have the turns so far and the answers to the last of them."""
    columns = _columns(sample)
    lists = {name for record in sample for name, value in record.items() if isinstance(value, list) and value}
    turns = next((name for name in sorted(lists, key=lambda name: not _TURN_WORDS.search(name))), "")
    rest = [column for column in columns if column.path.partition("[")[0] != turns]
    question = "" if turns else _best(rest, len(sample), _rate_question)
    rest = [column for column in rest if column.path != question]
    return DialogueFields(turns, question, _best(rest, len(sample), lambda column: _rate_answers(column, [])))


def propose_passage_fields(sample: Sequence[JsonObject]) -> PassageFields:
    """Return where records seem to have the text, its title and an id; empty paths where nothing looks like them."""
    columns = _columns(sample)
    text = _best(columns, len(sample), _rate_text)
    rest = [column for column in columns if column.path != text]
    title = _best(rest, len(sample), _rate_title)
    ids = _find_ids(sample, (text, title))
    return PassageFields(*("" if path in PASSAGE_NAMES else path for path in (text, title, ids)))


def _find_ids(sample: Sequence[JsonObject], taken: Sequence[str]) -> str:
    """Return the first field whose name says that it holds ids, and which every record has, each its own."""
    for name in sample[0] if sample else ():
        values = [record.get(name) for record in sample]
        keys = {value for value in values if isinstance(value, str | int) and not isinstance(value, bool)}
        if name not in taken and _ID_WORDS.search(name) and len(keys) == len(sample):
            return name
    return ""


# ---- what a column looks like ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Column:
    """The texts at one path, those of each record in a list."""

    path: str
    values: tuple[tuple[str, ...], ...]

    @property
    def texts(self) -> list[str]:
        return [text for own in self.values for text in own]

    @property
    def words(self) -> float:
        """Return the mean number of words; signs of scripts without spaces count a fifth."""
        return sum(max(len(text.split()), len(text) / 8) for text in self.texts) / max(1, len(self.texts))

    @property
    def is_single(self) -> bool:
        return all(len(own) == 1 for own in self.values)

    def share(self, holds: Callable[[str], bool]) -> float:
        """Return the share of texts for which something holds."""
        return sum(map(holds, self.texts)) / max(1, len(self.texts))


def _columns(sample: Sequence[JsonObject]) -> list[_Column]:
    values: dict[str, list[tuple[str, ...]]] = {}
    for record in sample:
        for path, texts in _texts(record, "", 0):
            if texts:
                values.setdefault(path, []).append(texts)
    return [_Column(path, tuple(own)) for path, own in values.items()]


def _texts(record: Mapping[str, JsonValue], prefix: str, depth: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield paths and the texts there: of strings, lists of strings, objects, and lists of objects."""
    for name, value in record.items():
        if depth and not _IDENTIFIER.fullmatch(name):
            continue
        path = f"{prefix}{name}"
        if isinstance(value, str):
            yield path, (value,) if value.strip() else ()
        elif isinstance(value, dict) and depth < 2 and _IDENTIFIER.fullmatch(name):
            yield from _texts(value, f"{path}.", depth + 1)
        elif isinstance(value, list) and all(isinstance(entry, str) for entry in value):
            yield path, tuple(str(entry) for entry in value if str(entry).strip())
        elif isinstance(value, list) and depth < 2 and _IDENTIFIER.fullmatch(name):
            yield from _texts_of_objects(value, path, depth)


def _texts_of_objects(entries: Sequence[JsonValue], path: str, depth: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    merged: dict[str, list[str]] = {}
    for entry in entries:
        if isinstance(entry, dict):
            for inner, texts in _texts(entry, f"{path}[*].", depth + 1):
                merged.setdefault(inner, []).extend(texts)
    yield from ((inner, tuple(texts)) for inner, texts in merged.items())


def _best(columns: Sequence[_Column], records: int, rate: Callable[[_Column], float]) -> str:
    """Return the path of the column with the highest rating above 0, among those that most records have."""
    rated = [(rate(column), column.path) for column in columns if 2 * len(column.values) > records]
    return max(rated, key=lambda one: one[0], default=(0.0, ""))[1] if any(one[0] > 0 for one in rated) else ""


def _rate_question(column: _Column) -> float:
    if not column.is_single:
        return 0.0
    rating = 4 * column.share(lambda text: text.rstrip().endswith(_QUESTION_MARKS))
    rating += 2 * bool(_QUESTION_WORDS.search(column.path)) - 2 * bool(_ANSWER_WORDS.search(column.path))
    rating += 1 if 3 <= column.words <= 60 else -2
    return rating - 4 * _is_id(column)


def _rate_text(column: _Column) -> float:
    """Return the number of words, on a scale of its logarithm, and what the name says."""
    rating = math.log2(1 + column.words) - 4 + 3 * bool(_TEXT_WORDS.search(column.path))
    rating -= 2 * bool(_TITLE_WORDS.search(column.path)) + 2 * bool(_ID_WORDS.search(column.path))
    return rating - 6 * _is_id(column) if column.is_single else 0.0


def _rate_title(column: _Column) -> float:
    if not column.is_single or column.words > 20:
        return 0.0
    rating = 2.0 * bool(_TITLE_WORDS.search(column.path)) - 2.0 * bool(_ID_WORDS.search(column.path))
    return rating - 3.0 * _is_id(column)


def _rate_answers(column: _Column, texts: Sequence[_Column]) -> float:
    is_named = bool(_ANSWER_WORDS.search(column.path))
    rating = 3.0 * is_named - 2 * bool(_QUESTION_WORDS.search(column.path))
    rating += 1 if column.words <= 20 else -1
    rating += 1 if not column.is_single else 0
    rating += 2 * max((_share_within(column, text) for text in texts), default=0.0)
    rating -= 3 * column.share(lambda text: text.rstrip().endswith(_QUESTION_MARKS))
    distinct = len(set(column.texts))
    rating -= 1 if distinct <= len(column.texts) / 4 else 0
    return rating - (1 if is_named else 4) * _is_id(column)  # years are answers, too


def _is_id(column: _Column) -> bool:
    """Return whether the texts are distinct, without spaces, and have digits or are addresses."""
    return column.is_single and len(set(column.texts)) == len(column.texts) and column.share(_looks_like_id) > 0.8


def _looks_like_id(text: str) -> bool:
    return _ID.fullmatch(text.strip()) is not None


def _share_within(column: _Column, texts: _Column) -> float:
    """Return the share of the texts that stand in those of another column."""
    whole = "\n".join(texts.texts).casefold()
    return column.share(lambda text: text.strip().casefold() in whole)
