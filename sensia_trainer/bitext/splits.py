"""Parting a bitext: pairs with text, pairs held out, pairs that share no sentence with those."""

from collections import Counter

from datasets import Dataset


def hold_out(pairs, number, seed):
    """
    Part `number` pairs from a bitext, drawn among those whose two sentences occur once in it: no held-out sentence is
    trained on, and each has one right translation.
    """
    sides = [[pair[key] for pair in pairs["translation"]] for key in pairs[0]["translation"]]
    once = [{text for text, count in Counter(side).items() if count == 1} for side in sides]
    candidates = [i for i, texts in enumerate(zip(*sides, strict=True)) if all(t in o for t, o in zip(texts, once))]
    if len(candidates) < number or len(pairs) - number < 2:
        raise ValueError(
            f"`held_out_pairs` is {number}, but of the {len(pairs)} pairs only {len(candidates)} have sentences that "
            "occur once. Lower it, or give `eval_bitext`."
        )
    drawn = set(Dataset.from_dict({"index": candidates}).shuffle(seed=seed)["index"][:number])
    rest = [i for i in range(len(pairs)) if i not in drawn]
    return pairs.select(rest), pairs.select(sorted(drawn))


def without_blanks(pairs):
    """The pairs with text on both sides. `ValueError` if there is none."""
    rows = [i for i, pair in enumerate(pairs["translation"]) if all(text and text.strip() for text in pair.values())]
    if not rows:
        raise ValueError("No pair of the bitext has text on both sides. Check the columns and the order of its files.")
    return pairs if len(rows) == len(pairs) else pairs.select(rows)


def without_sentences_of(pairs, held_out):
    """The pairs that share neither side with a held-out pair.

    Raises:
        `ValueError`: if none is left.
    """
    known = [{pair[key] for pair in held_out["translation"]} for key in held_out[0]["translation"]]
    rows = [
        i
        for i, pair in enumerate(pairs["translation"])
        if not any(pair[key] in texts for key, texts in zip(held_out[0]["translation"], known, strict=True))
    ]
    if not rows:
        raise ValueError(
            "Every pair of `bitext` shares a sentence with the held-out pairs. Give other text as `eval_bitext`, or "
            "leave it out: `held_out_pairs` are then parted from `bitext`."
        )
    return pairs if len(rows) == len(pairs) else pairs.select(rows)
