"""The sharp tests of support: what they take, what they refuse, and that they wait until they are asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from retrograd.tasks.support import AnswerSupport, OverlapSupport
from retrograd.tasks.text_index import TextIndex
from retrograd.types import Example, Passage, UserError


def passages(*texts: str) -> list[Passage]:
    return [Passage(str(row), "London", text) for row, text in enumerate(texts)]


BASE = passages(
    "The harbour opened in 1904 and was dredged twice.",
    "In 1904 a comet was seen over Lima.",
    "A party of two left the harbour.",
    "Nothing of the sort.",
    "Two more words.",
    "The fort guards the bay.",
)


def ask(question: str, answer: str) -> Example:
    return Example("1", question, (answer, "never used"))


def test_an_answer_supports_where_its_words_and_the_questions_stand() -> None:
    question = ask("When did the harbour open?", "1904")
    lax = AnswerSupport(most_share=1.0, question_overlap=0.0).among(BASE)
    assert lax(question) == (0, 1)
    sharp = AnswerSupport(most_share=1.0, question_overlap=0.2).among(BASE)
    assert sharp(question) == (0,)
    assert lax(ask("What?", "art")) == ()
    assert lax(ask("What?", "the fort")) == (5,)
    assert lax(ask("What guards the bay?", "a fort")) == (5,)
    assert lax(ask("Where?", "London")) == ()  # titles are not read


def test_an_answer_of_many_passages_supports_none() -> None:
    two = ask("How many?", "two")
    assert AnswerSupport(most_share=0.34, question_overlap=0.0).among(BASE)(two) == (2, 4)
    assert AnswerSupport(most_share=0.3, question_overlap=0.0).among(BASE)(two) == ()
    assert AnswerSupport(most_share=1.0, most_passages=1, question_overlap=0.0).among(BASE)(two) == ()
    assert AnswerSupport(most_share=0.0, question_overlap=0.0).among(BASE)(ask("Where?", "Lima")) == (1,)


def test_overlap_takes_what_holds_enough_and_nearly_as_much_as_the_best() -> None:
    target = ask("?", "They dredged the harbour twice.")
    assert OverlapSupport(least=0.5, most_share=1.0).among(BASE)(target) == (0,)
    assert OverlapSupport(least=0.1, near_best=0.0, most_share=1.0).among(BASE)(target) == (0, 2)
    assert OverlapSupport(least=0.9, most_share=1.0).among(BASE)(target) == ()
    assert OverlapSupport(least=0.1, near_best=0.0, most_share=1.0, most_passages=1).among(BASE)(target) == ()
    assert OverlapSupport().among(BASE)(ask("?", "zebra")) == ()
    assert OverlapSupport().among(BASE)(ask("?", "!")) == ()


def test_equal_passages_support_alike() -> None:
    base = passages("salt and iron in water", "salt and iron in water", "sand", "clay", "lime")
    assert OverlapSupport(most_share=1.0).among(base)(ask("?", "iron, salt, water")) == (0, 1)


def test_nothing_is_read_before_the_first_question() -> None:
    read: list[int] = []

    class Counted(list[Passage]):
        def __iter__(self) -> Iterator[Passage]:
            read.append(1)
            return super().__iter__()

    support = AnswerSupport(question_overlap=0.0).among(Counted(BASE))
    assert read == []
    assert support(ask("?", "Lima")) == support(ask("?", "Lima")) == (1,)
    assert read == [1]


def test_passages_that_can_be_read_once_are_kept() -> None:
    once = iter(BASE)
    support = AnswerSupport(question_overlap=0.0).among(once)
    assert list(once) == []
    assert support(ask("?", "Lima")) == (1,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AnswerSupport(most_share=1.5), "most_share is 1.5; expected a share from 0 to 1"),
        (lambda: AnswerSupport(question_overlap=-0.1), "question_overlap is -0.1"),
        (lambda: AnswerSupport(most_passages=0), "most_passages is 0; expected 1 or more"),
        (lambda: OverlapSupport(least=0.0), "every passage would support"),
        (lambda: OverlapSupport(near_best=2.0), "near_best is 2.0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()  # pyright: ignore


def test_no_passages_support_nothing() -> None:
    assert AnswerSupport().among([])(ask("?", "x")) == ()
    assert OverlapSupport().among([])(ask("?", "x")) == ()


@pytest.mark.parametrize(("kind", "looks"), [(AnswerSupport, "rows_with_phrase"), (OverlapSupport, "overlap")])
def test_what_a_step_asks_again_is_not_looked_up_again(
    kind: type[AnswerSupport | OverlapSupport], looks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    original = getattr(TextIndex, looks)

    def counted(self: TextIndex, wanted: object) -> object:
        asked.append(wanted)
        return original(self, wanted)

    monkeypatch.setattr(TextIndex, looks, counted)
    support = kind(most_share=1.0).among(BASE)
    first, other = ask("When did the harbour open?", "1904"), ask("When did the harbour open?", "two")
    assert support(first) == support(first)
    assert len(asked) == 1
    assert support(other) != support(first)  # another target of the same question is another matter
    assert len(asked) == 2
