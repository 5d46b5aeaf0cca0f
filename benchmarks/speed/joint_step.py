"""A joint training step, against the loop that a user writes with plain transformers, and against the generator alone.

The user's loop has the same weights, texts, towers and objective: it embeds the questions and their five best passages
with gradient, reads each passage with its question in one padded batch, takes the log-likelihood of each answer from
all logits of the decoder, marginalises as Hugging Face's `RagModel` does (over the retrieved passages), and steps
torch's AdamW. It reads all prompts of a step at once, as `RagModel` does; a careful user, who knows that smaller
batches are faster on a CPU, reads 16. Its attention and padding are the libraries' defaults. Where the passages rest,
as in `RagModel`, neither side embeds them with gradient.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, get_args

import torch
from benchmarks.speed.measuring import Aim, Measured, Row, compare_speed, medians, take_turns
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

import retrograd as rg
from retrograd.data.relations.semeval import load_semeval
from retrograd.models.compute.compute import Compute
from retrograd.models.compute.training_layers import training_attention
from retrograd.models.loading.loading import open_generator
from retrograd.models.settings import ComputePrecision, TrainedTowers
from retrograd.objectives.marginal import TopKMarginal
from retrograd.rag.rag_model import RagModel
from retrograd.training.gradients import add_gradients
from retrograd.training.optimiser import build_optimiser, clip
from retrograd.training.refresh.policies import Never
from retrograd.training.stage import GeneratorEvidence, Pace, Stage

__all__ = ["ROWS"]

_BATCH = 16
_PASSAGES = 5
_FEW_PAIRS = 16
_BASE = 400
_PACE = Pace(epochs=1, batch_size=_BATCH, generator_learning_rate=1e-5, retriever_learning_rate=1e-5)
_MOVES: dict[TrainedTowers, str] = {"both": "passages learn", "query": "passages rest"}


@cache
def texts() -> tuple[list[rg.Passage], list[rg.Example]]:
    """Return passages of one to three sentences of SemEval-2010 Task 8, and a batch of questions about them."""
    instances = load_semeval("test")
    passages, examples = [], []
    for number in range(_BASE):
        own = instances[4 * number : 4 * number + 1 + number % 3]
        passages.append(rg.Passage(str(number), "", " ".join(one.text for one in own)))
        if len(examples) < _BATCH and number % 7 == 0:
            question = f"What does the text say of the {own[0].tail.of(own[0].text)}?"
            examples.append(rg.Example(str(number), question, (own[0].head.of(own[0].text),)))
    return passages, examples


def make_model(
    generator: str, trained: TrainedTowers, precision: ComputePrecision, posterior: bool = False
) -> RagModel:
    """Return a model over the passages, with its index; ``generator`` is "seq2seq" or "decoder"."""
    passages, _ = texts()
    with tempfile.TemporaryDirectory() as folder:
        name = "builtin:minilm-seq2seq" if generator == "seq2seq" else _save_decoder(Path(folder))
        model = _open_model(name, passages, trained, precision, posterior)
    model.refresh_index()
    return model.train()


def _open_model(
    name: str, passages: list[rg.Passage], trained: TrainedTowers, precision: ComputePrecision, posterior: bool
) -> RagModel:
    return RagModel.from_pretrained(
        retriever="builtin:minilm",
        generator=name,
        task=rg.QuestionAnswering(),
        base=rg.KnowledgeBase.from_passages(passages),
        trained=trained,
        posterior=posterior,
        precision=precision,
        max_tokens=256,
        max_input_tokens=320,
        separate_towers=trained == "query",
    )


def _save_decoder(folder: Path) -> str:
    """Write a decoder-only model of the sizes of the built-in generator, with random weights; return its folder."""
    torch.manual_seed(0)
    tokenizer: Any = open_generator("builtin:minilm-seq2seq")[1]
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=384,
        intermediate_size=1_536,
        num_hidden_layers=6,
        num_attention_heads=12,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


class PlainLoop:
    """The user's loop over the same modules."""

    def __init__(self, model: RagModel, precision: ComputePrecision, pairs: int) -> None:
        self._model, self._examples, self._pairs = model, texts()[1], pairs
        self._compute = Compute(torch.device("cpu"), precision)
        self._query, self._passage = model.retriever.query_encoder, model.retriever.passage_encoder
        self._generator, self._learns = model.generator, model.retriever.trained == "both"
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._weights, self._optimiser = weights, torch.optim.AdamW(weights, lr=1e-5)
        rows = range(len(model.base))
        self._index = model.index.vectors(torch.tensor(list(rows))).float()

    def step(self) -> None:
        """Train one batch."""
        with self._compute.autocast():
            loss = self.loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._weights, 1.0)
        self._optimiser.step()
        self._optimiser.zero_grad()

    def loss(self) -> Tensor:
        """Return the mean of -log Σ_z p(z|x) p(y|x,z) over the five best passages of each question."""
        task, base = self._model.task, self._model.base
        query = self._embed(self._query, [task.query_text(one) for one in self._examples])
        rows = (query.detach() @ self._index.T).topk(_PASSAGES).indices
        flat = rows.flatten().tolist()
        passages = base.passages(flat)
        if self._learns:
            vectors = self._embed(self._passage, [task.passage_text(one) for one in passages])
        else:
            vectors = self._index[rows.flatten()]
        temperature = self._model.retriever.temperature
        score = torch.einsum("bd,bkd->bk", query, vectors.view(len(query), _PASSAGES, -1)) / temperature
        prompts = [
            task.prompt(self._examples[number // _PASSAGES], [passage]) for number, passage in enumerate(passages)
        ]
        targets = [self._examples[number // _PASSAGES].target for number in range(len(passages))]
        parts = [slice(first, first + self._pairs) for first in range(0, len(prompts), self._pairs)]
        likelihood = torch.cat([self._log_likelihood(prompts[part], targets[part]) for part in parts])
        return -(score.log_softmax(-1) + likelihood.view_as(score)).logsumexp(-1).mean()

    def _embed(self, encoder: rg.Encoder, words: list[str]) -> Tensor:
        read = encoder.tokenizer(words, padding=True, truncation=True, max_length=256, return_tensors="pt")
        hidden = encoder.model(**read).last_hidden_state.float()
        mask = read["attention_mask"].unsqueeze(-1)
        return F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    def _log_likelihood(self, prompts: list[str], targets: list[str]) -> Tensor:
        generator = self._generator
        if generator.encoder_decoder:
            read = generator.tokenizer(prompts, padding=True, truncation=True, max_length=320, return_tensors="pt")
            answers = generator.tokenizer(targets, padding=True, truncation=True, max_length=16, return_tensors="pt")
            labels = answers["input_ids"].masked_fill(answers["attention_mask"] == 0, -100)
            start = torch.full((len(labels), 1), generator.model.config.decoder_start_token_id)
            logits = generator.model(
                input_ids=read["input_ids"],
                attention_mask=read["attention_mask"],
                decoder_input_ids=torch.cat([start, answers["input_ids"][:, :-1]], dim=1),
                decoder_attention_mask=answers["attention_mask"],
            ).logits
        else:
            ids = generator.prompt_tokens.ids(prompts, [320] * len(prompts))
            rows = [[*a, *b] for a, b in zip(ids, generator.target_ids(targets), strict=True)]
            read = generator.tokenizer.pad({"input_ids": rows}, padding_side="right", return_tensors="pt")
            logits = generator.model(input_ids=read["input_ids"], attention_mask=read["attention_mask"]).logits[:, :-1]
            place = torch.arange(read["input_ids"].shape[1])
            first = torch.tensor([len(own) for own in ids])[:, None]
            labels = read["input_ids"].masked_fill((place < first) | (read["attention_mask"] == 0), -100)[:, 1:]
        loss = F.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none", ignore_index=-100)
        return -loss.sum(-1)


class OurStep:
    """A step as `retrograd.training.loop` makes it."""

    def __init__(self, model: RagModel, passages: int = _PASSAGES, questions: int = _BATCH) -> None:
        self._model, self._examples = model, texts()[1][:questions]
        self._stage = Stage("step", TopKMarginal(), GeneratorEvidence(passages), _PACE, Never())
        self._optimiser, _ = build_optimiser(model, self._stage, 1_000)

    def gradients(self) -> None:
        """Add the gradients of one batch, and forget them."""
        add_gradients(self._model, self._stage, self._examples, 1.0, torch.Generator().manual_seed(0))
        self._model.zero_grad()

    def step(self) -> None:
        """Train one batch."""
        add_gradients(self._model, self._stage, self._examples, 1.0, torch.Generator().manual_seed(0))
        clip(self._optimiser, 1.0)
        self._optimiser.step()
        self._model.zero_grad()


def measure_against_plain(
    generator: str, trained: TrainedTowers, precision: ComputePrecision, pairs: int = _BATCH * _PASSAGES
) -> Callable[[int], Measured]:
    """Return the measurement of a row: how many times as fast as the plain loop, which reads ``pairs`` at once."""

    def measure(repeats: int) -> Measured:
        model = make_model(generator, trained, precision)
        ours, theirs = OurStep(model), PlainLoop(model, precision, pairs)
        ratios, seconds = compare_speed(theirs.step, ours.step, repeats)
        return ratios, seconds, f"{_BATCH} questions, {_PASSAGES} passages each; theirs reads {pairs} prompts at once"

    return measure


def measure_against_generator(
    generator: str, trained: TrainedTowers, precision: ComputePrecision
) -> Callable[[int], Measured]:
    """Return the measurement of a row: gradients of a joint step, in units of the generator's alone."""

    def measure(repeats: int) -> Measured:
        model = make_model(generator, trained, precision)
        works = {"generator": _generator_alone(model, precision), "joint": OurStep(model).gradients}
        seconds = take_turns(works, repeats)
        ratios = [joint / own for joint, own in zip(seconds["joint"], seconds["generator"], strict=True)]
        return ratios, medians(seconds), f"{_BATCH} questions, {_PASSAGES} passages each"

    return measure


def _generator_alone(model: RagModel, precision: ComputePrecision) -> Callable[[], None]:
    """Return forward and backward of the generator on the pairs that the step has."""
    examples = texts()[1]
    with torch.no_grad():
        rows = model.retrieve(examples, _PASSAGES).rows.tolist()
    pairs = [
        (model.task.prompt(example, [passage]), example.target)
        for example, own in zip(examples, rows, strict=True)
        for passage in model.base.passages(own)
    ]
    prompts, targets = [prompt for prompt, _ in pairs], [target for _, target in pairs]

    def run() -> None:
        with Compute(torch.device("cpu"), precision).autocast(), training_attention(torch.device("cpu")):
            loss = model.generator.log_likelihood(prompts, targets).sum()
        loss.backward()
        model.zero_grad()

    return run


def _step_row(generator: str, precision: ComputePrecision, trained: TrainedTowers) -> Row:
    return Row(
        f"step-{generator}-{precision}-{trained}",
        f"a joint step, {generator}, {precision}, {_MOVES[trained]}",
        "plain transformers",
        measure_against_plain(generator, trained, precision),
        Aim(1.7 if precision == "fp32" else 1.9),
    )


def _careful_row(generator: str, precision: ComputePrecision, trained: TrainedTowers) -> Row:
    return Row(
        f"careful-{generator}-{precision}-{trained}",
        f"a joint step, {generator}, {precision}, {_MOVES[trained]}",
        f"the same in batches of {_FEW_PAIRS} prompts",
        measure_against_plain(generator, trained, precision, _FEW_PAIRS),
    )


def _share_row(generator: str, precision: ComputePrecision, trained: TrainedTowers) -> Row:
    return Row(
        f"share-{generator}-{precision}-{trained}",
        f"gradients of a joint step, {generator}, {precision}, {_MOVES[trained]}",
        "its generator alone",
        measure_against_generator(generator, trained, precision),
        Aim(1.10, at_least=False),
    )


ROWS = tuple(
    make(generator, precision, trained)
    for make in (_step_row, _careful_row, _share_row)
    for generator in ("seq2seq", "decoder")
    for precision in get_args(ComputePrecision)[::-1]
    for trained in _MOVES
)
