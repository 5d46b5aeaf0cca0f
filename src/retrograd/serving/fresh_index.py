"""Take up a new version of a given index while it is being served.

A reader follows the pointer of an index once, when it opens it (`retrograd.index.disk.versions`; the alias of Milvus).
A service lives longer: before a batch it looks at the pointer again, once a second at most, and less and less often
while that fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from retrograd.index.kinds import current_name, load_index
from retrograd.rag.rag_model import RagModel
from retrograd.types import UserError
from retrograd.util.progress import say

__all__ = ["FreshIndex"]

_LOOK_EVERY_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 60.0


class FreshIndex:
    """The index of a model whose place may get new versions. Only the model's thread calls it.

    ``opened_name`` is the name of the version that the model opened, or of an older one.
    """

    def __init__(
        self,
        model: RagModel,
        opened_name: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._name = opened_name
        self._fault = ""
        self._clock = clock
        self._wait = _LOOK_EVERY_SECONDS
        self._looked_at = clock()
        self.switches = 0

    def refresh(self) -> None:
        """Open the present version where it is another one than before, and has embeddings of the same encoder.

        Where that fails the version that is open stays, the fault is said once, and it is tried again later: a version
        that is being copied, or a server that is away, may be there then.
        """
        settings = self._model.index_source.settings
        if not settings.path or not self._model.needs_index or self._clock() - self._looked_at < self._wait:
            return
        self._looked_at = self._clock()
        try:
            name = current_name(settings)
            if name != self._name:
                self._open(name)
        except (UserError, OSError) as error:
            if str(error) != self._fault:
                say(f"a new version of the index is not taken up: {error}")
            self._fault = str(error)
            self._wait = min(2 * max(self._wait, _LOOK_EVERY_SECONDS), _LONGEST_WAIT_SECONDS)
            return
        self._fault, self._wait = "", _LOOK_EVERY_SECONDS

    def _open(self, name: str) -> None:
        model = self._model
        base, encoder = model.index.base_fingerprint, model.index.encoder_fingerprint
        model.use_index(load_index(model.index_source.settings, base, encoder, model.device))
        self._name = name
        self.switches += 1
        say(f"version {name} of the index is served from now on")
