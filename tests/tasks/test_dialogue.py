"""Dialogues as text: the last turn first for retrievers, the natural order for generators, and what goes first."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from retrograd.data.dialogues import read_dialogues
from retrograd.data.examples import DialogueExample, Turn, dialogue_example, with_knowledge
from retrograd.models.inputs.prompt_tokens import PromptTokens
from retrograd.tasks.dialogue import GroundedDialogue, GroundedPrompt, knowledge_f1
from retrograd.tasks.relevance import gold_rows, rows_by_id
from retrograd.types import Example, Passage, UserError

DOC2DIAL = Path(__file__).parents[2] / ".." / "shared" / "data" / "doc2dial"
TURNS = (Turn("user", "Hello."), Turn("agent", "Yes?"), Turn("user", "Is the  ferry\nlate?"))
EXAMPLE = dialogue_example("7", TURNS, ("By an hour.", "Late."), ("f#0",))
PASSAGES = (Passage("a", "Ferry", "It runs late in fog."), Passage("b", "", "Bring a coat."))


def test_it_reads_a_history_of_turns() -> None:
    assert EXAMPLE.query == "user: Hello.\nagent: Yes?\nuser: Is the ferry late?"
    with pytest.raises(UserError, match="turns is -1"):
        GroundedDialogue(turns=-1)


def test_retrievers_read_the_last_turn_first() -> None:
    task = GroundedDialogue(user_name="visitor", query_prefix="find: ")
    assert task.query_text(EXAMPLE) == "find: Is the ferry late? Yes? Hello."
    assert replace(task, turns=1).query_text(EXAMPLE) == "find: Is the ferry late?"
    assert replace(task, turns=0).query_text(EXAMPLE) == task.query_text(EXAMPLE)
    assert task.query_text(Example("1", "Is it late?")) == "find: Is it late?"
    # The target stands where no cut reaches it, before the older turns.
    assert task.posterior_text(EXAMPLE, "Yes.") == ("find: Is the ferry late? [SEP] Yes. [SEP] Yes? Hello.")
    assert task.posterior_text(Example("1", "Late?"), "Yes.") == "find: Late? [SEP] Yes."
    assert task.query_text(replace(EXAMPLE, targets=())) == task.query_text(EXAMPLE)


def test_the_generator_reads_passages_and_then_the_dialogue_in_order() -> None:
    task = GroundedDialogue(instruction="Go on.")
    prompt = task.prompt(EXAMPLE, PASSAGES)
    assert prompt == (
        "Go on.\nPassage: Ferry: It runs late in fog.\nPassage: Bring a coat."
        "\nuser: Hello.\nagent: Yes?\nuser: Is the ferry late?\nagent:"
    )
    assert task.prompt(EXAMPLE, ()) == "Go on.\nuser: Hello.\nagent: Yes?\nuser: Is the ferry late?\nagent:"
    bare = GroundedDialogue(instruction="")
    assert bare.prompt(EXAMPLE, PASSAGES[1:]).startswith("Passage: Bring")
    assert bare.prompt(EXAMPLE, ()) == "user: Hello.\nagent: Yes?\nuser: Is the ferry late?\nagent:"
    assert bare.prompt(Example("1", "Late?"), ()) == "user: Late?\nagent:"


def test_a_prompt_loses_other_passages_then_old_turns_then_the_best_passage() -> None:
    prompt = GroundedDialogue(instruction="Go on.").prompt(EXAMPLE, PASSAGES)
    last = "\nuser: Is the ferry late?\nagent:"
    best, other, old = (
        "\nPassage: Ferry: It runs late in fog.",
        "\nPassage: Bring a coat.",
        "\nuser: Hello.\nagent: Yes?",
    )
    spare = len(best + other + old)
    assert prompt.shorten(spare) == prompt
    assert prompt.shorten(spare - 6) == f"Go on.{best}{other[:-6]}{old}{last}"
    assert prompt.shorten(spare - len(other)) == f"Go on.{best}{old}{last}"
    # A turn goes as a whole.
    assert prompt.shorten(spare - len(other) - 1) == f"Go on.{best}\nagent: Yes?{last}"
    assert prompt.shorten(spare - len(other) - 14) == f"Go on.{best}{last}"
    assert prompt.shorten(len(best) - 5) == f"Go on.{best[:-5]}{last}"
    assert prompt.shorten(0) == prompt.shorten(-3) == f"Go on.{last}"


@given(st.integers(0, 120), st.integers(0, 120), st.booleans())
def test_shortening_keeps_what_it_promises(first: int, second: int, instructed: bool) -> None:
    prompt = GroundedDialogue(instruction="Go on." if instructed else "").prompt(EXAMPLE, PASSAGES)
    for characters in (first, min(first, second)):
        prompt = prompt.shorten(characters)
        start, end = prompt.spare
        assert end - start <= characters
        assert prompt.endswith("user: Is the ferry late?\nagent:")
        assert isinstance(prompt, GroundedPrompt)
    assert prompt.shorten(end - start) == prompt


def test_a_model_with_little_room_still_reads_the_last_turn() -> None:
    prompt = GroundedDialogue(instruction="Go on.").prompt(EXAMPLE, PASSAGES)
    vocabulary = {word: i for i, word in enumerate(["[UNK]", *sorted(set(prompt.split()))])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")
    tokens = PromptTokens(fast, True, "", 0, False)
    for room in range(8, len(prompt.split()) + 1):
        (ids,) = tokens.ids([prompt], [room])
        read = [list(vocabulary)[i] for i in ids]
        assert len(read) <= room
        assert read[:2] == ["Go", "on."]
        assert read[-6:] == ["user:", "Is", "the", "ferry", "late?", "agent:"]
    assert tokens.cut == 0


def test_scores_and_knowledge_f1_counted_by_hand() -> None:
    task = GroundedDialogue()
    known = next(
        with_knowledge([EXAMPLE], {"f#0": [Passage("f#0", "", "The ferry is late by an hour today.")]}.__getitem__)
    )
    plain = Example("8", "Hi", ("Hello",))
    scores = task.score([known, plain], ["by hour", "Hello"])
    # gold "by an hour." and the answer are equal once the article is gone; the text has 6 tokens without its articles
    assert scores["exact_match"] == 100.0
    assert scores["knowledge_f1"] == pytest.approx(100 * 2 * 2 / (6 + 2))
    assert "knowledge_f1" not in task.score([EXAMPLE], ["x"])
    assert task.primary_metric == "f1"
    with pytest.raises(UserError, match="'7' has no knowledge"):
        knowledge_f1(EXAMPLE, "x")


def test_a_dialogue_needs_a_turn_to_answer() -> None:
    with pytest.raises(UserError, match="dialogue '1' has no turn"):
        dialogue_example("1", ())
    with pytest.raises(UserError, match="last turn of dialogue '1' is blank"):
        dialogue_example("1", (Turn("user", " "),))


@pytest.mark.skipif(not DOC2DIAL.exists(), reason="Doc2Dial is not in data/doc2dial beside the project")
def test_the_words_of_an_answer_find_its_passage() -> None:
    """Counted on the training turns: 3.4 passages a turn, the gold one among them wherever there are any."""
    examples = list(read_dialogues(DOC2DIAL / "dev.jsonl"))
    lines = (DOC2DIAL / "passages.jsonl").read_text(encoding="utf-8").splitlines()
    base = [Passage(**json.loads(line)) for line in lines]
    assert all(isinstance(one, DialogueExample) and one.history[-1].role == "user" for one in examples[:1])
    support = GroundedDialogue().support(base)
    found = [set(support(one)) for one in examples]
    gold = gold_rows(examples, rows_by_id(base))
    assert sum(map(len, found)) / len(found) < 8
    assert sum(bool(rows & set(g)) for rows, g in zip(found, gold, strict=True)) / len(found) > 0.9
