"""Scores of free-text answers: exact match, token F1, ROUGE and BLEU.

Per-example scores are shares in [0, 1]; corpus scores are in percent. Wherever an example has several gold answers, the
best one counts. Gold answers come first, the system's answer second, as in the relation scores.

Sources: exact match, token F1 and the normalisation are those of SQuAD (Rajpurkar et al. 2016, 2018); ROUGE is Lin 2004
as computed by the `rouge-score` package; BLEU is Papineni et al. 2002 as computed by sacreBLEU (Post 2018). A BLEU is
only comparable with another of the same signature, so `CorpusBleu` carries its own.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrograd.metrics.words import MARKS, is_unspaced, space_characters, words_without_signs
from retrograd.types import UserError

if TYPE_CHECKING:  # nltk, which rouge_score needs, takes seconds to import: only who scores waits for it
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.bleu import BLEU

__all__ = [
    "CorpusBleu",
    "Rouge",
    "corpus_bleu",
    "corpus_exact_match",
    "corpus_rouge",
    "corpus_token_f1",
    "exact_match",
    "normalise_answer",
    "rouge",
    "sentence_bleu",
    "token_f1",
]

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(rf"\b(?:a|an|the)\b(?![{MARKS}])")
_SHARED_PUNCTUATION = re.compile(r"[\u00a1-\u00bf\u2000-\u206f]")
"""Marks of punctuation, such as a long dash, that English texts have too, where SQuAD's rules keep them."""
_ROUGE_TYPES = ["rouge1", "rouge2", "rougeL"]


def normalise_answer(text: str) -> str:
    """Return an answer in lower case, without ASCII punctuation, English articles and repeated spaces, as SQuAD
    does.

    Beyond ASCII, equal texts are made equal (NFC) and the punctuation of other scripts is left out, too; that which
    English has as well (“ ” – …) only beside characters of a script without spaces.
    """
    if not text.isascii():
        text = _remove_punctuation(unicodedata.normalize("NFC", text))
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())


def _remove_punctuation(text: str) -> str:
    """Return a text without punctuation beyond ASCII, as `normalise_answer` says."""
    keeps_shared = not is_unspaced(text)
    return "".join(
        sign
        for sign in text
        if sign.isascii()
        or unicodedata.category(sign)[0] != "P"
        or (keeps_shared and _SHARED_PUNCTUATION.match(sign) is not None)
    )


def _answer_tokens(text: str) -> list[str]:
    """Return the tokens of a normalised answer: what stands between spaces, and the characters of scripts without."""
    return space_characters(normalise_answer(text)).split()


def exact_match(golds: Sequence[str], answer: str) -> float:
    """Return 1.0 if the normalised answer equals any normalised gold answer, else 0.0.

    Raises `UserError` without a gold.
    """
    _require_golds(golds)
    normalised = normalise_answer(answer)
    return float(any(normalised == normalise_answer(gold) for gold in golds))


def token_f1(golds: Sequence[str], answer: str) -> float:
    """Return the F1 of the two bags of normalised tokens, best over the golds, in [0, 1].

    Raises `UserError` without a gold.

    Where either side has no token left, both must be empty to score 1 (the SQuAD 2.0 rule).
    """
    _require_golds(golds)
    tokens = _answer_tokens(answer)
    return max(_bag_f1(_answer_tokens(gold), tokens) for gold in golds)


def _bag_f1(gold: list[str], answer: list[str]) -> float:
    if not gold or not answer:
        return float(gold == answer)
    shared = (Counter(gold) & Counter(answer)).total()
    return 2 * shared / (len(gold) + len(answer))  # = 2PR / (P + R) with P = shared/|answer|, R = shared/|gold|


def corpus_exact_match(golds: Sequence[Sequence[str]], answers: Sequence[str]) -> float:
    """Return the mean exact match in percent; one list of golds per answer.

    Raises `UserError` for unequal or no lengths.
    """
    return _mean_percent(exact_match, golds, answers)


def corpus_token_f1(golds: Sequence[Sequence[str]], answers: Sequence[str]) -> float:
    """Return the mean token F1 in percent; one list of golds per answer.

    Raises `UserError` for unequal or no lengths.
    """
    return _mean_percent(token_f1, golds, answers)


def _mean_percent(
    score: Callable[[Sequence[str], str], float], golds: Sequence[Sequence[str]], answers: Sequence[str]
) -> float:
    _require_aligned(golds, answers)
    return 100.0 * sum(score(gold, answer) for gold, answer in zip(golds, answers, strict=True)) / len(answers)


@dataclass(frozen=True, slots=True)
class Rouge:
    """F-measures of unigrams, bigrams and longest common subsequence: shares for an example, percent for a corpus."""

    rouge_1: float
    rouge_2: float
    rouge_l: float


def rouge(golds: Sequence[str], answer: str, stemmer: bool = False) -> Rouge:
    """Return ROUGE-1, ROUGE-2 and sentence-level ROUGE-L in [0, 1], each the best over the golds.

    ``stemmer`` compares Porter stems of English words. The package's tokeniser keeps ASCII letters and digits only; a
    text with words beyond them is split by `words_without_signs`. Raises `UserError` without a gold.
    """
    return _rouge(_rouge_scorer(stemmer), golds, answer)


