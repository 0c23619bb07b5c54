"""Eq. 1-3 with sums over Python lists."""

import math


def dot(u, v):
    return sum(x * y for x, y in zip(u, v, strict=True))


def unit(u):
    norm = math.sqrt(dot(u, u))
    return [x / norm for x in u]


def log_probability(i, rows, columns, tau, excluded=lambda i, j: False):
    scores = [math.exp(dot(rows[i], columns[j]) / tau) for j in range(len(columns)) if j == i or not excluded(i, j)]
    return dot(rows[i], columns[i]) / tau - math.log(sum(scores))


def info_nce(source, target, tau, symmetric=True, excluded=lambda i, j: False):
    """`source`, `target`: lists of vectors; `excluded(i, j)`: whether pair j is no negative of pair i."""
    source, target = [unit(u) for u in source], [unit(u) for u in target]
    pairs = range(len(source))
    forward = -sum(log_probability(i, source, target, tau, excluded) for i in pairs) / len(source)
    backward = -sum(log_probability(i, target, source, tau, excluded) for i in pairs) / len(source)
    return (forward + backward) / 2 if symmetric else forward
