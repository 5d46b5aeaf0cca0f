"""What Milvus does beyond the contract of `test_engines.py`: versions behind an alias, a server, refusals, runs.

A file is served within this process. A server is that of ``$RETROGRAD_MILVUS``, where it is set, else milvus-lite's own
behind an address.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.requirements import skip_without_milvus

from retrograd.index.estimated import estimate_log_normaliser
from retrograd.index.exact import ExactIndex
from retrograd.index.milvus import MilvusIndex
from retrograd.index.milvus_store import MilvusStore
from retrograd.index.settings import IndexSettings
from retrograd.types import UserError

pytestmark = pytest.mark.integration
skip_without_milvus()

ROWS, WIDTH, READERS, SEARCHES = 60, 8, 8, 1000
NAME = f"test_{os.getpid()}"


@pytest.fixture(params=["file", "server"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A file, or the address of a server."""
    if request.param == "file":
        yield str(tmp_path / "index.db")
        return
    address = os.environ.get("RETROGRAD_MILVUS")
    if address is not None:
        yield address
        return
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    server, db, port = start_server_in_thread(data_dir=str(tmp_path / "server.db"), host="127.0.0.1", port=0)
    yield f"http://127.0.0.1:{port}"
    server.stop(grace=0)
    db.close()


@pytest.fixture(autouse=True)
def drop_collections(place: str) -> Iterator[None]:
    """Leave nothing behind on a server that others use."""
    yield
    if "RETROGRAD_MILVUS" in os.environ and "://" in place:
        from pymilvus import MilvusClient

        client = MilvusClient(place)
        if NAME in client.list_aliases()["aliases"]:
            client.drop_alias(NAME)
        for collection in client.list_collections():
            if collection.startswith(NAME):
                client.drop_collection(collection)


def exact_index(number: int = 1, rows: int = ROWS, width: int = WIDTH) -> ExactIndex:
    """Vectors of a version, whose logits are ``number`` times those of the first."""
    vectors = number * torch.randn(rows, width, generator=torch.Generator().manual_seed(7))
    return ExactIndex(vectors, base_fingerprint="base", encoder_fingerprint=f"encoder {number}")


def publish(place: str, number: int) -> MilvusIndex:
    return MilvusIndex.publish(exact_index(number), place, NAME, MilvusIndex.preset("flat", ROWS))


def collections(place: str) -> list[str]:
    from pymilvus import MilvusClient

    return sorted(one for one in MilvusClient(place).list_collections() if one.startswith(NAME))


def test_no_reader_sees_a_mixed_or_missing_version_while_the_alias_is_switched(place: str) -> None:
    publish(place, 1)
    query = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(8))
    best = (query @ exact_index().vectors(torch.arange(ROWS)).T).topk(4)
    seen, errors, lock = [[] for _ in range(READERS)], list[BaseException](), threading.Lock()
    searches = iter(range(SEARCHES))

    def read(numbers: list[int]) -> None:
        try:
            while True:
                with lock:
                    if next(searches, None) is None:
                        return
                index = MilvusIndex.open(place, NAME, base_fingerprint="base")
                numbers.append(int(index.encoder_fingerprint.removeprefix("encoder ")))
                found = index.search(query, 4)
                assert found.row.equal(best.indices)
                torch.testing.assert_close(found.logit, numbers[-1] * best.values)
        except BaseException as error:  # to be raised where the test can see it
            errors.append(error)

    readers = [threading.Thread(target=read, args=(numbers,)) for numbers in seen]
    for reader in readers:
        reader.start()
    published = 1
    while any(reader.is_alive() for reader in readers):
        published += 1
        publish(place, published)
    for reader in readers:
        reader.join()
    assert errors == []
    assert sum(map(len, seen)) == SEARCHES
    assert all(numbers == sorted(numbers) for numbers in seen)
    assert len({number for numbers in seen for number in numbers}) >= 3


