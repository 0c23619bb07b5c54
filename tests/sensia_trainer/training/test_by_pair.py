"""What runs amount to, of one pair of languages and of several, by hand."""

from sensia_trainer.training.by_pair import (
    _from_start,
    by_pair,
    closing_table,
    histories,
    mean_of_pairs,
    phase_starts,
    summary_of_pairs,
    with_drift,
)


def test_numbers_of_sentences_are_added_up_and_everything_else_is_averaged():
    key = "beyond_overlap_pairs_source_to_target"
    one = {"pairs": 10, "truncated": 1, key: 4, "target_perplexity": 2.0, "target_perplexity_interval": [1.0, 3.0]}
    other = one | {key: 5, "target_perplexity": 4.0, "only_here": 1.0}
    means = mean_of_pairs({"en-id": one, "en-sw": other})
    assert means == {"pairs": 20, "truncated": 2, key: 9, "target_perplexity": 3.0}


def test_a_name_that_another_begins_with_has_its_own_numbers_alone():
    logs = {"eval_en-zh_pairs": 9, "eval_en-zh_Hant_pairs": 7, "eval_runtime": 1.0}
    names = ["en-zh", "en-zh_Hant"]
    assert by_pair(logs, names, "eval") == {"en-zh": {"pairs": 9}, "en-zh_Hant": {"pairs": 7}}
    history = [{"step": 5, "eval_en-zh_Hant_pairs": 7}]
    assert histories(history, names) == {"en-zh": [], "en-zh_Hant": [{"step": 5, "pairs": 7}]}


def test_phases_that_constant_weights_make_alike_begin_nowhere():
    config = {"align_weights": [0.5, 0.4, 0.1], "joint_weights": [0.4, 0.4, 0.2], "polish_weights": [0.1, 0.2, 0.7]}
    config |= {"polish_freeze": "none", "steps": 100, "align_fraction": 0.2, "joint_fraction": 0.3}
    config |= {"polish_fraction": 0.5, "tau_sense": 0.05, "tau_context": 0.07}
    assert phase_starts(config) == [20, 50]
    assert phase_starts(config | {"w_sense": 0.0, "w_context": 0.0, "w_lm": 1.0}) == []
    assert phase_starts(config | {"w_sense": 0.0, "w_context": 0.0}) == [20, 50]


def test_a_history_begins_before_the_first_step_and_with_random_weights():
    before = {"random_context_recall_source_to_target": 0.1, "target_perplexity": 9.0}
    first, later = {"step": 0, "target_perplexity": 8.0}, {"step": 5, "target_perplexity": 4.0}
    assert _from_start(before, [later]) == [{"step": 0} | before, later]
    assert _from_start(before, [first, later]) == [before | first, later]
    assert _from_start(None, [later]) == [later] and _from_start(None, []) == []


def test_what_several_pairs_found_stands_beside_overlap():
    keys = {f"{kind}_recall_source_to_target": value for kind, value in (("sense", 0.5), ("overlap", 0.4))}
    lines = summary_of_pairs({"en-id": keys | {"sense_recall_source_to_target": 0.1}}, {"en-id": keys}).splitlines()
    assert "token overlap (no model)" in lines[0]
    assert lines[1].split()[1:] == ["sense", "→", "overlap", "→"]
    assert lines[2] == "en-id  0.100 > 0.500  0.400 > 0.400"


def test_the_drift_of_the_source_is_the_last_that_was_logged():
    logged = [{"step": step, "source_sense_drift_cosine": 1 - step / 100} for step in (10, 20)]
    after = {"target_perplexity": 2.0, "pairs": 9}
    metrics = {"languages": {"source": "en", "target": "id"}, "before": after, "after": after}
    metrics |= {"history": [*logged, {"step": 20, "train_loss": 1.0}]}
    assert with_drift(metrics)["after"] == after | {"source_sense_drift_cosine": 0.8}
    assert metrics["after"] == after and with_drift(metrics | {"history": []})["after"] == after
    several = {
        "by_pair": {"en-id": {"before": after, "after": after}},
        "languages": {"source": "en", "targets": ["id"]},
    }
    for run in (metrics, metrics | several):
        assert closing_table(run).endswith("\nEnglish senses, mean cosine to those before: 0.800")
        assert "cosine" not in closing_table(run | {"history": []})
