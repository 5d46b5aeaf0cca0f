"""The generator for transformers and PEFT: adapters and the name of their model, or weights with adapters merged in."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import cast

from transformers import PreTrainedModel

from retrograd.models.generator import Generator
from retrograd.models.loading.loading import open_generator
from retrograd.models.loading.lora import has_lora, merge_lora, open_with_peft
from retrograd.models.loading.transformers_io import quiet_transformers, save_with_tokenizer
from retrograd.models.pointer import PointerGenerator, generator_class
from retrograd.studies.export.kind import Comparison, ExportKind, Source, compare_logits
from retrograd.types import UserError

__all__ = ["MERGED", "PEFT"]

_BASE = "base"


def _require_class_of_transformers(model: PreTrainedModel) -> None:
    if isinstance(model, PointerGenerator):
        raise UserError(
            "the generator copies from its prompt (builtin:minilm-pointer), and transformers has no such class; use it "
            "through retrograd (RagModel.answer), or train with another generator.model"
        )


def _write_adapters(source: Source, folder: Path) -> None:
    generator = source.model.generator
    if not has_lora(generator.model):
        raise UserError(
            f"{source.name} has no adapters: all weights of its generator were trained; hand it over with --to merged, "
            f"or train with generator.lora_rank above 0"
        )
    _require_class_of_transformers(generator.model)
    name = source.generator_name
    if name.startswith("builtin:"):  # which has no name that others can open
        with quiet_transformers():
            model, tokenizer = open_generator(name)
        save_with_tokenizer(model, tokenizer, folder / _BASE)
        name = str(source.out.resolve() / _BASE)
    generator.save(folder, name)


def _compare_adapters(source: Source, folder: Path) -> Comparison:
    generator = source.model.generator
    quantised = getattr(generator.model, "is_quantized", False) is True
    with quiet_transformers():
        theirs = open_with_peft(folder, generator.encoder_decoder, quantised)
    comparison = compare_logits(source, theirs, "opened with PEFT")
    base = folder.resolve() / _BASE
    if not base.is_dir():
        return comparison
    limit = (
        f"The adapters name their base by an absolute path, {base}, as PEFT opens a relative one from the working "
        f"directory alone. Where the folder is moved, write the new path into adapter_config.json "
        f"(base_model_name_or_path), or open {_BASE}/ with transformers and give it to PeftModel.from_pretrained."
    )
    return replace(comparison, limits=(*comparison.limits, limit))


def _write_merged(source: Source, folder: Path) -> None:
    generator = source.model.generator
    _require_class_of_transformers(generator.model)
    model = merge_lora(generator.model) if has_lora(generator.model) else generator.model
    Generator(model, generator.tokenizer, generator.options).save(folder)


def _compare_merged(source: Source, folder: Path) -> Comparison:
    kind = generator_class(source.model.generator.model.config)
    with quiet_transformers():
        loaded = kind.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
    theirs, report = cast(tuple[PreTrainedModel, dict[str, Collection[str]]], loaded)
    lacking = sorted({*report["missing_keys"], *report["unexpected_keys"], *report["mismatched_keys"]})
    if lacking:
        raise UserError(f"{folder}: transformers misses or does not know {len(lacking)} weights, such as {lacking[0]}")
    return compare_logits(source, theirs, "opened with transformers")


PEFT = ExportKind("peft", _write_adapters, _compare_adapters)
MERGED = ExportKind("merged", _write_merged, _compare_merged)
