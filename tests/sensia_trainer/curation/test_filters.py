import math
import sys
import unicodedata

import numpy as np
import pytest

from sensia_trainer.bitext import langid
from sensia_trainer.bitext.langid import Identifier, is_elsewhere
from sensia_trainer.bitext.near import near_form, near_keys, text_keys
from sensia_trainer.curation.filters import (
    FilterContext,
    FilterRules,
    apply_filters,
    keep_characters,
    keep_different,
    keep_languages,
    keep_length,
    keep_length_ratio,
    keep_not_empty,
    keep_same_digits,
    keep_same_urls,
    keep_uncontaminated,
    length_ratio_bounds,
    normalise,
    pair_keys,
)
from tests.reference import bitext as reference


def context(source="en", target="id", evaluation=(), **rules):
    return FilterContext(source, target, FilterRules(**rules), np.sort(near_keys(list(evaluation))))


@pytest.mark.parametrize(
    "text, code, expected",
    [
        ("“Don’t”,\u00a0she\u200b said…", "en", '"Don\'t", she said...'),
        ("«Tere»  „õhtust“\t", "et", '"Tere" "õhtust"'),
        (unicodedata.normalize("NFD", "põhjaosas"), "et", "põhjaosas"),
        ("ＡＢＣ１，ok。", "id", "ABC1,ok."),
        ("这是ＡＢＣ１２, 好吗?", "zh", "这是ABC12，好吗？"),
        ("版本 3.5 是 v1.2", "zh", "版本 3.5 是 v1.2"),
        ("“你好”", "zh", "“你好”"),
        ("so\u00adft\u200e", "en", "soft"),
        ("می\u200cخواهم", "fa", "می\u200cخواهم"),
    ],
)
def test_normalise(text, code, expected):
    assert normalise(text, code) == expected
    assert normalise(expected, code) == expected


def test_length_is_in_words_or_in_characters_without_spaces():
    keep = keep_length(
        ["a b c", "a b", "a b c"], ["x y z", "x y z", "x"], context(source_length=(3, 3), target_length=(2, 3))
    )
    assert keep.tolist() == [True, False, False]
    assert keep_length(
        ["a"], ["你 好吗"], context(target="zh", source_length=(1, 1), target_length=(3, 3))
    ).tolist() == [True]


@pytest.mark.parametrize("code", ["th", "lo", "km", "my", "bo", "zh", "ja", "yue", "zh_Hant"])
def test_default_bounds_of_length_are_those_of_the_script(code):
    sources = ["one two three four", "one two three", "w " * 64, "w " * 65, *["one two three four"] * 4]
    sides = ["字" * 100] * 4 + ["字" * n for n in (4, 5, 256, 257)]
    expected = [True, False, True, False, False, True, True, False]
    assert keep_length(sources, sides, context("en", code)).tolist() == expected
    assert keep_length(sides, sources, context(code, "en")).tolist() == expected
    assert keep_length(sources, sources, context("en", "id")).tolist() == [True, False, True, False] + [True] * 4
    given = keep_length(sources[4:], sides[4:], context("en", code, target_length=(5, 5)))
    assert given.tolist() == [False, True, False, False]


def test_length_ratio_excludes_its_bounds():
    sources, targets = ["w " * 6, "w " * 7, "w " * 17, "w " * 16], ["v " * 10] * 4
    assert keep_length_ratio(sources, targets, context()).tolist() == [False, True, False, True]
    in_characters = context(ratio_unit="characters", length_ratio=(0.5, 1.5))
    assert keep_length_ratio(["four", "four", "four"], ["a b c d", "a b c d e", "abc"], in_characters).tolist() == [
        True,
        False,
        True,
    ]
    assert keep_length_ratio(["Good morning"], ["早上好啊"], context(target="zh", length_ratio=(2.9, 3.1))).all()


@pytest.mark.parametrize(
    "source, target, bounds, characters",
    [
        ("en", "et", (0.6, 1.7), (10, 10)),
        ("en", "th", (0.6, 1.7), (10, 9)),
        ("en", "zh", (1.3, 6.0), (28, 10)),
        ("ja", "en", (1 / 6, 1 / 1.3), (10, 25)),
        ("zh", "ja", (0.6, 1.7), (10, 13)),
    ],
)
def test_default_bounds_of_the_ratio_are_those_of_the_scripts(source, target, bounds, characters):
    assert length_ratio_bounds(FilterRules(), source, target) == bounds
    assert length_ratio_bounds(FilterRules(length_ratio=(1, 2)), source, target) == (1, 2)
    assert keep_length_ratio(*(["x" * count] for count in characters), context(source, target)).all()


