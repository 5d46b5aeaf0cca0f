"""Questions as text: what each side reads, what a prompt loses first, scores counted by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from retrograd.data.examples import GroundedExample, with_target
from retrograd.data.questions import read_questions
from retrograd.tasks.answer_scores import ANSWER_METRICS, answer_scores, bleu_signature
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.tasks.relevance import answer_rows, gold_rows, rows_by_id
from retrograd.types import Example, Passage, Prompt, UserError

SQUAD = Path(__file__).parents[2] / ".." / "shared" / "data" / "squad_dev_qa"
PASSAGES = (Passage("a", "Tides", "Water rises twice a day."), Passage("b", "", "The moon pulls."))
QUESTION = Example("1", "What pulls the water?", ("the moon", "moon"))


def test_the_prior_never_reads_the_target() -> None:
    task = QuestionAnswering(query_prefix="find: ")
    assert task.query_text(QUESTION) == "find: What pulls the water?"
    assert task.query_text(QUESTION) == task.query_text(replace(QUESTION, targets=()))
    assert task.posterior_text(QUESTION, "the sun") == "find: What pulls the water? [SEP] the sun"


def test_a_prompt_can_spare_its_passages_and_never_the_question() -> None:
    task = QuestionAnswering(instruction="Short answers.")
    prompt = task.prompt(QUESTION, PASSAGES)
    assert prompt == (
        "Short answers.\nPassage: Tides: Water rises twice a day.\nPassage: The moon pulls.\n"
        "Question: What pulls the water?\nAnswer:"
    )
    assert prompt.shorten(0) == task.prompt(QUESTION, ()) == "Short answers.\nQuestion: What pulls the water?\nAnswer:"
    assert prompt.shorten(40) == "Short answers.\nPassage: Tides: Water rises twice a day" + prompt[prompt.spare[1] :]
    bare = QuestionAnswering(instruction="")
    assert bare.prompt(QUESTION, ()) == "Question: What pulls the water?\nAnswer:"
    assert bare.prompt(QUESTION, PASSAGES[1:]) == "Passage: The moon pulls.\nQuestion: What pulls the water?\nAnswer:"
    assert isinstance(prompt, Prompt)


def test_scores_counted_by_hand() -> None:
    task = QuestionAnswering(no_answer="cannot answer")
    examples = [QUESTION, Example("2", "Who?", ("Ann Lee",)), Example("3", "?", ("x",)), Example("4", "?", ("x",))]
    scores = task.score(examples, ["Moon!", "Ann", "", "Cannot answer."])
    assert scores["exact_match"] == 25.0
    assert scores["f1"] == pytest.approx(100 * (1 + 2 / 3 + 0 + 0) / 4)
    assert (scores["empty_rate"], scores["no_answer_rate"]) == (25.0, 25.0)
    assert set(ANSWER_METRICS) - {"regex_match"} < set(scores)
    assert task.primary_metric == "exact_match"


def test_scoring_refuses_what_it_cannot_score() -> None:
    with pytest.raises(UserError, match="1 answers to 2 examples"):
        answer_scores([QUESTION, QUESTION], ["moon"])
    with pytest.raises(UserError, match="'9' has no target"):
        answer_scores([Example("9", "?")], ["moon"])


def test_the_signature_tells_bleus_apart_that_do_not_compare() -> None:
    assert "nrefs:2" in bleu_signature([QUESTION])
    assert "nrefs:1" in bleu_signature([Example("2", "Who?", ("Ann Lee",))])


def test_one_target_a_visit() -> None:
    example = GroundedExample("1", "?", ("a", "b", "c"), ("p",))
    assert with_target(example, 2) == GroundedExample("1", "?", ("c", "a", "b"), ("p",))
    assert with_target(example, 0) == example
    with pytest.raises(UserError, match="none at position 3"):
        with_target(example, 3)


def test_gold_and_answer_rows() -> None:
    base = [Passage("d#0", "", "The moon pulls."), Passage("d#1", "", "Moonlight."), Passage("e", "", "New moon")]
    rows = rows_by_id(base)
    examples = [GroundedExample("1", "?", ("sun", "moon"), ("d",)), GroundedExample("2", "?", ("light",), ("e", "d#1"))]
    assert gold_rows([*examples, QUESTION], rows) == [(0, 1), (1, 2), ()]
    assert answer_rows([*examples, Example("3", "?")], [one.text for one in base]) == [(0, 2), (), ()]
    with pytest.raises(UserError, match=r"gold passage 'f' of example '4' is not in the knowledge base; known: 'd', "):
        gold_rows([GroundedExample("4", "?", (), ("f",))], rows)


@pytest.mark.skipif(not SQUAD.exists(), reason="SQuAD as open-domain QA is not in data/squad_dev_qa beside the project")
def test_the_sharp_test_keeps_the_gold_passage_and_little_else() -> None:
    """Counted on the training questions: 1.5 passages a question; where there are any, the gold one is among 99.5 %."""
    questions = list(read_questions(SQUAD / "dev.jsonl"))
    base = [Passage(one.id, one.title, one.text) for one in _squad_passages()]
    gold = gold_rows(questions, rows_by_id(base))
    support = QuestionAnswering().support(base)
    found = [set(support(question)) for question in questions]
    assert sum(map(len, found)) / len(found) < 3
    kept = [bool(rows & set(wanted)) for rows, wanted in zip(found, gold, strict=True) if rows]
    assert len(kept) / len(found) > 0.85
    assert sum(kept) / len(kept) > 0.97
    holding = answer_rows(questions, [one.text for one in base])
    assert sum(bool(set(a) & set(g)) for a, g in zip(holding, gold, strict=True)) / len(gold) > 0.99


def _squad_passages() -> list[Passage]:
    lines = (SQUAD / "passages.jsonl").read_text(encoding="utf-8").splitlines()
    return [Passage(**json.loads(line)) for line in lines]
