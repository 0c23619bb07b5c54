"""Several languages measured with each other, on sentences that are translated into all of them (FLORES-200)."""

from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure  # without pyplot, which would choose a backend for the whole process

from ..languages import language
from ..utils.figures import save_figure
from ..utils.statistics import bootstrap_interval, bootstrap_ratio_interval
from .batching import check_ids, encode_texts, evaluating, longest, start_token
from .intrinsic import encode_side, side_metrics, with_random_weights
from .overlap import overlap_by_query, token_idf
from .perplexity import check_nll
from .retrieval import retrieval_by_query
from .vectors import DEFAULTS


LABELS = {
    "sense": "sense vectors",
    "context": "context vectors",
    "overlap": "token overlap, no model",
    "random_sense": "sense vectors of random weights",
    "random_context": "context vectors of random weights",
    "sense_beyond_overlap": "sense vectors where overlap fails",
    "context_beyond_overlap": "context vectors where overlap fails",
}
KINDS = ("sense", "context", "overlap")


def language_matrix(
    model, tokenizer, sentences: dict[str, list[str]], source: str, *, counted=(), bootstrap=0, seed=0, **options
) -> dict:
    """
    Retrieval between all pairs of some languages in both directions, and how well each is predicted; one pass over
    every sentence.

    Args:
        model, tokenizer: Any causal language model; one without senses has no `sense`.
        sentences (`dict[str, list[str]]`): By code of the language; row i of one translates row i of every other.
        source (`str`): The language that pairs were trained with. Retrieval between two others is called zero-shot;
            pairs that were trained without it are among these, so say which there are.
        counted (`Sequence[str]`, *optional*): Other sentences, on which the document frequencies of tokens are
            counted for the overlap; by default the evaluated ones.
        bootstrap (`int`, *optional*, defaults to 0): Resamples of sentences for 95 % intervals.
        seed (`int`, *optional*, defaults to 0): Of the resamples.
        options: `batch_size`, `max_length`, `pooling`, `temperature`, `context_state`, `context_layer`, `progress` of
            [`evaluate_bitext`].

    Returns:
        `dict`: `languages` (codes), `source`, `sentences` (their number); for `sense`, `context` and `overlap` a
        mapping from directions (`en-id`: English finds Indonesian) to recall@1, with the means `from_source`,
        `to_source` and `zero_shot`; `sense_beyond_overlap` and `context_beyond_overlap`, the same of the sentences
        that overlap cannot solve; `bits_per_byte`, `perplexity` and `sense_entropy` by language. Means and
        values with `..._interval`.

    Raises:
        `ValueError`: for fewer than two languages or sentences, languages of different length, or without `source`.
    """
    sizes = {code: len(texts) for code, texts in sentences.items()}
    if len(sizes) < 2 or len(set(sizes.values())) != 1 or min(sizes.values()) < 2 or source not in sizes:
        raise ValueError(
            f"A matrix of languages needs two languages or more, {source!r} among them, with as many sentences each, "
            f"two or more (got {sizes})."
        )
    encode = {
        "start": start_token(tokenizer, "own"),
        "max_length": longest(model, options.pop("max_length", None)),
    }
    sides, ids = {}, {}
    with evaluating(model):
        for code, texts in sentences.items():
            encoded = encode_texts(tokenizer, texts, **encode)
            check_ids(model, [one.ids for one in encoded])
            sides[code] = encode_side(model, encoded, language(code).name, **DEFAULTS | options)
            check_nll(sides[code]["nll"], f"{code} sentence")
            sides[code] |= {"metrics": side_metrics(sides[code], encoded, "side", bootstrap, seed)}
            ids[code] = [one.ids[int(encode["start"] is not None) :] for one in encoded]
    others = tokenizer(list(counted), add_special_tokens=False, verbose=False)["input_ids"] if counted else None
    idf = token_idf(others or [one for side in ids.values() for one in side], len(model.get_input_embeddings().weight))

    result = {"languages": list(sizes), "source": source, "sentences": sizes[source]}
    hits = all_hits(sides, ids, idf)
    for kind, of_kind in hits.items():
        result[kind] = _summary(of_kind, source, bootstrap, seed)
        if kind != "overlap":
            result[f"{kind}_beyond_overlap"] = _beyond(of_kind, hits["overlap"], source, bootstrap, seed)
    for key, name in (("bits_per_byte", "side_bits_per_byte"), ("perplexity", "side_perplexity")):
        result[key] = _by_language(sides, name)
    if "entropy" in sides[source]:
        result["sense_entropy"] = _by_language(sides, "sense_entropy_side")
    return result


