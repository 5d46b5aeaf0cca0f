"""Neither gradient nor dropout inside; outside everything as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from retrograd.models.compute.inference import inference


def test_each_part_gets_its_own_mode_back_even_after_an_error():
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 4), nn.Sequential(nn.Dropout(0.5)))
    model.train()
    model[1].eval()
    model[2].eval()
    model[2][0].train()
    before = [part.training for part in model.modules()]
    x = torch.ones(3, 4)
    with inference(model):
        assert not any(part.training for part in model.modules())
        assert torch.equal(model(x), model[1](x))
        assert not model(x).requires_grad
    assert [part.training for part in model.modules()] == before
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), inference(model):
        model(torch.ones(3, 5))
    assert [part.training for part in model.modules()] == before
    assert model(x).requires_grad
