"""The user's cache of embeddings: what is in it, and what is to go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from retrograd.index.disk.cache import VectorCache, parse_bytes

__all__ = ["PrunedCache", "prune_cache"]


@dataclass(frozen=True)
class PrunedCache:
    """The result of pruning the cache in ``folder``: entries and bytes removed, and left; ``limit`` bytes may stay."""

    folder: Path
    limit: int
    removed: int
    removed_bytes: int
    left: int
    left_bytes: int


def prune_cache(to: str | None = None) -> PrunedCache:
    """Remove embeddings from the user's cache, the oldest use first, until ``to`` (such as 5GB) remains at most.

    None is the cache's own limit. Raises `UserError` for a size that cannot be read.
    """
    cache = VectorCache.of_user()
    limit = cache.limit if to is None else parse_bytes(to, "--to")
    removed = cache.prune(limit)
    left = cache.entries()
    return PrunedCache(
        cache.root,
        limit,
        len(removed),
        sum(entry.bytes for entry in removed),
        len(left),
        sum(entry.bytes for entry in left),
    )