def random_weights_matrix(model, tokenizer, sentences, source, *, seed=0, **options) -> dict:
    """Retrieval of the same model with fresh weights: what architecture and tokens give without any training.

    Args:
        seed (`int`): Of the weights, and of the resamples.
        options: As those of [`language_matrix`], whose other arguments are these.

    Returns:
        `dict`: `random_sense` and `random_context`, as `sense` and `context` of [`language_matrix`].
    """
    matrix = language_matrix(with_random_weights(model, seed), tokenizer, sentences, source, seed=seed, **options)
    return {f"random_{kind}": matrix[kind] for kind in ("sense", "context") if kind in matrix}


def all_hits(sides: dict[str, dict], ids: dict[str, list], idf) -> dict[str, dict[str, torch.Tensor]]:
    """By kind of vectors and direction (`en-id`), the hit of every sentence, `(N,)`, see `retrieval_by_query`."""
    found: dict[str, dict] = {kind: {} for kind in KINDS if kind in (*next(iter(sides.values())), "overlap")}
    codes = list(sides)
    for number, one in enumerate(codes):
        for other in codes[number + 1 :]:
            for kind in found:
                if kind == "overlap":
                    both = overlap_by_query(ids[one], ids[other], idf)["hits"]
                else:
                    both = retrieval_by_query(sides[one][kind], sides[other][kind])["hits"]
                found[kind][f"{one}-{other}"], found[kind][f"{other}-{one}"] = both.cpu().double()
    return found


def directions(codes, source: str) -> dict[str, list[str]]:
    """The directions of retrieval that each mean is taken over."""
    named = {"from_source": [], "to_source": [], "zero_shot": []}
    for one, other in permutations(codes, 2):
        kind = "from_source" if one == source else "to_source" if other == source else "zero_shot"
        named[kind].append(f"{one}-{other}")
    return {kind: names for kind, names in named.items() if names}


def _codes(hits: dict) -> list[str]:
    return list(dict.fromkeys(name.split("-")[0] for name in hits))


def _summary(hits: dict[str, torch.Tensor], source: str, bootstrap: int, seed: int) -> dict:
    """Recall of every direction, and means over directions; the sentences are resampled, not the languages."""
    values = dict(hits)
    for kind, names in directions(_codes(hits), source).items():
        values[kind] = torch.stack([hits[name] for name in names]).mean(0)
    summary = {}
    for name, of_sentence in values.items():
        summary[name] = of_sentence.mean().item()
        if bootstrap:
            summary[f"{name}_interval"] = bootstrap_interval(of_sentence, samples=bootstrap, seed=seed)
    return summary


def _beyond(hits: dict[str, torch.Tensor], overlap: dict[str, torch.Tensor], source: str, bootstrap, seed) -> dict:
    """Recall of every direction on the sentences whose translation overlap does not find for sure, and its means over
    directions."""
    summary = {}
    for kind, names in ({name: [name] for name in hits} | directions(_codes(hits), source)).items():
        unsolved = torch.stack([overlap[name] < 1 for name in names]).double()
        found, number = (torch.stack([hits[name] for name in names]) * unsolved).sum(0), unsolved.sum(0)
        if number.any():
            summary[kind] = (found.sum() / number.sum()).item()
            if bootstrap:
                interval = bootstrap_ratio_interval(found, number, samples=bootstrap, seed=seed)
                summary[f"{kind}_interval"] = interval
    return summary


def _by_language(sides: dict[str, dict], name: str) -> dict:
    found = {}
    for code, side in sides.items():
        keys = {code: name, f"{code}_interval": f"{name}_interval"}
        found |= {key: side["metrics"][old] for key, old in keys.items() if old in side["metrics"]}
    return found


def matrix_figure(matrix: dict, path) -> list[Path]:
    """
    Recall@1 from every language (rows) into every other (columns), a panel for each kind of vectors.

    Args:
        matrix (`dict`): What [`language_matrix`] returns.
        path: Where to save; PNG and SVG are written.

    Returns:
        The files written.
    """
    codes, kinds = matrix["languages"], [kind for kind in KINDS if kind in matrix]
    size = 1.2 + 0.55 * len(codes)
    figure = Figure(figsize=(size * len(kinds), size + 0.4), layout="constrained")
    for ax, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        cells = np.full((len(codes), len(codes)), np.nan)
        for (row, one), (column, other) in permutations(enumerate(codes), 2):
            cells[row, column] = matrix[kind][f"{one}-{other}"]
        ax.imshow(cells, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.argwhere(~np.isnan(cells)):
            value = cells[row, column]
            colour = "white" if value > 0.6 else "black"
            ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
        ax.set_xticks(range(len(codes)), codes)
        ax.set_yticks(range(len(codes)), codes)
        ax.set_title(LABELS[kind], fontsize=10)
        ax.set_xlabel("candidates")
        ax.set_ylabel("queries")
    return save_figure(figure, path)
