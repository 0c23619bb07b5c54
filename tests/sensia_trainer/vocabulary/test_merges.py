import random
from collections import Counter

import numpy as np

from sensia_trainer.vocabulary.merges import GrowingVocabulary, learn_merges
from sensia_trainer.vocabulary.symbols import pair_key, to_ids, to_word
from tests.reference.vocabulary import continued_bpe, merge, pairs_of


LETTERS = "abcdef"
NONE = np.empty(0, np.int64)


def random_words(seed):
    draw = random.Random(seed)
    return Counter(tuple(draw.choices(range(6), k=draw.randint(1, 7))) for _ in range(400))


def learned(words, size, **settings):
    vocabulary = GrowingVocabulary({letter: i for i, letter in enumerate(LETTERS)})
    learn_merges(vocabulary, Counter({to_word(w): n for w, n in words.items()}), size, **settings)
    return vocabulary


def names(merges):
    texts = dict(enumerate(LETTERS))
    for left, right in merges:
        texts[len(texts)] = texts[left] + texts[right]
    return [(texts[left], texts[right]) for left, right in merges]


def tokens_of(words, vocabulary):
    total = 0
    for word, count in words.items():
        for left, right in vocabulary.merges:
            word = merge(word, (vocabulary.ids[left], vocabulary.ids[right]), vocabulary.ids[left + right])
        total += count * len(word)
    return total


def test_merges_are_the_greedy_ones():
    for seed in range(5):
        words = random_words(seed)
        plain, _ = continued_bpe(words, first=len(LETTERS), size=6)
        for rounds in (1, 3):
            vocabulary = learned(words, 6, forbidden=NONE, rounds=rounds)
            # Two ways to one text make one token, so there may be more merges than tokens.
            assert vocabulary.merges[:6] == names(plain)
            assert vocabulary.added == 6


def test_forbidden_pairs_are_no_merges_and_tokens_reach_across_them():
    words = Counter({(0, 1, 2): 50, (3, 4): 1, (1, 2): 10})
    vocabulary = learned(words, 5, forbidden=np.array([pair_key(0, 1)]))
    assert vocabulary.merges == [("b", "c"), ("a", "bc")]
    for seed in range(5):
        words = random_words(seed)
        forbidden = {pair for word in random_words(seed + 100) for pair in pairs_of(word)} - {(0, 3), (2, 2), (5, 1)}
        keys = np.array(sorted(pair_key(*pair) for pair in forbidden), dtype=np.int64)
        vocabulary = learned(words, 8, forbidden=keys)
        assert not forbidden & {(vocabulary.ids[left], vocabulary.ids[right]) for left, right in vocabulary.merges}
        _, plain = continued_bpe(words, first=len(LETTERS), size=8, forbidden=forbidden)
        best = sum(count * len(word) for word, count in plain.items())
        assert tokens_of(words, vocabulary) <= 1.05 * best


def test_refused_tokens_and_what_needs_them_are_not_made():
    words = Counter({(0, 1, 2): 50, (3, 4): 20})
    vocabulary = learned(words, 5, forbidden=NONE, refused={"ab"})
    assert vocabulary.merges == [("b", "c"), ("d", "e"), ("a", "bc")]
    assert set(vocabulary.ids) == {*LETTERS, "de", "bc", "abc"}


def test_what_occurs_once_makes_no_token():
    vocabulary = learned(Counter({(0, 1): 1, (2, 3): 2}), 9, forbidden=NONE)
    assert vocabulary.merges == [("c", "d")]
    assert vocabulary.spell(to_word([6, 0])) == "cda"
    assert to_ids(to_word([6])) == [vocabulary.ids["cd"]]
