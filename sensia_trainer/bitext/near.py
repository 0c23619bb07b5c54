"""What is left of a sentence when case and punctuation, and the values of numbers if asked, do not count; its key; and
which texts hold a sentence with one of some keys."""

import hashlib
import re
import unicodedata

import numpy as np


# Invisible characters that only break words: controls, soft hyphen, zero-width marks, byte order mark. The joiners
# U+200C and U+200D stay: Persian and the Indic scripts spell with them.
INVISIBLE = re.compile(
    "[\u0000-\u0008\u000e-\u001f\u007f-\u0084\u0086-\u009f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\ufeff]"
)
APOSTROPHES = "‘’‚‛′`´ʼ"
# Unicode has apostrophes among its letters (U+02BB to U+02BD), and NFKC makes a combining mark of the acute accent.
_ONE_APOSTROPHE = str.maketrans(dict.fromkeys(APOSTROPHES + "ʻʽ", "'"))


class _NearCharacters(dict):
    """What each character counts for in a near form, found out when it is first met."""

    def __init__(self, numbers: bool):
        self.numbers = numbers

    def __missing__(self, code: int) -> str:
        character, category = chr(code), unicodedata.category(chr(code))
        is_selector = "VARIATION SELECTOR" in unicodedata.name(character, "")
        if INVISIBLE.match(character) or category == "Cf" or is_selector:
            self[code] = ""
        elif category == "Nd":
            self[code] = str(unicodedata.digit(character)) if self.numbers else "0"
        else:  # marks spell vowels and tones in Devanagari, Thai and other scripts
            self[code] = character if character.isalnum() or category.startswith("M") else " "
        return self[code]


_NEAR_CHARACTERS = {numbers: _NearCharacters(numbers) for numbers in (False, True)}
_ZEROS = re.compile("0+")
# Behind a full stop, quotation marks and brackets may close before the space; East Asian scripts have none, and the
# stops of Devanagari, Arabic, Ethiopic, Burmese, Khmer, Armenian and Tibetan end nothing but sentences.
SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’»)\]]*\s+|(?<=[。！？।॥۔؟።፧။។։།])[”’」』）]*")


def near_form(text: str, numbers: bool = False) -> str:
    """What is left of a sentence when case, punctuation and invisible characters do not count.

    The words, in NFKC, of letters and marks, and its numbers, or a 0 for each where their values do not count either;
    the text itself where it holds none of these.

    Args:
        text (`str`): The sentence.
        numbers (`bool`, *optional*, defaults to `False`): Whether the values of numbers count.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(_ONE_APOSTROPHE))
    folded = text.casefold().replace("i\u0307", "i").replace("ı", "i")  # the four i of Turkish are of two letters
    form = " ".join(folded.translate(_NEAR_CHARACTERS[numbers]).split())
    return (form if numbers else _ZEROS.sub("0", form)) or text


def text_key(text: str) -> int:
    """64-bit key of a text. That two of n texts share one by chance has probability n^2 / 2^65: 0.0003 for 10^8."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def text_keys(texts: list[str]) -> np.ndarray:
    """`text_key` of each text, (n,) uint64."""
    return np.fromiter(map(text_key, texts), dtype=np.uint64, count=len(texts))


def near_keys(texts: list[str], numbers: bool = False) -> np.ndarray:
    """Key of the near form ([`near_form`]) of each text, (n,) uint64."""
    return text_keys([near_form(text, numbers) for text in texts])


def is_uncontaminated(texts: list[str], keys: np.ndarray) -> np.ndarray:
    """
    Which texts, of a sentence or of many, share none with the evaluation sets, (n,) bool: neither the whole text nor
    any of its sentences, up to case, punctuation and numbers.

    Args:
        texts (`list[str]`): n texts, such as the monolingual ones of a run.
        keys (`np.ndarray`): Sorted near keys, see `evaluation_keys` of [`~sensia_trainer.curation.contamination`].
    """
    parts = [list(dict.fromkeys((text, *SENTENCE_END.split(text)))) for text in texts]
    found = np.isin(near_keys([part for one in parts for part in one]), keys)
    owner = np.repeat(np.arange(len(texts)), [len(one) for one in parts])
    return np.bincount(owner, found, minlength=len(texts)) == 0
