import numpy as np
import pytest
from scipy import stats

from sensia_trainer.utils.statistics import bootstrap_means, paired_bootstrap
from tests.reference import analysis as reference


def test_means_are_those_of_the_drawn_items():
    values = np.random.default_rng(0).standard_normal((7, 2))
    weights = np.arange(1.0, 8.0)
    means = bootstrap_means(values, weights=weights, samples=50, seed=3)
    generator = np.random.default_rng(3)
    drawn = generator.integers(7, size=(50, 7), dtype=np.int32)
    for mean, items in zip(means, drawn):
        np.testing.assert_allclose(mean, np.average(values[items], axis=0, weights=weights[items]))


def test_interval_agrees_with_scipy():
    values = np.random.default_rng(1).exponential(size=300)
    ours = paired_bootstrap(values, iterations=4000, seed=0)["model"]["interval"]
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=0).confidence_interval
    np.testing.assert_allclose(ours, theirs, atol=0.02)


def test_pairing_is_kept():
    """A constant gain over noisy items is certain when paired, and would drown in the noise otherwise."""
    control = 10 * np.random.default_rng(2).standard_normal(200)
    result = paired_bootstrap(control + 0.1, control, iterations=999)
    assert result["difference"]["mean"] == pytest.approx(0.1)
    np.testing.assert_allclose(result["difference"]["interval"], [0.1, 0.1])
    assert result["difference"]["p_value"] == pytest.approx(2 / 1000)


def test_no_difference_is_not_significant():
    values = np.random.default_rng(3).standard_normal(100)
    assert paired_bootstrap(values, values, iterations=200)["difference"]["p_value"] == 1.0


def test_the_seed_decides_and_blocks_do_not_change_the_count():
    values = np.random.default_rng(4).standard_normal((60_000, 1))
    first, again, other = (bootstrap_means(values, samples=5, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (5, 1) and not np.array_equal(first, other)


def test_interval_and_p_value_match_the_plain_restatement():
    model, control = np.random.default_rng(5).standard_normal((2, 12)) + [[0.3], [0.0]]
    drawn = np.random.default_rng(7).integers(12, size=(99, 12), dtype=np.int32)
    differences = [np.mean(model[items]) - np.mean(control[items]) for items in drawn]
    result = paired_bootstrap(model, control, iterations=99, seed=7)["difference"]
    assert result["p_value"] == pytest.approx(reference.p_value(differences))
    np.testing.assert_allclose(result["interval"], np.percentile(differences, [2.5, 97.5]))


def test_groups_are_drawn_together():
    values = np.random.default_rng(6).standard_normal(9)
    groups = ["b", "a", "b", "c", "b", "c", "a", "d", "b"]
    drawn = np.random.default_rng(8).integers(4, size=(40, 4), dtype=np.int32)
    expected = reference.group_bootstrap_means(values, groups, drawn)
    result = paired_bootstrap(values, groups=groups, iterations=40, seed=8)
    assert (result["items"], result["groups"]) == (9, 4)
    assert result["model"]["mean"] == pytest.approx(values.mean())
    np.testing.assert_allclose(result["model"]["interval"], np.percentile(expected, [2.5, 97.5]))


def test_repeated_items_need_groups():
    """Ten copies of each item make the interval too narrow by about the square root of ten, unless drawn together."""
    values = np.random.default_rng(9).standard_normal(50)
    widths = []
    for options in ({"groups": np.repeat(np.arange(50), 10)}, {}):
        low, high = paired_bootstrap(np.repeat(values, 10), iterations=2000, **options)["model"]["interval"]
        widths.append(high - low)
    assert 2.5 < widths[0] / widths[1] < 4.0


def test_groups_of_other_items_or_without_weight_are_refused():
    with pytest.raises(ValueError, match="`groups` must give a group to each of 3 items, got 2"):
        paired_bootstrap(np.zeros(3), groups=[0, 1])
    with pytest.raises(ValueError, match="all zero within a group"):
        paired_bootstrap(np.zeros(3), groups=[0, 0, 1], weights=np.array([1.0, 1.0, 0.0]))


def test_missing_control_leaves_no_difference():
    result = paired_bootstrap(np.arange(5.0), iterations=10)
    assert result["control"] is None and result["difference"] is None


@pytest.mark.parametrize("values", [np.zeros((0, 1)), np.array([[np.nan]]), np.zeros(3)])
def test_unusable_values_are_refused(values):
    with pytest.raises(ValueError, match="values"):
        bootstrap_means(values)


def test_control_of_other_items_is_refused():
    with pytest.raises(ValueError, match="same items"):
        paired_bootstrap(np.zeros(3), np.zeros(4))
