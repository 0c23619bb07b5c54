"""What each tab of the page computes: numbers and words, of a model and of what somebody typed."""

from typing import NamedTuple

import numpy as np
import torch

from ..analysis.procrustes import normalise_rows
from ..analysis.senses import sense_neighbours
from ..analysis.words import UNSPACED_WORD, segment_words, word_positions, word_senses
from ..evaluation.overlap import overlap_vectors, token_idf
from ..representations import sense_probs
from ..utils.models import own_start_token
from .models import Explored, spelling


MAX_WORD = 60  # characters
MAX_TOKENS = 40  # of a sentence whose tokens are shown
MAX_NEW_TOKENS = 40
MAX_SENTENCES = 12  # a side
MAX_PAIRS = 20  # words on a map
NEIGHBOURS = 5
NEXT_WORDS = 8


class WordSense(NamedTuple):
    """One of the K senses of a word."""

    sense: int
    share: float  # pi: softmax over the norms of the word's senses
    neighbours: list[list[tuple[str, float]]]  # for each language: words whose same sense is nearest, and cosines
    predicted: list[str]  # words that the sense votes for to come next


class Weights(NamedTuple):
    """What the senses of the words so far weigh on the word behind them."""

    tokens: list[str]  # T, as they stand in the text
    alpha: np.ndarray  # (K, T): sense weights; each row sums to one
    logits: np.ndarray  # (K, T): what each adds to the logit of the likeliest next word, relative to all words
    following: list[tuple[str, float]]  # likeliest next words and their probabilities


class Steered(NamedTuple):
    """A text carried on by a model as it is, and with one sense of a word scaled."""

    continuations: tuple[str, str]  # before, after
    following: list[tuple[str, float, float]]  # next words: probability before and after
    divergence: float  # KL(before || after) of the next word, nats


class Similarity(NamedTuple):
    """Cosines `(source, target)` of sentences, by `senses`, `contexts` and `overlap` of tokens."""

    source: list[str]
    target: list[str]
    cosines: dict[str, np.ndarray]


class WordMap(NamedTuple):
    """Sense vectors of words and of their translations, on the two directions in which they vary most."""

    pairs: list[tuple[str, str]]
    points: np.ndarray  # (2, pairs, 2): source words, target words
    variance: np.ndarray  # (2,): share of the variance along each direction
    nearest: int  # source words whose nearest target word is their translation
    cosine: float  # mean cosine of translations


def one_line(text: str) -> str:
    return " ".join(str(text or "").split())


def senses_of(explored: Explored, word: str, count=NEIGHBOURS) -> list[WordSense]:
    """The senses of a word, with the nearest words of each language, and what each votes for.

    A word's sense is compared with the same sense of other words, by cosine.

    Raises:
        `ValueError`: no word, or more than `MAX_WORD` characters.
    """
    word = one_line(word)
    if not word:
        raise ValueError("Type a word.")
    if len(word) > MAX_WORD:
        raise ValueError(f"That has {len(word):,} characters; type one word, of at most {MAX_WORD}.")
    model, tokenizer = explored.model, explored.tokenizer
    own = spelling(tokenizer, word)
    senses = word_senses(model, [own])
    found = []
    for words, spellings, others in explored.known_words:
        kept = [row for row, other in enumerate(spellings) if words[row].casefold() != word.casefold()]
        names = [words[row] for row in kept]
        if not names:
            found.append([[] for _ in senses[0]])
            continue
        near, cosines = sense_neighbours(senses, others[kept], names, count=count)
        found.append([list(zip(*both)) for both in zip(near[0], cosines[0].tolist())])
    tensor = torch.from_numpy(senses)
    shares = sense_probs(tensor[None], temperature=explored.sentences.settings["temperature"])[0, 0].tolist()
    # More than are shown: some tokens are pieces that print as nothing.
    with torch.no_grad():
        voted = model.nearest_words(tensor[0].to(model.lm_head.weight), top_k=3 * count, tokenizer=tokenizer)
    rows = zip(shares, zip(*found), voted)
    return [
        WordSense(sense, share, list(neighbours), printable(words, tokenizer.all_special_tokens)[:count])
        for sense, (share, neighbours, words) in enumerate(rows)
    ]


def printable(words: list[str], special=()) -> list[str]:
    """Words without pieces of characters, repetitions and `special` tokens, in order."""
    return list(dict.fromkeys(word for word in words if word.strip() and "\ufffd" not in word and word not in special))


def pieces(tokenizer, text: str) -> tuple[list[int], list[str]]:
    """Token ids of a text and how each is spelled there; parts of one character are numbered behind it. What the
    tokenizer puts before a text is called "start"."""
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    labels, ends = [], []
    for start, end in encoding["offset_mapping"]:
        part = text[start:end].strip() or "␣"
        again = sum(1 for other in ends if other == (start, end))
        ends.append((start, end))
        labels.append(f"{part}·{again + 1}" if again else part)
    ids = encoding["input_ids"]
    if ids and (first := own_start_token(tokenizer)) is not None:
        return [first, *ids], ["start", *labels]
    return ids, labels


