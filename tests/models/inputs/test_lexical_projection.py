"""BM25 as an inner product: its mean over hashes is the formula, its error falls with H, nothing is left to chance."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter

import pytest
import torch
from tests.tolerances import assert_equal_but_rounding

from retrograd.metrics.words import NonWords, words
from retrograd.models.encoder import Encoder
from retrograd.models.inputs.lexical_projection import LexicalProjection, WordStatistics
from retrograd.models.retriever import Retriever
from retrograd.types import UserError
from retrograd.util.text_files import read_json, write_json

TEXTS = ["The cup holds tea.", "Tea, tea and more TEA in the cup", "a flood came from the rain", "rain rain; go away"]
SYLLABLES = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
NAMES = [a + b for a in SYLLABLES for b in SYLLABLES]


def saturated(text: str, mean: float) -> dict[str, float]:
    """tf / (tf + 1.5 · (0.25 + 0.75 · length / mean)) of each word."""
    bag = Counter(words(text))
    return {word: times / (times + 1.5 * (0.25 + 0.75 * bag.total() / mean)) for word, times in bag.items()}


def by_hand(base: list[str], query: str, text: str) -> float:
    mean = sum(len(words(one)) for one in base) / len(base)
    held = [set(words(one)) for one in base]
    ours, theirs, total = saturated(query, mean), saturated(text, mean), 0.0
    for word in ours.keys() & theirs.keys():
        n = max(1, sum(word in one for one in held))
        total += math.log(1 + (len(base) - n + 0.5) / (n + 0.5)) * ours[word] * theirs[word]
    return total


def test_a_single_word_is_exact():
    """⟨r_w, r_w⟩ is 1 whatever H."""
    project = LexicalProjection(WordStatistics.of(TEXTS), 8)
    for query in ("cup", "rain", "unheard"):
        for text in (query, f"{query} {query}"):
            found = float(project([query]) @ project([text]).T)
            assert found == pytest.approx(by_hand(TEXTS, query, text), rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_many_numbers_come_near_the_formula(seed):
    """To rounding, but for words whose directions share one of their four places: 1/4 of a word or two of some 20."""
    drawn = torch.Generator().manual_seed(seed)
    some = NAMES[seed::60]
    texts = [" ".join(some[i] for i in torch.randint(len(some), (25,), generator=drawn).tolist()) for _ in range(6)]
    vectors = LexicalProjection(WordStatistics.of(texts), 2**16)(texts).double()
    expected = torch.tensor([[by_hand(texts, one, other) for other in texts] for one in texts], dtype=torch.float64)
    assert float(expected.min()) > 0  # all have words in common
    norm = expected.diagonal().sqrt()
    error = (vectors @ vectors.T - expected) / (norm[:, None] * norm)
    assert float(error.abs().median()) < 1e-6
    assert float(error.abs().max()) < 0.05


def test_the_error_is_unbiased_and_falls_as_the_root_of_h():
    """Two texts of 20 words without one in common: the formula says 0. Over 300 pairs."""
    drawn = torch.Generator().manual_seed(0)
    spread = {}
    for dimension in (64, 1024):
        found = []
        for _ in range(300):
            picked = [NAMES[i] for i in torch.randperm(len(NAMES), generator=drawn)[:40].tolist()]
            pair = [" ".join(picked[:20]), " ".join(picked[20:])]
            one, other = LexicalProjection(WordStatistics.of(pair), dimension)(pair)
            found.append(float(torch.cosine_similarity(one, other, dim=0)))
        errors = torch.tensor(found)
        assert abs(float(errors.mean())) < 4 * float(errors.std()) / math.sqrt(300)
        spread[dimension] = float(errors.std())
    assert spread[64] == pytest.approx(1 / 8, rel=0.2)
    assert spread[1024] == pytest.approx(1 / 32, rel=0.2)


def test_a_text_has_the_same_numbers_in_any_batch_and_in_any_process():
    project = LexicalProjection(WordStatistics.of(TEXTS), 64)
    together = project(TEXTS)
    assert torch.equal(together, torch.cat([project([text]) for text in TEXTS]))
    assert torch.equal(together.flip(0), project(TEXTS[::-1]))
    code = (
        "import sys, json; from retrograd.models.inputs.lexical_projection import *; t = json.loads(sys.argv[1]);"
        "print(json.dumps(LexicalProjection(WordStatistics.of(t), 64)(t).tolist()))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, json.dumps(TEXTS)], capture_output=True, text=True, check=True, timeout=120
    )
    assert json.loads(said.stdout) == together.tolist()


def test_no_text_no_word_and_signs_alone():
    project = LexicalProjection(WordStatistics.of(TEXTS), 8)
    assert project([]).shape == (0, 8)
    assert project(["", "?!"]).tolist() == [[0.0] * 8] * 2
    with pytest.raises(UserError, match="no word to search for"):
        WordStatistics.of(["", "?"])
    with pytest.raises(UserError, match="no word to search for"):
        WordStatistics.of([])


def test_an_instruction_is_no_word_of_a_text():
    non_words = (NonWords(), NonWords(("find: ", "read: "), ("[SEP]",)))
    plain, told = (LexicalProjection(WordStatistics.of(TEXTS), 64, one) for one in non_words)
    assert torch.equal(told(["find: tea cup", "read: rain", "a find: cup"]), plain(["tea cup", "rain", "a find: cup"]))
    assert torch.equal(told(["find: read: tea"]), plain(["read: tea"]))
    assert torch.equal(told(["find: tea [SEP] cup [SEP] sep"]), plain(["tea cup sep"]))


@pytest.mark.parametrize("dimension", [0, 2, 6, -4])
def test_h_is_a_multiple_of_four(dimension):
    with pytest.raises(UserError, match=f"dimension of a lexical projection is {dimension}; expected a multiple of 4"):
        LexicalProjection(WordStatistics.of(TEXTS), dimension)


def test_statistics_of_0_1_0_are_read_where_the_words_are_the_same(tmp_path):
    path = tmp_path / "lexical.json"
    for texts, is_read in ((TEXTS, True), (["चाय पानी", "चाय"], False)):
        LexicalProjection(WordStatistics.of(texts), 16).save(path)
        content = read_json(path)
        assert content.pop("words") == 2
        write_json(path, content)
        if is_read:
            assert LexicalProjection.load(path).dimension == 16
        else:
            with pytest.raises(UserError, match=r"words such as 'चाय' as retrograd 0.1.0 cut them"):
                LexicalProjection.load(path)


def test_saved_and_loaded_is_the_same(tmp_path):
    first = LexicalProjection(WordStatistics.of([*TEXTS, "öl Öl ÖL"]), 16, NonWords(("find: ", "read: "), ("[SEP]",)))
    first.save(tmp_path / "lexical.json")
    again = LexicalProjection.load(tmp_path / "lexical.json")
    assert_equal_but_rounding(again(TEXTS), first(TEXTS))
    assert again.non_words == first.non_words
    assert again.fingerprint == first.fingerprint
    assert LexicalProjection(first.statistics, 20).fingerprint != first.fingerprint
    assert LexicalProjection(first.statistics, 16, NonWords(("say: ",))).fingerprint != first.fingerprint
    assert LexicalProjection(WordStatistics.of(TEXTS), 16).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dimension": 6}, "multiple of 4"),
        ({"texts": 0}, "no word to search for"),
        ({"texts": True}, "texts is True"),
        ({"mean_length": "3"}, "mean_length is '3'"),
        ({"mean_length": -1.0}, "no word to search for"),
        ({"frequency": ["cup"]}, "holds no lexical projection"),
        ({"frequency": {"cup": "2"}}, "whole number"),
        ({"frequency": {"cup": 1}}, "the frequency of 'cup' is 1 of 4"),
        ({"frequency": {"cup": 5}}, "the frequency of 'cup' is 5 of 4"),
        ({"more": 1}, "unknown key 'more'"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, change, says):
    path = tmp_path / "lexical.json"
    LexicalProjection(WordStatistics.of(TEXTS), 16).save(path)
    found = read_json(path)
    assert isinstance(found, dict)
    write_json(path, found | change)
    with pytest.raises(UserError, match=rf"lexical\.json.*{says}"):
        LexicalProjection.load(path)


# ---- in a retriever -------------------------------------------------------------------------------------------------

QUERIES, PASSAGES = ["who is alpha", "tea cup"], ["alpha beta", "The cup holds tea.", "delta epsilon zeta"]


def hybrid(folder, weight: float = 0.5, trained="query", shared: bool = True) -> Retriever:
    project = LexicalProjection(WordStatistics.of(PASSAGES), 32)
    query = Encoder.open(str(folder), lexical=project).eval()
    passage = query if shared else Encoder.open(str(folder), lexical=project).eval()
    return Retriever(query, passage, 0.1, trained, lexical_weight=weight)


@pytest.mark.parametrize("trained", ["both", "query", "none"])
def test_a_logit_is_cosine_over_temperature_and_weighted_words(tiny_encoder, trained):
    retriever = hybrid(tiny_encoder, 0.7, trained)
    plain = Encoder.open(str(tiny_encoder)).eval()
    words_alone = retriever.query_encoder.lexical
    assert words_alone is not None
    expected = plain.embed(QUERIES) @ plain.embed(PASSAGES).T / 0.1
    expected += 0.7 * words_alone(QUERIES) @ words_alone(PASSAGES).T
    torch.testing.assert_close(retriever.queries(QUERIES) @ retriever.passages(PASSAGES).T, expected)
    assert retriever.query_encoder.dimension == plain.dimension + 32
    assert retriever.query_encoder.embed([]).shape == (0, plain.dimension + 32)


def test_the_weight_learns_from_zero_and_has_the_gradient_of_the_words(tiny_encoder):
    retriever = hybrid(tiny_encoder, 0.0)
    assert retriever.lexical_weight is not None
    logits = retriever.queries(QUERIES) @ retriever.passages(PASSAGES).T
    (gradient,) = torch.autograd.grad(logits.sum(), [retriever.lexical_weight])
    project = retriever.query_encoder.lexical
    assert project is not None
    torch.testing.assert_close(gradient, (project(QUERIES) @ project(PASSAGES).T).sum())
    assert retriever.trained_scales() == [retriever.lexical_weight]
    assert hybrid(tiny_encoder, trained="none").trained_scales() == []
    assert not hybrid(tiny_encoder, trained="none").queries(QUERIES).requires_grad


def test_the_null_passage_has_no_words(tiny_encoder):
    assert hybrid(tiny_encoder).no_passage("alpha tea")[-32:].tolist() == [0.0] * 32


@pytest.mark.parametrize("shared", [True, False])
def test_a_hybrid_retriever_is_saved_and_loaded_to_the_last_bit(tiny_encoder, tmp_path, shared):
    first = hybrid(tiny_encoder, 0.3, shared=shared)
    first.save(tmp_path)
    again = Retriever.load(tmp_path).eval()
    assert_equal_but_rounding(again.queries(QUERIES), first.queries(QUERIES))
    assert_equal_but_rounding(again.passages(PASSAGES), first.passages(PASSAGES))
    assert again.passage_encoder.fingerprint() == first.passage_encoder.fingerprint()
    assert first.passage_encoder.fingerprint() != Encoder.open(str(tiny_encoder)).fingerprint()
    (tmp_path / "lexical.json").unlink()
    with pytest.raises(UserError, match=r"lexical\.json"):
        Retriever.load(tmp_path)


def test_the_weight_of_words_is_a_number(tiny_encoder):
    tower = Encoder.open(str(tiny_encoder), lexical=LexicalProjection(WordStatistics.of(PASSAGES), 32))
    for weight in (math.nan, math.inf):
        with pytest.raises(UserError, match="lexical_weight is"):
            Retriever(tower, tower, lexical_weight=weight)


def test_towers_with_different_words_do_not_fit(tiny_encoder):
    query, passage = (
        Encoder.open(str(tiny_encoder), lexical=LexicalProjection(WordStatistics.of(texts), 32))
        for texts in (PASSAGES, QUERIES)
    )
    with pytest.raises(UserError, match="differ in lexical"):
        Retriever(query, passage)
