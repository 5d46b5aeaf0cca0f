"""Claims of shards by the workers that build an index together, in one folder that all of them see.

A claim is a lock on a file, which the system lifts when its worker dies, however that happens: the next worker that
asks takes the shard over. Over a network the file system must support locks (NFS 4 does).
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

from retrograd.types import UserError
from retrograd.util.files import lock_folder

__all__ = ["Claims"]


class Claims:
    """The claims of the shards of ``folder``, an index under construction; their files lie in a folder beside it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = folder.with_name(f"{folder.name}.claims")

    def take(self, shard: str) -> ExitStack | None:
        """Claim a shard until what is returned is closed; None where a living worker has claimed it."""
        self._files.mkdir(parents=True, exist_ok=True)
        with ExitStack() as claim:
            try:
                claim.enter_context(lock_folder(self._folder, self._files / f"{shard}.lock"))
            except UserError:
                return None
            return claim.pop_all()

    def any_held(self) -> bool:
        """Return whether a living worker has claimed any shard."""
        for file in self._files.glob("*.lock"):
            claim = self.take(file.stem)
            if claim is None:
                return True
            claim.close()
        return False

    def remove(self) -> None:
        """Remove the files of all claims, of which none is held."""
        shutil.rmtree(self._files, ignore_errors=True)
