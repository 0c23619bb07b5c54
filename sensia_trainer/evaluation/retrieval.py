"""Bilingual retrieval: does each sentence find its own translation? (Section 2.2, Figure 2)"""

import torch
from torch import Tensor

from ..utils.statistics import bootstrap_interval


DIRECTIONS = ("source_to_target", "target_to_source")


def retrieval_metrics(source: Tensor, target: Tensor, *, chunk_size=1024, bootstrap=0, seed=0) -> dict:
    """Nearest-neighbour retrieval by cosine, in both directions; row i of `source` translates row i of `target`.

    For each direction (`..._source_to_target`, `..._target_to_source`):

    - `recall_...`: share of queries whose translation is the nearest candidate (recall@1);
    - `margin_...`: mean of the cosine to the translation minus the cosine to the best wrong candidate;
    - `mean_rank_...`: mean rank of the translation, 1 is best;
    - each with `..._interval`: 95 % bootstrap interval over queries, when `bootstrap` > 0 resamples are asked for.

    For arguments, ties and errors see `retrieval_by_query`.
    """
    return summarize_retrieval(retrieval_by_query(source, target, chunk_size=chunk_size), bootstrap, seed)


def summarize_retrieval(found: dict[str, Tensor], bootstrap=0, seed=0) -> dict:
    """The means of `retrieval_metrics`, with their intervals, from the values of every query."""
    metrics = {}
    for i, direction in enumerate(DIRECTIONS):
        for name, key in (("recall", "hits"), ("margin", "margins"), ("mean_rank", "ranks")):
            values = found[key][i].cpu().double()
            metrics[f"{name}_{direction}"] = values.mean().item()
            if bootstrap:
                interval = bootstrap_interval(values, samples=bootstrap, seed=seed)
                metrics[f"{name}_{direction}_interval"] = interval
    return metrics


def retrieval_by_query(source: Tensor, target: Tensor, *, chunk_size=1024) -> dict[str, Tensor]:
    """`hits`, `margins` and `ranks` of every query, each (2, N): source to target, then target to source.

    Ties count as what a fair coin would give: a translation that shares the first place with m other candidates is a
    hit of 1 / (m + 1) and has rank 1 + m / 2. So a collapsed model scores 1 / N, and duplicated sentences cost what
    they should. Cosines closer than the rounding error of their dtype are tied.

    Args:
        source (`Tensor` of shape `(N, d)`): Unit vectors; half precision is computed in float32.
        target (`Tensor` of shape `(N, d)`): Unit vectors.
        chunk_size (`int`): Rows of the N x N cosine matrix held at once.

    Raises:
        `ValueError`: If the shapes differ, there are fewer than two pairs, or a row is not a finite unit vector.
    """
    if source.shape != target.shape or source.dim() != 2:
        raise ValueError(
            f"`source` and `target` must be two (N, d) matrices of equal shape (got {tuple(source.shape)} and "
            f"{tuple(target.shape)}): row i of one is the translation of row i of the other."
        )
    if len(source) < 2:
        raise ValueError(f"Retrieval needs at least two pairs to choose from (got {len(source)}).")
    dtype = torch.float64 if source.dtype == torch.float64 else torch.float32
    source, target = source.to(dtype), target.to(dtype)
    for name, vectors in (("source", source), ("target", target)):
        wrong = ~((vectors.norm(dim=-1) - 1).abs() < 1e-2)  # also true for NaN
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise ValueError(
                f"`{name}` must hold finite unit vectors; row {row} has norm {vectors[row].norm().item():.4g} "
                f"({int(wrong.sum())} of {len(vectors)} rows are wrong)."
            )

    own = (source * target).sum(-1)
    with torch.autocast(source.device.type, enabled=False):  # which would round the cosines to the model's precision
        return rank_translations(own, lambda start, stop: source[start:stop] @ target.T, chunk_size)


def rank_translations(own: Tensor, cosines, chunk_size=1024) -> dict[str, Tensor]:
    """`hits`, `margins` and `ranks` (see `retrieval_by_query`) from cosines, whatever vectors they are of.

    Args:
        own (`Tensor` of shape `(N,)`): Cosine of each pair.
        cosines (`Callable`): Rows `start` to `stop` of the cosine matrix, `(stop - start, N)`, in the dtype of `own`.
        chunk_size (`int`): Rows of it held at once.
    """
    tie, num = (1e-12 if own.dtype == torch.float64 else 1e-6), len(own)
    better, tied = torch.zeros(2, num, device=own.device), torch.zeros(2, num, device=own.device)
    best_other = torch.full((2, num), -2.0, dtype=own.dtype, device=own.device)
    for start in range(0, num, chunk_size):
        rows = torch.arange(start, min(start + chunk_size, num), device=own.device)
        cosine = cosines(start, start + len(rows))
        cosine[torch.arange(len(rows), device=own.device), rows] = -2.0  # the translation itself is not a competitor
        # One product serves both directions: rows are source queries, columns are target queries.
        by_row, by_column = cosine - own[rows, None], cosine - own[None, :]
        better[0, rows] = (by_row > tie).sum(1).float()
        tied[0, rows] = (by_row.abs() <= tie).sum(1).float()
        best_other[0, rows] = cosine.amax(1)
        better[1] += (by_column > tie).sum(0)
        tied[1] += (by_column.abs() <= tie).sum(0)
        best_other[1] = torch.maximum(best_other[1], cosine.amax(0))

    hits = torch.where(better == 0, 1 / (1 + tied), 0.0)
    return {"hits": hits, "margins": own - best_other, "ranks": 1 + better + tied / 2}
