"""Embed the index that a stage begins and ends with, where it is missing, stale or damaged."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor

from retrograd.index.protocol import has_estimated_log_z
from retrograd.index.settings import DEFAULT_ESTIMATION
from retrograd.rag.rag_model import RagModel
from retrograd.rag.staleness import Probe, describe_index_fault
from retrograd.training.distributed.ranks import Ranks
from retrograd.training.optimiser import trained_weights
from retrograd.training.refresh.policies import require_one_process
from retrograd.training.stage import Stage
from retrograd.types import Example, UserError
from retrograd.util.progress import bar, say

__all__ = ["draw_probe", "embed_base", "embed_base_if_stale", "prepare_index"]

_PROBE_QUERIES, _PROBE_BEST = 32, 10


def embed_base(model: RagModel) -> None:
    """Refresh the index, with a progress bar; of ranks that share it, for the rows of this one."""
    rows = len(model.base) // (Ranks().count if model.sharded else 1)
    with bar("embedding the base", rows, "passages") as advance:
        model.refresh_index(advance)


def embed_base_if_stale(model: RagModel) -> None:
    """Embed the base unless the passage tower as it is now has built the index, and the index holds what it says.

    Where there is no index yet, it comes from the model's `IndexSource`: given, from the cache, or embedded. Nothing is
    done where searching takes no embeddings. Cost where an index is current: the tower's weights are hashed, and 16
    passages encoded. Raises `UserError` for an index from elsewhere that cannot be built anew, and for a given one that
    does not hold its passages' embeddings.
    """
    if not model.needs_index:
        return
    if not model.index_is_current():
        embed_base(model)
        if not model.reopens_index:
            return
    fault = describe_index_fault(model)
    if fault is not None and model.reopens_index:
        raise UserError(
            f"index.path: {model.index_source.settings.path} is damaged: {fault}; build it again, or set index.path = "
            f'"" to have the base embedded'
        )
    if fault is not None:
        say(f"the index is damaged: {fault}; it must be embedded anew")
        embed_base(model)


def prepare_index(model: RagModel, stage: Stage, midway: bool) -> bool:
    """Embed the index that a stage begins with, and return whether the stage makes it stale.

    A stage that goes on ``midway`` keeps its stale index; one that was given, which no checkpoint holds, is opened.

    Raises `UserError` for an index that cannot be refreshed where it will have to be, and, where the retriever learns
    from log Z, for one that neither knows it nor may estimate it.
    """
    Ranks().require_equal(trained_weights(model))  # or each would search with another tower
    moves = _moves_passages(model, stage)
    if moves and Ranks().count > 1:
        require_one_process(stage.refresh)
    if stage.evidence.retrieves and not (midway and model.has_index):
        embed_base_if_stale(model)
    if moves:
        model.require_index_that_follows()  # or the last refresh would refuse, after all steps
    _require_log_normaliser(model, stage)
    return moves


def _require_log_normaliser(model: RagModel, stage: Stage) -> None:
    """Raise `UserError` where a prior would silently be normalised over its candidates, for want of log Z, or by an
    estimate of it from an index that misses too much.
    """
    learns = stage.learns.retriever and model.retriever.is_trained
    if not (stage.evidence.needs_log_normaliser and stage.objective.needs_log_normaliser and learns):
        return
    if not model.needs_index or model.index.log_z == "exact":
        return
    index, estimation = model.index, stage.evidence.estimation
    start = f"{stage.name}: {type(stage.objective).__name__} as set normalises p(z|x) over the whole base, and "
    end = (
        'set objective.normaliser = "candidates", take an objective that normalises over its candidates, or search an '
        "exact index"
    )
    if not has_estimated_log_z(index):
        raise UserError(f"{start}a {type(index).__name__} has no log Z; {end}")
    if estimation.draws == 0:
        raise UserError(
            f"{start}training.normaliser_draws = 0 lets a {type(index).__name__} estimate no log Z; set it to "
            f"{DEFAULT_ESTIMATION.draws}, or {end}"
        )
    if index.recall < estimation.least_recall:
        raise UserError(
            f"{start}the {type(index).__name__} finds {index.recall:.1%} of the best rows (its measured recall), less "
            f"than training.normaliser_recall = {estimation.least_recall:g}; a heavy row that is missed is in no "
            f"estimate of log Z, nor in its error. Search harder (a larger probe), set training.normaliser_recall = "
            f"{math.floor(100 * index.recall) / 100:g} to accept that, or {end}"
        )


def _moves_passages(model: RagModel, stage: Stage) -> bool:
    """Return whether this stage makes an index stale; say so where it does not, though a refresh is wanted."""
    if not (stage.evidence.retrieves and stage.learns.towers):
        return False
    moves = model.passage_side.moves
    if model.retriever.is_trained and not moves and stage.refresh.is_active:
        say(f"{stage.name}: only the query tower learns, no passage embedding moves, so the index needs no refresh")
    return moves


def draw_probe(
    model: RagModel, examples: Sequence[Example], stage: Stage, stage_start: UInt8[Tensor, " bytes"]
) -> Probe | None:
    """Draw the probe on which staleness is measured; None where the stage measures none.

    An index of approximations has none, for want of embeddings to compare with fresh ones. The probe is drawn from a
    copy of the random source as it was when the stage began, so that measuring changes nothing.
    """
    if stage.probe_passages == 0 or not model.index.keeps_embeddings:
        return None
    copy = torch.Generator()
    copy.set_state(stage_start)
    return Probe.draw(model.index.held_rows, examples, stage.probe_passages, _PROBE_QUERIES, _PROBE_BEST, copy)
