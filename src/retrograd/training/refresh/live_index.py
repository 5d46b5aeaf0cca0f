"""Keep the index of a model in training: how old each row is, which were read lately, and how it is refreshed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import torch
from jaxtyping import Int
from torch import Tensor

from retrograd.rag.rag_model import RagModel
from retrograd.rag.staleness import Probe, measure_drift, measure_staleness
from retrograd.training.distributed.ranks import Ranks
from retrograd.training.refresh.background import IndexWorker, remove_leftovers
from retrograd.types import UserError
from retrograd.util.progress import say

__all__ = ["LiveIndex"]


class LiveIndex:
    """The index during one stage, fresh at step 0.

    As a context it removes, at its beginning, what the process of a killed training left in ``scratch``, and ends its
    own process, if there is one, at its end.

    Of several ranks all do the same here together, and `share_reads` tells each what the others' queries found.

    ``probe`` None measures nothing. ``scratch`` is a folder for what another process needs. Age is counted in optimiser
    steps per row, 8 bytes a row in all.
    """

    def __init__(self, model: RagModel, probe: Probe | None, scratch: Path) -> None:
        self._model = model
        self._probe = probe
        self._scratch = scratch
        self._ranks = Ranks()
        self._embedded_at = torch.zeros(len(model.base), dtype=torch.int32)
        self._seen_at = torch.full((len(model.base),), -1, dtype=torch.int32)
        self._embedded = 0
        self._worker: IndexWorker | None = None
        self._snapshot_step = 0

    def __len__(self) -> int:
        return len(self._embedded_at)

    def __enter__(self) -> LiveIndex:
        remove_leftovers(self._scratch)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    # ---- what a policy may ask ----------------------------------------------------------------------------------

    def drift(self) -> float:
        """Return the cosine drift of the probe, whose passages are encoded now. Raises `UserError` without a probe."""
        if self._probe is None:
            raise UserError("this stage does not measure drift; set training.probe_passages above 0, such as 64")
        drift = measure_drift(self._model, self._probe.rows)
        return self._ranks.means({"drift": drift}, 1.0)["drift"]

    def rows_read_since(self, step: int) -> Int[Tensor, " Z"]:
        """Return the rows that were candidates at ``step`` or later."""
        self.share_reads()
        return (self._seen_at >= max(step, 0)).nonzero().flatten()  # -1: never seen

    # ---- what a policy may do -----------------------------------------------------------------------------------

    def renew(self, step: int) -> None:
        """Embed the whole base."""
        self._model.refresh_index()
        self._embedded += len(self)
        self._embedded_at.fill_(step)

    def renew_rows(self, rows: Int[Tensor, " Z"], step: int) -> None:
        """Embed some rows; all others stay as they are."""
        if len(rows) == 0:
            return
        self._model.refresh_rows(rows)
        self._embedded += len(rows)
        self._embedded_at[rows] = step

    def renew_elsewhere(self, step: int, every: int) -> None:
        """Take over an index that another process has finished; give it a new snapshot when it is idle.

        Two snapshots lie at least ``every`` steps apart. Raises `UserError` if the process has died.
        """
        if self._worker is not None:
            index = self._worker.take_finished()
            if index is not None:
                self._model.use_index(index)
                self._embedded_at.fill_(self._snapshot_step)
        if step - self._snapshot_step >= every and (self._worker is None or self._worker.idle):
            if self._worker is None:
                self._worker = IndexWorker(self._model, self._scratch)
            self._worker.embed_snapshot(self._model)
            self._embedded += len(self)
            self._snapshot_step = step

    # ---- what a checkpoint keeps ------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Return ages, visits and counts; the vectors themselves are saved with the model."""
        counts = torch.tensor([self._embedded, self._snapshot_step])
        return {"embedded_at": self._embedded_at.clone(), "seen_at": self._seen_at.clone(), "counts": counts}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned."""
        self._embedded_at, self._seen_at = state["embedded_at"].clone(), state["seen_at"].clone()
        self._embedded, self._snapshot_step = (int(count) for count in state["counts"])

    def catch_up(self, step: int) -> None:
        """Embed the base here where another process was embedding it when the run stopped after ``step`` steps."""
        if self._snapshot_step > 0:
            say("the process that embedded the base in the background is gone; the base is embedded here, once")
            self.renew(step)
            self._snapshot_step = step

    # ---- what the loop tells and logs ---------------------------------------------------------------------------

    def share_reads(self) -> None:
        """Have every rank know what rows the queries of all have read."""
        self._seen_at = self._ranks.largest(self._seen_at)

    def record_reads(self, blocks: Sequence[Int[Tensor, "_ _"]], step: int) -> None:
        """Record which rows step ``step`` read; a number below 0 is no row."""
        for rows in blocks:
            if rows.shape[1] >= len(self):  # the whole base was read: no need to go through B·N cells
                self._seen_at.fill_(step)
            else:
                self._seen_at[rows[rows >= 0].cpu()] = step

    def diagnostics(self, step: int) -> dict[str, float]:
        """Return ``index_age``, the mean age of a row after ``step`` steps, and with a probe its drift and overlap.

        ``index_embedded`` is what the policy has cost so far, in rows embedded; a snapshot counts when it is taken.
        """
        values = {
            "index_age": step - float(self._embedded_at.double().mean()),
            "index_embedded": float(self._embedded),
        }
        if self._probe is not None:
            report = measure_staleness(self._model, self._probe)
            values |= {"staleness_drift": report.cosine_drift, "staleness_overlap": report.overlap}
        return values
