from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrograd.metrics.relations import (
    SEMEVAL_LABELS,
    SEMEVAL_RELATIONS,
    PrecisionRecallF1,
    RelationLabel,
    parse_relation,
    relation_table,
    semeval_score,
    tacred_score,
)
from retrograd.metrics.resampling import (
    macro_resampler,
    official_resampler,
    semeval_resampler,
    tacred_resampler,
)
from retrograd.types import UserError

TACRED_LABELS = ["no_relation", "per:title", "per:age", "org:founded"]
TACRED_ITEMS = st.lists(
    st.tuples(st.sampled_from(TACRED_LABELS), st.sampled_from([*TACRED_LABELS, None])), min_size=1, max_size=20
)
SEMEVAL_ITEMS = st.lists(
    st.tuples(st.sampled_from(SEMEVAL_LABELS), st.sampled_from([*SEMEVAL_LABELS, None])), min_size=1, max_size=30
)
# Few labels, so that right ones, wrong directions and confusions all happen often.
DENSE_ITEMS = st.lists(
    st.tuples(
        st.sampled_from(["Cause-Effect(e1,e2)", "Cause-Effect(e2,e1)", "Message-Topic(e1,e2)", "Other"]),
        st.sampled_from(["Cause-Effect(e1,e2)", "Cause-Effect(e2,e1)", "Entity-Origin(e2,e1)", "Other", None]),
    ),
    min_size=1,
    max_size=20,
)


def unzip(items: list[tuple[str, str | None]]) -> tuple[list[str], list[str | None]]:
    return [gold for gold, _ in items], [guess for _, guess in items]


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Cause-Effect(e1,e2)", RelationLabel("Cause-Effect", "(e1,e2)")),
        ("Cause-Effect(e2,e1)", RelationLabel("Cause-Effect", "(e2,e1)")),
        ("Other", RelationLabel("Other", None)),
        ("org:top_members/employees", RelationLabel("org:top_members/employees", None)),
    ],
)
def test_labels_parse_and_print(text: str, label: RelationLabel):
    assert parse_relation(text) == label
    assert str(label) == text


@pytest.mark.parametrize("text", ["", "(e1,e2)", "Cause-Effect(e1, e2)", "Cause-Effect(e1,e3)", "Cause-Effect(e1,e2"])
def test_malformed_labels_are_errors(text: str):
    with pytest.raises(UserError, match=r"expected a name, or a name followed by \(e1,e2\) or \(e2,e1\)"):
        parse_relation(text)


def test_there_are_nineteen_semeval_labels():
    assert len(set(SEMEVAL_LABELS)) == 2 * 9 + 1
    assert {parse_relation(label).name for label in SEMEVAL_LABELS} == {*SEMEVAL_RELATIONS, "Other"}


# --- TACRED -----------------------------------------------------------------------------------------------------------


def test_tacred_by_hand():
    gold = ["no_relation", "no_relation", "per:title", "per:title", "per:age", "no_relation"]
    predicted = ["no_relation", "per:title", "per:title", "no_relation", "per:title", None]
    # guesses: items 2, 3, 5; gold: items 3, 4, 5; correct: item 3
    score = tacred_score(gold, predicted)
    assert score == PrecisionRecallF1(correct=1, guessed=3, gold=3)
    assert (score.precision, score.recall, score.f1) == pytest.approx((100 / 3, 100 / 3, 100 / 3))
    assert str(score) == "P  33.33  R  33.33  F1  33.33  (1 correct of 3 guessed, 3 gold)"


def test_a_predicted_label_that_gold_never_has_is_a_false_alarm_on_tacred():
    assert tacred_score(["per:age", "no_relation"], ["per:age", "per:title"]) == PrecisionRecallF1(1, 2, 1)


def test_the_negative_label_is_an_argument():
    score = tacred_score(["NA", "r", "r"], ["NA", "r", "NA"], negative="NA")
    assert score == PrecisionRecallF1(correct=1, guessed=1, gold=2)
    assert score.f1 == pytest.approx(200 / 3)


@given(TACRED_ITEMS)
def test_tacred_equals_a_slow_twin(items: list[tuple[str, str | None]]):
    correct = guessed = answers = 0
    for gold, guess in items:
        if guess is not None and guess != "no_relation":
            guessed += 1
            if gold == guess:
                correct += 1
        if gold != "no_relation":
            answers += 1
    precision = correct / guessed if guessed else 0.0
    recall = correct / answers if answers else 0.0
    f1 = 2 * precision * recall / (precision + recall) if correct else 0.0
    score = tacred_score(*unzip(items))
    assert (score.precision, score.recall, score.f1) == pytest.approx((100 * precision, 100 * recall, 100 * f1))
    assert tacred_resampler(*unzip(items))(np.arange(len(items))) == pytest.approx(100 * f1)


