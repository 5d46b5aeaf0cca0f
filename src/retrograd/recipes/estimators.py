"""The named estimators of the gradient laboratory: each objective as the field uses it, with its candidates."""

from __future__ import annotations

from retrograd.evaluation.laboratory.measure import Estimator
from retrograd.objectives import (
    OBJECTIVES,
    Distillation,
    FrozenRetriever,
    JointStochasticApproximation,
    Objective,
    Reads,
    RelaxedTopK,
    ScoreFunction,
    StochasticTopK,
    TopKMarginal,
    Variational,
    Vimco,
    WakeSleep,
)

__all__ = ["make_estimators"]

_EXPENSIVE_REDRAWS = 8


def make_estimators(k: int) -> list[Estimator]:
    """Return what the field uses, each with its usual candidates: the k best of every retriever that it has.

    JSA and RWS are listed over the whole base as well, as they are defined. Objectives of `OBJECTIVES` that are not
    listed here come last, with their defaults.
    """
    jsa = JointStochasticApproximation

    def best(name: str, objective: Objective, redraws: int = 0) -> Estimator:
        return Estimator(name, objective, k, redraws=redraws)

    listed = [
        best("no update (frozen retriever)", FrozenRetriever()),
        best("RAG-sequence, renormalised", TopKMarginal(normaliser="candidates")),
        best("RAG-sequence, full normaliser", TopKMarginal()),
        best("RAG-token, full normaliser", TopKMarginal(form="token")),
        best("exact union, renormalised", jsa(normaliser="candidates")),
        best("exact union, full normaliser", jsa()),
        Estimator("RAG-sequence + 5 of the tail", TopKMarginal(), k, tail=5),
        Estimator("exact union + 5 of the tail", jsa(), k, tail=5),
        best("JSA, 50 draws, cold", jsa(sampler="metropolis", chain="cold")),
        best("JSA, 2 draws, carried", jsa(sampler="metropolis", draws=2)),
        Estimator("JSA, 50 draws, whole base", jsa(sampler="metropolis", chain="cold"), k, "all"),
        best("RWS, 50 draws", WakeSleep()),
        Estimator("RWS, 50 draws, whole base", WakeSleep(), k, "all"),
        best("VIMCO, 8 draws", Vimco()),
        best("VRAG, as published", Variational(form="published", passages=k)),
        best("ELBO, full normaliser", Variational()),
        best("REINFORCE, 8 draws", ScoreFunction(baseline="none")),
        best("RLOO, 8 draws", ScoreFunction()),
        best("EMDR2", Distillation(target="emdr2")),
        best("PDist", Distillation(target="pdist_kl_target_prior")),
        best("LOOP", Distillation(target="loop_kl_target_prior")),
        best("REPLUG-LSR", Distillation(target="replug_kl_prior_target", reader="none")),
        best("Stochastic top-k", StochasticTopK(slots=min(k, 3)), redraws=_EXPENSIVE_REDRAWS),
        best("Relaxed top-k", RelaxedTopK(slots=min(k, 3)), redraws=_EXPENSIVE_REDRAWS),
    ]
    known_objectives = {type(estimator.objective) for estimator in listed}
    others = [kind for kind in OBJECTIVES if kind not in known_objectives and kind().reads != Reads.NOTHING]
    return listed + [best(kind.__name__, kind()) for kind in others]
