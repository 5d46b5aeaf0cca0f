"""Retrieve for many queries, as arrays: the best instances under the prior, and the soft slots."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from retrograd.evaluation.concentration import Slots, average_slots
from retrograd.evaluation.neighbours import Retrieved
from retrograd.models.compute.inference import inference
from retrograd.objectives.objective import CandidateScores
from retrograd.rag.rag_model import RagModel
from retrograd.types import Example
from retrograd.util.progress import bar

__all__ = ["retrieve", "soft_slots"]

_CELLS = 2**24
"""Largest number of queries times instances that are scored together."""

_BATCH = 64


def retrieve(model: RagModel, examples: Sequence[Example], k: int) -> Retrieved:
    """Return the k best instances (at most all) under the exact prior over the whole base, without the null passage."""
    batches: list[Retrieved] = []
    size = len(model.base)
    batch = max(1, min(_BATCH, _CELLS // size))
    with inference(model), bar("retrieving", len(examples), "queries") as advance:
        for start in range(0, len(examples), batch):
            batches.append(_retrieve_batch(model, examples[start : start + batch], min(k, size)))
            advance(len(batches[-1].rows))
    return Retrieved(
        rows=np.concatenate([part.rows for part in batches]),
        probability=np.concatenate([part.probability for part in batches]),
        own_rows=[rows for part in batches for rows in part.own_rows],
        entropy=np.concatenate([part.entropy for part in batches]),
        null=np.concatenate([part.null for part in batches]),
    )


def _retrieve_batch(model: RagModel, examples: Sequence[Example], k: int) -> Retrieved:
    candidates = model.retrieve_all(examples)
    log_prior = candidates.scores.log_prior.double()
    probability = log_prior.exp()
    entropy = torch.special.entr(probability).sum(dim=-1)
    best = log_prior[:, : len(model.base)].topk(k, dim=-1)
    rows = best.indices.masked_fill(best.values == -torch.inf, -1)
    null = probability[:, len(model.base) :].sum(dim=-1)
    own_rows = [np.unique(rows[rows >= 0]) for rows in model.own_rows(examples).numpy()]
    return Retrieved(
        rows.cpu().numpy(), best.values.exp().cpu().numpy(), own_rows, entropy.cpu().numpy(), null.cpu().numpy()
    )


def soft_slots(
    model: RagModel,
    selection: Callable[[CandidateScores], Float[Tensor, "B R K"]],
    examples: Sequence[Example],
    k: int,
) -> Slots:
    """Measure the soft slots that a selection makes of the k candidates that the model retrieves for each query."""
    blocks = []
    with inference(model):
        for start in range(0, len(examples), _BATCH):
            scores = model.retrieve(examples[start : start + _BATCH], k).scores
            blocks.append((selection(scores), scores.log_prior))
    return average_slots(blocks)
