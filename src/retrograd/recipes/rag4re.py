"""RAG4RE: a retrieved training sentence in the prompt of a fine-tuned language model.

Efeoglu & Paschke 2024 (arXiv 2404.13397; fine-tuned: 2406.14745). ``…-published`` has the settings that are known of
the paper and its code: one neighbour without its label, found by a frozen sentence encoder, and a written answer. The
other form is what we would run: labelled neighbours, a query that knows the entities, and a retriever that is trained
with the generator; ``retriever.trained = "none"`` is the frozen one under the same prompt. TACRED is licensed by the
Linguistic Data Consortium: put its files, and the patches of TACREV and Re-TACRED, into folders of these names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from retrograd.experiments.experiment import (
    EvaluationSettings,
    Experiment,
    GeneratorSettings,
    RelationData,
    RetrieverSettings,
    TrainingSettings,
    WarmStartSettings,
)
from retrograd.objectives import FrozenRetriever, TopKMarginal
from retrograd.util.records import record_mapping

__all__ = [
    "DATA",
    "DEVIATIONS",
    "MODELS",
    "TITLES",
    "LanguageModel",
    "improved",
    "known_settings",
    "published",
    "semeval",
]

DEVIATIONS = (
    "words of the prompt and of the labels are our own; its parts and their order are the paper's",
    "the retriever reads the sentence with both entities marked; the paper's reads the bare sentence",
    "a sentence never retrieves itself, nor an equal one, in training either",
    "an answer is read as a label by rules that never guess; the paper's take the first label that is a substring",
    "AdamW keeps its state on the device; the paper's pages it",
    "rates rise over a tenth of the steps, gradients are clipped at norm 1 (the paper's: not known)",
    "scores are the official ones; the micro-F1 printed there for the TACRED family is that of no_relation alone",
)
"""What differs from the paper in the published form as well, in no setting, and for every model."""

_SETTING: Mapping[str, object] = {
    "data.input_style": "instructed",
    "data.neighbour_style": "unlabelled",
    "retriever.model": "builtin:minilm",
    "retriever.pooling": "mean",
    "retriever.trained": "none",
    "retriever.search": "nearest",
    "generator.max_target_tokens": 30,
    "objective.kind": "FrozenRetriever",
    "training.passages": 1,
    "evaluation.answers": "written",
}
"""Known of all models. ``builtin:minilm`` is all-MiniLM-L6-v2, the paper's encoder."""


@dataclass(frozen=True)
class LanguageModel:
    """A generator and the settings of its fine-tuning.

    ``known`` are the published settings, ``deviations`` differ in none of them; both are empty for a model that is not
    the paper's.
    """

    title: str
    generator: GeneratorSettings
    training: TrainingSettings
    known: tuple[str, ...] = ()
    deviations: tuple[str, ...] = ()


_KNOWN_OF_ALL = ("lora_rank", "lora_alpha", "lora_dropout", "epochs", "batch_size", "generator_learning_rate")
_LORA = GeneratorSettings(max_target_tokens=30, lora_alpha=32.0)
_T5 = replace(_LORA, max_input_tokens=512, lora_rank=4, lora_dropout=0.01, lora_modules=("q", "k", "v", "o"))
_T5_TRAINING = TrainingSettings(
    epochs=1, batch_size=8, micro_batch=2, passages=1, generator_learning_rate=5e-5, schedule="constant"
)
_CAUSAL = replace(_LORA, max_input_tokens=1_024, lora_rank=8, lora_dropout=0.1, quantisation="nf4")
_CAUSAL_TRAINING = TrainingSettings(
    epochs=5,
    batch_size=4,
    micro_batch=1,
    passages=1,
    generator_learning_rate=2e-4,
    weight_decay=1e-3,
    schedule="cosine",
)
_KNOWN_T5 = (*_KNOWN_OF_ALL, "lora_modules", "schedule")
_KNOWN_CAUSAL = (*_KNOWN_OF_ALL, "quantisation", "weight_decay")
_OTHER_T5 = ("the checkpoint is T5-Large; the paper names it and, elsewhere, Flan-T5-Large",)
_OTHER_CAUSAL = (
    "the checkpoint is the one tuned for chat or instructions; which form was fine-tuned there is not known",
    "the paper's cosine has restarts, how many is not known; at transformers' default it has none",
)

