"""Validation of data before a run: malformed records, leaks, missing labels and passages, texts that will be cut.

Files are read whole, whatever the experiment draws of them. Nothing is trained and nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import torch

from retrograd.data.masking import read_spans
from retrograd.data.offsets import SpanCheck
from retrograd.experiments.data.findings import Findings, split_message
from retrograd.experiments.data.kinds import open_data, open_files
from retrograd.experiments.data.part_reading import BaseFile, DataPart, DataParts, base_bytes
from retrograd.experiments.data.recognition import FileReading, describe_reading, recognise_kind
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.run import require_enough_passages
from retrograd.experiments.stages import count_unknown_spans, masked_examples
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.studies.bare_files import bare_settings
from retrograd.studies.lengths import (
    IN_WORDS,
    Lengths,
    Reservoir,
    Ruler,
    generator_ruler,
    measure_lengths,
    retriever_ruler,
    target_ruler,
)
from retrograd.studies.validation.answers import AnswerSearch
from retrograd.studies.validation.checks import (
    BaseContents,
    PartContents,
    check_labels,
    check_leaks,
    check_patterns,
    check_queries,
)
from retrograd.tasks.task import Task
from retrograd.types import Example, Passage, Span, UserError
from retrograd.util.guards import JsonObject

__all__ = ["PartSummary", "Validation", "validate_experiment", "validate_files"]

_MOST_CUT = 0.01
_LOADED_BYTES = 200_000_000
_BLOCK_ROWS = 4_096


@dataclass(frozen=True)
class PartSummary:
    """A part in one line of the table. ``labels`` 0 where the task has none."""

    name: str
    source: str
    records: int
    labels: int


@dataclass(frozen=True)
class Validation:
    """The result of a validation; ``notes`` say what could not be checked, and why, ``readings`` what bare files are
    taken for."""

    parts: tuple[PartSummary, ...]
    lengths: tuple[Lengths, ...]
    findings: Findings
    notes: tuple[str, ...] = ()
    readings: tuple[FileReading, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Return whether nothing would break or leak."""
        return self.findings.total("error") == 0

    def record(self) -> JsonObject:
        """Return the validation as JSON."""
        return {
            "parts": [asdict(part) for part in self.parts],
            "lengths": [lengths.record() for lengths in self.lengths],
            "notes": list(self.notes),
            "readings": [reading.record() for reading in self.readings],
            **self.findings.record(),
        }


def validate_files(
    paths: Sequence[Path],
    kind: str | None = None,
    format: str = "auto",  # noqa: A002 (the field's word)
    changes: Sequence[str] = (),
) -> Validation:
    """Validate bare files. Those of one kind are the splits of one set of data: texts that two of them share are leaks.

    ``kind`` is one of `file_kinds`; None is what each file seems to hold. ``changes`` are assignments
    ``data.setting=value``. Lengths are in words. Raises `UserError` for a file that seems to hold nothing.
    """
    by_kind: dict[str, list[Path]] = {}
    for path in paths:
        by_kind.setdefault(kind or recognise_kind(path, changes), []).append(path)
    findings = Findings()
    rulers = _Rulers(IN_WORDS, IN_WORDS, IN_WORDS, IN_WORDS, 0, False)
    parts: list[PartSummary] = []
    lengths: list[Lengths] = []
    readings: list[FileReading] = []
    for name, files in by_kind.items():
        settings = bare_settings(name, format, changes)
        for data in open_files(files, name, settings, findings):
            summaries, measured = _check_parts(data, rulers, findings)
            parts += summaries
            lengths += measured
        readings += [describe_reading(path, name, format, settings) for path in files]
    notes = ("lengths are in words: bare files name no model; an experiment does",)
    return Validation(tuple(parts), tuple(lengths), findings, notes, tuple(readings))


