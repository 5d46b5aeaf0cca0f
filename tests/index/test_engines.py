"""The contract of every engine that an experiment may choose: over the tuple `INDEXES`, in memory and on disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from tests.requirements import skip_without_milvus
from torch import Tensor

from retrograd.index.disk.versions import current_version
from retrograd.index.exact import ExactIndex
from retrograd.index.kinds import INDEXES, IndexKind, holds_index, load_index, stored_kind
from retrograd.index.protocol import Index, can_save_with_model, has_movable_rows
from retrograd.index.restricted import restrict
from retrograd.index.settings import IndexSettings
from retrograd.types import UserError

ROWS, WIDTH, VERSIONS = 60, 8, 6
CPU = torch.device("cpu")


INTEGRATION = {"milvus": [pytest.mark.integration]}


@pytest.fixture(params=[pytest.param(kind, marks=INTEGRATION.get(kind.name, ()), id=kind.name) for kind in INDEXES])
def kind(request: pytest.FixtureRequest) -> IndexKind:
    if request.param.name == "faiss":
        pytest.importorskip("faiss")
    if request.param.name == "milvus":
        skip_without_milvus()
    return request.param


def settings_of(kind: IndexKind, folder: Path | None = None) -> IndexSettings:
    """Settings by which the engine compares a query with every row, so that its results are known.

    ``folder`` is for what is published: a root of versions, or a file of Milvus.
    """
    if folder is None:
        return IndexSettings(kind.name, preset="flat")
    where = folder / "index.db" if kind.name == "milvus" else folder
    return IndexSettings(kind.name, path=str(where), preset="flat")


def make(kind: IndexKind, vectors: Float[Tensor, "N D"], encoder: str = "encoder") -> Index:
    exact = ExactIndex(vectors, base_fingerprint="base", encoder_fingerprint=encoder)
    return kind.build(exact, settings_of(kind))


@pytest.fixture
def vectors(rng: torch.Generator) -> Float[Tensor, "N D"]:
    return torch.randn(ROWS, WIDTH, generator=rng)


@pytest.fixture
def query(rng: torch.Generator) -> Float[Tensor, "B D"]:
    return 3 * torch.randn(5, WIDTH, generator=rng)


def test_it_keeps_rows_and_fingerprints_and_declares_what_its_kind_says(
    kind: IndexKind, vectors: Float[Tensor, "N D"]
) -> None:
    index = make(kind, vectors)
    assert isinstance(index, Index)
    assert (len(index), list(index.held_rows)) == (ROWS, list(range(ROWS)))
    assert (index.base_fingerprint, index.encoder_fingerprint) == ("base", "encoder")
    assert can_save_with_model(index) == kind.saves_with_model
    assert has_movable_rows(index) == kind.rows_move
    torch.testing.assert_close(index.vectors(torch.tensor([[3, -1]])), torch.stack([vectors[3], 0 * vectors[3]])[None])


def test_the_best_rows_are_those_of_a_sort_and_none_is_excluded(
    kind: IndexKind, vectors: Float[Tensor, "N D"], query: Float[Tensor, "B D"]
) -> None:
    index, logits = make(kind, vectors), query @ vectors.T
    best = logits.argsort(dim=1, descending=True)
    exclude = torch.cat([best[:, :2], torch.full((5, 1), -1), best[:, 4:5]], dim=1)  # -1 is padding
    found = index.search(query, 4, exclude)
    assert found.row.equal(best[:, [2, 3, 5, 6]])
    torch.testing.assert_close(found.logit, logits.gather(1, found.row))
    if index.log_z == "exact":
        assert found.log_normaliser is not None
        torch.testing.assert_close(found.log_normaliser, logits.scatter(1, best[:, [0, 1, 4]], -torch.inf).logsumexp(1))
    alone = index.search(query[2:3], 4, exclude[2:3])
    assert alone.row.equal(found.row[2:3])  # whoever else is in the batch


def test_more_than_there_are_is_padded(
    kind: IndexKind, vectors: Float[Tensor, "N D"], query: Float[Tensor, "B D"]
) -> None:
    index = make(kind, vectors[:3])
    found = index.search(query, 5, torch.tensor([[0], [1], [2], [-1], [0]]))
    assert [(row >= 0).sum().item() for row in found.row] == [2, 2, 2, 3, 2]
    assert ((found.row == -1) == (found.logit == -torch.inf)).all()
    assert (found.row.diff(dim=1)[:, 2:] <= 0).all()  # padding comes last
    none = index.search(query, 2, torch.arange(3).expand(5, 3))
    assert (none.row == -1).all()
    with pytest.raises(ValueError, match="k is 0"):
        index.search(query, 0)


def test_copies_of_a_passage_are_rows_of_their_own(
    kind: IndexKind, vectors: Float[Tensor, "N D"], query: Float[Tensor, "B D"]
) -> None:
    copies = vectors[:4].repeat(3, 1)
    index, logits = make(kind, copies), query @ vectors[:4].T
    found = index.search(query, 12)
    assert found.row.sort(dim=1).values.equal(torch.arange(12).expand(5, 12))  # each once
    order = logits.argsort(dim=1, descending=True)
    assert (found.row % 4).equal(order.repeat_interleave(3, dim=1))  # equal logits stand together, whatever the order
    torch.testing.assert_close(found.logit, logits.gather(1, found.row % 4))
    less = index.search(query, 11, found.row[:, :1])  # one copy is excluded, the others stay
    assert (less.row != found.row[:, :1]).all()
    assert ((less.row >= 0).sum(dim=1) == 11).all()


def test_a_filter_leaves_the_best_of_some_rows(
    kind: IndexKind, vectors: Float[Tensor, "N D"], query: Float[Tensor, "B D"]
) -> None:
    index, rows = make(kind, vectors), torch.tensor([7, 3, 3, 4, 5, 20, 41, 42, 59])
    some = restrict(index, rows)
    assert list(some.held_rows) == [3, 4, 5, 7, 20, 41, 42, 59]
    assert len(some) == 8
    logits = (query @ vectors.T).index_fill(1, torch.tensor([i for i in range(ROWS) if i not in rows]), -torch.inf)
    best = logits.argsort(dim=1, descending=True)
    found = some.search(query, 3, best[:, :1])
    assert found.row.equal(best[:, 1:4])
    torch.testing.assert_close(found.logit, logits.gather(1, found.row))
    assert (some.search(query, 9).row >= 0).sum(dim=1).tolist() == [8] * 5  # the rest is padding
    torch.testing.assert_close(some.vectors(torch.tensor([20, -1])), torch.stack([vectors[20], 0 * vectors[0]]))
    with pytest.raises(UserError, match="no rows to restrict the index to"):
        restrict(index, rows[:0])
    with pytest.raises(ValueError, match="rows span"):
        restrict(index, torch.tensor([ROWS]))


def test_queries_that_do_not_fit_are_refused(kind: IndexKind, vectors: Float[Tensor, "N D"]) -> None:
    index = make(kind, vectors)
    with pytest.raises(UserError, match="the query has width 3, the index 8"):
        index.search(torch.ones(1, 3), 2)
    with pytest.raises(UserError, match=r"query 0 .* is not finite"):
        index.search(torch.full((1, WIDTH), torch.nan), 2)
    with pytest.raises(ValueError, match="rows span 60"):
        index.search(torch.ones(1, WIDTH), 2, torch.tensor([[ROWS]]))


def test_published_it_is_the_same_and_not_another_bases_or_encoders(
    kind: IndexKind, vectors: Float[Tensor, "N D"], query: Float[Tensor, "B D"], tmp_path: Path
) -> None:
    index, settings = make(kind, vectors), settings_of(kind, tmp_path / "index")
    assert not holds_index(settings.path)
    published = kind.publish(ExactIndex(vectors, base_fingerprint="base", encoder_fingerprint="encoder"), settings)
    assert holds_index(settings.path)
    assert stored_kind(settings.path) == kind.name
    again = load_index(settings, "base", "encoder", CPU)
    assert type(again) is type(published) is type(index)
    assert len(again) == ROWS
    expected, found = index.search(query, 7), again.search(query, 7)
    assert found.row.equal(expected.row)
    assert found.logit.equal(expected.logit)
    rows = torch.tensor([[3, -1], [7, 3]])
    torch.testing.assert_close(again.vectors(rows), index.vectors(rows))
    for base, encoder, what in (("other", "encoder", "knowledge base"), ("base", "other", "encoder")):
        with pytest.raises(UserError, match=rf"was built from {what} {'base' if base == 'other' else 'encoder'}, but"):
            load_index(settings, base, encoder, CPU)


def test_a_damaged_manifest_is_refused(kind: IndexKind, vectors: Float[Tensor, "N D"], tmp_path: Path) -> None:
    if kind.name == "milvus":
        pytest.skip("there is no file of a manifest; see test_milvus.py")
    settings = settings_of(kind, tmp_path / "index")
    kind.publish(ExactIndex(vectors, base_fingerprint="base", encoder_fingerprint="encoder"), settings)
    (current_version(tmp_path / "index") / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="the manifest is damaged"):
        load_index(settings, "base", "encoder", CPU)


def version_vectors(number: int) -> Float[Tensor, "N D"]:
    """Vectors of a version, whose logits are ``number`` times those of the first."""
    return number * torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(7))


def publish(kind: IndexKind, folder: Path, number: int) -> None:
    exact = ExactIndex(version_vectors(number), base_fingerprint="base", encoder_fingerprint=f"encoder {number}")
    kind.publish(exact, settings_of(kind, folder))


def number_read(kind: IndexKind, folder: Path) -> int:
    """The version that a reader opens: its vectors, all of them, and what it finds are those of its fingerprint."""
    index = kind.open(settings_of(kind, folder), "base", None, CPU)
    number = int(index.encoder_fingerprint.removeprefix("encoder "))
    vectors = version_vectors(number)
    torch.testing.assert_close(index.vectors(torch.arange(ROWS)), vectors)
    found = index.search(vectors[:3], 4)
    best = (vectors[:3] @ vectors.T).topk(4)
    assert found.row.equal(best.indices)
    torch.testing.assert_close(found.logit, best.values)
    return number


def test_readers_see_one_version_or_the_next_while_they_are_switched(kind: IndexKind, tmp_path: Path) -> None:
    publish(kind, tmp_path, 1)
    stop, seen, errors = threading.Event(), [[] for _ in range(4)], list[BaseException]()

    def read(numbers: list[int]) -> None:
        try:
            while not stop.is_set():
                numbers.append(number_read(kind, tmp_path))
        except BaseException as error:  # to be raised where the test can see it
            errors.append(error)

    readers = [threading.Thread(target=read, args=(numbers,)) for numbers in seen]
    for reader in readers:
        reader.start()
    for number in range(2, VERSIONS + 1):
        publish(kind, tmp_path, number)
        before = [len(numbers) for numbers in seen]
        while not errors and any(len(numbers) < count + 2 for numbers, count in zip(seen, before, strict=True)):
            pass  # the first may have opened the version before, the second opens this one
    stop.set()
    for reader in readers:
        reader.join()
    assert errors == []
    for numbers in seen:
        assert numbers == sorted(numbers)
        assert numbers[-1] == VERSIONS


@pytest.mark.slow
def test_killed_while_it_writes_a_version_the_one_before_stays(kind: IndexKind, tmp_path: Path) -> None:
    """Each child dies at another step of those that make files, collections and versions appear."""
    words = [
        sys.executable,
        "-c",
        f"from {__name__} import die_at_each_step; die_at_each_step(*{[kind.name, str(tmp_path / 'index')]})",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
    assert number_read(kind, tmp_path / "index") == 3


def die_at_each_step(name: str, folder: str) -> None:
    """Publish version 2 in children that die at the first step, the second, …; print how many died; publish 3.

    All is done in children: Milvus's threads do not survive a fork, and one process alone opens its file.
    """
    kind, root, deaths = next(kind for kind in INDEXES if kind.name == name), Path(folder), 0
    assert _child(lambda: publish(kind, root, 1))
    while not _child(partial(_publish_and_die, kind, root, deaths + 1)):
        deaths += 1
        assert _child(lambda: _expect(kind, root, 1)), f"died at step {deaths}"
    assert _child(lambda: _expect(kind, root, 2))
    assert _child(lambda: publish(kind, root, 3))
    sys.stdout.write(str(deaths))


def _child(act: Callable[[], None]) -> bool:
    """Act in a child, and return whether it lived to the end. Any other end than a kill is an error."""
    child = os.fork()
    if child == 0:
        try:
            act()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


def _expect(kind: IndexKind, root: Path, number: int) -> None:
    assert number_read(kind, root) == number


def _publish_and_die(kind: IndexKind, root: Path, last: int) -> None:
    """Publish version 2, and die before the step number ``last``, if there are so many."""
    steps = iter(range(1, last))

    def die_before(step: Callable[..., object]) -> Callable[..., object]:
        def take_or_die(*arguments: object, **named: object) -> object:
            if next(steps, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*arguments, **named)

        return take_or_die

    if kind.name == "milvus":
        from pymilvus import MilvusClient as Owner

        names = ["create_collection", "insert", "flush", "create_index", "load_collection"]
        names += ["alter_collection_properties", "alter_alias"]
    else:
        Owner, names = Path, ["replace"]
    for name in names:
        setattr(Owner, name, die_before(getattr(Owner, name)))
    publish(kind, root, 2)
