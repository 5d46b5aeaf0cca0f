"""Objectives by role: what stages and controls take, and that nobody else names an objective."""

from __future__ import annotations

import ast
from pathlib import Path

import retrograd
from retrograd.objectives import (
    OBJECTIVES,
    Distillation,
    FrozenRetriever,
    NoRetrieval,
    Objective,
    Reads,
    RelaxedTopK,
    StochasticTopK,
    TopKMarginal,
    closed_book,
    default_objective,
    generator_only,
    generator_part,
    retriever_warm_start,
)

SOURCE = Path(retrograd.__file__).parent
MAY_NAME_OBJECTIVES = {"objectives", "recipes", "__init__.py"}
"""The packages that may name the class of an objective; all others ask for its attributes."""


def test_the_generator_learns_alone_and_reads_as_it_is_told() -> None:
    for reads in (Reads.SEPARATELY, Reads.TOGETHER):
        objective = generator_only(reads)
        assert (objective.reads, objective.trains_generator) == (reads, True)
        assert not objective.trains_retriever
        assert not objective.needs_posterior


def test_the_generators_part_reads_as_the_objective_does_and_needs_no_posterior(objective: Objective) -> None:
    part = generator_part(objective)
    assert (part.reads, part.selection) == (objective.reads, objective.selection)
    assert not part.needs_posterior
    assert part.trains_generator
    assert generator_part(part) == part


def test_a_warm_start_sends_every_candidate_a_gradient() -> None:
    for same in (TopKMarginal(form="token"), Distillation()):
        assert retriever_warm_start(same) == same
    for slots in (RelaxedTopK(), StochasticTopK()):
        assert retriever_warm_start(slots) == TopKMarginal()


def test_defaults_are_what_the_documentation_says() -> None:
    assert closed_book() == NoRetrieval()
    assert closed_book().reads == "nothing"
    assert default_objective() == TopKMarginal()
    assert generator_part(TopKMarginal()) == FrozenRetriever()


def test_only_objectives_and_recipes_name_an_objective() -> None:
    kinds = {kind.__name__ for kind in OBJECTIVES}
    for path in SOURCE.rglob("*.py"):
        if path.relative_to(SOURCE).parts[0] in MAY_NAME_OBJECTIVES:
            continue
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        named = {node.id for node in nodes if isinstance(node, ast.Name)}
        named |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        named |= {node.name for node in nodes if isinstance(node, ast.alias)}
        assert not named & kinds, f"{path.relative_to(SOURCE)} names an objective; ask for its attributes"
