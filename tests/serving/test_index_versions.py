"""A new version of a given index is taken up while it is served; one of another encoder is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.serving.conftest import experiment, question_data, serving

from retrograd.__main__ import app
from retrograd.experiments.experiment import RetrieverSettings
from retrograd.experiments.open import open_run
from retrograd.experiments.run import run_experiment
from retrograd.index.disk.versions import current_version, write_version
from retrograd.index.exact import ExactIndex
from retrograd.index.kinds import load_index
from retrograd.serving.fresh_index import FreshIndex


@pytest.fixture
def given(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Return a run that searches a given index, and the folder of the index's versions."""
    made = experiment(question_data(tmp_path), tiny_encoder, tiny_seq2seq)
    made = replace(made, retriever=RetrieverSettings(model=str(tiny_encoder), separate_towers=True, trained="query"))
    file, root = tmp_path / "e.toml", tmp_path / "index"
    file.write_text(made.to_toml(), encoding="utf-8")
    app(["index", "build", str(file), "--out", str(root)], standalone_mode=False)
    run_experiment(made.with_settings([f"index.path={root}"]), tmp_path / "run")
    return tmp_path / "run", root


def test_a_new_version_is_served_without_a_restart(
    given: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("retrograd.serving.fresh_index._LOOK_EVERY_SECONDS", 0.0)
    caplog.set_level("INFO", "retrograd")
    run, root = given
    first = ExactIndex.load(root)
    body = {"query": "what is the cup ?", "k": 6}

    def publish(encoder: str) -> None:
        """Publish a version in which each row has the embedding of the row after it."""
        base, moved = first.base_fingerprint, first.vectors(torch.arange(1, 7) % 6)
        write_version(root, ExactIndex(moved, base_fingerprint=base, encoder_fingerprint=encoder).save)

    with serving(run) as one:
        before = [(hit["row"], hit["prior"]) for hit in one.post("/api/search", body).record["passages"]]
        publish("another encoder")
        assert current_version(root).name == "v000002"
        again = [(hit["row"], hit["prior"]) for hit in one.post("/api/search", body).record["passages"]]
        assert again == before
        one.post("/api/search", body)
        assert caplog.text.count("is not taken up") == 1
        publish(first.encoder_fingerprint)
        after = [(hit["row"], hit["prior"]) for hit in one.post("/api/search", body).record["passages"]]
        assert after == [((row - 1) % 6, pytest.approx(prior)) for row, prior in before]
        assert "retrograd_index_switches_total 1\n" in one.get("/metrics").body.decode()
        assert caplog.text.count("v000003 of the index is served from now on") == 1


def test_a_fault_that_passes_delays_a_version_and_is_said_once(
    given: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "retrograd")
    run, root = given
    model, now, faults = open_run(run).model, [0.0], [OSError("the disk is away"), OSError("the disk is away")]
    first = ExactIndex.load(root)
    fresh = FreshIndex(model, current_version(root).name, lambda: now[0])

    def load(*arguments: Any) -> Any:
        if faults:
            raise faults.pop()
        return load_index(*arguments)

    monkeypatch.setattr("retrograd.serving.fresh_index.load_index", load)
    write_version(root, first.save)
    seen = []
    for seconds in (0.5, 1.5, 2.5, 4.0, 6.0, 7.5, 8.0):  # after the faults it looks again 2 and 4 seconds later
        now[0] = seconds
        fresh.refresh()
        seen.append((len(faults), fresh.switches))
    assert seen == [(2, 0), (1, 0), (1, 0), (0, 0), (0, 0), (0, 0), (0, 1)]
    assert caplog.text.count("is not taken up: the disk is away") == 1
