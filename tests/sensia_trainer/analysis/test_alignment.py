import builtins
import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
from transformers import BertConfig, BertModel, BertTokenizer

from sensia_trainer.analysis import alignment
from sensia_trainer.analysis.alignment import (
    AlignedPair,
    align_words,
    aligned_content_words,
    content_words,
    encoder_fingerprint,
    installed_tagger,
    one_to_one,
)
from sensia_trainer.analysis.words import segment_words
from tests.reference import analysis as reference


WORDS = "the cat sleeps on a chair and dogs run far away".split()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A random encoder of 2 layers: identical sentences still align word by word."""
    folder = tmp_path_factory.mktemp("encoder")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {token: index for index, token in enumerate([*special, *WORDS])}
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizer(vocab=vocabulary, model_max_length=16).save_pretrained(folder)
    return str(folder)


def test_equal_sentences_align_on_the_diagonal(encoder):
    (links,) = align_words([WORDS[:6]], [WORDS[:6]], encoder, layer=2)
    assert links == [(i, i) for i in range(6)]


def test_sentences_without_words_or_too_long_get_no_links(encoder):
    sides = [["cat"], [], WORDS[:3], WORDS * 3]
    links = align_words(sides, [["cat"], ["dogs"], [], WORDS * 3], encoder, layer=1)
    assert links == [[(0, 0)], [], [], []]


def test_links_are_read_from_the_cache_until_an_input_changes(encoder, tmp_path, monkeypatch):
    sides = [[WORDS[:4]], [WORDS[:4]]]
    first = align_words(*sides, encoder, layer=2, cache_dir=tmp_path)
    (cached,) = tmp_path.iterdir()
    assert not {"/", "\\"} & set(json.loads(cached.read_text())["encoder"])
    monkeypatch.setitem(sys.modules, "simalign", None)  # importing it now fails
    assert align_words(*sides, encoder, layer=2, cache_dir=tmp_path) == first
    for changed in ({"layer": 1}, {"layer": 2, "method": "inter"}):
        with pytest.raises(ImportError, match="sensia\\[analysis\\]"):
            align_words(*sides, encoder, cache_dir=tmp_path, **changed)
    with pytest.raises(ImportError):
        align_words([WORDS[:3]], [WORDS[:4]], encoder, layer=2, cache_dir=tmp_path)


def test_the_cache_follows_the_encoder_weights(encoder, tmp_path):
    before = encoder_fingerprint(encoder)
    copy = tmp_path / "encoder"
    BertModel(BertConfig.from_pretrained(encoder)).save_pretrained(copy)
    assert encoder_fingerprint(copy) != before
    assert encoder_fingerprint("some/encoder") == "some/encoder"


def test_bad_arguments_are_refused(encoder):
    with pytest.raises(ValueError, match="method"):
        align_words([], [], encoder, method="fwd")
    with pytest.raises(ValueError, match="same sentences"):
        align_words([["a"]], [], encoder)
    with pytest.raises(ValueError, match="layers"):
        align_words([WORDS[:2]], [WORDS[:2]], encoder, layer=8)


def test_one_to_one_drops_every_shared_word():
    links = [(0, 0), (1, 1), (1, 2), (2, 3), (3, 3), (4, 4)]
    assert one_to_one(links) == [(0, 0), (4, 4)] == reference.one_to_one(links)


def test_stop_words_numbers_and_signs_are_no_content_words():
    pytest.importorskip("stopwordsiso")
    flags, method = content_words([["The", "anak-anak", "government", "1,000", ".", "x", "3rd"], []], "en")
    assert flags == [[False, True, True, False, False, False, False], []]
    assert "stopwordsiso" in method and "'en'" in method


@pytest.mark.parametrize(
    ("code", "word", "listed"),
    [("ind_Latn", "yang", "id"), ("ind", "yang", "id"), ("zh-Hans", "我们", "zh"), ("zh_Hant", "我们", "zh"),
     ("eng_Latn", "The", "en"), ("swh_Latn", "na", "sw"), ("no", "og", "no"), ("nob_Latn", "og", "no")],
)  # fmt: skip
def test_stop_words_are_found_by_any_code_of_the_language(code, word, listed):
    pytest.importorskip("stopwordsiso")
    flags, method = content_words([[word]], code)
    assert flags == [[False]] and f"for '{listed}')" in method


def test_single_characters_count_in_scripts_without_spaces():
    assert content_words([["书", "a"]], "zh")[0] == [[True, False]]
    assert content_words([["น้ํ", "。", "3"]], "xx")[0] == [[True, False, False]]


def test_words_with_marks_are_words():
    assert content_words([["हिन्दी", "İstanbul", "cafe\u0301", "\u0301", "x-y", "'"]], "xx")[0] == [
        [True, True, True, False, True, False]
    ]


def test_languages_without_a_list_keep_all_words_and_say_so():
    flags, method = content_words([["yang", "!"]], "xx")
    assert flags == [[True, False]] and "all words kept" in method


def test_a_tagger_is_used_where_one_is_installed(monkeypatch):
    tags = {"The": "DET", "cat": "NOUN", "sleeps": "VERB", "Jakarta": "PROPN", "old": "ADJ"}

    def load(name):
        assert name == "en_core_web_sm"
        pipeline = lambda words: [SimpleNamespace(pos_=tags[word]) for word in words]  # noqa: E731
        pipeline = type("Pipeline", (), {"vocab": None, "__call__": staticmethod(pipeline)})()
        return pipeline

    spacy = ModuleType("spacy")
    spacy.__spec__ = SimpleNamespace()
    spacy.load = load
    spacy.util = SimpleNamespace(get_installed_models=lambda: ["de_core_news_sm", "en_core_web_sm"])
    spacy.tokens = SimpleNamespace(Doc=lambda vocab, words: words)
    monkeypatch.setitem(sys.modules, "spacy", spacy)
    monkeypatch.setattr(alignment.importlib.util, "find_spec", lambda name: object())
    flags, method = content_words([list(tags), []], "en")
    assert flags == [[False, True, True, False, True], []]
    assert "spaCy en_core_web_sm" in method
    assert installed_tagger("id") is None
    assert {installed_tagger(code)[1] for code in ("eng_Latn", "eng", "en-GB")} == {"spaCy en_core_web_sm"}


def test_pairs_need_frequent_content_words_on_both_sides():
    source = [segment_words(text) for text in ("the Cat sleeps", "a cat runs", "chair")]
    target = [segment_words(text) for text in ("kucing itu tidur", "seekor kucing lari", "kursi")]
    links = [[(0, 1), (1, 0), (2, 2)], [(1, 1), (2, 2), (2, 0)], [(0, 0)]]
    pairs, statistics = aligned_content_words(source, target, links, "en", "id", minimum_count=2)
    assert pairs == [AlignedPair(0, 1, 0), AlignedPair(1, 1, 1)]
    assert statistics["links"] == 7 and statistics["one_to_one"] == 5
    assert statistics["sentences_without_pairs"] == 1 and statistics["pairs"] == 2


def test_no_pair_left_is_an_error_with_the_counts():
    words = [segment_words("cat")]
    with pytest.raises(ValueError, match="No aligned content words.*`minimum_count` \\(now 5\\)"):
        aligned_content_words(words, words, [[(0, 0)]], "en", "id")


def test_missing_simalign_is_named(encoder, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "simalign":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="pip install sensia\\[analysis\\]"):
        align_words([["cat"]], [["cat"]], encoder)
