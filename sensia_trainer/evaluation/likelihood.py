"""Log-likelihoods of the choices of multiple-choice items under any causal language model.

One pass gives, for every item and choice, the summed conditional log-likelihood, the summed unconditional one and the
length: arrays from which every score is computed afterwards (`scoring.py`).
"""

import inspect
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .batching import (
    LOGITS_BUDGET,
    batches_by_length,
    check_ids,
    evaluating,
    max_positions,
    right_pad,
    start_token,
)
from .tasks import Item


TRUNCATIONS = ("context", "tail")


class EncodedItem(NamedTuple):
    context: list[int]
    continuations: list[list[int]]
    cut: str  # "", "context" or "answer": which side did not fit


@dataclass
class ChoiceLikelihoods:
    """Arrays over n items and C choices, in the order of the items.

    Args:
        conditional (`np.ndarray` of shape `(n, C)`): Summed log p(choice | context), nats.
        unconditional (`np.ndarray` of shape `(n, C)`, *optional*): Summed log p(choice | start token).
        lengths (`np.ndarray` of shape `(n, C)`): Tokens of each choice.
        labels (`np.ndarray` of shape `(n,)`): Index of the right choice.
        ids (`list[str]`): Names of the items.
        cut (`list[str]`): "", "context" or "answer" for each item: what was cut to fit the model's positions.
    """

    conditional: np.ndarray
    unconditional: np.ndarray | None
    lengths: np.ndarray
    labels: np.ndarray
    ids: list[str]
    cut: list[str]


def encode_items(
    tokenizer, items: list[Item], *, prefix: int | None, max_length: int | None, truncation="context"
) -> list[EncodedItem]:
    """Tokens of every context and continuation, split as lm-evaluation-harness splits them.

    A continuation's tokens are those of `context + continuation` after as many as the context has alone, so that a
    word that begins with a space keeps the token it has in running text.

    Args:
        prefix: Token put before every context, or `None`.
        max_length: Positions of the model. The input of a row is all but its last token.
        truncation: "context" drops the beginning of the context, the same for all choices of an item, and cuts an
            answer only if it is longer than the model; "tail" keeps the beginning and cuts whatever is behind it, as
            the Goldfish scripts do.
    """
    if truncation not in TRUNCATIONS:
        raise ValueError(f"`truncation` must be one of {TRUNCATIONS} (got {truncation!r}).")
    for item in items:
        for i, continuation in enumerate(item.continuations):
            if not continuation.strip():
                raise ValueError(f"Item {item.id}: choice {i} is empty.")
    options = {"add_special_tokens": False, "verbose": False}  # no warning for texts that are cut here
    contexts = tokenizer([item.context for item in items], **options)["input_ids"]
    whole = iter(tokenizer([i.context + c for i in items for c in i.continuations], **options)["input_ids"])
    encoded = []
    for item, context in zip(items, contexts, strict=True):
        continuations = [next(whole)[len(context) :] for _ in item.continuations]
        if not all(continuations):
            raise ValueError(f"Item {item.id}: a choice has no token of its own after the context {item.context!r}.")
        context = context if prefix is None else [prefix, *context]
        if not context:
            raise ValueError(f"Item {item.id}: an empty context needs a start token, which this tokenizer lacks.")
        encoded.append(_fit(context, continuations, max_length, truncation, keep_first=prefix is not None))
    return encoded


def _fit(context, continuations, max_length, truncation, keep_first) -> EncodedItem:
    longest = max(map(len, continuations))
    limit = None if max_length is None else max_length + 1
    if limit is None or len(context) + longest <= limit:
        return EncodedItem(context, continuations, "")
    if truncation == "tail":
        context = context[:limit]
        room = limit - len(context)
        return EncodedItem(context, [c[:room] for c in continuations], "answer")
    answers = [c[: limit - 1] for c in continuations]
    room = limit - max(map(len, answers))
    tail = context[-room:]
    if keep_first:
        tail = [context[0], *tail[1:]]
    return EncodedItem(tail, answers, "answer" if longest > limit - 1 else "context")


def choice_likelihoods(
    model,
    tokenizer,
    items: list[Item],
    *,
    batch_size=32,
    max_length=None,
    start: int | str | None = "auto",
    context_start: int | str | None = "own",
    truncation="context",
    progress=False,
) -> ChoiceLikelihoods:
    """One pass over `items` (all with the same number of choices); float32 logits, sums in float64.

    The context of an item is run once and its keys and values are shared by the choices. Equal continuations have
    one prior. Batches hold items of similar length; the result does not depend on how.

    Args:
        batch_size (`int`): Items in a batch, with all their choices.
        start: The token that stands for "no context" in the unconditional likelihood, see `start_token`; without any
            the unconditional likelihoods are `None`.
        context_start: Token put before contexts: by default only what the tokenizer itself prepends.
        truncation: See `encode_items`.

    Raises:
        ValueError: If an item cannot be encoded or a log-likelihood is not finite (the item is named).
    """
    if not items:
        raise ValueError("There are no items to score.")
    counts = {len(item.continuations) for item in items}
    if len(counts) != 1:
        raise ValueError(f"All items must have the same number of choices (got {sorted(counts)}).")
    max_length = max_length or max_positions(model)
    prefix = start_token(tokenizer, context_start)
    encoded = encode_items(tokenizer, items, prefix=prefix, max_length=max_length, truncation=truncation)
    check_ids(model, [sequence for e in encoded for sequence in (e.context, *e.continuations) if sequence])
    alone = start_token(tokenizer, start)
    rows = {"batch_size": batch_size * counts.pop(), "progress": progress}  # a row is one choice of an item
    with evaluating(model):
        if _has_cache(model):
            conditional = _score_shared(model, encoded, batch_size=batch_size, progress=progress)
        else:
            conditional = _score_rows(model, encoded, **rows)
        unconditional = None
        if alone is not None:
            distinct = sorted({tuple(c) for e in encoded for c in e.continuations})
            priors = _score_rows(model, [EncodedItem([alone], [list(c)], "") for c in distinct], **rows)
            prior = dict(zip(distinct, priors[:, 0], strict=True))
            unconditional = np.array([[prior[tuple(c)] for c in e.continuations] for e in encoded])
    for name, values in (("conditional", conditional), ("unconditional", unconditional)):
        if values is not None and not np.isfinite(values).all():
            item, choice = np.argwhere(~np.isfinite(values))[0]
            raise ValueError(
                f"The {name} log-likelihood of item {items[item].id}, choice {choice}, is {values[item, choice]} "
                f"({(~np.isfinite(values)).any(1).sum()} of {len(items)} items are affected)."
            )
    return ChoiceLikelihoods(
        conditional=conditional,
        unconditional=unconditional,
        lengths=np.array([[len(c) for c in e.continuations] for e in encoded]),
        labels=np.array([item.label for item in items]),
        ids=[item.id for item in items],
        cut=[e.cut for e in encoded],
    )


