import pytest

from sensia_trainer.vocabulary.section import _share, vocabulary_figure, vocabulary_section


REPORT = {
    "new_tokens": 4096,
    "whole_words": 3072,
    "source_change": 0.0,
    "source_bytes_per_token": {"before": 4.0, "after": 4.01},
    "target_bytes_per_token": {"before": 2.19, "after": 4.45},
    "method": "translation",
    "translations": {
        "pairs": 1500,
        "dictionary_entries": 0,
        "held_out_pairs": 75,
        "held_out_nats": 4.2,
        "held_out_nats_unigram": 6.5,
        "translated_words": 0.99,
        "sure_words": 0.625,
        "best_probability_counts": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    },
    "words": [
        {
            "token": 9000,
            "word": "dan|",
            "translations": [["and", 0.9], [",", 0.05]],
            "votes_before": ["and", ""],
            "votes_after": ["dan"],
        },
        {"token": 9001, "word": "sungai", "translations": [], "votes_before": ["river"], "votes_after": ["laut"]},
    ],
}


def test_the_section_holds_what_was_measured():
    text = vocabulary_section(REPORT, "English", "Indonesian")
    for part in ("4,096 tokens (3,072 of them", "none of the English", "4.45 bytes of Indonesian (before: 2.19)"):
        assert part in text
    assert "and 4.01 bytes of English (before: 4.00)" in text
    for part in ("from 1,500 pairs:", "99 % of the new", "62.5 % one"):
        assert part in text
    assert "a token of English costs 4.20 nats given its translation (6.50 by frequency alone)" in text
    table = text.split("\n\n")[-1].splitlines()
    assert len(table) == 4
    assert "votes for" not in table[2] and "vote for, after training" in table[0]
    assert r"`dan\|`" in table[2] and "`and` 0.90, `,` 0.05" in table[2]
    assert "–" in table[3]


def test_a_start_without_translations_says_so():
    report = {key: value for key, value in REPORT.items() if key != "translations"} | {"method": "parts"}
    report["words"] = [{"token": 9000, "word": "dan"}]
    text = vocabulary_section(report, "English", "Indonesian")
    assert "the mean of the rows of the tokens that spelled it" in text
    assert "Translations were" not in text


def test_the_figure_is_saved(tmp_path):
    files = vocabulary_figure(REPORT, tmp_path / "vocabulary", languages=("English", "Indonesian"))
    assert [file.name for file in files] == ["vocabulary.png", "vocabulary.svg"]
    assert all(file.stat().st_size for file in files)


@pytest.mark.parametrize(("share", "text"), [(0.9995, "100 %"), (0.5234, "52.3 %"), (0.0007, "0.07 %"), (0, "none")])
def test_shares_are_read_as_numbers(share, text):
    assert _share(share) == text
