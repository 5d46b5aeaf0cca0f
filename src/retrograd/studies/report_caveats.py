"""What a reader of a report must know beside its figures: the page and the text print the same caveats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from retrograd.studies.report import RelationReport, System
from retrograd.studies.report_answers import AnswerReport, AnswerSystem
from retrograd.studies.slices import SliceGroup

__all__ = ["list_answer_caveats", "list_relation_caveats"]

_FEW = 30


def list_relation_caveats(report: RelationReport) -> list[str]:
    """Return the caveats of a report about relations."""
    learned = report.learned.triggers
    caveats = [
        f"Triggers: {sum(map(len, learned.values())):,} words, for {sum(map(bool, learned.values()))} of the "
        f"{len(learned)} relations in {report.training:,} training sentences; the fewer sentences, the more by chance.",
        *_list_common(report.resamples, report.systems, report.slices),
    ]
    if report.slices and report.negative is not None:
        caveats.append(
            f"The slices by frequency and by trigger, and that of all relations, hold no item of {report.negative}, so "
            f"no false alarm on one lowers them: compare them with each other."
        )
    if report.slices and report.metric == "macro_f1":
        caveats.append(
            "In a slice the macro average runs over the relations that the slice's gold labels have, as the scorer "
            "does: slices with other relations are not on one scale."
        )
    return caveats


def list_answer_caveats(report: AnswerReport) -> list[str]:
    """Return the caveats of a report about free answers."""
    return list(_list_common(report.resamples, report.systems, report.slices))


def _list_common(
    resamples: int, systems: Sequence[System | AnswerSystem], slices: Sequence[SliceGroup]
) -> Iterator[str]:
    yield (
        f"Intervals: percentile bootstrap over test examples, {resamples:,} draws; differences are paired by example, "
        f"p by permutation. Neither sees the chance of another training seed."
    )
    if not any(system.kind == "control" and not system.is_told for system in systems):
        yield "No control run was given, so nothing here says what retrieval or training is worth."
    for system in systems:
        if system.is_told:
            yield f"{system.name} is told the answer at test time: a reference, no rival."
    if slices and any(system.gain is not None for system in systems):
        yield (
            "† in a slice: the 95 % interval of the difference from the run leaves out zero; of systems that do not "
            "differ, one in twenty gets it by chance."
        )
    if any(part.items < _FEW for group in slices for part in group.slices):
        yield f"Slices below {_FEW} examples are anecdotes, and their intervals too narrow."
