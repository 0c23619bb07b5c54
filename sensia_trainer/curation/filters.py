"""Normalisation and the filters of Appendix D: pure functions of two lists of sentences.

A filter takes `(sources, targets, rules)`, two lists of n strings, and gives a boolean array (n,), true for the pairs
to keep. `apply_filters` runs them in the order of `FILTERS`, the cheap ones first, each on what the earlier ones
kept, and counts under the filter's name what each takes.
"""

import math
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ..bitext.langid import MIN_BYTES, identifier, is_elsewhere
from ..bitext.near import APOSTROPHES, INVISIBLE, is_uncontaminated
from ..languages import language


@dataclass(frozen=True)
class FilterRules:
    """
    > Which pairs are kept; every bound is inclusive, except those of the length ratio (Appendix D)

    Args:
        source_length, target_length: fewest and most words of a side; characters in languages without spaces. By
            default 4 to 64 words, or 5 to 256 characters (`with_length_bounds`).
        length_ratio: bounds of |source| / |target|, exclusive; by default those of `length_ratio_bounds`.
        ratio_unit: what the ratio counts, "words" (as the published code) or "characters". Estonian and Turkish say in
            three words what English says in four or five, so that the paper's bounds in words take one good pair in
            six. Always characters when either language is written without spaces.
        drop_identical: drop pairs whose sides are the same text (up to case).
        match_digits: drop pairs whose sides do not have the same digits.
        match_urls: drop pairs whose sides do not have the same URLs and e-mail addresses.
        word_characters, side_characters: most characters of a word (in languages with spaces) and of a side.
        language_confidence: drop a pair when a side is in another language, close relatives excepted, with at least
            this probability; null for no language identification.
        max_targets_per_source: of one source sentence (up to case, punctuation and digits), keep so many targets.
    """

    source_length: tuple[int, int] | None = None
    target_length: tuple[int, int] | None = None
    length_ratio: tuple[float, float] | None = None
    ratio_unit: str = "words"
    word_characters: int = 100
    side_characters: int = 2000
    drop_identical: bool = True
    match_digits: bool = False
    match_urls: bool = False
    language_confidence: float | None = 0.9
    max_targets_per_source: int = 4

    def __post_init__(self):
        for field in ("source_length", "target_length", "length_ratio"):
            bounds = getattr(self, field)
            if bounds is None:
                continue
            if len(bounds) != 2 or not 0 <= bounds[0] <= bounds[1] < math.inf:
                raise ValueError(f"filters.{field}={list(bounds)}: give two finite bounds, the lower one first")
            object.__setattr__(self, field, tuple(bounds))
        if self.ratio_unit not in ("words", "characters"):
            raise ValueError(f"filters.ratio_unit={self.ratio_unit!r}: give 'words' or 'characters'")
        if self.language_confidence is not None and not 0.5 <= self.language_confidence <= 1:
            raise ValueError(
                f"filters.language_confidence={self.language_confidence}: give 0.5 to 1, or null for none"
            )
        for field in ("max_targets_per_source", "word_characters", "side_characters"):
            if getattr(self, field) < 1:
                raise ValueError(f"filters.{field}={getattr(self, field)}: give at least 1")


# --- normalisation ---------------------------------------------------------------------------------------------------

