"""Everyday words and their translations: the words that senses are compared with."""

import csv
from functools import cache
from pathlib import Path

from ..bitext.sources import load_bitext
from ..languages import language


WORDS = Path(__file__).with_name("words.tsv")  # one meaning a row, one language a column
SOURCE = "en"


@cache
def known_languages() -> tuple[str, ...]:
    """Codes of the languages whose everyday words come with the package."""
    with WORDS.open(encoding="utf-8", newline="") as file:
        return tuple(next(csv.reader(file, delimiter="\t")))


def word_pairs(source: str, target: str, path=None) -> list[tuple[str, str]]:
    """Words and their translations.

    Args:
        source, target (`str`): Codes of the two languages.
        path (*optional*): Any bitext that [`~sensia_trainer.bitext.sources.load_bitext`] reads, of words; by default
            the everyday words that come with the package.

    Returns:
        `list[tuple[str, str]]`, each once; empty where the package has no words of one of the languages.

    Raises:
        `ValueError`: If `path` cannot be read or does not hold both languages.
    """
    source, target = language(source).code, language(target).code
    if path is None and not {source, target} <= set(known_languages()):
        return []
    rows = load_bitext(str(path or WORDS), source, target)["translation"]
    pairs = ((" ".join(row[source].split()), " ".join(row[target].split())) for row in rows)
    return list(dict.fromkeys(pair for pair in pairs if all(pair)))
