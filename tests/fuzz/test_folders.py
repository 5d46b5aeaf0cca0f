"""The same for every file that is read out of a run's folder, a checkpoint or an index."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.experiments.test_resume import crashed, tiny
from tests.fuzz.fuzzing import Reader, fuzz, outcome

from retrograd.experiments.experiment import Experiment
from retrograd.experiments.open import open_run, read_run_task
from retrograd.experiments.run import resume_run, run_experiment
from retrograd.index.bm25 import LexicalIndex
from retrograd.index.disk.build import IndexSpec, build_version
from retrograd.index.disk.versions import read_current
from retrograd.index.exact import ExactIndex
from retrograd.index.faiss import FaissIndex
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.generator import Generator
from retrograd.models.inputs.soft_prompt import SoftPromptOptions
from retrograd.models.loading.lora import Lora
from retrograd.models.retriever import Retriever
from retrograd.studies.answers import saved_scores
from retrograd.studies.curves import score_of
from retrograd.studies.index import check_index, describe_index
from retrograd.training.run.checkpoints import Checkpoints
from retrograd.training.run.run_directory import RunDirectory
from retrograd.training.run.seal import find_flaw, seal
from retrograd.types import UserError
from retrograd.util.text_files import read_json

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def root(tiny_encoder: Path, tiny_seq2seq: Path, tiny_causal: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended, one that was stopped, a generator with adapters and soft prompt, and indexes of all kinds."""
    root = tmp_path_factory.mktemp("folders")
    models = {"encoder": tiny_encoder, "seq2seq": tiny_seq2seq, "causal": shutil.copytree(tiny_causal, root / "causal")}
    run_experiment(tiny("full", root / "data", models, "training.epochs=1", "warm_start.epochs=0"), root / "run")
    crashed(tiny("chains", root / "questions", models), root / "stopped", 4)
    rng = torch.Generator().manual_seed(0)
    adapted = Generator.open(str(tiny_causal), rng, Lora(2), soft_prompt=SoftPromptOptions(width=16))
    adapted.save(root / "adapters")
    vectors = torch.randn(8, 16, generator=rng)
    marks = {"base_fingerprint": "b", "encoder_fingerprint": "e"}
    spec = IndexSpec(encoding="none", rows=8, dimension=16, shard_rows=3, **marks)
    build_version(root / "exact", spec, lambda first, stop: [vectors[first:stop]])
    FaissIndex(vectors, "Flat", **marks).save(root / "faiss")
    LexicalIndex.build(["tea in a cup", "a car", "the tea"], "b").save(root / "bm25")
    return root


# ---- readers ---------------------------------------------------------------------------------------------------------


def _unsealed(folder: Path) -> None:
    """Take the checksum out of a manifest, as old versions wrote it: then nothing keeps the rest from being read."""
    path = folder / "manifest.json"
    try:
        found = read_json(path)
    except UserError:
        return
    if isinstance(found, dict):
        found.pop("checksum", None)
        path.write_text(json.dumps(found))


def _exact(folder: Path) -> object:
    _unsealed(folder)
    found = ExactIndex.load(folder)
    describe_index(folder)
    with contextlib.suppress(UserError):  # nobody says whose index it is
        check_index(folder, None)
    return found.search(torch.ones(1, found.dimension), 2).row.tolist()


def _bm25(folder: Path) -> object:
    _unsealed(folder)
    return LexicalIndex.load(folder).search(["tea car"], 2).row.tolist()


def _faiss(folder: Path) -> object:
    _unsealed(folder)
    return FaissIndex.load(folder).search(torch.ones(1, 16), 2).row.tolist()


def _generator(folder: Path) -> object:
    generator = Generator.load(folder, str(folder.parent / "causal"))
    return generator.log_likelihood(["the cup holds tea"], ["tea"]).tolist()


def _retriever(folder: Path) -> object:
    return Retriever.load(folder).queries(["the cup"]).tolist()


def _whole(run: Path) -> object:
    opened = open_run(run)
    return len(opened.model.base)


def _labels(run: Path) -> object:
    return read_run_task(Experiment.load(run / "experiment.toml"), RunDirectory.open(run)).primary_metric


