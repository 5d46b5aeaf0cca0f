"""The pairs of entities that are asked: of files with entities, or of text in which a recogniser finds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from retrograd.data.record_fields import locate_errors
from retrograd.data.relations.beginnings import FileBeginning
from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.readers.docred import holds_docred, read_documents
from retrograd.data.relations.readers.documents import AnnotatedDocument
from retrograd.data.relations.recognisers.recogniser import Entity, Recognised, Recogniser
from retrograd.data.relations.text_documents import (
    TEXT_SUFFIXES,
    TextDocument,
    is_plain_text,
    list_text_files,
    read_text_document,
)
from retrograd.data.relations.text_pairs import (
    SentenceEnds,
    find_sentences,
    pair_entities,
    parse_window,
)
from retrograd.experiments.open import OpenRun
from retrograd.studies.extraction.merging import EntityNames, Merge, Name
from retrograd.studies.extraction.scores import GoldDocument, gold_document, gold_documents, mention_names
from retrograd.studies.extraction.triples import Place, single_spaced
from retrograd.studies.extraction.type_pairs import TypePairs
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.types import Example, Span, UserError
from retrograd.util.progress import say

__all__ = ["AskedPair", "PairReading", "Pairing", "parse_types", "read_file_pairs", "read_text_pairs"]


@dataclass(frozen=True)
class Pairing:
    """How the entities that are recognised in a text become pairs.

    ``within`` is how far apart they may stand: ``sentence``, a number of sentences (``3``) or of words (``40 words``).
    Sentences are those that ``sentences`` finds, a function of one's own; else the recogniser's; else those of a rule
    for ``language``, which is the recogniser's where it is not given. ``types`` renames types of the recogniser to
    those of training. ``any_pair`` asks pairs of types as well that training never shows in a relation.

    Example::

        pairing = rg.Pairing(within="3", language="en", types={"ORG": "ORGANIZATION"})
        print(pairing.within, pairing.any_pair)
    """

    within: str = "sentence"
    language: str = ""
    types: Mapping[str, str] = field(default_factory=dict)
    any_pair: bool = False
    sentences: SentenceEnds | None = None


def parse_types(values: Iterable[str]) -> dict[str, str]:
    """Return the types of ``ORG=ORGANIZATION`` by the recogniser's names; ``PERSON`` alone is itself.

    Raises `UserError` for a blank name, and for one that is given twice with different types.
    """
    types: dict[str, str] = {}
    for value in values:
        own, equals, training = (part.strip() for part in value.partition("="))
        training = training if equals else own
        if not own or not training or types.setdefault(own, training) != training:
            raise UserError(
                f"--type {value}: expected RECOGNISED=TRAINING, each recognised type once, as in ORG=ORGANIZATION"
            )
    return types


@dataclass(frozen=True)
class AskedPair:
    """A pair of entities, the example that asks for its relation, and where its text stands."""

    instance: RelationInstance
    example: Example
    place: Place


@dataclass(frozen=True)
class PairReading:
    """The pairs of all files; the entities of each document, by its key; and what the files say is right.

    ``gold_pairs`` are labelled pairs, each with the key of its document: None where the files label none.
    """

    pairs: list[AskedPair]
    documents: dict[str, EntityNames]
    gold: dict[str, GoldDocument]
    gold_pairs: list[tuple[str, RelationInstance]] | None


def read_file_pairs(run: OpenRun, task: RelationExtraction, paths: Sequence[Path]) -> PairReading:
    """Read marked pairs in any format that training reads, or text with entities; raise `UserError` as readers do."""
    files = [_read_file(run, task, path) for path in paths]
    pairs = [
        AskedPair(instance, example, Place(file.path, instance.text, 0, file.key(instance)))
        for file in files
        for instance, example in file.pairs
    ]
    mentions: dict[str, list[Name]] = {}
    for pair in pairs:
        mentions.setdefault(pair.place.document, []).extend(mention_names(pair.instance))
    documents = {key: EntityNames.of(own) for key, own in mentions.items()}
    if not _require_gold(files):
        return PairReading(pairs, documents, {}, None)
    labelled = [(file.key(instance), instance) for file in files for instance, _ in file.pairs]
    return PairReading(pairs, documents, _gold_of(files, task), labelled)


@dataclass(frozen=True)
class _File:
    """What training reads of a file: its pairs and, of a format that has them, its documents."""

    path: str
    pairs: list[tuple[RelationInstance, Example]]
    documents: list[AnnotatedDocument]

    def key(self, instance: RelationInstance) -> str:
        """Return the key of the document that an instance is of: a document of the file, else its text."""
        return self.document_key(instance.document) if instance.document else f"{self.path}\n{instance.text}"

    def document_key(self, id_: str) -> str:
        return f"{self.path}\n#{id_}"


def _read_file(run: OpenRun, task: RelationExtraction, path: Path) -> _File:
    advice = "for plain text name what recognises entities: --ner spacy:PIPELINE, or --ner gazetteer:FILE"
    try:
        pairs = run.experiment.data.read_pairs(path, task)
    except UserError as error:
        if path.is_dir() or path.suffix.lower() in TEXT_SUFFIXES:
            raise UserError(f"{error}; {advice}") from None
        raise
    has_documents = not path.is_dir() and holds_docred(FileBeginning.of(path))
    return _File(str(path), pairs, list(read_documents(path)) if has_documents else [])


def _require_gold(files: Sequence[_File]) -> bool:
    """Return whether all pairs are labelled; where only some are, say so."""
    instances = [instance for file in files for instance, _ in file.pairs]
    missing = sum(instance.relation is None for instance in instances)
    if 0 < missing < len(instances):
        say(f"{missing} of {len(instances)} pairs have no relation, so that what is extracted is not scored")
    return bool(instances) and not missing


def _gold_of(files: Sequence[_File], task: RelationExtraction) -> dict[str, GoldDocument]:
    """Return the gold documents: those of the files, else what their pairs show of them."""
    gold: dict[str, GoldDocument] = {}
    for file in files:
        if file.documents:
            gold |= {file.document_key(one.id): gold_document(one) for one in file.documents}
        else:
            instances = [(file.key(instance), instance) for instance, _ in file.pairs]
            gold |= gold_documents(instances, task.negative)
    return gold


def read_text_pairs(
    run: OpenRun,
    task: RelationExtraction,
    paths: Sequence[Path],
    recogniser: Recogniser,
    pairing: Pairing,
    permitted: TypePairs,
    merge: Merge,
) -> PairReading:
    """Recognise the entities of texts, and pair them.

    Plain text is read as it is; of any other file that training reads the texts are read, and its relations are gold.
    """
    reader = _TextReader(task, recogniser, pairing, permitted, merge)
    files: list[_File] = []
    for path in paths:
        if is_plain_text(path):
            for text_file in list_text_files(path):
                reader.read(str(text_file), str(text_file), [read_text_document(text_file)])
        else:
            files.append(_read_file(run, task, path))
            for key, texts in _texts_of(files[-1]).items():
                reader.read(key, str(path), texts)
    reader.advise()
    if not _require_gold(files):
        return PairReading(reader.pairs, reader.documents, {}, None)
    # Pairs of entities of a document are not pairs of mentions, which it does not label.
    labelled = [(file.key(instance), instance) for file in files for instance, _ in file.pairs]
    gold_pairs = None if any(file.documents for file in files) else labelled
    return PairReading(reader.pairs, reader.documents, _gold_of(files, task), gold_pairs)


def _texts_of(file: _File) -> dict[str, list[TextDocument]]:
    """Return the texts of each document, by its key."""
    if file.documents:
        return {
            file.document_key(one.id): [TextDocument(one.id, one.text, (), one.sentences)] for one in file.documents
        }
    texts: dict[str, dict[str, TextDocument]] = {}
    for instance, _ in file.pairs:
        own = texts.setdefault(file.key(instance), {})
        own.setdefault(instance.text, TextDocument.plain(instance.id, instance.text))
    return {key: list(own.values()) for key, own in texts.items()}


class _TextReader:
    """Collects the pairs of documents, and the types that were recognised."""

    def __init__(
        self, task: RelationExtraction, recogniser: Recogniser, pairing: Pairing, permitted: TypePairs, merge: Merge
    ) -> None:
        self.pairs: list[AskedPair] = []
        self.documents: dict[str, EntityNames] = {}
        self._task = task
        self._recogniser = recogniser
        self._pairing = pairing
        self._permitted = TypePairs(frozenset()) if pairing.any_pair else permitted
        self._merges = merge != "none"
        self._window = parse_window(pairing.within)
        self._types: set[str] = set()
        self._left_out = 0
        self._names_language = bool(pairing.language or recogniser.language)

    def read(self, key: str, path: str, texts: Sequence[TextDocument]) -> None:
        """Read the pairs of a document, which has one text or several."""
        if not any(text.text.strip() for text in texts):
            say(f"{path} has no text")
            return
        read = [(text, *self._read_text(text, path)) for text in texts]
        names = [(single_spaced(one.span.of(text.text)), one.kind) for text, own, _ in read for one in own]
        entities = EntityNames.of(names)
        self.documents[key] = entities
        both_orders = not self._task.has_directed_labels
        for text, own, sentences in read:
            for pair in pair_entities(text, own, sentences, self._window, both_orders):
                if not self._permitted.permits(pair.instance.head_type, pair.instance.tail_type):
                    self._left_out += 1
                elif not (self._merges and entities.are_one(*mention_names(pair.instance))):
                    place = Place(path, text.text, pair.start, key)
                    self.pairs.append(AskedPair(pair.instance, self._task.example(pair.instance), place))

    def _read_text(self, text: TextDocument, path: str) -> tuple[list[Entity], list[Span]]:
        """Return the entities and sentences of a text."""
        with locate_errors(Path(path), "text" if text.id == path else f"text {text.id!r}"):
            recognised = self._recogniser.recognise(text.text)
            sentences = self._find_sentences(text, recognised, path)
        types = self._pairing.types
        entities = [Entity(_trim(one.span, text.text), types.get(one.kind, one.kind)) for one in recognised.entities]
        self._types |= {one.kind for one in entities}
        return entities, sentences

    def _find_sentences(self, text: TextDocument, recognised: Recognised, path: str) -> list[Span]:
        if self._window.unit == "words":
            return []
        has_sentences = text.sentences is not None or recognised.sentences is not None
        if not (has_sentences or self._pairing.sentences or self._names_language):
            say(f"{path}: sentence ends are found by the rule for English; name another language with --language")
            self._names_language = True
        language = self._pairing.language or self._recogniser.language or "en"
        return find_sentences(text, recognised, language, self._pairing.sentences)

    def advise(self) -> None:
        """Say how types could fit, where pairs were left out and a recognised type is none of training's."""
        known = self._permitted.types
        unknown = sorted(kind for kind in self._types if kind and kind not in known)
        if self._left_out and unknown:
            say(
                f"{self._left_out} pairs are left out, as training shows no relation between their types. Of the "
                f"recogniser's types it does not have {', '.join(unknown)}; it has {', '.join(known)}. Say which is "
                f"which with --type {unknown[0]}={known[0]}, or ask all pairs with --any-pair"
            )


def _trim(span: Span, text: str) -> Span:
    """Return a span without white space at its ends."""
    words = span.of(text)
    start = span.start + len(words) - len(words.lstrip())
    return Span(start, start + len(words.strip()))
