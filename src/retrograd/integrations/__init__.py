"""The retriever as LangChain, LlamaIndex, Haystack and DSPy have theirs: one file each, over `RagModel.search`.

A document has a passage's text; its metadata are what else is known of the hit: `describe_hit`.
"""

from __future__ import annotations

from retrograd.types import Hit, UserError
from retrograd.util.optional import missing_package

__all__ = ["describe_hit", "lack"]


def describe_hit(hit: Hit) -> dict[str, str | int | float]:
    """Return the metadata of a document: the passage's id and title, its row in the base, and p(z|x)."""
    return {"id": hit.passage.id, "title": hit.passage.title, "row": hit.row, "probability": hit.probability}


def lack(framework: str, package: str, extra: str) -> UserError:
    """Return the error of a module whose framework is not installed."""
    what = f"retrograd.integrations.{extra.replace('-', '_')}, for {framework},"
    return missing_package(what, package, f"pip install 'retrograd[{extra}]'")