def _base(run: Path) -> object:
    found = KnowledgeBase.open(run / "base.arrow")
    return [*found], found[0], found.fingerprint


class _LoadedError(BaseException):
    """Ends a run as soon as all of its checkpoint has been loaded."""


def _resumed(path: Path) -> object:
    """The run is to go on from the checkpoint in which ``path`` is; nothing vouches for its files but this."""
    checkpoint = next(one for one in path.parents if one.parent.name == "checkpoints")
    if path.name != "manifest.json":
        (checkpoint / "manifest.json").unlink(missing_ok=True)
        seal(checkpoint)
    if find_flaw(checkpoint) is not None:  # then it would be removed
        return None
    run = checkpoint.parent.parent
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Checkpoints, "after_step", _stop)
        patched.setattr(Checkpoints, "_save", lambda self: None)
        try:
            return resume_run(run).path
        except _LoadedError:
            return None


def _stop(*_: object) -> None:
    raise _LoadedError


# ---- files -----------------------------------------------------------------------------------------------------------

Read = Callable[[Path], object]
Row = tuple[str, int, Read]

FILES: tuple[Row, ...] = (
    ("run/labels.json", 1, lambda path: _labels(path.parent)),
    ("run/scores.json", 1, lambda path: (saved_scores(path.parent), score_of(path.parent, "micro_f1"))),
    ("run/environment.json", 1, lambda path: RunDirectory.open(path.parent).changed_environment("no")),
    ("run/base.arrow", 1, lambda path: _base(path.parent)),
    ("run/model/model.json", 150, lambda path: _whole(path.parents[1])),
    ("run/model/index/manifest.json", 150, lambda path: _whole(path.parents[2])),
    ("run/model/retriever/retriever.json", 40, lambda path: _retriever(path.parent)),
    *(
        (f"run/model/retriever/query/{file}", 40, lambda path: _retriever(path.parents[1]))
        for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
    ),
    *(
        (f"run/model/generator/{file}", 60, lambda path: _generator(path.parent))
        for file in ("generator.json", "config.json", "generation_config.json", "model.safetensors")
    ),
    *(
        (f"adapters/{file}", 60, lambda path: _generator(path.parent))
        for file in ("generator.json", "adapter_config.json", "adapter_model.safetensors", "soft_prompt.safetensors")
    ),
    ("stopped/checkpoints/*/manifest.json", 1, lambda path: find_flaw(path.parent)),
    *(
        (f"stopped/checkpoints/*/{file}", 250, _resumed)
        for file in ("progress.json", "random.json", "stage.json", "weights.safetensors", "random.safetensors")
    ),
    *(
        (f"stopped/checkpoints/*/{file}", 250, _resumed)
        for file in ("optimiser.safetensors", "stage.safetensors", "chains.safetensors")
    ),
    ("exact/current", 1, lambda path: read_current(path.parent, lambda folder: folder.name)),
    ("exact/v*/manifest.json", 2, lambda path: _exact(path.parent)),
    ("exact/v*/shard-00001.safetensors", 2, lambda path: _exact(path.parent)),
    *((f"bm25/{file}", 1, lambda path: _bm25(path.parent)) for file in ("manifest.json", "terms.json")),
    ("bm25/scores.safetensors", 1, lambda path: _bm25(path.parent)),
    *((f"faiss/{file}", 1, lambda path: _faiss(path.parent)) for file in ("manifest.json", "index.faiss")),
)


@pytest.mark.parametrize(("place", "cost", "read"), FILES, ids=[row[0].replace("/", " ") for row in FILES])
def test_any_content(
    place: str, cost: int, read: Read, root: Path, inputs: int, tally: dict[str, Counter[str]]
) -> None:
    path = max(root.glob(place))
    form = "json" if path.suffix == ".json" else "bytes"
    reader = Reader("folders", place, path.name, form, None, read, cost)
    aside = shutil.copytree(path.parent, path.parent.with_name(f".{path.parent.name}.sound"))
    try:
        assert outcome(reader, path) == "result"
        tally[str(reader)] = fuzz(reader, path.parent, inputs // cost)
    finally:
        shutil.rmtree(path.parent)
        aside.rename(path.parent)
