"""Sense topology: is each word's constellation of senses kept across languages? (Section 4, Eq. 4-6)

Only the pattern of similarities among the K senses of a word is compared, never one sense with another, so the score
does not change when one side's senses are rotated, shifted or uniformly scaled.
"""

import numpy as np
from scipy.stats import rankdata


# Equal cosines computed along different summation paths differ by about 1e-16; rounding makes them the ties they are.
COSINE_DECIMALS = 12


def sense_geometry(senses, *, chunk_size=512):
    """Upper triangles of the cosine Gram matrices of centred senses (Eq. 4-5).

    Args:
        senses (`np.ndarray` of shape `(pairs, K, d)`): pre-context senses of words, pooled over their subwords.
            Any float dtype, memory maps included; computed in float64.
        chunk_size (`int`, defaults to 512): words per matrix product, which bounds the memory used.

    Returns:
        `np.ndarray` of shape `(pairs, K * (K - 1) / 2)`, float64. A row is NaN when its K senses are not distinct or
        one of them equals their mean: the paper discards such words (footnote 7).
    """
    if senses.ndim != 3 or senses.shape[1] < 3:
        raise ValueError(
            f"`senses` must have shape (pairs, K, d) with K >= 3 (fewer senses have no pattern), got {senses.shape}."
        )
    num_senses = senses.shape[1]
    rows, columns = np.triu_indices(num_senses, k=1)
    geometry = np.empty((len(senses), len(rows)))
    for start in range(0, len(senses), chunk_size):
        centred = np.array(senses[start : start + chunk_size], dtype=np.float64)
        mean = centred.mean(axis=1, keepdims=True)
        centred -= mean
        gram = centred @ centred.transpose(0, 2, 1)
        norms = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
        scale = np.linalg.norm(mean, axis=2) + norms.max(axis=1, keepdims=True)
        degenerate = (norms <= 1e-12 * scale).any(axis=1)
        norms[norms == 0] = 1.0
        cosines = gram[:, rows, columns] / (norms[:, rows] * norms[:, columns])
        # Distinct senses may still be collinear after centring; only truly equal rows are "fewer than K senses".
        for pair in np.flatnonzero((cosines > 1 - 1e-9).any(axis=1)):
            distinct = np.unique(np.asarray(senses[start + pair], dtype=np.float64), axis=0)
            degenerate[pair] |= len(distinct) < num_senses
        cosines[degenerate] = np.nan
        geometry[start : start + chunk_size] = np.round(cosines, COSINE_DECIMALS)
    return geometry


def standardised_ranks(values):
    """Centred ranks of unit norm, so that Spearman's coefficient of two rows is their dot product.

    Rows that are constant or hold a NaN become NaN: their coefficient is undefined.
    """
    ranks = rankdata(values, axis=1, nan_policy="propagate")
    ranks -= ranks.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(ranks, axis=1, keepdims=True)
    return ranks / np.where(norms > 0, norms, np.nan)


def topology_scores(source, target):
    """Topology score of every aligned word pair (Eq. 6) and what chance would give it.

    A word's geometry depends on its spelling alone, so a corpus needs it once for every distinct spelling.

    Args:
        source, target (`np.ndarray` of shape `(pairs, K * (K - 1) / 2)`): [`standardised_ranks`] of the
            [`sense_geometry`] of the words of each pair. The widths d of their senses may differ.

    Returns:
        `tuple` of two arrays of shape `(pairs,)`, float64:
        the score rho of each pair, and the mean score of its source word with the target words of all *other* pairs.
        The second is the shuffled-pair baseline in closed form (the mean over every possible mismatch, so no seed):
        it is what the sense index alone explains. Where a word occurs more than once, a few of its mismatches are
        translations of it, which makes the baseline slightly too high. Both are NaN for discarded pairs.
    """
    usable = ~(np.isnan(source).any(axis=1) | np.isnan(target).any(axis=1))
    scores = np.full(len(source), np.nan)
    mismatched = np.full(len(source), np.nan)
    source, target = source[usable], target[usable]
    scores[usable] = np.sum(source * target, axis=1)
    if len(source) > 1:
        mismatched[usable] = (source @ target.sum(axis=0) - scores[usable]) / (len(source) - 1)
    return scores, mismatched
