"""Time the same work in fp32 and under bf16 autocast: one transformer layer on as many tokens as a batch has."""

from __future__ import annotations

import time

import torch
from transformers import BertConfig, BertModel

from retrograd.models.compute.compute import Compute
from retrograd.models.compute.precision_cache import PrecisionSeconds, Work
from retrograd.models.compute.training_layers import training_attention

__all__ = ["measure_seconds"]

_TIMED = 2
_SECONDS = 0.3
_SMALLEST = 64
_TOKENS = {"training": 128, "encoding": 64}
"""Tokens of a text: a prompt with its passage, and a passage alone."""
_BATCH_TOKENS = 2_048
"""Tokens of a batch at width 384, as on a CPU (`retrograd.models.compute.batching`); wider models get fewer."""


def measure_seconds(work: Work, width: int) -> PrecisionSeconds:
    """Return the seconds of the largest batch that can be timed quickly, at most one as encoding and training have it.

    The first batch has a 64th of the tokens. While the runs of a batch take less than 0.3 s together, one of four times
    the tokens follows. So a processor that only emulates bf16 (28 s where fp32 took 2.5 s) is known in a second or two.
    The global random state stays as it was.
    """
    with torch.random.fork_rng(devices=[]):
        layer = _layer(width)
        fraction, batch_tokens = _SMALLEST, _batch_tokens(width)
        while True:
            start = time.perf_counter()
            seconds = _time_both(layer, _text_tokens(batch_tokens // fraction, _TOKENS[work]), work)
            if fraction == 1 or time.perf_counter() - start > _SECONDS:
                return seconds
            fraction //= 4


def _time_both(layer: BertModel, tokens: torch.Tensor, work: Work) -> PrecisionSeconds:
    """Return the shortest of two runs in each precision, after one to warm up.

    The precisions take turns, so that other load on the machine slows down both.
    """
    runs = [[_time_run(layer, tokens, work, half) for half in (False, True)] for _ in range(1 + _TIMED)]
    fp32, bf16 = (min(seconds) for seconds in zip(*runs[1:], strict=True))
    return PrecisionSeconds(fp32, bf16)


def _layer(width: int) -> BertModel:
    """Return one transformer layer of about ``width``, drawn at random."""
    heads = max(1, width // 64)
    width = max(1, width // heads) * heads
    config = BertConfig(
        vocab_size=1_000,
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BertModel(config, add_pooling_layer=False)


def _batch_tokens(width: int) -> int:
    """Return the tokens of a whole batch: 2,048 where D <= 384, a quarter of them where D >= 768."""
    return max(_BATCH_TOKENS // 4, min(_BATCH_TOKENS, _BATCH_TOKENS * 384**2 // width**2))


def _text_tokens(count: int, longest: int) -> torch.Tensor:
    """Return about ``count`` token ids as texts of equal length, [texts, tokens]."""
    length = min(count, longest)
    return torch.randint(1_000, (count // length, length))


def _time_run(model: BertModel, tokens: torch.Tensor, work: Work, half: bool) -> float:
    """Return the seconds of one run; training includes the backward pass."""
    trains = work == "training"
    model.train(trains)
    model.zero_grad()
    loss = torch.zeros(())
    start = time.perf_counter()
    with torch.set_grad_enabled(trains), Compute(tokens.device, "bf16" if half else "fp32").autocast():
        if trains:
            with training_attention(tokens.device):
                loss = model(input_ids=tokens).last_hidden_state.float().square().mean()
        else:
            model(input_ids=tokens)
    if trains:
        loss.backward()
    return time.perf_counter() - start
