"""SmolLM2 with adapters, against bare transformers on the same prompts: training, scoring, choosing, writing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from benchmarks.language_model import Bare, make_prompts, score, train, write
from benchmarks.speed.measuring import Aim, Measured, Row, compare_speed

from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.loading.lora import Lora

__all__ = ["ROWS"]

_PROMPTS = 8


def measure_work(name: str) -> Callable[[int], Measured]:
    """Return the measurement of one work."""

    def measure(repeats: int) -> Measured:
        options = GeneratorOptions(max_input_tokens=512, dropout=False)
        generator = Generator.open("builtin:smollm2", torch.Generator().manual_seed(0), Lora(rank=8), options)
        prompts, targets, choices = make_prompts(_PROMPTS)
        bare = Bare(generator)
        works: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "training": (lambda: bare.train(prompts, targets), lambda: train(generator, prompts, targets)),
            "scoring": (lambda: bare.score(prompts, targets), lambda: score(generator, prompts, targets)),
            "choosing": (
                lambda: bare.choose(prompts[:2], choices),
                lambda: generator.choice_log_likelihood(prompts[:2], [choices] * 2),
            ),
            "writing": (lambda: bare.write(prompts), lambda: write(generator, prompts)),
        }
        theirs, ours = works[name]
        ratios, seconds = compare_speed(theirs, ours, repeats)
        lengths = [len(ids) for ids in bare.ids(prompts)]
        return ratios, seconds, f"{len(prompts)} prompts of {min(lengths)} to {max(lengths)} tokens, LoRA rank 8, fp32"

    return measure


ROWS = tuple(
    Row(f"smollm2-{name}", f"SmolLM2: {work}", "bare transformers", measure_work(name), Aim(aim))
    for name, work, aim in (
        ("training", "a LoRA step", 0.9),
        ("scoring", "likelihood of an answer", 0.9),
        ("choosing", "one of 19 answers", 3.0),
        ("writing", "a written answer", 1.0),
    )
)
