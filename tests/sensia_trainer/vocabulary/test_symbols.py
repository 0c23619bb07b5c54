from collections import Counter

import numpy as np

from sensia_trainer.vocabulary.symbols import (
    count_pairs,
    count_words,
    is_in,
    pair_key,
    part_words,
    repeat_words,
    to_ids,
    to_word,
)
from tests.reference.vocabulary import pairs_of


WORDS = Counter({to_word([3, 1, 4, 1]): 5, to_word([1, 4]): 2, to_word([70_000, 0]): 1, to_word([9]): 7})


def test_words_hold_their_ids():
    assert to_ids(to_word([0, 5, 200_000])) == [0, 5, 200_000]


def test_words_of_a_text_are_those_of_the_pre_tokenizer(byte_level):
    backend = byte_level.backend_tokenizer
    counts = count_words(backend, ["the dog, the", "dog", "", "the dog"], batch_size=2)
    plain = Counter()
    for text in ["the dog, the", "dog", "the dog"]:
        encoding = backend.encode(text, add_special_tokens=False)
        for word in dict.fromkeys(encoding.word_ids):
            plain[to_word(i for i, w in zip(encoding.ids, encoding.word_ids, strict=True) if w == word)] += 1
    assert counts == plain


def test_pairs_are_counted_within_words():
    plain = Counter()
    for word, count in WORDS.items():
        for pair in pairs_of(to_ids(word)):
            plain[pair_key(*pair)] += count
    for batch_size in (1, 3, 100):
        keys, counts = count_pairs(WORDS, batch_size)
        assert dict(zip(keys.tolist(), counts.tolist(), strict=True)) == plain
        assert (np.diff(keys) > 0).all()


def test_parting_puts_a_space_into_forbidden_pairs_alone():
    text = " ".join([to_word([3, 1, 4, 1]), to_word([1]), to_word([4, 1, 4])])
    parted = part_words(text, np.array([pair_key(1, 4)]))
    assert [to_ids(word) for word in parted.split(" ")] == [[3, 1], [4, 1], [1], [4, 1], [4]]
    assert part_words(text, np.empty(0, np.int64)) == text


def test_membership_of_sorted_keys():
    assert is_in(np.array([0, 5, 9, 11]), np.array([5, 9])).tolist() == [False, True, True, False]
    assert is_in(np.array([1]), np.empty(0, np.int64)).tolist() == [False]


def test_repeated_words_leave_out_single_tokens():
    texts = list(repeat_words(list(WORDS), list(WORDS.values()), batch_size=2))
    assert Counter(" ".join(texts).split(" ")) == Counter({w: n for w, n in WORDS.items() if len(w) > 1})
