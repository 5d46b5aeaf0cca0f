"""The shipped data are the official files, read completely; the phrases cover the official labels."""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter
from importlib.resources import files

import pytest

from retrograd.data.relations.semeval import load_semeval
from retrograd.metrics.relations import SEMEVAL_LABELS
from retrograd.tasks.relations.verbalisation import semeval_verbalisation
from retrograd.types import UserError


@pytest.mark.parametrize("name", ["TRAIN_FILE.TXT", "TEST_FILE_FULL.TXT"])
def test_decompressed_files_are_the_originals_by_their_stated_sum(name: str) -> None:
    folder = files("retrograd").joinpath("resources", "semeval2010_task8")
    content = gzip.decompress(folder.joinpath(f"{name}.gz").read_bytes())
    licence = folder.joinpath("LICENSE.md").read_text(encoding="utf-8")
    assert f"| `{name}` | {len(content):,} | `{hashlib.sha256(content).hexdigest()}` |" in licence
    assert "CC BY 3.0" in licence


# Counted in the official files by the label lines alone (`cut -d'(' -f1 | sort | uniq -c` on every second line of a
# block), both directions together; the totals, 8,000 and 2,717, are those of Hendrickx et al. 2010.
OFFICIAL_COUNTS = {
    "train": {
        "Other": 1410, "Cause-Effect": 1003, "Component-Whole": 941, "Entity-Destination": 845, "Product-Producer": 717,
        "Entity-Origin": 716, "Member-Collection": 690, "Message-Topic": 634, "Content-Container": 540,
        "Instrument-Agency": 504,
    },
    "test": {
        "Other": 454, "Cause-Effect": 328, "Component-Whole": 312, "Entity-Destination": 292, "Product-Producer": 231,
        "Entity-Origin": 258, "Member-Collection": 233, "Message-Topic": 261, "Content-Container": 192,
        "Instrument-Agency": 156,
    },
}  # fmt: skip


@pytest.mark.parametrize(("split", "ids"), [("train", range(1, 8001)), ("test", range(8001, 10718))])
def test_official_counts(split: str, ids: range) -> None:
    instances = load_semeval(split)
    assert [int(instance.id) for instance in instances] == list(ids)
    counts = Counter((instance.relation or "").split("(")[0] for instance in instances)
    assert counts == OFFICIAL_COUNTS[split]
    assert {instance.relation for instance in instances} <= set(SEMEVAL_LABELS)
    for instance in instances:
        assert "<e" not in instance.text
        assert instance.head.end <= instance.tail.start


def test_an_unknown_split_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown split 'tset'.*did you mean 'test'"):
        load_semeval("tset")


def test_phrases_cover_the_labels_and_differ_at_their_first_word() -> None:
    phrases = semeval_verbalisation().phrases
    assert tuple(phrases) == SEMEVAL_LABELS
    words = [phrase.split() for phrase in phrases.values()]
    assert len({phrase[0] for phrase in words}) == len(SEMEVAL_LABELS)
    assert all(2 <= len(phrase) <= 4 for phrase in words)
