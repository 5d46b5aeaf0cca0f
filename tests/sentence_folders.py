"""Folders as sentence-transformers writes them, made of a plain model of width 16."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

__all__ = ["WIDTH", "declare", "dense", "write"]

WIDTH = 16


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def dense(folder: Path, wide: tuple[int, int], activation: str = "torch.nn.modules.activation.Tanh") -> None:
    """Write a Dense module with weights of its own."""
    write(
        folder / "config.json",
        {"in_features": wide[0], "out_features": wide[1], "bias": True, "activation_function": activation},
    )
    rng = torch.Generator().manual_seed(1)
    weights = {"linear.weight": torch.randn(wide[1], wide[0], generator=rng), "linear.bias": torch.ones(wide[1])}
    save_file(weights, folder / "model.safetensors")


def declare(model: Path, folder: Path, pooling: dict[str, object], *modules: str, **settings: object) -> Path:
    """Copy a plain model and write what sentence-transformers writes beside it; ``settings`` has the prompts."""
    shutil.copytree(model, folder)
    names = ["Transformer", "Pooling", *modules]
    paths = ["", *(f"{i}_{name}" for i, name in enumerate(names) if i)]
    rows = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (name, path) in enumerate(zip(names, paths, strict=True))
    ]
    write(folder / "modules.json", rows)
    write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": WIDTH, **pooling})
    width = WIDTH * max(1, len(pooling["pooling_mode"]) if isinstance(pooling.get("pooling_mode"), list) else 1)
    for name, path in zip(names, paths, strict=True):
        if name == "Dense":
            dense(folder / path, (width, 8))
            width = 8
    if settings:
        write(folder / "config_sentence_transformers.json", settings)
    return folder
