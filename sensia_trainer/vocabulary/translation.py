"""
What a token of the target language means: p(source token | target token), learned from bitext and dictionaries.

IBM Model 1 (Brown et al., 1993) aligns every source token of a pair to one of its target tokens, whatever their
places. Trained from each side alone it gives rare words a share of everything they stand beside; two models that are
made to agree (Liang et al., 2006) do not: the expected count of an alignment is the product of both posteriors,

    c(s, t) += p(s|t) / sum_t' p(s|t')  *  q(t|s) / sum_s' q(t|s')        over the pairs that hold s and t,
    p(s|t) = c(s, t) / sum_s' c(s', t),    q(t|s) = c(s, t) / sum_t' c(s, t').

Each token counts once a sentence, and both tables start uniform.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import sparse
from tqdm.auto import tqdm

from ..utils.files import text_lines


ROUNDS = 5
# Alignments held in memory, 4 bytes each; of a larger bitext, pairs are drawn. 160,001 pairs have 38 million.
MAX_CELLS = 100_000_000
BLOCK = 4_000_000  # alignments looked at at once
HELD_OUT = 500  # pairs by which the table is judged, at most one in twenty
SMOOTHING = 0.1  # share of the unigram distribution in the likelihood of held-out text


class Bitext:
    """
    The distinct tokens of sentence pairs, as flat arrays.

    Args:
        source (`Sequence[Sequence[int]]`): Token ids of the source sentences.
        target (`Sequence[Sequence[int]]`): Token ids of the target sentences. Pairs with an empty side are left out.
    """

    def __init__(self, source, target):
        pairs = [(np.unique(s), np.unique(t)) for s, t in zip(source, target, strict=True) if len(s) and len(t)]
        self.source, self.target = ([pair[side] for pair in pairs] for side in (0, 1))

    def __len__(self):
        return len(self.source)

    def select(self, rows):
        """The pairs of these rows."""
        chosen = Bitext([], [])
        chosen.source, chosen.target = [self.source[i] for i in rows], [self.target[i] for i in rows]
        return chosen

    def cells(self) -> np.ndarray:
        """Number of alignments of each pair."""
        return np.array([len(s) * len(t) for s, t in zip(self.source, self.target, strict=True)], dtype=np.int64)

    def blocks(self, size=BLOCK) -> Iterator["Bitext"]:
        """Consecutive pairs with about `size` alignments."""
        block = np.cumsum(self.cells()) // size
        starts = np.flatnonzero(np.diff(block, prepend=-1)) if len(self) else []
        for start, stop in zip(starts, [*starts[1:], len(self)], strict=True):
            yield self.select(range(start, stop))

    def alignments(self):
        """
        Every token of a source sentence with every token of its target sentence.

        Returns:
            Source tokens, target tokens, the source place (which sentence and token; ascending) and the target place,
            each an `np.ndarray` with one entry for each alignment.
        """
        sizes = np.array([[len(s), len(t)] for s, t in zip(self.source, self.target, strict=True)])
        source, target = np.concatenate(self.source), np.concatenate(self.target)
        pair = np.repeat(np.arange(len(self)), sizes[:, 0])  # of each source place
        partners = sizes[pair, 1]
        first_target = (np.cumsum(sizes[:, 1]) - sizes[:, 1])[pair]
        source_place = np.repeat(np.arange(len(source)), partners)
        target_place = np.arange(len(source_place)) - np.repeat(
            np.cumsum(partners) - partners - first_target, partners
        )
        return source[source_place], target[target_place], source_place, target_place


def translation_table(bitext, num_tokens, *, rounds=ROUNDS, max_cells=MAX_CELLS, seed=0, progress=False):
    """
    p(source token | target token) of a bitext.

    Args:
        bitext ([`Bitext`]): The sentence pairs.
        num_tokens (`int`): Size of the vocabulary of both sides.
        rounds (`int`, *optional*, defaults to 5): Rounds of expectation maximisation.
        max_cells (`int`, *optional*, defaults to 100,000,000): Alignments used; pairs are drawn from a larger bitext.
        seed (`int`, *optional*, defaults to 0): Of the pairs drawn.
        progress (`bool`, *optional*, defaults to `False`): Whether to show progress.

    Returns:
        `scipy.sparse.csr_array` of shape `(num_tokens, num_tokens)`, float32: row t holds p(. | t), and is empty for
        tokens that the target side does not hold.

    Raises:
        `ValueError`: if no pair has tokens on both sides.
    """
    bitext = _draw(bitext, max_cells, seed)
    if len(bitext) == 0:
        raise ValueError("`bitext` has no pair with tokens on both sides.")
    blocks = list(bitext.blocks())
    types, cells = _types(blocks, num_tokens)
    target, source = types // num_tokens, types % num_tokens
    forward = backward = np.ones(len(types), dtype=np.float32)
    for _ in tqdm(range(rounds), desc="aligning words", disable=not progress):
        counts = np.zeros(len(types))
        for block, cell in zip(blocks, cells, strict=True):
            _, _, source_place, target_place = block.alignments()
            expected = _posterior(forward[cell], source_place) * _posterior(backward[cell], target_place)
            counts += np.bincount(cell, weights=expected, minlength=len(types))
        forward, backward = _shares(counts, target, num_tokens), _shares(counts, source, num_tokens)
    return sparse.csr_array((forward, (target, source)), shape=(num_tokens, num_tokens))


def _draw(bitext, max_cells, seed):
    """The bitext, or pairs of it in random order until they have `max_cells` alignments."""
    cells = bitext.cells()
    if cells.sum() <= max_cells:
        return bitext
    order = np.random.default_rng(seed).permutation(len(bitext))
    return bitext.select(np.sort(order[np.cumsum(cells[order]) <= max_cells]))


def _keys(block, num_tokens):
    source, target, _, _ = block.alignments()
    return target.astype(np.int64) * num_tokens + source


def _types(blocks, num_tokens):
    """The distinct (target, source) tokens that occur together, as sorted keys, and for each block the place among
    them of each alignment."""
    types, cells = [], []
    for block in blocks:
        found, cell = np.unique(_keys(block, num_tokens), return_inverse=True)
        types.append(found)
        cells.append(cell.astype(np.int32))
    # Sorted, since the library's `unique` of numbers alone goes by hashes, which is several times slower here.
    merged = np.sort(np.concatenate(types))
    merged = merged[np.flatnonzero(np.diff(merged, prepend=-1))]
    for i, found in enumerate(types):
        cells[i] = np.searchsorted(merged, found).astype(np.int32)[cells[i]]
    return merged, cells


def _posterior(probabilities, place):
    """Probabilities divided by their sum at each place."""
    return probabilities / np.bincount(place, weights=probabilities)[place]


def _shares(counts, group, num_groups):
    """Counts divided by the sum of their group, as float32."""
    totals = np.bincount(group, weights=counts, minlength=num_groups)[group]
    return np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0).astype(np.float32)


def held_out_nats(table, bitext, unigram, smoothing=SMOOTHING) -> float:
    """
    Negative log-likelihood of the source tokens of held-out pairs given their target tokens, in nats a token:

        p(s | T) = (1 - smoothing) * mean_{t in T} p(s|t) + smoothing * unigram(s).

    Args:
        table (`scipy.sparse.csr_array` of shape `(V, V)`): p(source | target).
        bitext ([`Bitext`]): The held-out pairs.
        unigram (`np.ndarray` of shape `(V,)`): Share of each token in the source side of the training pairs, positive.
        smoothing (`float`, *optional*, defaults to 0.1): Share of the unigram distribution.
    """
    keys = np.repeat(np.arange(table.shape[0]), np.diff(table.indptr)) * table.shape[1] + table.indices
    order = np.argsort(keys)
    keys, values = keys[order], table.data[order]
    total, tokens = 0.0, 0
    for block in bitext.blocks():
        source, target, source_place, _ = block.alignments()
        wanted = target.astype(np.int64) * table.shape[1] + source
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        found = np.where(keys[place] == wanted, values[place], 0.0)
        means = np.bincount(source_place, weights=found) / np.bincount(source_place)
        likelihood = (1 - smoothing) * means + smoothing * unigram[np.concatenate(block.source)]
        total, tokens = total - np.log(likelihood).sum(), tokens + len(likelihood)
    return float(total / tokens)


def learn_translations(
    source, target, num_tokens, *, dictionary=(), rounds=ROUNDS, max_cells=MAX_CELLS, seed=0, progress=False
):
    """
    The translation table of a bitext, and how well it predicts pairs that it has not seen.

    Args:
        source (`Sequence[Sequence[int]]`): Token ids of the source sentences.
        target (`Sequence[Sequence[int]]`): Token ids of the target sentences.
        num_tokens (`int`): Size of the vocabulary.
        dictionary (`Sequence[tuple[Sequence[int], Sequence[int]]]`, *optional*): Token ids of words and of their
            translations, which are pairs like the others, and are all used.
        rounds, max_cells: As in [`translation_table`]; `max_cells` is of the bitext.
        seed (`int`, *optional*, defaults to 0): Of the pairs held out, and of those drawn.
        progress (`bool`, *optional*, defaults to `False`): Whether to show progress.

    Returns:
        `scipy.sparse.csr_array` (see [`translation_table`]) and `dict`: `pairs` (used), `dictionary_entries`,
        `held_out_pairs`, `held_out_nats` and `held_out_nats_unigram` (a source token, with the table and without).
    """
    bitext = Bitext(source, target)
    order = np.random.default_rng(seed).permutation(len(bitext))
    number = min(HELD_OUT, len(bitext) // 20)
    held_out, train = bitext.select(order[:number]), bitext.select(np.sort(order[number:]))
    train = _draw(train, max_cells, seed)
    train.source += [np.unique(s) for s, _ in dictionary]
    train.target += [np.unique(t) for _, t in dictionary]
    table = translation_table(train, num_tokens, rounds=rounds, max_cells=np.inf, progress=progress)
    report: dict[str, float] = {
        "pairs": len(train) - len(dictionary),
        "dictionary_entries": len(dictionary),
        "held_out_pairs": number,
    }
    if number:
        counts = np.bincount(np.concatenate(train.source), minlength=num_tokens) + 1.0
        unigram = counts / counts.sum()
        report["held_out_nats"] = held_out_nats(table, held_out, unigram)
        report["held_out_nats_unigram"] = held_out_nats(table, held_out, unigram, smoothing=1.0)
    return table, report


def best_translations(table, tokens, *, number=10, threshold=0.02):
    """
    The most probable translations of tokens.

    Args:
        table (`scipy.sparse.csr_array` of shape `(V, V)`): p(source | target).
        tokens (`Sequence[int]`): Target tokens.
        number (`int`, *optional*, defaults to 10): Translations kept of each.
        threshold (`float`, *optional*, defaults to 0.02): Least probability of a translation.

    Returns:
        `scipy.sparse.csr_array` of shape `(len(tokens), V)`, whose rows sum to the mass c <= 1 of what is kept.
    """
    rows = table[tokens].tocoo()
    order = np.lexsort((rows.col, -rows.data, rows.row))
    row, column, data = rows.row[order], rows.col[order], rows.data[order]
    place = np.arange(len(row)) - np.searchsorted(row, row)
    kept = (place < number) & (data >= threshold)
    return sparse.csr_array((data[kept], (row[kept], column[kept])), shape=rows.shape)


def read_dictionary(path):
    """
    Word pairs of a file with two columns, the source language first, as MUSE, PanLex and GATITOS publish them.

    Args:
        path (`str`): A text file. Columns are separated by a tab (more are ignored), or by a space where there is
            no tab.

    Returns:
        `list[tuple[str, str]]`: words and their translations, without repetitions.

    Raises:
        `ValueError`: if the file is missing, holds nothing, or has a line without a second column.
    """
    if not Path(path).is_file():
        raise ValueError(f"The dictionary {str(path)!r} is not a file. Give a text file with two columns.")
    pairs: dict = {}
    for number, line in enumerate(text_lines(path), start=1):
        if not line.strip():
            continue
        fields = [field.strip() for field in (line.split("\t") if "\t" in line else line.split())]
        if len(fields) < 2 or not fields[0] or not fields[1]:
            raise ValueError(
                f"Line {number} of the dictionary {str(path)!r} has no second column: {line!r}. Each line holds a "
                "source word, a tab, and its translation."
            )
        pairs[fields[0], fields[1]] = None
    if not pairs:
        raise ValueError(f"The dictionary {str(path)!r} holds no word.")
    return list(pairs)
