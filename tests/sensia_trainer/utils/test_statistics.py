import numpy as np
import pytest

from sensia_trainer.utils.statistics import (
    bootstrap_interval,
    bootstrap_means,
    bootstrap_ratio_interval,
    difference_interval,
    mcnemar,
    paired_bootstrap,
    wilson_interval,
)
from tests.reference.evaluation import mcnemar_p_value, wilson


@pytest.mark.parametrize("correct, total", [(0, 10), (10, 10), (258, 500), (1, 3)])
def test_wilson_solves_its_equation(correct, total):
    assert wilson_interval(correct, total) == pytest.approx(wilson(correct, total), abs=1e-9)


@pytest.mark.parametrize("total", range(1, 200))
def test_wilson_interval_holds_the_proportion(total):
    """Also to the last bit: figures draw the distances from the proportion to both ends."""
    for correct in (0, 1, total // 3, total):
        low, high = wilson_interval(correct, total)
        assert 0 <= low <= correct / total <= high <= 1


def test_the_interval_of_a_difference():
    # 56 of 70 and 48 of 80, Wilson: Newcombe's (1998) example (a), method 10: .2 [.0524, .3339].
    found = difference_interval(56 / 70, wilson_interval(56, 70), 48 / 80, wilson_interval(48, 80))
    assert found == pytest.approx([0.0524, 0.3339], abs=5e-5)
    assert difference_interval(0.6, [0.5, 0.7], 0.44, None) == pytest.approx([0.06, 0.26])
    assert difference_interval(0.6, [0.5, 0.7], 0.5, [0.3, 0.7]) == pytest.approx([0.1 - 0.05**0.5, 0.1 + 0.05**0.5])


@pytest.mark.parametrize("only_a, only_b", [(0, 0), (3, 3), (1, 9), (40, 22)])
def test_mcnemar_is_exact(only_a, only_b):
    a = [1] * only_a + [0] * only_b + [1, 0, 1]
    b = [0] * only_a + [1] * only_b + [1, 0, 1]
    result = mcnemar(a, b)
    assert (result["only_a"], result["only_b"]) == (only_a, only_b)
    assert result["p_value"] == pytest.approx(mcnemar_p_value(only_a, only_b))


def test_bootstrap_interval_has_the_width_of_the_normal_one():
    values = np.random.default_rng(0).random(400)
    low, high = bootstrap_interval(values, samples=2000)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.004)
    assert high == pytest.approx(values.mean() + half, abs=0.004)


def test_ratio_interval_draws_whole_sentences():
    rng = np.random.default_rng(1)
    tokens = rng.integers(1, 40, 300)
    nll = tokens * rng.normal(3.0, 0.5, 300)
    low, high = bootstrap_ratio_interval(nll, tokens, samples=2000)
    means = []
    for _ in range(2000):  # sentence by sentence
        drawn = rng.choice(300, 300)
        means.append(sum(nll[i] for i in drawn) / sum(tokens[i] for i in drawn))
    assert [low, high] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.01)
    assert bootstrap_ratio_interval(2 * tokens, tokens) == pytest.approx([2.0, 2.0])
    with pytest.raises(ValueError, match="equally long"):
        bootstrap_ratio_interval([1.0], [1.0, 2.0])


def test_resamples_without_a_denominator_do_not_count():
    low, high = bootstrap_ratio_interval([3.0, 0.0, 0.0], [1.5, 0.0, 0.0], samples=50)  # 8 of 27 draws have none
    assert [low, high] == [2.0, 2.0]
    assert bootstrap_ratio_interval([1.0, 2.0], [0.0, 0.0]) is None and bootstrap_ratio_interval([1.0], [0.0]) is None
    values, weights = np.array([1.0, 5.0, 5.0]), np.array([1.0, 0.0, 0.0])
    compared = paired_bootstrap(values, np.zeros(3), weights=weights, iterations=50)
    assert compared["model"]["interval"] == [1.0, 1.0] and compared["difference"]["interval"] == [1.0, 1.0]
    means = bootstrap_means(values[:, None], weights=weights, samples=50)
    assert 20 < len(means) < 50
    assert compared["difference"]["p_value"] == pytest.approx(2 / (len(means) + 1))


def test_one_item_has_an_interval_without_width():
    assert bootstrap_interval([0.25]) == [0.25, 0.25]


def test_bad_input():
    with pytest.raises(ValueError, match="empty"):
        bootstrap_interval([])
    with pytest.raises(ValueError, match="got 3 of 2"):
        wilson_interval(3, 2)
    with pytest.raises(ValueError, match="equally long"):
        mcnemar([1, 0], [1])