def validate_experiment(experiment: Experiment) -> Validation:
    """Validate all parts of an experiment, in its models' tokens where their tokenizers are on this disk."""
    findings = Findings()
    data = open_data(experiment.data, findings)
    rulers = _Rulers(
        retriever_ruler(experiment.retriever, queries=True),
        retriever_ruler(experiment.retriever, queries=False),
        generator_ruler(experiment.generator),
        target_ruler(experiment.generator),
        experiment.prompt_passages,
        experiment.retriever.posterior,
    )
    parts, lengths = _check_parts(data, rulers, findings)
    notes = [
        f"{setting} = {name!r} has no tokenizer on this disk: its lengths are in words, beside no limit"
        for setting, name, ruler in (
            ("retriever.query_model", experiment.retriever.query_model, rulers.query),
            ("retriever.model", experiment.retriever.model, rulers.passage),
            ("generator.model", experiment.generator.model, rulers.prompt),
        )
        if name and ruler.limit is None
    ]
    if not experiment.data.train and experiment.stages_on_data:
        findings.error("missing", "train", "data.train", "names no training data", "give a file")
    if _spans(experiment):
        try:
            read_spans(Path(_spans(experiment)))
        except UserError as error:
            findings.fault("masking", _spans(experiment), error)
    if findings.total("error") == 0 and _small(experiment):
        _check_loading(experiment, findings)
    return Validation(tuple(parts), tuple(lengths), findings, tuple(notes))


def _spans(experiment: Experiment) -> str:
    """Return the file that says what may be masked, where there is one and anything will be."""
    return experiment.masking.spans if experiment.masking.epochs > 0 else ""


def _small(experiment: Experiment) -> bool:
    """Return whether reading it once more, as training will, is a matter of seconds."""
    return base_bytes(experiment.data.base_source) < _LOADED_BYTES


def _check_loading(experiment: Experiment, findings: Findings) -> None:
    """Report faults that only drawing, patching and putting together can show: counts too high, ids out of place, spans
    outside their passages.
    """
    try:
        base = experiment.data.load(experiment.seed).base
        require_enough_passages(experiment, base)
        if _spans(experiment):
            _check_spans(experiment, base, findings)
            masked_examples(base, replace(experiment.masking, passages=0), torch.Generator())
    except UserError as error:
        findings.error("settings", "data", "the experiment", *split_message(error))


def _check_spans(experiment: Experiment, base: KnowledgeBase, findings: Findings) -> None:
    """Report spans to be masked that begin or end inside a word or on a space, and ids that are in no passage."""
    source, offsets = _spans(experiment), experiment.masking.offsets
    spans, check = read_spans(Path(source), offsets), SpanCheck("masking.offsets", offsets)
    unknown, first = count_unknown_spans(base, spans.pairs, source)
    if unknown:
        what = f"{unknown:,} ids are in no passage of the base (the first is {first!r}), and are left out"
        findings.warning("masking", "base", source, what, "give the ids of passages")
    for block in base.blocks(_BLOCK_ROWS):
        for passage in block:
            for pair in spans(passage):
                check.add(f"{source}, id {passage.id!r}", "the span", passage.text, Span(*pair))
    if check.first is not None:
        findings.warning("offsets", "masking", check.first[0], *check.message())


@dataclass(frozen=True)
class _Rulers:
    """The rulers of each kind of text; ``passages`` go into one prompt; a ``posterior`` reads query and target."""

    query: Ruler
    passage: Ruler
    prompt: Ruler
    target: Ruler
    passages: int
    posterior: bool