@torch.no_grad()
def weights_on_next(explored: Explored, text: str, position: int | None = None) -> Weights:
    """How much each sense of each word so far weighs on the next.

    The mixture that the head reads is h_t = sum_k sum_s alpha_k[t, s] S_k[s], so a word's logit <h_t, E> is a sum over
    senses and earlier words too. Behind a gate, the gated mixture is looked at alone.

    Args:
        position (`int`, *optional*): Index of the last token that is read; by default the last of all.

    Raises:
        `ValueError`: a text without tokens.
    """
    model, tokenizer = explored.model, explored.tokenizer
    ids, tokens = pieces(tokenizer, one_line(text)[: 20 * MAX_TOKENS])
    ids, tokens = ids[: token_limit(model)], tokens[: token_limit(model)]
    if not ids:
        raise ValueError("Type a sentence.")
    end = len(ids) if position is None else min(max(int(position), 0), len(ids) - 1) + 1
    output = model.backpack(
        input_ids=torch.tensor([ids[:end]], device=model.device), output_senses=True, output_sense_weights=True
    )
    alpha, senses = output.sense_weights[0, :, -1].float(), output.senses[0].float()
    probs = model.compute_logits(output.last_hidden_state[0, -1]).float().softmax(-1)
    head = model.lm_head.weight.float()
    likeliest = head[probs.argmax()] - head.mean(dim=0)
    scale = model.config.sense_scale
    if model.config.residual_gate:
        scale = scale * model.backpack.residual_gate.weight.float().item()
    logits = scale * alpha * torch.einsum("skd,d->ks", senses, likeliest)
    return Weights(tokens, alpha.numpy(force=True), logits.numpy(force=True), _likeliest(tokenizer, probs))


def token_limit(model) -> int:
    """Tokens of a text that are shown: `MAX_TOKENS`, or fewer where the model reads fewer."""
    return min(MAX_TOKENS, model.config.max_position_embeddings or MAX_TOKENS)


def words_of(text: str) -> list[str]:
    """The distinct words of a text, in order, without signs."""
    found = (word.text for word in segment_words(one_line(text)) if any(map(str.isalnum, word.text)))
    return list(dict.fromkeys(found))


@torch.no_grad()
def steer(explored: Explored, text: str, word: str, sense: int, factor: float, new_tokens=15) -> Steered:
    """What comes behind a text, before and after a sense of one of its words is scaled, wherever its tokens occur.

    Args:
        word (`str`): In the text, ignoring case; every occurrence is meant.
        sense (`int`): 0 to K - 1.
        factor (`float`): 0 silences the sense, 1 leaves it, more boosts it.
        new_tokens (`int`): Tokens written, each the likeliest that repeats no two tokens.

    Raises:
        `ValueError`: no text, or a word that is not in what of it the model reads.
    """
    model, tokenizer = explored.model, explored.tokenizer
    text, word = one_line(text)[: 20 * MAX_TOKENS], one_line(word)
    found = [item for item in segment_words(text) if item.text.casefold() == word.casefold()]
    new_tokens = min(max(int(new_tokens), 1), MAX_NEW_TOKENS)
    limit = min(4 * MAX_TOKENS, (model.config.max_position_embeddings or 4 * MAX_TOKENS) - new_tokens)
    ids, places = word_positions(tokenizer, text, found, max_length=limit)
    if not ids:
        raise ValueError("Type the beginning of a sentence.")
    changed = sorted({ids[place] for spelled in places for place in spelled})
    if not changed:
        raise ValueError("Choose a word of the text, within what of it the model reads.")
    if not 0 <= int(sense) < model.config.num_senses:
        raise ValueError(f"The model has the senses 0 to {model.config.num_senses - 1}.")
    prompt = torch.tensor([ids], device=model.device)

    def run():
        logits = model(input_ids=prompt, logits_to_keep=1).logits[0, -1].float()
        mask = torch.ones_like(prompt)
        options = {"do_sample": False, "no_repeat_ngram_size": 2, "pad_token_id": tokenizer.eos_token_id or 0}
        out = model.generate(prompt, attention_mask=mask, max_new_tokens=new_tokens, **options)
        return logits.log_softmax(-1), tokenizer.decode(out[0, len(ids) :], skip_special_tokens=True)

    before, first = run()
    with model.intervene_on_senses(changed, int(sense), scale=float(factor)):
        after, second = run()
    shown = list(dict.fromkeys(before.topk(NEXT_WORDS)[1].tolist() + after.topk(NEXT_WORDS)[1].tolist()))
    shown.sort(key=lambda token: -max(before[token], after[token]).item())
    words = [(decoded(tokenizer, i), before[i].exp().item(), after[i].exp().item()) for i in shown[: NEXT_WORDS + 2]]
    divergence = (before.exp() * (before - after)).sum().clamp_min(0).item()
    return Steered((first, second), words, divergence)


