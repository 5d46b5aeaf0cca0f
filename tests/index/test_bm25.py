"""BM25 against its formula, word by word; and what a reader of a saved index may trust."""

import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrograd.index.bm25 import ENGLISH_STOP_WORDS, LexicalIndex, LexicalSettings
from retrograd.index.disk.storage import read_sealed, write_sealed
from retrograd.index.exact import ExactIndex
from retrograd.metrics.words import words
from retrograd.types import UserError

pytest.importorskip("bm25s")
TEXTS = [
    "The cup holds tea.",
    "Tea, tea and more TEA in the cup",
    "a flood came from the rain",
    "",
    "rain rain; go away",
    "The cup holds tea.",
]


def scores_by_hand(texts, query, k1=1.5, b=0.75):
    """Compute Σ over the words of the query of log(1 + (N - n + ½) / (n + ½)) · tf / (tf + k₁ (1 - b + b length /
    mean)).
    """
    bags = [Counter(words(text)) for text in texts]
    lengths = [sum(bag.values()) for bag in bags]
    mean = sum(lengths) / len(lengths)
    found = []
    for bag, length in zip(bags, lengths, strict=True):
        total = 0.0
        for word in words(query):
            n = sum(word in other for other in bags)
            if bag[word]:
                idf = math.log(1 + (len(texts) - n + 0.5) / (n + 0.5))
                total += idf * bag[word] / (bag[word] + k1 * (1 - b + b * length / mean))
        found.append(total)
    return found


@settings(max_examples=60)
@given(
    st.lists(
        st.lists(st.sampled_from(["alpha", "beta", "gamma", "delta", "kappa"]), max_size=7), min_size=1, max_size=8
    ),
    st.lists(st.sampled_from(["alpha", "beta", "gamma", "omega"]), max_size=5),
    st.integers(1, 10),
)
def test_rows_and_scores_follow_the_formula(bags, query, k):
    texts = [" ".join(bag) for bag in bags]
    if not any(texts):
        with pytest.raises(UserError, match=r"holds a word"):
            LexicalIndex.build(texts, "base")
        return
    found = LexicalIndex.build(texts, "base").search([" ".join(query)], k)
    expected = scores_by_hand(texts, " ".join(query))
    rows = [row for row in found.row[0].tolist() if row >= 0]
    assert len(rows) == min(k, sum(score > 0 for score in expected))
    assert found.logit[0, : len(rows)].tolist() == pytest.approx([expected[row] for row in rows], rel=1e-5)
    best = sorted((score for score in expected if score > 0), reverse=True)[:k]
    assert found.logit[0, : len(rows)].tolist() == pytest.approx(best, rel=1e-5)
    assert (found.logit[0, len(rows) :] == -torch.inf).all()
    assert found.log_normaliser is None


def test_equal_scores_are_ordered_by_row_and_exclusions_hold():
    index = LexicalIndex.build(TEXTS, "base")
    found = index.search(["tea cup", "tea cup", "nothing here matches"], 4, torch.tensor([[-1, -1], [0, 1], [-1, 3]]))
    assert found.row.tolist() == [[1, 0, 5, -1], [5, -1, -1, -1], [-1] * 4]
    assert len(index) == 6


def test_words_are_folded_and_stop_words_are_left_out_on_request():
    assert words("Ｔｈｅ Straße, the STRASSE: x_1!") == ["the", "strasse", "the", "strasse", "x_1"]
    assert "the" in ENGLISH_STOP_WORDS
    plain = LexicalIndex.build(TEXTS, "base")
    without = LexicalIndex.build(TEXTS, "base", LexicalSettings(stop_words=ENGLISH_STOP_WORDS))
    assert plain.search(["the"], 3).row.tolist() != [[-1] * 3]
    assert without.search(["the"], 3).row.tolist() == [[-1] * 3]


def test_a_saved_index_answers_the_same(tmp_path: Path):
    index = LexicalIndex.build(TEXTS, "base", LexicalSettings(1.2, 0.5, ("the",)))
    index.save(tmp_path / "bm25")
    loaded = LexicalIndex.load(tmp_path / "bm25", base_fingerprint="base")
    one, other = (found.search(["the tea in the rain", "cup"], 5) for found in (index, loaded))
    assert torch.equal(one.row, other.row)
    assert torch.equal(one.logit, other.logit)
    assert loaded.settings == index.settings
    assert {path.suffix for path in (tmp_path / "bm25").iterdir()} == {".json", ".safetensors"}
    assert len({path.stat().st_mode for path in (tmp_path / "bm25").iterdir()}) == 1


