"""Which pairs the new words of each language are learned from, and which text stays as it is cut."""

import pytest

from sensia_trainer.vocabulary.several import plan
from tests.tiny import tiny_languages


def test_words_come_from_the_pair_with_the_source_language():
    pairs = tiny_languages(4, 5, 6)
    shares = plan(dict(reversed(pairs.items())), "en")
    assert {code: (share.source, len(share.pairs), share.protected) for code, share in shares.items()} == {
        "id": ("en", 4, []),
        "sw": ("en", 5, []),
    }
    only = plan({"en-id": pairs["en-id"], "id-sw": pairs["id-sw"]}, "en")
    assert only["sw"].source == "id"
    assert only["sw"].protected == [pair["en"] for pair in pairs["en-id"]["translation"]]  # English stays as it is


def test_text_of_languages_without_new_words_is_protected():
    pairs = tiny_languages(4, 5)
    ((code, share),) = plan(pairs, "en", ["sw"]).items()
    assert code == "sw" and share.protected == [pair["id"] for pair in pairs["en-id"]["translation"]]
    with pytest.raises(ValueError, match="`vocabulary_languages` holds 'tr', but .* are id, sw"):
        plan(pairs, "en", ["tr"])
