"""Paired bootstrap over items: means, intervals and p-values (Appendix G)."""

import numpy as np
from tqdm.auto import tqdm


def bootstrap_means(values, *, weights=None, iterations=10_000, seed=0, progress=False):
    """Means of resamples with replacement; the same items are drawn for every column, so columns stay paired.

    Args:
        values (`np.ndarray` of shape `(items, columns)`).
        weights (`np.ndarray` of shape `(items,)`, *optional*): a mean becomes sum(w v) / sum(w), as for the tokens of
            a sentence. Equal weights by default.

    Returns:
        `np.ndarray` of shape `(iterations, columns)`, float64.
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
    generator = np.random.default_rng(seed)
    block = max(1, 100_000 // items)  # the draws of one block stay inside the processor's cache
    means = np.empty((iterations, len(columns)))
    for start in tqdm(range(0, iterations, block), desc="bootstrap", disable=not progress, leave=False):
        count = min(block, iterations - start)
        drawn = generator.integers(items, size=(count, items), dtype=np.int32)
        total = items if weights is None else weights[drawn].sum(axis=1)
        for index, column in enumerate(columns):
            means[start : start + count, index] = column.take(drawn).sum(axis=1) / total
    return means


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
):
    """Mean of `model`'s items beside `control`'s, with percentile intervals and the p-value of their difference.

    Args:
        model, control (`np.ndarray` of shape `(items,)`): scores of the same items in the same order. `control` may
            be None: then its entries and the difference are None.
        weights (`np.ndarray` of shape `(items,)`, *optional*): see `bootstrap_means`.
        groups (`np.ndarray` of shape `(items,)`, *optional*): items of one group are drawn together, because they are
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
    means = bootstrap_means(columns, weights=weights, iterations=iterations, seed=seed, progress=progress)
    average = np.average(columns, axis=0, weights=weights)
    if control is not None:  # the mean of differences is the difference of means
        means = np.column_stack([means, means[:, 0] - means[:, 1]])
        average = np.append(average, average[0] - average[1])
    tail = 50 * (1 - confidence)
    low, high = np.percentile(means, [tail, 100 - tail], axis=0)
    result = {"items": items, "groups": len(columns), "iterations": iterations, "seed": seed, "confidence": confidence}
    for column, name in enumerate(["model", "control", "difference"]):
        if column < len(average):
            interval = [float(low[column]), float(high[column])]
            result[name] = {"mean": float(average[column]), "interval": interval}
        else:
            result[name] = None
    if control is not None:
        below, above = (means[:, 2] <= 0).sum(), (means[:, 2] >= 0).sum()
        result["difference"]["p_value"] = float(min(1.0, 2 * (min(below, above) + 1) / (iterations + 1)))
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