# Quotation marks, hyphens and ellipses that one language spells in many ways become the ASCII ones: the English
# byte-level vocabulary spells every other form by two or three tokens.
_ASCII_PUNCTUATION = str.maketrans(
    dict.fromkeys("“”„‟«»″〝〞", '"')
    | dict.fromkeys(APOSTROPHES, "'")
    | dict.fromkeys("‐‑‒−", "-")
    | {"…": "...", "⁄": "/"}
)
_FULL_WIDTH = {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
_FULL_WIDTH_TO_ASCII = str.maketrans(_FULL_WIDTH | {"。": ".", "、": ","})
_FULL_WIDTH_ASCII = {wide: narrow for wide, narrow in _FULL_WIDTH.items() if narrow.isalnum()}
_IDEOGRAPHIC = str.maketrans(_FULL_WIDTH_ASCII | {"､": "、", "｡": "。"})
_BESIDE_IDEOGRAPH = re.compile(r"(?<=[\u3400-\u9fff])\s*([,.!?;:])(?![A-Za-z0-9.])|([,!?;:])\s*(?=[\u3400-\u9fff])")
_TO_FULL_WIDTH = {",": "，", ".": "。", "!": "！", "?": "？", ";": "；", ":": "："}


def normalise(text: str, code: str) -> str:
    """A sentence in Unicode NFC, with the punctuation of its language and single spaces.

    Languages with spaces get ASCII quotation marks, apostrophes, hyphens and ellipses, and no full-width forms.
    Chinese and Japanese keep their own marks; ASCII letters and digits lose their full-width forms, and an ASCII mark
    beside an ideograph becomes full-width. Invisible characters are dropped.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
        if _is_ideographic(code):
            text = _BESIDE_IDEOGRAPH.sub(
                lambda match: _TO_FULL_WIDTH[match[1] or match[2]], text.translate(_IDEOGRAPHIC)
            )
        else:
            text = text.translate(_ASCII_PUNCTUATION).translate(_FULL_WIDTH_TO_ASCII)
    return " ".join(INVISIBLE.sub("", text).split())


@lru_cache
def _is_ideographic(code: str) -> bool:
    return language(code).script in ("Hans", "Hant", "Jpan")


_WORD = re.compile(r"[^\W_]")


def pair_keys(source_keys: np.ndarray, target_keys: np.ndarray) -> np.ndarray:
    """One key of both sides, (n,) uint64; the order of the sides counts."""
    mixed = source_keys * np.uint64(0x9E3779B97F4A7C15) + target_keys  # arithmetic modulo 2^64
    mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    return mixed ^ (mixed >> np.uint64(29))


# --- filters ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FilterContext:
    """What the filters of one language pair need: codes, rules, and the sorted near keys of the evaluation texts."""

    source: str
    target: str
    rules: FilterRules
    evaluation_keys: np.ndarray


def lengths(texts: list[str], code: str) -> np.ndarray:
    """Words of each text, or characters other than spaces in a language written without them, (n,) int64."""
    if language(code).has_spaces:
        return np.fromiter((len(text.split()) for text in texts), np.int64, len(texts))
    return np.fromiter((len(text) - text.count(" ") for text in texts), np.int64, len(texts))


def keep_not_empty(sources, targets, context) -> np.ndarray:
    """Both sides hold a letter or a digit."""
    return np.array([bool(_WORD.search(s) and _WORD.search(t)) for s, t in zip(sources, targets)], bool)


def keep_characters(sources, targets, context) -> np.ndarray:
    """No side, and no word in a language with spaces, is longer than its limit in characters.

    The sides are held to it before they are normalised too: what Unicode does with a run of marks takes the square of
    its length.
    """
    keep = np.ones(len(sources), bool)
    for texts, code in ((sources, context.source), (targets, context.target)):
        keep &= np.array([len(text) <= context.rules.side_characters for text in texts], bool)
        if language(code).has_spaces:
            longest = (max(map(len, text.split()), default=0) for text in texts)
            keep &= np.array([length <= context.rules.word_characters for length in longest], bool)
    return keep


WORDS, CHARACTERS = (4, 64), (5, 256)  # a word of English is about four letters


def with_length_bounds(rules: FilterRules, source: str, target: str) -> FilterRules:
    """The rules with bounds for the length of each side: their own or, where they give none, those of its script."""
    sides = (("source_length", source), ("target_length", target))
    bounds = {name: WORDS if language(code).has_spaces else CHARACTERS for name, code in sides}
    return replace(rules, **{name: getattr(rules, name) or default for name, default in bounds.items()})


def keep_length(sources, targets, context) -> np.ndarray:
    """Each side is within its bounds of length."""
    rules = with_length_bounds(context.rules, context.source, context.target)
    (low, high), (target_low, target_high) = rules.source_length, rules.target_length
    source, target = lengths(sources, context.source), lengths(targets, context.target)
    return (low <= source) & (source <= high) & (target_low <= target) & (target <= target_high)


def length_ratios(sources, targets, context) -> np.ndarray:
    """|source| / |target|, (n,) float64, in words or characters (`FilterRules.ratio_unit`)."""
    spaced = language(context.source).has_spaces and language(context.target).has_spaces
    if spaced and context.rules.ratio_unit == "words":
        source, target = lengths(sources, context.source), lengths(targets, context.target)
    else:
        source, target = (np.fromiter(map(len, texts), np.int64, len(texts)) for texts in (sources, targets))
    return source / np.maximum(target, 1)


PAPER_RATIO = (0.6, 1.7)  # Appendix D
IDEOGRAPHIC_RATIO = (1.3, 6.0)  # one ideograph is about three characters of English


def length_ratio_bounds(rules: FilterRules, source: str, target: str) -> tuple[float, float]:
    """The bounds of |source| / |target|: those of the rules or, where they give none, those of the two scripts.

    0.6 to 1.7 (Appendix D); 1.3 to 6.0 into Chinese or Japanese from a language of another script, in characters; its
    inverse, 1/6 to 1/1.3, out of one of them.
    """
    if rules.length_ratio is not None:
        return rules.length_ratio
    if _is_ideographic(source) == _is_ideographic(target):
        return PAPER_RATIO
    low, high = IDEOGRAPHIC_RATIO
    return (low, high) if _is_ideographic(target) else (1 / high, 1 / low)


def keep_length_ratio(sources, targets, context) -> np.ndarray:
    """The ratio of the lengths is strictly between its bounds (Appendix D: 0.6 < |source| / |target| < 1.7)."""
    low, high = length_ratio_bounds(context.rules, context.source, context.target)
    ratio = length_ratios(sources, targets, context)
    return (low < ratio) & (ratio < high)


def keep_different(sources, targets, context) -> np.ndarray:
    """The sides differ by more than case and outer spaces: an equal pair is an untranslated one."""
    return np.array([s.casefold().strip() != t.casefold().strip() for s, t in zip(sources, targets)], bool)


def _digits(text: str) -> list[int]:
    return sorted(unicodedata.digit(c, -1) for c in text if c.isdigit())


def keep_same_digits(sources, targets, context) -> np.ndarray:
    """Both sides have the same digits, in any order, grouping and script."""
    return np.array([_digits(s) == _digits(t) for s, t in zip(sources, targets)], bool)


# Bounded on both sides of the @, and begun where a word begins: else each letter of a long word would be tried.
_URL = re.compile(
    r"(?:https?://|www\.)[^\s<>\"'，。）)]+|(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{1,190}", re.IGNORECASE
)


def _urls(text: str) -> list[str]:
    if "@" not in text and "://" not in text and "www." not in text.casefold():
        return []
    return sorted(url.rstrip(".,;:!?/").casefold() for url in _URL.findall(text))


def keep_same_urls(sources, targets, context) -> np.ndarray:
    """Both sides have the same URLs and e-mail addresses."""
    return np.array([_urls(s) == _urls(t) for s, t in zip(sources, targets)], bool)


def keep_languages(sources, targets, context) -> np.ndarray:
    """Neither side is surely in another language, see `is_elsewhere`; those of fewer than MIN_BYTES are not judged."""
    try:
        identifier(context.source, context.target)
    except ValueError as error:
        raise ValueError(f"{error}; or set filters.language_confidence to null for this pair") from error
    keep = np.ones(len(sources), bool)
    for texts, code, other in (
        (sources, context.source, context.target),
        (targets, context.target, context.source),
    ):
        long = np.flatnonzero([len(text.encode()) >= MIN_BYTES for text in texts])
        keep[long] &= ~is_elsewhere([texts[n] for n in long], code, other, context.rules.language_confidence)
    return keep


def keep_uncontaminated(sources, targets, context) -> np.ndarray:
    """Neither side is, or holds, up to case, punctuation and numbers, a sentence of an evaluation set."""
    keys = context.evaluation_keys
    return is_uncontaminated(sources, keys) & is_uncontaminated(targets, keys)


FILTERS = {
    "empty": (keep_not_empty, lambda rules: True),
    "characters": (keep_characters, lambda rules: True),
    "length": (keep_length, lambda rules: True),
    "length_ratio": (keep_length_ratio, lambda rules: True),
    "identical": (keep_different, lambda rules: rules.drop_identical),
    "digits": (keep_same_digits, lambda rules: rules.match_digits),
    "urls": (keep_same_urls, lambda rules: rules.match_urls),
    "language": (keep_languages, lambda rules: rules.language_confidence is not None),
    "contamination": (keep_uncontaminated, lambda rules: True),
}


def apply_filters(sources: list[str], targets: list[str], groups: list[str], context: FilterContext):
    """Run every filter that the rules ask for.

    Args:
        sources, targets: n normalised sentences each.
        groups: the corpus of each pair, for the counts.
        context: the language pair and its rules.

    Returns:
        (kept, counts): sorted indices of the pairs kept, (m,) int64, and a Counter of (corpus, filter) -> pairs taken.
    """
    kept = np.arange(len(sources))
    counts = Counter()
    for name, (keep, is_wanted) in FILTERS.items():
        if not is_wanted(context.rules) or not len(kept):
            continue
        if name == "contamination" and not len(context.evaluation_keys):
            continue
        mask = keep([sources[i] for i in kept], [targets[i] for i in kept], context)
        counts.update((groups[i], name) for i in kept[~mask])
        kept = kept[mask]
    return kept, counts
