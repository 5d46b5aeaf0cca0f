"""The readers of data and settings, each with a small sound file."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.fuzz.damage import json_lines, json_text
from tests.fuzz.fuzzing import Reader

from retrograd.data.dialogues import read_dialogues, read_doc2dial_documents
from retrograd.data.passages import read_corpus
from retrograd.data.qrels import read_qrels
from retrograd.data.questions import read_questions
from retrograd.data.relations.entity_pairs import has_entities, read_entity_pairs
from retrograd.data.relations.formats import read_relations
from retrograd.data.relations.instance import mark
from retrograd.data.relations.tacred import read_patch
from retrograd.data.splitting import Splitting, split_passages
from retrograd.data.squad import read_contexts
from retrograd.experiments.experiment import Experiment
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.studies.compare import read_answers
from retrograd.studies.validation.validate import validate_files
from retrograd.tasks.relations.verbalisation import derive_phrases, open_verbalisation
from retrograd.types import Passage, UserError
from retrograd.util.text_files import Refuse, read_json

__all__ = ["DATA_FILES", "REFUSING", "set_experiment"]

Refusing = Callable[[Path, Refuse], Iterable[object]]


def every(read: Refusing) -> Callable[[Path], object]:
    """As `retrograd validate` reads, past what is malformed; then as training does, to the first fault."""

    def both(path: Path) -> object:
        refused: list[UserError] = []
        try:
            found = list(read(path, refused.append))
        except UserError as error:
            refused.append(error)
            found = []
        assert all(str(error).isprintable() or str(error).encode() for error in refused)
        if not refused:
            return found
        with_first = list(read(path, _raise))
        raise AssertionError(f"{refused[0]} was refused once, and then {with_first[:3]} read")

    return both


def _raise(error: UserError) -> None:
    raise error


# ---- relations -------------------------------------------------------------------------------------------------------

_TACRED = [
    {
        "id": f"d{i}", "relation": "per:title", "token": ["Ada", "-LRB-", "the", "pilot", "-RRB-", "."],
        "subj_start": 0, "subj_end": 0, "obj_start": 2, "obj_end": 3, "subj_type": "PERSON", "obj_type": "TITLE",
        "stanford_pos": ["NNP"],
    }
    for i in range(2)
]  # fmt: skip
_OFFSETS = [
    {"id": "a", "text": "A ridge uprises.", "head": [2, 7], "tail": [8, 15], "relation": "r", "head_type": "X"},
    {"text": "A ridge uprises.", "head": [2, 7], "tail": [8, 15], "relation": "s", "metadata": {"any": 1}},
]
_TOKENS = [{"tokens": ["A", "ridge", "uprises"], "head": [1, 2], "tail": [2, 3], "relation": "r", "tail_type": "Y"}] * 2
_MARKERS = [
    {"id": "m1", "text": "<< X >> inhibits [[ Y ]].", "label": "INHIBITOR"},
    {"text": "The <e1>cup</e1> holds <e2>tea</e2>.", "relation": "holds"},
]
_SEMEVAL = (
    b'1\t"The <e1>cup</e1> holds <e2>tea</e2>."\nContent-Container(e2,e1)\nComment: of our own\n\n'
    b'2\t"A <e1>ridge</e1> uprises from the <e2>surge</e2>."\nOther\nComment:\n\n'
)
_WORDS = b"""
["per:title"]
phrase = "has the title"
template = "{subject} is {object}"
["no_relation"]
phrase = 'nothing to do'
template = "{subject} and {object}"
"""


def _relations(form: str) -> Callable[[Path], object]:
    def read(path: Path, refuse: Refuse) -> Iterable[object]:
        for one in read_relations(path, form, refuse):
            derive_phrases([one.relation or ""])
            yield one, mark(one.text, one.head, one.tail)

    return every(read)


# ---- questions, dialogues, passages ----------------------------------------------------------------------------------

_QUESTIONS = [
    {"id": "q1", "question": "who wrote it", "answers": ["Ann", "A. Lee"], "gold_passages": ["p1"]},
    {"query_id": 7, "query": "when ?", "answer": {"value": "1900", "aliases": ["the year 1900"]}},
    {"QuestionId": "t", "Question": "where", "Answer": {"text": "here"}, "is_impossible": False},
]
_TRIVIA = {"Data": [{"Question": "who", "QuestionId": "t", "Answer": {"Value": "Ann", "Aliases": ["A. Lee"]}}] * 1}
_TABLE = b'who wrote it\t[\'Ann\', \'A. Lee\']\nwhen was "it"\t["1900"]\n"quoted ""so"""\t(\'a\',)\n'
_SQUAD = {
    "data": [
        {
            "title": "T",
            "paragraphs": [
                {
                    "context": "Ann wrote it.",
                    "qas": [
                        {"id": "a", "question": "Who?", "answers": [{"text": "Ann", "answer_start": 0}]},
                        {"id": "b", "question": "When?", "answers": [], "is_impossible": True},
                        {"id": "c", "question": "Why?", "answers": {"text": ["x"]}, "orig_answer": {"text": "x"}},
                    ],
                }
            ],
        }
    ]
}
_DIALOGUES = [
    {"id": "d1", "history": ["user: hi", "agent: hello"], "question": "who?", "answer": "Ann", "gold_passages": ["p"]},
    {"qid": "d2", "history": [{"question": "a", "answer": {"text": "b"}}], "question": "c", "answer": {"text": "d"},
     "evidence": ["x", "y"], "retrieval_labels": [0, 1]},
    {"Context": ["one", "two"], "Question": "three", "Answer": ["four"], "knowledge": ["k"]},
    {"history": [{"role": "user", "text": "hi"}], "response": "ho"},
]  # fmt: skip
_TURNS = [
    {"turn_id": 1, "role": "user", "utterance": "Hi?"},
    {"turn_id": 2, "role": "agent", "utterance": "Yes.", "references": [{"sp_id": "1"}]},
]
_DOC2DIAL = {"dial_data": {"port": {"doc": [{"dial_id": "x", "doc_id": "doc", "turns": _TURNS}]}}}
_DOCUMENTS = {"doc_data": {"port": {"doc": {"title": "Times", "doc_text": "Never late. Never soon."}}}}
_PASSAGES = [
    {"id": "a", "title": "T", "text": "One sentence. Another one."},
    {"_id": 3, "title": "", "text": "Of BEIR.", "metadata": {}},
    {"id": "c", "contents": "Of Pyserini."},
]
_BASE = [{"id": "a", "title": "T", "text": "One sentence."}, {"id": 3, "text": "Another."}]
_TSV = b'id\ttext\ttitle\n1\t"Cups hold ""tea""."\tCups\n2\tRain falls.\tRain\n'


def _split(passages: Iterable[Passage]) -> Iterable[Passage]:
    return split_passages(passages, Splitting(3, 1, "sentences"))


def _built(read: Callable[[Path, Path], KnowledgeBase]) -> Callable[[Path], object]:
    """The passages of a base that is built in a file; where it is not, no file is to be left."""

    def build(path: Path) -> object:
        out = path.with_name("base.arrow")
        try:
            return list(read(path, out))
        finally:
            out.unlink(missing_ok=True)

    return build


# ---- settings, answers -----------------------------------------------------------------------------------------------


def _experiment(path: Path) -> object:
    found = Experiment.load(path)
    Experiment.from_mapping(found.to_mapping(), "again")
    return found.to_toml(), found.to_json()


def set_experiment(path: Path) -> object:
    """Each line of the file is what a ``--set`` says."""
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    return Experiment().with_settings(text.splitlines()).to_toml()


def _validated(kind: str) -> Callable[[Path], object]:
    def read(path: Path) -> object:
        return validate_files([path], kind).record()

    return read


_SETTINGS = (
    b"training.epochs=2\nname=mine\nretriever.temperature=0.1\ndata.kind=questions\ngenerator.lora_modules=['q']\n"
)


def _files() -> Iterable[Reader]:
    yield Reader("relations", "TACRED", "a.json", "json", json_text(_TACRED), _relations("auto"))
    zipped = gzip.compress(json_text(_TACRED), mtime=0)
    yield Reader("relations", "TACRED, compressed", "a.json.gz", "bytes", zipped, _relations("tacred"))
    yield Reader("relations", "TACREV patch", "a.json", "json", json_text(_TACRED), lambda p: read_patch(p).relations)
    retacred = json_text({"a": "r", "b": "s"})
    yield Reader("relations", "Re-TACRED patch", "a.json", "json", retacred, lambda p: read_patch(p).relations)
    yield Reader("relations", "SemEval", "a.txt", "text", _SEMEVAL, _relations("auto"))
    yield Reader("relations", "JSON Lines, offsets", "a.jsonl", "lines", json_lines(_OFFSETS), _relations("auto"))
    yield Reader("relations", "JSON Lines, tokens", "a.jsonl", "lines", json_lines(_TOKENS), _relations("jsonl"))
    yield Reader("relations", "marked text", "a.jsonl", "lines", json_lines(_MARKERS), _relations("auto"))
    yield Reader("relations", "templates", "a.toml", "text", _WORDS, lambda p: open_verbalisation(str(p)).to_record())
    entities = [{"start": 0, "end": 3, "type": "P"}, {"start": 4, "end": 9}]
    texts = json_lines([{"id": "a", "text": "Ada wrote to Bab.", "entities": entities}] * 1)
    pairs: Callable[[Path], object] = lambda p: (has_entities(p), [*read_entity_pairs(p, both_orders=True)])  # noqa: E731
    yield Reader("relations", "text with entities", "a.jsonl", "lines", texts, pairs)

    questions = every(lambda p, refuse: read_questions(p, "auto", "keep", refuse))
    yield Reader("questions", "JSON Lines", "a.jsonl", "lines", json_lines(_QUESTIONS), questions)
    yield Reader("questions", "JSON list", "a.json", "json", json_text(_QUESTIONS), questions)
    yield Reader("questions", "TriviaQA", "a.json", "json", json_text(_TRIVIA), questions)
    yield Reader("questions", "tables of DPR", "a.tsv", "text", _TABLE, questions)
    yield Reader("questions", "SQuAD", "a.json", "json", json_text(_SQUAD), questions)

    judged: Callable[[Path], object] = lambda p: read_qrels(p)  # noqa: E731
    yield Reader("questions", "judgements, JSON", "a.json", "json", json_text({"q": {"a": 1, "b": 0}}), judged)
    yield Reader("questions", "judgements, columns", "a.tsv", "text", b"query-id\tcorpus-id\tscore\nq\ta\t1\n", judged)

    dialogues = every(lambda p, refuse: read_dialogues(p, "auto", "keep", refuse))
    yield Reader("dialogues", "JSON Lines, OR-QuAC", "a.jsonl", "lines", json_lines(_DIALOGUES), dialogues)
    yield Reader("dialogues", "QuAC, DoQA", "a.json", "json", json_text(_SQUAD), dialogues)
    yield Reader("dialogues", "Doc2Dial", "a.json", "json", json_text(_DOC2DIAL), dialogues)

    documents: Callable[[Path], object] = lambda p: [*_split(read_doc2dial_documents(p))]  # noqa: E731
    yield Reader("passages", "documents of Doc2Dial", "a.json", "json", json_text(_DOCUMENTS), documents)
    yield Reader("passages", "paragraphs of SQuAD", "a.json", "json", json_text(_SQUAD), lambda p: [*read_contexts(p)])
    corpus = every(lambda p, refuse: _split(read_corpus(p, "auto", refuse)))
    yield Reader("passages", "JSON Lines, BEIR", "a.jsonl", "lines", json_lines(_PASSAGES), corpus)
    yield Reader("passages", "tables of DPR", "a.tsv", "text", _TSV, corpus)
    yield Reader("passages", "tables, compressed", "a.tsv.gz", "bytes", gzip.compress(_TSV, mtime=0), corpus)
    from_json, from_table = _built(KnowledgeBase.from_jsonl), _built(KnowledgeBase.from_tsv)
    yield Reader("passages", "base from JSON Lines", "a.jsonl", "lines", json_lines(_BASE), from_json)
    yield Reader("passages", "base from a table", "a.tsv", "text", _TSV, from_table)

    yield Reader("settings", "experiment.toml", "a.toml", "text", Experiment().to_toml().encode(), _experiment)
    yield Reader("settings", "experiment.json", "a.json", "json", Experiment().to_json().encode(), _experiment)
    yield Reader("settings", "--set", "a.txt", "text", _SETTINGS, set_experiment)
    yield Reader("settings", "any JSON", "a.json", "json", json_text({"a": [1, {"b": None}]}), read_json)
    answers = json_lines(
        [{"id": "a", "answer": "b", "passages": [{"id": "p", "weight": 0.5}]}, {"id": 1, "answer": "c"}]
    )
    yield Reader("settings", "predictions.jsonl", "predictions.jsonl", "lines", answers, read_answers)

    for kind, file, sound in (
        ("relations", "a.jsonl", json_lines(_OFFSETS)),
        ("questions", "a.jsonl", json_lines(_QUESTIONS)),
        ("dialogue", "a.jsonl", json_lines(_DIALOGUES)),
        ("corpus", "a.jsonl", json_lines(_PASSAGES)),
    ):
        yield Reader("validate", kind, file, "lines", sound, _validated(kind), cost=4)


DATA_FILES = tuple(_files())
REFUSING = tuple(reader for reader in DATA_FILES if reader.name != "--set")
