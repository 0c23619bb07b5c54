"""Plain, slow restatements of the formulas of `sensia_trainer.analysis`, in float64."""

import math

import numpy as np


def topology_score(source, target):
    """Eq. 4-6 for one pair of (K, d) matrices."""
    geometries = []
    for senses in (source, target):
        centred = [row - sum(senses) / len(senses) for row in np.asarray(senses, dtype=np.float64)]
        unit = [row / math.sqrt(sum(x * x for x in row)) for row in centred]
        cosines = [float(np.dot(unit[i], unit[j])) for i in range(len(unit)) for j in range(i + 1, len(unit))]
        geometries.append([round(c, 12) for c in cosines])
    return spearman(*geometries)


def ranks(values):
    """Average ranks: one plus how many are smaller, plus half of how many others are equal."""
    return [1 + sum(u < v for u in values) + (sum(u == v for u in values) - 1) / 2 for v in values]


def spearman(first, second):
    x, y = ranks(first), ranks(second)
    mean = (len(x) + 1) / 2
    covariance = sum((a - mean) * (b - mean) for a, b in zip(x, y))
    return covariance / math.sqrt(sum((a - mean) ** 2 for a in x) * sum((b - mean) ** 2 for b in y))


def word_mixture(senses, probs, positions):
    """Eq. 7 for one word: senses (T, K, d), probs (T, K); averaged over the word's subword positions."""
    total = 0
    for t in positions:
        for k in range(senses.shape[1]):
            total = total + probs[t][k] * np.asarray(senses[t][k], dtype=np.float64)
    return total / len(positions)


def one_to_one(links):
    """Links whose two words have no other link."""
    return [(i, j) for i, j in links if sum(a == i for a, _ in links) == 1 and sum(b == j for _, b in links) == 1]


def mutual_information(probs):
    """I(word; sense) in nats when words are equally likely and p(sense | word) = probs[word]."""
    words, senses = len(probs), len(probs[0])
    marginal = [sum(row[k] for row in probs) / words for k in range(senses)]
    return sum(row[k] / words * math.log(row[k] / marginal[k]) for row in probs for k in range(senses) if row[k] > 0)


def recall_without(source, target, removed):
    """Recall@1 of sentence vectors without sense `removed`; source, target (N, K, d): mean of each sense."""
    keep = [k for k in range(source.shape[1]) if k != removed]
    left, right = source[:, keep].sum(axis=1), target[:, keep].sum(axis=1)
    hits = 0
    for i, query in enumerate(left):
        cosines = [np.dot(query, r) / np.linalg.norm(query) / np.linalg.norm(r) for r in right]
        hits += int(np.argmax(cosines)) == i
    return hits / len(left)


def cross_entropy(logits, labels):
    """Mean negative log-probability in nats of labels under logits (T, V)."""
    total = 0.0
    for row, label in zip(np.asarray(logits, dtype=np.float64), labels):
        total -= row[label] - row.max() - math.log(np.exp(row - row.max()).sum())
    return total / len(labels)
