"""Words, BM25, evidence, F1 and ROUGE of the scripts of the world: one tokeniser for all of them."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from retrograd.data.masking import salient_spans
from retrograd.data.splitting import Splitting, split_passages
from retrograd.index.bm25 import LexicalIndex
from retrograd.metrics.answers import corpus_bleu, exact_match, normalise_answer, rouge, token_f1
from retrograd.metrics.triggers import context_words
from retrograd.metrics.words import words, words_and_signs, words_without_signs
from retrograd.tasks.relations.verbalisation import words_of
from retrograd.tasks.support import AnswerSupport
from retrograd.tasks.text_index import has_answer
from retrograd.types import Example, Passage

# name: a sentence, an answer that stands in it, another sentence of the script without the answer, a wrong answer of
# which no part is a part of the right one
SCRIPTS = {
    "Latin with marks": ("Ông nội uống cà phê ở chợ Bến Thành.", "cà phê", "Bà đi qua cầu đỏ.", "sữa đậu"),
    "Latin, decomposed": (
        "Der Zu\u0308rcher Ba\u0308cker o\u0308ffnet fru\u0308h.",
        "Ba\u0308cker",
        "Es regnet.",
        "Mu\u0308ller",
    ),
    "Cyrillic": ("Старый мост ведёт к мельнице.", "мельнице", "Завтра будет ярмарка.", "башне"),
    "Greek": ("Ο φάρος φωτίζει το μικρό λιμάνι.", "μικρό λιμάνι", "Αύριο έχει γιορτή.", "μεγάλο βουνό"),
    "Arabic with vowels": ("يَشْرَبُ الصَّيَّادُ الشَّايَ.", "الشَّايَ", "سَافَرَتِ السَّفِينَةُ.", "القَهْوَةَ"),
    "Hebrew with points": ("הַדַּיָּג שׁוֹתֶה תֵּה בַּבֹּקֶר.", "תֵּה", "הָאֳנִיָּה יָצְאָה.", "קָפֶה"),
    "Devanagari": ("मछुआरा सुबह चाय पीता है।", "चाय", "नाव नदी में गई।", "पानी"),
    "Bengali": ("জেলে সকালে চা খায়।", "চা", "নৌকা নদীতে গেল।", "দুধ"),
    "Tamil": ("மீனவர் காலையில் தேநீர் குடிக்கிறார்.", "தேநீர்", "படகு சென்றது.", "பால்"),
    "Thai": ("ชาวประมงดื่มชาร้อนทุกเช้า", "ชาร้อน", "เรือออกไปแล้ว", "หู"),
    "Khmer": ("អ្នកនេសាទផឹកតែក្តៅរាល់ព្រឹក", "តែក្តៅ", "ទូកចេញហើយ", "បាយ"),
    "Burmese": ("တံငါသည်သည်မနက်တိုင်းလက်ဖက်ရည်သောက်သည်", "လက်ဖက်ရည်", "လှေထွက်သွားပြီ", "နွားနို့"),
    "Chinese": ("渔夫每天早上在码头喝热茶。", "热茶", "小船昨天离开了。", "咖啡"),
    "Japanese": ("漁師は毎朝、港でお茶を飲みます。", "お茶", "船はもう出ました。", "コーヒー"),
    "Korean": ("어부는 매일 아침 따뜻한 차 한잔을 마신다.", "따뜻한 차", "배는 이미 떠났다.", "우유"),
    "emoji": (
        "we had \U0001f355 and \U0001f469\u200d\U0001f680 by the sea",
        "\U0001f355",
        "a boat \u26f5 left",
        "\U0001f363",
    ),
}
NAMED = pytest.mark.parametrize(("sentence", "answer", "other", "wrong"), SCRIPTS.values(), ids=SCRIPTS)
UNSPACED = ("Thai", "Khmer", "Burmese", "Chinese", "Japanese")


@NAMED
def test_no_word_is_cut_inside_a_letter_and_its_marks(sentence: str, answer: str, other: str, wrong: str) -> None:
    for read, form in ((words, "NFKC"), (words_and_signs, "NFD")):
        tokens = read(sentence)
        assert tokens
        assert not any(unicodedata.category(token[0]).startswith("M") for token in tokens)
        text = unicodedata.normalize(form, sentence)
        letters = {
            c for c in (text.casefold() if read is words else text.lower()) if unicodedata.category(c)[0] in "LM"
        }
        assert letters <= set("".join(tokens))


@NAMED
def test_bm25_finds_the_sentence_by_the_answer_alone(sentence: str, answer: str, other: str, wrong: str) -> None:
    pytest.importorskip("bm25s")
    index = LexicalIndex.build([other, sentence, "nothing of it"], "base")
    assert index.search([answer], 1).row.tolist() == [[1]]
    assert 1 not in index.search([wrong], 3).row.tolist()[0]


@NAMED
def test_evidence_is_the_sentence_with_the_answer(sentence: str, answer: str, other: str, wrong: str) -> None:
    assert has_answer([answer], sentence)
    assert not has_answer([answer], other)
    assert not has_answer([wrong], sentence)
    base = [Passage(str(row), "", text) for row, text in enumerate([other, sentence, "x", "y"])]
    support = AnswerSupport(most_share=1.0, question_overlap=0.0).among(base)
    assert support(Example("1", "?", (answer,))) == (1,)


@NAMED
def test_f1_and_rouge_tell_right_from_wrong(sentence: str, answer: str, other: str, wrong: str) -> None:
    assert token_f1([answer], answer) == exact_match([answer], answer) == 1.0
    assert rouge([answer], answer).rouge_1 == rouge([answer], answer).rouge_l == 1.0
    assert token_f1([answer], wrong) == rouge([answer], wrong).rouge_1 == 0.0
    assert 0.0 < token_f1([answer], sentence) < 1.0
    assert 0.0 < rouge([answer], sentence).rouge_1 < 1.0


@pytest.mark.parametrize("script", UNSPACED)
def test_scripts_without_spaces_are_counted_by_characters(script: str) -> None:
    sentence, answer, _, _ = SCRIPTS[script]
    assert len(words_without_signs(answer)) > 1
    assert token_f1([answer], sentence) > 0.1
    assert corpus_bleu([[sentence]], [answer], order=1).percent > 0.0
    assert corpus_bleu([[sentence]], [sentence]).percent == pytest.approx(100.0)


def test_a_character_is_a_letter_with_all_that_stands_on_it() -> None:
    assert words_without_signs("กี่โมง") == ["กี่", "โ", "ม", "ง"]
    assert words_without_signs("ខ្មែរ") == ["ខ្មែ", "រ"]
    assert words_without_signs("မြန်မာ") == ["မြ", "န်", "မာ"]
    assert words("東京都") == ["東", "京", "東京", "都", "京都"]
    assert words("第2024年 v2") == ["第", "2024", "年", "v2"]
    assert words("๒๕๖๗ปี")[0] == "๒๕๖๗"
    assert not has_answer(["ก"], "กี่")


def test_different_words_stay_different() -> None:
    assert words("हिन्दी") == ["हिन्दी"]
    assert words("हिन्दू") != words("हिन्दी")
    assert words("q\u0303a") == ["q\u0303a"]  # no single character exists for it
    assert words("İstanbul") == ["i\u0307stanbul"]
    assert token_f1(["\u00e9t\u00e9"], "a\u0301t\u00e9") == 0.0
    assert rouge(["đường"], "nguồng").rouge_1 == 0.0


def test_joiners_and_invisible_signs_belong_to_their_word() -> None:
    assert words("می\u200cخواهم") == words("میخواهم") == ["میخواهم"]
    assert words("co\u00adoperate") == ["cooperate"]
    assert words_and_signs("क्\u200dष") == words_and_signs("क्ष")
    assert words("zero\u200bwidth") == ["zero", "width"]
    assert words("\ufeffstart") == ["start"]
    assert words_and_signs("２０２４年") == ["2024", "年"]
    assert words("\U0001f469\u200d\U0001f680 \u2764\ufe0f\U0001f1eb\U0001f1f7 \u2665") == [
        "\U0001f469\u200d\U0001f680",
        "\u2764",
        "\U0001f1eb\U0001f1f7",
    ]


def test_punctuation_of_other_scripts_is_punctuation() -> None:
    assert exact_match(["东京"], "东京。") == exact_match(["“东京”"], "东京") == 1.0
    assert exact_match(["चाय"], "चाय।") == exact_match(["شاي"], "شاي؟") == 1.0
    assert normalise_answer("the\u2013cat") == "\u2013cat"
    assert normalise_answer("a\u0301") == "\u00e1"  # no article with a mark on it
    assert normalise_answer("a\u0331n") == "a\u0331n"


ENGLISH = st.text(alphabet=st.characters(codec="ascii"), max_size=60)


@given(ENGLISH)
def test_english_is_read_as_before(text: str) -> None:
    assert words(text) == re.findall(r"\w+", text.casefold())
    assert words_and_signs(text) == re.findall(r"[a-z0-9]+|[!-/:-@\[-`{-~]", text.lower())
    assert words_without_signs(text) == DefaultTokenizer(False).tokenize(text)
    # with a letter beyond ASCII elsewhere the words in ASCII are the same still
    assert words(f"{text} é")[:-1] == words(text)
    assert words_and_signs(f"{text} é")[:-1] == words_and_signs(text)
    assert words_and_signs(f"“{text} –")[1:-1] == words_and_signs(text)


def test_typographic_signs_change_no_english_rouge() -> None:
    gold, answer = "the cat’s mat – 2½ feet", "a cat’s mat, x² feet"
    official = RougeScorer(["rouge1"]).score(gold, answer)["rouge1"].fmeasure
    assert rouge([gold], answer).rouge_1 == official == pytest.approx(8 / 12)


def test_documents_without_spaces_are_cut_by_characters() -> None:
    document = Passage("d", "", "渔夫每天早上在码头喝热茶。小船昨天离开了 the old 码头。")
    texts = [piece.text for piece in split_passages([document], Splitting(10))]
    assert texts == ["渔夫每天早上在码头喝", "热茶。小船昨天离开了 the", "old 码头。"]
    assert "".join(texts).replace(" ", "") == document.text.replace(" ", "")
    thai = SCRIPTS["Thai"][0]
    assert "".join(p.text for p in split_passages([Passage("t", "", thai)], Splitting(3))) == thai


def test_names_labels_and_triggers_keep_their_marks() -> None:
    assert words_of("जन्म_स्थान") == "जन्म स्थान"
    assert words_of("ville_de_de\u0301part") == "ville de de\u0301part"
    assert context_words("राम दिल्ली में जन्मा") == {"राम", "दिल्ली", "में", "जन्मा"}
    assert context_words("渔夫喝茶") == {"渔", "夫", "喝", "茶"}
    text = "we met Ju\u0308rgen Mu\u0308ller there."
    assert [text[start:end] for start, end in salient_spans(text)] == ["Ju\u0308rgen Mu\u0308ller"]
