"""An experiment computes in the faster precision, and its run never changes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from retrograd.experiments.experiment import Experiment
from retrograd.experiments.open import open_run
from retrograd.experiments.precision import choose_precision
from retrograd.experiments.run import resume_run, run_experiment
from retrograd.models.compute.precision import PrecisionChoice
from retrograd.models.compute.precision_cache import PrecisionSeconds, Work
from retrograd.studies.index import open_source
from retrograd.training.run.interrupts import Interrupted, Interrupts
from retrograd.training.run.run_directory import RunDirectory
from retrograd.types import UserError
from retrograd.util.text_files import read_json, write_json

CPU = torch.device("cpu")
FAST_BF16, SLOW_BF16 = PrecisionSeconds(2.0, 1.0), PrecisionSeconds(2.0, 3.0)


@pytest.fixture
def experiment(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> Experiment:
    """Return an experiment of three steps on four sentences, at the precision that is faster."""
    data = tmp_path / "data.jsonl"
    records = [
        {"text": f"the {thing} holds tea .", "head": [4, 7], "tail": [14, 17], "relation": label}
        for thing, label in (("cup", "holds"), ("box", "holds"), ("car", "part of"), ("eta", "part of"))
    ]
    data.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return Experiment().with_settings([
        f"data.train={data}", f"data.test={data}", "data.labels=from_train", f"retriever.model={tiny_encoder}",
        f"generator.model={tiny_seq2seq}", "warm_start.epochs=0", "training.epochs=3", "training.passages=2",
        "training.batch_size=4", "training.save_every=1",
    ])  # fmt: skip


def use_seconds(patched: pytest.MonkeyPatch, folder: Path, seconds: PrecisionSeconds) -> list[tuple[Work, int]]:
    """Start with an empty cache and use these seconds; return the list of what is then measured."""
    asked: list[tuple[Work, int]] = []

    def measure(work: Work, width: int) -> PrecisionSeconds:
        asked.append((work, width))
        return seconds

    patched.setenv("RETROGRAD_CACHE", str(folder / f"cache-{seconds.bf16}"))
    patched.setattr("retrograd.experiments.precision.measure_seconds", measure)
    return asked


def test_each_work_is_measured_at_the_width_of_its_model(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = use_seconds(monkeypatch, tmp_path, FAST_BF16)
    assert choose_precision(experiment, CPU, "training") == PrecisionChoice("bf16", FAST_BF16)
    assert choose_precision(experiment, CPU, "encoding") == PrecisionChoice("bf16", FAST_BF16)
    assert asked == [("training", 16), ("encoding", 16)]
    choose_precision(experiment.with_settings(["generator.model=somebody/unheard-of"]), CPU, "training")
    choose_precision(experiment.with_settings(["generator.model=builtin:minilm-seq2seq"]), CPU, "training")
    assert asked[2:] == [("training", 768), ("training", 384)]


def test_an_explicit_precision_is_neither_measured_nor_taken_from_a_record(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = use_seconds(monkeypatch, tmp_path, FAST_BF16)
    fp32 = experiment.with_settings(["training.precision=fp32"])
    assert choose_precision(fp32, CPU, "training", PrecisionChoice("bf16")) == PrecisionChoice("fp32")
    assert not asked


def test_an_index_of_an_untrained_experiment_is_measured_for_encoding(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = use_seconds(monkeypatch, tmp_path, SLOW_BF16)
    file = tmp_path / "tiny.toml"
    file.write_text(experiment.to_toml(), encoding="utf-8")
    open_source(str(file))
    assert asked == [("encoding", 16)]


def test_a_run_records_its_precision_and_keeps_it(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run is stopped, resumed and opened where the other precision is now the faster one."""
    use_seconds(monkeypatch, tmp_path, SLOW_BF16)
    stop, out = Interrupts(), tmp_path / "run"
    stop.is_requested = True
    with pytest.raises(Interrupted):
        run_experiment(experiment, out, stop)
    begun = read_json(out / "environment.json")
    assert isinstance(begun, dict)
    assert (begun["precision"], begun["precision_seconds"]) == ("fp32", {"fp32": 2.0, "bf16": 3.0})
    asked = use_seconds(monkeypatch, tmp_path, FAST_BF16)
    resume_run(out)
    assert read_json(out / "environment.json") == begun
    assert "not the machine" not in capsys.readouterr().err
    assert open_run(out).model is not None
    open_source(str(out))
    assert not asked


def test_what_a_run_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETROGRAD_DEVICE", "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # a GPU that is there, but not the one chosen
    run = RunDirectory.create(tmp_path / "run", "", "bf16", FAST_BF16)
    file = run.path / "environment.json"
    assert run.recorded_precision() == run.recorded_precision(CPU) == PrecisionChoice("bf16", FAST_BF16)
    assert run.recorded_precision(torch.device("cuda")) is None, "it ran on a CPU"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace('"bf16",', '"no",'), encoding="utf-8")  # as older versions wrote fp32
    assert run.recorded_precision() == PrecisionChoice("fp32", FAST_BF16)
    assert run.changed_environment("fp32", FAST_BF16) == []
    file.write_text(text.replace('"bf16",', '"fp8",'), encoding="utf-8")
    with pytest.raises(UserError, match=r"environment\.json: precision is 'fp8'; expected 'fp32' or 'bf16'"):
        run.recorded_precision()
    file.unlink()
    assert run.recorded_precision() is None


def test_another_device_is_reported_and_older_records_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETROGRAD_DEVICE", "cpu")
    run = RunDirectory.create(tmp_path / "run", "", "bf16", FAST_BF16)
    file = run.path / "environment.json"
    record = read_json(file)
    assert isinstance(record, dict)
    older = {name: value for name, value in record.items() if name != "device"}
    write_json(file, older)
    assert run.recorded_precision(CPU) == PrecisionChoice("bf16", FAST_BF16)
    assert run.changed_environment("bf16", FAST_BF16) == []
    write_json(file, older | {"gpu": "a GPU"})
    assert run.recorded_precision(CPU) is None
    assert run.recorded_precision(torch.device("cuda")) == PrecisionChoice("bf16", FAST_BF16)
    assert run.changed_environment("bf16", FAST_BF16) == ["device was cuda, is cpu", "gpu was a GPU, is None"]
