"""Encoding throughput: this library's encoder against `sentence-transformers`, same texts, model, machine, precision.

    pip install sentence-transformers
    python benchmarks/encoding.py --texts 4000

Both sides embed SemEval sentences with MiniLM in this process, in turns. `sentence-transformers` runs with its
defaults (batches of 32 texts, sorted by length); ours with its own (batches of like length, a budget of padded
tokens). Vectors must agree. The last line is ours under bf16 autocast.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch.nn.functional import cosine_similarity

from retrograd.data.relations.semeval import load_semeval
from retrograd.models.encoder import Encoder


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--texts", type=int, default=4_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0 keeps torch's choice")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise SystemExit(
            "this benchmark compares with sentence-transformers: pip install sentence-transformers"
        ) from None
    texts = [instance.text for instance in load_semeval("train")][: options.texts]
    ours = Encoder.open("builtin:minilm").eval()
    with tempfile.TemporaryDirectory() as folder:
        ours.save(Path(folder))
        theirs = SentenceTransformer(folder, device="cpu")
    theirs.max_seq_length = ours.max_tokens

    def in_bf16() -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return ours.embed(texts)

    ways: dict[str, Callable[[], torch.Tensor]] = {
        "sentence-transformers, defaults": lambda: theirs.encode(
            texts, convert_to_tensor=True, show_progress_bar=False
        ),
        "retrograd": lambda: ours.embed(texts),
        "retrograd, bf16 autocast": in_bf16,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    vectors: dict[str, torch.Tensor] = {}
    for _ in range(options.repeats):
        for name, embed in ways.items():
            began = time.perf_counter()
            vectors[name] = embed()
            seconds[name].append(time.perf_counter() - began)
    unit = median(seconds["sentence-transformers, defaults"])
    print(f"{len(texts)} sentences, MiniLM, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print(f"{'':34}{'texts/s':>9}{'speed':>8}{'lowest cosine':>15}")
    for name, taken in seconds.items():
        agree = cosine_similarity(vectors[name].float(), vectors["sentence-transformers, defaults"].float()).min()
        print(f"{name:34}{len(texts) / median(taken):>9.0f}{unit / median(taken):>8.2f}{float(agree):>15.5f}")


if __name__ == "__main__":
    main()
