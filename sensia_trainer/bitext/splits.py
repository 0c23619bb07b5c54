"""Selections of a bitext: pairs with text, of some values, held out, that share no sentence; and its fingerprint.

Two sentences are the same where they differ in case and punctuation alone ([`near_form`]).
"""

import hashlib

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .columns import column as values_of
from .columns import is_blank, sides, texts
from .near import near_keys


_BATCH = 50_000


def without_blanks(pairs):
    """The pairs with text on both sides. `ValueError` if there is none."""
    keep = ~np.logical_or.reduce([is_blank(texts(pairs, side)) for side in sides(pairs)])
    if not keep.any():
        raise ValueError("No pair of the bitext has text on both sides. Check the columns and the order of its files.")
    return _where(pairs, keep)


def hold_out(pairs, number, seed):
    """
    Hold `number` pairs out of a bitext, drawn among those whose two sentences occur once in it, in any case and
    punctuation: no held-out sentence is trained on, and each has one right translation.

    Args:
        pairs (`datasets.Dataset`): With a column `translation`.
        number (`int`): Pairs to hold out.
        seed (`int`): Of the draw.

    Returns:
        The other pairs and the held-out ones (two `Dataset`s), in their order.

    Raises:
        `ValueError`: if too few pairs have sentences that occur once.
    """
    candidates = np.flatnonzero(np.logical_and.reduce([_occurs_once(keys_of(pairs, side)) for side in sides(pairs)]))
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
    known = [np.isin(keys_of(pairs, side), keys_of(held_out, side)) for side in sides(held_out)]
    keep = ~np.logical_or.reduce(known)
    if not keep.any():
        raise ValueError(
            "Every pair of `bitext` shares a sentence with the held-out pairs. Give other text as `eval_bitext`, or "
            "leave it out: `held_out_pairs` are then taken from `bitext`."
        )
    return _where(pairs, keep)


def without_texts(pairs, known: dict[str, np.ndarray]):
    """The pairs that hold none of the known texts of a language.

    Args:
        pairs (`datasets.Dataset`): With a column `translation`.
        known (`dict[str, np.ndarray]`): By code of the language, keys of texts ([`near_keys`], numbers counting).

    Raises:
        `ValueError`: if none is left.
    """
    keep = np.ones(len(pairs), dtype=bool)
    for code, keys in known.items():
        keep &= ~np.isin(keys_of(pairs, code), keys)
    if not keep.any():
        raise ValueError(
            "Every pair holds a sentence that is reported on, or that another pair of languages holds out. Give other "
            "text as `bitext` or `eval_bitext`."
        )
    return _where(pairs, keep)


def as_written(value) -> str:
    """A value as a column of text has it: truth values as in JSON and YAML."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def keep_rows(dataset: datasets.Dataset, conditions: dict) -> datasets.Dataset:
    """The rows whose columns have the given values: `keep_rows(bitext, {"licence_class": "open"})`.

    Args:
        dataset: any dataset.
        conditions: column name to the value wanted, or to a list of values any of which will do.

    Raises ValueError for an unknown column, or when no row is left (the values that occur are listed).
    """
    keep = np.ones(len(dataset), dtype=bool)
    for column, wanted in conditions.items():
        indices, values = _column(dataset, column)
        wanted = [as_written(value) for value in (wanted if isinstance(wanted, (list, tuple, set)) else [wanted])]
        keep &= np.isin(indices, [index for index, value in enumerate(values) if value in wanted])
        if not keep.any():
            there = ", ".join(f"{value!r} ({count})" for value, count in zip(values, np.bincount(indices).tolist()))
            raise ValueError(f"no row is left after {column}={wanted!r}; the column's values are: {there}")
    return dataset.select(np.flatnonzero(keep))


def cap_per_group(dataset: datasets.Dataset, column: str, maximum: int, seed: int) -> datasets.Dataset:
    """At most `maximum` rows of each value of a column, drawn uniformly without replacement; the order is kept.

    Args:
        dataset: any dataset.
        column: the column to balance by, such as `"domain"` or `"corpus"`.
        maximum: rows kept of each value (all of a value that has fewer).
        seed: of the draw.
    """
    if maximum < 1:
        raise ValueError(f"maximum={maximum}: give at least 1 row a group")
    order = np.random.default_rng(seed).permutation(len(dataset))
    values = _column(dataset, column)[0][order]
    return dataset.select(np.sort(order[ranks(values) < maximum]))


def ranks(keys: np.ndarray) -> np.ndarray:
    """How many equal keys come before each key, (n,) int64."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    is_first = np.r_[True, ordered[1:] != ordered[:-1]] if len(keys) else np.zeros(0, bool)
    starts = np.flatnonzero(is_first)
    result = np.empty(len(keys), np.int64)
    result[order] = np.arange(len(keys)) - np.repeat(starts, np.diff(np.r_[starts, len(keys)]))
    return result


