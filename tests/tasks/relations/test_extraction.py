"""Labels become phrases and come back; the label stays out of every key; scores are the official ones."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrograd.data.relations.instance import RelationExample, RelationInstance
from retrograd.tasks.judging import judge_answers
from retrograd.tasks.relations.extraction import TARGET_STYLES, RelationExtraction
from retrograd.tasks.relations.generator_text import NEIGHBOUR_STYLES
from retrograd.tasks.relations.retriever_text import QUERY_STYLES
from retrograd.tasks.relations.type_constraints import TypeConstraints
from retrograd.tasks.relations.unseen_labels import count_unseen, describe_unseen
from retrograd.tasks.relations.verbalisation import Verbalisation, open_verbalisation
from retrograd.tasks.resampled_scores import score_ratios, score_statistics
from retrograd.tasks.task import Task
from retrograd.types import Example, Passage, Span, UserError

BAKER = RelationInstance("1", "The old baker sold warm bread.", Span(8, 13), Span(24, 29), "Product-Producer(e2,e1)")
MARKED = "The old @ baker @ sold warm # bread #."
OWL = RelationInstance("2", "An owl saw a fox.", Span(13, 16), Span(3, 6), "Other")
SEMEVAL = RelationExtraction.semeval()
SEMEVAL_PHRASES = SEMEVAL.phrases


def test_it_is_a_task() -> None:
    task: Task = SEMEVAL
    assert task.choices == tuple(SEMEVAL_PHRASES.values())
    assert task.primary_metric == "macro_f1"
    assert RelationExtraction.from_labels(["a", "b"]).primary_metric == "micro_f1"


# Labels and phrases


@given(st.lists(st.text(alphabet="aAbB_-:/(),e12 é?", max_size=12), min_size=1, unique=True))
def test_derived_phrases_come_back_as_their_labels(labels: list[str]) -> None:
    task = RelationExtraction.from_labels(labels)
    assert {task.relation_of(task.verbalise(label)) for label in labels} == set(labels)
    assert all(task.relation_of(task.verbalise(label)) == label for label in labels)
    assert RelationExtraction.from_labels(reversed(labels)) == task


@given(st.sampled_from(sorted(SEMEVAL_PHRASES)), st.sampled_from([str.upper, str.title, lambda text: f" {text}\n"]))
def test_semeval_phrases_come_back_whatever_case_and_spaces(label: str, change) -> None:
    assert SEMEVAL.relation_of(change(SEMEVAL.verbalise(label)).replace(" ", "  ")) == label


@pytest.mark.parametrize("answer", ["", "baker", "creates a product.", "creates a", "Product-Producer(e2,e1)"])
def test_what_is_no_phrase_is_no_label(answer: str) -> None:
    assert SEMEVAL.relation_of(answer) is None


def test_an_unknown_label_names_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r"unknown relation 'Cause-Efect\(e1,e2\)'; did you mean 'Cause-Effect\(e1,e2\)'"
    ):
        SEMEVAL.example(dataclasses.replace(BAKER, relation="Cause-Efect(e1,e2)"))


@pytest.mark.parametrize(
    ("phrases", "negative", "metric", "query_style", "neighbour_style", "advice"),
    [
        ({"a": "x"}, "none", "micro", "marked", "labelled", "negative label 'none' has no phrase; known: 'a'"),
        ({"a": "x"}, None, "mirco", "marked", "labelled", "unknown metric 'mirco'.*did you mean 'micro'"),
        ({"a": "x"}, None, "micro", "market", "labelled", "unknown query style 'market'.*did you mean 'marked'"),
        ({"a": "x"}, None, "micro", "marked", "labeled", "unknown neighbour style.*did you mean 'labelled'"),
        ({"a": "x"}, None, "semeval", "marked", "labelled", "does not know the label 'a'.*metric 'macro' or 'micro'"),
        ({"Other": "x"}, None, "semeval", "marked", "labelled", "give negative='Other'"),
    ],
)
def test_impossible_tasks_are_refused(
    phrases: dict[str, str], negative: str | None, metric: str, query_style: str, neighbour_style: str, advice: str
) -> None:
    with pytest.raises(UserError, match=advice):
        RelationExtraction(Verbalisation(phrases), negative, metric, query_style, neighbour_style)


# What the models read


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ("marked", MARKED),
        ("entities+marked", f"baker ; bread : {MARKED}"),
        ("between", "@ baker @ sold warm # bread #"),
        ("between+marked", f"@ baker @ sold warm # bread # : {MARKED}"),
    ],
)
def test_both_towers_read_the_same_style(style: str, text: str) -> None:
    task = RelationExtraction.semeval(query_style=style)
    example = task.example(BAKER)
    assert example == RelationExample("1", MARKED, ("creates a product",))
    assert task.query_text(example) == text == task.passage_text(task.passage(BAKER))
    assert task.posterior_text(example, example.target) == f"{text} | creates a product"
    assert task.posterior_text(example, "made by producer") == f"{text} | made by producer"


def test_the_tail_may_stand_first() -> None:
    task = RelationExtraction.semeval(query_style="between")
    assert task.query_text(task.example(OWL)) == "# owl # saw a @ fox @"


@pytest.mark.parametrize("style", QUERY_STYLES)
@given(label=st.sampled_from(sorted(SEMEVAL_PHRASES)), other=st.sampled_from(sorted(SEMEVAL_PHRASES)))
def test_the_label_never_enters_query_or_key(style: str, label: str, other: str) -> None:
    task = RelationExtraction.semeval(query_style=style)
    one, two = (dataclasses.replace(BAKER, relation=relation) for relation in (label, other))
    assert task.query_text(task.example(one)) == task.query_text(task.example(two))
    assert task.passage_text(task.passage(one)) == task.passage_text(task.passage(two))
    assert task.prompt(task.example(one), []) == task.prompt(task.example(two), [])
    assert task.verbalise(label) not in task.passage_text(task.passage(one))


@pytest.mark.parametrize(
    ("style", "neighbour"),
    [
        ("labelled", "other relation : An # owl # saw a @ fox @."),
        ("unlabelled", "An # owl # saw a @ fox @."),
        ("label only", "other relation"),
    ],
)
def test_prompt_has_query_and_neighbours_in_order(style: str, neighbour: str) -> None:
    assert style in NEIGHBOUR_STYLES
    task = RelationExtraction.semeval(neighbour_style=style)
    near, far = task.passage(OWL), task.passage(dataclasses.replace(OWL, text="An elk saw a cow."))
    assert task.prompt(task.example(BAKER), []) == MARKED
    prompt = task.prompt(task.example(BAKER), [near, far])
    neighbours = [neighbour, neighbour.replace("owl", "elk").replace("fox", "cow")]
    assert [task.neighbour_text(near), task.neighbour_text(far)] == neighbours
    # Phrases alone stand before the query: always at the same place.
    assert prompt == " | ".join([*neighbours, MARKED] if style == "label only" else [MARKED, *neighbours])


def test_an_instance_without_label_can_be_asked_but_not_retrieved() -> None:
    unlabelled = dataclasses.replace(BAKER, relation=None)
    assert SEMEVAL.example(unlabelled).targets == ()
    with pytest.raises(UserError, match="instance '1' has no relation; a knowledge base of instances needs labels"):
        SEMEVAL.passage(unlabelled)


def test_a_query_that_is_not_marked_says_how_to_build_it() -> None:
    task = RelationExtraction.semeval(query_style="between")
    with pytest.raises(UserError, match=r"build texts with RelationExtraction\.example"):
        task.query_text(Example("1", "The baker sold bread."))


# Sentences about both entities, described inputs, type constraints


TACRED = RelationExtraction(open_verbalisation("builtin:tacred"), "no_relation", "micro", target_style="sentence")
RUNS = RelationInstance("7", "Ann @ home runs Bo {Ltd} #1.", Span(0, 10), Span(16, 27), "org:members", "PERSON", "ORG")


@given(st.sampled_from(sorted(TACRED.phrases)), st.sampled_from([str.upper, lambda text: f" {text}\n"]))
def test_sentences_come_back_as_their_labels(label: str, change) -> None:
    example = TACRED.example(dataclasses.replace(RUNS, relation=label))
    assert example.target.startswith("Ann @ home ")
    assert "Bo {Ltd} #1" in example.target
    assert TACRED.relation_of(change(example.target), example) == label
    assert TACRED.relation_of(TACRED.verbalise(label), example) == label
    assert TACRED.relation_of(TACRED.verbalise(label)) == label
    assert TACRED.relation_of(example.target) is None  # without the entities it is any sentence


def test_a_sentence_about_other_entities_is_no_label() -> None:
    example, other = TACRED.example(RUNS), TACRED.example(dataclasses.replace(RUNS, head=RUNS.tail, tail=RUNS.head))
    assert TACRED.relation_of(other.target, example) is None
    assert TACRED.relation_of("Ann runs it", example) is None
    assert TACRED.relation_of("Ann runs it", Example("1", "no marks")) is None
    assert SEMEVAL.relation_of("what", Example("1", MARKED)) is None


def test_sentences_score_and_support_like_phrases() -> None:
    labels = ["no_relation", "org:members", "per:age"]
    instances = [dataclasses.replace(RUNS, id=label, relation=label) for label in labels]
    support = TACRED.support(TACRED.passage(instance) for instance in instances)
    gold = [TACRED.example(instance) for instance in instances]
    assert [tuple(support(example)) for example in gold] == [(0,), (1,), (2,)]
    assert tuple(support(Example("", "", ("aged years",)))) == (2,)
    scores = TACRED.score(gold, [gold[0].target, gold[1].target, "aged years"])
    assert scores["micro_f1"] == scores["accuracy"] == pytest.approx(100.0)
    assert TACRED.score(gold, ["what"] * 3)["invalid_rate"] == pytest.approx(100.0)
    with pytest.raises(UserError, match=r"target 'what' of example '1' is no sentence of this task"):
        TACRED.score([Example("1", MARKED, ("what",))], ["x"])
    # What a neighbour shows of its label is the phrase in either style.
    assert TACRED.passage(instances[2]).title == "aged years"


def test_choices_are_those_of_all_labels_without_constraints() -> None:
    example = TACRED.example(RUNS)
    assert TACRED.choices == tuple(TACRED.phrases.values())
    assert len(TACRED.choices_for(example)) == 42
    assert example.target in TACRED.choices_for(example)
    assert SEMEVAL.choices_for(SEMEVAL.example(BAKER)) == SEMEVAL.choices


@pytest.mark.parametrize("style", TARGET_STYLES)
def test_constraints_leave_what_the_types_permit_and_the_negative(style: str) -> None:
    seen = [RUNS, dataclasses.replace(RUNS, relation="per:employee_of"), dataclasses.replace(RUNS, tail_type="DATE")]
    task = dataclasses.replace(TACRED, target_style=style, constraints=TypeConstraints.learn(seen))
    example = task.example(dataclasses.replace(RUNS, relation=None))
    labels = [task.relation_of(answer, example) for answer in task.choices_for(example)]
    assert labels == ["no_relation", "org:members", "per:employee_of"]
    dated = task.choices_for(dataclasses.replace(example, tail_type="DATE"))
    assert [task.relation_of(answer, example) for answer in dated] == ["no_relation", "org:members"]
    assert len(task.choices_for(Example("1", example.query))) == 42  # no types, no constraint
    without = dataclasses.replace(task, negative=None)
    assert [without.relation_of(answer, example) for answer in without.choices_for(example)] == labels[1:]


def test_described_inputs_name_entities_and_types_first() -> None:
    task = dataclasses.replace(TACRED, input_style="described")
    example, neighbour = task.example(RUNS), task.passage(RUNS)
    about = "What is Ann @ home to Bo {Ltd} #1? Ann @ home is tagged as person. Bo {Ltd} #1 is tagged as org. Read:"
    assert task.prompt(example, []) == f"{about} {RUNS.text}"
    assert task.prompt(example, [neighbour]) == f"{about} {RUNS.text} | counts as member : {neighbour.text}"
    untyped = Example("1", example.query)
    assert task.prompt(untyped, []) == f"What is Ann @ home to Bo {{Ltd}} #1? Read: {RUNS.text}"
    # However many phrases stand before the sentence, what is cut at the end is never the entities.
    short = dataclasses.replace(task, neighbour_style="label only")
    assert short.prompt(example, [neighbour] * 2) == f"{about} | counts as member | counts as member | {RUNS.text}"
    assert task.query_text(example) == TACRED.query_text(example)


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"target_style": "sentense"}, "unknown target style.*did you mean 'sentence'"),
        ({"input_style": "describe"}, "unknown input style.*did you mean 'described'"),
        ({"key_style": "spilt"}, "unknown key style.*did you mean 'split'"),
        ({"exclude": "pairs"}, "unknown exclusion.*did you mean 'pair'"),
        (
            {"verbalisation": Verbalisation({"no_relation": "x"})},
            r"need a template for every label; set data\.templates",
        ),
        ({"constraints": TypeConstraints({("A", "B"): frozenset({"per:agee"})})}, "'per:agee', which is no label.*age"),
    ],
)
def test_impossible_settings_are_refused(change: dict, advice: str) -> None:
    with pytest.raises(UserError, match=advice):
        dataclasses.replace(TACRED, **change)


# Equality and support


def test_pairs_of_one_sentence_can_be_told_apart() -> None:
    task = dataclasses.replace(SEMEVAL, exclude="pair")
    again = dataclasses.replace(BAKER, id="9", text="The OLD baker  sold warm bread.", tail=Span(25, 30))
    swapped = dataclasses.replace(BAKER, head=BAKER.tail, tail=BAKER.head)
    key = task.identity(task.example(BAKER).query)
    assert key == task.identity(task.passage(again).text)
    assert key != task.identity(task.passage(swapped).text)
    assert key != task.identity(task.passage(dataclasses.replace(BAKER, head=Span(4, 7))).text)


def test_equal_sentences_are_one_whatever_is_marked_or_spaced() -> None:
    example = SEMEVAL.example(BAKER)
    again = RelationInstance("9", "the OLD baker  sold\nwarm bread.", Span(4, 7), Span(25, 30), "Other")
    assert SEMEVAL.identity(example.query) == SEMEVAL.identity(SEMEVAL.passage(again).text)
    assert SEMEVAL.identity(example.query) == "the old baker sold warm bread."
    assert SEMEVAL.identity(example.query) != SEMEVAL.identity(SEMEVAL.passage(OWL).text)


@given(st.text(alphabet="ab @#\\é", max_size=12), st.text(alphabet="ab @#\\é", max_size=12))
def test_identity_is_that_of_the_sentences(one: str, two: str) -> None:
    def key(text: str) -> str:
        return SEMEVAL.identity(SEMEVAL.example(RelationInstance("1", f"x{text}y", Span(0, 1), end(text), None)).query)

    def end(text: str) -> Span:
        return Span(len(text) + 1, len(text) + 2)

    assert (key(one) == key(two)) == (f"x{one}y".split() == f"x{two}y".split())


def test_support_is_the_rows_with_the_targets_phrase() -> None:
    passages = [SEMEVAL.passage(OWL), SEMEVAL.passage(BAKER), SEMEVAL.passage(dataclasses.replace(OWL, id="3"))]
    support = SEMEVAL.support(passages)
    assert tuple(support(SEMEVAL.example(OWL))) == (0, 2)
    assert tuple(support(SEMEVAL.example(BAKER))) == (1,)
    assert tuple(support(SEMEVAL.example(dataclasses.replace(BAKER, relation="Message-Topic(e1,e2)")))) == ()
    with pytest.raises(UserError, match="has no target"):
        support(Example("1", MARKED))
    assert tuple(SEMEVAL.support([Passage("1", "", "x")])(SEMEVAL.example(OWL))) == ()


# Scores


def examples(task: RelationExtraction, labels: list[str]) -> list[Example]:
    return [Example(str(i), MARKED, (task.verbalise(label),)) for i, label in enumerate(labels)]


def test_semeval_scores_are_the_official_ones() -> None:
    gold = ["Cause-Effect(e1,e2)", "Cause-Effect(e2,e1)", "Message-Topic(e1,e2)", "Other"]
    answers = ["causes the effect", "causes the effect", "who knows", "other relation"]
    scores = SEMEVAL.score(examples(SEMEVAL, gold), answers)
    # Cause-Effect: 1 right of 2 guessed and 2 gold, F1 50; Message-Topic: no guess, F1 0; Other is no part of the mean.
    assert scores["macro_f1"] == pytest.approx(25.0)
    assert scores["micro_f1"] == pytest.approx(100 * 2 * 1 / (2 + 3))
    assert scores["accuracy"] == pytest.approx(50.0)
    assert scores["invalid_rate"] == pytest.approx(25.0)
    assert scores["negative_rate"] == pytest.approx(25.0)


@pytest.mark.parametrize("metric", ["micro", "macro"])
def test_always_answering_the_negative_scores_nothing(metric: str) -> None:
    task = RelationExtraction.from_labels(["no_relation", "org:founded_by", "per:age"], "no_relation", metric)
    gold = examples(task, ["no_relation", "no_relation", "org:founded_by", "per:age"])
    scores = task.score(gold, ["no relation"] * 4)
    assert scores[task.primary_metric] == 0.0
    assert (scores["accuracy"], scores["negative_rate"]) == (50.0, 100.0)
    assert task.score(gold, [example.target for example in gold])[task.primary_metric] == pytest.approx(100.0)


def test_micro_and_macro_weigh_relations_differently() -> None:
    task = RelationExtraction.from_labels(["a", "b"])
    scores = task.score(examples(task, ["a", "a", "a", "b"]), ["a", "a", "a", "a"])
    # a: 3 right of 4 guessed and 3 gold, F1 6/7; b: never guessed. Together 3 right of 4 and 4.
    assert scores["micro_f1"] == pytest.approx(75.0)
    assert scores["macro_f1"] == pytest.approx(100 * 3 / 7)
    assert scores["negative_rate"] == 0.0


def unseen(task: RelationExtraction, label: str) -> RelationExample:
    instance = RelationInstance("u", "The old baker sold warm bread.", Span(8, 13), Span(24, 29), label)
    return task.example(instance, permits_unseen=True)


def test_an_unseen_label_is_refused_or_is_its_own_target() -> None:
    with pytest.raises(UserError, match="unknown relation 'Located-In'"):
        SEMEVAL.example(dataclasses.replace(BAKER, relation="Located-In"))
    example = unseen(SEMEVAL, "Located-In")
    assert (example.targets, example.has_unseen_label, example.query) == (("Located-In",), True, MARKED)
    assert SEMEVAL.gold_label(example) == "Located-In"
    known = SEMEVAL.example(BAKER, permits_unseen=True)
    assert known == SEMEVAL.example(BAKER)
    assert SEMEVAL.gold_label(known) == BAKER.relation


@pytest.mark.parametrize("metric", ["micro", "macro", "semeval"])
def test_every_answer_to_an_unseen_label_is_wrong_in_every_score(metric: str) -> None:
    labels = ["Cause-Effect(e1,e2)", "Message-Topic(e1,e2)", "Other"]
    task = RelationExtraction.from_labels(labels, "Other")
    if metric == "semeval":
        task = SEMEVAL
    task = dataclasses.replace(task, metric=metric)
    gold = [*examples(task, labels), unseen(task, "Located-In"), unseen(task, "Other one"), unseen(task, "Located-In")]
    right = [task.verbalise(label) for label in labels]
    for answers in ([*right, "Located-In", "Other one", "nonsense"], [*right, right[0], right[2], right[0]]):
        scores = task.score(gold, answers)
        false_alarms = answers.count(right[0]) - 1
        assert scores["accuracy"] == pytest.approx(50.0)
        assert scores["micro_recall"] == pytest.approx(100 * 2 / 5)  # of 2 known relations and 3 unseen ones
        assert scores["micro_precision"] == pytest.approx(100 * 2 / (2 + false_alarms))
        f1s = [2 / (2 + false_alarms), 1, 0, 0]
        assert scores["macro_f1"] == pytest.approx(100 * sum(f1s) / 4)
        assert judge_answers(task, gold, answers).correctness == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
        statistics = score_statistics(task, gold, answers, list(scores))
        ratios = score_ratios(task, gold, answers, list(scores))
        everything = np.arange(len(gold))
        assert statistics["macro_f1"](everything) == pytest.approx(scores["macro_f1"])
        for name, ratio in ratios.items():
            assert ratio.score == pytest.approx(scores[name]), name


def test_an_unseen_label_in_the_words_of_a_known_one_is_still_unseen() -> None:
    task = RelationExtraction.from_labels(["org:founded_by", "none"], "none")
    example = unseen(task, "org founded by")
    assert task.relation_of("org founded by") == "org:founded_by"
    assert task.gold_label(example) == "org founded by"
    assert task.score([example], ["org founded by"])["accuracy"] == 0.0
    assert judge_answers(task, [example], ["org founded by"]).correctness == [0.0]
    base = [Passage("1", "org founded by", MARKED)]
    assert task.support(base)(example) == ()
    assert task.support(base)(examples(task, ["org:founded_by"])[0]) == (0,)


def test_unseen_labels_are_counted_and_named() -> None:
    gold = [unseen(SEMEVAL, label) for label in ("b", "c", "b")] + [SEMEVAL.example(BAKER)]
    assert count_unseen(gold) == {"b": 2, "c": 1}
    assert describe_unseen(count_unseen(gold), 4) == (
        "3 of 4 examples have labels that training never shows, and count as wrong: 'b' (2), 'c' (1)"
    )
    assert describe_unseen({}, 4) == ""
    many = {f"label {number}": 1 for number in range(8)}
    assert describe_unseen(many, 9).endswith("'label 4' (1) and 3 more labels")


def test_scoring_errors() -> None:
    gold = examples(SEMEVAL, ["Other"])
    with pytest.raises(UserError, match="2 answers to 1 examples; give one answer per example"):
        SEMEVAL.score(gold, ["other relation"] * 2)
    with pytest.raises(UserError, match="at least one item"):
        SEMEVAL.score([], [])
    with pytest.raises(UserError, match=r"target 'other relaton' of example '7' is no phrase.*mean 'other relation'"):
        SEMEVAL.score([Example("7", MARKED, ("other relaton",))], ["other relation"])


def test_a_prediction_names_its_label_and_the_rule_that_read_it() -> None:
    example, phrase = SEMEVAL.example(BAKER), SEMEVAL.choices[0]
    label = SEMEVAL.relation_of(phrase)
    assert SEMEVAL.label_record(phrase, example) == {"relation": label}
    assert SEMEVAL.label_record(f"{phrase}.", example) == {"relation": label, "read_by": "punctuation"}
    assert SEMEVAL.label_record("", example) == {"relation": None, "read_by": "nothing"}