class _EveryScript:
    """The tokeniser of ``rouge-score``, but for texts with words beyond ASCII, of which it would keep nothing."""

    def __init__(self, stemmer: bool) -> None:
        from rouge_score.tokenizers import DefaultTokenizer

        self._read_ascii = DefaultTokenizer(stemmer).tokenize

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of a text."""
        words = [] if text.isascii() else words_without_signs(text)
        if not any(_is_beyond_ascii(word) for word in words):
            return self._read_ascii(text)
        return [token for word in words for token in (self._read_ascii(word) if word.isascii() else [word])]


def _is_beyond_ascii(word: str) -> bool:
    """Return whether a word has letters, marks or digits beyond ASCII; ² and ½ are none."""
    return any(not sign.isascii() and (sign.isalpha() or sign.isdecimal() or not sign.isnumeric()) for sign in word)


def _rouge_scorer(stemmer: bool) -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(_ROUGE_TYPES, tokenizer=_EveryScript(stemmer))


def _rouge(scorer: RougeScorer, golds: Sequence[str], answer: str) -> Rouge:
    _require_golds(golds)
    best = scorer.score_multi(list(golds), answer)
    return Rouge(*(float(best[kind].fmeasure) for kind in _ROUGE_TYPES))


def corpus_rouge(golds: Sequence[Sequence[str]], answers: Sequence[str], stemmer: bool = False) -> Rouge:
    """Return the mean ROUGE in percent; one list of golds per answer. Raises `UserError` for unequal or no lengths."""
    _require_aligned(golds, answers)
    scorer = _rouge_scorer(stemmer)
    scores = [_rouge(scorer, gold, answer) for gold, answer in zip(golds, answers, strict=True)]
    return Rouge(
        rouge_1=100.0 * sum(score.rouge_1 for score in scores) / len(scores),
        rouge_2=100.0 * sum(score.rouge_2 for score in scores) / len(scores),
        rouge_l=100.0 * sum(score.rouge_l for score in scores) / len(scores),
    )


@dataclass(frozen=True, slots=True)
class CorpusBleu:
    """BLEU of a corpus in percent, its longest n-gram in tokens, and sacreBLEU's signature, to be quoted with it."""

    percent: float
    order: int
    signature: str

    def __str__(self) -> str:
        return f"BLEU-{self.order} {self.percent:.2f} ({self.signature})"


def corpus_bleu(
    golds: Sequence[Sequence[str]], answers: Sequence[str], order: int = 4, lowercase: bool = False
) -> CorpusBleu:
    """Return the BLEU over n-grams of 1 … ``order`` tokens, n-gram counts summed over the corpus (not a mean of
    sentences).

    ``order=1`` is BLEU-1 and ``order=4`` BLEU-4, both with the brevity penalty. Examples may differ in their number of
    golds. A corpus in which no answer has ``order`` tokens scores 0: prefer BLEU-1 for short answers. In scripts
    without spaces the tokens are characters, and the signature says so. Raises `UserError` for unequal or no lengths,
    or an order below 1.
    """
    _require_aligned(golds, answers)
    for gold in golds:
        _require_golds(gold)
    bleu = _bleu(order, lowercase, effective_order=False)
    references = max(len(gold) for gold in golds)
    # sacreBLEU wants one stream per gold position; None marks an example that has fewer golds than the richest, which
    # its code and its signature (nrefs:var) provide for, though its annotation does not.
    streams = [[space_characters(gold[i]) if i < len(gold) else None for gold in golds] for i in range(references)]
    result = bleu.corpus_score(list(map(space_characters, answers)), streams)  # pyright: ignore[reportArgumentType]
    signature = str(bleu.get_signature())
    if any(is_unspaced(gold) for gold_answers in golds for gold in gold_answers):
        signature += "|unspaced:characters"
    return CorpusBleu(percent=float(result.score), order=order, signature=signature)


def sentence_bleu(golds: Sequence[str], answer: str, order: int = 4, lowercase: bool = False) -> float:
    """Return the BLEU of one answer in [0, 1]; n-grams longer than the answer are left out of the geometric mean.

    For looking at single answers: its mean is not the corpus BLEU. Raises `UserError` without a gold, or for an order
    below 1.
    """
    _require_golds(golds)
    result = _bleu(order, lowercase, effective_order=True).sentence_score(
        space_characters(answer), list(map(space_characters, golds))
    )
    return float(result.score) / 100.0


def _bleu(order: int, lowercase: bool, effective_order: bool) -> BLEU:
    if order < 1:
        raise UserError(f"BLEU order is {order}; expected the longest n-gram to count, 1 or more (4 is usual)")
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(max_ngram_order=order, lowercase=lowercase, effective_order=effective_order)


def _require_golds(golds: Sequence[str]) -> None:
    if isinstance(golds, str):
        # A string is a sequence of one-letter strings: scoring against letters would go unnoticed.
        raise UserError(f"gold answers are the single string {golds[:40]!r}; expected a list, such as [{golds[:40]!r}]")
    if not golds:
        raise UserError("an example has no gold answer; scoring needs at least one, so leave such examples out")


def _require_aligned(golds: Sequence[Sequence[str]], answers: Sequence[str]) -> None:
    if len(golds) != len(answers):
        raise UserError(
            f"{len(golds)} lists of gold answers but {len(answers)} answers; expected one answer per example, in order"
        )
    if not answers:
        raise UserError("no answers to score; expected at least one example")
