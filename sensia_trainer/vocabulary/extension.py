"""A model and its tokenizer get words of the target language, with the senses of their translations."""

import os
import shutil
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import regex
import torch
from filelock import FileLock
from safetensors.numpy import load_file, save_file
from scipy import sparse
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from ..bitext.columns import texts
from ..evaluation.batching import evaluating
from ..languages import language
from ..utils.files import METRICS_FILE, read_json, write_json
from ..utils.models import json_of, rows_needed
from .settings import METHODS
from .tokenizer import continue_tokenizer
from .transfer import add_rows, check_model, mixtures
from .translation import best_translations, learn_translations, read_dictionary


logger = logging.get_logger(__name__)

REPORT_FILE, MIXTURE_FILE = "vocabulary.json", "mixture.safetensors"
CSR = ("data", "indices", "indptr")
FEW_PAIRS = 1000
MAX_PAIRS = 250_000  # that translations are learned from; of more, so many are drawn
SAMPLE = 5_000
# A word is sure of its meaning where its best translation has at least so much of the probability.
SURE = 0.5
SHOWN_WORDS, SHOWN_TRANSLATIONS = 24, 5
# Scripts that Unicode counts by their parts, or as a kind of another.
_SCRIPTS = {"Hans": "Hani", "Hant": "Hani", "Jpan": "Hani|Hira|Kana", "Kore": "Hang|Hani", "Aran": "Arab"}
_SCRIPTS |= {"Cyrs": "Cyrl", "Latf": "Latn", "Latg": "Latn", "Syre": "Syrc", "Syrj": "Syrc", "Syrn": "Syrc"}


class Extension(NamedTuple):
    """
    What a model needs to know new words; the same from the same pairs, and kept in a folder by [`save_extension`].

    Attributes:
        tokenizer (`PreTrainedTokenizerFast`): The continued tokenizer.
        mixture (`scipy.sparse.csr_array` of shape `(new words, old tokens)`): What the rows of the new words are made
            of; `None` for the mean of all rows.
        report (`dict`): JSON-able, see [`extend_vocabulary`].
    """

    tokenizer: PreTrainedTokenizerFast
    mixture: sparse.csr_array | None
    report: dict


def extend_vocabulary(model, tokenizer, pairs, size, **settings):
    """
    Give a causal language model `size` words of another language, from sentence pairs.

    The tokenizer is continued on the target sentences ([`continue_tokenizer`]), translations are learned from the
    pairs ([`learn_translations`]), and the rows of the new words are made of those of their translations
    ([`add_rows`]). Nothing is changed before everything is known: an error leaves the model as it was.

    Args:
        model (`PreTrainedModel`): A causal language model, with senses or without; changed in place.
        tokenizer (`PreTrainedTokenizerFast`): Its tokenizer; a new one is returned.
        pairs (`Dataset`): Training pairs, with a column `translation`.
        size (`int`): Number of new words.
        settings: Of [`learn_extension`]; `target_language` is needed.

    Returns:
        `PreTrainedTokenizerFast` and a report (`dict`, JSON-able): what [`continue_tokenizer`] reports; `first_token`,
        the id of the first new word; `method`; under `translations` what [`learn_translations`] reports,
        `translated_words` (share of the new words with a translation) and `sure_words` (share whose best translation
        has at least half of the probability); `words`, some of them with their translations; `warnings`.

    Raises:
        `ValueError`: for a tokenizer or a model that cannot be extended, or a dictionary without a word of the new
            vocabulary.
    """
    check_model(model, rows_needed(tokenizer))
    extension = learn_extension(tokenizer, pairs, size, **settings)
    apply_extension(model, extension)
    return extension.tokenizer, extension.report


def apply_extension(model, extension):
    """Give a model the rows of the words of an [`Extension`]; changed in place."""
    first = extension.report["first_token"]
    check_model(model, rows_needed(extension.tokenizer, below=first))
    add_rows(model, extension.mixture, first, extension.report["new_tokens"])


