"""Scores of multiple-choice items (Appendix E), computed on arrays of log-likelihoods. Pure functions.

With log p(A|C) and log p(A) averaged over the tokens of the choice A:

    sum            log-likelihood of the whole choice, not averaged (the harness's `acc`; Goldfish's Belebele)
    cond           log p(A|C)
    pmi            PMI(A, C) = log p(A|C) - log p(A), the unconditional prior from a start token with no context
    interpolated   (1 - lambda) PMI(A, C) + lambda log p(A|C) + alpha len(A)

lambda = 1 uses no prior; this is what "cond" means in the lambda columns of Table 11. Equal best scores go to the
first of them, and `accuracy` counts such items.
"""

import json
from pathlib import Path

import numpy as np

from ..utils.statistics import wilson_interval
from .likelihood import ChoiceLikelihoods


GRID = tuple(round(0.1 * i, 1) for i in range(11))
SCORINGS = ("sum", "cond", "pmi")


def interpolate(likelihoods: ChoiceLikelihoods, lam: float, alpha: float) -> np.ndarray:
    """Scores (n, C) of the unified objective of Appendix E; `lam` is lambda. Without a prior only lambda = 1 works."""
    lengths = np.maximum(likelihoods.lengths, 1)  # a choice that was cut away has none
    conditional = likelihoods.conditional / lengths
    if lam == 1:
        return conditional + alpha * likelihoods.lengths
    if likelihoods.unconditional is None:
        raise ValueError(
            "PMI needs a start token to condition the prior on, and this tokenizer has none (no BOS, CLS or EOS). "
            "Give one by its id, or score by 'cond' (lambda = 1)."
        )
    pmi = conditional - likelihoods.unconditional / lengths
    return (1 - lam) * pmi + lam * conditional + alpha * likelihoods.lengths


def scores(likelihoods: ChoiceLikelihoods, scoring: str) -> np.ndarray:
    """Scores (n, C) by "sum", "cond" or "pmi"."""
    if scoring == "sum":
        return likelihoods.conditional
    if scoring not in SCORINGS:
        raise ValueError(f"`scoring` must be one of {SCORINGS} (got {scoring!r}).")
    return interpolate(likelihoods, {"cond": 1.0, "pmi": 0.0}[scoring], 0.0)


def accuracy(values: np.ndarray, labels: np.ndarray) -> dict:
    """`accuracy` of picking the best score, with its Wilson 95 % `interval`, `correct`, `total`, the number of items
    whose best score is shared (`ties`), and whether the interval holds the `chance` level 1 / C (`at_chance`)."""
    hits = values.argmax(1) == labels
    correct, total = int(hits.sum()), len(labels)
    low, high = wilson_interval(correct, total)
    chance = 1 / values.shape[1]
    return {
        "accuracy": correct / total,
        "interval": [low, high],
        "correct": correct,
        "total": total,
        "ties": int(((values == values.max(1, keepdims=True)).sum(1) > 1).sum()),
        "chance": chance,
        "at_chance": low <= chance <= high,
    }


def grid_search(likelihoods: ChoiceLikelihoods, *, split: str) -> dict:
    """The lambda and alpha of the 11 x 11 grid with the best accuracy; among equals the smallest alpha, then the
    largest lambda (the nearest to plain conditional scoring).

    Args:
        split: Where the likelihoods come from; only "validation" may choose parameters.

    Returns:
        `lambda`, `alpha`, their validation `accuracy`, how many cells of the grid share it (`ties`), and the
        accuracies of the whole `grid`, rows lambda and columns alpha.
    """
    if split != "validation":
        raise ValueError(f"Scoring parameters are chosen on the validation split only (got {split!r}).")
    grid = np.array([
        [(interpolate(likelihoods, lam, alpha).argmax(1) == likelihoods.labels).mean() for alpha in GRID]
        for lam in GRID
    ])  # fmt: skip
    best = [(j, -i) for i, j in np.argwhere(grid == grid.max())]
    column, row = min(best)
    return {
        "lambda": GRID[-row],
        "alpha": GRID[column],
        "accuracy": float(grid.max()),
        "ties": len(best),
        "grid": grid.round(6).tolist(),
    }


def paper_parameters(task: str, code: str) -> dict | None:
    """lambda and alpha of Table 11 for a task and ISO 639-1 code, or `None` where the table has no entry."""
    table = json.loads((Path(__file__).parent / "data" / "paper_table11.json").read_text(encoding="utf-8"))
    return table["parameters"].get(code, {}).get(task)
