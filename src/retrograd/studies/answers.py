"""Questions to a finished run, answered with records: its scores, answers to new examples, a search.

Nothing here prints or formats; `retrograd.commands` turns the records into text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from retrograd.data.hub import data_path
from retrograd.evaluation.evaluate import Evaluation, evaluate, predict
from retrograd.evaluation.records import prediction_record
from retrograd.experiments.open import OpenRun, open_run
from retrograd.experiments.run import require_passages
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.rag.answers.decision import Decision
from retrograd.training.run.run_directory import RunDirectory
from retrograd.types import Example, Hit, Prediction, UserError
from retrograd.util.guards import JsonObject, JsonValue

__all__ = ["RunEvaluation", "SearchResult", "evaluate_run", "predict_file", "saved_scores", "search_run", "select_rows"]


@dataclass(frozen=True)
class RunEvaluation:
    """Scores of a run on ``examples`` examples that read ``passages`` passages each.

    ``fitted_passages`` is the number of passages at which the run's decision or threshold was fitted on development
    data, None where neither was.
    """

    examples: int
    passages: int
    evaluation: Evaluation
    fitted_passages: int | None

    @property
    def scores(self) -> dict[str, float]:
        """Scores of answers, neighbours, citations and confidence by name, in percent."""
        return self.evaluation.scores

    def record(self) -> JsonObject:
        """Return the scores as JSON, with what ``confidence.json`` has, and the labels that count as wrong."""
        return {
            "examples": self.examples,
            "passages": self.passages,
            "fitted_passages": self.fitted_passages,
            "scores": {**self.scores},
            "confidence": self.evaluation.confidence.record(),
            **({"unseen_labels": {**unseen}} if (unseen := self.evaluation.unseen_labels) else {}),
        }


@dataclass(frozen=True)
class SearchResult:
    """The k best passages for a query, best first, and the run's answer to it with its passages; an index alone gives
    no answer.

    ``label`` is the label that the answer names, where the task has labels.
    """

    hits: tuple[Hit, ...]
    answer: Prediction | None = None
    label: str | None = None

    def record(self) -> JsonObject:
        """Return hits and answer as JSON."""
        hits: list[JsonValue] = [
            {"row": hit.row, "probability": hit.probability, **asdict(hit.passage)} for hit in self.hits
        ]
        answer = None if self.answer is None else prediction_record(self.answer)
        return {"hits": hits, "answer": answer, "label": self.label}


def evaluate_run(
    run: Path,
    data: Path | None = None,
    patch: Path | None = None,
    passages: int | None = None,
    out: Path | None = None,
    changes: Sequence[str] = (),
) -> RunEvaluation:
    """Score a finished run on labelled ``data`` (default: its own test data) with ``passages`` per query.

    ``patch`` corrects the labels of ``data``. ``changes`` are assignments ``data.setting=value`` that say how ``data``
    are read where not as the run's own. With ``out`` predictions and scores are written there. Raises `UserError` for
    examples without answers, and where ``out`` holds scores already.
    """
    if changes and data is None:
        raise UserError("--set says how --data are read, which is missing; the run's own test data stay as they are")
    if patch is not None and data is None:
        raise UserError(
            "--patch corrects the labels of --data, which is missing; the run's own patch applies by itself"
        )
    opened = open_run(run)
    require_passages(opened.model.base, "--passages", passages or 0)
    examples = _labelled_examples(run, opened, data, patch, changes)
    if out is not None and (out / "scores.json").exists():
        raise UserError(f"{out} holds scores already; choose another folder with --out")
    run_passages = opened.experiment.test_passages
    k = run_passages if passages is None else passages
    evaluation = evaluate(opened.model, examples, k, opened.experiment.evaluation.scoring)
    if out is not None:
        evaluation.save(out)
    answering = opened.model.answering
    is_fitted = answering.decision != Decision() or answering.abstain_below is not None
    return RunEvaluation(len(examples), k, evaluation, run_passages if is_fitted else None)


def _labelled_examples(
    run: Path, opened: OpenRun, data: Path | None, patch: Path | None, changes: Sequence[str]
) -> Sequence[Example]:
    """Return examples that all have answers. Raises `UserError` for the first that has none."""
    if data is None and not opened.experiment.data.test:
        raise UserError(f"{run} has no test data of its own; give some with --data FILE")
    examples = opened.data.test if data is None else _read_examples(opened, data, patch, changes)
    for example in examples:
        if not example.targets:
            source = data or opened.experiment.data.test
            raise UserError(f"{source}, example {example.id!r}: no answer, so there is nothing to score; use predict")
    return examples


def saved_scores(run: Path) -> dict[str, float]:
    """Return the scores of a run by name, in percent; empty where it had no test data."""
    return RunDirectory(run).all_scores()


def predict_file(run: Path, data: Path, patch: Path | None = None, changes: Sequence[str] = ()) -> list[JsonObject]:
    """Answer the examples of a file, one record each; a ``patch`` that drops instances drops them here too.

    ``changes`` are as for `evaluate_run`.

    A record holds the query, the accepted answers, the answer, its confidence p(y|x), its passages with p(z|x) and
    p(z|x,y), and its citations; where the answer was withheld, also the answer that was. For a relation it holds the
    label as well and, where the answer was not the label's own words, the rule that read it.
    """
    opened = open_run(run)
    examples = _read_examples(opened, data, patch, changes)
    predictions = _answer(opened, examples)
    return [
        prediction_record(prediction, example) | opened.task.label_record(prediction.answer, example)
        for example, prediction in zip(examples, predictions, strict=True)
    ]


def search_run(run: Path, query: str, k: int = 5, where: Sequence[str] = ()) -> SearchResult:
    """Return the k best passages of the run's base for a query, with p(z|x), and the run's answer.

    With ``where``, patterns such as "title=Cups*", both are from the passages that match all of them
    (`IndexedModel.among`).
    """
    opened = open_run(run)
    require_passages(opened.model.base, "-k", k)
    example = opened.task.parse_query(query)
    with opened.model.among(select_rows(opened.model.base, where)):
        hits = tuple(opened.model.search(example, k))
        answer = _answer(opened, [example])[0]
    answer = replace(answer, passages=tuple(opened.model.base.passages(answer.rows)))
    label = opened.task.label_record(answer.answer, example).get("relation")
    return SearchResult(hits, answer, label if isinstance(label, str) else None)


def select_rows(base: KnowledgeBase, where: Sequence[str]) -> list[int] | None:
    """Return the rows that match all patterns FIELD=PATTERN; None, for all, without any.

    Raises `UserError` for one that is not written so, and where no passage matches.
    """
    if not where:
        return None
    matching: list[set[int]] = []
    for condition in where:
        name, equals, pattern = condition.partition("=")
        if not equals:
            raise UserError(f"--where is {condition!r}; write FIELD=PATTERN, such as 'title=Cups*'")
        matching.append(set(base.rows_where(**{name: pattern})))
    rows = set.intersection(*matching)
    if not rows:
        raise UserError(f"no passage matches {' and '.join(where)}; loosen --where")
    return sorted(rows)


def _answer(opened: OpenRun, examples: Sequence[Example]) -> list[Prediction]:
    """Answer examples with the number of passages and the scoring of the run's experiment."""
    experiment = opened.experiment
    return predict(opened.model, examples, experiment.test_passages, experiment.evaluation.scoring)


def _read_examples(opened: OpenRun, data: Path, patch: Path | None, changes: Sequence[str]) -> Sequence[Example]:
    """Read a file as the run's data are read, but for ``changes``. Raises `UserError` for one of no data setting."""
    stray = next((one for one in changes if not one.lstrip().startswith("data.")), None)
    if stray is not None:
        raise UserError(f"--set {stray}: only how the file is read can be set for a finished run, as data.…=VALUE")
    settings = opened.experiment.with_settings(changes).data if changes else opened.experiment.data
    return settings.read(data_path(str(data)), patch, opened.task, opened.model.base)
