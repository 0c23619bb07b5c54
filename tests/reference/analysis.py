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


def procrustes_cosines(target, source, fit, score, center=True):
    """Eq. 7-9: unit vectors, centred by the fitted pairs, rotated by the polar factor of M = T'E, M (M'M)^(-1/2)."""
    sides = []
    for side in (target, source):
        unit = [np.asarray(row, dtype=np.float64) / math.sqrt(sum(x * x for x in row)) for row in side]
        mean = sum(unit[i] for i in fit) / len(fit) if center else 0.0
        sides.append([row - mean for row in unit])
    target, source = sides
    product = sum(np.outer(target[i], source[i]) for i in fit)
    values, vectors = np.linalg.eigh(product.T @ product)
    rotation = product @ (vectors @ np.diag(1 / np.sqrt(values)) @ vectors.T)
    cosines = []
    for i in score:
        mapped = target[i] @ rotation
        cosines.append(float(mapped @ source[i]) / math.sqrt(float(mapped @ mapped) * float(source[i] @ source[i])))
    return cosines


def group_bootstrap_means(values, groups, drawn):
    """Means of resamples that draw whole groups: `drawn` lists, for each resample, indices into the sorted groups."""
    names = sorted(set(groups))
    members = [[value for value, group in zip(values, groups) if group == name] for name in names]
    means = []
    for indices in drawn:
        sample = [value for index in indices for value in members[index]]
        means.append(sum(sample) / len(sample))
    return means


def p_value(differences):
    """Two-sided: twice the smaller share of resamples at or beyond zero, the observed one counted in."""
    below, above = sum(d <= 0 for d in differences), sum(d >= 0 for d in differences)
    return min(1.0, 2 * (min(below, above) + 1) / (len(differences) + 1))


def sense_cosine(base, adapted, sense):
    """Mean cosine between sense `sense` of each word before and after; both (words, K, d)."""
    cosines = []
    for before, after in zip(base[:, sense], adapted[:, sense]):
        cosines.append(float(before @ after) / math.sqrt(float(before @ before) * float(after @ after)))
    return sum(cosines) / len(cosines)


def translation_precision(source, target, gold, sense):
    """Share of source words whose nearest target word by sense `sense` translates them."""
    hits = 0
    for word, query in enumerate(source[:, sense]):
        cosines = [query @ other / math.sqrt((query @ query) * (other @ other)) for other in target[:, sense]]
        hits += bool(gold[word][cosines.index(max(cosines))])
    return hits / len(source)
