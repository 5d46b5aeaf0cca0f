"""Remember what a generator at rest has scored: each pair of prompt and target costs one forward pass in a stage.

Where the retriever learns alone (LM-supervised retrieval, REPLUG), a second visit of a query meets most of its passages
again, and the likelihoods are what they were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from retrograd.models.generator import Generator, TargetScores
from retrograd.models.inputs.fusion import FusedPrompt
from retrograd.util.fingerprints import fingerprint

__all__ = ["RememberedScores"]

_KEY_BYTES = 16


class RememberedScores:
    """The scores log p(y_t|x,z,y_<t), in nats and fp32, that a generator gave in one stage, in which it does not learn.

    Nothing is remembered of a generator that draws dropout, nor beyond ``most_pairs`` (0: nothing at all), of which
    each takes some 150 bytes. A score may differ in its last bits from what it would be beside other pairs, so
    checkpoints keep what is remembered (`state`).
    """

    def __init__(self, most_pairs: int = 2**20) -> None:
        self._most_pairs = most_pairs
        self._scores: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self._scores)

    @torch.no_grad()
    def score(self, generator: Generator, prompts: Sequence[str | FusedPrompt], targets: Sequence[str]) -> TargetScores:
        """Return `Generator.token_log_likelihood` of the pairs, without gradient; only new pairs are run."""
        if generator.training or self._most_pairs == 0:
            return generator.token_log_likelihood(prompts, targets)
        keys = [_key(prompt, target) for prompt, target in zip(prompts, targets, strict=True)]
        known = {key: self._scores[key] for key in keys if key in self._scores}
        new = list({key: place for place, key in enumerate(keys) if key not in known}.values())
        if new:
            scored = generator.token_log_likelihood([prompts[i] for i in new], [targets[i] for i in new])
            for i, value, present in zip(new, scored.value.cpu(), scored.present.cpu(), strict=True):
                known[keys[i]] = value[present].numpy().astype(np.float32).tobytes()
        self._remember(known)
        return _lay_out([known[key] for key in keys], generator.device)

    def _remember(self, scores: Mapping[bytes, bytes]) -> None:
        for key, value in scores.items():
            if len(self._scores) < self._most_pairs:
                self._scores.setdefault(key, value)

    def state(self) -> dict[str, Tensor]:
        """Return all that is remembered as tensors, none where it is nothing."""
        if not self._scores:
            return {}
        keys = np.frombuffer(b"".join(self._scores), dtype=np.uint8).reshape(-1, _KEY_BYTES)
        values = np.frombuffer(b"".join(self._scores.values()), dtype=np.float32)
        tokens = [len(value) // values.itemsize for value in self._scores.values()]
        return {
            "remembered_keys": torch.from_numpy(keys.copy()),
            "remembered_tokens": torch.tensor(tokens),
            "remembered_scores": torch.from_numpy(values.copy()),
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Remember what `state` returned, in the place of all else."""
        self._scores = {}
        if "remembered_keys" in state:
            values = state["remembered_scores"].split(state["remembered_tokens"].tolist())
            for key, value in zip(state["remembered_keys"], values, strict=True):
                self._scores[key.numpy().tobytes()] = value.numpy().tobytes()


def _key(prompt: str | FusedPrompt, target: str) -> bytes:
    parts = [prompt] if isinstance(prompt, str) else [*prompt.parts]
    return bytes.fromhex(fingerprint([*parts, target]))[:_KEY_BYTES]


def _lay_out(rows: Sequence[bytes], device: torch.device) -> TargetScores:
    """Return scores as one row a pair."""
    tokens = [np.frombuffer(row, dtype=np.float32) for row in rows]
    width = max(map(len, tokens), default=0)
    value = torch.zeros(len(rows), width)
    present = torch.zeros(len(rows), width, dtype=torch.bool)
    for row, own in enumerate(tokens):
        value[row, : len(own)], present[row, : len(own)] = torch.tensor(own), True
    return TargetScores(value.to(device), present.to(device))
