"""Selections in Arrow columns, against the same done a pair at a time."""

import random
from collections import Counter

import pytest
from datasets import Dataset, concatenate_datasets

from sensia_trainer.bitext import fingerprint
from sensia_trainer.bitext.columns import WHITESPACE, texts
from sensia_trainer.bitext.splits import hold_out, value_counts, without_blanks, without_sentences_of
from tests.reference import bitext as reference


def random_pairs(number=300, seed=0):
    """Pairs of which some repeat a sentence and some have a blank side."""
    draw = random.Random(seed)
    ends, words = ["", "!", " "], ["sun", "matahari", "", " ", "\u3000", "\u200b", "a\tb", "Ünïcödé", None, "\x1c"]
    return [
        {"en": draw.choice("eE") + f"{draw.randrange(number)}" if draw.random() < 0.9 else draw.choice(words)}
        | {"id": f"i{draw.randrange(2 * number)}" + draw.choice(ends) if draw.random() < 0.9 else draw.choice(words)}
        for _ in range(number)
    ]


def forms(pairs):
    """The same pairs as a dataset of one table, of several, and as selections of larger ones, in two orders."""
    whole = Dataset.from_dict({"translation": pairs})
    yield whole
    yield concatenate_datasets([whole.select(range(100)), whole.select(range(100, len(pairs)))])
    junk = Dataset.from_dict({"translation": [{"en": "junk", "id": "junk"}] * 5})
    yield concatenate_datasets([junk, whole]).select([*range(5, 5 + len(pairs))])
    yield Dataset.from_dict({"translation": pairs[::-1]}).select([*range(len(pairs))[::-1]])


def test_whitespace_is_what_python_takes_for_it():
    assert set(WHITESPACE) == {character for character in map(chr, range(0x110000)) if not character.strip()}


def test_selections_are_those_of_the_plain_walk():
    pairs = random_pairs()
    kept = [pairs[i] for i in reference.without_blanks(pairs)]
    rest, held_out = ([kept[i] for i in rows] for rows in reference.hold_out(kept, 40, seed=7))
    mixed = kept[:30] + held_out[:9]
    disjoint = [kept[i] for i in reference.without_sentences_of(kept, mixed)]
    assert 0 < len(disjoint) < len(kept) < len(pairs)
    for dataset in forms(pairs):
        found = without_blanks(dataset)
        assert list(found["translation"]) == kept and fingerprint(found) == reference.fingerprint(kept)
        train, out = hold_out(found, 40, seed=7)
        assert (list(train["translation"]), list(out["translation"])) == (rest, held_out)
        assert texts(out, "id").to_pylist() == [pair["id"] for pair in held_out]
        assert (
            list(without_sentences_of(found, Dataset.from_list([{"translation": p} for p in mixed]))["translation"])
            == disjoint
        )


def test_what_is_held_out_is_trained_on_in_no_spelling():
    pairs = [{"en": f"{word} it", "id": f"{word} itu"} for word in ("close", "move", "open", "read", "take", "write")]
    again = [{"en": pair["en"].capitalize() + ".", "id": f"“{pair['id']}” "} for pair in pairs[:3]]
    train, held_out = hold_out(Dataset.from_list([{"translation": pair} for pair in pairs + again]), 3, seed=0)
    assert list(held_out["translation"]) == pairs[3:] and list(train["translation"]) == pairs[:3] + again
    spelt = Dataset.from_list([{"translation": {"en": "Read  it!", "id": "lain"}}, {"translation": again[0]}])
    assert list(without_sentences_of(spelt, held_out)["translation"]) == again[:1]


def test_too_few_pairs_to_hold_out():
    with pytest.raises(ValueError, match="`held_out_pairs` is 5, but of the 2 pairs only 2 have"):
        hold_out(Dataset.from_dict({"translation": [{"en": "a", "id": "b"}, {"en": "c", "id": "d"}]}), 5, seed=0)


def test_nothing_but_blanks():
    with pytest.raises(ValueError, match="No pair of the bitext has text on both sides"):
        without_blanks(Dataset.from_dict({"translation": [{"en": "a", "id": ""}, {"en": None, "id": "d"}]}))


def test_values_are_counted_as_python_counts_them():
    draw = random.Random(0)
    values = [draw.choice(["ui", "news", "b", "a"]) for _ in range(99)]
    dataset = Dataset.from_dict({"domain": values}).select(range(90, 3, -1))
    assert list(value_counts(dataset, "domain").items()) == Counter(values[90:3:-1]).most_common()
