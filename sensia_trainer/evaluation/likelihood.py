"""Log-likelihoods of the choices of multiple-choice items under any causal language model.

One pass gives, for every item and choice, the summed conditional log-likelihood, the summed unconditional one and the
length: arrays from which every score is computed afterwards (`scoring.py`).
"""

import inspect
import sys
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from tqdm.auto import tqdm

from ..representations import at_least_float32
from .batching import (
    LOGITS_BUDGET,
    batches_by_length,
    check_ids,
    evaluating,
    longest,
    max_positions,
    right_pad,
    start_token,
)
from .tasks import Item
from .trees import best_width, make_tree, score_trees


TRUNCATIONS = ("context", "tail")
# Tokens that a batch has room for, times `batch_size`. More at once is slower on a CPU, whose caches it leaves.
ROOM = {"cpu": 32, "other": 256}
PRIORS_TOGETHER = 8
ROW_TOKENS = (64, 96, 128)  # of a row of several items: what is padded least is taken
# Models that were seen to score items alike in trees and in rows, and the length of the longest such item.
_TAKE_TREES: WeakKeyDictionary = WeakKeyDictionary()


class EncodedItem(NamedTuple):
    context: list[int]
    continuations: list[list[int]]
    cut: str = ""  # "context" or "answer": which side did not fit


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
    """One pass over `items` (all with the same number of choices); logits in float32 at least, sums in float64.

    The context of an item is run once and shared by its choices, see `trees.py`. Batches hold items of similar length;
    the result does not depend on how.

    Args:
        batch_size (`int`): Room of a batch: this many times 256 tokens, on a CPU 32. Results do not depend on it.
        start: The token that stands for "no context" in the unconditional likelihood, see `start_token`; without any
            the unconditional likelihoods are `None`.
        context_start: Token put before contexts: by default only what the tokenizer itself prepends.
        truncation: See `encode_items`.

    Raises:
        `ValueError`: If an item cannot be encoded or a log-likelihood is not finite (the item is named).
    """
    if not items:
        raise ValueError("There are no items to score.")
    first = items[0]
    for item in items:
        if len(item.continuations) != len(first.continuations):
            raise ValueError(
                f"All items must have the same number of choices, but item {item.id} has {len(item.continuations)} "
                f"and item {first.id} {len(first.continuations)}: score them in groups."
            )
    max_length = longest(model, max_length)
    prefix = start_token(tokenizer, context_start)
    encoded = encode_items(tokenizer, items, prefix=prefix, max_length=max_length, truncation=truncation)
    check_ids(model, [sequence for e in encoded for sequence in (e.context, *e.continuations) if sequence])
    alone = start_token(tokenizer, start)
    room = ROOM.get(model.get_input_embeddings().weight.device.type, ROOM["other"])
    run = {"max_tokens": batch_size * room, "progress": progress}
    with evaluating(model):
        in_trees = _takes_trees(model, encoded)
        conditional = _score(model, encoded, in_trees, desc="scoring choices", **run)
        unconditional = None
        if alone is not None:
            # Neighbours in the alphabet share their beginnings.
            distinct = sorted({tuple(c) for e in encoded for c in e.continuations})
            groups = [distinct[i : i + PRIORS_TOGETHER] for i in range(0, len(distinct), PRIORS_TOGETHER)]
            bare = [
                EncodedItem([alone], [list(g[min(i, len(g) - 1)]) for i in range(PRIORS_TOGETHER)]) for g in groups
            ]
            priors = _score(model, bare, in_trees, desc="scoring priors", **run).ravel()[: len(distinct)]
            prior = dict(zip(distinct, priors, strict=True))
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


def _score(model, encoded: list[EncodedItem], in_trees, *, max_tokens, progress, desc) -> np.ndarray:
    """Summed log-likelihoods `(n, C)`: all choices of an item in one row where that is right and fits, else a row for
    each choice."""
    trees, limit = [make_tree(e.context, e.continuations) for e in encoded], max_positions(model)
    together = [i for i, tree in enumerate(trees) if in_trees and (limit is None or len(tree.ids) <= limit)]
    alone = sorted(set(range(len(encoded))) - set(together))
    sums = np.zeros((len(encoded), len(encoded[0].continuations)))
    run = {"max_tokens": max_tokens, "progress": partial(tqdm, desc=desc, disable=not progress)}
    if together:
        widths = [width for width in ROW_TOKENS if limit is None or width <= limit] or [limit]
        width = best_width([len(trees[i].ids) for i in together], widths, model.get_input_embeddings().weight.shape[1])
        sums[together] = score_trees(model, [trees[i] for i in together], width=width, **run)
    # A number that is not finite spoils the other items of its row, too: alone in a row, it shows whose it is.
    alone += [i for i in together if not np.isfinite(sums[i]).all()]
    if alone:
        sums[alone] = _score_rows(model, [encoded[i] for i in alone], **run)
    return sums


def _takes_trees(model, encoded: list[EncodedItem]) -> bool:
    """Whether the model scores the shortest and the longest item alike in one row and in a row for each choice: not
    all models take a mask of four dimensions, or positions."""
    parameters = inspect.signature(model.forward).parameters
    if "position_ids" not in parameters or getattr(model.config, "is_encoder_decoder", False):
        return False
    limit = max_positions(model)
    trees = [make_tree(e.context, e.continuations) for e in encoded]
    by_length = sorted((len(t.ids), i) for i, t in enumerate(trees) if limit is None or len(t.ids) <= limit)
    if not by_length:
        return False
    longest = by_length[-1][0]
    if _TAKE_TREES.get(model, 0) >= longest:
        return True
    probes = [by_length[0][1], by_length[-1][1]]
    expected = _score_rows(model, [encoded[i] for i in probes], max_tokens=sys.maxsize)
    try:
        found = score_trees(model, [trees[i] for i in probes], width=limit or longest, max_tokens=sys.maxsize)
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):
        return False
    half = torch.finfo(model.get_input_embeddings().weight.dtype).bits < 32
    tolerance = {"rtol": 0.05, "atol": 0.1} if half else {"rtol": 1e-3, "atol": 1e-3}
    if not np.allclose(found, expected, **tolerance, equal_nan=True):
        return False
    _TAKE_TREES[model] = longest
    return True


def _score_rows(model, encoded, *, max_tokens, progress=iter) -> np.ndarray:
    """Every choice in a row of its own, behind its whole context."""
    rows = [(e.context, c) for e in encoded for c in e.continuations]
    weight = model.get_input_embeddings().weight
    wanted = [i for i, (_, continuation) in enumerate(rows) if continuation]
    lengths = [len(rows[i][0]) + len(rows[i][1]) - 1 for i in wanted]
    sums = torch.zeros(len(rows), dtype=torch.float64)
    batches = batches_by_length(lengths, max(len(wanted), 1), min(max_tokens, LOGITS_BUDGET // len(weight)))
    for batch in progress(batches):
        places = [wanted[i] for i in batch]
        input_ids, attention_mask = right_pad([sum(rows[i], start=[])[:-1] for i in places], weight.device)
        logits = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
        for row, i in enumerate(places):
            context, continuation = rows[i]
            read = at_least_float32(logits[row, len(context) - 1 : len(context) - 1 + len(continuation)])
            labels = torch.tensor(continuation, device=read.device)
            sums[i] = torch.log_softmax(read, -1).gather(-1, labels[:, None]).cpu().double().sum()
    return sums.view(len(encoded), -1).numpy()
