import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sensia_trainer.vocabulary.tokenizer import _with_marks, bytes_per_token, continuable_state, continue_tokenizer


UNSEEN = ["Rumah kecil di tepi sungai, dan 3 anjing!", "我们 é\n\tx  🙂", "<|end|> a <s> b"]


def cuts(tokenizer, texts):
    return tokenizer(list(texts), add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("kind", ["byte_level", "metaspace"])
@pytest.mark.parametrize("language", ["bitext", "chinese_bitext"])
def test_source_text_is_cut_as_before_and_every_text_survives(kind, language, request, tmp_path):
    old, (source, target) = request.getfixturevalue(kind), request.getfixturevalue(language)
    new, report = continue_tokenizer(old, source, target, 24)
    assert cuts(new, source) == cuts(old, source)
    assert report["source_change"] == 0
    for text in [*source, *target, *UNSEEN]:
        assert new.decode(new(text)["input_ids"]) == old.decode(old(text)["input_ids"])

    assert len(new) == len(old) + report["new_tokens"]
    assert old.get_vocab().items() <= new.get_vocab().items()
    assert report["new_tokens"] == report["characters"] + report["whole_words"] + report["merged"] > 0
    used = {token for ids in cuts(new, target) for token in ids}
    assert max(used) < len(new)
    assert len(used - set(old.get_vocab().values())) > 2
    sizes = report["target_bytes_per_token"]
    assert sizes["after"] > 1.2 * sizes["before"]
    num_bytes = sum(len(text.encode()) for text in target)
    assert sizes["after"] == pytest.approx(num_bytes / sum(map(len, cuts(new, target))))

    new.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert cuts(loaded, [*target, *UNSEEN]) == cuts(new, [*target, *UNSEEN])
    for name in ("special_tokens_map", "model_max_length", "padding_side"):
        assert getattr(loaded, name) == getattr(old, name)


def test_most_new_tokens_of_a_language_with_spaces_are_whole_words(byte_level, bitext):
    source, target = [*bitext[0], "the dog dances"], bitext[1]
    new, report = continue_tokenizer(byte_level, source, target, 16)
    assert report["whole_words"] == 12
    # No merge may make "dan", because English "dances" holds its parts side by side; as a word it is one token.
    assert new.tokenize(" dan") == ["Ġdan"]
    assert cuts(new, [" dances"]) == cuts(byte_level, [" dances"])


def test_a_language_without_spaces_gets_merges(byte_level, chinese_bitext):
    new, report = continue_tokenizer(byte_level, *chinese_bitext, 16)
    assert report["whole_words"] == 0
    assert len(new.tokenize("文件数据文件")) <= 4 < len(byte_level.tokenize("文件数据文件"))


def test_characters_are_added_where_they_are_spelled_by_bytes(metaspace, chinese_bitext):
    new, report = continue_tokenizer(metaspace, *chinese_bitext, 24)
    assert report["characters"] == 9
    assert not any(token.startswith("<0x") for token in new.tokenize("我们使用文件"))


def test_a_share_of_changed_source_texts_lets_tokens_in(byte_level, bitext):
    source, target = [*bitext[0], *["melihat rumah"] * 3], bitext[1]
    strict, _ = continue_tokenizer(byte_level, source, target, 16)
    loose, report = continue_tokenizer(byte_level, source, target, 16, max_source_change=0.05)
    assert "Ġrumah" not in strict.get_vocab()
    assert "Ġrumah" in loose.get_vocab()
    changed = [old != new for old, new in zip(cuts(byte_level, source), cuts(loose, source), strict=True)]
    assert report["source_change"] == sum(changed) / len(source)
    assert 0 < report["source_change"] <= 0.05


def test_words_of_the_source_are_no_tokens_where_words_are_looked_up(byte_level):
    # Cut by themselves as x·y·z, which no merge may join; but a merge in a longer word would make the same token.
    new, _ = continue_tokenizer(byte_level, ["a qxz"] * 5, ["a qxzqxz wvk"] * 50, 30)
    assert cuts(new, ["a qxz"]) == cuts(byte_level, ["a qxz"])
    again, _ = continue_tokenizer(new, ["a qxz kkw"] * 5, ["kkwkkw kkw"] * 50, 30)
    assert cuts(again, ["a qxz kkw"]) == cuts(byte_level, ["a qxz kkw"])


HINDI = ["किताब मेज पर है।", "वह किताब पढ़ता है।", "मेरी किताब कहाँ है?"] * 4


def test_vowel_signs_and_tones_stay_with_their_letters(byte_level, bitext, tmp_path):
    source, _ = bitext
    for target, word in ((HINDI, " किताब"), (["Mo fẹ́ ẹ̀kọ́.", "Ó kọ́ ẹ̀kọ́."] * 4, " ẹ̀kọ́")):
        new, report = continue_tokenizer(byte_level, source, target, 12)
        assert report["source_change"] == 0 and cuts(new, source) == cuts(byte_level, source)
        assert len(cuts(new, [word])[0]) == 1
        new.save_pretrained(tmp_path)
        again = AutoTokenizer.from_pretrained(tmp_path)
        assert cuts(again, target) == cuts(new, target) and again.decode(cuts(again, target)[0]) == target[0]


def test_a_tokenizer_that_keeps_marks_already_is_not_complained_of(byte_level, bitext, caplog):
    state = _with_marks(continuable_state(byte_level))
    keeps_marks = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), padding_side="left")
    new, _ = continue_tokenizer(keeps_marks, bitext[0], HINDI, 12)
    assert "writes vowels or tones" not in caplog.text and len(cuts(new, [" किताब"])[0]) == 1
    assert new.padding_side == "left"