def test_identical_and_empty_sides():
    assert keep_different(["Menu", "A b"], ["menu ", "A c"], context()).tolist() == [False, True]
    assert keep_not_empty(["a", "...", "7"], ["b", "b", "—"], context()).tolist() == [True, False, False]


def test_digits_may_be_grouped_otherwise_and_in_another_script():
    sources = ["1,000 items", "page 3", "in 1998", "5 km"]
    targets = ["1.000 barang", "halaman 4", "pada 1989", "٥ km"]
    assert keep_same_digits(sources, targets, context()).tolist() == [True, False, True, True]


def test_urls_and_addresses():
    sources = ["see https://a.org/x.", "write to a@b.org", "see www.a.org", "none"]
    targets = ["lihat https://a.org/x", "tulis ke c@b.org", "lihat www.b.org", "tidak"]
    assert keep_same_urls(sources, targets, context()).tolist() == [True, False, False, True]


def test_languages_are_judged_on_sides_long_enough():
    english, indonesian = "The weather is very nice today.", "Cuaca hari ini sangat bagus."
    sources = [english, indonesian, english, "OK", "Web servers"]
    targets = [indonesian, indonesian, english, "OK", "Server web"]
    assert keep_languages(sources, targets, context()).tolist() == [True, False, False, True, True]


def test_a_third_language_is_out_and_a_close_relative_is_not():
    turkish, malay = "Kadın kapıyı açtı ve bahçeye çıktı.", "Wanita itu membuka pintu dan pergi ke taman."
    english, chinese = "The woman opened the door and went out.", "那个女人打开门走进了花园。"
    sources = [english, english, english, turkish, english]
    targets = [turkish, malay, chinese, malay, "Mulher abriu a porta e saiu."]
    assert keep_languages(sources, targets, context()).tolist() == [False, True, False, False, False]


def test_no_pattern_takes_the_square_of_a_length():
    for text in ("a" * 300_000 + "@", "a." * 150_000 + "@", "@" + "a" * 300_000, "www." * 100_000, "a@" * 100_000):
        keep_same_urls([text], [text], context())  # would take minutes


def test_sides_and_words_have_a_limit_in_characters():
    sources, targets = ["a b", "x" * 101, "a b", "a " * 1001], ["c d", "y", "y " * 50 + "z" * 101, "b"]
    assert keep_characters(sources, targets, context()).tolist() == [True, False, False, False]
    chinese = FilterContext("en", "zh", FilterRules(), np.zeros(0, np.uint64))
    assert keep_characters(["word"] * 2, ["字" * 101, "字" * 2001], chinese).tolist() == [True, False]


@pytest.mark.parametrize("pair", [("sw", "en"), ("en", "sr")])  # Serbian has two scripts
def test_the_identifier_agrees_with_py3langid(pair):
    plain = langid._model()
    texts = ["", "A", "Hello there, my friend", "HABARI ZA ASUBUHI", "1234", "Nairobi ni mji mkuu wa Kenya. " * 5]
    texts += ["Dobar dan, kako ste?", "Добар дан, како сте?"]
    try:
        plain.set_languages(list(pair))
        expected = [dict(plain.rank(text))[pair[1]] for text in texts]
    finally:
        plain.set_languages(None)
    np.testing.assert_allclose(Identifier(pair).probabilities(texts)[:, 1], expected, atol=1e-5)
    every = Identifier()
    expected = [[dict(plain.rank(text))[code] for code in every.codes] for text in texts[2:]]
    np.testing.assert_allclose(every.probabilities(texts[2:]), expected, atol=1e-3)
    in_first = Identifier(pair).probabilities(texts)[:, 0] >= 0.9
    assert (is_elsewhere(texts, *pair[::-1], 0.9) >= in_first).all() and in_first.any()


