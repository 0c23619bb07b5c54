"""Intrinsic evaluation on a bitext (Section 2.2): retrieval both ways, sense entropy, perplexity of both languages.

Retrieval stands beside two yardsticks: what the tokens that translations share find without a model, and what the same
model finds with random weights.
"""

import copy

import torch
from tqdm.auto import tqdm

from ..representations import (
    CONTEXT_STATES,
    context_hidden_state,
    context_sentence_vectors,
    hidden_state_after,
    in_float64,
    mixture_of,
    sense_entropy,
    sense_sentence_vectors,
)
from ..utils.statistics import bootstrap_interval, bootstrap_ratio_interval
from .batching import (
    LOGITS_BUDGET,
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
from .overlap import overlap_by_query, token_idf
from .perplexity import check_nll, nll_intervals, nll_per_row, nll_per_row_from_logits, summarize_nll
from .retrieval import DIRECTIONS, retrieval_by_query, summarize_retrieval


RANDOM_ROWS = ("sense_recall_", "context_recall_")


def evaluate_bitext(
    model,
    tokenizer,
    source_sentences,
    target_sentences,
    *,
    batch_size=32,
    max_length=None,
    pooling="magnitude",
    temperature=0.7,
    context_state="mixture",
    context_layer=None,
    start="own",
    idf=None,
    bootstrap=0,
    seed=0,
    by_pair=False,
    progress=False,
    accelerator=None,
) -> dict:
    """One forward pass per sentence; `source_sentences[i]` and `target_sentences[i]` are translations.

    Works for a Backpack and for any other causal language model; the latter has no senses, so its result has no
    `sense_...` keys and its context vector is its last hidden state.

    Args:
        max_length (`int`, *optional*): Cut longer sentences here; defaults to the model's positions.
        pooling, temperature: How senses are weighted into a sentence vector, as in `sense_sentence_vectors`.
        context_state (`str`): "mixture", "backbone" or "combined", as in `context_hidden_state`.
        context_layer (`int`, *optional*): Context vectors from the backbone's state after this many blocks instead.
        start: Token put before every sentence, see `start_token`. The default keeps sequences as training saw them.
        idf (`np.ndarray` of shape `(vocab_size,)`, *optional*): Inverse document frequencies of the tokens for the
            overlap, from [`~sensia_trainer.evaluation.overlap.token_idf`] on other sentences (the training pairs,
            another split); counted on the evaluated ones by default.
        bootstrap (`int`): Resamples of pairs for 95 % intervals (`..._interval`), 0 for none.
        by_pair (`bool`): Also return `hits`, the recall of every single pair, for paired tests between models.
        accelerator (*optional*): An `accelerate.Accelerator`; sentences are shared out among its processes and
            every process returns the same result.

    Returns:
        A dictionary with, for `sense` and `context` vectors and the `overlap` of tokens, and for `source_to_target`
        and `target_to_source`, `sense_recall_source_to_target`, `sense_margin_...`, `sense_mean_rank_...` (see
        `retrieval_metrics`); `sense_beyond_overlap_...`, the recall on the pairs that overlap cannot solve (a wrong
        sentence shares as much or more), and `beyond_overlap_pairs_...`, how many they are;
        `sense_entropy_source`, `sense_entropy_target` (nats, mean over tokens); `target_perplexity` (every token but
        the first, or every token after a start token), `target_perplexity_per_word`, `target_nll_per_byte`,
        `target_bits_per_byte`, and the same of the `source`; `pairs`, and `truncated`, the number of pairs with a side
        cut at `max_length`.

    Raises:
        `ValueError`: If the sides differ in length or hold fewer than two pairs, one is empty, or a likelihood or
            a vector is not finite (the sentence is named).
    """
    if len(source_sentences) != len(target_sentences):
        raise ValueError(
            f"`source_sentences` and `target_sentences` must be aligned (got {len(source_sentences)} and "
            f"{len(target_sentences)} sentences)."
        )
    if len(source_sentences) < 2:
        raise ValueError(f"Retrieval needs at least two pairs (got {len(source_sentences)}).")
    if context_state not in CONTEXT_STATES:
        raise ValueError(f"`context_state` must be one of {CONTEXT_STATES} (got {context_state!r}).")
    if accelerator is not None:
        model = accelerator.unwrap_model(model)
    start = start_token(tokenizer, start)
    encode = {"start": start, "max_length": longest(model, max_length)}
    source = encode_texts(tokenizer, source_sentences, **encode)
    target = encode_texts(tokenizer, target_sentences, **encode)
    check_ids(model, [e.ids for e in source + target])

    run = {"batch_size": batch_size, "progress": progress, "accelerator": accelerator, "pooling": pooling}
    run |= {"temperature": temperature, "context_state": context_state, "context_layer": context_layer}
    with evaluating(model):
        sides = {
            name: encode_side(model, side, name, **run) for name, side in (("source", source), ("target", target))
        }

    for name, side in sides.items():
        check_nll(side["nll"], f"{name} sentence")
    skip = int(start is not None)
    ids = [[e.ids[skip:] for e in side] for side in (source, target)]
    idf = token_idf(ids[0] + ids[1], len(model.get_input_embeddings().weight)) if idf is None else idf
    found = {"overlap": overlap_by_query(*ids, idf)}
    for kind in ("sense", "context"):
        if kind in sides["source"]:
            found[kind] = retrieval_by_query(sides["source"][kind], sides["target"][kind])
    metrics = {}
    for kind, values in found.items():
        summary = summarize_retrieval(values, bootstrap, seed)
        metrics |= {f"{kind}_{name}": value for name, value in summary.items()}
        for direction, hits in zip(DIRECTIONS, values["hits"], strict=True) if by_pair else ():
            metrics.setdefault("hits", {})[f"{kind}_recall_{direction}"] = hits.tolist()
    metrics |= _beyond_overlap(found, bootstrap, seed)
    for name, encoded in (("source", source), ("target", target)):
        metrics |= side_metrics(sides[name], encoded, name, bootstrap, seed)
    metrics["pairs"] = len(source)
    metrics["truncated"] = sum(s.truncated or t.truncated for s, t in zip(source, target, strict=True))
    return metrics


def random_weights_recall(
    model, tokenizer, source_sentences, target_sentences, *, seed=0, accelerator=None, **options
) -> dict:
    """Recall of the same model with fresh weights: what architecture and tokens give without any training.

    Args:
        seed (`int`): Of the weights; the random state of the process is left alone.
        options: As those of [`evaluate_bitext`], whose other arguments are these.

    Returns:
        `random_sense_recall_source_to_target`, ..., `random_context_recall_target_to_source`, with intervals where
        `bootstrap` asks for them.
    """
    if accelerator is not None:
        model = accelerator.unwrap_model(model)
    options |= {"seed": seed, "accelerator": accelerator}
    metrics = evaluate_bitext(
        with_random_weights(model, seed), tokenizer, source_sentences, target_sentences, **options
    )
    return {f"random_{key}": value for key, value in metrics.items() if key.startswith(RANDOM_ROWS)}


def with_random_weights(model, seed=0):
    """A fresh model of the same class, configuration, dtype and device; the random state of the process is left alone.
    Low-rank updates are training too: of an adapted model it is one of its base."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    weight = model.get_input_embeddings().weight
    with torch.random.fork_rng(devices=[weight.device] if weight.is_cuda else []):
        torch.manual_seed(seed)
        return type(model)(copy.deepcopy(model.config)).to(weight)


def _beyond_overlap(found, bootstrap, seed) -> dict:
    """Recall on the pairs whose translation is not alone in the first place by overlap, and their number."""
    metrics = {}
    for i, direction in enumerate(DIRECTIONS):
        unsolved = found["overlap"]["hits"][i] < 1
        metrics[f"beyond_overlap_pairs_{direction}"] = int(unsolved.sum())
        for kind in [kind for kind in found if kind != "overlap"] if unsolved.any() else ():
            hits = found[kind]["hits"][i].cpu()[unsolved]
            metrics[f"{kind}_beyond_overlap_{direction}"] = hits.double().mean().item()
            if bootstrap:
                interval = bootstrap_interval(hits, samples=bootstrap, seed=seed)
                metrics[f"{kind}_beyond_overlap_{direction}_interval"] = interval
    return metrics


def side_metrics(side, encoded, name, bootstrap, seed) -> dict:
    """Sense entropy and likelihood of one side."""
    metrics = {}
    if "entropy" in side:
        parts = side["entropy"].cpu(), side["tokens"].cpu()
        metrics[f"sense_entropy_{name}"] = (parts[0].sum() / parts[1].sum()).item()
        if bootstrap:
            interval = bootstrap_ratio_interval(*parts, samples=bootstrap, seed=seed)
            metrics[f"sense_entropy_{name}_interval"] = interval
    predicted = sum(len(e.ids) - 1 for e in encoded)
    if predicted:
        counts = sum(e.num_bytes for e in encoded), sum(e.num_words for e in encoded)
        summary = summarize_nll(side["nll"].sum().item(), predicted, *counts)
        if bootstrap:
            summary |= nll_intervals(side["nll"].cpu(), encoded, samples=bootstrap, seed=seed)
        metrics |= {f"{name}_{key}": value for key, value in summary.items()}
    return metrics


def encode_side(model, encoded, name, *, batch_size=32, progress=False, accelerator=None, **options) -> dict:
    """Vectors, summed sense entropy, token counts and NLL of every sentence of one side, in input order."""
    # Sorted over all processes before sharing out, so that every process gets the same mix of lengths.
    order = sorted(range(len(encoded)), key=lambda i: (-len(encoded[i].ids), i))
    mine = [encoded[order[i]].ids for i in shard(len(encoded), accelerator)]
    weight = model.get_input_embeddings().weight
    is_backpack = hasattr(model, "get_senses")
    max_tokens = None if is_backpack else LOGITS_BUDGET // len(weight)
    batches = batches_by_length([len(ids) for ids in mine], batch_size, max_tokens)
    forward = _backpack_forward if is_backpack else _causal_lm_forward
    rows = {}
    for batch in tqdm(batches, desc=f"encoding {name}", disable=not progress, leave=False, delay=3):
        input_ids, attention_mask = right_pad([mine[i] for i in batch], weight.device)
        for key, value in forward(model, input_ids, attention_mask, **options).items():
            rows.setdefault(key, value.new_zeros(len(mine), *value.shape[1:]))[batch] = value
    back = torch.tensor(sorted(range(len(order)), key=order.__getitem__))
    return {key: gather_rows(value, len(encoded), accelerator)[back] for key, value in rows.items()}


def _backpack_forward(model, input_ids, attention_mask, *, pooling, temperature, context_state, context_layer) -> dict:
    output = model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        logits_to_keep=1,  # the head is applied below, to the tokens that are read and in chunks
        output_senses=True,
        use_cache=False,
        output_sense_weights=pooling == "contextual",
        output_hidden_states=context_layer is not None,
    )
    sense, probs = sense_sentence_vectors(
        output.senses,
        attention_mask,
        pooling=pooling,
        temperature=temperature,
        sense_weights=output.sense_weights,
        mixture=mixture_of(output),
    )
    mixture = output.last_hidden_state
    state = context_hidden_state(output, context_state, context_layer)
    tokens = attention_mask.sum(1)
    entropy = torch.stack([sense_entropy(p[None], m[None]) for p, m in zip(probs, attention_mask, strict=True)])
    rows = {"sense": sense, "context": context_sentence_vectors(state, attention_mask)}
    nll = nll_per_row(mixture, model.compute_logits, input_ids, attention_mask)
    return rows | {"entropy": in_float64(entropy * tokens), "tokens": tokens, "nll": nll}


def _causal_lm_forward(model, input_ids, attention_mask, *, context_layer, **_) -> dict:
    output = model(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True, use_cache=False)
    states = output.hidden_states
    state = states[-1] if context_layer is None else hidden_state_after(states, context_layer)
    nll = nll_per_row_from_logits(output.logits, input_ids, attention_mask)
    return {"context": context_sentence_vectors(state, attention_mask), "nll": nll}
