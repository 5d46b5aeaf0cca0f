"""Save and load all that the rest of a run depends on besides the model's own folder, to the last bit.

``weights.safetensors`` has the weights that training moves, and the buffers, under their names in the `RagModel` that
the experiment builds from its seed; frozen weights are opened from where they came from. ``random.safetensors`` and
``random.json`` have the random states of torch, CUDA, Python, NumPy and of the run. ``stale-index`` is the index as it
was, where the tower of that moment had not built it. In the middle of a stage come ``optimiser.safetensors``,
``stage.safetensors``, ``stage.json`` and, where there are Markov chains, ``chains.safetensors``. Of several ranks the
first writes all this; what is another's own on each (random states of torch, CUDA and its sampler, counts of prompts)
lies in ``ranks.safetensors``, a line per rank.

Everything read is copied: files stay free to be removed, and weights lie in memory as in a run that was never stopped.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from retrograd.index.exact import ExactIndex
from retrograd.index.exchange import ran_out_of_memory
from retrograd.index.protocol import can_save_with_model
from retrograd.index.sharded import ShardedIndex
from retrograd.models.compute.fsdp import is_own_share, put, spread_like
from retrograd.models.inputs.prompt_tokens import PromptCounts
from retrograd.rag.embedding import shard_index
from retrograd.rag.rag_model import RagModel
from retrograd.rag.remembered_scores import RememberedScores
from retrograd.training.distributed.micro_batches import MicroBatches
from retrograd.training.distributed.ranks import Ranks
from retrograd.training.monitoring.alarms import Alarms
from retrograd.training.refresh.live_index import LiveIndex
from retrograd.training.sampling.batches import BatchOrder
from retrograd.training.sampling.chains import Chains
from retrograd.training.sampling.targets import Targets
from retrograd.types import Example, UserError
from retrograd.util.fingerprints import fingerprint
from retrograd.util.guards import JsonObject, JsonValue
from retrograd.util.text_files import read_json, write_json

__all__ = [
    "StageState",
    "load_model_state",
    "load_rank_state",
    "load_run_state",
    "load_stage_start",
    "load_stage_state",
    "rank_states",
    "save_run_state",
    "save_stage_state",
]

_WEIGHTS, _RANDOM, _RANKS, _STAGE, _OPTIMISER = "weights", "random", "ranks", "stage", "optimiser"
_CHAINS = "chains.safetensors"
_BLOCK_ROWS = 65_536


@dataclass(frozen=True)
class StageState:
    """All that changes while a stage runs, except the model and its random states.

    ``stage_start`` is the state of ``rng`` when the stage began, from which its probe was drawn.
    """

    name: str
    examples: Sequence[Example] = field(repr=False)
    stage_start: UInt8[Tensor, " bytes"]
    order: BatchOrder
    optimiser: torch.optim.Optimizer
    schedule: LambdaLR
    targets: Targets
    chains: Chains
    index: LiveIndex
    remembered: RememberedScores | None
    alarms: Alarms
    sampler: torch.Generator
    micro_batches: MicroBatches


# ---- between stages --------------------------------------------------------------------------------------------------


def save_run_state(folder: Path, model: RagModel, rng: torch.Generator, of_ranks: dict[str, Tensor]) -> None:
    """Write the model, as `RagModel.save` does, and what that omits; ``of_ranks`` is the result of `rank_states`."""
    model.save(folder)
    is_saved = (folder / "index").exists() or (model.reopens_index and model.index_is_current())
    if model.has_index and can_save_with_model(model.index) and not is_saved:
        model.index.save(folder / "stale-index")
    save_file(
        {name: value.contiguous() for name, value in _movable_tensors(model).items()}, _tensor_file(folder, _WEIGHTS)
    )
    states = {"run": rng.get_state(), "torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda {number}": state for number, state in enumerate(torch.cuda.get_rng_state_all())}
    save_file(states, _tensor_file(folder, _RANDOM))
    if of_ranks:
        save_file(of_ranks, _tensor_file(folder, _RANKS))
    name, words, *rest = np.random.get_state()  # noqa: NPY002  (of whoever uses it)
    prompts = model.generator.prompt_tokens
    plain = {
        "python": random.getstate(),
        "numpy": [name, np.asarray(words).tolist(), *rest],
        "prompts": list(prompts.counts),
    }
    write_json(folder / f"{_RANDOM}.json", plain)


def load_run_state(folder: Path, model: RagModel, rng: torch.Generator) -> None:
    """Restore all random states and the model, which the experiment has just built anew.

    Raises `UserError` for the state of another model, and for files that are no safetensors or hold something else.
    """
    load_model_state(folder, model)
    with _require_whole(folder):
        _load_random_states(folder, model, rng)


def _load_random_states(folder: Path, model: RagModel, rng: torch.Generator) -> None:
    states = _read_tensors(folder, _RANDOM)
    rng.set_state(states["run"])
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            if f"cuda {number}" in states:
                torch.cuda.set_rng_state(states[f"cuda {number}"], number)
    plain = _read_object(folder / f"{_RANDOM}.json")
    version, words, gauss = cast(tuple[int, list[int], float | None], plain["python"])
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = cast(tuple[str, list[int], int, int, float], plain["numpy"])
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))  # noqa: NPY002
    model.generator.prompt_tokens.resume_counts(PromptCounts(*cast(list[int], plain["prompts"])))


def load_model_state(folder: Path, model: RagModel) -> None:
    """Restore the weights and the index, fresh or stale, of a model that the experiment has built.

    Raises `UserError` for the state of another model, and for files that are no safetensors or hold something else.
    """
    with _require_whole(folder):
        _load_weights(folder, model)
    index = next((folder / name for name in ("index", "stale-index") if (folder / name).exists()), None)
    if index is not None:
        model.use_index(_sharded(index, model) if model.sharded else _in_memory(index, model))


def _load_weights(folder: Path, model: RagModel) -> None:
    saved, weights = _read_tensors(folder, _WEIGHTS), _movable_tensors(model)
    differing = weights.keys() ^ saved.keys() | {
        name for name in weights.keys() & saved.keys() if weights[name].shape != saved[name].shape
    }
    if differing:
        raise UserError(
            f"{folder} was saved from another model (they differ in {sorted(differing)[0]}); go on with the model "
            f"files and the version of retrograd that the run began with"
        )
    with torch.no_grad():
        for name, weight in weights.items():
            put(saved[name], weight)


def _movable_tensors(model: RagModel) -> dict[str, Tensor]:
    """Return by name the weights that any stage may move, and the buffers, each once even where modules share it."""
    trained = {id(weight) for weights in model.parts().values() for weight in weights}
    weights = {name: weight.detach() for name, weight in model.named_parameters() if id(weight) in trained}
    return weights | dict(model.named_buffers())


def _in_memory(folder: Path, model: RagModel) -> ExactIndex:
    stored = ExactIndex.load(folder, base_fingerprint=model.base.fingerprint)
    return ExactIndex.from_blocks(
        (stored.vectors(rows) for rows in torch.arange(len(stored)).split(_BLOCK_ROWS)),
        len(stored),
        base_fingerprint=stored.base_fingerprint,
        encoder_fingerprint=stored.encoder_fingerprint,
        dtype=stored.dtype,
        device=model.retriever.passage_encoder.device,
    )


def _sharded(folder: Path, model: RagModel) -> ShardedIndex:
    stored = ExactIndex.load(folder, base_fingerprint=model.base.fingerprint)
    return shard_index(stored, model.retriever.passage_encoder.device)


# ---- what each of several ranks has for itself -----------------------------------------------------------------------


def rank_states(ranks: Ranks, model: RagModel, sampler: torch.Generator) -> dict[str, Tensor]:
    """Return the contents of ``ranks.safetensors``; all ranks call it. They are empty for a single process."""
    if ranks.count == 1:
        return {}
    prompts, device = model.generator.prompt_tokens, model.retriever.query_encoder.device
    own = {
        "torch": torch.get_rng_state(),
        "sampler": sampler.get_state(),
        "prompts": torch.tensor(prompts.counts),
    }
    if device.type == "cuda":
        own["cuda"] = torch.cuda.get_rng_state(device)
    return {name: ranks.stack_numbers(state) for name, state in own.items()}


def load_rank_state(folder: Path, ranks: Ranks, model: RagModel, sampler: torch.Generator | None) -> None:
    """Restore this rank's line of `rank_states`. Between stages ``sampler`` is None, as each stage begins its own.

    Raises `UserError` where another number of ranks saved it.
    """
    states = _read_tensors(folder, _RANKS) if _tensor_file(folder, _RANKS).exists() else {}
    saved = len(states["torch"]) if states else 1
    if saved != ranks.count:
        raise UserError(
            f"{folder} was saved by {saved} processes, but {ranks.count} are running; go on with as many: "
            f"torchrun --nproc-per-node {saved} -m retrograd train --resume …"
        )
    if not states:
        return
    own = {name: lines[ranks.rank].clone() for name, lines in states.items()}  # set_state reads from a storage's start
    torch.set_rng_state(own["torch"])
    if "cuda" in own and torch.cuda.is_available():
        torch.cuda.set_rng_state(own["cuda"], model.retriever.query_encoder.device)
    if sampler is not None:
        sampler.set_state(own["sampler"])
    model.generator.prompt_tokens.resume_counts(PromptCounts(*own["prompts"].tolist()))


# ---- in the middle of a stage ----------------------------------------------------------------------------------------


def save_stage_state(folder: Path, state: StageState) -> None:
    """Write all that `StageState` holds."""
    optimiser = state.optimiser.state_dict()
    moments = {
        f"{weight}.{name}": value.contiguous()
        for weight, values in optimiser["state"].items()
        for name, value in values.items()
    }
    save_file(moments, _tensor_file(folder, _OPTIMISER))
    tensors = {"began": state.stage_start, "epoch_began": state.order.epoch_start}
    remembered = {} if state.remembered is None else state.remembered.state()
    save_file(tensors | state.targets.state() | state.index.state() | remembered, _tensor_file(folder, _STAGE))
    if state.chains.has_started:
        save_file(state.chains.state(), folder / _CHAINS)
    schedule = {name: value for name, value in state.schedule.state_dict().items() if name != "lr_lambdas"}
    plain = {"groups": optimiser["param_groups"], "schedule": schedule, "examples": _identity(state.examples)}
    plain |= {"alarms": state.alarms.state(), "micro_batch": state.micro_batches.size}
    write_json(folder / f"{_STAGE}.json", plain)


def load_stage_state(folder: Path, state: StageState, passages: int, step: int) -> None:
    """Restore what `save_stage_state` wrote after ``step`` steps, over a base of ``passages``.

    Raises `UserError` for the state of other examples, and for files that are no safetensors or hold something else.
    """
    with _require_whole(folder):
        _load_stage_state(folder, state, passages)
    state.index.catch_up(step)


def _load_stage_state(folder: Path, state: StageState, passages: int) -> None:
    plain, tensors = _read_object(folder / f"{_STAGE}.json"), _read_tensors(folder, _STAGE)
    if plain["examples"] != _identity(state.examples):
        raise UserError(
            f"{folder} was saved in training on other examples; put the data back as they were, or train another run"
        )
    weights = [weight for group in state.optimiser.param_groups for weight in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in _read_tensors(folder, _OPTIMISER).items():
        number, _, moment = name.partition(".")
        like = weights[int(number)]
        spread = is_own_share(like) and value.shape == like.shape  # a count of steps is not
        moments.setdefault(int(number), {})[moment] = spread_like(value, like) if spread else value
    state.optimiser.load_state_dict({"state": moments, "param_groups": plain["groups"]})
    state.schedule.load_state_dict(cast(dict[str, object], plain["schedule"]) | {"lr_lambdas": [None]})
    state.order.resume_epoch(tensors["epoch_began"])
    state.targets.load(tensors)
    if (folder / _CHAINS).exists():
        state.chains.load(_read_tensors(folder, "chains"), passages)
    state.index.load(tensors)
    if state.remembered is not None:
        state.remembered.load(tensors)
    state.alarms.load(cast(JsonObject, plain["alarms"]))
    state.micro_batches.size = cast(int, plain["micro_batch"])


def load_stage_start(folder: Path) -> UInt8[Tensor, " bytes"]:
    """Return the state of the run's random source at the beginning of the stage in which ``folder`` was saved."""
    with _require_whole(folder):
        return _read_tensors(folder, _STAGE)["began"]


def _identity(examples: Sequence[Example]) -> str:
    return fingerprint(text for example in examples for text in (example.id, example.query, *example.targets))


# ---- files -----------------------------------------------------------------------------------------------------------


def _tensor_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def _read_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    path = _tensor_file(folder, name)
    try:
        return {key: value.clone() for key, value in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is not a safetensors file ({error}), the only kind that is loaded; remove {folder}, and the "
            f"checkpoint before it is used"
        ) from None


@contextmanager
def _require_whole(folder: Path) -> Iterator[None]:
    """Raise `UserError` where something is missing from a folder, which another program may have sealed."""
    try:
        yield
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as error:
        if ran_out_of_memory(error):
            raise
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'without a message'}"
        raise UserError(
            f"{folder} does not hold a state that a run can go on from ({reason[:200]}); remove it, and "
            f"the checkpoint before it is used"
        ) from None


def _read_object(path: Path) -> JsonObject:
    value: JsonValue = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found {json.dumps(value)[:40]}; remove {path.parent}")
    return value
