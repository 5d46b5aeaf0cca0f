"""The retriever of DSPy, with the real package."""

from __future__ import annotations

import pytest
from tests.requirements import skip_without_framework

import retrograd as rg
from retrograd.integrations import describe_hit

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]
skip_without_framework("dspy")

QUESTION = "what holds tea ?"


def test_passages_are_the_hits_of_the_model(model: rg.RagModel, hits: list[rg.Hit]) -> None:
    import dspy

    from retrograd.integrations.dspy import RetrogradRetriever

    retrieve = RetrogradRetriever(model, k=3)
    found = retrieve(QUESTION)
    assert found.passages == [hit.passage.text for hit in hits]
    assert found.metadata == [describe_hit(hit) for hit in hits]
    assert len(retrieve(QUESTION, k=1).passages) == 1

    class Program(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.retrieve = retrieve

        def forward(self, question: str) -> dspy.Prediction:
            return dspy.Prediction(context=self.retrieve(question).passages)

    assert Program()(question=QUESTION).context == found.passages