@given(st.lists(st.sampled_from(TACRED_LABELS), min_size=1), st.sampled_from(["no_relation", None]))
def test_always_the_negative_label_scores_0(gold: list[str], answer: str | None):
    score = tacred_score(gold, [answer] * len(gold))
    assert (score.precision, score.recall, score.f1) == (0.0, 0.0, 0.0)


@given(st.lists(st.sampled_from(TACRED_LABELS[1:]), min_size=1), st.integers(0, 5))
def test_perfect_is_100(positives: list[str], negatives: int):
    gold = positives + ["no_relation"] * negatives
    score = tacred_score(gold, gold)
    assert (score.precision, score.recall, score.f1) == (100.0, 100.0, 100.0)
    assert relation_table(gold, gold).macro.f1 == pytest.approx(100.0)


@given(TACRED_ITEMS, st.randoms(use_true_random=False))
def test_order_does_not_matter_and_ids_equal_lists(items: list[tuple[str, str | None]], random):
    gold, predicted = unzip(items)
    shuffled = random.sample(items, len(items))
    assert relation_table(gold, predicted) == relation_table(*unzip(shuffled))
    by_id = {str(i): label for i, label in enumerate(gold)}
    answered = {str(i): guess for i, guess in reversed(list(enumerate(predicted))) if guess is not None}
    assert tacred_score(by_id, answered) == tacred_score(gold, predicted)


def test_table_by_hand():
    gold = ["a", "a", "b", "none", "none"]
    predicted = ["a", "b", "b", "c", "none"]
    table = relation_table(gold, predicted, negative="none")
    assert table.relations == {
        "a": PrecisionRecallF1(1, 1, 2),
        "b": PrecisionRecallF1(1, 2, 1),
        "c": PrecisionRecallF1(0, 1, 0),
    }
    assert table.negative_scores == PrecisionRecallF1(1, 1, 2)
    assert table.micro == PrecisionRecallF1(2, 4, 3)
    # macro runs over a and b only: c is not in the gold labels
    assert table.macro.relations == 2
    assert table.macro.precision == pytest.approx(75.0)
    assert table.macro.recall == pytest.approx(75.0)
    assert table.macro.f1 == pytest.approx(100 * 2 / 3)
    assert str(table).splitlines() == [
        "a       P 100.00  R  50.00  F1  66.67  (1 correct of 1 guessed, 2 gold)",
        "b       P  50.00  R 100.00  F1  66.67  (1 correct of 2 guessed, 1 gold)",
        "c       P   0.00  R   0.00  F1   0.00  (0 correct of 1 guessed, 0 gold)",
        "(none)  P 100.00  R  50.00  F1  66.67  (1 correct of 1 guessed, 2 gold)",
        "micro   P  50.00  R  66.67  F1  57.14  (2 correct of 4 guessed, 3 gold)",
        "macro   P  75.00  R  75.00  F1  66.67  (mean over 2 relations)",
    ]


def test_a_table_without_a_negative_label_counts_all():
    table = relation_table(["a", "no_relation"], ["a", "a"], negative=None)
    assert set(table.relations) == {"a", "no_relation"}
    assert table.micro == PrecisionRecallF1(1, 2, 2)
    assert "(None)" not in str(table)


# --- SemEval ----------------------------------------------------------------------------------------------------------


def test_semeval_by_hand():
    gold = {
        "1": "Cause-Effect(e1,e2)",
        "2": "Cause-Effect(e1,e2)",
        "3": "Message-Topic(e2,e1)",
        "4": "Other",
        "5": "Other",
    }
    predicted = {"1": "Cause-Effect(e1,e2)", "2": "Cause-Effect(e2,e1)", "3": None, "4": "Entity-Origin(e1,e2)"}
    official = semeval_score(gold, predicted).official
    # item 2 is a miss and a false alarm for Cause-Effect; Entity-Origin is not in the key: no row, no false alarm
    assert official.rows == ("Cause-Effect", "Message-Topic", "Other")
    assert official.columns == ("Cause-Effect", "Message-Topic", "Other", "Entity-Origin")
    assert official.confusion == ((1, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 1))
    assert official.wrong_direction == (1, 0, 0)
    assert official.skipped == (0, 1, 1)
    assert official.table.relations["Cause-Effect"] == PrecisionRecallF1(1, 2, 2)
    assert official.table.micro == PrecisionRecallF1(1, 2, 3)
    assert official.table.macro.f1 == pytest.approx((50 + 0) / 2)
    assert (official.items, official.predicted_items, official.correct) == (5, 3, 1)
    assert official.coverage == pytest.approx(60.0)
    assert official.accuracy == pytest.approx(100 / 3)
    assert official.accuracy_skipped_as_wrong == pytest.approx(20.0)
    assert official.accuracy_skipped_as_other == pytest.approx(40.0)
    text = str(semeval_score(gold, predicted))
    assert "Cause-Effect   P  50.00  R  50.00  F1  50.00  (1 correct of 2 guessed, 2 gold)" in text
    assert text.endswith("official score: macro-F1 25.00 %")


