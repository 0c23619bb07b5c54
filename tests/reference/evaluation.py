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


def choice_log_likelihood(model, context, continuation):
    """log p(continuation | context), tokens one after the other, each from its own forward pass."""
    values = token_log_probs(model, context + continuation)
    return sum(values[len(context) - 1 :])


def interpolated_score(conditional, unconditional, length, lam, alpha):
    """Appendix E for one choice: (1 - lambda) PMI(A, C) + lambda log p(A|C) + alpha len(A), averages over tokens."""
    given, alone = conditional / length, unconditional / length
    return (1 - lam) * (given - alone) + lam * given + alpha * length


def search_grid(conditional, unconditional, lengths, labels):
    """Accuracy of each of the 121 cells in plain loops; the best, then the smallest alpha, then the largest lambda."""
    cells = {}
    for i in range(11):
        for j in range(11):
            correct = 0
            for item, label in enumerate(labels):
                values = [
                    interpolated_score(conditional[item][c], unconditional[item][c], lengths[item][c], i / 10, j / 10)
                    for c in range(len(conditional[item]))
                ]
                correct += values.index(max(values)) == label
            cells[(i / 10, j / 10)] = correct / len(labels)
    best = max(cells.values())
    lam, alpha = min((cell for cell in cells if cells[cell] == best), key=lambda cell: (cell[1], -cell[0]))
    return lam, alpha, best


def overlap_idf(sentences, vocab_size):
    """ln((1 + N) / (1 + df)) of every token, df the sentences that hold it."""
    return [
        math.log((1 + len(sentences)) / (1 + sum(token in ids for ids in sentences))) for token in range(vocab_size)
    ]


def overlap_vector(ids, idf):
    """Counts times idf, of unit length."""
    weights = [ids.count(token) * idf[token] for token in range(len(idf))]
    norm = math.sqrt(sum(weight**2 for weight in weights))
    return [weight / norm if norm else 0.0 for weight in weights]
