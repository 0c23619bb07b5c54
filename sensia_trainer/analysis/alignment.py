"""Which words translate which: SimAlign links, one to one, content words only (Appendix G)."""

import hashlib
import importlib.util
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import regex
from tqdm.auto import tqdm

from ..languages import codes_of, find_language
from ..utils.files import fingerprint, read_json, write_json
from .words import UNSPACED_WORD, Word


_LETTERS = regex.compile(r"\p{L}[\p{L}\p{M}'’ʼ‑\u200c\u200d-]*")
CONTENT_TAGS = frozenset({"NOUN", "VERB", "ADJ"})
Link = tuple[int, int]


class AlignedPair(NamedTuple):
    """Word `source` of the source sentence translates word `target` of the target sentence (indices)."""

    sentence: int
    source: int
    target: int


def one_to_one(links: Sequence[Link]) -> list[Link]:
    """The links whose two words have no other link; itermax also gives one-to-many links."""
    sources, targets = Counter(i for i, _ in links), Counter(j for _, j in links)
    return [(i, j) for i, j in links if sources[i] == 1 and targets[j] == 1]


def encoder_fingerprint(encoder) -> str:
    """The Hub id of an encoder, or a hash over the files of a local folder."""
    folder = Path(encoder)
    if not folder.is_dir():
        return str(encoder)
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in {".json", ".safetensors", ".txt", ".model"}:
            digest.update(file.name.encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def align_words(
    source_words: Sequence[Sequence[str]],
    target_words: Sequence[Sequence[str]],
    encoder: str,
    *,
    layer: int = 8,
    method: str = "itermax",
    device: str = "cpu",
    cache_dir=None,
    progress: bool = False,
) -> list[list[Link]]:
    """SimAlign's word links for every sentence pair.

    Args:
        source_words, target_words: The words of each sentence; a sentence without words gets no links.
        encoder (`str`): A multilingual encoder, by Hub id or folder; the paper uses multilingual MiniLM
            (`microsoft/Multilingual-MiniLM-L12-H384`).
        layer (`int`, defaults to 8): The encoder's hidden layer that is compared.
        method (`str`): "itermax" (the paper), "inter" or "mwmf".
        cache_dir (*optional*): A folder where links are kept, named by a hash of words, encoder files, layer and
            method, and read instead of aligning again.

    Raises:
        ImportError: If SimAlign is not installed.
        `ValueError`: If the sides differ in length, the method is unknown or the encoder has too few layers.
    """
    letters = {"itermax": "i", "inter": "a", "mwmf": "m"}
    if method not in letters:
        raise ValueError(f"`method` is {method!r}, but must be one of {sorted(letters)}.")
    if len(source_words) != len(target_words):
        raise ValueError(
            f"The two sides must hold the same sentences, got {len(source_words)} and {len(target_words)}."
        )
    words = ([list(words) for words in side] for side in (source_words, target_words))
    key = fingerprint([*words, encoder_fingerprint(encoder), layer, method])
    cached = None if cache_dir is None else Path(cache_dir) / f"alignment-{key[:20]}.json"
    if cached is not None and cached.is_file():
        stored = read_json(cached)
        if stored["fingerprint"] == key:
            return [[tuple(link) for link in links] for links in stored["links"]]
    try:
        from simalign import SentenceAligner
    except ImportError as error:
        raise ImportError(
            "Word alignment needs SimAlign, which is not installed: `pip install sensia[analysis]`."
        ) from error
    try:
        aligner = SentenceAligner(
            model=str(encoder), token_type="bpe", matching_methods=letters[method], device=device, layer=layer
        )
    except OSError as error:
        raise ValueError(
            f"`encoder` is {str(encoder)!r}, which cannot be loaded ({' '.join(str(error).split())}). Give the folder "
            "of a multilingual encoder, or its id on the Hub."
        ) from error
    tokenize = aligner.embed_loader.tokenizer.tokenize
    room = aligner.embed_loader.emb_model.config.max_position_embeddings - 4  # special tokens and XLM-R's offset
    links = []
    pairs = zip(source_words, target_words)
    for source, target in tqdm(pairs, total=len(source_words), desc="aligning words", disable=not progress):
        lengths = [sum(len(tokenize(word)) for word in words) for words in (source, target)]
        # Nothing to align, or longer than the encoder reads: no links rather than an error in the middle of a corpus.
        usable = min(lengths) > 0 and max(lengths) <= room
        links.append(aligner.get_word_aligns(list(source), list(target))[method] if usable else [])
    if cached is not None:
        content = {"fingerprint": key, "encoder": str(Path(encoder).name), "layer": layer, "method": method}
        write_json(cached, content | {"links": links}, indent=None)
    return [[tuple(link) for link in sentence] for sentence in links]


def _list_codes(language: str) -> list[str]:
    """The codes by which a list of words or a pipeline may go for a language, in whatever script it is written."""
    row = find_language(language)
    return codes_of(row.code.partition("_")[0]) if row else [language]


def installed_tagger(language: str) -> tuple[Callable[[Sequence[str]], list[str]], str] | None:
    """A part-of-speech tagger of spaCy for a language code and its name, or None where no pipeline is installed.

    The tagger maps the words of a sentence to Universal POS tags.
    """
    if importlib.util.find_spec("spacy") is None:
        return None
    import spacy

    codes = _list_codes(language)
    names = sorted(name for name in spacy.util.get_installed_models() if name.split("_")[0] in codes)
    if not names:
        return None
    pipeline = spacy.load(names[0])

    def tag(words):
        return [token.pos_ for token in pipeline(spacy.tokens.Doc(pipeline.vocab, words=list(words)))]

    return tag, f"spaCy {names[0]}"


def content_words(sentences: Sequence[Sequence[str]], language: str) -> tuple[list[list[bool]], str]:
    """Which words are content words, and by what means that was decided.

    Nouns, verbs and adjectives where a tagger is installed for the language. Otherwise every word of at least two
    letters (one, for Chinese characters and the like) that is not a stop word; without a stop-word list every such
    word.

    Args:
        sentences: The words of each sentence.
        language (`str`): Any of its codes.

    Returns:
        `tuple[list[list[bool]], str]`: a flag for each word, and the method, to be kept with the result.
    """
    tagger = installed_tagger(language)
    if tagger is not None:
        tag, name = tagger
        flags = [[pos in CONTENT_TAGS for pos in tag(words)] if words else [] for words in sentences]
        return flags, f"tagger {name}: {', '.join(sorted(CONTENT_TAGS))}"
    stop_words, method = _stop_words(language)
    return [[_is_word(word) and word.casefold() not in stop_words for word in words] for words in sentences], method


def _stop_words(language: str) -> tuple[frozenset[str], str]:
    if importlib.util.find_spec("stopwordsiso") is None:
        return frozenset(), "no tagger and no stop-word list (stopwordsiso is not installed): all words kept"
    import stopwordsiso

    code = next(filter(stopwordsiso.has_lang, _list_codes(language)), None)
    if code is None:
        return frozenset(), f"no tagger and no stop-word list for {language!r}: all words kept"
    words = frozenset(word.casefold() for word in stopwordsiso.stopwords(code))
    return words, f"stop words of stopwordsiso {version('stopwordsiso')} ({len(words)} for {code!r})"


def _is_word(word: str) -> bool:
    """At least two letters, with marks and inner hyphens and apostrophes; one letter where a character is a word."""
    if UNSPACED_WORD.fullmatch(word):
        return True
    return _LETTERS.fullmatch(word) is not None and sum(character.isalpha() for character in word) > 1


def aligned_content_words(
    source: Sequence[Sequence[Word]],
    target: Sequence[Sequence[Word]],
    links: Sequence[Sequence[Link]],
    source_language: str,
    target_language: str,
    *,
    minimum_count: int = 5,
) -> tuple[list[AlignedPair], dict]:
    """One-to-one links between content words that are frequent enough on their own side.

    Args:
        source, target: The words of each sentence.
        links: As `align_words` returns.
        minimum_count (`int`, defaults to 5): Occurrences, ignoring case, that both words need in their own side.

    Returns:
        `tuple[list[AlignedPair], dict]`: the pairs, and `links`, `one_to_one`, `content`, `pairs` (how many were left
        after each step), `sentences_without_pairs`, `minimum_count`, and the method of each side's content filter.

    Raises:
        `ValueError`: If no pair is left.
    """
    sides = [[[word.text for word in sentence] for sentence in side] for side in (source, target)]
    flags, methods = zip(*(content_words(*side) for side in zip(sides, (source_language, target_language))))
    counts = [Counter(word.casefold() for sentence in side for word in sentence) for side in sides]
    totals = Counter(links=0, one_to_one=0, content=0)
    pairs = []
    for sentence, sentence_links in enumerate(links):
        single = one_to_one(sentence_links)
        content = [(i, j) for i, j in single if flags[0][sentence][i] and flags[1][sentence][j]]
        totals += Counter(links=len(sentence_links), one_to_one=len(single), content=len(content))
        for i, j in content:
            occurrences = [count[side[sentence][k].casefold()] for count, side, k in zip(counts, sides, (i, j))]
            if min(occurrences) >= minimum_count:
                pairs.append(AlignedPair(sentence, i, j))
    if not pairs:
        raise ValueError(
            f"No aligned content words are left of {totals['links']} links in {len(links)} sentence pairs "
            f"({totals['one_to_one']} one-to-one, {totals['content']} between content words). Use more sentences, "
            f"lower `minimum_count` (now {minimum_count}), or another encoder layer."
        )
    statistics = {name: totals[name] for name in ("links", "one_to_one", "content")}
    statistics |= {
        "pairs": len(pairs),
        "sentences": len(links),
        "sentences_without_pairs": len(links) - len({pair.sentence for pair in pairs}),
        "minimum_count": minimum_count,
        "source_filter": methods[0],
        "target_filter": methods[1],
    }
    return pairs, statistics
