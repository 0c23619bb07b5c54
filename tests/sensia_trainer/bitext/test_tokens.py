"""Token ids in Arrow columns, against the tokenizer called on one sentence at a time."""

import pytest
from datasets import Dataset, load_from_disk
from tokenizers.processors import TemplateProcessing

from sensia_trainer.bitext.columns import texts
from sensia_trainer.bitext.tokens import encoder, tokenize_bitext
from tests.reference import bitext as reference
from tests.tiny import tiny_bitext, tiny_tokenizer


def test_ids_are_those_of_the_tokenizer():
    pairs = [*tiny_bitext(60)["translation"], {"en": "café  \u200b x", "id": "\U0001f600 laut"}]
    dataset = Dataset.from_dict({"translation": pairs, "corpus": ["toy"] * 61})
    tokenizer = tiny_tokenizer()
    tokenizer(["a b", "c"], padding=True, truncation=True, max_length=2)  # leaves padding and truncation behind
    tokenized = tokenize_bitext(dataset, tokenizer, "en", "id", max_length=12)
    assert list(tokenized) == reference.tokenize(pairs, tokenizer, "en", "id", 12)
    assert 0 < sum(tokenized["truncated"]) < 61
    backwards = tokenize_bitext(dataset, tokenizer, "id", "en", max_length=12)
    assert backwards["source_ids"] == tokenized["target_ids"]


class Words:
    """A tokenizer without a Rust side: a token a word, none for `nothing`."""

    is_fast = False

    def __call__(self, texts, add_special_tokens=True, split_special_tokens=False, verbose=True):
        return {"input_ids": [[len(word) for word in text.split() if word != "nothing"] for text in texts]}


def test_what_a_tokenizer_puts_behind_a_text_is_left_out():
    tokenizer = tiny_tokenizer()
    start = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{start[0]} $A {start[0]}", special_tokens=[start]
    )
    ids = tokenizer("sun")["input_ids"]
    assert ids[0] == ids[-1] == start[1]
    found, lengths = encoder(tokenizer)(["sun"], 9)
    assert found.to_pylist() == [ids[:-1]] and lengths.to_pylist() == [len(ids) - 1]


def test_what_reads_like_a_special_token_is_text():
    tokenizer = tiny_tokenizer()
    text = f"sun {tokenizer.eos_token} moon"
    found, _ = encoder(tokenizer)([text], 99)
    assert tokenizer.eos_token_id not in found.to_pylist()[0][1:]
    assert tokenizer.decode(found.to_pylist()[0], skip_special_tokens=True).strip() == text
    assert tokenizer.eos_token_id in tokenizer(text)["input_ids"][1:]  # as before


def test_a_tokenizer_in_python():
    dataset = Dataset.from_dict({"translation": [{"en": "a bb", "id": "cc"}]})
    assert tokenize_bitext(dataset, Words(), "en", "id", 9)[0]["source_ids"] == [1, 2]


def test_texts_without_tokens(caplog):
    some = [{"en": "a", "id": "nothing"}, {"en": "b", "id": "c"}, {"en": "nothing", "id": "c"}]
    tokenized = tokenize_bitext(Dataset.from_dict({"translation": some}), Words(), "en", "id", 9)
    assert tokenized["row"] == [1] and "2 of 3 pairs are left out" in caplog.text
    with pytest.raises(ValueError, match=r"\(Words\) gives no tokens for any pair"):
        tokenize_bitext(Dataset.from_dict({"translation": some[:1]}), Words(), "en", "id", 9)


def test_blank_sides_are_named_by_pair():
    dataset = Dataset.from_dict({"translation": [{"en": "a", "id": "b"}, {"en": "c", "id": " \u3000"}]})
    with pytest.raises(ValueError, match="pair 1 of the bitext has no text in 'id'"):
        tokenize_bitext(dataset, tiny_tokenizer(), "en", "id", 9)


def test_kept_beside_the_files_of_the_bitext(tmp_path, monkeypatch):
    tiny_bitext().save_to_disk(tmp_path / "bitext")
    first = tokenize_bitext(load_from_disk(tmp_path / "bitext"), tiny_tokenizer(), "en", "id", 9)
    monkeypatch.setattr("sensia_trainer.bitext.tokens.is_blank", None)  # would be called
    again = tokenize_bitext(load_from_disk(tmp_path / "bitext"), tiny_tokenizer(), "en", "id", 9)
    assert list(again) == list(first) and again.cache_files == first.cache_files != []
    with pytest.raises(TypeError):  # of another length
        tokenize_bitext(load_from_disk(tmp_path / "bitext"), tiny_tokenizer(), "en", "id", 8)


@pytest.mark.parametrize("codes", [("eng_Latn", "ind_Latn"), ("EN", "in"), ("en-US", "id")])
def test_the_keys_of_a_bitext_may_be_codes_of_any_form(codes):
    pairs = tiny_bitext(9)["translation"]
    keyed = Dataset.from_dict({"translation": [dict(zip(codes, pair.values())) for pair in pairs]})
    plain = tokenize_bitext(Dataset.from_dict({"translation": pairs}), tiny_tokenizer(), "en", "id", 9)
    assert list(tokenize_bitext(keyed, tiny_tokenizer(), "en", "id", 9)) == list(plain)
    assert texts(keyed, "en").to_pylist() == [pair["en"] for pair in pairs]
    with pytest.raises(ValueError, match="`target_language` is 'sw', but the bitext holds"):
        tokenize_bitext(keyed, tiny_tokenizer(), "en", "sw", 9)
