"""Uncertainty of scores measured on a finite set of items: intervals and paired tests. Pure functions of arrays."""

import numpy as np
from scipy.stats import binomtest, norm


def bootstrap_interval(values, *, samples=1000, confidence=0.95, seed=0) -> list[float]:
    """Percentile bootstrap interval `[low, high]` of the mean of `values` (n,), resampling items with replacement."""
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0:
        raise ValueError("`values` is empty: an interval needs at least one item.")
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, values.size, values.size)].mean() for _ in range(samples)]
    tail = (1 - confidence) / 2
    return [float(q) for q in np.quantile(means, [tail, 1 - tail])]


def bootstrap_ratio_interval(numerators, denominators, *, samples=1000, confidence=0.95, seed=0) -> list[float]:
    """Percentile bootstrap interval `[low, high]` of sum(numerators) / sum(denominators), resampling items.

    For means over tokens measured on sentences: both arrays `(n,)` hold a sum of each sentence, which is drawn whole.
    """
    numerators, denominators = (np.asarray(values, dtype=np.float64) for values in (numerators, denominators))
    if numerators.shape != denominators.shape or numerators.size == 0:
        raise ValueError(
            f"`numerators` and `denominators` must be equally long and not empty (got {numerators.shape} and "
            f"{denominators.shape})."
        )
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, numerators.size, (samples, numerators.size))
    ratios = numerators[drawn].sum(1) / denominators[drawn].sum(1)
    tail = (1 - confidence) / 2
    return [float(q) for q in np.quantile(ratios, [tail, 1 - tail])]


def wilson_interval(correct: int, total: int, *, confidence=0.95) -> list[float]:
    """Wilson score interval `[low, high]` of a proportion; unlike the normal one it stays inside [0, 1]."""
    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"`correct` must be between 0 and `total` > 0 (got {correct} of {total}).")
    z = norm.ppf(0.5 + confidence / 2)
    p = correct / total
    centre = p + z * z / (2 * total)
    half = z * np.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    # Rounding may not push an end past the proportion itself, which at 0 and at 1 is the end.
    return [max(0.0, min(p, float((centre - half) / scale))), min(1.0, max(p, float((centre + half) / scale)))]


def _paired(hits_a, hits_b) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(hits_a, dtype=np.float64), np.asarray(hits_b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or a.size == 0:
        raise ValueError(f"A paired test needs two equally long lists of items (got shapes {a.shape} and {b.shape}).")
    return a, b


def mcnemar(hits_a, hits_b) -> dict:
    """Exact McNemar test of two models on the same items.

    `hits_a`, `hits_b` (n,) are 0 or 1. Only the items on which exactly one model is right count; under the null
    hypothesis each of them is a fair coin. Returns `only_a`, `only_b` and the two-sided `p_value`.
    """
    a, b = _paired(hits_a, hits_b)
    only_a, only_b = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    p_value = binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    return {"only_a": only_a, "only_b": only_b, "p_value": float(p_value)}


def paired_bootstrap(values_a, values_b, *, samples=10_000, confidence=0.95, seed=0) -> dict:
    """Paired bootstrap of the difference of means a - b over the same items, as in Appendix G.1.

    Returns the `difference`, its percentile `interval` and a two-sided `p_value`: twice the smaller share of
    resamples on either side of zero, with one pseudo-count so that it is never exactly zero.
    """
    a, b = _paired(values_a, values_b)
    difference = a - b
    rng = np.random.default_rng(seed)
    means = np.array([difference[rng.integers(0, a.size, a.size)].mean() for _ in range(samples)])
    tail = (1 - confidence) / 2
    smaller = min((means <= 0).sum(), (means >= 0).sum())
    return {
        "difference": float(difference.mean()),
        "interval": [float(q) for q in np.quantile(means, [tail, 1 - tail])],
        "p_value": float(min(1.0, 2 * (smaller + 1) / (samples + 1))),
    }
