"""Questions with short answers for a corpus that has none: a language model writes them, and a round trip decides.

    s ~ sentences of a passage z with a name, a date or a number
    (x, a) = the question and the answer that the model writes when it reads s
    keep (x, a) if  F1(a, what the model answers to x when it reads all of z) ≥ ``min_f1``
                and log p(a | x, z) - log p(a | x) > ``min_gain``
                and a stands in at most ``max_passages_with_answer`` other passages

after Alberti et al. 2019, "Synthetic QA Corpora Generation with Roundtrip Consistency" (arXiv 1906.05416), and Lewis et
al. 2021, "PAQ" (arXiv 2102.07033). The difference of the log-likelihoods is the pointwise mutual information of answer
and passage given the question: a pair without any teaches a retriever nothing.

Work is done in blocks of passages, and a block is a file (`retrograd.studies.synthesis.work`): a killed process
continues behind the last one, and what it writes is, on a CPU, what one that was not killed writes, byte for byte.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from retrograd.data.passages import read_corpus
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.compute.compute import choose_device
from retrograd.models.compute.descriptions import describe_configuration, describe_tokenizer, hash_parts
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.studies.synthesis.drafts import REASONS, Draft, choose_sentences
from retrograd.studies.synthesis.near_duplicates import near_duplicates
from retrograd.studies.synthesis.questions import PROMPT_VERSION
from retrograd.studies.synthesis.round_trip import QuestionModel, complete_drafts
from retrograd.studies.synthesis.work import Work, WorkFolder
from retrograd.tasks.text_index import count_texts_with
from retrograd.types import Passage, UserError
from retrograd.util.files import lock_folder
from retrograd.util.fingerprints import fingerprint
from retrograd.util.guards import JsonObject, require_at_least
from retrograd.util.progress import bar, say
from retrograd.util.records import record_mapping
from retrograd.util.text_files import write_json, write_jsonl

__all__ = ["Synthesis", "Yield", "fingerprint_of", "open_question_model", "rejected_file", "synthesise"]

_BLOCK = 16  # passages
_EXAMPLES = 10
_BASE = "passages.arrow"


@dataclass(frozen=True)
class Synthesis:
    """Frozen settings of how pairs are made. Raises `UserError` for a number out of range.

    ``passages`` are drawn by ``seed``, 0 is all; about each, ``per_passage`` questions are written. ``min_f1`` is the
    least token F1 of the round trip, and ``min_gain``, in nats, what the passage has to add to the log-likelihood of
    the answer, which stands in at most ``max_passages_with_answer`` other passages of the corpus. Of two questions
    whose sets of words have a Jaccard overlap above ``max_overlap`` the first is kept. ``generator`` is a hub name, a
    folder or a built-in name.

    An F1 of 0.5 is what two names have that share one word of two. 40 passages are what a warm start takes for evidence
    among 2,000 (`retrograd.tasks.support.AnswerSupport`): years stand in many, and make good questions.
    """

    generator: str = "builtin:smollm2"
    passages: int = 0
    per_passage: int = 3
    max_passages_with_answer: int = 40
    min_f1: float = 0.6
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
    """The result of `synthesise`: how many questions were written, kept and left out, with at most ten of the pairs.

    ``drafts`` were written about ``passages`` of the ``corpus`` passages. Each was kept or has a reason (`REASONS`),
    counted in ``left_out``. ``seconds`` is the time of all blocks, of earlier processes too.
    """

    corpus: int
    passages: int
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
        rows = _draw_rows(len(base), settings)
        blocks = _work(base, rows, folder, settings, model)
        found = _finish(_Drafts(folder, blocks), base, len(rows), out, settings, recorded)
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
    generator.to(choose_device()).eval()
    return QuestionModel(name, fingerprint_of(generator), generator)


def fingerprint_of(generator: Generator) -> str:
    """Return the SHA-256 of all that decides what a generator writes: weights, configuration, tokenizer and options.

    Paths and versions are left out; a model saved and opened again keeps its fingerprint.
    """
    options = json.dumps(record_mapping(generator.options), sort_keys=True)
    described = (describe_configuration(generator.model), describe_tokenizer(generator.tokenizer))
    return fingerprint([options, *described, *hash_parts(generator)])


def _record(settings: Synthesis, model: QuestionModel, base: KnowledgeBase) -> JsonObject:
    """Return all that decides the pairs."""
    own = {"corpus": base.fingerprint, "fingerprint": model.fingerprint, "prompts": PROMPT_VERSION}
    return record_mapping(replace(settings, generator=model.name)) | own


def _draw_rows(count: int, settings: Synthesis) -> Sequence[int]:
    if 0 < settings.passages < count:
        return sorted(random.Random(settings.seed).sample(range(count), settings.passages))
    return range(count)


def _work(
    base: KnowledgeBase, rows: Sequence[int], folder: WorkFolder, settings: Synthesis, model: QuestionModel
) -> int:
    """Do the blocks that are not done yet; return the number of all."""
    if folder.has(0):
        say(f"continuing the work in {folder.path}")
    starts = range(0, len(rows), _BLOCK)
    with bar("questions", len(rows), "passages") as advance:
        for block, start in enumerate(starts):
            part = list(rows[start : start + _BLOCK])
            if not folder.has(block):
                folder.save(block, _do_block(base.passages(part), settings, model))
            advance(len(part))
    return len(starts)


def _do_block(passages: Sequence[Passage], settings: Synthesis, model: QuestionModel) -> Work:
    start = time.perf_counter()
    drafts = [one for passage in passages for one in choose_sentences(passage, settings.per_passage, settings.seed)]
    by_id = {passage.id: passage for passage in passages}
    completed = complete_drafts(drafts, by_id, model.model, settings.min_f1, settings.min_gain)
    return Work(tuple(completed), time.perf_counter() - start)


@dataclass(frozen=True)
class _Drafts:
    """The drafts of all blocks, read from disk at every iteration; ``verdicts`` replaces what they say of some."""

    folder: WorkFolder
    blocks: int
    verdicts: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """By the id of a draft: the number of other passages with the answer, and the reason."""

    def __iter__(self) -> Iterator[Draft]:
        for work in self.folder.read(self.blocks):
            for one in work.drafts:
                others, reason = self.verdicts.get(one.id, (one.others, one.reason))
                yield replace(one, others=others, reason=reason)

    def seconds(self) -> float:
        return sum(work.seconds for work in self.folder.read(self.blocks))


def _compare_with_all(drafts: _Drafts, base: KnowledgeBase, settings: Synthesis) -> _Drafts:
    """Find out what a block cannot know: answers of many passages, and near duplicates."""
    left = [(one.id, one.question, one.answer) for one in drafts if not one.reason]
    passages_with = count_texts_with({answer for *_, answer in left}, (passage.text for passage in base))
    others = [passages_with[answer] - 1 for *_, answer in left]
    is_common = [count > settings.max_passages_with_answer for count in others]
    rare = [question for (_, question, _), common in zip(left, is_common, strict=True) if not common]
    repeated = iter(near_duplicates(rare, settings.max_overlap))
    reasons = ["common_answer" if common else "near_duplicate" if next(repeated) else "" for common in is_common]
    ids = [id_ for id_, *_ in left]
    return replace(drafts, verdicts=dict(zip(ids, zip(others, reasons, strict=True), strict=True)))


def _finish(
    drafts: _Drafts, base: KnowledgeBase, passages: int, out: Path, settings: Synthesis, recorded: JsonObject
) -> Yield:
    """Write pairs, the drafts that were left out, and the summary."""
    drafts = _compare_with_all(drafts, base, settings)
    reasons = Counter(one.reason for one in drafts)
    kept = reasons[""]
    if kept:
        write_jsonl(out, (_pair(one, recorded) for one in drafts if not one.reason))
    write_jsonl(rejected_file(out), (one.record() for one in drafts if one.reason))
    shown = {place * kept // _EXAMPLES for place in range(_EXAMPLES)}
    found = Yield(
        corpus=len(base),
        passages=passages,
        drafts=reasons.total(),
        kept=kept,
        left_out={reason: reasons[reason] for reason in REASONS if reasons[reason]},
        seconds=drafts.seconds(),
        examples=tuple(one for place, one in enumerate(one for one in drafts if not one.reason) if place in shown),
    )
    write_json(out.with_name(f"{out.stem}.summary.json"), {"settings": recorded, "yield": found.record()})
    return found


def _pair(draft: Draft, recorded: JsonObject) -> JsonObject:
    """Return a line of the pairs: what readers of questions read, and ``provenance``, which they pass over."""
    made_by = {name: recorded[name] for name in ("generator", "fingerprint", "seed", "prompts")}
    own = {name: value for name, value in draft.record().items() if name not in ("id", "question", "answer", "reason")}
    return {
        "id": draft.id,
        "question": draft.question,
        "answers": [draft.answer],
        "gold_passages": [draft.passage],
        "provenance": own | made_by,
    }


def rejected_file(out: Path) -> Path:
    """Return the file of the drafts that were left out, beside that of the pairs."""
    return out.with_name(f"{out.stem}.rejected.jsonl")
