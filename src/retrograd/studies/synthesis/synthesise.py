"""Questions with short answers for a corpus that has none: a language model writes them, and a round trip decides.

    a ~ names, dates and numbers of a passage z        (rare ones: they stand in few other passages)
    x = what the model writes for (z, a)
    keep (x, a) if  F1(a, what the model answers to x with z) ≥ ``min_f1``
                and log p(a | x, z) - log p(a | x) > ``min_gain``

after Alberti et al. 2019 (arXiv 1906.05416), who keep what is answered alike again, and Lewis et al. 2021, "PAQ" (arXiv
2102.07033), who write pairs for a whole Wikipedia. The difference of the two log-likelihoods is the pointwise mutual
information of answer and passage given the question: a pair without any teaches a retriever nothing.

Work is done in blocks of passages, and a block is a file (`retrograd.studies.synthesis.work`): a killed process
continues behind the last one, and what it writes is, on a CPU, what one that was not killed writes, byte for byte.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from retrograd.data.passages import read_corpus
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.studies.synthesis.drafts import REASONS, Draft, answer_spans, choose_spans
from retrograd.studies.synthesis.near_duplicates import near_duplicates
from retrograd.studies.synthesis.questions import PROMPT_VERSION
from retrograd.studies.synthesis.round_trip import QuestionModel, complete_drafts
from retrograd.studies.synthesis.work import Work, WorkFolder
from retrograd.tasks.text_index import count_texts_with
from retrograd.types import Passage, UserError
from retrograd.util.files import lock_folder
from retrograd.util.guards import JsonObject, require_at_least
from retrograd.util.progress import bar, say
from retrograd.util.records import record_mapping
from retrograd.util.text_files import write_json, write_jsonl

__all__ = ["Synthesis", "Yield", "open_question_model", "rejected_file", "synthesise"]

_BLOCK = 16  # passages
_EXAMPLES = 10
_BASE = "passages.arrow"
_LOG_LIKELIHOODS = ("log_likelihood", "log_likelihood_alone")


@dataclass(frozen=True)
class Synthesis:
    """Frozen settings of how pairs are made. Raises `UserError` for a number out of range.

    ``passages`` are drawn by ``seed``, 0 is all; of each ``per_passage`` answers, each of which stands in at most
    ``max_passages_with_answer`` other passages of the corpus. ``min_f1`` is the least token F1 of the round trip, and
    ``min_gain``, in nats, what the passage has to add to the log-likelihood of the answer. Of two questions whose sets
    of words have a Jaccard overlap above ``max_overlap`` the first is kept. ``generator`` is a hub name, a folder or a
    built-in name.
    """

    generator: str = "builtin:smollm2"
    passages: int = 0
    per_passage: int = 3
    max_passages_with_answer: int = 10
    min_f1: float = 0.5
    min_gain: float = 0.0
    max_overlap: float = 0.8
    seed: int = 0
    format: str = "auto"

    def __post_init__(self) -> None:
        require_at_least(0, {"passages": self.passages, "max_passages_with_answer": self.max_passages_with_answer})
        require_at_least(1, {"per_passage": self.per_passage})
        if not math.isfinite(self.min_gain):
            raise UserError(f"min_gain is {self.min_gain}; expected a number of nats")
        for name, value in {"min_f1": self.min_f1, "max_overlap": self.max_overlap}.items():
            if not 0 <= value <= 1:
                raise UserError(f"{name} is {value:g}; expected a share, from 0 to 1")


@dataclass(frozen=True)
class Yield:
    """What came of a corpus: counts, and at most ten of the pairs.

    ``spans`` are possible answers in ``passages`` of the ``corpus`` passages, ``common`` of them in too many others.
    Each of the ``drafts`` was kept or has a reason (`REASONS`), counted in ``left_out``. ``seconds`` is the time of all
    blocks, of earlier processes too.
    """

    corpus: int
    passages: int
    spans: int
    common: int
    drafts: int
    kept: int
    left_out: dict[str, int]
    seconds: float
    examples: tuple[Draft, ...]

    @property
    def share(self) -> float:
        """Return the share of drafts that were kept."""
        return self.kept / max(self.drafts, 1)

    def record(self) -> JsonObject:
        """Return the counts as JSON."""
        return {**asdict(self), "examples": [one.record() for one in self.examples], "share": self.share}


@dataclass(frozen=True)
class _Selection:
    """The passages that are worked on: ``rows`` of ``base``, and in how many of its passages each answer stands."""

    base: KnowledgeBase
    rows: Sequence[int]
    spans: Counter[str]
    passages_with: dict[str, int]

    def blocks(self) -> Iterator[list[Passage]]:
        for start in range(0, len(self.rows), _BLOCK):
            yield self.base.passages(list(self.rows[start : start + _BLOCK]))


def synthesise(corpus: Path, out: Path, settings: Synthesis, model: QuestionModel | None = None) -> Yield:
    """Write questions with answers for passages of a corpus to ``out``, JSON Lines that training reads.

    ``model`` is `open_question_model` of ``settings.generator`` by default. Beside ``out`` there are then the drafts
    that were left out, with reasons (``.rejected.jsonl``), and settings and counts (``.summary.json``). Where nothing
    is kept, ``out`` is not written, and the finished blocks stay. Raises `UserError` where ``out`` exists, where a
    killed process had worked on it with other settings, and for corpora and generators as their readers do.
    """
    folder = WorkFolder.beside(out)
    if out.exists() and not folder.path.exists():
        raise UserError(f"{out} exists; choose another file with --out, or remove it first")
    model = model or open_question_model(settings.generator)
    folder.path.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder.path):
        try:
            base = KnowledgeBase.from_passages(read_corpus(corpus, settings.format), folder.path / _BASE)
            recorded = _record(settings, model, base)
            folder.begin(recorded)
        except UserError:
            folder.remove_if_unused()
            raise
        selection = _select(base, settings)
        blocks = _work(selection, folder, settings, model)
        found = _finish(selection, folder, blocks, out, settings, recorded)
        if found.kept:
            folder.remove()
        return found


def open_question_model(name: str) -> QuestionModel:
    """Open a generator on the device there is, to continue texts as they are.

    A chat template is not used: in a chat a small model forgets what it was shown, and answers in whole sentences.
    Raises `UserError` if it cannot be opened.
    """
    options = GeneratorOptions(max_input_tokens=1_024, max_target_tokens=64, chat=False, separator="")
    generator = Generator.open(name, torch.Generator().manual_seed(0), options=options)
    generator.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return QuestionModel(name, generator.fingerprint(), generator)


def _record(settings: Synthesis, model: QuestionModel, base: KnowledgeBase) -> JsonObject:
    """Return all that decides the pairs."""
    own = {"corpus": base.fingerprint, "fingerprint": model.fingerprint, "prompts": PROMPT_VERSION}
    return record_mapping(replace(settings, generator=model.name)) | own


def _select(base: KnowledgeBase, settings: Synthesis) -> _Selection:
    """Draw the passages, and count in how many passages of the corpus each of their possible answers stands."""
    rows: Sequence[int] = range(len(base))
    if 0 < settings.passages < len(base):
        rows = sorted(random.Random(settings.seed).sample(rows, settings.passages))
    passages = (base[row] for row in rows)
    spans = Counter(span.of(passage.text) for passage in passages for span in answer_spans(passage))
    return _Selection(base, rows, spans, count_texts_with(spans, (passage.text for passage in base)))


def _work(selection: _Selection, folder: WorkFolder, settings: Synthesis, model: QuestionModel) -> int:
    """Do the blocks that are not done yet; return the number of all."""
    blocks = 0
    if folder.has(0):
        say(f"continuing the work in {folder.path}")
    with bar("questions", len(selection.rows), "passages") as advance:
        for block, passages in enumerate(selection.blocks()):
            if not folder.has(block):
                folder.save(block, _do_block(passages, selection, settings, model))
            advance(len(passages))
            blocks = block + 1
    return blocks


def _do_block(passages: Sequence[Passage], selection: _Selection, settings: Synthesis, model: QuestionModel) -> Work:
    start = time.perf_counter()
    drafts = [draft for passage in passages for draft in _choose(passage, selection, settings)]
    by_id = {passage.id: passage for passage in passages}
    completed = complete_drafts(drafts, by_id, model.model, settings.min_f1, settings.min_gain) if drafts else []
    return Work(tuple(completed), time.perf_counter() - start)


def _choose(passage: Passage, selection: _Selection, settings: Synthesis) -> list[Draft]:
    most, count = settings.max_passages_with_answer, settings.per_passage
    return choose_spans(passage, selection.passages_with, most, count, settings.seed)


def _finish(
    selection: _Selection, folder: WorkFolder, blocks: int, out: Path, settings: Synthesis, recorded: JsonObject
) -> Yield:
    """Leave out near duplicates among all blocks, and write pairs, the other drafts, and the summary."""
    reasons = [(one.question, one.reason) for work in folder.read(blocks) for one in work.drafts]
    survivors = [place for place, (_, reason) in enumerate(reasons) if not reason]
    repeated = near_duplicates([reasons[place][0] for place in survivors], settings.max_overlap)
    duplicates = {place for place, is_repeated in zip(survivors, repeated, strict=True) if is_repeated}
    kept = [place for place in survivors if place not in duplicates]
    left_out = Counter(reason for _, reason in reasons if reason) + Counter(near_duplicate=len(duplicates))

    def read_drafts() -> Iterator[Draft]:
        every = (one for work in folder.read(blocks) for one in work.drafts)
        for place, draft in enumerate(every):
            yield replace(draft, reason="near_duplicate") if place in duplicates else draft

    if kept:
        write_jsonl(out, (_pair(one, recorded) for one in read_drafts() if not one.reason))
    write_jsonl(rejected_file(out), (one.record() for one in read_drafts() if one.reason))
    shown = {kept[i * len(kept) // _EXAMPLES] for i in range(_EXAMPLES)} if len(kept) > _EXAMPLES else set(kept)
    found = Yield(
        corpus=len(selection.base),
        passages=len(selection.rows),
        spans=selection.spans.total(),
        common=sum(
            count
            for answer, count in selection.spans.items()
            if selection.passages_with[answer] - 1 > settings.max_passages_with_answer
        ),
        drafts=len(reasons),
        kept=len(kept),
        left_out={reason: left_out[reason] for reason in REASONS if left_out[reason]},
        seconds=sum(work.seconds for work in folder.read(blocks)),
        examples=tuple(one for place, one in enumerate(read_drafts()) if place in shown),
    )
    write_json(out.with_name(f"{out.stem}.summary.json"), {"settings": recorded, "yield": found.record()})
    return found


def _pair(draft: Draft, recorded: JsonObject) -> JsonObject:
    """Return a line of the pairs: what readers of questions read, and ``provenance``, which they pass over."""
    made_by = {name: recorded[name] for name in ("generator", "fingerprint", "seed", "prompts")}
    own = draft.record()
    tested = {name: own[name] for name in ("start", "end", "others", "reading", "f1", *_LOG_LIKELIHOODS)}
    return {
        "id": draft.id,
        "question": draft.question,
        "answers": [draft.answer],
        "gold_passages": [draft.passage],
        "provenance": {"passage": draft.passage, **tested, **made_by},
    }


def rejected_file(out: Path) -> Path:
    """Return the file of the drafts that were left out, beside that of the pairs."""
    return out.with_name(f"{out.stem}.rejected.jsonl")
