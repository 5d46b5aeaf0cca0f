"""Train a small model, and search with it from LangChain, LlamaIndex, Haystack, and sentence-transformers with faiss.

Run it where the packages are (``pip install 'retrograd[builtin,faiss,sentence-transformers,langchain,llama-index,
haystack]'``), about a minute without a network: ``python examples/handover.py FOLDER``. Each line that it prints is the
share of the five best passages that a framework has in common with ``model.search``; 1.00 is all.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import retrograd as rg

__all__ = ["main"]

PASSAGES = [
    ("p1", "Kettles", "The kettle holds tea."),
    ("p2", "Ada Lovelace", "Ada Lovelace wrote the first program."),
    ("p3", "Floods", "Heavy rain caused the flood."),
    ("p4", "Cars", "The wheel is a part of the car."),
    ("p5", "Boxes", "Inside the box lay a letter."),
    ("p6", "Charles Babbage", "Charles Babbage drew a machine that was never built."),
    ("p7", "Rivers", "The river rose over its banks."),
    ("p8", "", "A cup is a small bowl with a handle."),
]
QUESTIONS = [
    {"question": "What does the kettle hold?", "answers": ["tea"]},
    {"question": "Who wrote the first program?", "answers": ["Ada Lovelace"]},
    {"question": "What caused the flood?", "answers": ["heavy rain"]},
    {"question": "What is the wheel a part of?", "answers": ["the car"]},
]
K = 5


def train(folder: Path, retriever: str, generator: str) -> rg.Run:
    """Train one epoch on four questions over eight passages."""
    base = rg.KnowledgeBase.from_passages(rg.Passage(*passage) for passage in PASSAGES)
    task = rg.QuestionAnswering(query_prefix="question: ", passage_prefix="passage: ")
    model = rg.RagModel.from_pretrained(retriever=retriever, generator=generator, task=task, base=base)
    config = rg.TrainingConfig(epochs=1, batch_size=2, passages=4)
    return rg.train(model, QUESTIONS, eval_examples=QUESTIONS, out=folder / "run", config=config)


def langchain(run: rg.Run) -> Callable[[str], list[str]]:
    """Return a search by LangChain."""
    from retrograd.integrations.langchain import RetrogradRetriever

    retriever = RetrogradRetriever(model=run.model, k=K)
    return lambda question: [str(document.id) for document in retriever.invoke(question)]


def llama_index(run: rg.Run) -> Callable[[str], list[str]]:
    """Return a search by LlamaIndex."""
    from retrograd.integrations.llama_index import RetrogradRetriever

    retriever = RetrogradRetriever(run.model, k=K)
    return lambda question: [node.node_id for node in retriever.retrieve(question)]


def haystack(run: rg.Run) -> Callable[[str], list[str]]:
    """Return a search by a pipeline of Haystack."""
    from haystack import Pipeline

    from retrograd.integrations.haystack import RetrogradRetriever

    pipeline = Pipeline()
    pipeline.add_component("retriever", RetrogradRetriever(run.model, k=K))

    def search(question: str) -> list[str]:
        result = pipeline.run({"retriever": {"query": question}})
        return [document.id for document in result["retriever"]["documents"]]

    return search


def raw_texts(run: rg.Run) -> Callable[[str], list[str]]:
    """Return a search by sentence-transformers and faiss alone, from texts as they stand in a user's files."""
    import faiss
    from sentence_transformers import SentenceTransformer

    folder = run.path / "model" / "retriever" / "query"
    encoder = SentenceTransformer(str(folder), device="cpu")
    template = json.loads((folder / "texts.json").read_text(encoding="utf-8"))["passage"]["plain_text"]

    def join(title: str, text: str) -> str:
        values = {"{title}": title, "{text}": text}
        return re.sub(r"\{title\}|\{text\}", lambda match: values[match.group()], template) if title else text

    texts = [join(title, text) for _, title, text in PASSAGES]
    vectors = encoder.encode_document(texts, show_progress_bar=False)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)

    def search(question: str) -> list[str]:
        _, rows = index.search(encoder.encode_query([question], show_progress_bar=False), K)
        return [PASSAGES[row][0] for row in rows[0]]

    return search


SEARCHES = {
    "LangChain": langchain,
    "LlamaIndex": llama_index,
    "Haystack": haystack,
    "sentence-transformers and faiss": raw_texts,
}


def overlap(run: rg.Run, search: Callable[[str], list[str]]) -> float:
    """Return the share of the five best passages that a search has in common with the model's."""
    shares = []
    for record in QUESTIONS:
        question = str(record["question"])
        expected = {hit.passage.id for hit in run.model.search(question, k=K)}
        shares.append(len(expected & set(search(question))) / K)
    return sum(shares) / len(shares)


def main(
    folder: Path, retriever: str = "builtin:minilm", generator: str = "builtin:minilm-seq2seq"
) -> dict[str, float]:
    """Train, search in every way, and return the overlaps by name."""
    os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "false")
    run = train(folder, retriever, generator)
    return {name: overlap(run, make(run)) for name, make in SEARCHES.items()}


if __name__ == "__main__":
    for name, share in main(Path(sys.argv[1])).items():
        sys.stdout.write(f"{name}: overlap@{K} = {share:.2f}\n")
