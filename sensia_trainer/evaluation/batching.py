"""What every evaluation shares: token sequences, batches by length, sharding over processes, evaluation mode."""

import re
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.activations import NewGELUActivation

from ..utils.models import own_start_token


LOGITS_BUDGET = 2**27  # numbers in one (B, T, V) block of logits: 512 MiB in float32


class EncodedText(NamedTuple):
    """One text as the model reads it: the first token is given, the others are predicted."""

    ids: list[int]
    num_bytes: int  # UTF-8 bytes of the predicted part
    num_words: int  # whitespace words of the predicted part
    truncated: bool


def start_token(tokenizer, choice: int | str | None = "auto") -> int | None:
    """The token put before a text: "own" (only what the tokenizer itself prepends, so as training saw it), "auto"
    (that, else BOS, CLS or EOS: the sign for "no context"), an id, or None."""
    if choice is None or isinstance(choice, int):
        return choice
    if choice not in ("own", "auto"):
        raise ValueError(f"`start` must be 'own', 'auto', a token id or None (got {choice!r}).")
    own = own_start_token(tokenizer)
    if own is not None or choice == "own":
        return own
    candidates = (tokenizer.bos_token_id, tokenizer.cls_token_id, tokenizer.eos_token_id)
    return next((token for token in candidates if token is not None), None)


def max_positions(model) -> int | None:
    """Positions the model was built for, or None if its config names no limit."""
    config = model.config.get_text_config(decoder=True)
    return getattr(config, "max_position_embeddings", None)


def longest(model, max_length: int | None) -> int | None:
    """Where a text is cut: at `max_length`, where that is given, or at the model's positions, where they are fewer."""
    return min((limit for limit in (max_length, max_positions(model)) if limit), default=None)


def check_ids(model, sequences) -> None:
    """Refuses token ids the model has no embedding for, before an index error far below does."""
    rows = model.get_input_embeddings().weight.shape[0]
    largest = max(max(sequence) for sequence in sequences)
    if largest >= rows:
        raise ValueError(
            f"The tokenizer gives the id {largest} but the model embeds only {rows} tokens: they do not belong "
            "together. Pass the tokenizer of the model, or resize the model's embeddings."
        )


def encode_texts(tokenizer, texts, *, start: int | None, max_length: int | None) -> list[EncodedText]:
    """Tokenises texts without special tokens, puts the token `start` before each if given, and cuts at `max_length`.

    Bytes (UTF-8) and whitespace words are those of the predicted part only: without a start token the first token
    of a text is never predicted, and counting its bytes would flatter models with long tokens.

    Raises:
        `ValueError`: If a text has no tokens (its index is named).
    """
    if not texts:
        raise ValueError("There are no texts to evaluate: the list is empty.")
    # No warning for texts that are cut here; what reads like a special token is text, as in training.
    options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    encoding = tokenizer(list(texts), return_offsets_mapping=tokenizer.is_fast, **options)
    room = None if max_length is None else max_length - (start is not None)
    result = []
    for i, (text, ids) in enumerate(zip(texts, encoding["input_ids"], strict=True)):
        if not ids:
            raise ValueError(f"Text {i} has no tokens: {text!r}. Remove empty lines before evaluating.")
        kept = ids[:room]
        if tokenizer.is_fast:
            offsets = encoding["offset_mapping"][i]
            begin = offsets[0][1] if start is None else 0
            predicted = text[begin : offsets[len(kept) - 1][1]] if len(kept) < len(ids) else text[begin:]
            # A character of several tokens is where each of them is: what is left of the first one is predicted.
            rest = start is None and len(kept) > 1 and offsets[1][0] < begin
            left = len(text[:begin].encode()) - _bytes_of(tokenizer, ids[0]) if rest else 0
        else:
            predicted, left = tokenizer.decode(kept[start is None :], skip_special_tokens=True), 0
        sequence = kept if start is None else [start, *kept]
        counts = len(predicted.encode()) + left, len(predicted.split())
        result.append(EncodedText(sequence, *counts, truncated=len(kept) < len(ids)))
    return result


def _bytes_of(tokenizer, token_id: int) -> int:
    """Bytes that a piece of a character stands for: one in `<0xE2>`, as many as it has letters in byte-level BPE."""
    token = tokenizer.convert_ids_to_tokens(token_id)
    return 1 if re.fullmatch(r"<0x[0-9A-F]{2}>", token) else len(token)


def batches_by_length(lengths, batch_size: int, max_tokens: int | None = None) -> list[list[int]]:
    """Indices grouped into batches of similar length, longest first (so that memory runs out at once or never).

    A batch holds at most `batch_size` rows and, padded, at most `max_tokens` tokens (but always one row).
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1 (got {batch_size}).")
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches, current = [], []
    for i in order:
        full = len(current) == batch_size
        if current and (full or (max_tokens and (len(current) + 1) * lengths[current[0]] > max_tokens)):
            batches.append(current)
            current = []
        current.append(i)
    return [*batches, current] if current else batches


def right_pad(sequences, device=None) -> tuple[Tensor, Tensor]:
    """`input_ids` and `attention_mask` (B, T), padded on the right with id 0: masked, so no pad token is needed."""
    length = max(map(len, sequences))
    ids = torch.tensor([[*s, *[0] * (length - len(s))] for s in sequences], device=device)
    mask = torch.tensor([[1] * len(s) + [0] * (length - len(s)) for s in sequences], device=device)
    return ids, mask


@contextmanager
def evaluating(model):
    """No gradients and evaluation mode inside; afterwards every module is in the mode it had before. GPT-2's
    activation is computed by one kernel, of the same function, instead of eight (an eighth of the time of a small
    model)."""
    modes = [(module, module.training) for module in model.modules()]
    activations = [module for module in model.modules() if type(module) is NewGELUActivation]
    model.eval()
    try:
        for module in activations:
            module.forward = partial(F.gelu, approximate="tanh")
        with torch.no_grad():
            yield
    finally:
        for module in activations:
            del module.forward
        for module, training in modes:
            module.training = training


def shard(num: int, accelerator=None) -> list[int]:
    """Indices of this process's share: every n-th item, so that items sorted by length are spread evenly."""
    if accelerator is None:
        return list(range(num))
    return list(range(accelerator.process_index, num, accelerator.num_processes))


def gather_rows(rows: Tensor, num: int, accelerator=None) -> Tensor:
    """Undoes `shard`: the rows (share, ...) of all processes in input order (num, ...), none of them twice."""
    if accelerator is None or accelerator.num_processes == 1:
        return rows
    processes = accelerator.num_processes
    share = -(-num // processes)
    padded = rows.new_zeros(share, *rows.shape[1:])  # gather needs equal shapes; the filling is dropped below
    padded[: len(rows)] = rows
    gathered = accelerator.gather(padded).view(processes, share, *rows.shape[1:])
    return gathered.transpose(0, 1).reshape(processes * share, *rows.shape[1:])[:num]
