"""Does boosting a sense of an ambiguous word steer the prediction towards one of its meanings?

What a meaning is, is told by the words of its sentences in CoarseWSD-20. A sense is chosen for every meaning on
training sentences and judged on test sentences. The control boosts by the same sense of another ambiguous word, at
equal norm: what a sense does behind any word is no meaning of this one.
"""

from collections import Counter

import numpy as np
import torch
from tqdm.auto import tqdm

from ..utils.statistics import paired_bootstrap
from .disambiguation import AmbiguousWord
from .words import padded_batches, word_positions


COMMON = 100  # most frequent tokens, which speak for no meaning


def meaning_scores(tokenizer, occurrences, classes: int, vocab_size: int) -> np.ndarray:
    """How much each token speaks for each meaning: ln of its rate in the sentences of the meaning over that in those
    of the others, one occurrence added to all counts.

    Returns:
        `np.ndarray` of shape `(classes, vocab_size)`; 0 for the ambiguous word itself and the most common tokens.
    """
    counts = np.ones((classes, vocab_size))
    encoded = tokenizer(occurrences.sentences, add_special_tokens=False, verbose=False)["input_ids"]
    for ids, label in zip(encoded, occurrences.labels, strict=True):
        np.add.at(counts[label], ids, 1)
    total = counts.sum(axis=0)
    others = total - counts
    scores = np.log(counts / counts.sum(axis=1, keepdims=True)) - np.log(others / others.sum(axis=1, keepdims=True))
    scores[:, np.argsort(-total, kind="stable")[:COMMON]] = 0.0
    own = sorted({form for word in occurrences.words for form in (word.text, f" {word.text}")})
    for ids in tokenizer(own, add_special_tokens=False)["input_ids"]:
        scores[:, ids] = 0.0
    return scores


