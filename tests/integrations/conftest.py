"""A small trained model for the frameworks, whose telemetry is off before any of them is imported."""

from __future__ import annotations

import os

os.environ.update(
    HAYSTACK_TELEMETRY_ENABLED="false",
    LANGSMITH_TRACING="false",
    LITELLM_LOCAL_MODEL_COST_MAP="true",
    LITELLM_TELEMETRY="false",
    DO_NOT_TRACK="1",
)

from pathlib import Path

import pytest
from tests.test_public_api import PASSAGES

import retrograd as rg


@pytest.fixture
def model(tiny_encoder: Path, tiny_causal: Path) -> rg.RagModel:
    base = rg.KnowledgeBase.from_passages(rg.read_passages(PASSAGES))
    names = {"retriever": str(tiny_encoder), "generator": str(tiny_causal)}
    task = rg.QuestionAnswering(query_prefix="what is ")
    return rg.RagModel.from_pretrained(**names, task=task, base=base)


@pytest.fixture
def hits(model: rg.RagModel) -> list[rg.Hit]:
    """What every framework must find."""
    return model.search("what holds tea ?", k=3)
