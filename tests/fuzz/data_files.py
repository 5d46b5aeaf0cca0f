"""The readers of data and settings, each with a small sound file."""

from __future__ import annotations

import gzip
import io
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
from tests.data.documents.pdf_files import encrypted, pdf
from tests.data.relations.samples import JSON_SAMPLES, SAMPLES
from tests.fuzz.damage import json_lines, json_text
from tests.fuzz.fuzzing import Reader

from retrograd.data.dialogues import read_dialogues, read_doc2dial_documents
from retrograd.data.documents.windows import Windows
from retrograd.data.feedback import Verdict, teach
from retrograd.data.field_maps import PassageFields, QuestionFields, RelationFields
from retrograd.data.passages import read_corpus
from retrograd.data.qrels import read_qrels
from retrograd.data.questions import read_questions
from retrograd.data.relations.entity_pairs import has_entities, read_entity_pairs
from retrograd.data.relations.formats import read_relations
from retrograd.data.relations.instance import mark
from retrograd.data.relations.readers.docred import read_documents
from retrograd.data.relations.recognisers.gazetteer import read_gazetteer, read_names
from retrograd.data.relations.recognisers.recogniser import Entity, Recognised
from retrograd.data.relations.tacred import read_patch
from retrograd.data.relations.text_documents import TextDocument, read_text_document
from retrograd.data.relations.text_pairs import find_sentences, pair_entities, parse_window
from retrograd.data.splitting import Splitting, split_passages
from retrograd.data.squad import read_contexts
from retrograd.experiments.experiment import Experiment
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.studies.compare import read_answers
from retrograd.studies.extraction.merging import EntityNames
from retrograd.studies.validation.validate import validate_files
from retrograd.tasks.relations.verbalisation import derive_phrases, open_verbalisation
from retrograd.types import Passage, Span, UserError
from retrograd.util.optional import is_installed
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


_PAGE = "# Ada Lovelace\n\nAda wrote to Bab. She lives in Ulm; the Ulm of\n* green tea\n| Bab | 東京 |\n".encode()
_GAZETTEER = [
    {"name": "Ada Lovelace", "type": "P"},
    {"pattern": "Ulm", "label": "C", "id": 7},
    {"name": "green tea", "type": "D"},
]


def _recognised(path: Path) -> object:
    """The entities of a page, and their pairs, by the names of a file."""
    text = _PAGE.decode()
    entities = read_gazetteer(path).recognise(text)
    return entities, _pairs_of(TextDocument.plain("page", text), entities)


def _pairs_of(document: TextDocument, entities: Recognised) -> object:
    sentences = find_sentences(document, entities, "en")
    windows = (parse_window("sentence"), parse_window("3"), parse_window("9 words"))
    pairs = [[*pair_entities(document, entities.entities, sentences, one, both_orders=True)] for one in windows]
    names = EntityNames.of((" ".join(one.span.of(document.text).split()), one.kind) for one in entities.entities)
    return pairs, names


def _page(path: Path) -> object:
    """The pairs of the words of a page that have a capital."""
    document = read_text_document(path)
    words = [Entity(Span(*found.span()), "") for found in re.finditer(r"[A-Z]\w+(?: [A-Z]\w+)*", document.text)]
    return document, _pairs_of(document, Recognised(tuple(words)))


def _relations(form: str, fields: RelationFields = RelationFields()) -> Callable[[Path], object]:  # noqa: B008 (a value)
    def read(path: Path, refuse: Refuse) -> Iterable[object]:
        for one in read_relations(path, form, refuse, fields=fields):
            derive_phrases([one.relation or ""])
            yield one, mark(one.text, one.head, one.tail)

    return every(read)


_BRAT_TEXT = "Ada Holm sang.\r\nIn Århus she met Ove of Ulm.\n".encode()
_BRAT = b"T1\tPerson 0 3;4 8\tAda Holm\nT2\tCity 40 43\tUlm\nA1\tNo T1\nR1\tfrom Arg1:T1 Arg2:T2\t\n"


def _beside(text: bytes, annotations: bytes) -> Callable[[Path], object]:
    """The pair of files of brat, one of which is what stands in the path, and is empty here."""

    def read(path: Path) -> object:
        if not os.path.isfile(path):
            return _relations("brat")(path)
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "a.txt").write_bytes(text or path.read_bytes())
            Path(folder, "a.ann").write_bytes(annotations or path.read_bytes())
            return _relations("auto")(Path(folder, "a.ann"))

    return read


