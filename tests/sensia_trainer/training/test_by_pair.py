"""What several pairs of languages amount to, by hand."""

from sensia_trainer.training.by_pair import mean_of_pairs


def test_numbers_of_sentences_are_added_up_and_everything_else_is_averaged():
    key = "beyond_overlap_pairs_source_to_target"
    one = {"pairs": 10, "truncated": 1, key: 4, "target_perplexity": 2.0, "target_perplexity_interval": [1.0, 3.0]}
    other = one | {key: 5, "target_perplexity": 4.0, "only_here": 1.0}
    means = mean_of_pairs({"en-id": one, "en-sw": other})
    assert means == {"pairs": 20, "truncated": 2, key: 9, "target_perplexity": 3.0}
