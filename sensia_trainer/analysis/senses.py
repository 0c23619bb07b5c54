"""More about single senses: what they tell, how far they moved, whom they are near, and which carry the alignment."""

import numpy as np

from .procrustes import normalise_rows


TIE = 1e-6  # cosines that differ by rounding


def mutual_information(probs) -> float:
    """I(word; sense) in nats: how much the sense distribution depends on the word.

    The entropy of the average distribution minus the average entropy. 0 when every word weighs the senses alike
    (whatever the entropy), at most ln K.

    Args:
        probs (`np.ndarray` of shape `(words, K)`): sense probabilities pi; each row sums to one.
    """
    probs = np.asarray(probs, dtype=np.float64)
    if probs.ndim != 2 or len(probs) == 0 or not np.allclose(probs.sum(axis=1), 1.0, atol=1e-4):
        raise ValueError(f"`probs` must be a non-empty matrix whose rows sum to one, got shape {probs.shape}.")

    def entropy(p):
        return -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1)

    return float(entropy(probs.mean(axis=0)) - entropy(probs).mean())


def sense_drift(base, adapted) -> dict:
    """How far adaptation moved each sense of the same words (Section 4).

    Args:
        base, adapted (`np.ndarray` of shape `(words, K, d)`): senses of the same words before and after.

    Returns:
        `dict`: `cosine` (mean, and `cosine_by_sense`, K numbers) and `norm_ratio` (adapted over base, mean, and
        `norm_ratio_by_sense`).

    Raises:
        `ValueError`: If the shapes differ, as with models of different vocabularies, senses or widths.
    """
    base, adapted = np.asarray(base, dtype=np.float64), np.asarray(adapted, dtype=np.float64)
    if base.shape != adapted.shape:
        raise ValueError(
            f"Drift compares the same words, senses and dimensions, got {base.shape} and {adapted.shape}: "
            "is `base` the model that the adapted one started from?"
        )
    norms = [np.linalg.norm(side, axis=2) for side in (base, adapted)]
    floor = np.finfo(np.float64).tiny
    cosines = (base * adapted).sum(axis=2) / np.maximum(norms[0] * norms[1], floor)
    ratios = norms[1] / np.maximum(norms[0], floor)
    return {
        "cosine": float(cosines.mean()),
        "cosine_by_sense": cosines.mean(axis=0).tolist(),
        "norm_ratio": float(ratios.mean()),
        "norm_ratio_by_sense": ratios.mean(axis=0).tolist(),
    }


def sense_neighbours(queries, candidates, names, *, count: int = 5) -> tuple[list[list[list[str]]], np.ndarray]:
    """For every query word and sense k, the candidate words whose sense k is nearest by cosine.

    Args:
        queries (`np.ndarray` of shape `(words, K, d)`), candidates (`np.ndarray` of shape `(others, K, d)`).
        names: The candidates' words.

    Returns:
        names, nearest first, as `[word][sense][rank]`, and their cosines, `(words, K, count)`.
    """
    if len(names) != len(candidates):
        raise ValueError(f"`names` must name every candidate, got {len(names)} names for {len(candidates)}.")
    nearest_names, nearest_cosines = [[] for _ in queries], []
    for sense in range(queries.shape[1]):
        cosines = normalise_rows(queries[:, sense]) @ normalise_rows(candidates[:, sense]).T
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
        nearest_cosines.append(np.take_along_axis(cosines, nearest, axis=1))
        for word, row in enumerate(nearest):
            nearest_names[word].append([names[index] for index in row])
    return nearest_names, np.stack(nearest_cosines, axis=1)


def translation_precision(source, target, gold) -> dict:
    """How often the nearest target word by sense k is a translation of the source word.

    Args:
        source (`np.ndarray` of shape `(words, K, d)`), target (`np.ndarray` of shape `(others, K, d)`).
        gold (`np.ndarray` of bool of shape `(words, others)`): which target words translate which source word.

    Returns:
        `dict`: `by_sense` (precision@1 of each sense), `all_senses` (of all senses side by side, as one vector of
        length K d whose parts have unit length), and `chance`.
    """
    source, target = (
        side / np.maximum(np.linalg.norm(side, axis=2, keepdims=True), 1e-30) for side in (source, target)
    )
    rows = np.arange(len(source))
    by_sense, total = [], 0.0
    for sense in range(source.shape[1]):
        cosines = source[:, sense] @ target[:, sense].T
        total = total + cosines
        by_sense.append(float(gold[rows, cosines.argmax(axis=1)].mean()))
    return {
        "by_sense": by_sense,
        "all_senses": float(gold[rows, total.argmax(axis=1)].mean()),
        "chance": float(gold.mean()),
    }


def recall_at_1(source, target) -> float:
    """Share of rows of `source` (n, d) whose nearest row of `target` by cosine is their own translation; of several
    that are as near, each counts as its part."""
    cosines = normalise_rows(source) @ normalise_rows(target).T
    nearest = cosines >= cosines.max(axis=1, keepdims=True) - TIE
    return float(np.mean(np.diag(nearest) / nearest.sum(axis=1)))


def recall_by_sense(source, target) -> dict:
    """Recall@1 of sentence sense vectors with each sense removed, and with each sense alone.

    A sentence's sense vector is a sum over senses, so a sense is removed by leaving its term out; the sense
    probabilities of the others stay as they are.

    Args:
        source, target (`np.ndarray` of shape `(sentences, K, d)`): mean_t pi_tk S_tk, see `sentence_senses`.

    Returns:
        `dict` with `source_to_target` and `target_to_source`, each holding `all`, `without` and `alone` (K numbers).
    """
    if source.shape != target.shape or source.ndim != 3:
        raise ValueError(f"Both sides must have one shape (sentences, K, d), got {source.shape} and {target.shape}.")
    totals = source.sum(axis=1), target.sum(axis=1)
    senses = range(source.shape[1])
    result = {}
    for name, swap in (("source_to_target", False), ("target_to_source", True)):
        sides = (target, source) if swap else (source, target)
        sums = totals[::-1] if swap else totals
        result[name] = {
            "all": recall_at_1(*sums),
            "without": [recall_at_1(*(total - side[:, k] for total, side in zip(sums, sides))) for k in senses],
            "alone": [recall_at_1(*(side[:, k] for side in sides)) for k in senses],
        }
    return result