def _documents() -> bytes:
    """A file of spaCy with one document of two entities, related in both directions."""
    import spacy
    from spacy.tokens import DocBin, Span

    doc = spacy.blank("en")("Ada lives in Ulm .")
    doc.ents = [Span(doc, 0, 1, "PER"), Span(doc, 3, 4, "LOC")]
    doc.user_data["._.", "rel", None, None] = {(0, 3): {"lives in": 1.0}, (3, 0): {"home of": 0.7, "none": 0.0}}
    return DocBin(docs=[doc], store_user_data=True).to_bytes()


_TABLE_OF_RELATIONS = (
    b'id;text;head;tail;relation;note\n1;"Kit feeds Rex; Rex eats.";Kit;[10, 13];feeds;x\n'
    b'2;"""Kit"" sings to Rex.";"[1, 4]";Rex;;\n'
)
_RELATIONS_ELSEWHERE = [
    {"s": {"w": "Kit feeds Rex."}, "a": {"from": 0, "to": 3}, "b": ["Rex", "DOG"], "r": "feeds", "nr": i}
    for i in range(2)
]
_WHERE = RelationFields(text="s.w", head="[a.from, a.to]", tail="b[0]", tail_type="b[1]", relation="r", id="nr")


# ---- questions, dialogues, passages ----------------------------------------------------------------------------------

