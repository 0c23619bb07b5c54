"""Continued BPE, IBM Model 1 and the rows of new tokens, written plainly and slowly."""

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