def _check_parts(data: DataParts, rulers: _Rulers, findings: Findings) -> tuple[list[PartSummary], list[Lengths]]:
    task = data.task
    contents = [PartContents(part.name, part.source) for part in data.parts]
    samples = [_read_part(part, of_part, task, findings) for part, of_part in zip(data.parts, contents, strict=True)]
    for part in contents:
        is_reported = any(severity == "error" and name == part.name for severity, _, name in findings.counts)
        if task is not None and part.examples == 0 and not is_reported:
            findings.error("no record", part.name, part.source, "it holds no example", "give a file that has some")
    check_leaks(contents, findings)
    check_labels({part.name: part for part in contents}, findings)
    summaries = [PartSummary(part.name, part.source, part.examples, len(part.labels)) for part in contents]
    passages: Reservoir[Passage] = Reservoir()
    for passage in data.neighbours:
        passages.add(passage)
    if data.base is not None:
        asked = [(part, sample.values) for part, sample in zip(contents, samples, strict=True)]
        answers = AnswerSearch(asked, task) if task is not None and data.answers_stand_in_base else None
        if data.answers_stand_in_base:
            check_patterns(contents, findings)
        summaries.append(_read_base(data.base, contents, passages, answers, findings))
    lengths = [
        length
        for part, sample in zip(contents, samples, strict=True)
        for length in _lengths(part.name, sample, passages.values, task, rulers)
    ]
    texts = [passage.text if task is None else task.passage_text(passage) for passage in passages.values]
    part_name = "train" if data.base is None else "base"
    lengths.append(measure_lengths(part_name, "passage", texts, passages.count, rulers.passage))
    measured = [length for length in lengths if length is not None]
    for length in measured:
        _check_cut(length, findings)
    return summaries, measured


def _read_part(part: DataPart, contents: PartContents, task: Task | None, findings: Findings) -> Reservoir[Example]:
    sample: Reservoir[Example] = Reservoir()
    if task is None:
        return sample
    for example in check_queries(contents, part.examples(), task, findings):
        sample.add(example)
    return sample


def _read_base(
    file: BaseFile,
    parts: Sequence[PartContents],
    sample: Reservoir[Passage],
    answers: AnswerSearch | None,
    findings: Findings,
) -> PartSummary:
    base = BaseContents(file.source, [id_ for part in parts for id_ in part.gold])
    passages = base.check(file.passages(), findings)
    for passage in passages if answers is None else answers.check(passages):
        sample.add(passage)
    base.check_gold(parts, findings)
    if answers is not None:
        answers.report(base.passages, findings)
    base.check_repeated(file.passages, findings)
    return PartSummary("base", file.source, base.passages, 0)


def _lengths(
    part: str, sample: Reservoir[Example], passages: Sequence[Passage], task: Task | None, rulers: _Rulers
) -> Iterator[Lengths | None]:
    """Measure queries, prompts with passages drawn at random, and targets."""
    examples = sample.values
    if task is None:
        return
    passage_cycle = cycle(passages)
    prompts = [task.prompt(example, list(islice(passage_cycle, rulers.passages))) for example in examples]
    answered_examples = [example for example in examples if example.targets]
    share = sample.count * len(answered_examples) // max(1, len(examples))
    yield measure_lengths(part, "query", [task.query_text(example) for example in examples], sample.count, rulers.query)
    if rulers.posterior:
        texts = [task.posterior_text(example, example.target) for example in answered_examples]
        yield measure_lengths(part, "query and target", texts, share, rulers.query)
    yield measure_lengths(part, "prompt", prompts, sample.count, rulers.prompt)
    yield measure_lengths(part, "target", [example.target for example in answered_examples], share, rulers.target)


def _check_cut(lengths: Lengths, findings: Findings) -> None:
    """Report texts that are cut: a target that is cut is never written whole; of the rest one in a hundred may be."""
    if lengths.limit is None or lengths.cut <= (0.0 if lengths.what == "target" else _MOST_CUT):
        return
    settings = {"prompt": "generator.max_input_tokens", "target": "generator.max_target_tokens"}
    setting = settings.get(lengths.what, "retriever.max_tokens")
    message = f"{lengths.cut:.1%} of {lengths.what} texts are longer than {lengths.limit} tokens and are cut"
    remedy = f"raise {setting} (the longest has {lengths.longest}), where the model can read so many"
    findings.warning("cut", lengths.part, setting, message, remedy)