def test_the_side_of_padding_stays(byte_level, bitext):
    class Gemma(PreTrainedTokenizerFast):
        padding_side = "left"

    with_side = Gemma(tokenizer_object=byte_level.backend_tokenizer)
    assert continue_tokenizer(with_side, *bitext, 12)[0].padding_side == "left"


def test_a_language_without_marks_keeps_the_pre_tokenizer(byte_level, bitext):
    new, _ = continue_tokenizer(byte_level, *bitext, 12)
    kept = [json.loads(one.backend_tokenizer.to_str())["pre_tokenizer"] for one in (new, byte_level)]
    assert kept[0] == kept[1]


def test_words_of_other_byte_level_tokenizers_keep_their_marks():
    pattern = r"(?i:'s)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+"
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    digits, level = {"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "use_regex": False}
    steps = _with_marks({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]}})["pre_tokenizer"]
    assert r"[\p{L}\p{M}]+" in steps["pretokenizers"][0]["pattern"]["Regex"] and steps["pretokenizers"][1] == level
    steps = _with_marks(
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, level | {"use_regex": True}]}}
    )
    kinds = [step["type"] for step in steps["pre_tokenizer"]["pretokenizers"]]
    assert kinds == ["Digits", "Split", "ByteLevel"]
    unknown = {"pre_tokenizer": {"type": "Whitespace"}}
    assert _with_marks(unknown) == unknown


def test_the_same_text_gives_the_same_tokenizer(byte_level, bitext):
    first, second = (continue_tokenizer(byte_level, *bitext, 40)[0].backend_tokenizer.to_str() for _ in range(2))
    assert first == second


def test_a_size_that_the_text_cannot_feed_gives_fewer_tokens(byte_level, bitext):
    new, report = continue_tokenizer(byte_level, *bitext, 10_000)
    assert report["new_tokens"] < 500
    assert len(new) == len(byte_level) + report["new_tokens"]


def test_bytes_per_token_counts_bytes():
    backend = Tokenizer(models.WordLevel({"a": 0, "é": 1}, unk_token="a"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    assert bytes_per_token(backend, ["a é a", "é"]) == 8 / 4


def with_model(tokenizer, **changes):
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"] |= changes
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)))


def of_model(model):
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "`size` must be at least 1"),
        ({"size": 2**21}, "tokens are all that can be had"),
        ({"max_source_change": 1.5}, "`max_source_change` must lie between 0 and 1"),
        ({"target_texts": ["", " "]}, "`target_texts` holds no text"),
        ({"source_texts": []}, "`source_texts` holds no text"),
        ({"target_texts": ["ab"]}, "yields no new token"),
        ({"tokenizer": object()}, "has no `tokenizer.json`"),
        ({"tokenizer": of_model(models.Unigram([("a", -1.0)], 0))}, "is a Unigram model"),
        ({"tokenizer": of_model(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))}, "is a WordPiece model"),
        ({"tokenizer": of_model(models.BPE({"a": 0}, [], end_of_word_suffix="</w>"))}, "marks for the inside"),
        ({"tokenizer": of_model(models.BPE({"a": 0}, []))}, "BPE of characters without bytes"),
    ],
)
def test_what_cannot_be_continued_is_refused(byte_level, bitext, settings, message):
    arguments = {"tokenizer": byte_level, "source_texts": bitext[0], "target_texts": bitext[1], "size": 8} | settings
    with pytest.raises(ValueError, match=message):
        continue_tokenizer(**arguments)


def test_real_tokenizers_keep_english(sensia_data):
    """The micro model's own tokenizer, a class of one model that would lose the looking up of words."""
    old = AutoTokenizer.from_pretrained("model_cards/backpack-micro-en", trust_remote_code=False)
    english, indonesian = (
        (sensia_data / "eval" / "flores200" / "dev" / f"{code}.dev").read_text(encoding="utf-8").splitlines()
        for code in ("eng_Latn", "ind_Latn")
    )
    new, report = continue_tokenizer(old, english, indonesian, 500)
    assert cuts(new, english) == cuts(old, english)
    assert report["target_bytes_per_token"]["after"] > 1.3 * report["target_bytes_per_token"]["before"]