_VERDICTS = [
    {"query": "who ?", "answer": "Ann", "verdict": "right", "target": "Ann", "right_passages": ["p1"]},
    {"query": "who ?", "answer": "Ann", "verdict": "wrong", "target": None, "wrong_passages": ["p1"]},
    {"turns": [{"role": "user", "text": "who ?"}], "answer": "Ann", "verdict": "corrected", "target": "Lee"},
]
_QUESTIONS = [
    {"id": "q1", "question": "who wrote it", "answers": ["Ann", "A. Lee"], "gold_passages": ["p1"]},
    {"query_id": 7, "query": "when ?", "answer": {"value": "1900", "aliases": ["the year 1900"]}},
    {"QuestionId": "t", "Question": "where", "Answer": {"text": "here"}, "is_impossible": False},
]
_KILT = [
    {"id": "k", "input": "who wrote it", "output": [{"answer": "Ann", "provenance": [{"wikipedia_id": 7}]}]},
    {"id": "l", "input": "when", "output": [{"answer": "1900"}, {"provenance": []}]},
]
_COLUMNS = {"query": {"0": "who", "1": "when"}, "answers": {"0": ["Ann"], "1": ["1900"]}, "query_id": {"0": 1, "1": 2}}
_CSV = b'id,question,answers,note\n1,who wrote it,"[\'Ann\', \'A. Lee\']",\n2,"when, or ""why""\nnot ?",1900,x\n'
_UNKNOWN = [{"Frage": f"wo ist {i} ?", "Antworten": [{"t": f"hier {i}"}], "nr": str(i)} for i in range(3)]
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
_CHATS = [
    {"id": "c", "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": [{"text": "ho"}]}]},
    {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    {"task_id": "t", "input": [{"speaker": "user", "text": "hi"}], "targets": [{"speaker": "agent", "text": "ho"}],
     "contexts": [{"document_id": "d", "text": "ho ho"}]},
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
_DUMPS = [
    {"id_": "n", "metadata": {"file_name": "a/b.txt"}, "text": "One sentence.", "relationships": {}},
    {"__data__": {"id_": "m", "metadata": {}, "text_resource": {"text": "Of LlamaIndex."}}, "__type__": "1"},
    {"page_content": "Of LangChain.", "metadata": {"source": "x"}, "id": None, "type": "Document"},
    {"id": "h", "content": "Of Haystack.", "meta": {"title": "T", "file_path": "x"}},
]
_STORE = {"docstore/metadata": {"n": {}}, "docstore/data": {"n": {"__data__": _DUMPS[0]}}, "docstore/ref_doc_info": {}}
_UNKNOWN_PASSAGES = [{"nr": i, "kopf": {"t": f"T {i}"}, "Inhalt": [f"The cup {i} holds tea."]} for i in range(3)]
_PASSAGE_MAP = PassageFields(text="Inhalt[0]", title="kopf.t", id="nr")
_COLLECTION = b'0\tThe "cup" holds tea.\nD7\tRain falls.\n'
_PASSAGE_TABLE = b'id,title,text\na,Cups,"Cups hold ""tea"",\nnot rain."\nb,,Rain falls.\n'
_MARKDOWN = b"""---
title: "Of cups"
---
Before.

# The [cup](x) {#cup}
It holds tea. It is blue.
```sh
# no heading
```
Use
---
- one
- two
"""
_HTML = """<!DOCTYPE html><html><head><meta charset="utf-8"><title>Of cups</title><style>p {}</style>
<script>if (a < b) "<!--"</script></head><body><nav>Home</nav><h1>The <b>cup</b> ¶</h1><p>It holds&nbsp;tea. It is
blue.<br>And old.<!-- no --></p><ul><li>one<li>two</ul><pre>a = 1
b</pre><table><tr><td>x</td></tr></table></body></html>
""".encode()
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


_MAP = QuestionFields(question="Frage", answers="Antworten[*].t", id="nr")


def _arrow_files(records: Sequence[dict[str, object]]) -> Iterable[tuple[str, bytes]]:
    """Yield records as Parquet, and as a file and a stream of Arrow. Their ids differ."""
    table = pa.Table.from_pylist([{**record, "id": f"{i}"} for i, record in enumerate(records)])
    parquet = io.BytesIO()
    pyarrow.parquet.write_table(table, parquet)
    yield "Parquet", parquet.getvalue()
    for name, make in (("Arrow file", pa.ipc.new_file), ("Arrow stream", pa.ipc.new_stream)):
        content = io.BytesIO()
        with make(content, table.schema) as writer:
            writer.write_table(table)
        yield name, content.getvalue()


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
    for sample in JSON_SAMPLES:
        form, named = "json" if sample.is_whole else "lines", f"{sample.format}, {sample.name}"
        yield Reader("relations", named, "a.json", form, sample.content(), _relations("auto"))
        yield Reader("relations", f"{named}, named", "a.json", form, sample.content(), _relations(sample.format))
    yield Reader("relations", "tables", "a.csv", "text", _TABLE_OF_RELATIONS, _relations("auto"))
    elsewhere = json_lines(_RELATIONS_ELSEWHERE)
    yield Reader("relations", "mapped fields", "a.jsonl", "lines", elsewhere, _relations("auto", _WHERE))
    yield Reader("relations", "brat, annotations", "a.ann", "text", _BRAT, _beside(_BRAT_TEXT, b""))
    yield Reader("relations", "brat, texts", "a.ann", "text", _BRAT_TEXT, _beside(b"", _BRAT))
    if is_installed("spacy"):
        yield Reader("relations", "documents of spaCy", "a.spacy", "bytes", _documents(), _relations("auto"), cost=4)
    for name, content in _arrow_files([{**_TOKENS[0]}] * 3):
        yield Reader("relations", f"tokens, {name}", "a.bin", "bytes", content, _relations("auto"))
    yield Reader("relations", "templates", "a.toml", "text", _WORDS, lambda p: open_verbalisation(str(p)).to_record())
    entities = [{"start": 0, "end": 3, "type": "P"}, {"start": 4, "end": 9}]
    texts = json_lines([{"id": "a", "text": "Ada wrote to Bab.", "entities": entities}] * 1)
    pairs: Callable[[Path], object] = lambda p: (has_entities(p), [*read_entity_pairs(p, both_orders=True)])  # noqa: E731
    yield Reader("relations", "text with entities", "a.jsonl", "lines", texts, pairs)
    names = json_lines(_GAZETTEER)
    yield Reader("relations", "names, JSON Lines", "a.jsonl", "lines", names, every(read_names))
    table = b'name\ttype\nAda Lovelace\tP\nUlm\tC\n\n"green tea"\tD\n'
    yield Reader("relations", "names, table", "a.tsv", "text", table, every(read_names))
    yield Reader("relations", "gazetteer", "a.tsv", "text", table, _recognised)
    yield Reader("relations", "Markdown", "a.md", "text", _PAGE, _page)
    docred = SAMPLES["docred: entities of mentions"].content()
    yield Reader("relations", "documents of DocRED", "a.json", "json", docred, every(read_documents))

    questions = every(lambda p, refuse: read_questions(p, "auto", "keep", refuse))
    yield Reader("questions", "JSON Lines", "a.jsonl", "lines", json_lines(_QUESTIONS), questions)
    yield Reader("questions", "JSON list", "a.json", "json", json_text(_QUESTIONS), questions)
    yield Reader("questions", "KILT", "a.jsonl", "lines", json_lines(_KILT), questions)
    yield Reader("questions", "columns, MS MARCO", "a.json", "json", json_text(_COLUMNS), questions)
    yield Reader("questions", "CSV", "a.csv", "text", _CSV, questions)
    mapped = every(lambda p, refuse: read_questions(p, "auto", "keep", refuse, fields=_MAP))
    yield Reader("questions", "mapped fields", "a.jsonl", "lines", json_lines(_UNKNOWN), mapped)
    for name, content in _arrow_files(_QUESTIONS[:1] * 3):
        yield Reader("questions", name, "a.bin", "bytes", content, questions)
    yield Reader("questions", "TriviaQA", "a.json", "json", json_text(_TRIVIA), questions)
    yield Reader("questions", "tables of DPR", "a.tsv", "text", _TABLE, questions)
    verdicts = every(lambda p, refuse: teach(p, Verdict.dialogue, refuse))
    yield Reader("feedback", "verdicts", "feedback.jsonl", "lines", json_lines(_VERDICTS), verdicts)
    yield Reader("questions", "SQuAD", "a.json", "json", json_text(_SQUAD), questions)

    judged: Callable[[Path], object] = lambda p: read_qrels(p)  # noqa: E731
    yield Reader("questions", "judgements, JSON", "a.json", "json", json_text({"q": {"a": 1, "b": 0}}), judged)
    yield Reader("questions", "judgements, columns", "a.tsv", "text", b"query-id\tcorpus-id\tscore\nq\ta\t1\n", judged)

    dialogues = every(lambda p, refuse: read_dialogues(p, "auto", "keep", refuse))
    yield Reader("dialogues", "JSON Lines, OR-QuAC", "a.jsonl", "lines", json_lines(_DIALOGUES), dialogues)
    yield Reader("dialogues", "chats, MTRAG", "a.jsonl", "lines", json_lines(_CHATS), dialogues)
    yield Reader("dialogues", "QuAC, DoQA", "a.json", "json", json_text(_SQUAD), dialogues)
    yield Reader("dialogues", "Doc2Dial", "a.json", "json", json_text(_DOC2DIAL), dialogues)

    documents: Callable[[Path], object] = lambda p: [*_split(read_doc2dial_documents(p))]  # noqa: E731
    yield Reader("passages", "documents of Doc2Dial", "a.json", "json", json_text(_DOCUMENTS), documents)
    yield Reader("passages", "paragraphs of SQuAD", "a.json", "json", json_text(_SQUAD), lambda p: [*read_contexts(p)])
    corpus = every(lambda p, refuse: _split(read_corpus(p, "auto", refuse)))
    yield Reader("passages", "JSON Lines, BEIR", "a.jsonl", "lines", json_lines(_PASSAGES), corpus)
    yield Reader("passages", "tables of DPR", "a.tsv", "text", _TSV, corpus)
    yield Reader("passages", "tables, compressed", "a.tsv.gz", "bytes", gzip.compress(_TSV, mtime=0), corpus)
    windowed = every(lambda p, refuse: read_corpus(p, "auto", refuse, windows=Windows(3, 1)))
    for name, file, form, sound in (
        ("LlamaIndex, LangChain, Haystack", "a.jsonl", "lines", json_lines(_DUMPS)),
        ("store of LlamaIndex", "a.json", "json", json_text(_STORE)),
        ("JSON list", "a.json", "json", json_text(_PASSAGES)),
        ("CSV", "a.csv", "text", _PASSAGE_TABLE),
        ("collection of MS MARCO", "a.tsv", "text", _COLLECTION),
        ("text", "a.txt", "text", b"One sentence. Another one.\n\n\xe8\x8c\xb6\xe3\x80\x82Rain?\r\n"),
        ("Markdown", "a.md", "text", _MARKDOWN),
        ("HTML", "a.html", "text", _HTML),
        ("PDF", "a.pdf", "bytes", pdf([["One sentence. Another", "one."], ["Rain \\(fell\\)."]], "Of cups")),
        ("PDF, encrypted", "a.pdf", "bytes", encrypted(pdf([["One sentence."]]), "")),
    ):
        yield Reader("passages", name, file, form, sound, windowed)
    for name, content in _arrow_files(_PASSAGES[:1] * 3):
        yield Reader("passages", name, "a.bin", "bytes", content, corpus)
    mapped = every(lambda p, refuse: read_corpus(p, "auto", refuse, _PASSAGE_MAP))
    yield Reader("passages", "mapped fields", "a.jsonl", "lines", json_lines(_UNKNOWN_PASSAGES), mapped)
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