def official_twin(items: list[tuple[str, str | None]]) -> float:
    """Compute macro-F1 by its definition, one relation at a time."""
    f1s = []
    for name in SEMEVAL_RELATIONS:
        gold = [pair for pair in items if pair[0].startswith(name)]
        guessed = [pair for pair in items if pair[1] is not None and pair[1].startswith(name)]
        correct = [pair for pair in gold if pair[0] == pair[1]]
        if gold:
            precision = len(correct) / len(guessed) if guessed else 0.0
            recall = len(correct) / len(gold)
            f1s.append(200 * precision * recall / (precision + recall) if correct else 0.0)
    return sum(f1s) / len(f1s) if f1s else 0.0


@given(st.one_of(SEMEVAL_ITEMS, DENSE_ITEMS))
def test_official_macro_f1_equals_its_definition(items: list[tuple[str, str | None]]):
    expected = official_twin(items)
    assert semeval_score(*unzip(items)).macro_f1 == pytest.approx(expected)
    assert semeval_resampler(*unzip(items))(np.arange(len(items))) == pytest.approx(expected)


UNSEEN = ("Located-In(e1,e2)", "Cause-Effect", "odd (label")
UNSEEN_ITEMS = st.lists(
    st.tuples(
        st.sampled_from([*UNSEEN, "Cause-Effect(e1,e2)", "Message-Topic(e1,e2)", "Other"]),
        st.sampled_from(["Cause-Effect(e1,e2)", "Message-Topic(e1,e2)", "Other", None]),
    ),
    min_size=1,
    max_size=20,
)


def test_unseen_labels_of_the_key_are_relations_that_are_always_missed() -> None:
    gold = ["Cause-Effect(e1,e2)", "Message-Topic(e1,e2)", "Located-In(e1,e2)", "Located-In(e1,e2)", "Other"]
    predicted = ["Cause-Effect(e1,e2)", "Message-Topic(e1,e2)", "Cause-Effect(e1,e2)", "Other", "Other"]
    with pytest.raises(UserError, match="unknown relation label 'Located-In"):
        semeval_score(gold, predicted)
    table = semeval_score(gold, predicted, ["Located-In(e1,e2)"]).official.table
    assert table.relations["Located-In(e1,e2)"] == PrecisionRecallF1(0, 0, 2)
    assert table.relations["Cause-Effect"] == PrecisionRecallF1(1, 2, 1)  # a false alarm on an unseen one
    assert table.micro == PrecisionRecallF1(2, 3, 4)
    assert table.macro.f1 == pytest.approx(100 * (2 / 3 + 1 + 0) / 3)


@given(UNSEEN_ITEMS, st.data())
def test_a_resample_with_unseen_labels_scores_like_its_items(items: list[tuple[str, str | None]], data):
    rows = data.draw(st.lists(st.integers(0, len(items) - 1), min_size=1, max_size=20))
    repeated = unzip([items[row] for row in rows])
    statistic = official_resampler("semeval", *unzip(items), "Other", UNSEEN)
    report = semeval_score(*repeated, UNSEEN)
    assert statistic(np.array(rows)) == pytest.approx(report.macro_f1)
    assert report.official.items == len(rows)
    missed = sum(gold in UNSEEN for gold in repeated[0])
    assert report.official.correct <= len(rows) - missed


@given(DENSE_ITEMS, st.data())
def test_a_resample_scores_like_the_items_it_repeats(items: list[tuple[str, str | None]], data):
    rows = data.draw(st.lists(st.integers(0, len(items) - 1), min_size=1, max_size=20))
    repeated = unzip([items[row] for row in rows])
    picked = np.array(rows)
    assert semeval_resampler(*unzip(items))(picked) == pytest.approx(semeval_score(*repeated).macro_f1)
    assert tacred_resampler(*unzip(items), negative="Other")(picked) == pytest.approx(
        tacred_score(*repeated, negative="Other").f1
    )
    for negative in ("Other", None):
        table = relation_table(*repeated, negative=negative)
        assert macro_resampler(*unzip(items), negative=negative)(picked) == pytest.approx(table.macro.f1)
        assert official_resampler("micro", *unzip(items), negative)(picked) == pytest.approx(table.micro.f1)


