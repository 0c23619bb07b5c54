"""
Words as strings of one character per token, which is how the library's BPE trainer can be asked to go on from the
tokens of a tokenizer instead of from characters.

Token `i` is the character U+10000 + i, so a word is a string, a text is words with a space between them, and counting,
joining and cutting words are operations on arrays of characters.
"""

from collections import Counter

import numpy as np
from tqdm.auto import tqdm


FIRST = 0x10000  # the character of token 0: no space and no surrogate from here on
SPACE, LINE_BREAK = ord(" "), ord("\n")
MAX_TOKENS = 0x110000 - FIRST


def to_word(ids) -> str:
    """The word of token ids."""
    return "".join(chr(FIRST + token) for token in ids)


def to_ids(word: str) -> list[int]:
    """The token ids of a word."""
    return [ord(symbol) - FIRST for symbol in word]


def to_array(text: str) -> np.ndarray:
    """The characters of a text as `int64`."""
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4").astype(np.int64)


def to_text(array: np.ndarray) -> str:
    """The text of characters given as numbers."""
    return array.astype("<u4").tobytes().decode("utf-32-le")


def cut_words(backend, texts, *, to_token=None, joins=None, batch_size=4096, desc=None):
    """
    Encode texts and mark where the words end.

    Args:
        backend (`tokenizers.Tokenizer`): What encodes; the words are those of its pre-tokenizer.
        texts (`Sequence[str]`): The texts.
        to_token (`np.ndarray`, *optional*): Token of each id of `backend`, where they differ.
        joins (`tuple[np.ndarray, np.ndarray]`, *optional*): For each token, whether it may be followed, and whether it
            may be preceded, by another one of the same word: for tokenizers that take a whole text for one word.
        desc (`str`, *optional*): Name of a progress bar; none without it.

    Yields:
        `str`: for each batch of texts, their words, with a space between those of one text and a line break between
            those of two.
    """
    for start in tqdm(range(0, len(texts), batch_size), desc=desc, disable=desc is None):
        encodings = backend.encode_batch(list(texts[start : start + batch_size]), add_special_tokens=False)
        sizes = [len(encoding) for encoding in encodings]
        ids = np.concatenate([np.array(encoding.ids, dtype=np.int64) for encoding in encodings])
        words = np.concatenate([np.array(encoding.word_ids, dtype=np.int64) for encoding in encodings])
        texts_of = np.repeat(np.arange(len(sizes)), sizes)
        if len(ids) == 0:
            continue
        ids = ids if to_token is None else to_token[ids]
        text_ends = texts_of[1:] != texts_of[:-1]
        ends = text_ends | (words[1:] != words[:-1])
        if joins is not None:
            ends |= ~(joins[0][ids[:-1]] & joins[1][ids[1:]])
        places = np.flatnonzero(ends)
        yield to_text(np.insert(ids + FIRST, places + 1, np.where(text_ends[places], LINE_BREAK, SPACE)))


def count_words(backend, texts, **options) -> Counter:
    """How often each word occurs in the texts; for the options see [`cut_words`]."""
    counts: Counter[str] = Counter()
    for text in cut_words(backend, texts, **options):
        counts.update(text.split())
    return counts


def repeat_words(words, counts, batch_size=1000):
    """Yields texts that hold each word as often as it occurs, without those of one token: what the trainer reads."""
    for start in range(0, len(words), batch_size):
        batch = zip(words[start : start + batch_size], counts[start : start + batch_size], strict=True)
        text = " ".join(" ".join([word] * count) for word, count in batch if len(word) > 1)
        if text:
            yield text


def _neighbours(characters):
    """Key of each pair of neighbouring characters, and whether both are tokens of one word."""
    left, right = characters[:-1], characters[1:]
    return (left - FIRST) << 32 | (right - FIRST), (left != SPACE) & (right != SPACE)


def pair_key(left: int, right: int) -> int:
    """The number by which a pair of tokens goes in sorted arrays."""
    return left << 32 | right


def count_pairs(words: Counter, batch_size=100_000):
    """
    How often each pair of tokens stands side by side within a word.

    Returns:
        Keys (`np.ndarray`, sorted, see [`pair_key`]) and counts (`np.ndarray`), both `int64`.
    """
    keys, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    items = list(words.items())
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        characters = to_array(" ".join(word for word, _ in batch))
        key, inside = _neighbours(characters)
        weight = np.repeat([count for _, count in batch], [len(word) + 1 for word, _ in batch])[: len(key)]
        keys, counts = _add(np.concatenate([keys, key[inside]]), np.concatenate([counts, weight[inside]]))
    return keys, counts


def _add(keys, counts):
    """Equal keys together."""
    distinct, inverse = np.unique(keys, return_inverse=True)
    return distinct, np.bincount(inverse, weights=counts, minlength=len(distinct)).astype(np.int64)


def is_in(keys: np.ndarray, sorted_keys: np.ndarray) -> np.ndarray:
    """Whether each key is among the sorted ones."""
    if len(sorted_keys) == 0:
        return np.zeros(len(keys), dtype=bool)
    place = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return sorted_keys[place] == keys


def part_words(text: str, forbidden: np.ndarray) -> str:
    """The text with a space in every pair of tokens that must not be joined (sorted keys)."""
    characters = to_array(text)
    key, inside = _neighbours(characters)
    return to_text(np.insert(characters, np.flatnonzero(inside & is_in(key, forbidden)) + 1, SPACE))
