"""Every line that the official SemEval scorer prints is reproduced."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from retrograd.metrics.relations import (
    PrecisionRecallF1,
    RelationTable,
    SemEvalEvaluation,
    SemEvalReport,
    parse_relation,
    semeval_score,
)


@pytest.fixture(scope="module")
def scorer_examples() -> Path:
    data = Path(__file__).parents[2] / ".." / "shared" / "data"
    folder = data / "semeval2010_task8" / "scorer_examples"
    if not folder.is_dir():
        pytest.skip("the official SemEval-2010 Task 8 scorer examples are not on this machine")
    return folder


def read_labels(path: Path) -> dict[str, str]:
    return dict(line.split("\t") for line in path.read_text().split("\n") if line.strip())


def tokens(line: str) -> list[str]:
    """Return the words and numbers of a line, because spacing and padding are not compared."""
    return re.findall(r"[\w.*%-]+|[^\s]", line)


def meaningful(text: str) -> list[list[str]]:
    """Return every line except blank ones and the rules of the matrices."""
    return [tokens(line) for line in text.splitlines() if line.strip(" +-\r")]


def official_text(report: SemEvalReport) -> str:
    """Return the report as the official scorer prints it, up to spacing."""
    lines = []
    directed = report.directed
    for j, label in list(enumerate(directed.columns))[len(directed.rows) :]:
        count = sum(row[j] for row in directed.confusion)
        lines.append(
            f"!!!WARNING!!! The proposed file contains {count} label(s) of type '{label}', "
            "which is NOT present in the key file."
        )
    lines += official_section("<<< (2*9+1)-WAY EVALUATION (USING DIRECTIONALITY)>>>:", directed, False)
    lines += official_section("<<< (9+1)-WAY EVALUATION IGNORING DIRECTIONALITY >>>:", report.undirected, False)
    title = "<<< (9+1)-WAY EVALUATION TAKING DIRECTIONALITY INTO ACCOUNT -- OFFICIAL >>>:"
    lines += official_section(title, report.official, True)
    lines.append(
        "<<< The official score is (9+1)-way evaluation with directionality taken into account: "
        f"macro-averaged F1 = {report.macro_f1:.2f}% >>>"
    )
    return "\n".join(lines)


def short(label: str, in_key: bool) -> str:
    if label == "Other":
        return "_O_"
    first, second = (part[0] for part in label.split("-"))
    side = {"(e1,e2)": "1", "(e2,e1)": "2", None: ""}[parse_relation(label).direction]
    return (f"{first}-{second}" if in_key else f"*{first}{second}") + side


def official_section(title: str, part: SemEvalEvaluation, with_direction: bool) -> list[str]:
    names = [short(label, label in part.rows) for label in part.columns]
    margin = "-SUM- xDIRx skip ACTUAL" if with_direction else "-SUM- skip ACTUAL"
    lines = [title, "Confusion matrix:", " ".join(names) + " <-- classified as", f"+{'-' * 9}+ {margin}"]
    for i, row in enumerate(part.confusion):
        lines.append(f"{names[i]} | {' '.join(map(str, row))} | {margins(part, [i], with_direction)}")
    sums = [sum(row[j] for row in part.confusion) for j in range(len(names))]
    lines.append(f"-SUM- {' '.join(map(str, sums))} {margins(part, list(range(len(part.rows))), with_direction)}")
    right, other = part.correct, part.correct_skipped_as_other
    lines += [
        f"Coverage = {part.predicted_items}/{part.items} = {part.coverage:.2f}%",
        f"Accuracy (calculated for the above confusion matrix) = {right}/{part.predicted_items} = {part.accuracy:.2f}%",
        f"Accuracy (considering all skipped examples as Wrong) = {right}/{part.items} = "
        f"{part.accuracy_skipped_as_wrong:.2f}%",
        f"Accuracy (considering all skipped examples as Other) = {other}/{part.items} = "
        f"{part.accuracy_skipped_as_other:.2f}%",
    ]
    return lines + official_scores(part.table, part.rows, part.wrong_direction, with_direction)


def margins(part: SemEvalEvaluation, rows: list[int], with_direction: bool) -> str:
    inside = sum(sum(part.confusion[i]) for i in rows)
    wrong = sum(part.wrong_direction[i] for i in rows)
    skipped = sum(part.skipped[i] for i in rows)
    middle = f"{wrong} " if with_direction else ""
    return f"{inside} {middle}{skipped} {inside + wrong + skipped}"


def official_scores(
    table: RelationTable, rows: tuple[str, ...], wrong_direction: tuple[int, ...], with_direction: bool
) -> list[str]:
    lines = ["Results for the individual relations:"]
    for label, wrong in zip(rows, wrong_direction, strict=True):
        one = table.negative_scores if label == "Other" else table.relations[label]
        guessed = f"({one.guessed - wrong} + {wrong})" if with_direction else f"{one.guessed}"
        name = "_Other" if label == "Other" else label
        lines.append(f"{name} : {shares(one, guessed)}")
    macro = table.macro
    return [
        *lines,
        "Micro-averaged result (excluding Other):",
        shares(table.micro, str(table.micro.guessed)),
        "MACRO-averaged result (excluding Other):",
        f"P = {macro.precision:.2f}% R = {macro.recall:.2f}% F1 = {macro.f1:.2f}%",
    ]


def shares(one: PrecisionRecallF1, guessed: str) -> str:
    return (
        f"P = {one.correct}/{guessed} = {one.precision:.2f}% "
        f"R = {one.correct}/{one.gold} = {one.recall:.2f}% F1 = {one.f1:.2f}%"
    )


@pytest.mark.parametrize("number", [1, 3])
def test_every_line_of_the_official_scorer_is_reproduced(scorer_examples: Path, number: int):
    key = read_labels(scorer_examples / f"answer_key{number}.txt")
    proposed = read_labels(scorer_examples / f"proposed_answer{number}.txt")
    expected = meaningful((scorer_examples / f"result_scores{number}.txt").read_text())
    assert len(expected) > 60
    found = meaningful(official_text(semeval_score(key, proposed)))
    assert [line for line in found if not is_margin(line)] == [line for line in expected if not is_margin(line)]


def is_margin(line: list[str]) -> bool:
    """Return whether a line is the rule with the margin's titles, whose length follows the column widths and is not
    compared.
    """
    return line[0] == "+"


# --- errors -----------------------------------------------------------------------------------------------------------
