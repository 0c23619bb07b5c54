"""What numbers mean, in words: literal cases."""

import pytest

from sensia_trainer.evaluation.verdict import induction_verdict, next_steps, pretraining_verdict, verdict


NAMES = ("English", "Swahili")


def metrics(sense, bits, english, interval=None, **more):
    found = {"pairs": 100, "target_bits_per_byte": bits, "source_bits_per_byte": english}
    for direction in ("source_to_target", "target_to_source"):
        found[f"sense_recall_{direction}"] = sense
        found[f"overlap_recall_{direction}"] = 0.40
        found[f"random_sense_recall_{direction}"] = 0.05
        if interval:
            found[f"sense_recall_{direction}_interval"] = interval
    return found | more


def test_a_run_that_worked():
    beyond = {f"sense_beyond_overlap_{way}": value for way, value in
              (("source_to_target", 0.5), ("target_to_source", 0.3))}  # fmt: skip
    lines = verdict(metrics(0.02, 5.0, 2.0), metrics(0.70, 2.5, 2.02, (0.60, 0.80), **beyond), NAMES)
    assert lines == [
        "Translations found: 70% of 100 English and Swahili sentences find theirs by sense vectors, a mean of both "
        "directions (2% before).",
        "That is better than chance (1.0%), random weights (5%) and token overlap without a model (40%).",
        "Where overlap fails, names and numbers cannot help: 40% are found there.",
        "Swahili: 2.50 bits a byte, 5.00 before (lower is more fluent).",
        "English is kept: 2.02 bits a byte, 2.00 before (+1%).",
        "Next: to know what alignment costs, a control (`--method lm-only`), shown with `--control` its metrics.json; "
        "measure on text that no choice was made on (`sensia evaluate`).",
    ]


def test_a_run_that_is_below_overlap_and_forgets():
    control = metrics(0.03, 2.4, 3.0)
    lines = verdict(metrics(0.02, 5.0, 2.0), metrics(0.30, 2.7, 3.0, (0.22, 0.38)), NAMES, control)
    assert lines[1] == (
        "That is better than chance (1.0%), random weights (5%) and the control (3%); worse than token overlap "
        "without a model (40%)."
    )
    assert lines[2] == (
        "Swahili: 2.70 bits a byte, 5.00 before; less fluent than the control (2.40) (lower is more fluent)."
    )
    assert lines[3] == "English is being forgotten: 3.00 bits a byte, 2.00 before (+50%)."
    assert "train longer" in lines[4] and "lm-only" not in lines[4]


@pytest.mark.parametrize(
    "both_sides, replay, said",
    [
        (False, False, "`--source_lm_weight 1` and text of it beside the pairs (`--replay_source`)"),
        (True, False, "text of it beside the pairs (`--replay_source`)"),
        (True, True, "more text of it (`--replay_ratio`)"),
    ],
)
def test_who_forgets_is_told_what_was_not_done_yet(both_sides, replay, said):
    before, after = metrics(0.02, 5.0, 2.0), metrics(0.70, 2.5, 3.0)
    line = verdict(before, after, NAMES, after, both_sides=both_sides, replay=replay)[-1]
    assert line == f"Next: to keep English, {said}; measure on text that no choice was made on (`sensia evaluate`)."


def test_a_run_that_learns_its_pairs_by_heart_is_told_when_it_was_more_fluent():
    during = [{"step": 0, "target_bits_per_byte": 3.1}, {"step": 50, "target_bits_per_byte": 2.17}]
    after = metrics(0.42, 2.33, 2.0, (0.32, 0.52))
    lines = verdict(metrics(0.0, 3.1, 2.0), after, NAMES, during=during)
    assert "It was more fluent at step 50 (2.17), so its last steps did it no good." in lines
    steps = next_steps(metrics(0.0, 3.1, 2.0), after, NAMES, during=during)
    assert steps[:2] == ["train on more pairs or with words of the language (`--vocabulary_size`)", FEWER]

    at_start = [{"step": 0, "target_bits_per_byte": 2.2}]
    lines = verdict(metrics(0.0, 2.2, 2.0), after, NAMES, during=at_start)
    assert "It was more fluent at the start (2.20), so training did it no good." in lines

    within = [{"step": 50, "target_bits_per_byte": 2.31}]
    lines = verdict(metrics(0.0, 3.1, 2.0), after, NAMES, during=within)
    assert not any("more fluent at" in line or "fewer steps" in line for line in lines)


FEWER = (
    "fewer steps (`--max_steps`), or text of Swahili beside the pairs (`--monolingual_target`), lest it learns them "
    "by heart"
)


@pytest.mark.parametrize(
    "found, interval, said",
    [
        (0.45, (0.35, 0.55), "not clearly different from"),
        (0.45, (0.41, 0.49), "better than"),
        (0.35, (0.30, 0.39), "worse than"),
        (0.45, None, "better than"),
    ],
)
def test_differences_are_told_by_the_interval(found, interval, said):
    lines = verdict(metrics(0.0, 5.0, 2.0), metrics(found, 2.5, 2.0, interval), NAMES)
    group = next(part for part in lines[1].split("; ") if "overlap" in part)
    assert said in group


