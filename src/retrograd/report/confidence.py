"""What confidence is worth, for people: the reliability table, risk against coverage, and a picture of both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from retrograd.evaluation.confidence import Confidence
from retrograd.metrics.confidence import CoveragePoint
from retrograd.report.figures import make_figure
from retrograd.util.markdown import table_lines

__all__ = [
    "BIN_HEADINGS",
    "CURVE_HEADINGS",
    "RISK_NOTE",
    "ConfidenceView",
    "draw_confidence",
    "format_confidence",
    "view_confidence",
]

BIN_HEADINGS = ("confidence", "answers", "mean confidence", "correctness")
CURVE_HEADINGS = ("coverage", "risk", "least confidence")
RISK_NOTE = (
    "Coverage: the share of all examples that are answered if less confident answers are withheld. Risk: 1 - the mean "
    "correctness of the given answers."
)
_COVERAGES = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def format_confidence(confidence: Confidence) -> list[str]:
    """Return the lines of a summary and two tables, in Markdown."""
    view = view_confidence(confidence)
    return [
        " ".join(view.sentences),
        "",
        *table_lines(BIN_HEADINGS, view.bins),
        "",
        *table_lines(CURVE_HEADINGS, view.curve, left=0),
        "",
        RISK_NOTE,
    ]


@dataclass(frozen=True)
class ConfidenceView:
    """What every presentation of confidence has: sentences, the cells of two tables, and a curve.

    ``bins`` has the columns of `BIN_HEADINGS`, ``curve`` those of `CURVE_HEADINGS`. ``points`` are the curve's
    (coverage, risk), each in [0, 1].
    """

    sentences: tuple[str, ...]
    bins: tuple[tuple[str, ...], ...]
    curve: tuple[tuple[str, ...], ...]
    points: tuple[tuple[float, float], ...]


def view_confidence(confidence: Confidence) -> ConfidenceView:
    """Return confidence as it is shown."""
    bins = tuple(
        (
            f"{one.lowest:.3g} to {one.highest:.3g}",
            f"{one.count:,}",
            f"{one.confidence:.1%}",
            f"{one.correctness:.1%}",
        )
        for one in confidence.bins
    )
    points = [_reach(confidence.curve, coverage) for coverage in _COVERAGES]
    distinct = list(dict.fromkeys(point for point in points if point is not None))
    return ConfidenceView(
        tuple(_sentences(confidence)),
        bins,
        tuple((f"{point.coverage:.1%}", f"{point.risk:.1%}", f"{point.confidence:.3g}") for point in distinct),
        tuple((point.coverage, point.risk) for point in confidence.curve),
    )


def _sentences(confidence: Confidence) -> Iterator[str]:
    yield f"Confidence is the probability {confidence.kind}; correctness is {confidence.metric}."
    yield f"ECE {confidence.calibration_error:.1%}, over bins of about equal mass."
    if confidence.area is not None:
        yield f"AURC {confidence.area:.1%}, the mean risk over all coverages."
    given = f"{confidence.coverage:.1%} of the {confidence.examples:,} examples were given an answer"
    yield f"{given}." if confidence.risk is None else f"{given}, at a risk of {confidence.risk:.1%}."


def _reach(curve: tuple[CoveragePoint, ...], coverage: float) -> CoveragePoint | None:
    """Return the first point of the curve with at least this coverage; its last where none has."""
    return next((point for point in curve if point.coverage >= coverage), curve[-1] if curve else None)


def draw_confidence(confidence: Confidence, path: Path) -> None:
    """Draw correctness against confidence, and risk against coverage."""
    figure = make_figure(9.0, 4.0)
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color="lightgrey", label="calibrated")
    left.plot(
        [one.confidence for one in confidence.bins], [one.correctness for one in confidence.bins], "o-", color="black"
    )
    left.set(xlabel=f"probability {confidence.kind}", ylabel=f"correctness ({confidence.metric})")
    left.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    left.set_title(f"ECE {confidence.calibration_error:.1%}", fontsize=10)
    left.legend(fontsize=8)
    right.plot([point.coverage for point in confidence.curve], [point.risk for point in confidence.curve])
    right.set(xlabel="coverage", ylabel="risk", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    right.set_title("" if confidence.area is None else f"AURC {confidence.area:.1%}", fontsize=10)
    figure.savefig(path, dpi=130)
