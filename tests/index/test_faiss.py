"""The approximate index agrees with `ExactIndex` for "Flat", and reports its recall otherwise."""

import sys
from pathlib import Path

import pytest
import torch

from retrograd.index.disk.storage import read_sealed, write_sealed
from retrograd.index.exact import ExactIndex
from retrograd.index.faiss import FaissIndex, FaissPreset
from retrograd.index.protocol import Index
from retrograd.types import UserError

pytest.importorskip("faiss")
NAMES = {"base_fingerprint": "base" * 16, "encoder_fingerprint": "encoder" * 9}


def random_vectors(rows=400, width=8):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(0))


def test_flat_agrees_with_exact():
    vectors, rng = random_vectors(), torch.Generator().manual_seed(1)
    query, exclude = torch.randn(5, 8, generator=rng), torch.randint(-1, 400, (5, 30), generator=rng)
    index = FaissIndex(vectors, **NAMES)
    expected, found = ExactIndex(vectors, **NAMES).search(query, 12, exclude), index.search(query, 12, exclude)
    assert torch.equal(found.row, expected.row)
    torch.testing.assert_close(found.logit, expected.logit)
    assert found.log_normaliser is None
    assert index.recall == 1.0


@pytest.mark.parametrize("factory", ["Flat", "IVF8,Flat", "HNSW16", "IVF8,SQ8", "RR8,IVF8,Flat"])
def test_excluded_rows_never_come_back_even_if_all_are_hits(factory):
    vectors = random_vectors()
    index = FaissIndex(vectors, factory, **NAMES, probe=64 if "HNSW" in factory else None if factory == "Flat" else 8)
    query = vectors[:3]
    hits = index.search(query, 20).row
    found = index.search(query, 20, hits)
    assert not (found.row[:, :, None] == hits[:, None, :]).any()
    assert (found.row >= 0).all()
    assert (found.logit.diff(dim=1) <= 0).all()


def test_padding_where_rows_run_out():
    index = FaissIndex(torch.eye(3), **NAMES)
    found = index.search(torch.tensor([[1.0, 2.0, 3.0]]), 5, torch.tensor([[2, -1]]))
    assert found.row.tolist() == [[1, 0, -1, -1, -1]]
    assert found.logit.tolist() == [[2, 1] + [-torch.inf] * 3]
    nothing = index.search(torch.ones(1, 3), 2, torch.tensor([[0, 1, 2]]))
    assert nothing.row.tolist() == [[-1, -1]]


@pytest.mark.parametrize("factory", ["Flat", "IVF8,Flat", "HNSW16", "RR8,IVF8,Flat"])
def test_vectors_of_rows(factory):
    vectors = random_vectors()
    found = FaissIndex(vectors, factory, **NAMES).vectors(torch.tensor([[5, -1], [399, 0]]))
    expected = vectors[torch.tensor([[5, 0], [399, 0]])]
    expected[0, 1] = 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)  # RR rotates there and back


def test_recall_grows_with_probe_and_takes_queries():
    vectors, queries = random_vectors(4000), torch.randn(64, 8, generator=torch.Generator().manual_seed(2))
    few, many, all_lists = (
        FaissIndex(vectors, "IVF16,Flat", **NAMES, probe=probe, queries=queries).recall for probe in (1, 4, 16)
    )
    assert few < many < all_lists == 1.0


@pytest.mark.parametrize(("factory", "probe"), [("Flat", None), ("IVF8,Flat", 3), ("HNSW16", 40)])
def test_save_and_load(factory, probe, tmp_path: Path):
    vectors = random_vectors()
    index = FaissIndex(vectors, factory, **NAMES, probe=probe)
    index.save(tmp_path / "index")
    index.save(tmp_path / "index")
    loaded = FaissIndex.load(tmp_path / "index", **NAMES)
    assert (len(loaded), loaded.recall, loaded.factory, loaded.probe) == (400, index.recall, factory, probe)
    assert torch.equal(loaded.search(vectors[:9], 7).row, index.search(vectors[:9], 7).row)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_an_index_that_stands_aside_is_read_and_one_of_no_rows_refused(tmp_path: Path):
    """The writer was killed while it put a newer one in its place (`retrograd.util.files.atomic_directory`)."""
    FaissIndex(random_vectors(), **NAMES).save(tmp_path / ".index.old" / "index")
    assert len(FaissIndex.load(tmp_path / "index")) == 400
    with pytest.raises(UserError, match="an index of 0 rows cannot be stored; embed at least one passage"):
        FaissIndex(torch.empty(0, 8), **NAMES)


def test_save_replaces_nothing_but_an_index(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"it holds 'notes.txt'; choose another folder"):
        FaissIndex(random_vectors(), **NAMES).save(tmp_path)
    for rows in (400, 20):
        FaissIndex(random_vectors(rows), **NAMES).save(tmp_path / "index")
    assert len(FaissIndex.load(tmp_path / "index")) == 20


