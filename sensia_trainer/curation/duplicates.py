"""Duplicates among any number of pairs, in bounded memory: one byte a pair and a sorted part of the keys at a time."""

from collections.abc import Callable, Iterable

import numpy as np

from ..bitext.splits import ranks


KEPT, DUPLICATE, NEAR_DUPLICATE, MANY_TARGETS = range(4)
NAMES = {DUPLICATE: "duplicate", NEAR_DUPLICATE: "near_duplicate", MANY_TARGETS: "many_targets"}
PART = 4_000_000  # keys sorted at once, at least


def find_duplicates(count: int, columns: Callable[[str], Iterable[np.ndarray]], max_targets: int) -> np.ndarray:
    """Which pairs repeat an earlier one, and how.

    Args:
        count: number of pairs n.
        columns: gives, by name ("exact", "near", "source"), the keys of all pairs in order, as arrays whose lengths
            sum to n; called once for each part of each column, so it should read from disk.
        max_targets: pairs kept of one source.

    Returns:
        (n,) uint8: KEPT, DUPLICATE (same texts), NEAR_DUPLICATE (same up to case, punctuation and numbers), or
        MANY_TARGETS (one target too many of a source); the first of its kind is kept.
    """
    found = np.zeros(count, np.uint8)
    for code, name, limit in (
        (DUPLICATE, "exact", 1),
        (NEAR_DUPLICATE, "near", 1),
        (MANY_TARGETS, "source", max_targets),
    ):
        parts = count_parts(count)
        for part in range(parts):
            keys, positions = _gather(columns(name), found, part, parts)
            found[positions[ranks(keys) >= limit]] = code
    return found


def count_parts(count: int) -> int:
    """Parts into which the remainders of `count` keys divide them; each costs a pass over the keys.

    Keys are hashes, so the parts are even. Eight at most: an eighth of the keys, sorted with its positions, takes some
    4 bytes a pair.
    """
    return min(8, max(1, -(-count // PART)))


def _gather(arrays: Iterable[np.ndarray], found: np.ndarray, part: int, parts: int) -> tuple[np.ndarray, np.ndarray]:
    keys, positions, start = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], 0
    for array in arrays:
        mine = found[start : start + len(array)] == KEPT
        if parts > 1:
            mine &= array % np.uint64(parts) == part
        mine = np.flatnonzero(mine)
        keys.append(array[mine])
        positions.append(mine + start)
        start += len(array)
    return np.concatenate(keys), np.concatenate(positions)
