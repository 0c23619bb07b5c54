"""Disambiguation, substitution and sense effects, one item at a time and in plain loops."""

import itertools
import math

import torch


def contribution(model, ids, sense):
    """c_k at the last of `ids`: sum_s alpha_k[t, s] S_k[s], from the weights and senses of a forward pass."""
    with torch.no_grad():
        output = model.backpack(input_ids=torch.tensor([ids]), output_senses=True, output_sense_weights=True)
    total = torch.zeros(output.senses.shape[-1], dtype=output.senses.dtype)
    for s in range(len(ids)):
        total += output.sense_weights[0, sense, -1, s] * output.senses[0, s, sense]
    return total


def nearest_centroid(train, labels, test):
    """Unit vectors, class means, less the mean of the class means; the nearest by cosine."""

    def unit(vector):
        norm = math.sqrt(sum(x * x for x in vector))
        return [x / norm for x in vector]

    def mean(vectors):
        return [sum(column) / len(vectors) for column in zip(*vectors)]

    train, test = [unit(v) for v in train], [unit(v) for v in test]
    classes = sorted(set(labels))
    centroids = [mean([v for v, label in zip(train, labels) if label == one]) for one in classes]
    middle = mean(centroids)
    chosen = []
    for vector in test:
        query = unit([x - m for x, m in zip(vector, middle)])
        cosines = [sum(a * b for a, b in zip(query, unit([x - m for x, m in zip(c, middle)]))) for c in centroids]
        chosen.append(classes[cosines.index(max(cosines))])
    return chosen


def average_precision(gains):
    """Of gains in the order of a ranking, by its definition."""

    def total(ordered):
        return sum(sum(ordered[: i + 1]) / (i + 1) for i, gain in enumerate(ordered) if gain > 0)

    return total(gains) / total(sorted(gains, reverse=True))


def average_precision_of_any_order(gains):
    values = [average_precision(list(order)) for order in itertools.permutations(gains)]
    return sum(values) / len(values)