def test_load_refuses_what_does_not_belong_or_is_damaged(tmp_path: Path):
    path = tmp_path / "index"
    FaissIndex(random_vectors(), **NAMES).save(path)
    with pytest.raises(UserError, match=r"from knowledge base basebasebase, but this run uses knowledge base other"):
        FaissIndex.load(path, base_fingerprint="other")
    with pytest.raises(UserError, match=r"holds a 'faiss' index, expected 'exact'"):
        ExactIndex.load(path)
    whole = (path / "index.faiss").read_bytes()
    (path / "index.faiss").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"index.faiss cannot be read.*rebuild the index"):
        FaissIndex.load(path)
    (path / "index.faiss").write_bytes(whole)
    manifest = path / "manifest.json"
    write_sealed(manifest, read_sealed(manifest) | {"rows": 401})
    with pytest.raises(UserError, match=r"holds 400 x 8 numbers, the manifest says 401 x 8"):
        FaissIndex.load(path)


def test_bad_arguments_are_refused():
    vectors = random_vectors(20)
    index = FaissIndex(vectors, **NAMES)
    with pytest.raises(UserError, match=r"width 2, the index 8"):
        index.search(torch.ones(1, 2), 1)
    with pytest.raises(ValueError, match=r"k is 0"):
        index.search(torch.ones(1, 8), 0)
    with pytest.raises(ValueError, match=r"expected -1 .padding. … 19"):
        index.vectors(torch.tensor([20]))
    with pytest.raises(UserError, match=r"cannot build 'Nonsense' over 20 x 8"):
        FaissIndex(vectors, "Nonsense", **NAMES)
    with pytest.raises(UserError, match=r"cannot build 'IVF64,Flat'.*no more lists than vectors"):
        FaissIndex(vectors, "IVF64,Flat", **NAMES)
    with pytest.raises(UserError, match=r"'Flat' has no nprobe; leave probe out"):
        FaissIndex(vectors, "Flat", **NAMES, probe=4)
    with pytest.raises(ValueError, match=r"probe is 0"):
        FaissIndex(vectors, "HNSW16", **NAMES, probe=0)
    with pytest.raises(UserError, match=r"all 4 vectors"):
        FaissIndex(torch.zeros(4, 8), **NAMES)


@pytest.mark.parametrize("factory", ["IVF1,PQ2x4fs", "IVF1,PQ2x4fsr", "IVF1,RaBitQfs"])
def test_what_cannot_give_its_vectors_back_is_refused(factory):
    index = FaissIndex(torch.randn(64, 8), factory, base_fingerprint="b", encoder_fingerprint="e")
    with pytest.raises(UserError, match="append ',RFlat'"):
        index.vectors(torch.tensor([0]))


def test_without_faiss_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match=r"pip install 'retrograd\[faiss\]'"):
        FaissIndex(torch.eye(3), **NAMES)


def clustered(rows=8_000, width=32):
    """Draw unit vectors in 200 clusters, as embeddings of passages are, and queries of the same kind that are no
    rows.
    """
    rng = torch.Generator().manual_seed(3)
    centres = torch.randn(200, width, generator=rng)
    points = centres[torch.randint(200, (rows + 100,), generator=rng)] + 0.6 * torch.randn(
        rows + 100, width, generator=rng
    )
    points = torch.nn.functional.normalize(points, dim=1)
    return points[:rows], points[rows:]


def measured_recall(index, vectors, queries, k=10):
    truth = (queries @ vectors.T).topk(k).indices
    return float((truth[:, :, None] == index.search(queries, k).row[:, None, :]).any(2).double().mean())


@pytest.mark.parametrize(
    ("name", "least"), [("flat", 1.0), ("ivf", 0.9), ("ivf-sq8", 0.9), ("ivf-pq", 0.85), ("hnsw", 0.95)]
)
def test_a_preset_declares_the_recall_it_has(name, least, tmp_path: Path):
    vectors, queries = clustered()
    preset = FaissIndex.preset(name, *vectors.shape)
    index = FaissIndex(vectors, preset.factory, **NAMES, probe=preset.probe, rerank=preset.rerank, queries=queries)
    assert index.recall == pytest.approx(
        measured_recall(index, vectors, queries), abs=2e-3
    )  # ties may fall differently
    assert index.recall >= least
    index.save(tmp_path / "index")
    loaded = FaissIndex.load(tmp_path / "index", **NAMES)
    assert torch.equal(loaded.search(queries, 10).row, index.search(queries, 10).row)
    assert loaded.recall == index.recall
    exact = vectors[:3] if name != "ivf-sq8" else loaded.vectors(torch.arange(3))
    torch.testing.assert_close(loaded.vectors(torch.arange(3)), exact)
    torch.testing.assert_close(exact, vectors[:3], rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("name", "least"), [("flat", 1.0), ("ivf", 0.6), ("ivf-sq8", 0.6), ("ivf-pq", 0.6), ("hnsw", 0.8)]
)
def test_a_preset_is_filtered_as_it_searches(name, least):
    """Rows that were dropped after the search would leave hardly any of the best 10 of a tenth of the base."""
    vectors, queries = clustered()
    preset = FaissIndex.preset(name, *vectors.shape)
    index = FaissIndex(vectors, preset.factory, **NAMES, probe=preset.probe, rerank=preset.rerank)
    rows = torch.arange(0, len(vectors), 10)
    found = index.search_among(rows, queries, 10).row
    assert (found[found >= 0] % 10 == 0).all()
    truth = rows[(queries @ vectors[rows].T).topk(10).indices]
    assert float((truth[:, :, None] == found[:, None, :]).any(2).double().mean()) >= least


