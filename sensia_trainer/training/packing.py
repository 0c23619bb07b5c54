"""Several sentences in a row of a batch: sentences differ in length, and what is padded is computed in vain."""

from bisect import bisect_left, insort

import torch
from torch import Tensor
from torch.nn import functional as F


# Backbones (`model_type`) that tell packed texts apart by their positions, each shown by a test. Others, OPT and
# Falcon among them, do not, and say nothing.
KEEP_TEXTS_APART = ("gpt2", "gpt_neox", "llama", "qwen3")


def keeps_texts_apart(config) -> bool:
    """Whether texts may share a row for a backbone with this configuration. With flash attention they may not: it
    knows packed texts in a single row only."""
    return config.model_type in KEEP_TEXTS_APART and config._attn_implementation in ("sdpa", "eager")


def best_fit(lengths: list[int], width: int) -> list[tuple[int, int]]:
    """Row and offset of each text in as few rows of `width` tokens as are easily found: the longest text first, each
    in the row where the least room is left (best-fit decreasing)."""
    places, free, rows = [(0, 0)] * len(lengths), [], 0
    for text in sorted(range(len(lengths)), key=lambda text: -lengths[text]):
        at = bisect_left(free, (lengths[text], -1))
        if at < len(free):
            room, row = free.pop(at)
        else:
            room, row, rows = width, rows, rows + 1
        places[text] = row, width - room
        insort(free, (room - lengths[text], row))
    return places


def pack(batch: dict[str, Tensor], share_rows: bool = True) -> dict[str, Tensor]:
    """
    The sentences of a padded batch in fewer rows. Positions start again with each sentence, by which a model that
    [`keeps_texts_apart`] knows, without `attention_mask` and cache, that it does not see the ones before.

    Args:
        batch: `input_ids`, `attention_mask` (1 for tokens, padded on the right) and `labels` (the token's own, -100
            for none; a label may stand after the last token), each `(N, T)`.
        share_rows (`bool`): Whether a row may hold several sentences; if not, each has a row of its own.

    Returns:
        `input_ids`, `position_ids`, `shift_labels` (the next token's label) and `sentences` (0 to N - 1, the number of
        the sentence; -1 for padding), each `(R, W)` with W the length of the longest sentence; `last` `(N,)`, where in
        the flattened rows the last token of each sentence is.
    """
    mask = batch["attention_mask"].bool()
    number, width = mask.shape
    lengths = mask.sum(dim=1)
    longest = max(int(lengths.max()), 1)
    places = best_fit(lengths.clamp_min(1).tolist(), longest) if share_rows else [(row, 0) for row in range(number)]
    rows = 1 + max(row for row, _ in places)
    starts = torch.tensor([row * longest + offset for row, offset in places], device=mask.device)
    positions = torch.arange(width, device=mask.device).expand(number, width)
    where = (starts[:, None] + positions)[mask]

    def place(values, fill):
        packed = values.new_full((rows * longest,), fill)
        packed[where] = values[mask]
        return packed.view(rows, longest)

    return {
        "input_ids": place(batch["input_ids"], 0),
        "position_ids": place(positions, 0),
        "shift_labels": place(F.pad(batch["labels"][:, 1:], (0, 1), value=-100), -100),
        "sentences": place(torch.arange(number, device=mask.device)[:, None].expand(number, width), -1),
        "last": starts + (lengths - 1).clamp_min(0),
    }