def test_an_unknown_language_or_a_missing_package_says_the_way_out(monkeypatch):
    with pytest.raises(ValueError, match=r"does not know \['ti'\]; or set filters.language_confidence to null"):
        keep_languages([], [], FilterContext("en", "ti", FilterRules(), np.zeros(0, np.uint64)))
    with pytest.raises(ValueError, match="does not know the scripts of"):
        Identifier(("zh", "zh_Hant"))
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(ValueError, match="pip install py3langid"):
        langid._model.__wrapped__()


def test_contamination_looks_at_both_sides_up_to_case_punctuation_and_numbers():
    evaluation = ["The man turned on the faucet.", "Pria itu membuka keran."]
    sources = [
        "the man turned on the faucet",
        "A new sentence",
        "A new sentence",
        "The man turned on the faucet again.",
        "It was hot. The man turned on the faucet.",
    ]
    targets = ["Apa saja", "Pria itu, membuka keran!", "Apa saja", "Apa saja", "Apa saja"]
    assert keep_uncontaminated(sources, targets, context(evaluation=evaluation)).tolist() == [
        False,
        False,
        True,
        True,
        False,
    ]


TEXTS = ["Hello, World 12!", "ＨＥＬＬＯ world 7", "???", "naïve_Ünïcode", "", "3.5 km/h", "ẞtraße", "日本語。テスト"]
TEXTS += [
    "मैं १२ बजे घर जाता हूँ।",
    "ฉันไปตลาด ๓ ครั้ง",
    "ng´ombe ngʼombe oʻzbek",
    "a\u00adb\tc\u200bd\x01e\x85f ❤\ufe0f",
    "می\u200cخواهم",
]


def test_near_form_is_the_plain_one():
    assert [near_form(text) for text in TEXTS] == [reference.near_form(text) for text in TEXTS]


@pytest.mark.parametrize(
    "one, other",
    [
        ("मैं घर जाता हूँ।", "मैं घर जाती हूँ।"),  # "I go home", said by a man and by a woman
        ("เขามีเสื้อ", "เขามีเสือ"),  # "he has a shirt", "he has a tiger"
        ("שִׂים", "שִׁים"),
    ],
)
def test_near_forms_keep_the_marks_that_tell_sentences_apart(one, other):
    assert near_form(one) != near_form(other)
    assert near_form(one) == near_form(unicodedata.normalize("NFD", f" {one}!"))


@pytest.mark.parametrize(
    "text, code", [("ngʼombe", "sw"), ("ng´ombe", "sw"), ("so\u00adft", "en"), ("a\u200b b", "th")]
)
def test_near_forms_of_raw_and_normalised_texts_are_the_same(text, code):
    assert near_form(text) == near_form(normalise(text, code))
    assert near_form("oʻzbek") == near_form("o‘zbek") == near_form("o'zbek")
    assert near_form("می\u200cخواهم") == near_form("میخواهم") and near_form("❤\ufe0f x") == near_form("❤ x")


def test_keys_tell_sides_apart():
    left, right = text_keys(["a", "b", "a"]), text_keys(["b", "a", "b"])
    keys = pair_keys(left, right)
    assert keys[0] == keys[2] != keys[1]
    many = [str(n) for n in range(2000)]
    assert len(np.unique(pair_keys(text_keys(many), text_keys(many[::-1])))) == 2000


def test_each_filter_counts_what_it_takes_by_corpus():
    sources = ["a b c d", "a b", "Saya suka kopi sekali", "one two three four", "a b c d e"]
    targets = ["w x y z", "w x", "Saya suka kopi sekali", "satu dua tiga empat", "v"]
    kept, counts = apply_filters(
        sources, targets, ["A", "A", "B", "B", "B"], context(target_length=(1, 9), language_confidence=None)
    )
    assert kept.tolist() == [0, 3]
    assert counts == {("A", "length"): 1, ("B", "length_ratio"): 1, ("B", "identical"): 1}


@pytest.mark.parametrize(
    "rules, message",
    [
        ({"source_length": (5, 2)}, r"filters.source_length=\[5, 2\]"),
        ({"length_ratio": (1,)}, "filters.length_ratio"),
        ({"length_ratio": (0, math.inf)}, "filters.length_ratio=.*two finite bounds"),
        ({"ratio_unit": "tokens"}, "'words' or 'characters'"),
        ({"language_confidence": 0.2}, "0.5 to 1"),
        ({"max_targets_per_source": 0}, "at least 1"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rules, message):
    with pytest.raises(ValueError, match=message):
        FilterRules(**rules)
