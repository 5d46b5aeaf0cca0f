"""Where a model's index comes from: the cache, a given folder, which stays as it is, or versions of the run's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from tests.rag.test_rag_model import build
from torch import Tensor

from retrograd.index.disk.cache import VectorCache
from retrograd.index.disk.storage import parse_manifest, write_manifest, write_vectors
from retrograd.index.disk.versions import current_version, versions
from retrograd.index.exact import ExactIndex
from retrograd.index.faiss import FaissIndex
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.index.settings import IndexSettings
from retrograd.models.encoder import Encoder
from retrograd.rag.embedding import build_index, cache_spec
from retrograd.rag.index_folder import build_index_folder, index_spec
from retrograd.rag.index_source import IndexSource
from retrograd.rag.rag_model import RagModel
from retrograd.types import UserError

Texts = Sequence[str]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VectorCache:
    monkeypatch.setenv("RETROGRAD_CACHE", str(tmp_path / "cache"))
    return VectorCache.of_user()


@pytest.fixture
def model(cache: VectorCache, tiny_encoder: Path, tiny_seq2seq: Path) -> RagModel:
    """A model of six passages, whose tower `trained="both"` moves."""
    return build(tiny_encoder, tiny_seq2seq, trained="both", posterior=False)[0]


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch, model: RagModel) -> list[int]:
    """How many texts each call of a passage tower embeds from now on."""
    counts: list[int] = []
    embed = Encoder.embed_passages

    def embed_and_count(encoder: Encoder, texts: Texts) -> Float[Tensor, "B D"]:
        counts.append(len(texts))
        return embed(encoder, texts)

    monkeypatch.setattr(Encoder, "embed_passages", embed_and_count)
    return counts


def from_source(model: RagModel, settings: IndexSettings, folder: Path | None = None) -> RagModel:
    """The same model before it has an index."""
    source = IndexSource(settings, folder)
    return RagModel(model.retriever, model.generator, model.task, model.base, index_source=source).eval()


def rows_of(model: RagModel) -> Float[Tensor, "N D"]:
    return model.index.vectors(torch.arange(len(model.base)))


def give_index(model: RagModel, root: Path, dtype: torch.dtype = torch.float32) -> IndexSettings:
    """Build the index of the model as it is, and return the settings that give it."""
    spec = index_spec(model.retriever, model.task, model.base, dtype)
    build_index_folder(model.retriever, model.task, model.base, root, spec)
    return IndexSettings(path=str(root))


def move_passages(model: RagModel) -> None:
    with torch.no_grad():
        for weight in model.retriever.passage_encoder.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- the cache ------------------------------------------------------------------------------------------------------


def test_a_second_model_embeds_nothing_and_has_the_bytes_that_it_would_compute(
    model: RagModel, embedded: list[int]
) -> None:
    again = from_source(model, IndexSettings())
    again.refresh_index()
    assert embedded == []
    computed = build_index(model.passage_side, model.task, model.base)
    assert sum(embedded) == len(model.base)
    assert rows_of(again).equal(computed.vectors(torch.arange(len(model.base))))
    fingerprints = (again.index.base_fingerprint, again.index.encoder_fingerprint)
    assert fingerprints == (computed.base_fingerprint, computed.encoder_fingerprint)


def test_without_the_cache_all_is_embedded_and_nothing_is_kept(
    model: RagModel, embedded: list[int], cache: VectorCache
) -> None:
    cache.prune(0)
    from_source(model, IndexSettings(cache=False)).refresh_index()
    assert sum(embedded) == len(model.base)
    assert cache.entries() == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_storage_is_the_type_of_what_is_embedded(model: RagModel, dtype: torch.dtype) -> None:
    settings = IndexSettings(storage="bf16" if dtype == torch.bfloat16 else "fp16")
    stored = from_source(model, settings)
    stored.refresh_index()
    assert rows_of(stored).equal(rows_of(model).to(dtype).float())


def test_what_a_tower_in_training_embeds_is_not_kept(model: RagModel, cache: VectorCache) -> None:
    before = tree(cache.root)
    move_passages(model)
    model.refresh_index()
    model.refresh_rows(torch.tensor([0]))
    assert {name: tree(cache.root)[name] for name in before} == before
    assert tree(cache.root).keys() == before.keys()


def test_a_tower_at_rest_that_is_not_the_indexs_keeps_what_it_embeds(
    tiny_encoder: Path, tiny_seq2seq: Path, embedded: list[int]
) -> None:
    frozen = build(tiny_encoder, tiny_seq2seq, trained="none", posterior=False)[0]
    move_passages(frozen)
    frozen.refresh_index()
    count = len(embedded)
    from_source(frozen, IndexSettings()).refresh_index()
    assert len(embedded) == count


@pytest.mark.parametrize("what", ["tokens of a batch", "precision", "threads", "wording", "order of passages"])
def test_what_moves_a_vector_by_rounding_names_another_entry(
    what: str, model: RagModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    side, base = model.passage_side, model.base

    def name(base: KnowledgeBase = base) -> object:
        return cache_spec(side, model.task, base, range(len(base)), torch.float32)

    before = name()
    assert name() == before
    if what == "tokens of a batch":
        monkeypatch.setattr(side.prior.passage_encoder, "token_budget", 77)
        assert name() != before
    elif what == "precision":
        with torch.autocast("cpu", torch.bfloat16):
            assert name() != before
    elif what == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
        assert name() != before
    elif what == "wording":
        changed = [replace(passage, text=passage.text + " .") if i == 3 else passage for i, passage in enumerate(base)]
        assert name(KnowledgeBase.from_passages(changed)) != before
    else:
        assert name(KnowledgeBase.from_passages(list(base)[::-1])) != before


def test_ids_that_the_tower_does_not_read_need_no_other_entry(model: RagModel, embedded: list[int]) -> None:
    renamed = KnowledgeBase.from_passages(replace(passage, id=f"new {passage.id}") for passage in model.base)
    index = build_index(model.passage_side, model.task, renamed, cache=VectorCache.of_user())
    assert embedded == []
    assert index.base_fingerprint == renamed.fingerprint != model.base.fingerprint


# ---- a given index --------------------------------------------------------------------------------------------------


def test_a_given_index_is_searched_and_neither_copied_nor_changed(
    model: RagModel, tmp_path: Path, embedded: list[int]
) -> None:
    settings = give_index(model, tmp_path / "given", torch.bfloat16)
    before = tree(tmp_path / "given")
    embedded.clear()
    given = from_source(model, settings)
    given.refresh_index()
    assert embedded == []
    assert isinstance(given.index, ExactIndex)
    assert given.index.dtype == torch.bfloat16
    assert rows_of(given).equal(rows_of(model).bfloat16().float())
    assert given.reopens_index
    given.save(tmp_path / "model")
    assert not (tmp_path / "model" / "index").exists()
    again = RagModel.load(tmp_path / "model", model.task, model.base, index_source=IndexSource(settings))
    again.refresh_index()
    assert rows_of(again).equal(rows_of(given))
    given.save_pretrained(tmp_path / "whole")
    assert RagModel.load(tmp_path / "whole", model.task, model.base).has_index
    given.refresh_rows(torch.tensor([1, 2]))
    assert not given.reopens_index
    assert tree(tmp_path / "given") == before


@pytest.mark.parametrize("has_folder", [True, False])
def test_passages_that_move_begin_versions_of_their_own(has_folder: bool, model: RagModel, tmp_path: Path) -> None:
    settings = give_index(model, tmp_path / "given", torch.bfloat16)
    before = tree(tmp_path / "given")
    own = tmp_path / "run" / "index"
    given = from_source(model, settings, own if has_folder else None)
    given.refresh_index()
    first = rows_of(given)
    for number in (1, 2, 3):
        move_passages(model)  # whose tower both have
        given.refresh_index()
        assert isinstance(given.index, ExactIndex)
        assert given.index.dtype == torch.bfloat16
        assert given.index_is_current()
        assert not given.reopens_index
        fresh = build_index(given.passage_side, given.task, given.base, torch.bfloat16)
        assert rows_of(given).equal(fresh.vectors(torch.arange(len(model.base))))
        if has_folder:
            assert current_version(own).name == f"v{number:06d}"
            assert len(versions(own)) <= 2
    assert not rows_of(given).equal(first)
    assert own.exists() == has_folder
    assert tree(tmp_path / "given") == before
    given.save(tmp_path / "model")
    assert (tmp_path / "model" / "index").exists()


def test_a_given_exact_index_is_searched_by_faiss(model: RagModel, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    settings = replace(give_index(model, tmp_path / "given"), kind="faiss", preset="flat")
    searched = from_source(model, settings)
    searched.refresh_index()
    assert isinstance(searched.index, FaissIndex)
    query = rows_of(model)[:2] / 0.1
    assert searched.index.search(query, 3).row.equal(model.index.search(query, 3).row)
    searched.index.save(tmp_path / "own")
    again = from_source(model, replace(settings, path=str(tmp_path / "own")))
    again.refresh_index()
    assert again.index.search(query, 3).row.equal(model.index.search(query, 3).row)
    move_passages(model)
    again.refresh_index()  # an engine that is built as a whole follows as a whole
    assert again.index_is_current()
    with pytest.raises(UserError, match=r'holds a \'faiss\' index, and index.kind is "exact"'):
        from_source(model, IndexSettings(path=str(tmp_path / "own"))).refresh_index()


def drop_shard(folder: Path) -> None:
    manifest = parse_manifest(folder)
    write_manifest(folder, replace(manifest, rows=manifest.rows + 1))


def shorten(folder: Path) -> None:
    """An index of five rows that says it is of this base."""
    manifest = parse_manifest(folder)
    (shard,) = manifest.shards
    vectors = ExactIndex.load(folder).vectors(torch.arange(5))
    checksum = write_vectors(folder / shard.file, [vectors], 5, vectors.shape[1], torch.float32)
    write_manifest(folder, replace(manifest, rows=5, shards=(replace(shard, rows=5, sha256=checksum),)))


def blank_row(folder: Path) -> None:
    manifest = parse_manifest(folder)
    (shard,) = manifest.shards
    vectors = ExactIndex.load(folder).vectors(torch.arange(6))
    vectors[4] = 0
    write_vectors(folder / shard.file, [vectors], 6, vectors.shape[1], torch.float32)


def other_base(folder: Path) -> None:
    write_manifest(folder, replace(parse_manifest(folder), base_fingerprint="f" * 64))


def other_encoder(folder: Path) -> None:
    write_manifest(folder, replace(parse_manifest(folder), encoder_fingerprint="e" * 64))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (other_base, r"was built from knowledge base ffffffffffff, but this run uses knowledge base"),
        (other_encoder, r"was built from encoder eeeeeeeeeeee, but this run uses encoder"),
        (drop_shard, r"the files hold rows 0 … 5, expected 7 rows"),
        (shorten, r"holds 5 rows, and the base 6 passages; build it again"),
        (blank_row, r"the vector of row 4 is zero, which no passage is embedded as; build it again"),
    ],
)
def test_an_index_that_is_not_this_models_is_refused(
    damage: Callable[[Path], None], message: str, model: RagModel, tmp_path: Path
) -> None:
    settings = give_index(model, tmp_path / "given")
    damage(current_version(tmp_path / "given"))
    with pytest.raises(
        UserError, match=rf"^index\.path: {re.escape(str(tmp_path))}.*{message}.*set index\.path = \"\""
    ):
        from_source(model, settings).refresh_index()


def test_a_folder_without_an_index_is_refused_with_the_command_that_builds_one(model: RagModel, tmp_path: Path) -> None:
    for name in ("missing", "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        path = tmp_path / name
        with pytest.raises(UserError, match=rf"index\.path: {path} holds no finished index; .*--out {path}"):
            from_source(model, IndexSettings(path=str(path))).refresh_index()


def test_settings_of_faiss_belong_to_faiss() -> None:
    for setting in ({"factory": "Flat"}, {"probe": 4}, {"rerank": 2}):
        (name,) = setting
        with pytest.raises(UserError, match=rf'index\.{name} is .* set index\.kind = "faiss"'):
            IndexSettings(**setting)
        IndexSettings("faiss", **setting)
    with pytest.raises(UserError, match=r"index\.probe"):
        IndexSettings("faiss", probe=-1)
