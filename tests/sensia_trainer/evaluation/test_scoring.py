import numpy as np
import pytest

from sensia_trainer.evaluation.likelihood import ChoiceLikelihoods
from sensia_trainer.evaluation.scoring import accuracy, grid_search, interpolate, paper_parameters, scores
from tests.reference.evaluation import interpolated_score, search_grid


def likelihoods(num=60, choices=2, prior=True):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 12, (num, choices))
    return ChoiceLikelihoods(
        conditional=-lengths * rng.uniform(1, 5, (num, choices)),
        unconditional=-lengths * rng.uniform(2, 6, (num, choices)) if prior else None,
        lengths=lengths,
        labels=rng.integers(0, choices, num),
        ids=[str(i) for i in range(num)],
        cut=[""] * num,
    )


def test_scores_are_those_of_appendix_e():
    found = likelihoods()
    for lam, alpha in ((0.0, 0.0), (1.0, 0.0), (0.3, 0.7)):
        values = interpolate(found, lam, alpha)
        for i in (0, 17):
            for c in (0, 1):
                arrays = (found.conditional[i, c], found.unconditional[i, c], found.lengths[i, c])
                assert values[i, c] == pytest.approx(interpolated_score(*arrays, lam, alpha))
    assert scores(found, "sum") is found.conditional
    assert scores(found, "cond") == pytest.approx(found.conditional / found.lengths)
    assert scores(found, "pmi") == pytest.approx((found.conditional - found.unconditional) / found.lengths)


def test_scorings_disagree_where_they_should():
    # A short unlikely choice against a long likelier one: the sum prefers short, the mean long, PMI the surprise.
    found = ChoiceLikelihoods(
        conditional=np.array([[-6.0, -8.0]]), unconditional=np.array([[-12.0, -9.0]]),
        lengths=np.array([[2, 8]]), labels=np.array([0]), ids=["0"], cut=[""],
    )  # fmt: skip
    assert scores(found, "sum").argmax() == 0
    assert scores(found, "cond").argmax() == 1
    assert scores(found, "pmi").argmax() == 0
    assert interpolate(found, 0.0, 1.0).argmax() == 1


def test_grid_search_equals_plain_loops():
    found = likelihoods()
    result = grid_search(found, split="validation")
    lam, alpha, best = search_grid(found.conditional, found.unconditional, found.lengths, found.labels.tolist())
    assert (result["lambda"], result["alpha"]) == (lam, alpha)
    assert result["accuracy"] == pytest.approx(best)
    assert np.array(result["grid"]).shape == (11, 11)
    assert result["grid"][round(lam * 10)][round(alpha * 10)] == pytest.approx(best, abs=1e-6)


def test_grid_search_prefers_the_plainest_of_equals():
    found = likelihoods(num=1)
    found.conditional[:] = [[-1.0, -50.0]]
    found.unconditional[:], found.lengths[:], found.labels[:] = -5.0, 3, 0
    result = grid_search(found, split="validation")
    assert (result["lambda"], result["alpha"], result["ties"]) == (1.0, 0.0, 121)


def test_parameters_are_never_chosen_on_the_reported_split():
    with pytest.raises(ValueError, match="validation split only"):
        grid_search(likelihoods(), split="test")


def test_accuracy_with_interval_ties_and_chance():
    values = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [2.0, 1.0]])
    result = accuracy(values, np.array([0, 1, 0, 1]))
    assert (result["accuracy"], result["correct"], result["total"], result["ties"]) == (0.75, 3, 4, 1)
    assert result["chance"] == 0.5 and result["at_chance"]
    many = accuracy(np.tile([[1.0, 0.0, 0.0, 0.0]], (200, 1)), np.zeros(200, dtype=int))
    assert many["chance"] == 0.25 and not many["at_chance"]


def test_pmi_without_a_prior_names_the_way_out():
    found = likelihoods(prior=False)
    assert scores(found, "cond").shape == (60, 2)
    with pytest.raises(ValueError, match="start token.*'cond'"):
        scores(found, "pmi")
    with pytest.raises(ValueError, match="`scoring` must be one of"):
        scores(found, "mean")


def test_a_choice_cut_to_nothing_scores_zero_instead_of_nan():
    found = likelihoods(num=2)
    found.lengths[0], found.conditional[0], found.unconditional[0] = 0, 0.0, 0.0
    assert np.isfinite(interpolate(found, 0.5, 0.5)).all()


def test_table_11():
    assert paper_parameters("xcopa", "sw") == {"lambda": 0.6, "alpha": 0.7}
    assert paper_parameters("xcopa", "et") == {"lambda": 1.0, "alpha": 0.1}
    assert paper_parameters("belebele", "tr") == {"lambda": 0.4, "alpha": 0.5}
    assert paper_parameters("xstorycloze", "et") is None and paper_parameters("xcopa", "zh") is None