def first_new(tokenizer) -> int:
    """The id of the first word that a continued tokenizer would get."""
    return max(tokenizer.get_vocab().values()) + 1


def learn_extension(
    tokenizer,
    pairs,
    size,
    *,
    source_language="en",
    target_language,
    method="translation",
    dictionary=None,
    max_source_change=0.0,
    protected=(),
    leave_out=0.0,
    seed=0,
    progress=False,
):
    """
    New words and what they are made of.

    Args:
        tokenizer (`PreTrainedTokenizerFast`): The tokenizer to continue.
        pairs (`Dataset`): Training pairs, with a column `translation`.
        size (`int`): Number of new words.
        source_language, target_language (`str`): Their keys in `translation`.
        method (`str`, *optional*, defaults to `"translation"`): Where rows start: `"translation"`, `"parts"` (the
            tokens that spelled the word before) or `"mean"` (of all rows).
        dictionary (`str`, *optional*): A file of word pairs besides, see [`read_dictionary`].
        max_source_change (`float`, *optional*, defaults to 0.0): See [`continue_tokenizer`].
        protected (`Sequence[str]`, *optional*): Texts of further languages that are to be cut as before.
        leave_out (`float`, *optional*, defaults to 0.0): Share of the words that are not given their translations.
        seed (`int`, *optional*, defaults to 0): Of the pairs by which translations are judged, and the words left out.
        progress (`bool`, *optional*, defaults to `False`): Whether to show progress.

    Returns:
        [`Extension`]

    Raises:
        `ValueError`: for a tokenizer that cannot be continued, or a dictionary without a word of the new vocabulary.
    """
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {METHODS}, got {method!r}.")
    first = first_new(tokenizer)
    source, target = (texts(pairs, side).to_pylist() for side in (source_language, target_language))
    warnings = _other_script(target, target_language)

    new, report = continue_tokenizer(
        tokenizer, source, target, size, protected=protected, max_source_change=max_source_change, progress=progress
    )
    number = report["new_tokens"]
    if number < size:
        warnings.append(f"Of {size} new words asked for, the text feeds {number}.")
    tokens = range(first, first + number)
    words = new.convert_ids_to_tokens(list(tokens))
    spellings = [[part.id for part in tokenizer.backend_tokenizer.model.tokenize(word)] for word in words]

    translations = None
    report |= {"first_token": first, "method": method, "source": source_language}
    if method == "translation":
        known, entries = [], 0
        if dictionary is not None:
            known, entries = _known_entries(new, read_dictionary(dictionary), first, dictionary)
        rows = range(len(source)) if len(source) <= MAX_PAIRS else _drawn(len(source), seed)
        source_ids, target_ids = (_encode(new, [side[row] for row in rows]) for side in (source, target))
        table, facts = learn_translations(
            source_ids,
            target_ids,
            first + number,
            dictionary=known,
            seed=seed,
            progress=progress,
        )
        translations = best_translations(table, list(tokens))[:, :first]
        best = translations.max(axis=1).toarray().ravel()
        shares = {"translated_words": float(np.mean(best > 0)), "sure_words": float(np.mean(best >= SURE))}
        counts = np.histogram(best, bins=10, range=(0, 1))[0].tolist()
        facts |= {"dictionary_entries": entries}  # in how many spellings however
        report |= {"translations": facts | shares | {"best_probability_counts": counts}}
        if leave_out:
            given = np.random.default_rng(seed).random(number) >= leave_out
            translations = sparse.csr_array(sparse.diags_array(given.astype(np.float64)) @ translations)
            translations.eliminate_zeros()
            report["translations"] |= {"left_out_words": int(np.sum(~given & (best > 0)))}
        if len(source) < FEW_PAIRS:
            more = "More pairs would help." if dictionary else "A dictionary of word pairs or more pairs would help."
            warnings.append(
                f"The bitext has {len(source)} pairs, which teach little about the meanings of words: "
                f"{np.sum(best >= SURE)} of {number} new words are sure of theirs. {more}"
            )
    report |= {"words": _shown(new, tokens, translations), "warnings": warnings}
    for warning in warnings:
        logger.warning(warning)
    return Extension(new, mixtures(method, spellings, translations, first), report)