@pytest.mark.parametrize(
    "kind, other", [("overlap", "overlap"), ("random_sense", "random weights"), ("sense", "the control")]
)
def test_the_error_of_what_it_is_compared_with_counts_as_well(kind, other):
    """.58 [.48, .67] is above .47, and yet not clearly above .47 [.38, .57]: the difference is .11 [-.03, .24]."""
    keys = {way: f"{kind}_recall_{way}" for way in ("source_to_target", "target_to_source")}
    values = dict.fromkeys(keys.values(), 0.47)
    errors = values | {f"{key}_interval": [0.38, 0.57] for key in values}
    after = metrics(0.58, 2.5, 2.0, (0.48, 0.67))
    for yardstick, said in ((values, "better than"), (errors, "not clearly different from")):
        if kind == "sense":
            found, control = after, metrics(0.0, 2.5, 2.0) | yardstick
        else:
            found, control = after | yardstick, None
        lines = verdict({}, found, NAMES, control)
        (group,) = [part for part in lines[1].split("; ") if other in part]
        assert said in group
        assert ("train longer" in lines[-1]) == (kind == "overlap" and yardstick is errors)


@pytest.mark.parametrize("english, state", [(2.05, "is kept"), (2.1, "has become worse"), (2.4, "is being forgotten")])
def test_drift_of_the_source(english, state):
    assert f"English {state}: " in verdict(metrics(0, 5, 2.0), metrics(0.7, 2.5, english), NAMES)[3]


@pytest.mark.parametrize("bits, how", [(2.39, "as fluent as"), (2.3, "more fluent than"), (2.5, "less fluent than")])
def test_fluency_beside_the_control(bits, how):
    lines = verdict(metrics(0, 5, 2), metrics(0.7, bits, 2), NAMES, metrics(0, 2.4, 2))
    assert any(f"{how} the control (2.40)" in line for line in lines)


def test_a_run_at_chance_is_told_to_look_at_its_pairs():
    assert "ten pairs" in next_steps(metrics(0, 5, 2), metrics(0.02, 2.5, 2), NAMES)[0]


@pytest.mark.parametrize(
    "pairs, found, interval, is_better",
    [(3, 1.0, None, True), (3, 1.0, (1.0, 1.0), True), (3, 2 / 3, None, False), (3, 2 / 3, (0.0, 1.0), False),
     (100, 0.02, None, False), (100, 0.03, (0.005, 0.06), False), (100, 0.03, (0.012, 0.06), True),
     (1000, 0.0015, None, False), (200, 0.0, (0.0, 0.0), False),
     (1012, 1 / 1012 + 1e-9, [1 / 1012 + 1e-9] * 2, False)],
)  # fmt: skip
def test_what_is_better_than_chance_is_not_told_to_be_no_better(pairs, found, interval, is_better):
    lines = verdict({}, metrics(found, 2.5, 2.0, interval, pairs=pairs), NAMES)
    chance = next(part for part in lines[1].split("; ") if "chance" in part)
    assert ("better than chance" in chance) == is_better and "worse than chance" not in chance
    assert ("look at ten pairs" in lines[-1]) != is_better


def test_nobody_is_told_to_do_what_was_done_or_would_not_help():
    before, after = metrics(0.02, 5.0, 2.0), metrics(0.30, 2.7, 2.0, (0.22, 0.38))
    assert "train longer, on more pairs or with words" in verdict(before, after, NAMES)[-1]
    assert "train longer or on more pairs;" in verdict(before, after, NAMES, new_words=True)[-1]
    control = verdict(before, after, NAMES, aligned=False)[-1]  # whose vectors were never aligned
    assert control == "Next: measure on text that no choice was made on (`sensia evaluate`)."


def test_a_model_without_senses():
    after = {"pairs": 50, "target_bits_per_byte": 2.0}
    after |= {f"context_recall_{way}": 0.5 for way in ("source_to_target", "target_to_source")}
    lines = verdict({}, after, NAMES)
    assert lines[0] == (
        "Translations found: 50% of 50 English and Swahili sentences find theirs by its vectors, a mean of both "
        "directions."
    )
    assert lines[1] == "That is better than chance (2%)."


def test_induced_senses():
    values = {"gate": 0.25, "contribution": 0.04, "base_perplexity": 20.0}
    lines = induction_verdict(values | {"perplexity": 20.2})  # .33 % of the bits
    worse = induction_verdict(values | {"perplexity": 20.4})  # .66 %
    assert lines[0] == "The gate is 0.250: the senses take part; they add 4.0% to the state."
    assert lines[1] == "What the model knows is kept: perplexity 20.20 on held-out text, 20.00 of the base (+1.0%)."
    assert worse[1].startswith("What the model knows has become worse: perplexity 20.40 ")
    small = induction_verdict(values | {"gate": 0.008, "contribution": 0.06, "perplexity": 20.2})
    assert small[0] == "The gate is 0.008: the senses take part; they add 6.0% to the state."
    closed = induction_verdict({"gate": 0.02, "contribution": 0.0004, "perplexity": 30, "base_perplexity": 20.0})
    assert "do nothing yet" in closed[0] and "has become worse" in closed[1] and "more steps" in closed[2]


def test_pretraining():
    assert pretraining_verdict(2.0, 8192)[0] == (
        "Perplexity on held-out text: 7.4, where guessing among the words has 8,192."
    )
    assert "beyond all numbers" in pretraining_verdict(1000.0, 8192)[0]
