"""Label scoring: all of TACRED's 42 sentences of an example in one pass, against one label a call.

    OMP_NUM_THREADS=1 python benchmarks/label_scoring.py --sentences 16

Every example has its own 42 sentences, both names filled in. One label a call is what SuRE's published way costs: the
encoder reads the prompt again for each. All ways run in turns in one process, in fp32; scores must agree. The second
model has T5-small's sizes and random weights.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from retrograd.data.relations.semeval import load_semeval
from retrograd.models.generator import Generator
from retrograd.tasks.relations.verbalisation import open_verbalisation


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--sentences", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--labels", type=int, default=42)
    options = parser.parse_args()
    prompts, choices = questions(options.sentences, options.labels)
    print(f"{len(prompts)} sentences, {options.labels} labels, {torch.get_num_threads()} threads, {torch.__version__}")
    for name, generator in generators().items():
        compare(name, generator, prompts, choices, options.repeats)


def questions(sentences: int, labels: int) -> tuple[list[str], list[list[str]]]:
    """Prompts as SuRE words them, and every label's sentence."""
    words = open_verbalisation("builtin:tacred")
    prompts: list[str] = []
    choices: list[list[str]] = []
    for instance in load_semeval("test")[:sentences]:
        head, tail = (instance.text[span.start : span.end] for span in (instance.head, instance.tail))
        prompts.append(
            f"The head entity is {head}. The tail entity is {tail}. The type of {head} is thing. "
            f"The type of {tail} is thing. {instance.text}"
        )
        choices.append(list(words.sentences(head, tail).values())[:labels])
    return prompts, choices


def generators() -> dict[str, Generator]:
    """The built-in generator, and T5-small's sizes with random weights under the same tokeniser."""
    builtin = Generator.open("builtin:minilm-seq2seq", torch.Generator()).eval()
    special = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    sized = T5ForConditionalGeneration(T5Config(vocab_size=32_128, **special))
    return {
        "builtin:minilm-seq2seq": builtin,
        "T5-small's sizes, random": Generator(sized, builtin.tokenizer).eval(),
    }


def compare(name: str, generator: Generator, prompts: list[str], choices: list[list[str]], repeats: int) -> None:
    """One table: seconds, speed, and the largest difference from the first way."""

    @torch.no_grad()
    def one_label_a_call() -> Tensor:
        return torch.stack(
            [
                torch.cat([generator.log_likelihood([prompt], [text]) for text in texts])
                for prompt, texts in zip(prompts, choices, strict=True)
            ]
        )

    @torch.no_grad()
    def one_label_a_call_in_batches() -> Tensor:
        by_label = zip(*choices, strict=True)
        return torch.stack([generator.log_likelihood(prompts, list(texts)) for texts in by_label], dim=1)

    ways: dict[str, Callable[[], Tensor]] = {
        "one label a call": one_label_a_call,
        "one label a call, sentences batched": one_label_a_call_in_batches,
        "one pass, sequence": lambda: generator.choice_log_likelihood(prompts, choices, "sequence"),
        "one pass, tree": lambda: generator.choice_log_likelihood(prompts, choices, "tree"),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    scores: dict[str, Tensor] = {}
    for _ in range(repeats):
        for way, score in ways.items():
            began = time.perf_counter()
            scores[way] = score()
            seconds[way].append(time.perf_counter() - began)
    first = next(iter(ways))
    print(f"\n{name:38}{'s':>8}{'speed':>8}{'difference':>13}")
    for way, taken in seconds.items():
        apart = f"{float((scores[way] - scores[first]).abs().max()):.1e}" if "tree" not in way else "another score"
        print(f"{way:38}{median(taken):>8.2f}{median(seconds[first]) / median(taken):>8.1f}{apart:>15}")


if __name__ == "__main__":
    main()
