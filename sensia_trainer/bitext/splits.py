"""Selections of a bitext: pairs with text, pairs held out, pairs that share no sentence with those."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .columns import is_blank, sides, texts


def without_blanks(pairs):
    """The pairs with text on both sides. `ValueError` if there is none."""
    keep = ~np.logical_or.reduce([is_blank(texts(pairs, side)) for side in sides(pairs)])
    if not keep.any():
        raise ValueError("No pair of the bitext has text on both sides. Check the columns and the order of its files.")
    return _where(pairs, keep)


def hold_out(pairs, number, seed):
    """
    Hold `number` pairs out of a bitext, drawn among those whose two sentences occur once in it: no held-out sentence
    is trained on, and each has one right translation.

    Args:
        pairs (`datasets.Dataset`): With a column `translation`.
        number (`int`): Pairs to hold out.
        seed (`int`): Of the draw.

    Returns:
        The other pairs and the held-out ones (two `Dataset`s), in their order.

    Raises:
        `ValueError`: if too few pairs have sentences that occur once.
    """
    candidates = np.flatnonzero(np.logical_and.reduce([_occurs_once(texts(pairs, side)) for side in sides(pairs)]))
    if len(candidates) < number or len(pairs) - number < 2:
        raise ValueError(
            f"`held_out_pairs` is {number}, but of the {len(pairs)} pairs only {len(candidates)} have sentences that "
            "occur once. Lower it, or give `eval_bitext`."
        )
    # The draw of `Dataset.shuffle`.
    drawn = candidates[np.random.default_rng(seed).permutation(len(candidates))[:number]]
    is_held_out = np.zeros(len(pairs), bool)
    is_held_out[drawn] = True
    return pairs.select(np.flatnonzero(~is_held_out)), pairs.select(np.flatnonzero(is_held_out))


def without_sentences_of(pairs, held_out):
    """The pairs that share neither side with a held-out pair.

    Raises:
        `ValueError`: if none is left.
    """
    known = [
        pc.is_in(texts(pairs, side), value_set=texts(held_out, side).combine_chunks()).to_numpy()
        for side in sides(held_out)
    ]
    keep = ~np.logical_or.reduce(known)
    if not keep.any():
        raise ValueError(
            "Every pair of `bitext` shares a sentence with the held-out pairs. Give other text as `eval_bitext`, or "
            "leave it out: `held_out_pairs` are then taken from `bitext`."
        )
    return _where(pairs, keep)


def _occurs_once(values: pa.ChunkedArray) -> np.ndarray:
    codes = pc.dictionary_encode(values).unify_dictionaries().chunks
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in codes]) if codes else np.zeros(0, np.int32)
    return np.bincount(codes, minlength=1)[codes] == 1


def _where(pairs, keep):
    return pairs if keep.all() else pairs.select(np.flatnonzero(keep))