@pytest.mark.parametrize(
    ("texts", "is_read"), [(TEXTS, True), (["ein Bär", "ваш чай"], True), (["चाय", "पानी"], False)]
)
def test_an_index_of_0_1_0_is_read_where_its_words_are_the_same(tmp_path: Path, texts: list[str], is_read: bool):
    path = tmp_path / "bm25"
    LexicalIndex.build(texts, "base").save(path)
    written = read_sealed(path / "manifest.json")
    assert written.pop("words") == 2
    write_sealed(path / "manifest.json", written)
    if is_read:
        assert len(LexicalIndex.load(path)) == len(texts)
    else:
        with pytest.raises(UserError, match=r"words such as 'चाय' as retrograd 0.1.0 cut them.*build it again"):
            LexicalIndex.load(path)


def test_save_replaces_nothing_but_an_index(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"it holds 'notes.txt'; choose another folder"):
        LexicalIndex.build(TEXTS, "base").save(tmp_path)
    for texts in (TEXTS, TEXTS[:2]):
        LexicalIndex.build(texts, "base").save(tmp_path / "bm25")
    assert len(LexicalIndex.load(tmp_path / "bm25")) == 2


def test_an_index_that_stands_aside_is_read(tmp_path: Path):
    """The writer was killed while it put a newer one in its place (`retrograd.util.files.atomic_directory`)."""
    LexicalIndex.build(TEXTS, "base").save(tmp_path / ".bm25.old" / "bm25")
    assert len(LexicalIndex.load(tmp_path / "bm25")) == len(TEXTS)


@pytest.mark.slow
def test_a_build_does_not_depend_on_the_hash_seed(tmp_path: Path):
    code = f"from retrograd.index.bm25 import LexicalIndex as L; from pathlib import Path; import sys; \
L.build({TEXTS!r}, 'base').save(Path(sys.argv[1]))"
    for seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path), "PATH": ""}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / seed)], check=True, env=environment)
    for one in (tmp_path / "1").iterdir():
        assert one.read_bytes() == (tmp_path / "2" / one.name).read_bytes()


def test_load_refuses_what_does_not_belong_or_is_damaged(tmp_path: Path):
    path = tmp_path / "bm25"
    LexicalIndex.build(TEXTS, "base").save(path)
    with pytest.raises(UserError, match=r"from knowledge base base, but this run uses knowledge base other; rebuild"):
        LexicalIndex.load(path, base_fingerprint="other")
    with pytest.raises(UserError, match=r"not an index: it holds no manifest.json"):
        LexicalIndex.load(tmp_path)
    terms, scores, manifest = (path / name for name in ("terms.json", "scores.safetensors", "manifest.json"))
    whole, text = scores.read_bytes(), manifest.read_text()
    scores.write_bytes(whole[:-3])
    with pytest.raises(UserError, match=r"scores.safetensors cannot be read.*rebuild"):
        LexicalIndex.load(path)
    scores.write_bytes(whole)
    manifest.write_text(text.replace('"rows": 6', '"rows": 5'))
    with pytest.raises(UserError, match=r"manifest.json is damaged: it has changed since it was written"):
        LexicalIndex.load(path)
    manifest.write_text(text)
    write_sealed(manifest, read_sealed(manifest) | {"rows": 5})
    with pytest.raises(UserError, match=r"do not belong together; rebuild"):
        LexicalIndex.load(path)
    manifest.write_text(text)
    terms.write_text('["tea"]')
    with pytest.raises(UserError, match=r"do not belong together; rebuild"):
        LexicalIndex.load(path)
    ExactIndex(torch.eye(2), base_fingerprint="base", encoder_fingerprint="e").save(tmp_path / "exact")
    with pytest.raises(UserError, match=r"is not a 'bm25' index"):
        LexicalIndex.load(tmp_path / "exact")


def test_bad_arguments_are_refused():
    index = LexicalIndex.build(TEXTS, "base")
    with pytest.raises(ValueError, match=r"texts is the string 'tea cup'; expected a list"):
        index.search("tea cup", 2)
    with pytest.raises(ValueError, match=r"k is 0"):
        index.search(["tea"], 0)
    with pytest.raises(ValueError, match=r"2 lines for 1 texts"):
        index.search(["tea"], 1, torch.tensor([[1], [2]]))
    with pytest.raises(ValueError, match=r"expected -1 .padding. … 5"):
        index.search(["tea"], 1, torch.tensor([[6]]))
    with pytest.raises(UserError, match=r"b from 0 to 1"):
        LexicalSettings(b=2.0)
    with pytest.raises(UserError, match=r"none of the 0 texts"):
        LexicalIndex.build([], "base")


def test_without_bm25s_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(UserError, match=r"pip install 'retrograd\[bm25\]'"):
        LexicalIndex.build(TEXTS, "base")
