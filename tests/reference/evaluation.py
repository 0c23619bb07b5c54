"""The evaluation, one item at a time and in plain loops."""

import math

import torch


def retrieval(source, target):
    """Recall@1, margin and mean rank of one direction in exact arithmetic on given cosines; ties share their place."""
    num = len(source)
    hits, margins, ranks = [], [], []
    for i in range(num):
        own = float(source[i] @ target[i])
        others = [float(source[i] @ target[j]) for j in range(num) if j != i]
        better = sum(x > own + 1e-12 for x in others)
        tied = sum(abs(x - own) <= 1e-12 for x in others)
        hits.append(0.0 if better else 1 / (1 + tied))
        margins.append(own - max(others))
        ranks.append(1 + better + tied / 2)
    return hits, margins, ranks


def token_log_probs(model, ids):
    """log p(ids[t] | ids[:t]) for t = 1 .. T-1, each from its own forward pass over the prefix alone."""
    values = []
    for t in range(1, len(ids)):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids[:t]])).logits[0, -1].double()
        values.append((logits[ids[t]] - torch.logsumexp(logits, 0)).item())
    return values


def wilson(correct, total):
    """The Wilson interval as the roots of (p - q)^2 = z^2 q (1 - q) / n in q."""
    z, p = 1.959963984540054, correct / total
    a, b, c = 1 + z * z / total, -(2 * p + z * z / total), p * p
    root = math.sqrt(b * b - 4 * a * c)
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


def mcnemar_p_value(only_a, only_b):
    """Two-sided exact binomial test with p = 1/2: the total probability of outcomes no likelier than this one."""
    n = only_a + only_b
    observed = math.comb(n, only_a)
    return sum(math.comb(n, k) for k in range(n + 1) if math.comb(n, k) <= observed) / 2**n
