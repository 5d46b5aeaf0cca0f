"""What auto means on which machine, and that selection stays in fp32 under autocast."""

from __future__ import annotations

import pytest
import torch

from retrograd.models.precision import full_precision, resolve_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize("device", ["cpu", "cuda", "meta"])
@pytest.mark.parametrize("wanted", ["bf16", "fp32"])
def test_a_choice_is_kept(wanted, device):
    assert resolve_precision(wanted, torch.device(device)) == wanted


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"amx_bf16": True}, "bf16"),
        ({"amx_bf16": False, "avx512_bf16": True}, "bf16"),
        ({"amx_bf16": False, "avx512_bf16": False, "avx512_f": True}, "fp32"),
        ({}, "fp32"),
    ],
)
def test_auto_on_a_cpu_asks_whether_it_multiplies_in_bf16(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert resolve_precision("auto", CPU) == expected


@pytest.mark.parametrize(("supported", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_on_a_gpu_asks_for_bf16(monkeypatch, supported, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported or including_emulation)
    assert resolve_precision("auto", torch.device("cuda")) == expected


def test_auto_elsewhere_is_fp32():
    assert resolve_precision("auto", torch.device("meta")) == "fp32"


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
