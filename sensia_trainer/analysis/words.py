"""Words of a sentence, the subword positions that spell them, and the senses and vectors pooled over those."""

from typing import NamedTuple

import numpy as np
import regex
import torch
from torch import Tensor

from ..representations import sense_probs
from ..utils.models import own_start_token


class Word(NamedTuple):
    """A word and the characters `[start, end)` of its sentence that it spans."""

    text: str
    start: int
    end: int


# Letters with their marks and digits, kept together across inner hyphens and apostrophes ("anak-anak", "doesn't",
# "1,012.5") and joiners of no width (of Persian and Hindi); where the script puts no spaces between words, every
# character is a word; any other sign stands alone.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
UNSPACED_WORD = regex.compile(rf"{_UNSPACED}\p{{M}}*", regex.V1)
_WORD = regex.compile(
    rf"{UNSPACED_WORD.pattern}"
    r"|\p{N}+(?:[.,:]\p{N}+)+(?![\p{L}\p{M}])"
    rf"|[[\p{{L}}\p{{M}}\p{{N}}]--{_UNSPACED}]+(?:['’ʼ‑\u200c\u200d-][[\p{{L}}\p{{M}}\p{{N}}]--{_UNSPACED}]+)*"
    r"|\S",
    regex.V1,
)


def segment_words(text: str) -> list[Word]:
    """Words of a sentence, punctuation apart, with their character spans."""
    return [Word(match.group(), *match.span()) for match in _WORD.finditer(text)]


def word_positions(tokenizer, text: str, words: list[Word], *, max_length: int | None = None):
    """Token ids of a sentence and, for every word, the positions of the tokens that cover any of its characters.

    A token that covers two words counts for both. Words not wholly within `max_length` tokens get no position.

    Args:
        tokenizer: One with character offsets (`tokenizer.is_fast`). Before the sentence stands what it puts there
            itself ([`own_start_token`]), as in training; no other special token is added.

    Returns:
        `tuple[list[int], list[list[int]]]`

    Raises:
        `ValueError`: If the tokenizer gives no character offsets.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"`tokenizer` ({type(tokenizer).__name__}) gives no character offsets, so its tokens cannot be assigned "
            "to words. Load the tokenizer as a fast one (a folder with `tokenizer.json`)."
        )
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, offsets = encoding["input_ids"], encoding["offset_mapping"]
    if ids and not any(end > start for start, end in offsets):
        raise ValueError(
            f"`tokenizer` ({type(tokenizer).__name__}) reports empty character offsets for every token of {text!r}, "
            "so its tokens cannot be assigned to words. Use a tokenizer whose offsets survive its normalisation."
        )
    if ids and (first := own_start_token(tokenizer)) is not None:
        ids, offsets = [first, *ids], [(0, 0), *offsets]
    positions = [
        [t for t, (start, end) in enumerate(offsets) if max(start, word.start) < min(end, word.end)] for word in words
    ]
    if max_length is not None and len(ids) > max_length:
        ids = ids[:max_length]
        positions = [spelled if spelled and spelled[-1] < max_length else [] for spelled in positions]
    return ids, positions


def pool(rows: Tensor, positions: list[list[int]]) -> Tensor:
    """Mean of `rows` (T, ...) over each word's subword positions: (words, ...)."""
    if any(not p for p in positions):
        raise ValueError("A word without subword positions cannot be pooled; leave it out.")
    return torch.stack([rows[p].mean(dim=0) for p in positions])


@torch.no_grad()
def word_senses(model, spellings: list[tuple[int, ...]], *, batch_size: int = 256) -> np.ndarray:
    """Pre-context senses of words, averaged over their subwords (Appendix G).

    Args:
        spellings: The token ids of each word; give each distinct spelling once, since context plays no part.
        batch_size (`int`): Words per call of the sense network.

    Returns:
        `np.ndarray` of shape `(words, K, d)`, float32.
    """
    device = model.get_input_embeddings().weight.device
    pooled = []
    for start in range(0, len(spellings), batch_size):
        batch = spellings[start : start + batch_size]
        distinct = sorted({token for spelling in batch for token in spelling})
        senses = model.get_senses(torch.tensor(distinct, device=device)).float()
        row = {token: index for index, token in enumerate(distinct)}
        pooled.append(pool(senses, [[row[token] for token in spelling] for spelling in batch]).cpu().numpy())
    return np.concatenate(pooled)


