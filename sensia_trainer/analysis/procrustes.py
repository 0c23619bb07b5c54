"""Orthogonal Procrustes: can one rotation map the target language's words onto English? (Section 4, Eq. 7-9)"""

import warnings

import numpy as np
from scipy import linalg

from ..utils.statistics import paired_bootstrap


SUBSAMPLES = 5
SUBSAMPLE_PAIRS = 10_000  # Appendix G


def normalise_rows(vectors):
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1.0)


def orthogonal_map(target, source):
    """Q* = argmin over orthogonal Q of ||target Q - source||_F (Eq. 8), by the SVD of target' source.

    Args:
        target, source (`np.ndarray` of shape `(pairs, d)`).

    Returns:
        `np.ndarray` of shape `(d, d)`.

    Raises:
        `ValueError`: for vectors that are not finite.
    """
    product = target.T @ source
    if not np.isfinite(product).all():
        raise ValueError("The vectors of some word pairs are not finite: the model's senses overflow.")
    try:
        left, _, right = np.linalg.svd(product)
    except np.linalg.LinAlgError:  # fewer pairs than dimensions; the slower algorithm converges
        left, _, right = linalg.svd(product, lapack_driver="gesvd")
    return left @ right


def aligned_cosines(target, source, fit, score, *, center=True):
    """Cosine of each scored pair after the rotation that was fitted on other (or the same) pairs (Eq. 9).

    Args:
        target, source (`np.ndarray` of shape `(pairs, d)`): word vectors, made unit length here (Eq. 7).
        fit, score (`np.ndarray` of int): the pairs to fit on and the pairs to score.
        center (`bool`): subtract each side's mean over the fitted pairs ("All sense vectors were l2-normalized and
            mean-centered", Appendix G). Without it the direction shared by all words dominates the cosine.

    Returns:
        `np.ndarray` of shape `(len(score),)`.
    """
    target, source = normalise_rows(target), normalise_rows(source)
    if center:
        target, source = target - target[fit].mean(axis=0), source - source[fit].mean(axis=0)
    rotation = orthogonal_map(target[fit], source[fit])
    return np.sum(normalise_rows(target[score] @ rotation) * normalise_rows(source[score]), axis=1)


def grouped_halves(groups, generator):
    """Two halves of the pairs such that no group (a source word) is in both: its vectors would leak otherwise."""
    names = generator.permutation(np.unique(groups))
    first = np.isin(groups, names[: len(names) // 2])
    return np.flatnonzero(first), np.flatnonzero(~first)


def procrustes(source, target, *, groups=None, center=True, subsamples=SUBSAMPLES, size=SUBSAMPLE_PAIRS, seed=0):
    """Procrustes analysis of aligned word vectors, in-sample as published, held out, and for random pairs.

    The in-sample cosine grows with the dimension: d-dimensional rotations fit even random pairs when there are few.
    So each subsample is scored three times besides: fitted on half of it and scored on the other half, and both again
    with the pairing shuffled.

    Args:
        source, target (`np.ndarray` of shape `(pairs, d)`): mixture-weighted word vectors (Eq. 7) of aligned words.
        groups (`np.ndarray` of shape `(pairs,)`, *optional*): what must not be on both sides of a held-out split, as
            the source word. Every pair for itself by default.
        size (`int`): pairs per subsample, drawn without replacement; when there are no more than that, every
            subsample is all the pairs, and only the splits and shuffles differ.

    Returns:
        `dict` with `pairs`, `pairs_used`, `dimensions`, `underdetermined` (fewer pairs than dimensions), and for each
        of `in_sample`, `held_out`, `random_in_sample`, `random_held_out`: `mean` and `std` over the subsamples; and
        `scores`: `in_sample` and `held_out` cosines of each pair, averaged over the subsamples it was scored in
        (`np.ndarray` of shape `(pairs,)`, NaN if in none).
    """
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if source.shape != target.shape or source.ndim != 2:
        raise ValueError(
            "Source and target must be matrices of one shape (pairs, d), one row per aligned pair, "
            f"got {source.shape} and {target.shape}."
        )
    pairs, dimensions = source.shape
    groups = np.arange(pairs) if groups is None else np.asarray(groups)
    if len(groups) != pairs or len(np.unique(groups)) < 2:
        raise ValueError(f"A held-out split needs at least two different groups for {pairs} pairs, got {groups!r}.")
    size = min(size, pairs)
    if size < 2 * dimensions:
        which = "the in-sample fit" if size < dimensions else "the held-out fit (half of the pairs)"
        warnings.warn(
            f"{size} aligned pairs for {dimensions} dimensions: {which} is under-determined and says little; "
            "use more sentences or lower the minimum count of words.",
            stacklevel=2,
        )
    generator = np.random.default_rng(seed)
    means = {name: [] for name in ("in_sample", "held_out", "random_in_sample", "random_held_out")}
    sums = {name: np.zeros(pairs) for name in ("in_sample", "held_out")}
    counts = {name: np.zeros(pairs) for name in sums}

    def record(name, cosines, scored):
        means[name].append(cosines.mean())
        if name in sums:
            sums[name][scored] += cosines
            counts[name][scored] += 1

    for _ in range(subsamples):
        chosen = np.sort(generator.choice(pairs, size, replace=False))
        first, second = (chosen[half] for half in grouped_halves(groups[chosen], generator))
        shuffled_target = target.copy()
        shuffled_target[chosen] = target[generator.permutation(chosen)]
        for prefix, partner in (("", target), ("random_", shuffled_target)):
            record(prefix + "in_sample", aligned_cosines(partner, source, chosen, chosen, center=center), chosen)
            # Both directions, so that every pair is held out once.
            cosines = [
                aligned_cosines(partner, source, fit, score, center=center)
                for fit, score in ((first, second), (second, first))
            ]
            record(prefix + "held_out", np.concatenate(cosines), np.concatenate([second, first]))

    result = {"pairs": pairs, "pairs_used": size, "dimensions": dimensions, "underdetermined": size < dimensions}
    result |= {name: {"mean": float(np.mean(m)), "std": float(np.std(m))} for name, m in means.items()}
    with np.errstate(invalid="ignore"):
        result["scores"] = {name: sums[name] / counts[name] for name in sums}
    return result


def compare_procrustes(model, control, *, groups=None, **bootstrap):
    """Model beside control: paired bootstrap over pairs of the cosines that `procrustes` found, rotations fixed.

    Args:
        model, control (`dict`): results of `procrustes` on the same pairs with the same seed; `control` may be None.
        groups (`np.ndarray` of shape `(pairs,)`, *optional*): pairs that are drawn together, see `paired_bootstrap`.

    Returns:
        `dict`: `in_sample` and `held_out`, each as `paired_bootstrap` returns.
    """
    compared = {}
    for name, scores in model["scores"].items():
        scored = ~np.isnan(scores)
        other = None if control is None else control["scores"][name]
        if other is not None and not np.array_equal(scored, ~np.isnan(other)):
            raise ValueError("Model and control were not scored on the same pairs: use the same pairs and seed.")
        chosen = None if groups is None else np.asarray(groups)[scored]
        other = None if other is None else other[scored]
        compared[name] = paired_bootstrap(scores[scored], other, groups=chosen, **bootstrap)
    return compared
