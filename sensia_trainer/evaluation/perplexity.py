"""Perplexity that depends on the model and the texts alone: not on batch size, padding or the order of texts.

Sums of negative log-likelihood are taken over single tokens, in float32 or wider, and divided once at the end; a mean
of batch means would weigh tokens by the batch they fell into. Per byte and per word the number can be compared
between models with different tokenizers, which perplexity per token cannot (Section 2.2, footnote 2).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from ..representations import in_float64
from ..utils.statistics import bootstrap_ratio_interval
from .batching import (
    LOGITS_BUDGET,
    EncodedText,
    batches_by_length,
    check_ids,
    encode_texts,
    evaluating,
    gather_rows,
    longest,
    right_pad,
    shard,
    start_token,
)


def nll_per_row(hidden: Tensor, head, input_ids: Tensor, attention_mask: Tensor, *, chunk_size=2048) -> Tensor:
    """Summed next-token NLL (B,) in nats from hidden states (B, T, d), with logits of `chunk_size` tokens at once."""
    read = attention_mask[:, 1:].bool()
    states, labels = hidden[:, :-1][read], input_ids[:, 1:][read]
    pieces = [
        F.cross_entropy(head(h).float(), y, reduction="none")
        for h, y in zip(states.split(chunk_size), labels.split(chunk_size), strict=True)
    ]
    nll = in_float64(hidden.new_zeros(read.shape))
    if pieces:
        nll[read.to(nll.device)] = in_float64(torch.cat(pieces))
    return nll.sum(1)


def nll_per_row_from_logits(logits: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Summed next-token NLL (B,) in nats from logits (B, T, V)."""
    nll = F.cross_entropy(logits[:, :-1].transpose(1, 2).float(), input_ids[:, 1:], reduction="none")
    return in_float64(nll * attention_mask[:, 1:]).sum(1)


def summarize_nll(nll: float, tokens: int, num_bytes: int, words: int) -> dict:
    """The four views of one sum of negative log-likelihood (nats): per token, per word, per byte, bits per byte."""
    if not math.isfinite(nll):
        raise ValueError(f"The summed negative log-likelihood is {nll}: the model's logits are not finite.")
    return {
        "perplexity": math.exp(min(nll / tokens, 700.0)),
        "perplexity_per_word": math.exp(min(nll / max(words, 1), 700.0)),
        "nll_per_byte": nll / max(num_bytes, 1),
        "bits_per_byte": nll / max(num_bytes, 1) / math.log(2),
    }


def check_nll(nll: Tensor, what: str) -> None:
    """`ValueError` that names the first of `nll` (n,) which is not finite."""
    bad = (~nll.isfinite()).nonzero()
    if len(bad):
        raise ValueError(
            f"The log-likelihood of {what} {int(bad[0])} is not finite ({len(bad)} of {len(nll)} are affected)."
        )


def nll_intervals(nll, encoded: list[EncodedText], *, samples: int, seed: int) -> dict:
    """95 % bootstrap intervals over texts of the keys of `summarize_nll`, as `..._interval`; `nll` (n,) in nats. A key
    of which the texts have nothing to count has none."""
    counts = {
        "perplexity": [len(e.ids) - 1 for e in encoded],
        "perplexity_per_word": [e.num_words for e in encoded],
        "nll_per_byte": [e.num_bytes for e in encoded],
    }
    found = {k: bootstrap_ratio_interval(nll, count, samples=samples, seed=seed) for k, count in counts.items()}
    found = {key: interval for key, interval in found.items() if interval}
    if "nll_per_byte" in found:
        found["bits_per_byte"] = [bound / math.log(2) for bound in found["nll_per_byte"]]
    for key in found.keys() & {"perplexity", "perplexity_per_word"}:
        found[key] = [math.exp(min(bound, 700.0)) for bound in found[key]]
    return {f"{key}_interval": interval for key, interval in found.items()}


def perplexity(
    model,
    tokenizer,
    texts,
    *,
    batch_size=32,
    max_length=None,
    start: int | str | None = "auto",
    bootstrap=0,
    seed=0,
    progress=False,
    accelerator=None,
) -> dict:
    """Token-exact perplexity of a causal language model on `texts`.

    Args:
        start: Token put before every text, see `start_token`. With one, every token of a text is predicted, without
            one every token but the first.
        max_length (`int`, *optional*): Cut longer texts here; defaults to the model's positions.
        bootstrap (`int`): Resamples of texts for 95 % intervals (`..._interval`), 0 for none.

    Returns:
        `perplexity`, `perplexity_per_word` (whitespace words), `nll_per_byte` (nats per UTF-8 byte),
        `bits_per_byte`, the counts `tokens`, `words`, `bytes`, `truncated`, and `nll` (n,), nats for each text in
        input order.
    """
    start = start_token(tokenizer, start)
    encoded = encode_texts(tokenizer, texts, start=start, max_length=longest(model, max_length))
    check_ids(model, [e.ids for e in encoded])
    mine = [encoded[i] for i in shard(len(encoded), accelerator)]
    vocabulary = model.get_input_embeddings().weight.shape[0]
    batches = batches_by_length([len(e.ids) for e in mine], batch_size, LOGITS_BUDGET // vocabulary)
    device = model.get_input_embeddings().weight.device
    nll = in_float64(torch.zeros(len(mine), device=device))
    with evaluating(model):
        for batch in tqdm(batches, desc="perplexity", disable=not progress):
            input_ids, attention_mask = right_pad([mine[i].ids for i in batch], device)
            logits = model(input_ids=input_ids, attention_mask=attention_mask).logits
            nll[batch] = nll_per_row_from_logits(logits, input_ids, attention_mask)
    nll = gather_rows(nll, len(encoded), accelerator).cpu()
    counts = {
        "tokens": sum(len(e.ids) - 1 for e in encoded),
        "words": sum(e.num_words for e in encoded),
        "bytes": sum(e.num_bytes for e in encoded),
        "truncated": sum(e.truncated for e in encoded),
    }
    check_nll(nll, "text")
    if counts["tokens"] == 0:
        raise ValueError("No token is predicted: every text is one token long and there is no start token.")
    summary = summarize_nll(nll.sum().item(), counts["tokens"], counts["bytes"], counts["words"])
    if bootstrap:
        summary |= nll_intervals(nll, encoded, samples=bootstrap, seed=seed)
    return summary | counts | {"nll": nll.tolist()}
