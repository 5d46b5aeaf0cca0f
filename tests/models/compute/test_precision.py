"""What auto means on which machine, and that selection stays in fp32 under autocast."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from retrograd.models.compute import precision_cache
from retrograd.models.compute.precision import PrecisionChoice, full_precision, resolve_precision
from retrograd.models.compute.precision_cache import MeasureSeconds, PrecisionSeconds, Work
from retrograd.models.compute.precision_probe import measure_seconds
from retrograd.util.files import cache_folder

CPU = torch.device("cpu")
FAST_BF16, SLOW_BF16 = PrecisionSeconds(2.0, 1.0), PrecisionSeconds(2.0, 3.0)


def never(work: Work, width: int) -> PrecisionSeconds:
    raise AssertionError("measured")


def counting(seconds: PrecisionSeconds, asked: list[tuple[Work, int]]) -> MeasureSeconds:
    """Measure as often as asked, and always the same."""

    def measure(work: Work, width: int) -> PrecisionSeconds:
        asked.append((work, width))
        return seconds

    return measure


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of this test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("RETROGRAD_CACHE", str(folder))
    return folder


@pytest.mark.parametrize("device", ["cpu", "cuda", "meta"])
@pytest.mark.parametrize("setting", ["bf16", "fp32"])
def test_a_named_precision_is_taken_and_never_measured(setting, device, cache):
    assert resolve_precision(setting, torch.device(device), "training", 384, never) == PrecisionChoice(setting)
    assert not cache.exists()


@pytest.mark.parametrize(
    ("seconds", "expected"), [(FAST_BF16, "bf16"), (SLOW_BF16, "fp32"), (PrecisionSeconds(1.0, 1.0), "fp32")]
)
def test_auto_on_a_cpu_is_the_faster(seconds, expected, cache):
    assert resolve_precision("auto", CPU, "training", 384, counting(seconds, [])) == PrecisionChoice(expected, seconds)


def test_each_kind_of_work_and_width_is_measured_once(cache):
    asked: list[tuple[Work, int]] = []
    for _ in range(2):
        training = resolve_precision("auto", CPU, "training", 384, counting(FAST_BF16, asked))
        encoding = resolve_precision("auto", CPU, "encoding", 384, counting(SLOW_BF16, asked))
        wide = resolve_precision("auto", CPU, "training", 4096, counting(SLOW_BF16, asked))
        wider = resolve_precision("auto", CPU, "training", 8192, counting(FAST_BF16, asked))
    assert asked == [("training", 384), ("encoding", 384), ("training", 1024)]
    assert (training, encoding) == (PrecisionChoice("bf16", FAST_BF16), PrecisionChoice("fp32", SLOW_BF16))
    assert wide == wider == PrecisionChoice("fp32", SLOW_BF16)


def more_threads(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(torch, "get_num_threads", lambda: 64)


def another_torch(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(torch, "__version__", "2.99.0")


def another_processor(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(precision_cache, "processor_name", lambda: "Another CPU")


def other_instructions(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "Same CPU", "avx512_bf16": True})


@pytest.mark.parametrize("change", [more_threads, another_torch, another_processor, other_instructions])
def test_another_machine_is_measured_again(
    change: Callable[[pytest.MonkeyPatch], None], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve_precision("auto", CPU, "training", 384, counting(FAST_BF16, [])).precision == "bf16"
    change(monkeypatch)
    assert resolve_precision("auto", CPU, "training", 384, counting(SLOW_BF16, [])).precision == "fp32"


@pytest.mark.parametrize(
    "damage",
    ["", "{", "[]", "{}", '{"seconds": {"fp32": 2.0, "bf16": 1.0}}', ("2.0", '"two"'), ("2.0", "-2.0"), ("384", "385")],
)
def test_a_damaged_file_is_measured_again_with_a_message(damage, cache, capsys):
    resolve_precision("auto", CPU, "training", 384, counting(FAST_BF16, []))
    (file,) = (cache / "precision").iterdir()
    file.write_text(file.read_text().replace(*damage) if isinstance(damage, tuple) else damage)
    assert resolve_precision("auto", CPU, "training", 384, counting(SLOW_BF16, [])).precision == "fp32"
    assert "timed again" in capsys.readouterr().err
    assert resolve_precision("auto", CPU, "training", 384, never).precision == "fp32"


def test_a_folder_that_takes_no_file_is_done_without(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("RETROGRAD_CACHE", str(tmp_path / "file"))
    assert resolve_precision("auto", CPU, "training", 384, counting(FAST_BF16, [])).precision == "bf16"
    assert "could not be kept" in capsys.readouterr().err


def test_the_cache_is_where_users_have_theirs(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RETROGRAD_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "retrograd"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own" / "retrograd"


@pytest.mark.parametrize("work", ["training", "encoding"])
def test_the_probe_runs_and_draws_nothing(work):
    before = torch.random.get_rng_state()
    measure_seconds(work, 16)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("supported", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_on_a_gpu_asks_for_bf16(monkeypatch, supported, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported or including_emulation)
    assert resolve_precision("auto", torch.device("cuda"), "training", 384, never) == PrecisionChoice(expected)


def test_auto_elsewhere_is_fp32():
    assert resolve_precision("auto", torch.device("meta"), "training", 384, never) == PrecisionChoice("fp32")


def test_full_precision_suspends_autocast_and_gives_it_back():
    a = torch.tensor([[1.0, 2.0**-12]])  # 1 + 2⁻¹² needs 13 bits; bf16 has 8
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with full_precision(CPU):
            exact = a @ torch.ones(2, 1)
        rounded = a @ torch.ones(2, 1)
    assert exact.dtype == torch.float32
    assert exact.item() == 1 + 2.0**-12
    assert rounded.dtype == torch.bfloat16
    assert rounded.item() == 1
