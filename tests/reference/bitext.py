"""The formulas of the bitext pipeline, written plainly and slowly."""

import re
import unicodedata


def near_form(text):
    """Lower-case letters with their marks, and 0 for every number, in words; nothing else, and no apostrophe."""
    for apostrophe in "‘’‚‛′`´ʼʻʽ":
        text = text.replace(apostrophe, " ")
    text = unicodedata.normalize("NFKC", text).casefold()
    kept = ""
    for character in text:
        category = unicodedata.category(character)
        if category in ("Cf", "Cc") and character not in "\t\n\v\f\r\x85" or character in "\ufe0e\ufe0f":
            continue
        kept += character if character.isalnum() or category[0] == "M" else " "
    return " ".join(re.sub(r"\d+", "0", word) for word in kept.split()) or text


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


def margin(sources, targets, reference_sources, reference_targets, k):
    """cos(x, y) / (mean cosine of x with its k nearest targets / 2 + that of y with its k nearest sources / 2).

    Of unit vectors. The neighbours come from the pairs of a reference, but for the pair itself.
    """

    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b))

    scores = []
    for source, target in zip(sources, targets):
        others = [(s, t) for s, t in zip(reference_sources, reference_targets) if (s, t) != (source, target)]
        row = sorted((cosine(source, t) for _, t in others), reverse=True)[:k]
        column = sorted((cosine(s, target) for s, _ in others), reverse=True)[:k]
        scores.append(cosine(source, target) / (sum(row) / (2 * k) + sum(column) / (2 * k)))
    return scores
