import random
import tracemalloc

import numpy as np
import pytest

from sensia_trainer.bitext.near import near_keys, text_keys
from sensia_trainer.curation import duplicates
from sensia_trainer.curation.duplicates import NAMES, count_parts, find_duplicates, ranks
from sensia_trainer.curation.filters import pair_keys
from tests.reference import bitext as reference


def random_pairs(count):
    draw = random.Random(0)
    words = ["Cat", "cat", "dog!", "dog", "7 birds", "8 birds"]
    return [(draw.choice(words), draw.choice(words) + draw.choice(["", "?"])) for _ in range(count)]


@pytest.mark.parametrize("part", [4_000_000, 17])
def test_find_duplicates_is_the_plain_one_in_any_number_of_parts(monkeypatch, part):
    monkeypatch.setattr(duplicates, "PART", part)
    pairs = random_pairs(300)
    sources, targets = map(list, zip(*pairs))
    keys = {
        "exact": pair_keys(text_keys(sources), text_keys(targets)),
        "near": pair_keys(near_keys(sources), near_keys(targets)),
        "source": near_keys(sources),
    }
    passes = []

    def columns(name):
        passes.append(name)
        return np.array_split(keys[name], 7)

    found = find_duplicates(len(pairs), columns, max_targets=2)
    assert [NAMES.get(code, "kept") for code in found] == reference.duplicates(pairs, 2)
    assert len(passes) == 3 * count_parts(300) == (3 if part > 300 else 24)


def test_memory_is_at_most_16_bytes_a_pair(monkeypatch):
    count = 400_000
    monkeypatch.setattr(duplicates, "PART", count // 8)  # as many parts as for 32 million pairs and more

    def columns(name):
        for chunk in range(40):
            generator = np.random.default_rng(chunk)
            yield generator.integers(0, 2**63, count // 40, dtype=np.uint64)

    tracemalloc.start()
    try:
        find_duplicates(count, columns, 4)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak / count <= 16, f"{peak / count:.1f} bytes a pair"


def test_ranks():
    assert ranks(np.array([5, 3, 5, 5, 3])).tolist() == [0, 0, 1, 2, 1]
    assert ranks(np.zeros(0, np.uint64)).tolist() == []


def test_no_pairs():
    assert find_duplicates(0, lambda name: [], 4).tolist() == []
