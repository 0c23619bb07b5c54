"""Sentences that are the same up to case and punctuation, and up to the values of numbers."""

import pytest

from sensia_trainer.bitext.near import near_form, near_keys


@pytest.mark.parametrize(
    "text, with_numbers, without",
    [
        ("Chapter 12: “The End”", "chapter 12 the end", "chapter 0 the end"),
        ("٣ كتب", "3 كتب", "0 كتب"),
        ("1,500.20", "1 500 20", "0 0 0"),
        ("?!", "?!", "?!"),
        ("İYİ AKŞAMLAR, IŞIK!", "iyi akşamlar işik", "iyi akşamlar işik"),
        ("iyi akşamlar ışık", "iyi akşamlar işik", "iyi akşamlar işik"),
    ],
)
def test_values_of_numbers_count_if_asked(text, with_numbers, without):
    assert (near_form(text, numbers=True), near_form(text)) == (with_numbers, without)


def test_keys_tell_what_forms_tell():
    texts = ["Page 1", "page 2.", "PAGE 1!"]
    assert len(set(near_keys(texts).tolist())) == 1
    first, other, again = near_keys(texts, numbers=True).tolist()
    assert first == again != other