def mix_senses(senses: Tensor, probs: Tensor) -> Tensor:
    """e = sum_k pi_k s_k (Eq. 7) at every position: (B, T, K, d) and (B, T, K) to (B, T, d)."""
    return torch.einsum("btk,btkd->btd", probs, senses)


def padded_batches(sequences: list[list[int]], batch_size: int, device=None, bar=None):
    """Yields `(indices, input_ids, attention_mask)`, similar lengths together, padded on the right with id 0; `bar`, a
    `tqdm`, counts the rows when they were used."""
    order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        length = max(1, len(sequences[indices[0]]))
        ids = torch.zeros(len(indices), length, dtype=torch.long)
        mask = torch.zeros(len(indices), length, dtype=torch.long)
        for row, index in enumerate(indices):
            ids[row, : len(sequences[index])] = torch.tensor(sequences[index], dtype=torch.long)
            mask[row, : len(sequences[index])] = 1
        yield indices, ids.to(device), mask.to(device)
        if bar is not None:
            bar.update(len(indices))


class SentenceSenses(NamedTuple):
    """What one pass over the sentences of one side leaves, for each definition of the sense probabilities."""

    word_vectors: dict[str, np.ndarray]  # (words asked for, d): Eq. 7
    word_probs: dict[str, np.ndarray]  # (words asked for, K): pi, averaged over the word's subwords
    contributions: np.ndarray  # (sentences, K, d): mean_t pi_tk S_tk, whose sum over k is the sentence's sense vector


@torch.no_grad()
def sentence_senses(
    model,
    sequences: list[list[int]],
    positions: list[list[list[int]]],
    *,
    definitions=("magnitude",),
    temperature: float = 0.7,
    batch_size: int = 16,
    bar=None,
) -> SentenceSenses:
    """Runs the model over sentences and mixes the senses of the words asked for (Eq. 7).

    Args:
        sequences: Token ids of each sentence, none empty.
        positions: For each sentence, the subword positions of each word asked for. The results list the words
            sentence by sentence in this order.
        definitions: Names that `sensia_trainer.representations.sense_probs` knows; the contributions of sentences
            are always those of "magnitude".
        bar (*optional*): A `tqdm` that counts the sentences read.
    """
    if any(not sequence for sequence in sequences):
        raise ValueError("A sentence has no tokens; leave empty lines out, on both sides.")
    device = model.get_input_embeddings().weight.device
    needs_weights = any(name.startswith("contextual") for name in definitions)
    vectors, probs = ({name: [None] * len(sequences) for name in definitions} for _ in range(2))
    contributions = [None] * len(sequences)
    model.eval()
    for indices, ids, mask in padded_batches(sequences, batch_size, device, bar):
        output = model(
            input_ids=ids,
            attention_mask=mask,
            logits_to_keep=1,
            output_senses=True,
            output_sense_weights=needs_weights,
        )
        senses = output.senses.float()
        share = mask / mask.sum(dim=1, keepdim=True)
        for name in dict.fromkeys(("magnitude", *definitions)):
            pi = sense_probs(
                senses,
                definition=name,
                temperature=temperature,
                sense_weights=output.sense_weights if name.startswith("contextual") else None,
                context=output.backbone_last_hidden_state if name == "predictive" else None,
            )
            if name == "magnitude":
                means = torch.einsum("btk,btkd->bkd", pi * share[..., None], senses)
                for row, index in enumerate(indices):
                    contributions[index] = means[row].cpu().numpy()
            if name in definitions:
                mixed = mix_senses(senses, pi)
                for row, index in enumerate(indices):
                    if positions[index]:
                        vectors[name][index] = pool(mixed[row], positions[index]).cpu().numpy()
                        probs[name][index] = pool(pi[row], positions[index]).cpu().numpy()

    def joined(parts):
        parts = [part for part in parts if part is not None]
        return np.concatenate(parts) if parts else np.empty((0, 0), dtype=np.float32)

    return SentenceSenses(
        {name: joined(vectors[name]) for name in definitions},
        {name: joined(probs[name]) for name in definitions},
        np.stack(contributions),
    )
