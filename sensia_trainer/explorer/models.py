"""The models that the page shows: loaded whole, with their languages, their words and the model they began as."""

from functools import cached_property
from pathlib import Path

import numpy as np
from transformers.utils import logging

from modeling_backpack.sentence_backpack import SETTINGS_FILE, BackpackSentenceVectors

from ..analysis.words import word_senses
from ..languages import language
from ..utils.files import DELTA_FILE, METRICS_FILE, read_json
from ..utils.models import json_of, load_model, load_tokenizer
from ..utils.recipes import find_model
from .words import SOURCE, word_pairs


logger = logging.get_logger(__name__)


class Explored:
    """A model with senses, and what is compared with it.

    Args:
        name (`str`): What it is called on the page.
        model ([`BackpackForCausalLM`]), tokenizer: Of each other; with character offsets.
        languages (`tuple[str, ...]`): Codes of its source and, where there is one, of its target language.
        pairs (`list[tuple[str, str]]`): Words of both languages.
        settings (`dict`, *optional*): Of [`BackpackSentenceVectors`].
    """

    def __init__(self, name, model, tokenizer, languages, pairs, settings=None):
        self.name, self.model, self.tokenizer = name, model, tokenizer
        self.languages, self.pairs = languages, pairs
        self.sentences = BackpackSentenceVectors(model.backpack, tokenizer, **(settings or {})).eval()

    def language_name(self, side: int) -> str:
        """English name of the source (0) or target language (1)."""
        return language(self.languages[side]).name

    @cached_property
    def known_words(self) -> list[tuple[list[str], list[tuple[int, ...]], np.ndarray]]:
        """For each language its words, how they are spelled in tokens, and their senses `(words, K, d)`."""
        known = []
        for side in range(len(self.languages)):
            words = list(dict.fromkeys(pair[side] for pair in self.pairs))
            spellings = [spelling(self.tokenizer, word) for word in words]
            senses = word_senses(self.model, spellings) if words else np.empty((0, self.model.config.num_senses, 1))
            known.append((words, spellings, senses))
        return known


def spelling(tokenizer, word: str) -> tuple[int, ...]:
    """Token ids of a word as it stands in a sentence: behind a space, unless that takes more tokens."""
    inside, alone = (
        tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in (f" {word}", word)
    )
    return tuple(inside if len(inside) <= len(alone) else alone)


def load_explored(names, *, target_language=None, words=None, base=None) -> tuple[list[Explored], Explored | None]:
    """Load the models to look at, and the one that they began as.

    Args:
        names (`list[str]`): Folders, Hub ids, or models that come with the package.
        target_language (`str`, *optional*): Code of the other language, where a model does not say it itself, or has
            several: then it is the first.
        words (*optional*): Bitext of words, see [`~sensia_trainer.explorer.words.word_pairs`].
        base (`str`, *optional*): Model before adaptation; by default the one that the first model names, where it is
            at hand.

    Returns:
        `tuple[list[Explored], Explored | None]`

    Raises:
        `ValueError`: for what is no model or has no senses.
    """
    facts = {name: json_of(name, METRICS_FILE) for name in names}
    target = target_language or next(filter(None, map(_target, facts.values())), None)
    source = next(((fact.get("languages") or {}).get("source") for fact in facts.values() if fact), None) or SOURCE
    explored = []
    for name, fact in facts.items():
        own = target_language or _target(fact) or target
        explored.append(_load(name, tuple(filter(None, (source, own))), words))
    if target is None:
        logger.warning("No model says what language it was adapted to: name it by `--target_language`.")
    before = base or next(filter(None, (base_at_hand(name, fact) for name, fact in facts.items())), None)
    if before is None:
        return explored, None
    same = [
        one
        for one, name in zip(explored, facts)
        if Path(find_model(name)).resolve() == Path(find_model(before)).resolve()
    ]
    return explored, same[0] if same else _load(before, explored[0].languages, words)


def _load(name, languages, words) -> Explored:
    model = load_model(name)
    if not hasattr(model, "get_senses"):
        raise ValueError(
            f"{str(name)!r} is a {type(model).__name__}, which has no senses. `sensia induce` gives a language model "
            "senses; models on the Hub that have them are Backpacks."
        )
    tokenizer = load_tokenizer(name, model)
    if not tokenizer.is_fast:
        raise ValueError(
            f"The tokenizer of {str(name)!r} gives no character offsets; save a `tokenizer.json` with it."
        )
    pairs = word_pairs(*languages, words) if len(languages) == 2 else [(w, w) for w, _ in word_pairs(SOURCE, "id")]
    if not pairs:
        logger.warning(
            f"The package has no words of {language(languages[1]).name} to compare with: name a file by `--words`."
        )
    settings = json_of(name, SETTINGS_FILE)
    return Explored(Path(find_model(name)).name, model, tokenizer, languages, pairs, settings)


def _target(metrics: dict) -> str | None:
    """The target language that a model's results name; of several, the first."""
    languages = metrics.get("languages") or {}
    return languages.get("target") or next(iter(languages.get("targets") or []), None)


def base_at_hand(name, metrics: dict) -> str | None:
    """The base model that a model's results name, where it has senses and its folder is here, beside the model, or in
    the package."""
    base = metrics.get("base_model")
    if not isinstance(base, str) or not base:
        return None
    own = Path(find_model(name)).resolve()
    places = [own.parent / Path(base).name, Path(base), Path(find_model(Path(base).name))]
    return next((str(place) for place in places if place.resolve() != own and _has_senses(place)), None)


def _has_senses(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and not (folder / DELTA_FILE).is_file() and "num_senses" in read_json(config)
