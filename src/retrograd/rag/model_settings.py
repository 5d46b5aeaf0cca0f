"""Everything that a model is built from, beside its task and its base: settings, and the options made of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from retrograd.models.encoder import ROLES
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.inputs.soft_prompt import SoftPromptOptions
from retrograd.models.loading.lora import Lora
from retrograd.models.settings import TrainedTowers
from retrograd.rag.answers.answering import Answering
from retrograd.rag.settings import GeneratorSettings, RetrieverSettings, SoftPromptSettings
from retrograd.types import UserError

__all__ = ["ModelSettings", "pretrained_settings"]


@dataclass(frozen=True)
class ModelSettings:
    """Everything that a `retrograd.rag.rag_model.RagModel` is built from, beside its task and its base.

    ``embeds_labels`` says that the passage tower reads labels, so that a soft prompt adds none.
    """

    retriever: RetrieverSettings = field(default_factory=RetrieverSettings)
    generator: GeneratorSettings = field(default_factory=GeneratorSettings)
    soft_prompt: SoftPromptSettings = field(default_factory=SoftPromptSettings)
    answering: Answering = field(default_factory=Answering)
    embeds_labels: bool = False

    @property
    def lora(self) -> Lora:
        """The adapters of the generator; rank 0 is none."""
        g = self.generator
        return Lora(g.lora_rank, g.lora_alpha, g.lora_dropout, g.lora_modules)

    @property
    def generator_options(self) -> GeneratorOptions:
        """Return the options by which the generator reads and writes."""
        g = self.generator
        return GeneratorOptions(
            max_input_tokens=g.max_input_tokens,
            max_target_tokens=g.max_target_tokens,
            token_budget=g.token_budget,
            soft_position=self.soft_prompt.position,
            chat=g.chat,
            quantisation=g.quantisation,
            fusion=g.fusion,
            dropout=g.dropout,
            gradient_checkpointing=g.gradient_checkpointing,
        )

    def soft_prompt_options(self, width: int) -> SoftPromptOptions | None:
        """Return the options of a soft prompt over hidden states of ``width``; None where the model has none."""
        s, selection = self.soft_prompt, self.answering.selection
        if s.form == "words" or selection is None:
            return None
        roles = len(ROLES) if self.retriever.pooling == "roles" else 1
        label = 0 if self.embeds_labels else 1
        null = self.retriever.null_passage
        return SoftPromptOptions(width, selection.slots, roles, roles + label, s.form, s.gain, null)


def pretrained_settings(
    folder: str | Path | None,
    *,
    retriever: str,
    generator: str,
    posterior: bool,
    lora: Lora | None,
    temperature: float,
    trained: TrainedTowers,
    search: str,
    separate_towers: bool,
    null_passage: bool,
    passages: int,
    max_tokens: int,
    max_input_tokens: int,
    max_target_tokens: int,
) -> ModelSettings | None:
    """Return the settings of a new model; None where a ``folder`` brings them.

    Raises `UserError` unless there is either a folder, or both names.
    """
    # Long by its parameters, those of `RagModel.from_pretrained`: a flat list, because users write a flat call.
    if folder is not None:
        if retriever or generator or posterior or lora is not None:
            raise UserError(
                f"from_pretrained({str(folder)!r}) opens a saved model, which brings its retriever, posterior, "
                f"generator and adapters; leave out the folder, or these arguments"
            )
        return None
    if not retriever or not generator:
        missing = "retriever" if not retriever else "generator"
        raise UserError(
            f"from_pretrained needs {missing}=…, the name of a model or its folder; give retriever and generator, or "
            f"the folder of a saved model"
        )
    adapters = lora or Lora()
    return ModelSettings(
        RetrieverSettings(
            _from_root(retriever),
            max_tokens=max_tokens,
            temperature=temperature,
            trained=trained,
            separate_towers=separate_towers,
            posterior=posterior,
            null_passage=null_passage,
            search=search,
        ),
        replace(
            GeneratorSettings(_from_root(generator), max_input_tokens, max_target_tokens),
            lora_rank=adapters.rank,
            lora_alpha=adapters.alpha,
            lora_dropout=adapters.dropout,
            lora_modules=adapters.modules,
        ),
        answering=Answering(passages=passages),
    )


def _from_root(name: str) -> str:
    """Return the name of a model; of a folder from the root, so that it can be opened from any folder."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name
