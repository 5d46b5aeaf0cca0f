"""RagModel: retriever, index and generator as one model: open, save, search, answer; retrieve, likelihood, predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import overload

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from retrograd.index.exact import ExactIndex
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.index.protocol import can_save_with_model
from retrograd.index.settings import IndexSettings
from retrograd.models.compute.compute import Compute, choose_device, in_own_precision
from retrograd.models.compute.inference import inference
from retrograd.models.loading.lora import Lora
from retrograd.models.retriever import Retriever
from retrograd.models.settings import ComputePrecision, Scoring, TrainedTowers
from retrograd.rag.answers.answering import (
    DEFAULT_ANSWERING,
    Answering,
    Reading,
    choice_scores,
    choose_answers,
    read_alone,
    read_candidates,
    withhold_unsure,
)
from retrograd.rag.answers.decision import ChoiceScores
from retrograd.rag.candidates import Candidates
from retrograd.rag.index_source import IndexSource
from retrograd.rag.indexed_model import IndexedModel
from retrograd.rag.likelihood import CopyLikelihood, CopySettings, GeneratorLikelihood, find_support
from retrograd.rag.mixture import InstanceMixture, MakeMixture, WordMixture
from retrograd.rag.model_folder import (
    SavedSettings,
    create_model_folder,
    open_saved_base,
    open_saved_task,
    read_parts,
    read_saved_settings,
    write_parts,
)
from retrograd.rag.model_parts import ModelParts, build_parts
from retrograd.rag.model_settings import ModelSettings, pretrained_settings
from retrograd.tasks.task import Task
from retrograd.types import Example, Hit, Prediction, UserError

__all__ = ["RagModel"]

_ANSWERS_AT_ONCE = 64
_DEFAULT_INDEX = IndexSettings()
_EMBEDDED = IndexSource(_DEFAULT_INDEX)


class RagModel(IndexedModel):
    """p(y|x) = Σ_z p(z|x) p(y|x,z) with z a passage of ``base``.

    ``posterior``, q(z|x,y), is for objectives that need one; it searches the same index (`PassageSide`). With
    ``null_passage`` reading nothing is one more candidate of every query, scored like a passage and prompted without
    one. ``search`` says how passages are found (`retrograd.rag.search_kinds.SEARCHES`), ``answering`` how they are read
    and answers taken. With ``sharded`` each rank holds its rows of the index. All methods compute in ``precision``.
    ``settings`` are those that the model was built from, where it was.

    All this is fixed when the model is made, but for how it answers, which training decides (`use_answering`). Call
    `refresh_index` before the first retrieval, and whenever passage embeddings have moved; `search` and `answer` do so
    where there is no index at all.

    Example::

        base = rg.KnowledgeBase.from_jsonl("passages.jsonl")
        model = rg.RagModel.from_pretrained(
            retriever="builtin:minilm", generator="builtin:minilm-seq2seq", task=rg.QuestionAnswering(), base=base
        )
        print(model.answer("who wrote the first program?").text)
    """

    # ---- from settings, from disk, to disk ----------------------------------------------------------------------

    @classmethod
    def build(
        cls,
        settings: ModelSettings,
        task: Task,
        base: KnowledgeBase,
        rng: torch.Generator,
        *,
        precision: ComputePrecision = "fp32",
        sharded: bool = False,
        index_source: IndexSource = _EMBEDDED,
    ) -> RagModel:
        """Return an untrained model; ``rng`` draws the adapters, then the soft prompt. Raises `UserError` as they do.

        It computes in ``precision``. With ``sharded`` each rank holds its rows of the index, which comes from
        ``index_source`` at the first `refresh_index`.
        """
        parts, retriever = build_parts(settings, task, base, rng), settings.retriever
        return cls(
            parts.retriever,
            parts.generator,
            task,
            base,
            parts.posterior,
            retriever.null_passage,
            search=retriever.search_kind,
            answering=settings.answering,
            sharded=sharded,
            precision=precision,
            settings=settings,
            index_source=index_source,
        )

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path | None = None,
        *,
        retriever: str = "",
        generator: str = "",
        task: Task | None = None,
        base: KnowledgeBase | None = None,
        posterior: bool = False,
        lora: Lora | None = None,
        temperature: float = 0.05,
        trained: TrainedTowers = "both",
        search: str = "nearest",
        separate_towers: bool = False,
        null_passage: bool = False,
        passages: int = 5,
        max_tokens: int = 128,
        max_input_tokens: int = 256,
        max_target_tokens: int = 16,
        seed: int = 0,
        precision: ComputePrecision = "fp32",
        device: torch.device | str | None = None,
        index: IndexSettings = _DEFAULT_INDEX,
    ) -> RagModel:
        """Open a model that `save_pretrained` wrote into ``folder``, or make one of a retriever and a generator.

        ``retriever`` and ``generator`` are names on the Hugging Face hub, folders, or built in (``builtin:minilm``,
        ``builtin:minilm-seq2seq``). ``posterior`` adds q(z|x,y), which some objectives need; ``lora`` puts adapters
        into the generator; ``trained`` are the towers that learn, "both", the "query" side or "none";
        ``separate_towers`` gives passages an encoder of their own; ``null_passage`` makes reading nothing a candidate.
        The retriever reads ``max_tokens`` of a text. Answers are read from ``passages`` passages. ``seed`` draws new
        weights. ``device`` is what ``RETROGRAD_DEVICE`` names, else a GPU where there is one, else the CPU. ``index``
        says which index is searched.

        A folder brings all this, task and base too; a ``task`` or ``base`` given here stands in their place. Raises
        `UserError` for a folder beside names, and where models do not fit.
        """
        # Long by its parameters alone: they are the public API, and named once more to become settings.
        source, device = IndexSource(index), device or choose_device()
        settings = pretrained_settings(
            folder,
            retriever=retriever,
            generator=generator,
            posterior=posterior,
            lora=lora,
            temperature=temperature,
            trained=trained,
            search=search,
            separate_towers=separate_towers,
            null_passage=null_passage,
            passages=passages,
            max_tokens=max_tokens,
            max_input_tokens=max_input_tokens,
            max_target_tokens=max_target_tokens,
        )
        if settings is None:
            path = Path(folder or "")
            task, base = task or open_saved_task(path), base or open_saved_base(path)
            return cls.load(path, task, base, device=device, precision=precision, index_source=source).eval()
        if task is None or base is None:
            raise UserError("a new model needs task=… and base=…, such as rg.QuestionAnswering() and a KnowledgeBase")
        rng = torch.Generator().manual_seed(seed)
        return cls.build(settings, task, base, rng, precision=precision, index_source=source).to(device).eval()

    @classmethod
    def load(
        cls,
        folder: Path,
        task: Task,
        base: KnowledgeBase,
        generator_name: str = "",
        device: torch.device | str = "cpu",
        precision: ComputePrecision = "fp32",
        answering: Answering = DEFAULT_ANSWERING,
        index_source: IndexSource = _EMBEDDED,
    ) -> RagModel:
        """Read what `save` wrote; models and index go to ``device``. It computes in ``precision``; ``generator_name``
        is the model under adapters, "" the one that the folder names. What the folder does not say of answering, as in
        runs of older versions, is as in ``answering``.

        The index stays there when the model is moved; one that the folder lacks comes from ``index_source``. Raises
        `UserError` for a folder without a model, and for an index of another base or encoder.
        """
        saved = read_saved_settings(folder, answering)
        parts = read_parts(folder, saved, task, generator_name)
        model = cls(
            parts.retriever,
            parts.generator,
            task,
            base,
            parts.posterior,
            saved.null_passage,
            search=saved.search,
            answering=saved.answering,
            precision=precision,
            settings=saved.settings,
            index_source=index_source,
        ).to(device)
        if (folder / "index").exists():
            index = ExactIndex.load(
                folder / "index",
                base_fingerprint=base.fingerprint,
                encoder_fingerprint=model.passage_fingerprint(),
                device=device,
            )
            model.use_index(index)
        return model

    def save(self, folder: Path, copy_given: bool = False) -> None:
        """Write ``retriever/``, ``generator/``, ``index/``, ``model.json`` and, if there is one, ``posterior/``.

        A given index is opened again, not copied, unless ``copy_given``.
        """
        saved = SavedSettings(
            has_posterior=self.posterior is not None,
            own_passages=self.passage_side.own_posterior is not None,
            null_passage=self.null_passage,
            search=self.search_kind,
            answering=self.answering,
            settings=self.settings,
        )
        write_parts(ModelParts(self.retriever, self.generator, self.posterior), saved, folder, self.task, self.base)
        is_kept = copy_given or not self.reopens_index
        # In the middle of a stage the index is older than the tower, or mixed; a reader then embeds the base anew.
        if is_kept and self.has_index and can_save_with_model(self.index) and self.index_is_current():
            self.index.save(folder / "index")

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that `from_pretrained` opens by itself: the parts, task and base too. It appears complete or
        not at all, and replaces an older one. An index that was given is copied, too.

        Under adapters the generator's own weights stay where they are, by name. Raises `UserError` for a folder that
        holds something else.
        """
        with create_model_folder(Path(folder), self.task, self.base) as temporary:
            self.save(temporary, copy_given=True)

    def with_posterior(self, posterior: Retriever) -> RagModel:
        """Return a model of the same parts, index included, with another posterior retriever.

        It must embed passages with the prior's tower, or the index has to be refreshed.
        """
        other = RagModel(
            self.retriever,
            self.generator,
            self.task,
            self.base,
            posterior,
            self.null_passage,
            search=self.search_kind,
            answering=self.answering,
            sharded=self.sharded,
            precision=self.precision,
            settings=self.settings,
            index_source=self.index_source,
        )
        if self.has_index:
            other.use_index(self.index)
        return other.train(self.training)

    # ---- likelihood ---------------------------------------------------------------------------------------------

    def likelihood(self, examples: Sequence[Example], candidates: Candidates) -> GeneratorLikelihood:
        """Return the generator's likelihood, bound to these examples and candidates."""
        return GeneratorLikelihood(
            self.generator,
            self.task,
            self.base,
            examples,
            candidates.rows,
            self.support,
            self._mixture(candidates),
            Compute(self.device, self.precision),
            self._remembered,
        )

    def _mixture(self, candidates: Candidates) -> MakeMixture:
        """Return what soft slots hold: instances through the soft prompt where there is one, else words."""
        prompt = self.generator.soft_prompt
        if prompt is None:
            return partial(WordMixture, self.generator, self.task, candidates.rows)
        return partial(InstanceMixture, prompt, self.retriever, candidates)

    def copy_likelihood(
        self, examples: Sequence[Example], candidates: Candidates, settings: CopySettings
    ) -> CopyLikelihood:
        """Return the task's own test of support, as a likelihood."""
        return CopyLikelihood(self.supports(examples, candidates.rows), settings)

    def supports(self, examples: Sequence[Example], rows: Int[Tensor, "B K"]) -> Bool[Tensor, "B K"]:
        """Return which rows support each example's target. Raises `UserError` where the task offers no test."""
        if self.support is None:
            raise UserError(f"the task {self.task.name!r} has no cheap test of support; set warm_start.epochs = 0")
        return find_support(self.support, examples, rows)

    # ---- answers ------------------------------------------------------------------------------------------------

    def search(self, query: str | Example, k: int = 5) -> list[Hit]:
        """Return the k best passages of a query with p(z|x), best first; fewer where the base holds no more.

        A string is parsed as the task's query: a question, the last turn of a dialogue, a sentence with both entities
        marked. Raises `UserError` for a string that is none.
        """
        self._require_some_index()
        with inference(self):
            candidates = self.retrieve([self._example(query)], min(k, len(self.base)))
        rows, shares = candidates.rows[0].tolist(), candidates.scores.log_prior[0].exp().tolist()
        return [Hit(row, self.base[row], share) for row, share in zip(rows, shares, strict=True) if row >= 0]

    @overload
    def answer(self, query: str | Example, k: int | None = None) -> Prediction: ...

    @overload
    def answer(self, query: list[str] | list[Example], k: int | None = None) -> list[Prediction]: ...

    def answer(
        self, query: str | Example | list[str] | list[Example], k: int | None = None
    ) -> Prediction | list[Prediction]:
        """Return the most likely answer of a query, or of each of a list, with the passages it was read from, its
        ``confidence`` and its ``citations``.

        ``k`` passages are read of each (None: as many as ``answering`` says, 0: none). Strings are parsed as `search`
        does.
        """
        k = min(self.answering.passages if k is None else k, len(self.base))
        if k > 0:
            self._require_some_index()
        examples = [self._example(item) for item in (query if isinstance(query, list) else [query])]
        predictions = [
            replace(prediction, passages=tuple(self.base.passages(prediction.rows)))
            for start in range(0, len(examples), _ANSWERS_AT_ONCE)
            for prediction in self.predict(examples[start : start + _ANSWERS_AT_ONCE], k, self.answering.scoring)
        ]
        return predictions if isinstance(query, list) else predictions[0]

    def _example(self, query: str | Example) -> Example:
        return self.task.parse_query(query) if isinstance(query, str) else query

    def _require_some_index(self) -> None:
        if self.needs_index and not self.has_index:
            self.refresh_index()

    @in_own_precision
    def predict(self, examples: Sequence[Example], k: int, scoring: Scoring = "sequence") -> list[Prediction]:
        """Return the most likely answer of each example from its k best passages, by the decision of ``answering``.

        Passages are read one by one, Σ_z p(z|x) p(y|x,z), at once, or in soft slots, as ``answering`` says.
        k = 0 asks the generator alone, as does an example for which no passage is left.
        `retrograd.rag.answers.answering` says how candidate answers are found; ``scoring`` is for a closed set. Answers
        below the threshold of ``answering`` are withheld. The model's own mode does not matter.
        """
        if not examples:
            return []
        with inference(self):
            reading = self._reading(examples, k)
            predictions = choose_answers(
                self.generator, self.task, self.base, examples, reading, scoring, self.answering.decision, self.support
            )
        return withhold_unsure(self.task, examples, predictions, self.answering.abstain_below)

    @in_own_precision
    def choice_scores(
        self, examples: Sequence[Example], k: int, scoring: Scoring = "sequence"
    ) -> list[ChoiceScores] | None:
        """Return the scores of each permitted answer before any decision; None where the set of answers is open, or the
        model writes its answers."""
        if self.answering.manner.answers == "written":
            return None
        with inference(self):
            reading = self._reading(examples, k)
            return choice_scores(self.generator, self.task, self.base, examples, reading, scoring, self.support)

    def _reading(self, examples: Sequence[Example], k: int) -> Reading:
        """Read as `predict` does: without a passage the query alone, with certainty."""
        if k == 0:
            return read_alone(len(examples), self.answering.manner)
        candidates = self.retrieve(examples, k)
        return read_candidates(
            candidates, self.answering, lambda weight: self.likelihood(examples, candidates).soft_slots(weight)
        )
