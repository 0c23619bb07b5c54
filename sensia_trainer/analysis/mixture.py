"""What the mixture of senses is worth: cross-entropy with part of it taken away at inference (Eq. 10-12, Table 5)."""

from contextlib import contextmanager

import numpy as np
import torch
from torch.nn import functional as F

from ..utils.statistics import paired_bootstrap
from .controls import closed_gate, has_gate
from .words import padded_batches


# Every variant and what it isolates; the captions of tables and figures are made from these.
VARIANTS = {
    "full": "the learned mixture",
    "top_k": "one contribution per position, as published: both the loss of the others and a smaller logit scale",
    "top_k_norm_matched": "the same, rescaled to the full mixture's norm: the loss of the others alone",
    "uniform": "the mean over senses, as published: exactly the full mixture divided by K, so logit scale alone",
    "uniform_norm_matched": "the same, rescaled: equal to the full mixture by construction",
}
# Of a language model with a gate, head(b + g m): they change m, which stands beside the state b.
GATED_VARIANTS = VARIANTS | {
    "full": "the model as it is, head(b + g m)",
    "top_k": "one contribution per position in m: both the loss of the others and a quieter sense path",
    "uniform": "m divided by K beside the whole state: a quieter sense path alone",
    "without_senses": "the gate closed, head(b): the language model alone",
    "senses_alone": "the mixture without the state, head(m)",
}


def variants_of(model) -> dict[str, str]:
    """The variants of the mixture that say something of a model, each with what it isolates."""
    return GATED_VARIANTS if has_gate(model) else VARIANTS


@contextmanager
def ablated(model, variant: str, *, top_k: int = 1):
    """Makes a Backpack predict by a `variant` of [`variants_of`], and as before afterwards."""
    if variant not in variants_of(model):
        raise ValueError(f"`variant` is {variant!r}, but must be one of {sorted(variants_of(model))}.")
    if not 1 <= top_k <= model.config.num_senses:
        raise ValueError(f"`top_k` is {top_k}, but the model has {model.config.num_senses} senses.")
    if variant == "without_senses":
        with closed_gate(model):
            yield model
        return
    if variant == "senses_alone":
        handle = model.backpack.residual_gate.register_forward_hook(
            lambda _, state_and_mixture, __: state_and_mixture[1]
        )
        try:
            yield model
        finally:
            handle.remove()
        return
    switches = {
        "mixture_mode": variant.removesuffix("_norm_matched"),
        "mixture_top_k": top_k,
        "mixture_norm_matched": variant.endswith("_norm_matched"),
    }
    before = {name: getattr(model.config, name) for name in switches}
    try:
        for name, value in switches.items():
            setattr(model.config, name, value)
        yield model
    finally:
        for name, value in before.items():
            setattr(model.config, name, value)


@torch.no_grad()
def sentence_nll(model, sequences: list[list[int]], *, batch_size: int = 16, bar=None):
    """Negative log-likelihood of each sentence, every token but the first predicted from those before it (Eq. 12).

    Args:
        sequences: Token ids of each sentence; one of a single token has nothing to predict and counts no token.
        bar (*optional*): A `tqdm` that counts the sentences read.

    Returns:
        `tuple` of two arrays of shape `(sentences,)`: summed nats (float64) and predicted tokens (int).
    """
    device = model.get_input_embeddings().weight.device
    nll = np.zeros(len(sequences))
    model.eval()
    for indices, ids, mask in padded_batches(sequences, batch_size, device, bar):
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
        losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        losses = losses.view(len(ids), -1) * mask[:, 1:]
        nll[indices] = losses.cpu().double().sum(dim=1).numpy()
    return nll, np.array([max(0, len(sequence) - 1) for sequence in sequences])


def mixture_ablation(
    model, sequences, *, top_k: int = 1, batch_size: int = 16, iterations: int = 10_000, seed: int = 0, bar=None
) -> dict:
    """Token-level cross-entropy in nats under every variant, with bootstrap intervals over sentences (Table 5).

    Args:
        sequences: Token ids of the target sentences.

    Returns:
        `dict`: `tokens`, `top_k`, and for each name of [`variants_of`] `mean`, `interval` and, but for `full`, the
        paired `difference` to it as `paired_bootstrap` gives it.
    """
    nll = {}
    for variant in variants_of(model):
        with ablated(model, variant, top_k=top_k):
            nll[variant], tokens = sentence_nll(model, sequences, batch_size=batch_size, bar=bar)
    if tokens.sum() == 0:
        raise ValueError("No sentence has a second token, so there is nothing to predict.")
    predicted = tokens > 0
    result = {"tokens": int(tokens.sum()), "top_k": top_k}
    full = nll["full"][predicted] / tokens[predicted]
    for variant, values in nll.items():
        values = values[predicted] / tokens[predicted]
        compared = paired_bootstrap(values, full, weights=tokens[predicted], iterations=iterations, seed=seed)
        result[variant] = compared["model"]
        if variant != "full":
            result[variant]["difference"] = compared["difference"]
    return result