MODELS: Mapping[str, LanguageModel] = {
    "t5-large": LanguageModel(
        "T5-Large (LoRA)", replace(_T5, model="google-t5/t5-large"), _T5_TRAINING, _KNOWN_T5, _OTHER_T5
    ),
    "flan-t5-large": LanguageModel("Flan-T5-Large (LoRA)", replace(_T5, model="google/flan-t5-large"), _T5_TRAINING),
    "llama-2-7b": LanguageModel(
        "Llama-2-7B (QLoRA)",
        replace(_CAUSAL, model="meta-llama/Llama-2-7b-chat-hf"),
        _CAUSAL_TRAINING,
        _KNOWN_CAUSAL,
        _OTHER_CAUSAL,
    ),
    "mistral-7b": LanguageModel(
        "Mistral-7B (QLoRA)",
        replace(_CAUSAL, model="mistralai/Mistral-7B-Instruct-v0.2"),
        _CAUSAL_TRAINING,
        _KNOWN_CAUSAL,
        _OTHER_CAUSAL,
    ),
    "qwen3-4b": LanguageModel(
        "Qwen3-4B (QLoRA)",
        replace(_CAUSAL, model="Qwen/Qwen3-4B-Instruct-2507"),
        replace(_CAUSAL_TRAINING, epochs=2),
    ),
}
"""The paper's three, Flan-T5 and a small open model, fine-tuned in the same way."""

_TACRED = RelationData(
    train="tacred/train.json", dev="tacred/dev.json", test="tacred/test.json", format="tacred", labels="tacred"
)
DATA: Mapping[str, RelationData] = {
    "semeval": RelationData(),
    "tacred": _TACRED,
    "tacrev": replace(_TACRED, dev_patch="tacrev/dev_patch.json", test_patch="tacrev/test_patch.json"),
    "retacred": replace(
        _TACRED,
        labels="retacred",
        train_patch="retacred/train_id2label.json",
        dev_patch="retacred/dev_id2label.json",
        test_patch="retacred/test_id2label.json",
    ),
}
"""The paper's four data sets; the training sentences are the knowledge base."""

TITLES = {"semeval": "SemEval-2010 Task 8", "tacred": "TACRED", "tacrev": "TACREV", "retacred": "Re-TACRED"}


def published(data: str, model: str) -> Experiment:
    """RAG4RE as published: one neighbour without its label, a frozen retriever, a written answer.

    Settings that its papers do not state are ours.
    """
    language_model = MODELS[model]
    return Experiment(
        name=f"rag4re-{data}-{model}-published",
        data=replace(DATA[data], query_style="marked", input_style="instructed", neighbour_style="unlabelled"),
        retriever=RetrieverSettings(pooling="mean", trained="none"),
        generator=language_model.generator,
        objective=FrozenRetriever(form="together"),
        warm_start=WarmStartSettings(epochs=0),
        training=language_model.training,
        evaluation=EvaluationSettings(answers="written"),
    )


def improved(data: str, model: str) -> Experiment:
    """Retriever and generator trained as one on three labelled neighbours, the answer chosen by its likelihood."""
    before, settings = published(data, model), DATA[data]
    return replace(
        before,
        name=f"rag4re-{data}-{model}",
        data=replace(settings, query_style="between+marked", input_style="instructed", neighbour_style="labelled"),
        retriever=RetrieverSettings(pooling="roles", trained="query"),
        objective=TopKMarginal(),
        warm_start=WarmStartSettings(epochs=1, learning_rate=2e-4, refresh_every=100),
        training=replace(before.training, passages=3, distraction=0.3, refresh_every=400),
        evaluation=EvaluationSettings(scoring="tree"),
    )


def known_settings(model: str) -> dict[str, object]:
    """Return the published settings by section and name, those of the model included."""
    settings = MODELS[model]
    sections = {
        "generator": record_mapping(settings.generator),
        "training": record_mapping(settings.training),
    }
    model_settings = {
        f"{section}.{name}": values[name]
        for section, values in sections.items()
        for name in settings.known
        if name in values
    }
    return {**_SETTING, **model_settings}


def semeval() -> Experiment:
    """SemEval-2010 Task 8 at 10 %, RAG4RE's prompt on built-in models, retriever and generator trained as one.

    The list of relations, half of the prompt, is left out: this generator chooses among them.
    """
    return Experiment(
        name="rag4re-semeval",
        data=RelationData(train_count=800, dev_from_train=400, seed=0, input_style="instructed, no list"),
        retriever=RetrieverSettings(pooling="roles", dropout=False),
        generator=GeneratorSettings(dropout=False, max_input_tokens=256),
        objective=TopKMarginal(),
        warm_start=WarmStartSettings(epochs=3, learning_rate=2e-4, refresh_every=10),
        training=TrainingSettings(epochs=3, passages=3, distraction=0.3, refresh_every=50),
    )
