"""A batch the long way: both sides padded, joined, padded again, and then packed sentence by sentence."""

import torch
from torch.nn import functional as F


def padded_sides(rows, pad, end):
    """Rows of `tokenize_bitext` as padded tensors of both sides; `labels` are the target's own tokens, then `end`."""

    def pad_to_longest(lists, value):
        width = max(map(len, lists))
        return torch.tensor([ids + [value] * (width - len(ids)) for ids in lists])

    sides = {}
    for side in ("source", "target"):
        ids = [list(row[f"{side}_ids"]) for row in rows]
        sides[f"{side}_input_ids"] = pad_to_longest(ids, pad)
        sides[f"{side}_attention_mask"] = pad_to_longest([[1] * len(i) for i in ids], 0)
        ends = [[] if end is None or row[f"{side}_truncated"] else [end] for row in rows]
        sides[f"{side}_labels"] = pad_to_longest([i + e for i, e in zip(ids, ends, strict=True)], -100)
    return sides


def join(sides, names=("source", "target"), lm_sides=("target",)):
    """The named sides one under the other, padded on the right to one width."""
    width = max(sides[f"{name}_{kind}"].shape[1] for name in names for kind in ("input_ids", "labels"))

    def stack(kind, fill):
        parts = [sides[f"{name}_{kind}"] for name in names]
        return torch.cat([F.pad(part, (0, width - part.shape[1]), value=fill) for part in parts])

    labels = stack("labels", -100)
    without = torch.tensor([name not in lm_sides for name in names]).repeat_interleave(len(labels) // len(names))
    labels[without] = -100
    return {"input_ids": stack("input_ids", 0), "attention_mask": stack("attention_mask", 0), "labels": labels}


def packed(batch, share_rows=True):
    """Each sentence in the row where the least room is left, the longest first; the tensors a model reads."""
    lengths = batch["attention_mask"].sum(1).tolist()
    width, room, places = max(lengths), [], {}
    for sentence in sorted(range(len(lengths)), key=lambda s: -lengths[s]):
        fitting = [row for row, left in enumerate(room) if left >= lengths[sentence]] if share_rows else []
        if not fitting:
            room.append(width)
            fitting = [len(room) - 1]
        row = min(fitting, key=lambda r: (room[r], r))
        places[sentence] = row if share_rows else sentence, width - room[row]
        room[row] -= lengths[sentence]
    out = {"input_ids": 0, "position_ids": 0, "shift_labels": -100, "sentences": -1}
    out = {name: torch.full((len(room), width), fill) for name, fill in out.items()}
    for sentence, (row, offset) in places.items():
        for position in range(lengths[sentence]):
            cell = row, offset + position
            out["input_ids"][cell] = batch["input_ids"][sentence, position]
            out["position_ids"][cell] = position
            if position + 1 < batch["labels"].shape[1]:
                out["shift_labels"][cell] = batch["labels"][sentence, position + 1]
            out["sentences"][cell] = sentence
    return out
