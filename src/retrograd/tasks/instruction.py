"""The prompt of RAG4RE in our own words: the question, an example, the sentence, its entities, the relations.

The parts and their order are those of Efeoglu & Paschke 2024 (arXiv 2404.13397, 2406.14745): definition, question,
example, sentence, head, tail, relation types, form of the answer. With and without retrieval the prompts differ in the
example alone, and the example alone is what a prompt can spare. The list of relations, half of such a prompt, can be
left out: a generator that is trained on its answers, or chooses among them, learns them without.
"""

from __future__ import annotations

from collections.abc import Sequence

from retrograd.types import Prompt

__all__ = ["instruction"]

_DEFINITION = "A relation says what one thing in a sentence, the head, is to another thing in it, the tail."
_QUESTION = "Which of the listed relations does the sentence express?"
_OPEN_QUESTION = "Which relation does the sentence express?"
_ANSWER = "Write one relation of the list exactly as it stands there, and nothing more."


def instruction(
    sentence: str, head: str, tail: str, relations: Sequence[str] | None, examples: Sequence[str]
) -> Prompt:
    """Return the prompt of one sentence with its neighbours.

    ``examples`` are the texts of the neighbours, best first; none is the prompt without retrieval. ``relations`` None
    is the prompt without their list.

    ``relations`` None is the prompt without their list.
    """
    listed = [] if relations is None else [f"Relations: {'; '.join(relations)}", _ANSWER]
    before = f"{_DEFINITION}\n{_OPEN_QUESTION if relations is None else _QUESTION}"
    question = [f"Sentence: {sentence}", f"Head: {head}", f"Tail: {tail}", *listed, "Relation:"]
    after = "".join(f"\n{line}" for line in question)
    return Prompt(before, "".join(f"\nExample: {example}" for example in examples), after)
