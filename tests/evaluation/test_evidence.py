"""Check the sentence for made-up scores: helped, made no difference or hurt, and against which rival."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from retrograd.evaluation.evidence import Difference, Evidence, difference, format_spread, metric_name
from retrograd.metrics.significance import (
    BootstrapInterval,
    PermutationTest,
    Statistic,
    paired_bootstrap,
    paired_permutation,
)
from retrograd.types import UserError

ITEMS = 200
RIVALS = {"closed book": "the closed book", "frozen retriever": "the frozen retriever"}


def right(gains: list[int], seed: int = 0) -> list[Statistic]:
    """Return one statistic per gain: 100 of 200 items are right without, so many more with; the rest is noise."""
    statistics: list[Statistic] = []
    for number, gain in enumerate(gains):
        rng = np.random.default_rng(seed + number)
        before = np.zeros(ITEMS)
        before[:100] = 100.0
        after = before.copy()
        if gain >= 0:
            after[100 : 100 + gain] = 100.0
        else:
            after[:-gain] = 0.0
        noise = rng.permutation(ITEMS)[:20]  # swapped in pairs, so that the means stay
        ones, zeros = noise[before[noise] == 100.0], noise[before[noise] == 0.0]
        both = min(len(ones), len(zeros))
        after[ones[:both]], after[zeros[:both]] = after[zeros[:both]], after[ones[:both]]
        whole = np.concatenate([before, after])
        statistics.append(lambda rows, whole=whole: float(whole[rows].mean()))
    return statistics


def evidence(frozen: list[int], closed: list[int], scores: tuple[float, float] = (50.0, 40.0)) -> Evidence:
    differences = [
        difference("closed book", right(closed), ITEMS),
        difference("frozen retriever", right(frozen), ITEMS),
    ]
    by_system = {"experiment": [60.0], "frozen retriever": [scores[0]], "closed book": [scores[1]]}
    return Evidence("joint training", "macro_f1", by_system, differences, RIVALS)


def test_the_three_forms_of_the_sentence() -> None:
    assert evidence([38, 42, 40], [80, 80, 80]).sentence == (
        "joint training helped: +20.0 ± 1.0 macro-F1 over the frozen retriever, p = 0.001, 3 seeds"
    )
    assert evidence([-38, -42], [0, 0]).sentence == (
        "joint training hurt: -20.0 ± 1.4 macro-F1 over the frozen retriever, p = 0.001, 2 seeds"
    )
    even = evidence([1, -1, 0], [80, 80, 80])
    assert even.sentence == (
        "joint training made no difference that this test can tell: +0.0 ± 0.5 macro-F1 over the frozen retriever, "
        f"p = {even.main.test.p_value:.2g}, 3 seeds"
    )
    assert even.main.test.p_value > 0.5
    one = evidence([0], [80])
    assert one.sentence.startswith(
        "joint training made no difference that this test can tell in the one seed trained: +0.0 macro-F1 over the"
    )


@pytest.mark.parametrize(("gain", "verdict"), [(40, "helped"), (-40, "hurt")])
def test_what_one_seed_gave_is_said_of_one_seed(gain: int, verdict: str) -> None:
    assert evidence([gain], [gain]).sentence == (
        f"joint training {verdict} in the one seed trained: {gain / 2:+.1f} macro-F1 over the frozen retriever, "
        "p = 0.001, 1 seed, and what others would give is not known"
    )
    assert "one seed" not in evidence([gain, gain], [gain, gain]).sentence


def test_who_is_not_told_apart_from_a_weaker_rival_has_not_helped() -> None:
    """The strongest rival need not be the one that is hardest to tell apart."""
    sure, unsure = (
        difference("frozen retriever", right([20]), ITEMS),
        difference("closed book", right([0]), ITEMS),
    )
    assert sure.is_significant
    assert not unsure.is_significant
    scores = {"experiment": [20.0], "frozen retriever": [10.0], "closed book": [9.0]}
    found = Evidence("joint training", "macro_f1", scores, [unsure, sure], RIVALS)
    assert found.main is sure
    assert "made no difference that this test can tell" in found.sentence


def test_a_small_p_alone_is_no_difference_where_the_interval_has_zero() -> None:
    """The rule is that of `compare` and of the page of a run."""
    interval, test = BootstrapInterval(1.0, -0.1, 2.0, 0.95, ITEMS, 1_000), PermutationTest(1.0, 0.04, ITEMS, 1_000)
    assert not Difference("closed book", (1.0,), interval, test).is_significant
    assert Difference("closed book", (1.0,), replace(interval, low=0.1), test).is_significant
    assert not Difference("closed book", (1.0,), replace(interval, low=0.1), replace(test, p_value=0.06)).is_significant


def test_where_nothing_is_right_nothing_is_judged() -> None:
    scores = {"experiment": [0.0], "frozen retriever": [0.0], "closed book": [0.0]}
    nothing = [difference(name, [lambda rows: 0.0], ITEMS) for name in ("closed book", "frozen retriever")]
    found = Evidence("joint training", "macro_f1", scores, nothing, RIVALS)
    assert found.sentence == "joint training cannot be judged: macro-F1 is 0 for every system, 1 seed"


def test_a_seed_that_went_the_other_way_is_told() -> None:
    assert evidence([70, 60, -4], [80, 80, 80]).sentence.endswith("3 seeds; 1 of 3 seeds went the other way")


def test_the_rival_is_the_strongest_control_and_never_the_oracle() -> None:
    stronger = evidence([40], [20], scores=(50.0, 55.0))
    assert stronger.main.control == "closed book"
    assert "over the closed book" in stronger.sentence
    oracle = Difference("oracle", (-40.0,), stronger.main.interval, stronger.main.test)
    with_oracle = replace(
        stronger, scores={**stronger.scores, "oracle": [100.0]}, differences=[*stronger.differences, oracle]
    )
    assert with_oracle.main.control == "closed book"


def test_a_difference_is_of_the_mean_over_seeds_and_paired_over_items() -> None:
    """For scores that are means, the test equals that of the items' mean scores, up to the draws."""
    rng = np.random.default_rng(3)
    seeds = [rng.integers(0, 2, size=(2, ITEMS)) * 100.0 for _ in range(3)]
    pooled = [scores.reshape(-1) for scores in seeds]
    parts: list[Statistic] = [lambda rows, whole=whole: float(whole[rows].mean()) for whole in pooled]
    found = difference("frozen retriever", parts, ITEMS)
    baseline, system = (np.mean([scores[side] for scores in seeds], axis=0) for side in (0, 1))
    assert found.mean == pytest.approx(float(system.mean() - baseline.mean()))
    assert found.by_seed == pytest.approx([float(scores[1].mean() - scores[0].mean()) for scores in seeds])
    interval = paired_bootstrap(baseline, system, np.random.default_rng(0), 1_000)
    test = paired_permutation(baseline, system, np.random.default_rng(0), 1_000)
    assert (found.interval.low, found.interval.high) == pytest.approx((interval.low, interval.high), abs=0.5)
    assert found.test.p_value == pytest.approx(test.p_value, abs=0.04)
    assert difference("frozen retriever", parts, ITEMS) == found  # the same draws each time
    with pytest.raises(UserError, match="of 1 items is not informative; expected at least 2"):
        difference("frozen retriever", parts, 1)


def test_numbers_and_names_as_people_write_them() -> None:
    assert [format_spread([]), format_spread([1.25]), format_spread([1.0, 3.0], "+")] == ["", "1.2", "+2.0 ± 1.4"]
    assert [metric_name("micro_f1"), metric_name("knowledge_f1")] == ["micro-F1", "knowledge_f1"]
