"""
Rows of new tokens: mixtures of the rows of old ones, in every matrix with one row for each token.

The senses of a word are a function of its embedding, so a new word with the embedding of its translations has their
senses. Row t of the mixture is

    translation:  sum_s p(s|t) e_s + (1 - c) m,   over the best translations s of t, c = sum_s p(s|t)
    parts:        m, the mean of the rows of the tokens that spelled t before

and the mean of all rows for the third method, `mean`. A mixture is shorter than what it mixes; lengths are left as
they are, because longer rows compete with the old ones in every context. On the micro model with 4,096 Indonesian
words and no training, bits a byte are 3.01 so and 3.13 with rows as long as their neighbours'; retrieval is the same.
"""

import numpy as np
import torch
from scipy import sparse
from torch import nn

from .settings import METHODS


def mixtures(method, spellings, translations, num_rows):
    """
    What new tokens are made of.

    Args:
        method (`str`): `"translation"`, `"parts"` or `"mean"`.
        spellings (`Sequence[Sequence[int]]`): The old tokens that spelled each new one.
        translations (`scipy.sparse.csr_array` of shape `(new tokens, num_rows)`): Probabilities of translations among
            the old tokens, see `translation.best_translations`; read by `"translation"` only.
        num_rows (`int`): Number of old tokens.

    Returns:
        `scipy.sparse.csr_array` of shape `(new tokens, num_rows)`, whose rows sum to one; `None` for `"mean"`.
    """
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {METHODS}, got {method!r}.")
    if method == "mean":
        return None
    sizes = [len(spelling) for spelling in spellings]
    weights, rows = np.repeat(np.reciprocal(sizes, dtype=np.float64), sizes), np.repeat(np.arange(len(sizes)), sizes)
    parts = sparse.csr_array((weights, (rows, np.concatenate(spellings))), shape=(len(sizes), num_rows))
    if method == "parts":
        return parts
    left = 1 - translations.sum(axis=1)
    return sparse.csr_array(translations + sparse.diags_array(left) @ parts)


def check_model(model, first):
    """
    Refuse models whose rows cannot be added.

    Args:
        model (`PreTrainedModel`): A causal language model.
        first (`int`): Number of rows that its tokenizer needs.

    Raises:
        `ValueError`: for quantised weights, weights that are not in memory, an encoder-decoder, a model that reads
            ahead, fewer rows than tokens, a head of another size, or a further matrix with one row for each token.
    """
    if getattr(model, "is_quantized", False) or getattr(model, "hf_quantizer", None) is not None:
        raise ValueError("The model is quantised, and quantised rows cannot be added. Load it in float32 or bfloat16.")
    if getattr(model.config, "is_encoder_decoder", False):
        raise ValueError("The model is an encoder-decoder; words can be added to causal language models only.")
    known = _matrices(model)
    rows = len(known["embeddings"].weight)
    if rows < first:
        raise ValueError(
            f"The tokenizer needs {first} rows, but the model has {rows} embedding rows: they do not belong "
            "together. Give the tokenizer of this model."
        )
    for name, module in known.items():
        if module.weight.is_meta or not module.weight.is_floating_point():
            raise ValueError(f"The {name} hold {module.weight.dtype} on {module.weight.device}: load them in float32.")
        if len(module.weight) != rows:
            raise ValueError(f"The {name} have {len(module.weight)} rows, but the embeddings have {rows}.")
    others = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and module.num_embeddings == rows and module not in known.values()
    ]
    if others or hasattr(model.config.get_text_config(), "vocab_size_per_layer_input"):  # Gemma 3n
        raise ValueError(
            f"The model ({type(model).__name__}) has further matrices with one row for each token {others}, which "
            "cannot be extended. Leave its vocabulary as it is (size 0)."
        )
    if _reads_ahead(model):
        raise ValueError(
            f"{type(model).__name__} is bidirectional: earlier words see later ones, which a language model has to "
            "predict. Words can be added to causal language models only."
        )


@torch.no_grad()
def _reads_ahead(model):
    """Whether what is predicted for a word depends on the words behind it."""
    training, ids = model.training, torch.arange(4, device=model.get_input_embeddings().weight.device)[None]
    logits, changed = (model.eval()(input_ids=each, use_cache=False).logits for each in (ids, ids ^ (ids == 3).long()))
    model.train(training)
    return bool((logits - changed)[:, :-1].abs().max() > 1e-5 * logits.abs().max())


def add_rows(model, mixture, first, number):
    """
    Give a model the rows of new tokens: input embeddings, head (its bias too) and a Backpack's own sense embeddings.

    Args:
        model (`PreTrainedModel`): A causal language model; changed in place. Rows that it has beyond its tokenizer
            (padding) are used first.
        mixture (`scipy.sparse.csr_array` of shape `(number, first)`): See [`mixtures`]; `None` for the mean of all
            rows.
        first (`int`): Id of the first new token.
        number (`int`): Number of new tokens.
    """
    new = {name: _mixed(module.weight, mixture, first, number) for name, module in _matrices(model).items()}
    bias = getattr(model.get_output_embeddings(), "bias", None)
    new_bias = None if bias is None else _mixed(bias, mixture, first, number)
    rows = len(model.get_input_embeddings().weight)
    model.resize_token_embeddings(max(rows, first + number), mean_resizing=False)
    with torch.no_grad():
        for name, module in _matrices(model).items():
            module.weight[first : first + number] = new[name]
        if new_bias is not None:
            model.get_output_embeddings().bias[first : first + number] = new_bias


def _matrices(model):
    """The modules of a model with one row for each token, by name; a tied head is the embeddings."""
    found = {"embeddings": model.get_input_embeddings()}
    head = model.get_output_embeddings()
    if head is not None and head.weight is not found["embeddings"].weight:
        found["head"] = head
    senses = getattr(model.base_model, "sense_embeddings", None)
    return found if senses is None else found | {"sense embeddings": senses}


def _mixed(weight, mixture, first, number):
    """Rows `(number, …)` mixed from the first rows of `weight`, in its dtype."""
    old = weight.detach()[:first].to("cpu", torch.float64)
    if mixture is None:
        rows = old.mean(dim=0).expand(number, *old.shape[1:])
    else:  # of tokens without a row (see `rows_needed`) none is made
        rows = torch.from_numpy(mixture[:, : len(old)] @ old.numpy())
    return rows.to(weight)