def save_extension(extension, folder):
    """Keep an [`Extension`] in a folder, which is there whole or not at all."""
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=".vocabulary-") as temporary:
        made = Path(temporary) / "made"
        extension.tokenizer.save_pretrained(made)
        if extension.mixture is not None:
            parts = {name: np.ascontiguousarray(getattr(extension.mixture, name)) for name in CSR}
            save_file(parts, made / MIXTURE_FILE)
        write_json(made / REPORT_FILE, extension.report)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(made, folder)


def load_extension(folder):
    """
    The [`Extension`] in a folder.

    Raises:
        `ValueError`: if there is none.
    """
    folder = Path(folder)
    if not (folder / REPORT_FILE).is_file():
        raise ValueError(f"{str(folder)!r} holds no new vocabulary (there is no {REPORT_FILE} in it).")
    report, mixture = read_json(folder / REPORT_FILE), None
    if (folder / MIXTURE_FILE).is_file():
        parts = load_file(folder / MIXTURE_FILE)
        shape = (report["new_tokens"], report["first_token"])
        mixture = sparse.csr_array(tuple(parts[name] for name in CSR), shape=shape)
    return Extension(PreTrainedTokenizerFast.from_pretrained(folder), mixture, report)


def learned_before(folder, learn):
    """The [`Extension`] in a folder; where there is none, what `learn()` gives, which is then kept there. Of several
    processes that ask, one learns and the others wait."""
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(folder.name + ".lock")):
        if not (folder / REPORT_FILE).is_file():
            save_extension(learn(), folder)
    return load_extension(folder)


def words_added(model) -> range:
    """Ids of the words that `sensia vocabulary` or an adaptation gave a model (folder or Hub id), in one call or in
    several; none for any other."""
    report = _report_of(model)
    first = report.get("first_token", 0)
    return range(first - report.get("earlier_words", 0), first + report.get("new_tokens", 0))


def with_earlier_words(report: dict, model) -> dict:
    """A report about new words, with the number of those that the model (folder or Hub id) had been given before."""
    earlier = words_added(model)
    return report | {"earlier_words": report["first_token"] - earlier.start} if earlier else report


def keep_report(model, folder) -> None:
    """Write into a folder that was made of a model (folder or Hub id) which words that one was given, if any."""
    if words_added(model):
        write_json(Path(folder) / REPORT_FILE, _report_of(model))


def _report_of(model) -> dict:
    """What a model knows of its new words: the report of `sensia vocabulary`, or that in an adaptation's metrics."""
    for report in (json_of(model, REPORT_FILE), json_of(model, METRICS_FILE).get("vocabulary")):
        if isinstance(report, dict) and "first_token" in report:
            return report
    return {}


def sense_votes(model, tokenizer, tokens, *, number=5):
    """
    The words that the senses of words vote for: those most often among the three best of a sense.

    Args:
        model ([`BackpackForCausalLM`]): A model with senses.
        tokenizer (`PreTrainedTokenizerFast`): Its tokenizer.
        tokens (`Sequence[int]`): The words.
        number (`int`, *optional*, defaults to 5): Words voted for.

    Returns:
        `list[list[str]]`: for each token the words, most votes first.
    """
    if not len(tokens):
        return []
    with evaluating(model):
        words = torch.tensor(list(tokens))
        scores, voted = model.nearest_words(model.get_senses(words), top_k=3)
    votes = []
    for word_scores, words in zip(scores.flatten(1).tolist(), voted.flatten(1).tolist(), strict=True):
        count: Counter = Counter(words)
        best: dict = {}
        for score, word in zip(word_scores, words, strict=True):
            best[word] = max(score, best.get(word, score))
        order = sorted(count, key=lambda word: (-count[word], -best[word]))
        votes.append([_text(tokenizer, word) for word in order[:number]])
    return votes