def _has_cache(model) -> bool:
    parameters = inspect.signature(model.forward).parameters
    return "past_key_values" in parameters and "position_ids" in parameters and not model.config.is_encoder_decoder


def _gather_log_probs(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.log_softmax(logits.float(), -1).gather(-1, labels[..., None])[..., 0].double()


def _score_rows(model, encoded, *, batch_size, progress) -> np.ndarray:
    """Every choice in a row of its own, behind its whole context."""
    rows = [(e.context, c) for e in encoded for c in e.continuations]
    weight = model.get_input_embeddings().weight
    lengths = [len(context) + len(c) - 1 for context, c in rows]
    sums = torch.zeros(len(rows), dtype=torch.float64)
    batches = batches_by_length(lengths, batch_size, LOGITS_BUDGET // len(weight))
    for batch in tqdm(batches, desc="scoring rows", disable=not progress):
        input_ids, attention_mask = right_pad([(rows[i][0] + rows[i][1])[:-1] for i in batch], weight.device)
        logits = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
        for row, i in enumerate(batch):
            context, continuation = rows[i]
            if continuation:
                read = logits[row, len(context) - 1 : len(context) - 1 + len(continuation)]
                sums[i] = _gather_log_probs(read, torch.tensor(continuation, device=read.device)).sum()
    return sums.view(len(encoded), -1).numpy()


def _within_positions(batch, encoded, limit) -> list[list[int]]:
    """Splits a batch whose longest context and longest choice, of different items, together exceed the positions."""
    if limit is None:
        return [batch]
    parts, context, answer = [], 0, 0
    for i in batch:
        longest = max(len(c) for c in encoded[i].continuations)
        context, answer = max(context, len(encoded[i].context)), max(answer, longest)
        if not parts or context + answer - 1 > limit:
            parts.append([])
            context, answer = len(encoded[i].context), longest
        parts[-1].append(i)
    return parts


def _score_shared(model, encoded, *, batch_size, progress) -> np.ndarray:
    """Contexts run once, padded on the left; then all choices behind the keys and values of their context."""
    weight = model.get_input_embeddings().weight
    device, choices = weight.device, len(encoded[0].continuations)
    keeps_last = "logits_to_keep" in inspect.signature(model.forward).parameters
    longest = max(len(c) for e in encoded for c in e.continuations)
    rows = max(1, min(batch_size, LOGITS_BUDGET // len(weight) // (choices * longest)))
    max_tokens = None if keeps_last else LOGITS_BUDGET // len(weight)
    batches = batches_by_length([len(e.context) for e in encoded], rows, max_tokens)
    batches = [part for batch in batches for part in _within_positions(batch, encoded, max_positions(model))]
    sums = np.zeros((len(encoded), choices))
    for batch in tqdm(batches, desc="scoring items", disable=not progress):
        ids, mask = right_pad([encoded[i].context[::-1] for i in batch], device)
        ids, mask = ids.flip(1), mask.flip(1)  # left padding: the last position is the last token of every context
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        keep = {"logits_to_keep": 1} if keeps_last else {}
        output = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, **keep)
        continuations = [c for i in batch for c in encoded[i].continuations]
        first = torch.tensor([c[0] if c else 0 for c in continuations], device=device)
        scores = _gather_log_probs(output.logits[:, -1].repeat_interleave(choices, 0), first)
        scores = scores * torch.tensor([bool(c) for c in continuations], device=device)
        if max(map(len, continuations)) > 1:
            cache = output.past_key_values
            cache.batch_repeat_interleave(choices)
            context_mask = mask.repeat_interleave(choices, 0)
            # The input is a choice without its last token; at least one token, so that no row is empty.
            next_ids, next_mask = right_pad([c[:-1] or [0] for c in continuations], device)
            labels, label_mask = right_pad([c[1:] or [0] for c in continuations], device)
            label_mask = label_mask * torch.tensor([[len(c) > 1] for c in continuations], device=device)
            offset = context_mask.sum(1, keepdim=True)
            next_output = model(
                input_ids=next_ids,
                attention_mask=torch.cat([context_mask, next_mask], 1),
                position_ids=offset + next_mask.cumsum(1) - 1,
                past_key_values=cache,
                use_cache=True,
            )
            scores = scores + (_gather_log_probs(next_output.logits, labels) * label_mask).sum(1)
        sums[batch] = scores.view(len(batch), choices).cpu().numpy()
    return sums
