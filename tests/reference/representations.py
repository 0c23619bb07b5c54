"""Sense probabilities and sentence vectors, one token, one sense, one position at a time."""

import math

import torch


def softmax(values, temperature):
    values = [value / temperature for value in values]
    top = max(values)
    powers = [math.exp(value - top) for value in values]
    return [power / sum(powers) for power in powers]


def contributions(senses, sense_weights):
    """c[b, t, k] = sum_s alpha[b, k, t, s] S[b, s, k]."""
    out = torch.zeros_like(senses)
    batch, length, num_senses, _ = senses.shape
    for b in range(batch):
        for t in range(length):
            for k in range(num_senses):
                for s in range(length):
                    out[b, t, k] += sense_weights[b, k, t, s] * senses[b, s, k]
    return out


def sense_probs(senses, definition, temperature, sense_weights=None, context=None):
    batch, length, num_senses, _ = senses.shape
    probs = torch.zeros(batch, length, num_senses, dtype=senses.dtype)
    vectors = senses if sense_weights is None else contributions(senses, sense_weights)
    for b in range(batch):
        for t in range(length):
            if definition == "predictive":
                scores = [float(context[b, t] @ senses[b, t, k]) for k in range(num_senses)]
            else:
                scores = [float(vectors[b, t, k].norm()) for k in range(num_senses)]
            if definition == "contextual_share":
                values = [score / sum(scores) for score in scores]
            else:
                values = softmax(scores, temperature)
            probs[b, t] = torch.tensor(values, dtype=senses.dtype)
    return probs


def sense_sentence_vectors(senses, attention_mask, pooling, temperature, sense_weights=None, mixture=None):
    alpha = sense_weights if pooling == "contextual" else None
    probs = sense_probs(senses, "magnitude" if pooling == "mixture" else pooling, temperature, alpha)
    mixed = senses if alpha is None else contributions(senses, alpha)
    rows = []
    for b in range(len(senses)):
        tokens = [t for t in range(senses.shape[1]) if attention_mask[b, t]]
        pooled = sum(probs[b, t, k] * mixed[b, t, k] for t in tokens for k in range(senses.shape[2])) / len(tokens)
        if pooling == "mixture":
            pooled = sum(mixture[b, t] for t in tokens) / len(tokens)
        rows.append(pooled / pooled.norm())
    return torch.stack(rows), probs


def context_sentence_vectors(hidden_states, attention_mask):
    rows = []
    for b in range(len(hidden_states)):
        last = max(t for t in range(hidden_states.shape[1]) if attention_mask[b, t])
        rows.append(hidden_states[b, last] / hidden_states[b, last].norm())
    return torch.stack(rows)


def sense_entropy(probs, attention_mask):
    tokens = [probs[b, t] for b in range(len(probs)) for t in range(probs.shape[1]) if attention_mask[b, t]]
    return sum(-sum(float(p) * math.log(float(p)) for p in token if p > 0) for token in tokens) / len(tokens)
