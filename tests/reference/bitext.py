"""The formulas of the bitext pipeline, written plainly and slowly."""

import hashlib
import re
import unicodedata
from collections import Counter


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


# --- selections and token ids, a pair at a time ----------------------------------------------------------------------


def without_blanks(pairs):
    """Indices of the pairs (dicts of texts) with text on every side."""
    return [i for i, pair in enumerate(pairs) if all(text and text.strip() for text in pair.values())]


def hold_out(pairs, number, seed):
    """Indices of the pairs that stay and of those held out: drawn where every side occurs once in the bitext."""
    from datasets import Dataset

    counts = {key: Counter(words_of(pair[key]) for pair in pairs) for key in pairs[0]}
    candidates = [
        i for i, pair in enumerate(pairs) if all(counts[key][words_of(text)] == 1 for key, text in pair.items())
    ]
    drawn = set(Dataset.from_dict({"index": candidates}).shuffle(seed=seed)["index"][:number])
    return [i for i in range(len(pairs)) if i not in drawn], sorted(drawn)


def without_sentences_of(pairs, held_out):
    """Indices of the pairs that share no side with a held-out one."""
    known = {key: {words_of(pair[key]) for pair in held_out} for key in held_out[0]}
    return [i for i, pair in enumerate(pairs) if not any(words_of(pair[key]) in texts for key, texts in known.items())]


def words_of(text):
    """The words and numbers of a text in small letters; the text itself where it has none."""
    return tuple("".join(c if c.isalnum() else " " for c in text.lower()).split()) or text


def fingerprint(pairs):
    """SHA-256 of `key TAB text LF` of every side in alphabetical order, pair after pair."""
    text = "".join(f"{key}\t{pair[key]}\n" for pair in pairs for key in sorted(pair))
    return hashlib.sha256(text.encode()).hexdigest()


def tokenize(pairs, tokenizer, source, target, max_length):
    """One dict a pair: token ids of both sides, cut, and what was cut."""
    rows = []
    for row, pair in enumerate(pairs):
        a, b = (tokenizer(pair[key])["input_ids"] for key in (source, target))
        rows.append(
            {
                "source_ids": a[:max_length],
                "target_ids": b[:max_length],
                "length": min(max(len(a), len(b)), max_length),
                "truncated": len(a) > max_length or len(b) > max_length,
                "source_truncated": len(a) > max_length,
                "target_truncated": len(b) > max_length,
                "row": row,
            }
        )
    return rows