def with_votes(report, model, tokenizer, when):
    """A report whose `words` also say, under `votes_{when}`, what their senses vote for; as it is without senses."""
    if not hasattr(model, "get_senses"):
        return report
    if "languages" in report:
        votes = {code: with_votes(one, model, tokenizer, when) for code, one in report["languages"].items()}
        return report | {"languages": votes}
    votes = sense_votes(model, tokenizer, [word["token"] for word in report["words"]])
    words = [word | {f"votes_{when}": vote} for word, vote in zip(report["words"], votes, strict=True)]
    return report | {"words": words}


def _other_script(texts, code):
    """A warning (in a list) where the letters of texts are not those of the language."""
    row = language(code)
    names = "|".join(rf"\p{{Script={name}}}" for name in _SCRIPTS.get(row.script, row.script).split("|"))
    text = "".join(texts[:: -(-len(texts) // SAMPLE)])
    try:
        letters, own = len(regex.findall(r"\p{L}", text)), len(regex.findall(rf"(?=\p{{L}})(?:{names})", text))
    except regex.error:  # a script that Unicode has no letters of
        return []
    if 2 * own >= letters:
        return []
    return [
        f"Of the letters of the target text only {own / letters:.0%} are of the script of {row.name} ({row.script}): "
        "is `target_language` right, and the column?"
    ]


def _drawn(number, seed):
    """`MAX_PAIRS` of `number` rows, in order."""
    return np.sort(np.random.default_rng(seed).permutation(number)[:MAX_PAIRS]).tolist()


def _encode(tokenizer, texts):
    """Token ids (`list[np.ndarray]`) of texts, without special tokens."""
    ids = []
    for start in range(0, len(texts), SAMPLE):
        batch = tokenizer.backend_tokenizer.encode_batch(texts[start : start + SAMPLE], add_special_tokens=False)
        ids += [np.array(encoding.ids, dtype=np.int64) for encoding in batch]
    return ids


def _known_entries(tokenizer, entries, first, path):
    """Token ids of the entries of a dictionary whose target word is a new token, inside a text, at its start or with a
    capital; and the number of entries of which one is."""
    rows: dict = {}  # of each spelling
    for spell in (lambda word: f" {word}", str, lambda word: f" {word.capitalize()}"):
        for row, (s, t) in enumerate(entries):
            rows.setdefault((spell(s), spell(t)), row)
    source, target = (_encode(tokenizer, list(side)) for side in zip(*rows, strict=True))
    found = [(row, s, t) for row, s, t in zip(rows.values(), source, target, strict=True) if len(t) == 1 and len(s)]
    known = [(row, s, t) for row, s, t in found if t[0] >= first]
    if not known:
        raise ValueError(
            f"The dictionary {str(path)!r} has no word of the new vocabulary. Its first column is the source "
            f"language, its second the target language; the first entry is {entries[0]}."
        )
    return [(s, t) for _, s, t in known], len({row for row, _, _ in known})


def _shown(tokenizer, tokens, translations):
    """Up to `SHOWN_WORDS` new words at equal distances, and their translations with probabilities."""
    whole = [token for token in tokens if "\ufffd" not in _text(tokenizer, token)]
    words = []
    for token in whole[:: max(1, -(-len(whole) // SHOWN_WORDS))]:
        word = {"token": token, "word": _text(tokenizer, token)}
        if translations is not None:
            row = translations[[token - tokens[0]]].tocoo()
            best = sorted(zip(row.data.tolist(), row.col.tolist(), strict=True), reverse=True)[:SHOWN_TRANSLATIONS]
            word["translations"] = [[_text(tokenizer, source), round(p, 3)] for p, source in best]
        words.append(word)
    return words


def _text(tokenizer, token):
    return tokenizer.decode([token], clean_up_tokenization_spaces=False).strip()
