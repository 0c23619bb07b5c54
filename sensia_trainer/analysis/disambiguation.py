"""Do senses tell the meanings of a word apart? Word-sense disambiguation on CoarseWSD-20 (Loureiro et al., 2021).

An occurrence belongs to the meaning whose centroid is nearest by cosine. The vectors are what a model has of the word
in its sentence; only what stands before the word has been read there.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from ..utils.statistics import paired_bootstrap, wilson_interval
from .controls import random_sense_path
from .procrustes import normalise_rows
from .words import Word, padded_batches, word_positions


class Occurrences(NamedTuple):
    """Sentences with an ambiguous word in them."""

    sentences: list[str]
    words: list[Word]  # where it stands in each
    labels: np.ndarray  # its meaning, an index of `classes`


class AmbiguousWord(NamedTuple):
    word: str
    classes: list[str]
    train: Occurrences
    test: Occurrences


def load_coarsewsd(folder, *, max_items=None) -> list[AmbiguousWord]:
    """The words of CoarseWSD-20 in its published layout: `apple/train.data.txt`, `train.gold.txt`, `test....`, and
    `classes_map.txt`.

    Args:
        max_items (`int`, *optional*): At most so many sentences of each split, evenly spread.

    Raises:
        `ValueError`: If there is no word in the folder, or a line is not as the layout has it (it is named).
    """
    files = sorted(Path(folder).glob("*/classes_map.txt"))
    if not files:
        raise ValueError(
            f"{str(folder)!r} holds no words of CoarseWSD-20 (WORD/classes_map.txt, train.data.txt, ...)."
        )
    words = []
    for file in files:
        classes = json.loads(file.read_text(encoding="utf-8"))
        names = [classes[str(i)] for i in range(len(classes))]
        splits = [_read_split(file.parent, split, len(names), max_items) for split in ("train", "test")]
        words.append(AmbiguousWord(file.parent.name, names, *splits))
    return words


def _read_split(folder, split, classes, max_items) -> Occurrences:
    lines = (folder / f"{split}.data.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
    gold = (folder / f"{split}.gold.txt").read_text(encoding="utf-8").split()
    if len(lines) != len(gold):
        raise ValueError(f"{folder.name}/{split}: {len(lines)} sentences and {len(gold)} labels.")
    kept = range(len(lines))
    if max_items and max_items < len(lines):
        kept = [len(lines) * i // max_items for i in range(max_items)]
    sentences, words, labels = [], [], []
    for number in kept:
        place, _, text = lines[number].partition("\t")
        tokens = text.split(" ")
        if not place.isdigit() or int(place) >= len(tokens) or not 0 <= int(gold[number]) < classes:
            raise ValueError(f"{folder.name}/{split}, line {number + 1}: no token or no meaning of that number.")
        start = len(" ".join([*tokens[: int(place)], ""]))
        sentences.append(text)
        words.append(Word(tokens[int(place)], start, start + len(tokens[int(place)])))
        labels.append(int(gold[number]))
    return Occurrences(sentences, words, np.array(labels))


@torch.no_grad()
def occurrence_vectors(model, tokenizer, occurrences, *, batch_size=16, bar=None) -> dict[str, np.ndarray]:
    """What a Backpack has of each word in its sentence, read at the word's last subword.

    Returns:
        `contributions`: c_k = sum_s alpha_k[t, s] S_k[s] of every sense side by side, `(n, K d)`; `dense`: the
        backbone's state, `(n, d)`. Both float32.
    """
    device, limit = model.get_input_embeddings().weight.device, model.config.max_position_embeddings
    sequences = []
    for sentence, word in zip(occurrences.sentences, occurrences.words, strict=True):
        ids, (spelled,) = word_positions(tokenizer, sentence, [word])
        sequences.append(ids[: spelled[-1] + 1][-limit:] if limit else ids[: spelled[-1] + 1])
    vectors = {"contributions": [None] * len(sequences), "dense": [None] * len(sequences)}
    for indices, ids, mask in padded_batches(sequences, batch_size, device, bar):
        output = model.backpack(input_ids=ids, attention_mask=mask, output_senses=True, output_sense_weights=True)
        last = mask.sum(dim=1) - 1
        rows = torch.arange(len(ids), device=device)
        weights = output.sense_weights[rows, :, last].float()  # (B, K, T)
        contributions = torch.einsum("bkt,btkd->bkd", weights, output.senses.float()).flatten(1)
        dense = output.backbone_last_hidden_state[rows, last].float()
        for row, index in enumerate(indices):
            vectors["contributions"][index] = contributions[row].cpu().numpy()
            vectors["dense"][index] = dense[row].cpu().numpy()
    return {name: np.stack(found) for name, found in vectors.items()}


def nearest_centroid(train, labels, test) -> np.ndarray:
    """The class of each test vector: the class mean nearest by cosine, all unit vectors less the mean of the class
    means, which what they share would drown otherwise.

    Args:
        train (`np.ndarray` of shape `(n, D)`), labels (`np.ndarray` of int, `(n,)`), test (`(m, D)`).

    Returns:
        `np.ndarray` of shape `(m,)`; classes without a training vector are never chosen.
    """
    train, test, present = normalise_rows(train), normalise_rows(test), np.unique(labels)
    centroids = np.stack([train[labels == label].mean(axis=0) for label in present])
    middle = centroids.mean(axis=0)
    return present[(normalise_rows(test - middle) @ normalise_rows(centroids - middle).T).argmax(axis=1)]


def one_shot(train, labels, test, *, draws=10, seed=0) -> np.ndarray:
    """[`nearest_centroid`] from one training vector of each class, drawn `draws` times: classes `(draws, m)`."""
    generator = np.random.default_rng(seed)
    present, chosen = np.unique(labels), []
    for _ in range(draws):
        picked = np.array([generator.choice(np.flatnonzero(labels == label)) for label in present])
        chosen.append(nearest_centroid(train[picked], present, test))
    return np.stack(chosen)


KINDS = ("contributions", "random_contributions", "dense", "most_frequent")
REGIMES = ("all", "one_shot")


def disambiguate(
    model, tokenizer, words: list[AmbiguousWord], *, batch_size=16, draws=10, iterations=10_000, seed=0, progress=False
) -> dict:
    """Accuracy of nearest centroids for every word: by sense contributions, those of a random sense path, the dense
    state, and the most frequent meaning.

    Returns:
        `dict`: `words` (by word: `classes`, `train`, `test` (counts), and by regime (`all` training items, `one_shot`)
        and kind `accuracy` with, for all items, its Wilson `interval`), and `average` over words, each counted alike:
        by regime and kind `mean` and `interval`, and `difference` of the contributions to each other kind with its
        interval and p-value, by a bootstrap over test items.
    """
    control = random_sense_path(model, seed)
    hits = {regime: {kind: [] for kind in KINDS} for regime in REGIMES}
    result, weights = {"words": {}}, []
    total = 2 * sum(len(split.labels) for word in words for split in (word.train, word.test))
    with tqdm(total=total, desc="disambiguation", disable=not progress) as bar:
        for word in words:
            vectors = {}
            for split in ("train", "test"):
                run = {"batch_size": batch_size, "bar": bar}
                found = occurrence_vectors(model, tokenizer, getattr(word, split), **run)
                random = occurrence_vectors(control, tokenizer, getattr(word, split), **run)
                vectors[split] = found | {"random_contributions": random["contributions"]}
            labels, gold = word.train.labels, word.test.labels
            entry = {"classes": word.classes, "train": len(labels), "test": len(gold)}
            entry |= {regime: {} for regime in REGIMES}
            for kind in KINDS:
                if kind == "most_frequent":
                    right = {"all": (np.bincount(labels).argmax() == gold).astype(float)}
                    right["one_shot"] = np.full(len(gold), 1 / len(np.unique(labels)))  # one of each: nothing to count
                else:
                    train, test = vectors["train"][kind], vectors["test"][kind]
                    right = {"all": (nearest_centroid(train, labels, test) == gold).astype(float)}
                    right["one_shot"] = (one_shot(train, labels, test, draws=draws, seed=seed) == gold).mean(axis=0)
                for regime in REGIMES:
                    hits[regime][kind].append(right[regime])
                    entry[regime][kind] = {"accuracy": float(right[regime].mean())}
                entry["all"][kind]["interval"] = wilson_interval(int(right["all"].sum()), len(gold))
            result["words"][word.word] = entry
            weights.append(np.full(len(gold), 1 / len(gold)))
    weights, result["average"] = np.concatenate(weights), {}
    for regime in REGIMES:
        columns = {kind: np.concatenate(parts) for kind, parts in hits[regime].items()}
        result["average"][regime] = {}
        for kind in KINDS:
            other = {"weights": weights, "iterations": iterations, "seed": seed}
            compared = paired_bootstrap(columns["contributions"], columns[kind], **other)
            result["average"][regime][kind] = compared["control"]
            if kind != "contributions":
                result["average"][regime][kind]["difference"] = compared["difference"]
    return result
