"""All choices of an item behind its context in one row, each blind to the others.

    context    The cat sleeps
    row        The cat sleeps on the chair      a token sees its context and what its own choice has before it
                              twice
    positions  0   1   2      3  4   5   3

Every token runs through the model once, equal beginnings of choices included, and logits are computed where a token is
read off them. A row holds several such trees. The mask is one of four dimensions, which most decoders of transformers
take as it is; one that does not is found out before it is used.
"""

from bisect import bisect_right
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..representations import at_least_float32
from .batching import LOGITS_BUDGET, batches_by_length


class Tree(NamedTuple):
    """A context, and behind it the tokens of its choices but their last ones, which are only read."""

    ids: list[int]
    parents: list[int]  # the token before each token, by its place in the row; -1 before the first
    depths: list[int]  # position of each token in its own text
    start: int  # place of the context's last token, the first that is read from
    reads: list[list[tuple[int, int]]]  # of each choice: (place whose logits are read, token read)


def make_tree(context: list[int], choices: list[list[int]]) -> Tree:
    """The row of an item. `context` is not empty."""
    ids, parents, depths = list(context), list(range(-1, len(context) - 1)), list(range(len(context)))
    places, reads = {(): len(context) - 1}, []
    for choice in choices:
        reads.append([])
        for i, token in enumerate(choice):
            before, key = places[tuple(choice[:i])], tuple(choice[: i + 1])
            reads[-1].append((before, token))
            if i + 1 < len(choice) and key not in places:
                places[key] = len(ids)
                ids.append(token)
                parents.append(before)
                depths.append(len(context) + i)
    return Tree(ids, parents, depths, len(context) - 1, reads)


def visible_tokens(tree: Tree) -> np.ndarray:
    """Which tokens of its row each token sees: itself and those before it in its own text, `(n, n)`."""
    visible = np.eye(len(tree.ids), dtype=bool)
    visible[: tree.start + 1, : tree.start + 1] |= np.tri(tree.start + 1, dtype=bool)
    for place in range(tree.start + 1, len(tree.ids)):
        visible[place] |= visible[tree.parents[place]]
    return visible


def fill_rows(lengths: list[int], width: int) -> list[list[int]]:
    """Indices of what goes into one row of `width` tokens: the longest that is left, then the longest that still fits.
    What is longer than a row has one of its own."""
    left = sorted(range(len(lengths)), key=lengths.__getitem__)
    sizes, rows = [lengths[i] for i in left], []
    while left:
        rows.append([left.pop()])
        room = width - sizes.pop()
        while sizes and sizes[0] <= room:
            at = bisect_right(sizes, room) - 1
            room -= sizes.pop(at)
            rows[-1].append(left.pop(at))
    return rows


def best_width(lengths: list[int], widths: list[int], hidden_size: int) -> int:
    """
    The width of rows, of those offered, at which a model computes least: every row is padded to the longest, and
    beside the 24 d^2 operations of a token and layer, its attention takes 4 d for each token of its row.
    """

    def operations(width):
        rows = fill_rows(lengths, width)
        longest = max(sum(lengths[i] for i in row) for row in rows)
        return len(rows) * longest * (6 * hidden_size + longest)

    return min(widths, key=operations)


def score_trees(model, trees: list[Tree], *, max_tokens: int, width: int, progress=iter) -> np.ndarray:
    """Summed log-likelihood of every choice, `(n, C)` in nats, all trees with the same number of choices.

    Args:
        max_tokens (`int`): Tokens of a batch, padding included.
        width (`int`): Tokens of a row; it holds as many trees as fit, so that hardly anything is padded.
        progress: Wraps the batches, as `tqdm` does.
    """
    weight = model.get_input_embeddings().weight
    device, room = weight.device, min(max_tokens, LOGITS_BUDGET // len(weight))
    choices = len(trees[0].reads)
    sums = np.zeros(len(trees) * choices)
    rows = fill_rows([len(tree.ids) for tree in trees], width)
    lengths = [sum(len(trees[i].ids) for i in row) for row in rows]
    for batch in progress(batches_by_length(lengths, len(rows), room)):
        length = lengths[batch[0]]
        ids, positions = np.zeros((2, len(batch), length), dtype=np.int64)
        blind = np.broadcast_to(~np.eye(length, dtype=bool), (len(batch), length, length)).copy()
        read = []
        for row, index in enumerate(batch):
            start = 0
            for i in rows[index]:
                tree, stop = trees[i], start + len(trees[i].ids)
                ids[row, start:stop], positions[row, start:stop] = tree.ids, tree.depths
                blind[row, start:stop, start:stop] = ~visible_tokens(tree)
                first = row * length + start
                read += [(first + place, t, i * choices + c) for c, r in enumerate(tree.reads) for place, t in r]
                start = stop
        if not read:
            continue
        places, tokens, wanted = torch.tensor(read, device=device).T
        places, which = places.unique(return_inverse=True)
        mask = torch.zeros(blind.shape, dtype=weight.dtype)
        mask.masked_fill_(torch.from_numpy(blind), torch.finfo(weight.dtype).min)
        with head_reads(model, places):
            logits = model(
                input_ids=torch.from_numpy(ids).to(device),
                attention_mask=mask[:, None].to(device),
                position_ids=torch.from_numpy(positions).to(device),
                use_cache=False,
            ).logits[0]
        log_probs = torch.log_softmax(at_least_float32(logits), -1)[which, tokens]
        np.add.at(sums, wanted.cpu().numpy(), log_probs.cpu().double().numpy())
    return sums.reshape(len(trees), choices)


@contextmanager
def head_reads(model, places: Tensor):
    """Within this context the head reads only these places of the flattened rows: logits are `(1, len(places), V)`,
    with whatever the model does to them afterwards."""

    def narrow(module, args):
        return (args[0].flatten(0, 1)[places][None],)

    hook = model.get_output_embeddings().register_forward_pre_hook(narrow)
    try:
        yield
    finally:
        hook.remove()
