"""From a bitext to batches: token ids of both sides, padded to the longest sentence of the batch."""

from dataclasses import dataclass

import torch


def tokenize_bitext(dataset, tokenizer, source, target, max_length):
    """
    Token ids of both sides of every pair.

    Args:
        dataset (`datasets.Dataset`): With a column `translation`, `{source: str, target: str}` in each row.
        tokenizer: The model's; whatever it puts before a text stays.
        source, target (`str`): Keys of `translation`.
        max_length (`int`): Tokens of a sentence at most.

    Returns:
        A dataset with columns `source_ids`, `target_ids`, `length` (the longer side), `truncated` (a side was cut),
        `target_truncated` (the target was) and `row` (the pair's index).

    Raises:
        `ValueError`: for a bitext without pairs or without one of the languages, or a pair with a blank side.
    """
    if len(dataset) == 0:
        raise ValueError("The bitext has no pairs. Check its path, its split and the filters applied to it.")
    if "translation" not in dataset.column_names:
        raise ValueError(f"The bitext needs a column `translation`; it has {dataset.column_names}.")
    languages = set(dataset[0]["translation"])
    for name, language in (("source", source), ("target", target)):
        if language not in languages:
            raise ValueError(f"`{name}_language` is {language!r}, but the bitext holds {sorted(languages)}.")

    def tokenize(batch, rows):
        sides = {}
        for side, language in (("source", source), ("target", target)):
            texts = [pair[language] for pair in batch["translation"]]
            blank = [row for row, text in zip(rows, texts, strict=True) if not text or not text.strip()]
            if blank:
                raise ValueError(
                    f"pair {blank[0]} of the bitext has no text in {language!r}, so no vectors; leave such pairs out"
                )
            sides[side] = tokenizer(texts, verbose=False)["input_ids"]
        pairs = list(zip(sides["source"], sides["target"], strict=True))
        return {
            "source_ids": [ids[:max_length] for ids, _ in pairs],
            "target_ids": [ids[:max_length] for _, ids in pairs],
            "length": [min(max(len(a), len(b)), max_length) for a, b in pairs],
            "truncated": [max(len(a), len(b)) > max_length for a, b in pairs],
            "target_truncated": [len(ids) > max_length for _, ids in pairs],
            "row": rows,
        }

    return dataset.map(
        tokenize, batched=True, with_indices=True, remove_columns=dataset.column_names, desc="tokenizing the bitext"
    )


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
