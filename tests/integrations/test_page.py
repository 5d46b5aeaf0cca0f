"""The code of `docs/integrations.md`, word for word, over a run of tiny models."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.requirements import skip_without_framework
from tests.test_public_api import CONFIG, QUESTIONS

import retrograd as rg

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]
for name in ("langchain_core", "llama_index", "haystack", "dspy"):
    skip_without_framework(name)


def test_the_page_runs(model: rg.RagModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rg.train(model, QUESTIONS, eval_examples=QUESTIONS, out="runs/nq", config=CONFIG)
    page = (Path(__file__).parents[2] / "docs" / "integrations.md").read_text(encoding="utf-8")
    places: dict[str, object] = {}
    exec(
        compile("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)), "docs/integrations.md", "exec"), places
    )
    expected = [hit.passage for hit in model.search("what holds tea ?", k=3)]
    assert places["context"] == [passage.text for passage in expected]
    assert [document.id for document in places["documents"]] == [passage.id for passage in expected]  # pyright: ignore
    assert json.dumps(places["texts"])
