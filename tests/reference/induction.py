"""Plain, slow restatements of what senses for a pretrained language model are trained with."""

import math

import torch


def sense_diversity(senses):
    """Mean squared cosine over all ordered pairs of different senses of each word, pair by pair."""
    words = senses.reshape(-1, *senses.shape[-2:])
    values = []
    for word in words:
        for i, first in enumerate(word):
            for j, second in enumerate(word):
                if i != j:
                    values.append((first @ second / (first.norm() * second.norm())) ** 2)
    return sum(values) / len(values)


def distilled_loss(states, base_states, weight, bias, labels, share, temperature, scale=1.0, softcap=None):
    """(1 - w) CE + w T^2 KL(base || model), token by token; also CE, KL and the base's CE, means over labels."""

    def logits(state):
        values = (weight @ state + (0 if bias is None else bias)) * scale
        return values if softcap is None else softcap * torch.tanh(values / softcap)

    entropies, divergences, of_base = [], [], []
    for state, base, label in zip(states, base_states, labels.tolist(), strict=True):
        if label == -100:
            continue
        entropies.append(-torch.log_softmax(logits(state), 0)[label])
        of_base.append(-torch.log_softmax(logits(base), 0)[label])
        ours = torch.softmax(logits(state) / temperature, 0)
        theirs = torch.softmax(logits(base.detach()) / temperature, 0)
        divergences.append(sum(q * (q.log() - p.log()) for q, p in zip(theirs, ours, strict=True)))
    entropy, divergence, base = (sum(values) / len(values) for values in (entropies, divergences, of_base))
    return (1 - share) * entropy + share * math.pow(temperature, 2) * divergence, entropy, divergence, base


def own_words(senses, head, frequent, token, number):
    """
    Share of the senses' squared length, over frequent words, that their means over those words have; and for each
    sense of a word the frequent words that what it has beyond the mean votes for most.
    """
    _, kinds, width = senses.shape
    means = [[sum(senses[w][k][i] for w in frequent) / len(frequent) for i in range(width)] for k in range(kinds)]
    common = len(frequent) * sum(value * value for mean in means for value in mean)
    everything = sum(senses[w][k][i] ** 2 for w in frequent for k in range(kinds) for i in range(width))
    nearest = []
    for k in range(kinds):
        own = [senses[token][k][i] - means[k][i] for i in range(width)]
        votes = {w: sum(own[i] * head[w][i] for i in range(width)) for w in frequent}
        nearest.append(sorted(votes, key=votes.get, reverse=True)[:number])
    return common / everything, nearest