def test_a_factory_that_cannot_be_filtered_says_so():
    vectors, queries = clustered()
    index = FaissIndex(vectors, "NSG16", **NAMES)
    with pytest.raises(UserError, match="faiss cannot filter 'NSG16'"):
        index.search_among(torch.arange(5), queries, 2)


def test_putting_in_order_by_exact_vectors_raises_recall_and_gives_exact_logits():
    vectors, queries = clustered()
    plain, once, more = (
        FaissIndex(vectors, factory, **NAMES, probe=16, rerank=rerank, queries=queries)
        for factory, rerank in (("IVF32,PQ8x4fs", None), ("IVF32,PQ8x4fs,RFlat", 1), ("IVF32,PQ8x4fs,RFlat", 10))
    )
    assert plain.recall == pytest.approx(once.recall, abs=0.02)
    assert more.recall > once.recall + 0.2
    found = more.search(queries, 10)
    torch.testing.assert_close(found.logit, torch.einsum("bd,bkd->bk", queries, vectors[found.row]))


def test_presets_grow_with_the_base_and_bad_ones_are_refused():
    sizes = (10, 1_000, 200_000, 1_000_000, 21_000_000)
    assert [FaissIndex.preset("ivf", rows, 384).factory for rows in sizes] == [
        "IVF1,Flat",
        "IVF25,Flat",
        "IVF1024,Flat",
        "IVF2048,Flat",
        "IVF8192,Flat",
    ]
    assert FaissIndex.preset("ivf-pq", 200_000, 384) == FaissPreset("IVF1024,PQ96x4fs,RFlat", 64, 10)
    with pytest.raises(UserError, match=r"no preset 'ivfpq'; did you mean 'ivf-pq'"):
        FaissIndex.preset("ivfpq", 10, 8)
    with pytest.raises(UserError, match=r"multiple of 4, not 30; take 'ivf-sq8'"):
        FaissIndex.preset("ivf-pq", 10, 30)
    with pytest.raises(UserError, match=r"'Flat' keeps no exact vectors; append ',RFlat'"):
        FaissIndex(random_vectors(20), **NAMES, rerank=4)
    with pytest.raises(ValueError, match=r"rerank is 0"):
        FaissIndex(random_vectors(20), "Flat,RFlat", **NAMES, rerank=0)


def test_every_index_offers_the_protocol():
    indexes: tuple[Index, ...] = (ExactIndex(torch.eye(3), **NAMES), FaissIndex(torch.eye(3), **NAMES))
    for index in indexes:
        assert len(index) == 3
        assert index.base_fingerprint == NAMES["base_fingerprint"]
        assert index.encoder_fingerprint == NAMES["encoder_fingerprint"]
        assert index.search(torch.eye(3), 1).row.tolist() == [[0], [1], [2]]
        assert torch.equal(index.vectors(torch.arange(3)), torch.eye(3))


@pytest.mark.parametrize("probe", [0, 2**63])
def test_a_manifest_with_a_probe_that_cannot_be(tmp_path, probe):
    FaissIndex(torch.randn(8, 4), base_fingerprint="b", encoder_fingerprint="e").save(tmp_path / "index")
    path = tmp_path / "index" / "manifest.json"
    write_sealed(path, read_sealed(path) | {"probe": probe})
    with pytest.raises(UserError, match=f"probe is {probe}, expected at least 1"):
        FaissIndex.load(tmp_path / "index")


def test_a_file_that_faiss_takes_for_no_index(tmp_path):
    FaissIndex(torch.randn(8, 4), base_fingerprint="b", encoder_fingerprint="e").save(tmp_path / "index")
    (tmp_path / "index" / "index.faiss").write_bytes(b"null")
    with pytest.raises(UserError, match="holds no index"):
        FaissIndex.load(tmp_path / "index")
