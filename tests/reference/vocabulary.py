"""Continued BPE, IBM Model 1 and the rows of new tokens, written plainly and slowly."""

import math
from collections import Counter


def pairs_of(word):
    return list(zip(word, word[1:]))


def merge(word, pair, token):
    """`word` with every `pair` replaced by `token`, from the left."""
    merged, i = [], 0
    while i < len(word):
        if tuple(word[i : i + 2]) == pair:
            merged.append(token)
            i += 2
        else:
            merged.append(word[i])
            i += 1
    return tuple(merged)


def continued_bpe(words, first, size, forbidden=frozenset()):
    """The most frequent pair becomes a token, `size` times; the smaller pair where two are equally frequent."""
    words, merges = dict(words), []
    while len(merges) < size:
        counts = Counter()
        for word, count in words.items():
            for pair in pairs_of(word):
                counts[pair] += count
        candidates = [(-count, pair) for pair, count in counts.items() if count >= 2 and pair not in forbidden]
        if not candidates:
            break
        _, pair = min(candidates)
        token = first + len(merges)
        merges.append(pair)
        joined = Counter()
        for word, count in words.items():
            joined[merge(word, pair, token)] += count
        words = joined
    return merges, words


def agreeing_model_1(pairs, rounds):
    """{(target, source): p(source | target)} of two IBM models 1 that agree; `pairs` of (source set, target set)."""
    types = {(t, s) for source, target in pairs for s in source for t in target}
    forward = backward = dict.fromkeys(types, 1.0)
    for _ in range(rounds):
        counts = dict.fromkeys(types, 0.0)
        for source, target in pairs:
            for s in source:
                for t in target:
                    of_source = forward[t, s] / sum(forward[other, s] for other in target)
                    of_target = backward[t, s] / sum(backward[t, other] for other in source)
                    counts[t, s] += of_source * of_target
        by_target, by_source = Counter(), Counter()
        for (t, s), count in counts.items():
            by_target[t] += count
            by_source[s] += count
        forward = {(t, s): count / by_target[t] for (t, s), count in counts.items()}
        backward = {(t, s): count / by_source[s] for (t, s), count in counts.items()}
    return forward


def nats_per_source_token(table, pairs, unigram, smoothing):
    total, tokens = 0.0, 0
    for source, target in pairs:
        for s in source:
            mean = sum(table.get((t, s), 0.0) for t in target) / len(target)
            total -= math.log((1 - smoothing) * mean + smoothing * unigram[s])
            tokens += 1
    return total / tokens


def origins(table, tokens, parts, number, threshold):
    """For each new token {old token: weight}: its translations by their probability, its parts for what is left."""
    rows = []
    for token in tokens:
        probable = sorted((-p, s) for (t, s), p in table.items() if t == token and p >= threshold)[:number]
        row = Counter({s: -p for p, s in probable})
        rest = 1 - sum(row.values())
        for part in parts[token]:
            row[part] += rest / len(parts[token])
        rows.append(row)
    return rows