@pytest.mark.parametrize("step", ["insert", "create_index", "alter_collection_properties", "alter_alias"])
def test_the_current_version_stays_and_what_was_left_unfinished_goes(
    place: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that was described and never became the current one is nobody's."""
    publish(place, 1)
    (first,) = collections(place)
    reader = MilvusIndex.open(place, NAME)
    with monkeypatch.context() as patch:
        patch.setattr(f"pymilvus.MilvusClient.{step}", _interrupt)
        with pytest.raises(InterruptedError):
            publish(place, 2)
    assert [one[:-9] for one in collections(place)] == [f"{NAME}_v000001", f"{NAME}_v000002"]
    assert MilvusIndex.open(place, NAME).encoder_fingerprint == "encoder 1"
    publish(place, 3)
    assert [one[:-9] for one in collections(place)] == [f"{NAME}_v000001", f"{NAME}_v000003"]
    assert collections(place)[0] == first
    assert len(reader.search(torch.ones(1, WIDTH), 2).row) == 1  # who opened it before still reads it
    publish(place, 4)
    assert [one[:-9] for one in collections(place)] == [f"{NAME}_v000003", f"{NAME}_v000004"]
    with pytest.raises(UserError, match=r"Milvus refused: .*v000001"):
        reader.search(torch.ones(1, WIDTH), 2)


def _interrupt(*_: object, **__: object) -> None:
    raise InterruptedError


def test_two_publishers_at_once_write_two_versions(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both take the same number: to a server, creating a collection that is there is no error."""
    monkeypatch.setattr("retrograd.index.milvus_store.MilvusStore._versions", lambda store, name: [])
    names = {MilvusStore(place).create(NAME, WIDTH) for _ in range(2)}
    assert [name[:-9] for name in names] == [f"{NAME}_v000001"] * 2


def test_recall_is_measured_and_kept_and_the_probe_decides_it(place: str) -> None:
    exact = exact_index(rows=4000)
    queries = torch.randn(64, WIDTH, generator=torch.Generator().manual_seed(9))
    recalls = {}
    for probe in (1, 8, 128):
        preset = MilvusIndex.preset("ivf", 4000, probe)
        published = MilvusIndex.publish(exact, place, NAME, preset, queries=queries)
        opened = MilvusIndex.open(place, NAME)
        truth, found = exact.search(queries, 10).row, opened.search(queries, 10).row
        recalls[probe] = float((truth[:, :, None] == found[:, None]).any(dim=2).double().mean())
        assert opened.recall == published.recall == pytest.approx(recalls[probe], abs=1e-9)
    assert recalls[1] + 0.1 < recalls[8] < recalls[128] == 1.0
    assert MilvusIndex.open(place, NAME, probe=1).search(queries, 10).row.ne(found).any()


def test_vectors_come_from_milvus_where_no_embeddings_are_at_hand(place: str) -> None:
    stored = exact_index().vectors(torch.arange(ROWS))
    publish(place, 1)
    opened = MilvusIndex.open(place, NAME)
    rows = torch.tensor([[5, -1, 5], [59, 0, 3]])
    expected = stored[rows.clamp(min=0)].masked_fill(rows[..., None] < 0, 0.0)
    torch.testing.assert_close(opened.vectors(rows), expected, rtol=0, atol=0)
    with pytest.raises(ValueError, match="rows span"):
        opened.vectors(torch.tensor([ROWS]))


def test_log_z_over_it_is_estimated_and_with_draws_for_all_rows_it_is_exact(place: str) -> None:
    exact = exact_index()
    index, query = publish(place, 1), torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(8))
    exclude = torch.tensor([[0], [1], [-1]])
    log_z = exact.search(query, 1, exclude).log_normaliser
    assert index.log_z == "estimated"
    for draws, errors in ((ROWS, 0.0), (20, 4.0)):
        rng = torch.Generator().manual_seed(0)
        estimate = estimate_log_normaliser(index, query, index.search(query, 10, exclude).row, draws, rng, exclude)
        assert ((estimate.value - log_z).abs() <= errors * estimate.standard_error + 1e-5).all()
        assert bool((estimate.standard_error > 0).all()) == (draws < ROWS)


def test_a_file_of_its_own_goes_with_the_index(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "://" in place:
        pytest.skip("an index of its own lies in a file")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    index = MilvusIndex.build(exact_index())
    assert [path.name[:16] for path in tmp_path.iterdir()] == ["retrograd-milvus"]
    assert [path.name for path in tmp_path.glob("*/*")] == ["index.db"]
    from milvus_lite.server_manager import server_manager_instance

    assert any(str(tmp_path) in path for path in server_manager_instance._servers)
    del index
    assert list(tmp_path.iterdir()) == []
    assert not any(str(tmp_path) in path for path in server_manager_instance._servers)


def test_a_build_that_fails_leaves_no_file_and_no_server(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "://" in place:
        pytest.skip("an index of its own lies in a file")
    from milvus_lite.server_manager import server_manager_instance

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("pymilvus.MilvusClient.flush", _interrupt)
    with pytest.raises(InterruptedError):
        MilvusIndex.build(exact_index())
    assert list(tmp_path.iterdir()) == []
    assert not any(str(tmp_path) in path for path in server_manager_instance._servers)


def test_a_filter_is_a_range_or_a_list_of_bounded_length(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    index, query = publish(place, 1), torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(8))
    stored = exact_index().vectors(torch.arange(ROWS))
    for rows in (torch.arange(5, 40), torch.tensor([1, 2, 9, 50])):
        best = rows[(query @ stored[rows].T).topk(3).indices]
        assert index.search_among(rows, query, 3).row.equal(best)
    monkeypatch.setattr("retrograd.index.milvus_store._MOST_FILTERED", 3)
    with pytest.raises(UserError, match="the filter leaves 4 passages, and of at most 3 their rows are sent"):
        index.search_among(torch.tensor([1, 2, 9, 50]), query, 3)


def test_refusals_name_the_place_and_the_remedy(place: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.db does not exist; write it with: retrograd index publish"):
        MilvusIndex.open(str(tmp_path / "nothing.db"))
    index = publish(place, 1)
    with pytest.raises(UserError, match=r"holds no index named 'other' \(index\.collection\); publish one"):
        MilvusIndex.open(place, "other")
    with pytest.raises(UserError, match=r"index\.collection is '1st'; Milvus takes letters, digits and _"):
        MilvusIndex.publish(exact_index(), place, "1st")
    with pytest.raises(UserError, match=r"32,769 numbers, and Milvus stores at most 32,768; set retriever\.lexical"):
        MilvusIndex.publish(exact_index(rows=1, width=32_769), place, NAME)
    with pytest.raises(UserError, match=r"Milvus has no preset 'iwf'"):
        MilvusIndex.preset("iwf", 10)
    with pytest.raises(UserError, match="was built from encoder encoder 1, but this run uses encoder other"):
        MilvusIndex.open(place, NAME, encoder_fingerprint="other")
    index._store._client.alter_collection_properties(index.collection, properties={"retrograd.manifest": "{"})
    with pytest.raises(UserError, match=r"v000001_\w+: its description is damaged"):
        MilvusIndex.open(place, NAME)
    index._store._client.alter_collection_properties(
        index.collection, properties={"retrograd.manifest": '{"kind": "milvus"}'}
    )
    with pytest.raises(UserError, match=r"v000001_\w+: missing or unknown field"):
        MilvusIndex.open(place, NAME)


def test_more_results_than_milvus_returns_are_refused(place: str) -> None:
    index = MilvusIndex.publish(exact_index(rows=20_000, width=2), place, NAME, MilvusIndex.preset("flat", 20_000))
    with pytest.raises(
        UserError, match=r"16,380 passages are asked for and 10 excluded; Milvus returns at most 16,384"
    ):
        index.search(torch.ones(1, 2), 16_380, torch.arange(10)[None])


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9 cannot be opened .*; see that the server runs"):
        MilvusIndex.open("http://127.0.0.1:9")


def test_a_file_that_another_process_serves_is_named(tmp_path: Path) -> None:
    file = tmp_path / "index.db"
    publish(str(file), 1)
    code = (
        "import sys\nfrom retrograd.index.milvus import MilvusIndex\nfrom retrograd.types import UserError\n"
        "try:\n    MilvusIndex.open(sys.argv[1])\nexcept UserError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    assert "one process at a time serves a file: end the other" in done.stdout


def test_pymilvus_leaves_the_handlers_of_others_alone(tmp_path: Path) -> None:
    """At its import it shuts all handlers of logging down, and that of absl then closes the standard error."""
    code = (
        "import logging, sys\nfrom retrograd.index.milvus import MilvusIndex\nfrom retrograd.types import UserError\n"
        "class Handler(logging.Handler):\n    def close(self):\n        print('closed')\n"
        "handler = Handler()\n"
        "try:\n    MilvusIndex.open(sys.argv[1])\nexcept UserError:\n    print('refused', flush=True)\n"
        "import os\nos._exit(0)"
    )
    empty = tmp_path / "index.db"
    empty.mkdir()
    done = subprocess.run([sys.executable, "-c", code, str(empty)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["refused"], done.stderr


def test_threads_that_import_it_at_once_leave_logging_as_it_was(tmp_path: Path) -> None:
    code = (
        "import logging.config, sys, threading\nfrom retrograd.index.milvus_store import _pymilvus\n"
        "configure = logging.config.dictConfig\n"
        "threads = [threading.Thread(target=_pymilvus) for _ in range(8)]\n"
        "[thread.start() for thread in threads]\n[thread.join() for thread in threads]\n"
        "print(logging.config.dictConfig is configure)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"], done.stderr


def test_settings_of_milvus() -> None:
    with pytest.raises(UserError, match=r"index\.preset = \"ivf-pq\" is one of faiss"):
        IndexSettings("milvus", preset="ivf-pq")
    for where in ("http://localhost:19530", "base.db"):
        with pytest.raises(UserError, match=r"which Milvus serves, and index\.kind is \"exact\"; set index\.kind"):
            IndexSettings("exact", path=where)
    with pytest.raises(UserError, match=r"index\.factory is 'Flat', which is a setting of faiss"):
        IndexSettings("milvus", factory="Flat")
    with pytest.raises(UserError, match=r"index\.collection is 'mine', which is a setting of milvus"):
        IndexSettings("faiss", collection="mine")
    assert IndexSettings("milvus", probe=3, collection="mine").probe == 3
