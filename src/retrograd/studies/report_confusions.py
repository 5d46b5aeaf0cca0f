"""The table of confusions on a run's page: counts of test items by gold label and answered label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["ConfusionTable", "tabulate_confusions"]

_LABELS = 24
"""The most rows of a table; the rarest labels share the last one."""
_INVALID = "(no valid answer)"
_RARER = "(all rarer ones)"
_RIGHT, _OTHER = "(the right rarer one)", "(another rarer one)"


@dataclass(frozen=True)
class ConfusionTable:
    """Counts of test items by gold label (rows) and answered label (columns).

    The first columns are the ``labels`` of the rows, in their order, so that the diagonal holds what is right and
    nothing else. Where rare labels share the last row, its diagonal counts those of them that were answered right, and
    a column beyond it all other answers with a rare label. The last column may be answers that are no label.
    """

    labels: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def has_rarer(self) -> bool:
        """Return whether rare labels share a row."""
        return _OTHER in self.columns


def tabulate_confusions(gold: Sequence[str], answers: Sequence[str | None]) -> ConfusionTable:
    """Return the counts of the most frequent labels, by gold labels first; rarer ones share a row. None is an answer
    that is no label.
    """
    counts = Counter(gold)
    counts.update({answer: 0 for answer in answers if answer is not None and answer not in counts})
    ordered = [label for label, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))]
    is_whole = len(ordered) <= _LABELS
    own = ordered if is_whole else ordered[: _LABELS - 1]
    places = {label: place for place, label in enumerate(own)}
    names = [*own, *([] if is_whole else [_RIGHT, _OTHER]), *([_INVALID] if None in answers else [])]
    rows = [*own, *([] if is_whole else [_RARER])]
    table = [[0] * len(names) for _ in rows]
    for right, answer in zip(gold, answers, strict=True):
        if answer is None:
            column = len(names) - 1
        elif answer in places:
            column = places[answer]
        else:
            column = len(own) + (answer != right)
        table[places.get(right, len(own))][column] += 1
    return ConfusionTable(tuple(rows), tuple(names), tuple(map(tuple, table)))