def prompts_up_to(tokenizer, occurrences, number: int, limit: int | None) -> tuple[list[list[int]], int]:
    """Token ids of sentences up to the ambiguous word, evenly spread, and the token that the word ends with in most of
    them; the others are left out."""
    number = min(number, len(occurrences.labels))
    sequences = []
    for index in sorted({len(occurrences.labels) * i // number for i in range(number)}):
        ids, (places,) = word_positions(tokenizer, occurrences.sentences[index], [occurrences.words[index]])
        sequences.append(ids[: places[-1] + 1][-limit:] if limit else ids[: places[-1] + 1])
    token = Counter(ids[-1] for ids in sequences).most_common(1)[0][0]
    return [ids for ids in sequences if ids[-1] == token], token


@torch.no_grad()
def boosted(model, sequences, token: int, boosts, scores, *, batch_size=16, bar=None) -> np.ndarray:
    """How far the prediction behind a word moves towards each meaning when a sense of it is boosted.

    What the head reads is linear in the senses: a boost of sense k of the word adds to it, in the last place, the sum
    of alpha_k[last, s] boost_k over the places s of the word (behind the gate, where the model has one). So one pass
    through the model tells of all senses.

    Args:
        sequences: Token ids that end with the word's last `token`.
        boosts (`torch.FloatTensor` of shape `(K, d)`): What is added to each sense of the token.
        scores (`np.ndarray` of shape `(classes, V)`): From [`meaning_scores`].

    Returns:
        `np.ndarray` of shape `(K, classes)`: sum_v (p'(v) - p(v)) score(v), mean over sequences.
    """
    device = model.get_input_embeddings().weight.device
    scores = torch.tensor(scores, dtype=torch.float32, device=device)
    boosts = boosts.to(device).float() * model.config.sense_scale
    if model.config.residual_gate:
        boosts = boosts * model.backpack.residual_gate.weight.float()

    def expected(states):
        return model.compute_logits(states).float().softmax(-1) @ scores.T

    shift = torch.zeros(len(boosts), len(scores), device=device)
    for _, ids, mask in padded_batches(sequences, batch_size, device, bar):
        rows, last = torch.arange(len(ids), device=device), mask.sum(dim=1) - 1
        output = model.backpack(input_ids=ids, attention_mask=mask, output_sense_weights=True)
        weights = output.sense_weights[rows, :, last].float()  # (B, K, T)
        places = (ids == token) & mask.bool()
        added = (weights * places[:, None]).sum(-1, keepdim=True) * boosts  # (B, K, d)
        state = output.last_hidden_state[rows, last][:, None]
        shift += (expected(state + added.to(state.dtype)) - expected(state)).sum(dim=0)
    return (shift / len(sequences)).cpu().numpy()


def steering(
    model,
    tokenizer,
    words: list[AmbiguousWord],
    *,
    scale=3.0,
    prompts=32,
    batch_size=16,
    iterations=10_000,
    seed=0,
    progress=False,
) -> dict:
    """Whether boosting a sense of an ambiguous word moves the next-token distribution towards one of its meanings.

    Args:
        words: At least two, from `load_coarsewsd`.
        scale (`float`): Factor of the boosted sense.
        prompts (`int`): Beginnings of sentences, up to the word, of each split.

    Returns:
        `dict`: `words` (by word and meaning, for `own` and `other`: the `sense` chosen on training sentences and its
        `shift` on test sentences, nats of the expected score of [`meaning_scores`]), `meanings` (their number), `own`
        and `other` (boosts by another word's senses): `towards`, the share of meanings with a positive shift, and
        `shift` with its interval over meanings, whose words are drawn together; `difference` of the two.
    """
    if len(words) < 2:
        raise ValueError(f"Steering is compared with another ambiguous word; there are {len(words)}.")
    vocab_size, limit = len(model.get_input_embeddings().weight), model.config.max_position_embeddings
    splits = ("train", "test")
    scores, asked = {}, {}
    for word in words:
        for split in splits:
            occurrences, key = getattr(word, split), (word.word, split)
            scores[key] = meaning_scores(tokenizer, occurrences, len(word.classes), vocab_size)
            asked[key] = prompts_up_to(tokenizer, occurrences, prompts, limit)
    found, groups = {"own": [], "other": []}, []
    result = {"scale": scale, "prompts": prompts, "words": {}}
    total = 2 * sum(len(sequences) for sequences, _ in asked.values())
    with tqdm(total=total, desc="steering", disable=not progress) as bar, torch.no_grad():
        for word, neighbour in zip(words, [*words[1:], words[0]]):
            shifts = {}
            for split in splits:
                sequences, token = asked[word.word, split]
                own = model.get_senses(torch.tensor([token]))[0].float()
                other = model.get_senses(torch.tensor([asked[neighbour.word, split][1]]))[0].float()
                norms = own.norm(dim=-1, keepdim=True) / other.norm(dim=-1, keepdim=True).clamp_min(1e-9)
                for name, boosts in (("own", own), ("other", other * norms)):
                    run = {"batch_size": batch_size, "bar": bar}
                    moved = boosted(model, sequences, token, (scale - 1) * boosts, scores[word.word, split], **run)
                    shifts[name, split] = moved
            for label, meaning in enumerate(word.classes):
                if not all((getattr(word, split).labels == label).any() for split in splits):
                    continue
                entry = {}
                for name in found:
                    sense = int(shifts[name, "train"][:, label].argmax())
                    entry[name] = {"sense": sense, "shift": float(shifts[name, "test"][sense, label])}
                    found[name].append(entry[name]["shift"])
                groups.append(word.word)
                result["words"].setdefault(word.word, {})[meaning] = entry
    compared = paired_bootstrap(*found.values(), groups=np.array(groups), iterations=iterations, seed=seed)
    result["meanings"] = len(groups)
    for name, column in (("own", "model"), ("other", "control")):
        result[name] = {"towards": float(np.mean(np.array(found[name]) > 0)), "shift": compared[column]}
    return result | {"difference": compared["difference"]}
