"""From token ids of both sides of a bitext to batches, padded to the longest sentence of the batch."""

from dataclasses import dataclass

import torch


@dataclass
class PairCollator:
    """
    Rows of [`tokenize_bitext`] as one batch of tensors.

    Args:
        pad_token_id (`int`): Fills rows on the right; masked, so any id does.
        end_token_id (`int`, *optional*): Label after the last token of a target that was not cut. It is predicted but
            never read: the last token the model sees stays the sentence's own, whose state is the context vector.

    Returns:
        `source_input_ids`, `source_attention_mask`, `target_input_ids`, `target_attention_mask` and `labels` (-100
        where nothing is predicted), each `(B, T)` with the T of its side; `rows` `(B,)`.
    """

    pad_token_id: int
    end_token_id: int | None = None

    def __call__(self, rows):
        source = [row["source_ids"] for row in rows]
        target = [row["target_ids"] for row in rows]
        end = [] if self.end_token_id is None else [self.end_token_id]
        # A sentence does not end where it was cut.
        labels = [row["target_ids"] + ([] if row["target_truncated"] else end) for row in rows]
        width = max(map(len, labels))
        return {
            "source_input_ids": self._pad(source, max(map(len, source)), self.pad_token_id),
            "source_attention_mask": self._pad([[1] * len(ids) for ids in source], max(map(len, source)), 0),
            "target_input_ids": self._pad(target, width, self.pad_token_id),
            "target_attention_mask": self._pad([[1] * len(ids) for ids in target], width, 0),
            "labels": self._pad(labels, width, -100),
            "rows": torch.tensor([row["row"] for row in rows]),
        }

    @staticmethod
    def _pad(rows, width, value):
        return torch.tensor([row + [value] * (width - len(row)) for row in rows])
