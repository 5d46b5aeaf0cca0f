"""Precision, recall and F1 of triples, by document: strings in, counts out.

A triple is right where the document's gold triples have it. In a document each counts once, however often it is read;
counts are summed over the documents (micro average).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping

from retrograd.metrics.relations import PrecisionRecallF1

__all__ = ["score_triples"]


def score_triples(
    gold: Mapping[str, Collection[Hashable]], predicted: Mapping[str, Collection[Hashable]]
) -> PrecisionRecallF1:
    """Return the micro scores of the triples of each document, by its key, over the documents that have gold triples.

    A document whose gold triples are none counts, too: whatever is read there is wrong. Documents of ``predicted`` that
    ``gold`` does not have are left out.
    """
    pairs = [(set(triples), set(predicted.get(key, ()))) for key, triples in gold.items()]
    return PrecisionRecallF1(
        correct=sum(len(own & guessed) for own, guessed in pairs),
        guessed=sum(len(guessed) for _, guessed in pairs),
        gold=sum(len(own) for own, _ in pairs),
    )
