"""From a bitext to token ids, by the tokenizer's own Rust and in Arrow columns."""

from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets.fingerprint import Hasher
from transformers.utils import logging

from ..utils.models import own_start_token
from .columns import is_blank, key_of, sides


logger = logging.get_logger(__name__)

BATCH = 10_000  # pairs tokenized at once


def tokenize_bitext(dataset, tokenizer, source, target, max_length):
    """
    Token ids of both sides of every pair.

    Args:
        dataset (`datasets.Dataset`): With a column `translation`, `{source: str, target: str}` in each row. Where it
            lies in files, the result is kept beside them and found again by every process and after a restart.
        tokenizer: The model's; whatever it puts before a text stays.
        source, target (`str`): Codes of the languages, whose keys in `translation` may be of another form.
        max_length (`int`): Tokens of a sentence at most.

    Returns:
        A dataset with columns `source_ids`, `target_ids` (int32), `length` (the longer side), `truncated` (a side was
        cut), `source_truncated`, `target_truncated` (this one was) and `row` (the pair's index).

    Raises:
        `ValueError`: for a bitext without pairs or without one of the languages, a pair with a blank side, or a
            tokenizer that gives no tokens. Single pairs of which it makes no tokens are left out with a warning.
    """
    if len(dataset) == 0:
        raise ValueError("The bitext has no pairs. Check its path, its split and the filters applied to it.")
    if "translation" not in dataset.column_names:
        raise ValueError(f"The bitext needs a column `translation`; it has {dataset.column_names}.")
    keys = {"source": key_of(dataset, source), "target": key_of(dataset, target)}
    for name, language in (("source", source), ("target", target)):
        if keys[name] is None:
            raise ValueError(f"`{name}_language` is {language!r}, but the bitext holds {sorted(sides(dataset))}.")
    encode = encoder(tokenizer)

    def tokenize(table, rows):
        rows, column = pa.array(rows), table["translation"].combine_chunks()
        columns = {"row": rows}
        for side, key in keys.items():
            values = pc.struct_field(column, key)
            blank = np.flatnonzero(is_blank(values))
            if len(blank):
                raise ValueError(
                    f"pair {rows[blank[0]]} of the bitext has no text in {key!r}, so no vectors; leave such pairs out"
                )
            columns[f"{side}_ids"], columns[f"{side}_length"] = encode(values.to_pylist(), max_length)
        table = pa.table(columns).filter(
            pc.and_(pc.greater(columns["source_length"], 0), pc.greater(columns["target_length"], 0))
        )
        longer = pc.max_element_wise(table["source_length"], table["target_length"])
        return pa.table(
            {
                "source_ids": table["source_ids"],
                "target_ids": table["target_ids"],
                "length": pc.min_element_wise(longer, pa.scalar(max_length, pa.int32())),
                "truncated": pc.greater(longer, max_length),
                "source_truncated": pc.greater(table["source_length"], max_length),
                "target_truncated": pc.greater(table["target_length"], max_length),
                "row": table["row"],
            }
        )

    state = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else tokenizer
    tokenized = dataset.with_format("arrow").map(
        tokenize,
        batched=True,
        batch_size=BATCH,
        with_indices=True,
        remove_columns=dataset.column_names,
        new_fingerprint=Hasher.hash(("tokenize_bitext", dataset._fingerprint, state, source, target, max_length)),
        desc="tokenizing the bitext",
    )
    if not len(tokenized):
        raise ValueError(
            f"The tokenizer ({type(tokenizer).__name__}) gives no tokens for any pair of the bitext. Give the model's "
            "own tokenizer."
        )
    if len(tokenized) < len(dataset):
        left_out = len(dataset) - len(tokenized)
        logger.warning(f"{left_out} of {len(dataset)} pairs are left out: the tokenizer has no tokens for a side.")
    return tokenized.with_format(None)


def tokenize_texts(dataset, tokenizer, max_length):
    """
    Token ids of texts, cut into pieces of `max_length` tokens at most.

    Args:
        dataset (`datasets.Dataset`): With a column `text`.
        tokenizer: The model's; whatever it puts before a text stays, before its first piece.
        max_length (`int`): Tokens of a piece at most.

    Returns:
        A dataset with columns `ids` (int32) and `ended` (whether the text ends with the piece).

    Raises:
        `ValueError`: for texts without any token.
    """
    encode = encoder(tokenizer)

    def tokenize(batch):
        texts = encode(batch["text"], np.iinfo(np.int32).max)[0].to_pylist()
        pieces = [
            (ids[start : start + max_length], start + max_length >= len(ids))
            for ids in texts
            for start in range(0, len(ids), max_length)
        ]
        return {"ids": [ids for ids, _ in pieces], "ended": [ended for _, ended in pieces]}

    pieces = dataset.map(
        tokenize, batched=True, remove_columns=dataset.column_names, desc="tokenizing text beside the pairs"
    )
    if not len(pieces):
        raise ValueError("The text beside the pairs has no tokens. Check its files, their columns and the tokenizer.")
    return pieces


def encoder(tokenizer):
    """
    A function `(texts, max_length)` to the token ids of each text, `(n,)` lists of int32, cut at `max_length`, and
    their numbers before the cut, `(n,)` int32; the ids that `tokenizer(texts)` gives, without what it puts behind a
    text: the last token is the sentence's own, as evaluation has it. What reads like a special token in a text
    ("<|endoftext|>") is text.
    """
    tokenizer(["a"])  # leaves the Rust side without padding and truncation, as every plain call does
    start = own_start_token(tokenizer)
    begin = [] if start is None else [start]

    def encode(texts, max_length):
        if tokenizer.is_fast:
            tokenizer.backend_tokenizer.encode_special_tokens = True
            found = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            tokenizer.backend_tokenizer.encode_special_tokens = tokenizer.split_special_tokens
            ids = [begin + one.ids for one in found]
        else:
            options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
            ids = [begin + one for one in tokenizer(texts, **options)["input_ids"]]
        lengths = np.fromiter(map(len, ids), np.int32, len(ids))
        if (lengths > max_length).any():
            ids = [one[:max_length] for one in ids]
        ends = np.minimum(lengths, max_length).cumsum(dtype=np.int32)
        flat = np.fromiter(chain.from_iterable(ids), np.int32, int(ends[-1]) if len(ends) else 0)
        return pa.ListArray.from_arrays(np.concatenate([[np.int32(0)], ends]), flat), pa.array(lengths)

    return encode
