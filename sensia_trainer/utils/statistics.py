"""Uncertainty of scores measured on a finite set of items: intervals and paired tests. Pure functions of arrays."""

import math

import numpy as np
from scipy.stats import binomtest, bootstrap
from tqdm.auto import tqdm


def bootstrap_means(values, *, weights=None, samples=10_000, seed=0, progress=False) -> np.ndarray:
    """Means of resamples with replacement; the same items are drawn for every column, so columns stay paired.

    Args:
        values (`np.ndarray` of shape `(items, columns)`): Scores.
        weights (`np.ndarray` of shape `(items,)`, *optional*): A mean becomes sum(w v) / sum(w), as for the tokens of
            a sentence. Equal weights by default.
        samples (`int`, *optional*, defaults to 10,000): Resamples.
        seed (`int`, *optional*, defaults to 0): Of the draws.
        progress (`bool`, *optional*, defaults to `False`): Whether to show a bar.

    Returns:
        `np.ndarray` of shape `(samples, columns)`, float64; fewer samples where some draw items of no weight alone,
        whose mean is none.

    Raises:
        `ValueError`: for values that are not a matrix of finite numbers, or weights that do not fit them.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or len(values) == 0:
        raise ValueError(f"`values` must be a non-empty matrix (items, columns), got shape {values.shape}.")
    if not np.isfinite(values).all():
        raise ValueError("`values` holds NaN or infinite entries; drop those items first, in all columns.")
    items = len(values)
    columns = list(np.ascontiguousarray(values.T))
    if weights is not None:
        weights = np.asarray(weights, dtype=np.float64)
        if weights.shape != (items,) or weights.sum() <= 0 or (weights < 0).any():
            raise ValueError(f"`weights` must be {items} numbers >= 0, not all zero, got shape {weights.shape}.")
        columns = [column * weights for column in columns]
    return _resampled_ratios(columns, weights, samples, seed, progress)


def _resampled_ratios(numerators, denominators, samples, seed, progress=False):
    """Sums of each numerator over drawn items, divided by those of the denominators (`None`: by their number); without
    the draws whose denominators are all zero."""
    items, parts = len(numerators[0]), [*numerators] if denominators is None else [*numerators, denominators]
    with tqdm(total=samples, desc="bootstrap", disable=not progress, leave=False) as bar:

        def sums(drawn, axis):
            bar.update(len(drawn))
            return np.stack([part.take(drawn).sum(axis) for part in parts])

        if items == 1:  # SciPy resamples nothing that cannot vary
            found = np.repeat(sums(np.zeros((1, 1), dtype=int), -1), samples, axis=1)
        else:
            # The items drawn of one block stay inside the processor's cache.
            block = max(1, 100_000 // items)
            settings = {"n_resamples": samples, "batch": block, "method": "percentile", "vectorized": True}
            rng = np.random.default_rng(seed)
            found = bootstrap((np.arange(items),), sums, rng=rng, **settings).bootstrap_distribution
    if denominators is None:
        return found.T / items
    *found, totals = found[:, found[-1] > 0]
    return (np.stack(found) / totals).T


def percentile_interval(distribution, confidence=0.95) -> np.ndarray:
    """Percentile interval of each column of a bootstrap distribution `(samples, columns)`, of shape `(2, columns)`."""
    tail = (1 - confidence) / 2
    return np.quantile(distribution, [tail, 1 - tail], axis=0)


def bootstrap_interval(values, *, samples=1000, confidence=0.95, seed=0) -> list[float]:
    """Percentile bootstrap interval `[low, high]` of the mean of `values` (n,), resampling items with replacement."""
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0:
        raise ValueError("`values` is empty: an interval needs at least one item.")
    means = bootstrap_means(values[:, None], samples=samples, seed=seed)
    return percentile_interval(means, confidence)[:, 0].tolist()


def bootstrap_ratio_interval(numerators, denominators, *, samples=1000, confidence=0.95, seed=0) -> list[float] | None:
    """Percentile bootstrap interval `[low, high]` of sum(numerators) / sum(denominators), resampling items; None where
    the denominators are zero in every resample.

    For means over tokens measured on sentences: both arrays `(n,)` hold a sum of each sentence, which is drawn whole.
    """
    numerators, denominators = (np.asarray(values, dtype=np.float64) for values in (numerators, denominators))
    if numerators.shape != denominators.shape or numerators.size == 0:
        raise ValueError(
            f"`numerators` and `denominators` must be equally long and not empty (got {numerators.shape} and "
            f"{denominators.shape})."
        )
    ratios = _resampled_ratios([numerators], denominators, samples, seed)
    return percentile_interval(ratios, confidence)[:, 0].tolist() if len(ratios) else None


def wilson_interval(correct: int, total: int, *, confidence=0.95) -> list[float]:
    """Wilson score interval `[low, high]` of a proportion; unlike the normal one it stays inside [0, 1]."""
    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"`correct` must be between 0 and `total` > 0 (got {correct} of {total}).")
    low, high = binomtest(correct, total).proportion_ci(confidence, method="wilson")
    # Rounding may not push an end past the proportion itself, which at 0 and at 1 is the end.
    return [max(0.0, min(correct / total, float(low))), min(1.0, max(correct / total, float(high)))]


def difference_interval(first: float, first_interval, other: float, other_interval) -> list[float]:
    """Interval `[low, high]` of `first` minus `other`, two values with errors of their own that are taken as
    independent: the squares of their distances to the ends of their intervals add up (Newcombe 1998, equation 10). A
    value without an interval (`None`) is one without error."""
    low, high = first_interval or (first, first)
    other_low, other_high = other_interval or (other, other)
    difference = first - other
    return [
        difference - math.hypot(first - low, other_high - other),
        difference + math.hypot(high - first, other - other_low),
    ]


def mcnemar(hits_a, hits_b) -> dict:
    """Exact McNemar test of two models on the same items.

    `hits_a`, `hits_b` (n,) are 0 or 1. Only the items on which exactly one model is right count; under the null
    hypothesis each of them is a fair coin. Returns `only_a`, `only_b` and the two-sided `p_value`.
    """
    a, b = np.asarray(hits_a, dtype=np.float64), np.asarray(hits_b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or a.size == 0:
        raise ValueError(f"A paired test needs two equally long lists of items (got shapes {a.shape} and {b.shape}).")
    only_a, only_b = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    p_value = binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    return {"only_a": only_a, "only_b": only_b, "p_value": float(p_value)}


def paired_bootstrap(
    model,
    control=None,
    *,
    weights=None,
    groups=None,
    iterations=10_000,
    seed=0,
    confidence=0.95,
    progress=False,
) -> dict:
    """Mean of `model`'s items beside `control`'s, with percentile intervals and the p-value of their difference
    (Appendix G).

    Args:
        model, control (`np.ndarray` of shape `(items,)`): Scores of the same items in the same order. `control` may
            be None: then its entries and the difference are None.
        weights (`np.ndarray` of shape `(items,)`, *optional*): See [`bootstrap_means`].
        groups (`np.ndarray` of shape `(items,)`, *optional*): Items of one group are drawn together, because they are
            not independent, as the occurrences of one word. Every item for itself by default.

    Returns:
        `dict` with `items`, `groups` (how many were drawn from), `iterations`, `seed`, `confidence` and, for each of
        `model`, `control` and `difference` (model minus control), `mean` and `interval` `[low, high]`; `difference`
        has `p_value` besides: two-sided, twice the share of resamples on the other side of zero, counted so that it
        is never 0 (at least 2 / (iterations + 1)).
    """
    model = np.asarray(model, dtype=np.float64)
    columns = [model]
    if control is not None:
        control = np.asarray(control, dtype=np.float64)
        if control.shape != model.shape:
            raise ValueError(f"`control` must score the same items as `model`, got {control.shape} and {model.shape}.")
        columns.append(control)
    columns, items = np.stack(columns, axis=1), len(model)
    if groups is not None:
        columns, weights = _group_means(columns, weights, groups)
    means = bootstrap_means(columns, weights=weights, samples=iterations, seed=seed, progress=progress)
    average = np.average(columns, axis=0, weights=weights)
    if control is not None:  # the mean of differences is the difference of means
        means = np.column_stack([means, means[:, 0] - means[:, 1]])
        average = np.append(average, average[0] - average[1])
    low, high = percentile_interval(means, confidence)
    result = {"items": items, "groups": len(columns), "iterations": iterations, "seed": seed, "confidence": confidence}
    for column, name in enumerate(["model", "control", "difference"]):
        if column < len(average):
            interval = [float(low[column]), float(high[column])]
            result[name] = {"mean": float(average[column]), "interval": interval}
        else:
            result[name] = None
    if control is not None:
        below, above = (means[:, 2] <= 0).sum(), (means[:, 2] >= 0).sum()
        result["difference"]["p_value"] = float(min(1.0, 2 * (min(below, above) + 1) / (len(means) + 1)))
    return result


def _group_means(columns, weights, groups):
    """Groups as items: their weighted means and total weights, from which any mean over whole groups follows."""
    if len(groups) != len(columns):
        raise ValueError(f"`groups` must give a group to each of {len(columns)} items, got {len(groups)}.")
    weights = np.ones(len(columns)) if weights is None else np.asarray(weights, dtype=np.float64)
    group = np.unique(groups, return_inverse=True)[1]
    totals = np.bincount(group, weights=weights)
    if (totals <= 0).any():
        raise ValueError("`weights` are all zero within a group; leave its items out.")
    means = [np.bincount(group, weights=weights * column) / totals for column in columns.T]
    return np.stack(means, axis=1), totals
