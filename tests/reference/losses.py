"""Eq. 1-3 with sums over Python lists."""

import math


def dot(u, v):
    return sum(x * y for x, y in zip(u, v, strict=True))


def unit(u):
    norm = math.sqrt(dot(u, u))
    return [x / norm for x in u]


def log_probability(i, rows, columns, tau, beta=0.0, sentences=None):
    """Negatives count by exp(beta score), divided by the mean of that over the negatives. Of `sentences`, both of each
    pair, those that have one of pair i's are no negatives."""
    scores = [dot(rows[i], column) / tau for column in columns]
    negatives = [score for j, score in enumerate(scores) if j != i and not _share(sentences, i, j)]
    if not negatives:
        return 0.0
    mean = sum(math.exp(beta * score) for score in negatives) / len(negatives)
    weighted = sum(math.exp(beta * score) / mean * math.exp(score) for score in negatives)
    return scores[i] - math.log(math.exp(scores[i]) + weighted)


def _share(sentences, i, j):
    return sentences is not None and any(a == b for a in sentences[i] for b in sentences[j])


def info_nce(source, target, tau, symmetric=True, beta=0.0, q=0.0, sentences=None):
    """`source`, `target`: lists of vectors. With q, (1 - p^q) / q in the place of -log p."""
    source, target = [unit(u) for u in source], [unit(u) for u in target]

    def direction(rows, columns):
        log_probs = [log_probability(i, rows, columns, tau, beta, sentences) for i in range(len(rows))]
        return sum((1 - math.exp(value) ** q) / q if q else -value for value in log_probs) / len(rows)

    forward, backward = direction(source, target), direction(target, source)
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
