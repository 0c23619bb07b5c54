import random

import numpy as np
import pytest
from scipy import sparse

from sensia_trainer.vocabulary.translation import (
    Bitext,
    best_translations,
    held_out_nats,
    learn_translations,
    read_dictionary,
    translation_table,
)
from tests.reference.vocabulary import agreeing_model_1, nats_per_source_token


SOURCE, TARGET = 7, 12  # source tokens are below, target tokens between


def random_pairs(number, seed):
    """Token t of the target means t - SOURCE; sentences repeat tokens and come in any order."""
    draw = random.Random(seed)
    pairs = []
    for _ in range(number):
        target = [draw.randrange(SOURCE, TARGET) for _ in range(draw.randint(1, 5))]
        source = [t - SOURCE for t in target] + [draw.randrange(SOURCE)] * draw.randint(0, 2)
        draw.shuffle(source)
        pairs.append((source, target))
    return pairs


def bitext(pairs):
    return Bitext(*zip(*pairs, strict=True))


def sets(pairs):
    return [(sorted(set(s)), sorted(set(t))) for s, t in pairs]


def as_dict(table):
    table = table.tocoo()
    cells = zip(table.row.tolist(), table.col.tolist(), table.data.tolist(), strict=True)
    return {(t, s): p for t, s, p in cells}


@pytest.mark.parametrize("block", [1, 7, 10_000])
def test_the_table_is_that_of_two_agreeing_models(block, monkeypatch):
    monkeypatch.setattr(Bitext.blocks, "__defaults__", (block,))
    pairs = random_pairs(40, seed=0)
    for rounds in (1, 2, 4):
        plain = agreeing_model_1(sets(pairs), rounds)
        found = as_dict(translation_table(bitext(pairs), TARGET, rounds=rounds))
        assert found == pytest.approx(plain, abs=1e-6)


def test_translations_are_found():
    table = translation_table(bitext(random_pairs(300, seed=1)), TARGET)
    assert (table[range(SOURCE, TARGET)].toarray().argmax(axis=1) == np.arange(TARGET - SOURCE)).all()
    assert table[range(SOURCE, TARGET)].sum(axis=1) == pytest.approx(1.0)
    assert table[range(SOURCE)].nnz == 0


def test_a_large_bitext_is_drawn_from():
    pairs = bitext(random_pairs(300, seed=2))
    first, again = (translation_table(pairs, TARGET, max_cells=500) for _ in range(2))
    other = translation_table(pairs, TARGET, max_cells=500, seed=1)
    assert (first != again).nnz == 0
    assert (first != other).nnz > 0


def test_pairs_without_tokens_are_left_out():
    assert len(Bitext([[1], [], [2]], [[8], [9], []])) == 1
    with pytest.raises(ValueError, match="no pair with tokens on both sides"):
        translation_table(Bitext([[1]], [[]]), TARGET)


def test_held_out_likelihood_is_that_of_the_mixture():
    train, held_out = random_pairs(40, seed=3), random_pairs(15, seed=4)
    table = translation_table(bitext(train), TARGET, rounds=2)
    unigram = np.arange(1, TARGET + 1) / 100
    plain = nats_per_source_token(as_dict(table), sets(held_out), unigram, 0.3)
    assert held_out_nats(table, bitext(held_out), unigram, smoothing=0.3) == pytest.approx(plain)


def test_a_table_predicts_pairs_it_has_not_seen():
    source, target = zip(*random_pairs(400, seed=5), strict=True)
    _, report = learn_translations(source, target, TARGET)
    assert report["held_out_pairs"] == 20
    assert report["pairs"] == 380
    assert report["held_out_nats"] < report["held_out_nats_unigram"]


def test_a_dictionary_is_more_pairs():
    source, target = zip(*random_pairs(60, seed=6), strict=True)
    table, report = learn_translations(source, target, TARGET + 1, dictionary=[([2, 3], [TARGET])])
    assert report["dictionary_entries"] == 1
    assert table[[TARGET]].toarray()[0, [2, 3]].sum() == pytest.approx(1.0)


def test_of_a_large_bitext_as_many_pairs_are_told_as_are_used_and_every_entry_is():
    source, target = zip(*random_pairs(400, seed=5), strict=True)
    entries = [([s], [TARGET + s]) for s in range(1, SOURCE)]
    size = TARGET + SOURCE
    table, report = learn_translations(source, target, size, dictionary=entries, max_cells=800)
    assert report["dictionary_entries"] == len(entries) and 0 < report["pairs"] < 380
    for (word,), (translation,) in entries:
        assert table[[translation]].toarray()[0, word] == pytest.approx(1.0)
    cells = bitext(list(zip(source, target))).cells()
    assert report["pairs"] <= 800 / cells.min()


def test_best_translations_are_the_most_probable_above_the_threshold():
    table = sparse.csr_array(np.array([[0.1, 0.04, 0.5, 0.1, 0.2], [0, 0, 0, 0, 0], [0, 1.0, 0, 0, 0]]))
    best = best_translations(table, [0, 2, 1], number=3, threshold=0.05).toarray()
    assert best.tolist() == [[0.1, 0, 0.5, 0, 0.2], [0, 1.0, 0, 0, 0], [0, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("car\tmobil\n\nhouse\trumah\tnoun\ncar\tmobil\n", [("car", "mobil"), ("house", "rumah")]),
        ("car mobil\n", [("car", "mobil")]),
        ("ice cream\tes krim\n", [("ice cream", "es krim")]),
        ("\ufeffice\u2028cream\tes\x0ckrim\r\n", [("ice\u2028cream", "es\x0ckrim")]),
    ],
)
def test_dictionaries_have_two_columns(tmp_path, text, pairs):
    (tmp_path / "words.tsv").write_text(text, encoding="utf-8")
    assert read_dictionary(tmp_path / "words.tsv") == pairs


@pytest.mark.parametrize(
    ("text", "message"),
    [("car\tmobil\nhouse\n", "Line 2 of the dictionary"), ("car\t\n", "Line 1"), ("\n", "holds no word")],
)
def test_a_dictionary_without_words_is_refused(tmp_path, text, message):
    (tmp_path / "words.tsv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_dictionary(tmp_path / "words.tsv")


def test_a_missing_dictionary_is_named(tmp_path):
    with pytest.raises(ValueError, match="is not a file"):
        read_dictionary(tmp_path / "none.tsv")
