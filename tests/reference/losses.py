"""Eq. 1-3 with sums over Python lists."""

import math


def dot(u, v):
    return sum(x * y for x, y in zip(u, v, strict=True))


def unit(u):
    norm = math.sqrt(dot(u, u))
    return [x / norm for x in u]


def log_probability(i, rows, columns, tau):
    scores = [math.exp(dot(rows[i], column) / tau) for column in columns]
    return dot(rows[i], columns[i]) / tau - math.log(sum(scores))


def info_nce(source, target, tau, symmetric=True):
    """`source`, `target`: lists of vectors."""
    source, target = [unit(u) for u in source], [unit(u) for u in target]
    pairs = range(len(source))
    forward = -sum(log_probability(i, source, target, tau) for i in pairs) / len(source)
    backward = -sum(log_probability(i, target, source, tau) for i in pairs) / len(source)
    return (forward + backward) / 2 if symmetric else forward


def next_token_loss(states, weight, bias, labels, label_smoothing=0.0, scale=1.0, softcap=None):
    """The sum over labels (-100: none) of -(1 - eps) log p(label) - eps / V sum_v log p(v), token by token."""
    total = 0.0
    for state, label in zip(states.flatten(0, -2), labels.flatten().tolist(), strict=True):
        if label == -100:
            continue
        scores = scale * (weight @ state + (0 if bias is None else bias))
        if softcap is not None:
            scores = softcap * (scores / softcap).tanh()
        log_probs = scores - scores.exp().sum().log()
        total = total - (1 - label_smoothing) * log_probs[label] - label_smoothing * log_probs.mean()
    return total
