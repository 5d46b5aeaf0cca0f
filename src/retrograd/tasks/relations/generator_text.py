"""The texts that the generator reads: neighbours, a description of the entities, and RAG4RE's prompt in our own words.

RAG4RE's prompt is the question, an example, the sentence, its entities, the relations. The parts and their order are
those of Efeoglu & Paschke 2024 (arXiv 2404.13397, 2406.14745): definition, question, example, sentence, head, tail,
relation types, form of the answer. With and without retrieval the prompts differ in the example alone, and the example
alone is what a prompt can spare. The list of relations, half of such a prompt, can be left out: a generator that is
trained on its answers, or chooses among them, learns them without.
"""

from __future__ import annotations

from collections.abc import Sequence

from retrograd.data.relations.instance import unmark
from retrograd.tasks.relations.verbalisation import words_of
from retrograd.types import Passage, Prompt

__all__ = [
    "INPUT_STYLES",
    "NEIGHBOUR_STYLES",
    "describe_entities",
    "format_instruction",
    "format_instruction_example",
    "neighbour_text",
    "split_marked",
]

NEIGHBOUR_STYLES = ("labelled", "unlabelled", "label only")
"""What a retrieved instance adds to the generator's prompt: phrase and sentence, the sentence, or the phrase."""

INPUT_STYLES = ("marked", "described", "instructed", "instructed, no list")
"""How the generator reads the query: the marked sentence; both entities by name and type, then the bare sentence; or
that sentence within an instruction that lists the relations, or does not."""

_DEFINITION = "A relation says what one thing in a sentence, the head, is to another thing in it, the tail."
_QUESTION = "Which of the listed relations does the sentence express?"
_OPEN_QUESTION = "Which relation does the sentence express?"
_ANSWER = "Write one relation of the list exactly as it stands there, and nothing more."


def format_instruction(
    sentence: str, head: str, tail: str, relations: Sequence[str] | None, examples: Sequence[str]
) -> Prompt:
    """Return the prompt of one sentence with its neighbours.

    ``examples`` are the texts of the neighbours, best first; none is the prompt without retrieval. ``relations`` None
    is the prompt without their list.
    """
    listed = [] if relations is None else [f"Relations: {'; '.join(relations)}", _ANSWER]
    before = f"{_DEFINITION}\n{_OPEN_QUESTION if relations is None else _QUESTION}"
    question = [f"Sentence: {sentence}", f"Head: {head}", f"Tail: {tail}", *listed, "Relation:"]
    after = "".join(f"\n{line}" for line in question)
    return Prompt(before, "".join(f"\nExample: {example}" for example in examples), after)


def format_instruction_example(passage: Passage, style: str) -> str:
    """Return the text of a neighbour within an instruction, in one of `NEIGHBOUR_STYLES`."""
    sentence, head, tail = split_marked(passage.text)
    relation = f"The relation of {head} to {tail} is: {passage.title}"
    if style == "label only":
        return relation
    return sentence if style == "unlabelled" else f"{sentence} {relation}"


def neighbour_text(passage: Passage, style: str) -> str:
    """Return a neighbour in one of `NEIGHBOUR_STYLES`: ``phrase : sentence``, the sentence, or the phrase alone."""
    if style == "unlabelled":
        return passage.text
    if style == "label only":
        return passage.title
    return f"{passage.title} : {passage.text}"


def describe_entities(head: str, tail: str, types: tuple[str, str]) -> str:
    """Return the question about two entities, with the types of those that have one."""
    kinds = [f"{name} is tagged as {words_of(kind)}." for name, kind in zip((head, tail), types, strict=True) if kind]
    return " ".join([f"What is {head} to {tail}?", *kinds, "Read:"])


def split_marked(marked: str) -> tuple[str, str, str]:
    """Return the sentence without marks, head and tail. Raises `UserError` where nothing is marked."""
    sentence, *spans = unmark(marked)
    head, tail = (" ".join(span.of(sentence).split()) for span in spans)
    return sentence, head, tail