def drawn(dataset: datasets.Dataset, maximum: int, seed: int) -> datasets.Dataset:
    """At most `maximum` rows, drawn uniformly without replacement (the draw of `Dataset.shuffle`)."""
    if len(dataset) <= maximum:
        return dataset
    return dataset.select(np.random.default_rng(seed).permutation(len(dataset))[:maximum])


def value_counts(dataset: datasets.Dataset, column: str) -> dict[str, int]:
    """How many rows have each value of a column, the most frequent first, then in the order of their first rows."""
    indices, values = _column(dataset, column)
    counts = np.bincount(indices, minlength=len(values))
    return {values[n]: int(counts[n]) for n in np.argsort(-counts, kind="stable")}


def fingerprint(dataset: datasets.Dataset) -> str:
    """SHA-256 (64 hex digits) over the texts of a bitext in order, both sides; other columns do not count."""
    digest = hashlib.sha256()
    table = pa.table({side: texts(dataset, side) for side in sorted(sides(dataset))})
    for batch in table.to_batches(max_chunksize=_BATCH):
        parts = [part for side in batch.schema.names for part in (f"{side}\t", batch[side], "\n")]
        lines = pc.binary_join_element_wise(*parts, "", null_handling="replace", null_replacement="None")
        digest.update("".join(lines.to_pylist()).encode())
    return digest.hexdigest()


def _column(dataset: datasets.Dataset, column: str) -> tuple[np.ndarray, list[str]]:
    """The column as (index of the value of each row, the distinct values as text)."""
    if column not in dataset.column_names:
        raise ValueError(
            f"column={column!r} is not in the dataset, whose columns are {', '.join(dataset.column_names)}: rows are "
            "kept and capped by columns that it has (`bitext_keep`, `bitext_cap`; null where a recipe sets them)"
        )
    indices, values = _encoded(values_of(dataset, column).cast(pa.string()).fill_null("None"))
    return indices, values.to_pylist()


def _encoded(values: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """The distinct values, and for each row which of them it has."""
    chunks = pc.dictionary_encode(values).unify_dictionaries().chunks
    if not chunks:
        return np.zeros(0, np.int32), pa.array([], pa.string())
    return np.concatenate([chunk.indices.to_numpy() for chunk in chunks]), chunks[0].dictionary


def keys_of(pairs, side: str) -> np.ndarray:
    """Near keys of one side of a bitext, values of numbers counting, `(n,)` uint64."""
    parts = [near_keys(chunk.to_pylist(), numbers=True) for chunk in texts(pairs, side).chunks]
    return np.concatenate(parts) if parts else np.zeros(0, np.uint64)


def _occurs_once(keys: np.ndarray) -> np.ndarray:
    _, codes, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return counts[codes] == 1


def _where(pairs, keep):
    return pairs if keep.all() else pairs.select(np.flatnonzero(keep))
