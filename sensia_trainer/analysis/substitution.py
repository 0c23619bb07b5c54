"""Which words can stand in for a word here? Lexical substitution on SWORDS (Lee et al., 2021).

Substitutes are ranked by how well they fit; people said of each whether it does. A ranking is scored by its
generalised average precision (Kishida, 2005), which wants what most accept first, and by the share of the acceptable
ones among the first ten.
"""

import gzip
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from ..utils.models import own_start_token
from ..utils.statistics import bootstrap_interval, paired_bootstrap
from .controls import closed_gate, has_gate, random_sense_path
from .mixture import sentence_nll
from .words import Word, word_positions


ACCEPTED = 0.5  # share of annotators from which on a substitute is acceptable
FIRST = 10


class Target(NamedTuple):
    """A word in its context, its possible substitutes, and the share of annotators that accept each."""

    context: str
    word: Word
    substitutes: list[str]
    accepted: np.ndarray


def load_swords(path, *, max_items=None) -> list[Target]:
    """The targets of a SWORDS file (`swords-v1.1_dev.json.gz`) that have a substitute anyone accepts.

    Raises:
        `ValueError`: If it is no such file.
    """
    path = Path(path)
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            content = json.load(file)
        substitutes = {}
        for key, row in content["substitutes"].items():
            votes = content["substitute_labels"][key]
            entry = row["substitute"], sum(vote.startswith("TRUE") for vote in votes) / len(votes)
            substitutes.setdefault(row["target_id"], []).append(entry)
        targets = []
        for key, row in content["targets"].items():
            start, context = row["offset"], content["contexts"][row["context_id"]]["context"]
            words, shares = zip(*substitutes.get(key, [("", 0.0)]), strict=True)
            if max(shares) > 0:
                word = Word(row["target"], start, start + len(row["target"]))
                targets.append(Target(context, word, list(words), np.array(shares)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{str(path)!r} is no file of SWORDS ({type(error).__name__}: {error}).") from error
    return targets[:max_items]


def average_precision(scores, gains) -> float:
    """Generalised average precision of a ranking, 1 for the best order.

    sum_i [g_i > 0] G_i / i over the ranking, G_i the sum of its first i gains, divided by the same of the best order.

    Args:
        scores (`np.ndarray` of shape `(n,)`): Higher is ranked earlier; of equal scores the first one is.
        gains (`np.ndarray` of shape `(n,)`): Non-negative, not all zero.
    """
    gains = np.asarray(gains, dtype=np.float64)
    return _precision_sum(gains[np.argsort(-np.asarray(scores), kind="stable")]) / _precision_sum(np.sort(gains)[::-1])


def _precision_sum(ordered) -> float:
    return float((np.cumsum(ordered) / np.arange(1, len(ordered) + 1))[ordered > 0].sum())


def average_precision_of_any_order(gains) -> float:
    """The mean of [`average_precision`] over all orders.

    The item at place i is each with equal chance, and before it stand i - 1 of the others, so the expected term is
    (sum g + (i - 1) (p S - S / n) n / (n - 1)) / (n i), with p the share of positive gains and S their sum.
    """
    gains = np.asarray(gains, dtype=np.float64)
    number, total, positive = len(gains), gains.sum(), (gains > 0).mean()
    places = np.arange(1, number + 1)
    others = (positive * total - total / number) / max(number - 1, 1)
    expected = ((total / number + (places - 1) * others) / places).sum()
    return float(expected / _precision_sum(np.sort(gains)[::-1]))


def recall_of_first(scores, gains, first=FIRST) -> float | None:
    """Share of the acceptable substitutes that are among the first ten, of at most ten; None where there is none."""
    acceptable = np.asarray(gains) >= ACCEPTED
    if not acceptable.any():
        return None
    order = np.argsort(-np.asarray(scores), kind="stable")[:first]
    return float(acceptable[order].sum() / min(first, acceptable.sum()))


def fits_by_likelihood(model, tokenizer, target: Target, *, batch_size=16) -> np.ndarray:
    """Log-likelihood of the sentence with each substitute in the word's place, nats."""
    limit = model.config.max_position_embeddings or 10**6
    before, after = target.context[: target.word.start], target.context[target.word.end :]
    texts = [before + word + after for word in target.substitutes]
    sequences = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    start = own_start_token(tokenizer)
    first = [] if start is None else [start]
    # What is cut off is the same for all: the beginning of the context, as far as the longest sentence asks.
    cut = max(0, max(map(len, sequences)) + len(first) - limit)
    nll, _ = sentence_nll(model, [first + ids[cut:] for ids in sequences], batch_size=batch_size)
    return -nll


@torch.no_grad()
def fits_by_senses(model, tokenizer, target: Target) -> np.ndarray:
    """Cosine of the word's senses and each substitute's, both mixed as the context weighs the word's.

    The weight of sense k is the norm of its contribution at the word, ||c_k||, over the sum of all.
    """
    device, limit = model.get_input_embeddings().weight.device, model.config.max_position_embeddings
    ids, (spelled,) = word_positions(tokenizer, target.context, [target.word])
    ids = ids[: spelled[-1] + 1]
    own = ids[spelled[0] :]
    ids = torch.tensor([ids[-limit:] if limit else ids], device=device)
    output = model.backpack(input_ids=ids, output_senses=True, output_sense_weights=True)
    contributions = torch.einsum("kt,tkd->kd", output.sense_weights[0, :, -1].float(), output.senses[0].float())
    weights = contributions.norm(dim=-1) / contributions.norm(dim=-1).sum()

    def mixed(tokens):
        return torch.einsum("k,tkd->d", weights, model.get_senses(tokens).float())

    return _cosines(mixed, own, tokenizer, target)


@torch.no_grad()
def fits_by_embedding(model, tokenizer, target: Target) -> np.ndarray:
    """Cosine of the word's embedding and each substitute's: no senses, no context."""
    ids, (spelled,) = word_positions(tokenizer, target.context, [target.word])
    embed = model.get_input_embeddings()
    return _cosines(
        lambda tokens: embed(tokens.to(embed.weight.device)).float().sum(dim=0),
        ids[spelled[0] : spelled[-1] + 1],
        tokenizer,
        target,
    )


def _cosines(embed, own: list[int], tokenizer, target: Target) -> np.ndarray:
    """A substitute is spelled as within a text, behind a space where the word is."""
    space = " " if target.word.start and target.context[target.word.start - 1].isspace() else ""
    spelled = tokenizer([space + word for word in target.substitutes], add_special_tokens=False)["input_ids"]
    query = embed(torch.tensor(own))
    return np.array([torch.cosine_similarity(query, embed(torch.tensor(ids)), dim=0).item() for ids in spelled])


def rank_substitutes(
    model, tokenizer, targets: list[Target], *, batch_size=16, iterations=10_000, seed=0, progress=False
) -> dict:
    """Average precision and recall of every ranking, beside that of no ranking at all.

    Returns:
        `dict`: `targets` (their number) and by ranking `gap` and `recall`, each `mean` and `interval` over targets,
        and the `differences` of `gap` to what the ranking is to beat, its name in `than`: `likelihood` (the sentence
        with the substitute) to that of the language model alone where there is one (`likelihood_without_senses`) and
        to `any_order`, the mean over all orders; `senses` to `random_senses` and to `embedding`.
    """
    control = random_sense_path(model, seed)
    run = {"batch_size": batch_size}
    rankings = {"likelihood": [], "senses": [], "random_senses": [], "embedding": []}
    if has_gate(model):
        rankings["likelihood_without_senses"] = []
    for target in tqdm(targets, desc="substitution", disable=not progress):
        rankings["likelihood"].append(fits_by_likelihood(model, tokenizer, target, **run))
        if has_gate(model):
            with closed_gate(model):
                rankings["likelihood_without_senses"].append(fits_by_likelihood(model, tokenizer, target, **run))
        rankings["senses"].append(fits_by_senses(model, tokenizer, target))
        rankings["random_senses"].append(fits_by_senses(control, tokenizer, target))
        rankings["embedding"].append(fits_by_embedding(model, tokenizer, target))
    # One draw of an order for its recall, whose mean over orders nobody needs; that of its precision is exact.
    generator = np.random.default_rng(seed)
    rankings["any_order"] = [generator.permutation(len(target.substitutes)) for target in targets]
    result, gaps = {"targets": len(targets)}, {}
    for name, scored in rankings.items():
        gaps[name] = [average_precision(scores, target.accepted) for scores, target in zip(scored, targets)]
        if name == "any_order":
            gaps[name] = [average_precision_of_any_order(target.accepted) for target in targets]
        recalls = [recall_of_first(scores, target.accepted) for scores, target in zip(scored, targets)]
        recalls = [recall for recall in recalls if recall is not None]
        interval = {"samples": min(iterations, 2000), "seed": seed}
        result[name] = {
            "gap": {"mean": float(np.mean(gaps[name])), "interval": bootstrap_interval(gaps[name], **interval)},
            "recall": {"mean": float(np.mean(recalls)), "interval": bootstrap_interval(recalls, **interval)},
        }
    pairs = [("likelihood", "likelihood_without_senses"), ("likelihood", "any_order"), ("senses", "random_senses")]
    for better, than in [*pairs, ("senses", "embedding")]:
        if than in gaps:
            compared = paired_bootstrap(gaps[better], gaps[than], iterations=iterations, seed=seed)["difference"]
            result[better].setdefault("differences", []).append(compared | {"than": than})
    return result