@given(st.one_of(SEMEVAL_ITEMS, DENSE_ITEMS))
def test_the_three_evaluations_agree_where_they_must(items: list[tuple[str, str | None]]):
    report = semeval_score(*unzip(items))
    directed, undirected, official = report.directed, report.undirected, report.official
    assert directed.items == undirected.items == official.items == len(items)
    assert (
        directed.predicted_items
        == undirected.predicted_items
        == official.predicted_items
        == sum(g is not None for _, g in items)
    )
    assert directed.correct == official.correct == sum(gold == guess for gold, guess in items)
    assert undirected.correct == official.correct + sum(official.wrong_direction)
    assert sum(directed.wrong_direction) == sum(undirected.wrong_direction) == 0
    assert directed.table.negative_scores == undirected.table.negative_scores == official.table.negative_scores
    for name, scores in official.table.relations.items():
        assert (scores.guessed, scores.gold) == (
            undirected.table.relations[name].guessed,
            undirected.table.relations[name].gold,
        )
    assert report.macro_f1 <= undirected.table.macro.f1 + 1e-9


@given(SEMEVAL_ITEMS, st.randoms(use_true_random=False))
def test_semeval_ignores_order(items: list[tuple[str, str | None]], random):
    assert semeval_score(*unzip(items)) == semeval_score(*unzip(random.sample(items, len(items))))


@given(st.lists(st.sampled_from(SEMEVAL_LABELS[:-1]), min_size=1))
def test_semeval_extremes(gold: list[str]):
    assert semeval_score(gold, gold).macro_f1 == pytest.approx(100.0)
    assert semeval_score(gold, ["Other"] * len(gold)).macro_f1 == 0.0
    swapped = [label.replace("(e1,e2)", "(e2,e1)") if "(e1" in label else label[:-7] + "(e1,e2)" for label in gold]
    report = semeval_score(gold, swapped)
    assert (report.macro_f1, report.undirected.table.macro.f1) == (0.0, pytest.approx(100.0))


def test_a_key_of_other_alone_and_no_answers_at_all():
    report = semeval_score(["Other", "Other"], [None, None])
    assert report.macro_f1 == 0.0
    assert report.official.accuracy == 0.0
    assert report.official.accuracy_skipped_as_other == 100.0
    assert semeval_resampler(["Other"], ["Other"])(np.array([0])) == 0.0


# --- the official scorer's own examples -------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["gold", "predicted"])
def test_an_unknown_semeval_label_names_the_nearest(side: str):
    labels = {"gold": ["Other"], "predicted": ["Other"], side: ["Cause-Effects(e1,e2)"]}
    for score in (semeval_score, semeval_resampler):
        with pytest.raises(
            UserError, match=r"'Cause-Effects\(e1,e2\)'; the nearest known one is 'Cause-Effect\(e1,e2\)'"
        ):
            score(labels["gold"], labels["predicted"])


def test_an_unknown_tacred_label_names_the_nearest_when_labels_are_given():
    assert tacred_score(["per:age"], ["per:agee"]) == PrecisionRecallF1(0, 1, 1)
    with pytest.raises(UserError, match="unknown relation label 'per:agee'; the nearest known one is 'per:age'"):
        tacred_score(["per:age"], ["per:agee"], labels=TACRED_LABELS)
    with pytest.raises(UserError, match=r"negative label 'no-relation' is not among the labels; .* is 'no_relation'"):
        tacred_score(["per:age"], ["per:age"], negative="no-relation", labels=TACRED_LABELS)


@pytest.mark.parametrize("score", [semeval_score, tacred_score, relation_table, semeval_resampler, tacred_resampler])
def test_gold_and_predictions_must_match(score):
    with pytest.raises(UserError, match="2 gold labels but 1 predictions; expected one per item, None where skipped"):
        score(["Other", "Other"], ["Other"])
    with pytest.raises(UserError, match="id 'item8', which has no gold label; the nearest known one is 'item7'"):
        score({"item7": "Other", "x": "Other"}, {"item8": "Other"})
    with pytest.raises(UserError, match="gold labels are given by id, predictions as a list"):
        score({"1": "Other"}, ["Other"])
    with pytest.raises(UserError, match="gold labels are given as a list, predictions by id"):
        score(["Other"], {"1": "Other"})
    with pytest.raises(UserError, match="labels are a single string; expected a list"):
        score("Other", "Other")
    with pytest.raises(UserError, match="no gold labels; expected at least one item"):
        score([], [])
