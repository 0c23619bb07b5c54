"""The formulas of the bitext pipeline, written plainly and slowly."""

import re
import unicodedata


def near_form(text):
    """Lower-case letters, and 0 for every number, in words."""
    text = unicodedata.normalize("NFKC", text).casefold()
    words = "".join(character if character.isalnum() else " " for character in text).split()
    return " ".join(re.sub(r"\d+", "0", word) for word in words) or text


def duplicates(pairs, max_targets):
    """For each pair "kept", "duplicate", "near_duplicate" or "many_targets", each on what the ones before kept."""
    result = ["kept"] * len(pairs)
    for name, key, limit in (
        ("duplicate", lambda s, t: (s, t), 1),
        ("near_duplicate", lambda s, t: (near_form(s), near_form(t)), 1),
        ("many_targets", lambda s, t: near_form(s), max_targets),
    ):
        seen = {}
        for n, (source, target) in enumerate(pairs):
            if result[n] == "kept":
                seen[key(source, target)] = seen.get(key(source, target), 0) + 1
                if seen[key(source, target)] > limit:
                    result[n] = name
    return result


def margin(cosines, k):
    """cos(x, y) / (mean cosine of x with its k nearest targets / 2 + that of y with its k nearest sources / 2)."""
    n = len(cosines)
    scores = []
    for i in range(n):
        row = sorted((cosines[i][j] for j in range(n)), reverse=True)[:k]
        column = sorted((cosines[j][i] for j in range(n)), reverse=True)[:k]
        scores.append(cosines[i][i] / (sum(row) / (2 * len(row)) + sum(column) / (2 * len(column))))
    return scores
