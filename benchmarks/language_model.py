"""Speed of a decoder-only generator against the bare transformers model on the same prompts, in one run.

    OMP_NUM_THREADS=1 python benchmarks/language_model.py --model builtin:smollm2 --prompts 16

Bare is what a training script writes: batches of eight in the order given, padded, logits everywhere, the loss of the
targets. Both run in turns in one process, in fp32, with the same adapters; the median of the ratios counts, for other
work on the machine slows both. Tokens are those of prompts and targets, without padding. Scores must agree.

* training: the log-likelihood of each target, and its gradient;
* scoring: the same without gradient;
* choosing: 19 answers after each prompt. Bare scores each answer behind its own copy of the prompt;
* writing: greedy, at most 16 tokens.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from retrograd.data.relations.semeval import load_semeval
from retrograd.models.compute.batching import pad_ids
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.loading.lora import Lora
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.types import Example, Passage

_BATCH = 8
_OPTIONS = GeneratorOptions(max_input_tokens=512, dropout=False)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--model", default="builtin:smollm2")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", nargs="+", default=["training", "scoring", "choosing", "writing"])
    options = parser.parse_args()
    generator = Generator.open(options.model, torch.Generator().manual_seed(0), Lora(rank=8), _OPTIONS)
    prompts, targets, choices = make_prompts(options.prompts)
    bare = Bare(generator)
    lengths = [len(ids) for ids in bare.ids(prompts)]
    processor = torch.cpu.get_capabilities().get("cpu_name", "")
    sizes = f"{len(prompts)} prompts of {min(lengths)} to {max(lengths)} tokens"
    print(f"{options.model}, {sizes}, {torch.get_num_threads()} threads, torch {torch.__version__}, {processor}")
    tokens = sum(lengths) + sum(len(ids) for ids in generator.target_ids(targets))
    columns = f"{'bare s':>9}{'ours s':>9}{'bare tokens/s':>15}{'ours tokens/s':>15}{'ratio':>8}{'difference':>12}"
    print(f"{'':10}{'tokens':>8}{columns}")
    rows: list[tuple[str, Callable[[], Tensor], Callable[[], Tensor]]] = [
        ("training", lambda: bare.train(prompts, targets), lambda: train(generator, prompts, targets)),
        ("scoring", lambda: bare.score(prompts, targets), lambda: score(generator, prompts, targets)),
        (
            "choosing",
            lambda: bare.choose(prompts, choices),
            lambda: generator.choice_log_likelihood(prompts, [choices] * len(prompts)),
        ),
        ("writing", lambda: bare.write(prompts), lambda: write(generator, prompts)),
    ]
    for name, theirs, ours in rows:
        if name in options.rows:
            compare(name, tokens, theirs, ours, options.repeats)


def make_prompts(count: int) -> tuple[list[str], list[str], list[str]]:
    """Return questions with a passage each of one to eight sentences of SemEval-2010 Task 8, targets, and choices."""
    task, instances = QuestionAnswering(), load_semeval("test")
    prompts: list[str] = []
    targets: list[str] = []
    for number in range(count):
        texts = [instances[8 * number + n].text for n in range(1 + number % 8)]
        first = instances[8 * number]
        question = f"What does the text say of the {first.tail.of(first.text)}?"
        prompts.append(task.prompt(Example(str(number), question), [Passage(str(number), "", " ".join(texts))]))
        targets.append(first.head.of(first.text))
    return prompts, targets, [f"the {one.head.of(one.text)}" for one in instances[1_000:1_019]]


def train(generator: Generator, prompts: list[str], targets: list[str]) -> Tensor:
    """Return the scores of batches as training takes them, with a gradient each."""
    values = []
    for start in range(0, len(prompts), _BATCH):
        value = generator.log_likelihood(prompts[start : start + _BATCH], targets[start : start + _BATCH])
        value.sum().backward()
        values.append(value.detach())
    return torch.cat(values)


@torch.no_grad()
def score(generator: Generator, prompts: list[str], targets: list[str]) -> Tensor:
    """Return the scores of all targets at once."""
    return generator.log_likelihood(prompts, targets)


def write(generator: Generator, prompts: list[str]) -> Tensor:
    """Return the lengths of the answers."""
    return torch.tensor([float(len(text)) for text in generator.generate(prompts)])


class Bare:
    """The same model and the same tokens, without the package."""

    def __init__(self, generator: Generator) -> None:
        self._generator, self._model = generator, generator.model

    def ids(self, prompts: list[str]) -> list[list[int]]:
        """Return the tokens of prompts."""
        return self._generator.prompt_tokens.ids(prompts, [512] * len(prompts))

    def train(self, prompts: list[str], targets: list[str]) -> Tensor:
        """Return the score of each target, with gradients."""
        values = []
        for batch in self._batches(prompts, targets):
            value = self._score(*batch)
            value.sum().backward()
            values.append(value.detach())
        return torch.cat(values)

    @torch.no_grad()
    def score(self, prompts: list[str], targets: list[str]) -> Tensor:
        """Return the score of each target."""
        return torch.cat([self._score(*batch) for batch in self._batches(prompts, targets)])

    def choose(self, prompts: list[str], choices: list[str]) -> Tensor:
        """Return the score of each choice after each prompt."""
        rows = [self.score([prompt] * len(choices), choices) for prompt in prompts]
        return torch.stack(rows)

    @torch.no_grad()
    def write(self, prompts: list[str]) -> Tensor:
        """Return the lengths of the answers."""
        lengths: list[float] = []
        ids = self.ids(prompts)
        most = self._generator.options.max_target_tokens - 1
        end = self._generator.end
        for start in range(0, len(ids), _BATCH):
            tokens, mask = pad_ids(ids[start : start + _BATCH], end, self._model.device, left=True)
            written = self._model.generate(
                input_ids=tokens,
                attention_mask=mask,
                max_new_tokens=most,
                do_sample=False,
                eos_token_id=end,
                pad_token_id=end,
            )
            texts = self._generator.tokenizer.batch_decode(written[:, tokens.shape[1] :], skip_special_tokens=True)
            lengths += [float(len(text.strip())) for text in texts]
        return torch.tensor(lengths)

    def _batches(self, prompts: list[str], targets: list[str]) -> list[tuple[list[list[int]], list[list[int]]]]:
        ids, target_ids = self.ids(prompts), self._generator.target_ids(targets)
        return [(ids[n : n + _BATCH], target_ids[n : n + _BATCH]) for n in range(0, len(ids), _BATCH)]

    def _score(self, prompt_ids: list[list[int]], target_ids: list[list[int]]) -> Tensor:
        rows = [p + t for p, t in zip(prompt_ids, target_ids, strict=True)]
        tokens, mask = pad_ids(rows, 0, self._model.device)
        is_target = torch.zeros_like(mask, dtype=torch.bool)
        for row, (p, t) in enumerate(zip(prompt_ids, target_ids, strict=True)):
            is_target[row, len(p) : len(p) + len(t)] = True
        logits = self._model(input_ids=tokens, attention_mask=mask).logits.float()
        log_p = logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)
        return (log_p * is_target[:, 1:]).sum(-1)


def compare(name: str, tokens: int, theirs: Callable[[], Tensor], ours: Callable[[], Tensor], repeats: int) -> None:
    """Print one row: the median seconds of both, and of their ratio."""
    seconds: list[tuple[float, float]] = []
    difference = 0.0
    for _ in range(repeats):
        taken: list[float] = []
        results: list[Tensor] = []
        for run in (theirs, ours):
            began = time.perf_counter()
            results.append(run())
            taken.append(time.perf_counter() - began)
        seconds.append((taken[0], taken[1]))
        difference = float((results[0] - results[1]).abs().max())
    bare, own = (median(pair[n] for pair in seconds) for n in (0, 1))
    ratio = median(theirs / ours for theirs, ours in seconds)
    speeds = f"{tokens / bare:>15.0f}{tokens / own:>15.0f}"
    print(f"{name:10}{tokens:>8}{bare:>9.2f}{own:>9.2f}{speeds}{ratio:>8.2f}{difference:>12.1e}")


if __name__ == "__main__":
    main()