def decoded(tokenizer, token: int) -> str:
    """A token as a word: by name where nothing would be seen, and with `…` where it goes on with a word."""
    text, name = tokenizer.decode([token]).strip(), tokenizer.convert_ids_to_tokens(token)
    if not text or "\ufffd" in text:
        return name
    goes_on = name[0] not in "Ġ▁" and text[0].isalnum() and not UNSPACED_WORD.match(text)
    return f"…{text}" if goes_on else text


def _likeliest(tokenizer, probs) -> list[tuple[str, float]]:
    values, tokens = probs.topk(min(NEXT_WORDS, len(probs)))
    return [(decoded(tokenizer, token), value) for token, value in zip(tokens.tolist(), values.tolist())]


def lines_of(text: str, most=MAX_SENTENCES) -> list[str]:
    """The first lines of a text that hold something."""
    return [line for line in map(one_line, str(text or "").splitlines()) if line][:most]


@torch.no_grad()
def similarity(explored: Explored, source: str, target: str) -> Similarity:
    """Cosines of all source with all target sentences, one a line, by senses, by contexts and by shared tokens.

    Raises:
        `ValueError`: a side without sentences.
    """
    sides = lines_of(source), lines_of(target)
    if not all(sides):
        raise ValueError("Paste at least one sentence on each side, one a line.")
    encoder, cosines = explored.sentences, {}
    features = encoder.preprocess([sentence[:2000] for side in sides for sentence in side])
    for label, kind in (("senses", "sense"), ("contexts", "context")):
        vectors = encoder(dict(features), vectors=kind)["sentence_embedding"].float().numpy(force=True)
        cosines[label] = vectors[: len(sides[0])] @ vectors[len(sides[0]) :].T
    ids = [row[mask.bool()].tolist() for row, mask in zip(features["input_ids"], features["attention_mask"])]
    vectors = overlap_vectors(ids, token_idf(ids, explored.model.get_input_embeddings().num_embeddings))
    cosines["overlap"] = (vectors[: len(sides[0])] @ vectors[len(sides[0]) :].T).toarray()
    return Similarity(*sides, cosines)


def parse_pairs(text: str) -> list[tuple[str, str]]:
    """Pairs of words, one a line, parted by `=`, a tab, a comma or a semicolon.

    Raises:
        `ValueError`: fewer than two pairs, or a line that holds no pair.
    """
    pairs = []
    for line in lines_of(str(text or "").replace("\t", "="), MAX_PAIRS):
        sign = next((sign for sign in "=,;" if sign in line), None)
        parts = [part.strip()[:MAX_WORD] for part in line.split(sign)] if sign else []
        if len(parts) != 2 or not all(parts):
            raise ValueError(f"Write a word and its translation a line, as in “water = air”; got “{line[:MAX_WORD]}”.")
        pairs.append(tuple(parts))
    if len(pairs) < 2:
        raise ValueError("Write at least two words with their translations, one pair a line, as in “water = air”.")
    return list(dict.fromkeys(pairs))


@torch.no_grad()
def map_of(explored: Explored, pairs: list[tuple[str, str]], sense: int | None = None) -> WordMap:
    """Words and their translations as points.

    Args:
        sense (`int`, *optional*): The sense that is shown; by default all, each by its share pi, as sentence vectors
            mix them.
    """
    words = [pair[side] for side in (0, 1) for pair in pairs]
    senses = word_senses(explored.model, [spelling(explored.tokenizer, word) for word in words])
    if sense is None:
        probs = sense_probs(torch.from_numpy(senses)[None], temperature=explored.sentences.settings["temperature"])[
            0
        ].numpy()
        vectors = np.einsum("wk,wkd->wd", probs, senses)
    else:
        vectors = senses[:, sense]
    vectors = normalise_rows(vectors.astype(np.float64))
    centred = vectors - vectors.mean(axis=0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    cosines = vectors[: len(pairs)] @ vectors[len(pairs) :].T
    points = (centred @ directions[:2].T).reshape(2, len(pairs), 2)
    variance = singular[:2] ** 2 / max((singular**2).sum(), np.finfo(np.float64).tiny)
    nearest = int((np.diag(cosines) >= cosines.max(axis=1) - 1e-9).sum())  # a translation of two words is that of both
    return WordMap(pairs, points, variance, nearest, float(np.trace(cosines) / len(pairs)))
